//! Semantic versions as `golang.org/x/mod/semver` has them: with a leading `v`, numbers of any length, build metadata without
//! weight.

use std::cmp::Ordering;

/// The parts of a semantic version, borrowed from its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Parts<'a> {
    pub(crate) major: &'a str,
    pub(crate) minor: &'a str,
    pub(crate) patch: &'a str,
    /// With its leading `-`, or empty.
    pub(crate) prerelease: &'a str,
    /// With its leading `+`, or empty.
    pub(crate) build: &'a str,
    /// Whether it was written short, as `v1` or `v1.2`.
    pub(crate) short: bool,
}

/// Splits a semantic version; `None` where it is not one (`semver.IsValid`).
pub(crate) fn parts(text: &str) -> Option<Parts<'_>> {
    let rest = text.strip_prefix('v')?;
    let (major, rest) = number(rest)?;
    if rest.is_empty() {
        return Some(Parts { major, minor: "0", patch: "0", prerelease: "", build: "", short: true });
    }
    let (minor, rest) = number(rest.strip_prefix('.')?)?;
    if rest.is_empty() {
        return Some(Parts { major, minor, patch: "0", prerelease: "", build: "", short: true });
    }
    let (patch, rest) = number(rest.strip_prefix('.')?)?;
    let (prerelease, build) = rest.split_at(rest.find('+').unwrap_or(rest.len()));
    let pre_ok = prerelease.is_empty() || identifiers(prerelease.strip_prefix('-')?, true);
    let build_ok = build.is_empty() || identifiers(&build[1..], false);
    (pre_ok && build_ok).then_some(Parts { major, minor, patch, prerelease, build, short: false })
}

/// The canonical form: whole, and without build metadata (`semver.Canonical`); `None` where the text is no version.
pub(crate) fn canonical(text: &str) -> Option<String> {
    let p = parts(text)?;
    Some(format!("v{}.{}.{}{}", p.major, p.minor, p.patch, p.prerelease))
}

/// The same with a build metadata of `+incompatible` kept (`module.CanonicalVersion`).
pub(crate) fn canonical_module(text: &str) -> Option<String> {
    let mut canonical = canonical(text)?;
    if parts(text)?.build == "+incompatible" {
        canonical.push_str("+incompatible");
    }
    Some(canonical)
}

/// The major version with its `v` (`semver.Major`); empty where the text is no version.
pub(crate) fn major(text: &str) -> &str {
    parts(text).map_or("", |p| &text[..=p.major.len()])
}

/// Orders versions; what is none is lower than all, and metadata does not count (`semver.Compare`).
pub(crate) fn compare(a: &str, b: &str) -> Ordering {
    match (parts(a), parts(b)) {
        (Some(a), Some(b)) => compare_parts(&a, &b),
        (a, b) => a.is_some().cmp(&b.is_some()),
    }
}

pub(super) fn compare_parts(a: &Parts<'_>, b: &Parts<'_>) -> Ordering {
    compare_numbers(a.major, b.major)
        .then_with(|| compare_numbers(a.minor, b.minor))
        .then_with(|| compare_numbers(a.patch, b.patch))
        .then_with(|| compare_prerelease(a.prerelease, b.prerelease))
}

/// Whether a module path's major version suffix allows a version (`module.CheckPathMajor`).
pub(crate) fn major_fits(suffix: &str, version: &str) -> bool {
    let suffix = suffix.strip_suffix("-unstable").unwrap_or(suffix);
    let major = major(version);
    match suffix.get(1..) {
        None => matches!(major, "v0" | "v1") || parts(version).is_some_and(|p| p.build == "+incompatible"),
        // An old pseudo-version bug at gopkg.in that x/mod still allows.
        Some("v1") if suffix.starts_with('.') && version.starts_with("v0.0.0-") => true,
        Some(wanted) => major == wanted,
    }
}

/// Leading digits without a superfluous zero, and what follows them.
fn number(text: &str) -> Option<(&str, &str)> {
    let end = text.bytes().position(|b| !b.is_ascii_digit()).unwrap_or(text.len());
    let digits = &text[..end];
    (end == 1 || (end > 1 && !digits.starts_with('0'))).then(|| (digits, &text[end..]))
}

fn identifiers(text: &str, no_leading_zeros: bool) -> bool {
    text.split('.').all(|id| {
        let numeric = id.bytes().all(|b| b.is_ascii_digit());
        !id.is_empty()
            && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !(no_leading_zeros && numeric && id.len() > 1 && id.starts_with('0'))
    })
}

/// Orders decimal numbers of any length.
pub(super) fn compare_numbers(a: &str, b: &str) -> Ordering {
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

/// Orders pre-release parts, each with its leading `-` or empty.
fn compare_prerelease(a: &str, b: &str) -> Ordering {
    // A version without a pre-release is higher than any with one.
    match (a.strip_prefix('-'), b.strip_prefix('-')) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Greater,
        (Some(_), None) => Ordering::Less,
        (Some(a), Some(b)) => {
            let (mut left, mut right) = (a.split('.'), b.split('.'));
            loop {
                let order = match (left.next(), right.next()) {
                    (None, None) => return Ordering::Equal,
                    (None, Some(_)) => Ordering::Less,
                    (Some(_), None) => Ordering::Greater,
                    (Some(x), Some(y)) => {
                        let numeric = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
                        match (numeric(x), numeric(y)) {
                            (true, true) => compare_numbers(x, y),
                            (true, false) => Ordering::Less,
                            (false, true) => Ordering::Greater,
                            (false, false) => x.cmp(y),
                        }
                    }
                };
                if order != Ordering::Equal {
                    return order;
                }
            }
        }
    }
}
