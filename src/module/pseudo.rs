//! Pseudo-versions: `v0.0.0-20191109021931-daa7c04131f5` and its kin (<https://go.dev/ref/mod#pseudo-versions>).

use super::semver::parts;

/// Whether a text is a pseudo-version (`module.IsPseudoVersion`).
pub(crate) fn is_pseudo(text: &str) -> bool {
    timestamp(text).is_some()
}

/// The commit time in a pseudo-version, as its fourteen digits `yyyymmddhhmmss`, which order as the times do.
pub(crate) fn timestamp(text: &str) -> Option<&str> {
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
}
