//! Lists of a chain made one, and the latest of it. Pure.

use crate::module::list::VersionList;
use crate::module::{Info, Query, Version, pseudo};

/// The union of lists.
pub fn merge(lists: impl IntoIterator<Item = VersionList>) -> VersionList {
    VersionList::from_versions(lists.into_iter().flat_map(|l| l.tagged.into_iter().chain(l.pseudo)))
}

/// The highest release, else the highest pre-release.
pub fn highest(tagged: &[Version]) -> Option<&Version> {
    tagged.iter().filter(|v| !v.is_prerelease()).max().or_else(|| tagged.iter().max())
}

/// What a query such as `v1` or `v1.2` names in a list.
pub fn highest_of_prefix<'a>(tagged: &'a [Version], query: &Query) -> Option<&'a Version> {
    let of_prefix = || tagged.iter().filter(|v| query.is_prefix_of(v));
    of_prefix().filter(|v| !v.is_prerelease()).max().or_else(|| of_prefix().max())
}

/// The latest of a module whose merged list has no tagged version: among what the upstreams call their latest, and the
/// pseudo-versions they list, a tagged one counts most, then the newest pseudo-version.
pub fn latest_untagged<'a>(pseudo: &'a [Version], offered: &'a [Info]) -> Option<&'a Version> {
    let candidates: Vec<&Version> = pseudo.iter().chain(offered.iter().map(|i| &i.version)).collect();
    let release = candidates.iter().filter(|v| !v.is_prerelease()).max();
    let prerelease = || candidates.iter().filter(|v| v.is_prerelease() && !v.is_pseudo()).max();
    let newest = || candidates.iter().filter(|v| v.is_pseudo()).max_by_key(|v| (pseudo::timestamp(v.as_str()), **v));
    release.or_else(prerelease).or_else(newest).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn versions(text: &str) -> Vec<Version> {
        text.split_whitespace().map(|v| Version::parse(v).expect("version")).collect()
    }

    fn info(version: &str) -> Info {
        Info::parse(format!(r#"{{"Version":"{version}"}}"#).into()).expect("info")
    }

    #[test]
    fn highest_is_a_release_where_there_is_one() {
        let high = |text: &str| highest(&versions(text)).map(ToString::to_string);
        assert_eq!(high("v1.2.0 v1.10.0 v1.9.0 v2.0.0-rc.1"), Some("v1.10.0".into()));
        assert_eq!(high("v0.1.0-beta v0.1.0-alpha"), Some("v0.1.0-beta".into()));
        assert_eq!(high(""), None);
    }

    #[test]
    fn prefixes() {
        let list = versions("v1.2.0 v1.2.9 v1.20.0 v1.3.0-rc.1 v2.0.0+incompatible");
        let named = |q: &str| highest_of_prefix(&list, &Query::parse(q).expect("query")).map(ToString::to_string);
        assert_eq!(named("v1"), Some("v1.20.0".into()));
        assert_eq!(named("v1.2"), Some("v1.2.9".into()));
        assert_eq!(named("v1.3"), Some("v1.3.0-rc.1".into()));
        assert_eq!(named("v2"), Some("v2.0.0+incompatible".into()));
        assert_eq!(named("v3"), None);
    }

    #[test]
    fn the_newest_pseudo_version_is_newest_by_time() {
        let pseudo = versions("v0.0.0-20200101000000-aaaaaaaaaaaa v1.0.1-0.20190101000000-bbbbbbbbbbbb");
        let newest = |offered: &[Info]| latest_untagged(&pseudo, offered).map(ToString::to_string);
        assert_eq!(newest(&[]).as_deref(), Some("v0.0.0-20200101000000-aaaaaaaaaaaa"));
        let newer = info("v0.0.0-20210101000000-cccccccccccc");
        assert_eq!(newest(std::slice::from_ref(&newer)).as_deref(), Some("v0.0.0-20210101000000-cccccccccccc"));
        assert_eq!(newest(&[newer, info("v0.1.0-pre")]).as_deref(), Some("v0.1.0-pre"));
        assert_eq!(latest_untagged(&[], &[]), None);
    }

    proptest! {
        #[test]
        fn merging_is_a_union_in_order(a in proptest::collection::vec((0_u8..4, 0_u8..4, 0_u8..4), 0..12),
                                       b in proptest::collection::vec((0_u8..4, 0_u8..4, 0_u8..4), 0..12)) {
            let list = |v: &[(u8, u8, u8)]| VersionList::from_versions(
                v.iter().map(|(x, y, z)| Version::parse(&format!("v{x}.{y}.{z}")).expect("version")));
            let merged = merge([list(&a), list(&b)]);
            prop_assert_eq!(&merged, &merge([list(&b), list(&a)]));
            prop_assert!(merged.tagged.windows(2).all(|w| w[0] < w[1]));
            let mut union: Vec<_> = a.iter().chain(&b).collect();
            union.sort_unstable();
            union.dedup();
            prop_assert_eq!(merged.tagged.len(), union.len());
        }
    }
}
