//! Pseudo-versions: `v0.0.0-20191109021931-daa7c04131f5` and its kin (<https://go.dev/ref/mod#pseudo-versions>).

use jiff::Timestamp;
use jiff::tz::Offset;

use super::semver::{canonical, parts};

/// Whether a text is a pseudo-version (`module.IsPseudoVersion`).
pub fn is_pseudo(text: &str) -> bool {
    timestamp(text).is_some()
}

/// The commit time in a pseudo-version, as its fourteen digits `yyyymmddhhmmss`, which order as the times do.
pub fn timestamp(text: &str) -> Option<&str> {
    let parts = parts(text).filter(|p| !p.short)?;
    let (base, revision) = parts.prerelease.strip_prefix('-')?.rsplit_once('-')?;
    if revision.is_empty() || !revision.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return None;
    }
    // Forms: "TIME" on vX.0.0, "0.TIME" after a release, "pre.0.TIME" after a pre-release.
    let (before, time) = match base.rsplit_once('.') {
        Some((before, time)) => (Some(before), time),
        None => (None, base),
    };
    if time.len() != 14 || !time.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let fits = match before {
        None => parts.minor == "0" && parts.patch == "0",
        Some(before) => before == "0" || before.ends_with(".0"),
    };
    fits.then_some(time)
}

/// What a pseudo-version says.
#[derive(Debug, PartialEq, Eq)]
pub struct Pseudo<'t> {
    /// The version that it follows, with its metadata, or why it can have none (`module.PseudoVersionBase`); empty without a base.
    pub base: Result<String, String>,
    /// The commit's time, as fourteen digits.
    pub time: &'t str,
    /// The beginning of the commit's hash.
    pub revision: &'t str,
}

/// Takes a pseudo-version apart; `None` where it is none.
pub fn take_apart(text: &str) -> Option<Pseudo<'_>> {
    let time = timestamp(text)?;
    let p = parts(text)?;
    let (before, revision) = p.prerelease.rsplit_once('-')?;
    let stem = before.strip_suffix(time)?;
    Some(Pseudo { base: base(&p, stem), time, revision })
}

/// The base of a pseudo-version whose pre-release begins with `stem`: `-`, `-0.` or `-pre.0.`.
fn base(p: &super::semver::Parts<'_>, stem: &str) -> Result<String, String> {
    match stem.strip_suffix('.').unwrap_or_default() {
        "" if p.build.is_empty() => Ok(String::new()),
        "" => Err(format!("lacks base version, but has build metadata {:?}", p.build)),
        "-0" => match decrement(p.patch) {
            Some(patch) => Ok(format!("v{}.{}.{patch}{}", p.major, p.minor, p.build)),
            None => Err(format!("version before v{}.{}.{} would have negative patch number", p.major, p.minor, p.patch)),
        },
        pre => {
            let pre = pre.strip_suffix(".0").unwrap_or(pre);
            Ok(format!("v{}.{}.{}{pre}{}", p.major, p.minor, p.patch, p.build))
        }
    }
}

/// The version that names an untagged commit (`module.PseudoVersion`). `major` is `v2` and the like, or empty; `base` is the version
/// that it follows, or empty.
pub fn build(major: &str, base: &str, time: Timestamp, revision: &str) -> String {
    let tail = format!("{}-{revision}", digits_of(time));
    let major = if major.is_empty() { "v0" } else { major };
    let (Some(p), Some(plain)) = (parts(base), canonical(base)) else { return format!("{major}.0.0-{tail}") };
    if p.prerelease.is_empty() {
        format!("v{}.{}.{}-0.{tail}{}", p.major, p.minor, increment(p.patch), p.build)
    } else {
        format!("{plain}.0.{tail}{}", p.build)
    }
}

/// A time as pseudo-versions have it.
pub fn digits_of(time: Timestamp) -> String {
    Offset::UTC.to_datetime(time).strftime("%Y%m%d%H%M%S").to_string()
}

/// A decimal number of any length plus one.
fn increment(number: &str) -> String {
    let mut digits: Vec<u8> = number.bytes().collect();
    for digit in digits.iter_mut().rev() {
        if *digit < b'9' {
            *digit += 1;
            return String::from_utf8_lossy(&digits).into_owned();
        }
        *digit = b'0';
    }
    format!("1{}", String::from_utf8_lossy(&digits))
}

/// A decimal number of any length minus one; `None` for zero.
fn decrement(number: &str) -> Option<String> {
    let mut digits: Vec<u8> = number.bytes().collect();
    for digit in digits.iter_mut().rev() {
        if *digit > b'0' {
            *digit -= 1;
            let text = String::from_utf8_lossy(&digits).into_owned();
            let short = text.trim_start_matches('0');
            return Some(if short.is_empty() { "0".into() } else { short.to_owned() });
        }
        *digit = b'9';
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps() {
        assert_eq!(timestamp("v0.0.0-20191109021931-daa7c04131f5"), Some("20191109021931"));
        assert_eq!(timestamp("v1.2.4-0.20191109021931-daa7c04131f5"), Some("20191109021931"));
        assert_eq!(timestamp("v1.2.3-pre.0.20191109021931-daa7c04131f5"), Some("20191109021931"));
        assert_eq!(timestamp("v2.0.1-0.20191109021931-daa7c04131f5+incompatible"), Some("20191109021931"));
        assert_eq!(timestamp("v1.2.3"), None);
        assert_eq!(timestamp("v1.2.3-20191109021931-daa7c04131f5"), None);
    }

    #[test]
    fn pseudo_versions_are_made_and_taken_apart() {
        let time: Timestamp = "2006-01-02T15:04:05Z".parse().expect("time");
        for (major, base, made) in [
            ("", "", "v0.0.0-20060102150405-hash"),
            ("v2", "", "v2.0.0-20060102150405-hash"),
            ("", "v0.0.0", "v0.0.1-0.20060102150405-hash"),
            ("", "v1.2.99999999999999999", "v1.2.100000000000000000-0.20060102150405-hash"),
            ("", "v1.2.3-pre", "v1.2.3-pre.0.20060102150405-hash"),
            ("", "v0.0.0--", "v0.0.0--.0.20060102150405-hash"),
            ("", "v2.0.0+incompatible", "v2.0.1-0.20060102150405-hash+incompatible"),
            ("", "v2.3.0-pre+incompatible", "v2.3.0-pre.0.20060102150405-hash+incompatible"),
        ] {
            assert_eq!(build(major, base, time, "hash"), made);
            let wanted = Pseudo { base: Ok(base.into()), time: "20060102150405", revision: "hash" };
            assert_eq!(take_apart(made), Some(wanted), "{made}");
        }
        for none in ["v0.0.0-0.20060102150405-hash", "v0.1.0-0.20060102150405-hash", "v0.0.0-20060102150405-hash+incompatible"] {
            assert!(take_apart(none).is_some_and(|p| p.base.is_err()), "{none}");
        }
    }
}
