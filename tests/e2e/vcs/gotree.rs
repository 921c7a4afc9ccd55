//! The repositories of the Go tree's own tests, and what those tests expect of them (`modfetch/coderepo_test.go` and
//! `modfetch/codehost/git_test.go`).

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::rows::{Findings, ListRow, Row, compare, compare_lists};
use super::script::{Built, build};
use super::sides::{Root, Sides};
use crate::helpers::go_env;

/// Scripts that make no repository here, and what becomes of them.
const OTHERS: &[(&str, Built)] = &[("missingrepo", Built::Pages)];

/// Builds all of them, each in a folder of its own name.
fn build_all(root: &Path) {
    let scripts = Path::new(&go_env("GOROOT")).join("src/cmd/go/testdata/vcstest/git");
    let mut results = BTreeMap::new();
    for entry in fs::read_dir(scripts).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let result = build(&fs::read_to_string(&path).unwrap(), &root.join(&name));
        results.insert(name, result);
    }
    let wrong: Vec<String> = results
        .iter()
        .filter(|(name, result)| {
            let wanted = OTHERS.iter().find(|(other, _)| other == name).map_or(&Built::Repository, |(_, built)| built);
            result.as_ref() != Ok(wanted)
        })
        .map(|(name, result)| format!("{name}: {result:?}"))
        .collect();
    assert!(wrong.is_empty(), "scripts of the Go tree that did not do what they do elsewhere:\n{}", wrong.join("\n"));
    assert!(results.len() >= 27, "all scripts are there: {}", results.len());
}

/// Those that the tests find by pages.
const ROOTS: &[Root] = &[
    ("vcs-test.golang.org/go/mod/gitrepo1", "gitrepo1", ""),
    ("vcs-test.golang.org/go/gitreposubdir", "gitreposubdir", "foo/subdir"),
    ("vcs-test.golang.org/go/gitreposubdirv2", "gitreposubdirv2", "subdir"),
];

#[rustfmt::skip]
const ROWS: &[Row<'_>] = &[
    // coderepo_test.go, TestCodeRepo, in its order.
    ("github.com/rsc/vgotest1", "v0.0.0", "v0.0.0 h1:zVEjciLdlk/TPWCOyZo7k24T+tOKRQC+u8MKq/xS80I="),
    ("github.com/rsc/vgotest1", "v0.0.0-20180219231006-80d85c5d4d17", "v0.0.0-20180219231006-80d85c5d4d17 h1:nOznk2xKsLGkTnXe0q9t1Ewt9jxK+oadtafSUqHM3Ec="),
    ("github.com/rsc/vgotest1", "v0.0.1-0.20180219231006-80d85c5d4d17", "!invalid pseudo-version: tag (v0.0.0) found on revision 80d85c5d4d17 is already canonical, so should not be replaced with a pseudo-version derived from that tag"),
    ("github.com/rsc/vgotest1", "v1.0.0", "v1.0.0 h1:e040hOoWGeuJLawDjK9DW6med+cz9FxMFYDMOVG8ctQ="),
    ("github.com/rsc/vgotest1/v2", "v2.0.0", "!missing github.com/rsc/vgotest1/go.mod and .../v2/go.mod at revision v2.0.0"),
    ("github.com/rsc/vgotest1", "80d85c5", "v1.0.0 h1:e040hOoWGeuJLawDjK9DW6med+cz9FxMFYDMOVG8ctQ="),
    ("github.com/rsc/vgotest1", "mytag", "v1.0.0"),
    ("github.com/rsc/vgotest1/v2", "45f53230a", "!missing github.com/rsc/vgotest1/go.mod and .../v2/go.mod at revision v2.0.0"),
    ("github.com/rsc/vgotest1/v54321", "80d85c5", "!missing github.com/rsc/vgotest1/go.mod and .../v54321/go.mod at revision 80d85c5d4d17"),
    ("github.com/rsc/vgotest1/submod", "v1.0.0", "!unknown revision submod/v1.0.0"),
    ("github.com/rsc/vgotest1/submod", "v1.0.3", "!unknown revision submod/v1.0.3"),
    ("github.com/rsc/vgotest1/submod", "v1.0.4", "v1.0.4 h1:iMsJ/9uQsk6MnZNnJK311f11QiSlmN92Q2aSjCywuJY="),
    ("github.com/rsc/vgotest1", "v1.1.0", "v1.1.0 h1:M69k7q+8bQ+QUpHov45Z/NoR8rj3DsQJUnXLWvf01+Q="),
    ("github.com/rsc/vgotest1/v2", "v2.0.1", "v2.0.1 h1:QmgYy/zt+uoWhDpcsgrSVzYFvKtBEjl5zT/FRz9GTzA="),
    ("github.com/rsc/vgotest1/v2", "v2.0.3", "!github.com/rsc/vgotest1/v2/go.mod has non-.../v2 module path \"github.com/rsc/vgotest\" at revision v2.0.3"),
    ("github.com/rsc/vgotest1/v2", "v2.0.4", "!github.com/rsc/vgotest1/go.mod and .../v2/go.mod both have .../v2 module paths at revision v2.0.4"),
    ("github.com/rsc/vgotest1/v2", "v2.0.5", "v2.0.5 h1:RIEb9q1SUSEQOzMn0zfl/LQxGFWlhWEAdeEguf1MLGU="),
    ("vcs-test.golang.org/go/mod/gitrepo1", "master", "v1.2.4-annotated h1:YJYZRsM9BHFTlVr8YADjT0cJH8uFIDtoc5NLiVqZEx8="),
    ("vcs-test.golang.org/git/gitrepo1.git", "master", "v1.2.4-annotated"),
    ("vcs-test.golang.org/go/mod/gitrepo1", "v2.3.4+incompatible", "!resolves to version v2.0.1+incompatible (v2.3.4 is not a tag)"),
    ("vcs-test.golang.org/git/gitrepo1.git", "v2.3.4+incompatible", "!resolves to version v2.0.1+incompatible (v2.3.4 is not a tag)"),
    ("vcs-test.golang.org/git/semver-branch.git", "v1.0.0", "!resolves to version v0.1.1-0.20220202191944-09c4d8f6938c (v1.0.0 is not a tag)"),
    ("vcs-test.golang.org/git/semver-branch.git", "v2.0.0+incompatible", "!resolves to version v0.1.0 (v2.0.0 is not a tag)"),
    ("vcs-test.golang.org/git/semver-branch.git", "v2.0.0", "!resolves to version v0.1.0 (v2.0.0 is not a tag)"),
    ("vcs-test.golang.org/git/semver-branch.git", "v3.0.0-devel", "!resolves to version v0.1.1-0.20220203155313-d59622f6e4d7 (v3.0.0-devel is not a tag)"),
    ("vcs-test.golang.org/git/v2sub.git", "80beb17a1603", "v0.0.0-20220222205507-80beb17a1603"),
    ("vcs-test.golang.org/git/v2sub.git", "v2.0.0", "!module contains a go.mod file, so module path must match major version (\"vcs-test.golang.org/git/v2sub.git/v2\")"),
    ("vcs-test.golang.org/git/v2sub.git", "v2.0.1-0.20220222205507-80beb17a1603", "!module contains a go.mod file, so module path must match major version (\"vcs-test.golang.org/git/v2sub.git/v2\")"),
    ("vcs-test.golang.org/git/v2sub.git", "v2.0.0+incompatible", "v2.0.0+incompatible"),
    ("vcs-test.golang.org/git/v2sub.git", "v2.0.1-0.20220222205507-80beb17a1603+incompatible", "v2.0.1-0.20220222205507-80beb17a1603+incompatible"),
    ("vcs-test.golang.org/git/odd-tags.git", "v0.1.0+build-metadata", "v0.1.1-0.20220223184835-9d863d525bbf"),
    ("vcs-test.golang.org/git/odd-tags.git", "9d863d525bbf", "v0.1.1-0.20220223184835-9d863d525bbf"),
    ("vcs-test.golang.org/git/odd-tags.git", "latest", "v0.1.1-0.20220223184835-9d863d525bbf"),
    ("vcs-test.golang.org/git/odd-tags.git", "v2.0.0+incompatible", "!unknown revision v2.0.0"),
    ("vcs-test.golang.org/git/odd-tags.git", "12d19af20458", "v2.0.1-0.20220223184802-12d19af20458+incompatible"),
    ("vcs-test.golang.org/git/odd-tags.git", "v3.0.0-20220223184802-12d19af20458", "v3.0.0-20220223184802-12d19af20458+incompatible"),
    // TestLatest.
    ("vcs-test.golang.org/go/gitreposubdir", "latest", "v1.2.3"),
    ("vcs-test.golang.org/go/gitreposubdirv2/v2", "latest", "v2.0.0"),
    // What else is in these repositories.
    ("github.com/rsc/vgotest1", "v2.0.0", "v2.0.0+incompatible"),
    ("github.com/rsc/vgotest1", "v2.0.1", "!go.mod has post-v2 module path \"github.com/rsc/vgotest1/v2\" at revision v2.0.1"),
    ("github.com/rsc/vgotest1", "v2.0.0+incompatible", "v2.0.0+incompatible"),
    ("github.com/rsc/vgotest1", "v1.0.2", "v1.0.2"),
    ("github.com/rsc/vgotest1", "v1.0.3", "v1.0.3"),
    ("github.com/rsc/vgotest1", "master", "!go.mod has post-v0 module path \"github.com/vgotest1/v2\" at revision a08abb797a67"),
    ("github.com/rsc/vgotest1", "latest", "v1.1.0"),
    ("github.com/rsc/vgotest1/v2", "latest", "!"),
    ("github.com/rsc/vgotest1/v2", "v2.0.2", "v2.0.2"),
    ("github.com/rsc/vgotest1/v2", "v2.0.6", "!both have .../v2 module paths at revision v2.0.6"),
    ("github.com/rsc/vgotest1/v2", "a08abb797a67", "!both have .../v2 module paths at revision a08abb797a67"),
    ("github.com/rsc/vgotest1/submod", "v1.0.5", "v1.0.5"),
    ("github.com/rsc/vgotest1/submod", "70fd92e", "v1.0.5"),
    ("github.com/rsc/vgotest1/submod", "v1.1.0", "!unknown revision submod/v1.1.0"),
    ("github.com/rsc/vgotest1/subdir", "latest", "!"),
    ("github.com/rsc/vgotest1/subdir", "master", "!missing github.com/rsc/vgotest1/subdir/go.mod at revision a08abb797a67"),
    ("vcs-test.golang.org/git/commit-after-tag.git", "master", "v1.0.1-0.20190715211727-b325d8217783"),
    ("vcs-test.golang.org/git/commit-after-tag.git", "latest", "v1.0.0"),
    ("vcs-test.golang.org/git/no-tags.git", "latest", "v0.0.0-20190715212047-e706ba1d9f6d"),
    ("vcs-test.golang.org/git/empty-v2-without-v1.git/v2", "latest", "v2.0.0"),
    ("vcs-test.golang.org/git/empty-v2-without-v1.git", "latest", "!"),
    ("vcs-test.golang.org/git/empty-v2-without-v1.git", "master", "!go.mod has post-v0 module path"),
    ("vcs-test.golang.org/git/emptytest.git", "latest", "v0.0.0-20180704023549-7bb914627242"),
    ("vcs-test.golang.org/git/hello.git", "fc3a09f", "v0.0.0-20170922010558-fc3a09f3dc5c"),
    ("vcs-test.golang.org/git/insecurerepo.git", "d1a15cd", "v0.0.0-20190403173035-d1a15cd9c5c8"),
    ("vcs-test.golang.org/git/issue47650.git", "main", "v0.1.1-0.20210811175200-21535ef346c3"),
    ("vcs-test.golang.org/git/issue61415.git/nested", "has-nested", "v0.0.0-20231114180000-08a4fa6bb9c0"),
    ("vcs-test.golang.org/git/issue61415.git/nested", "main", "!missing vcs-test.golang.org/git/issue61415.git/nested/go.mod at revision f213069baa68"),
    ("vcs-test.golang.org/git/issue61415.git", "latest", "v0.0.0-20231114180001-f213069baa68"),
    ("vcs-test.golang.org/git/issue61415.git", "has-nested", "v0.0.0-20231114180000-08a4fa6bb9c0"),
    ("vcs-test.golang.org/git/legacytest.git", "master", "v2.0.1-0.20180717164253-7303f7796364+incompatible"),
    ("vcs-test.golang.org/git/legacytest.git", "7fff7f3", "v1.0.0"),
    ("vcs-test.golang.org/git/legacytest.git", "52853eb", "v0.0.0-20180717164157-52853eb7b552"),
    ("vcs-test.golang.org/git/legacytest.git", "fb3c628", "v1.1.0-pre.0.20180717164849-fb3c628075e3"),
    ("vcs-test.golang.org/git/legacytest.git", "morework", "v1.2.1-0.20180717164942-d2d4c3ea6623"),
    ("vcs-test.golang.org/git/legacytest.git", "fa4f5d6", "v1.0.1-0.20180717164228-fa4f5d6a71c6"),
    ("vcs-test.golang.org/git/legacytest.git", "v2.0.0", "v2.0.0+incompatible"),
    ("vcs-test.golang.org/git/legacytest.git", "latest", "v2.0.0+incompatible"),
    ("vcs-test.golang.org/git/mainonly.git", "latest", "v0.0.0-20190905180743-8a27e8babc8b"),
    ("vcs-test.golang.org/git/modlegacy1-new.git/v2", "latest", "v2.0.0-20180425150057-36cc50a7ebab"),
    ("vcs-test.golang.org/git/modlegacy1-new.git", "latest", "!"),
    ("vcs-test.golang.org/git/modlegacy1-new.git", "HEAD", "!go.mod has post-v0 module path"),
    ("vcs-test.golang.org/git/modlegacy1-old.git", "latest", "v0.0.0-20180425145924-6b4ba8ba778b"),
    ("vcs-test.golang.org/git/prefixtagtests.git/sub", "master", "v0.0.11-0.20190509223500-c3ee5d0dfbb9"),
    ("vcs-test.golang.org/git/prefixtagtests.git/sub", "latest", "v0.0.10"),
    ("vcs-test.golang.org/git/prefixtagtests.git/sub", "v0.2.0", "!unknown revision sub/v0.2.0"),
    ("vcs-test.golang.org/git/prefixtagtests.git", "master", "v0.2.1-0.20190509223500-c3ee5d0dfbb9"),
    ("vcs-test.golang.org/git/retract-pseudo.git", "main", "v0.0.0-20201009173747-713affd19d7b"),
    ("vcs-test.golang.org/git/retract-pseudo.git", "v1.0.0", "v1.0.0"),
    ("vcs-test.golang.org/git/retract-pseudo.git", "64c061e", "v0.0.0-20201009173747-64c061ed4371"),
    ("vcs-test.golang.org/git/retract-pseudo.git", "latest", "v0.0.0-20201009173747-713affd19d7b"),
    ("vcs-test.golang.org/git/semver-branch.git", "latest", "v0.1.0"),
    ("vcs-test.golang.org/git/semver-branch.git", "v4.0.0-beta.1", "!module contains a go.mod file"),
    ("vcs-test.golang.org/git/tagtests.git", "master", "v0.2.3-0.20190509225625-c7818c24fa2f"),
    ("vcs-test.golang.org/git/tagtests.git", "b", "v0.2.2"),
    ("vcs-test.golang.org/git/v2repo.git/v2", "latest", "v2.0.0"),
    ("vcs-test.golang.org/git/v2repo.git/v2", "v2.0.0", "v2.0.0"),
    ("vcs-test.golang.org/git/v2sub.git/v2", "v2.0.0", "v2.0.0"),
    ("vcs-test.golang.org/git/v2sub.git/v2", "main", "v2.0.1-0.20220222205507-80beb17a1603"),
    ("vcs-test.golang.org/git/v2sub.git", "latest", "v2.0.0+incompatible"),
    ("vcs-test.golang.org/git/v2sub.git", "main", "v0.0.0-20220222205507-80beb17a1603"),
    ("vcs-test.golang.org/git/v3pkg.git/v3", "master", "v3.0.0"),
    ("vcs-test.golang.org/git/v3pkg.git", "master", "!go.mod has post-v0 module path"),
    ("vcs-test.golang.org/git/querytest.git", "latest", "v1.9.9"),
    ("vcs-test.golang.org/git/querytest.git", "v1.9", "v1.9.9"),
    ("vcs-test.golang.org/git/querytest.git", "v0", "v0.3.0"),
    ("vcs-test.golang.org/git/querytest.git", ">v1.5.3", "v1.9.0"),
    ("vcs-test.golang.org/git/querytest.git", "<=v0.1.1", "v0.1.1"),
    ("vcs-test.golang.org/git/querytest.git", "favorite", "v0.0.3"),
    ("vcs-test.golang.org/git/querytest.git", "start", "v0.0.0-20180704023101-5e9e31667ddf"),
    ("vcs-test.golang.org/git/querytest.git", "v1.9.10-pre2+metadata", "v1.9.10-pre2.0.20190513201126-42abcb6df8ee"),
    ("vcs-test.golang.org/git/querytest.git", "v1.9.10-pre2+wrongmetadata", "!unknown revision v1.9.10-pre2+wrongmetadata"),
    ("vcs-test.golang.org/git/querytest.git", "ed5ffdaa", "v1.9.10-pre2.0.20191220134614-ed5ffdaa1f5e"),
    ("vcs-test.golang.org/git/querytest.git", "v1.9.10-pre1", "v1.9.10-pre1"),
    ("vcs-test.golang.org/git/querytest.git", "v1.99.99", "!unknown revision v1.99.99"),
    ("vcs-test.golang.org/git/querytest.git/v2", "v2", "v2.5.5"),
    ("vcs-test.golang.org/git/querytest.git/v2", "latest", "v2.5.5"),
    ("vcs-test.golang.org/git/querytest.git/v2", "v2.6.0-pre1", "v2.6.0-pre1"),
    ("vcs-test.golang.org/git/querytest.git/v2", "feed8f518cf4", "v2.5.6-0.20180704033518-feed8f518cf4"),
    ("vcs-test.golang.org/git/querytest.git/v3", "latest", "!"),
    // git_test.go, TestStat: what does and does not name a commit.
    ("vcs-test.golang.org/git/gitrepo1.git", "HEAD", "v1.2.4-annotated"),
    ("vcs-test.golang.org/git/gitrepo1.git", "v1.2.3", "v1.2.3"),
    ("vcs-test.golang.org/git/gitrepo1.git", "ede458df", "v1.2.4-annotated"),
    ("vcs-test.golang.org/git/gitrepo1.git", "97f6aa59", "v2.0.2-0.20180417200019-97f6aa59c81c+incompatible"),
    ("vcs-test.golang.org/git/gitrepo1.git", "v1.2.4-annotated", "v1.2.4-annotated"),
    ("vcs-test.golang.org/git/gitrepo1.git", "aaaaaaaaab", "!unknown revision aaaaaaaaab"),
    ("vcs-test.golang.org/git/gitrepo1.git", "v2.0.2", "v2.0.2+incompatible"),
    ("vcs-test.golang.org/git/gitrepo1.git", "v2", "v2.0.2+incompatible"),
    ("vcs-test.golang.org/git/gitrepo1.git", "v2.3.4", "!resolves to version v2.0.1+incompatible (v2.3.4 is not a tag)"),
    ("vcs-test.golang.org/git/gitrepo-sha256.git", "HEAD", "v1.2.4-annotated"),
    ("vcs-test.golang.org/git/gitrepo-sha256.git", "main", "v1.2.4-annotated"),
    ("vcs-test.golang.org/git/gitrepo-sha256.git", "v1.2.3", "v1.2.3"),
    ("vcs-test.golang.org/git/gitrepo-sha256.git", "v1.3.0", "v1.3.0"),
    ("vcs-test.golang.org/git/gitrepo-sha256.git", "47b8b51b", "v1.2.4-annotated"),
    ("vcs-test.golang.org/git/gitrepo-sha256.git", "0be440b6", "v2.0.2-0.20180417200019-0be440b60b6c+incompatible"),
    ("vcs-test.golang.org/git/gitrepo-sha256.git", "0be440b60b6c81be26c7256781d8e57112ec46c8cd1a9481a8e78a283f10570c", "v2.0.2-0.20180417200019-0be440b60b6c+incompatible"),
    ("vcs-test.golang.org/git/gitrepo-sha256.git", "aaaaaaaaab", "!unknown revision aaaaaaaaab"),
    ("vcs-test.golang.org/git/gitrepo-sha256.git", "v2.3.4+incompatible", "!resolves to version v2.0.1+incompatible (v2.3.4 is not a tag)"),
    ("vcs-test.golang.org/git/no-such-repository.git", "latest", "!"),
];

#[rustfmt::skip]
const LISTS: &[ListRow] = &[
    ("github.com/rsc/vgotest1", "v0.0.0 v0.0.1 v1.0.0 v1.0.1 v1.0.2 v1.0.3 v1.1.0"),
    ("github.com/rsc/vgotest1/v2", "v2.0.0 v2.0.1 v2.0.2 v2.0.3 v2.0.4 v2.0.5 v2.0.6"),
    ("github.com/rsc/vgotest1/submod", "v1.0.4 v1.0.5"),
    ("vcs-test.golang.org/git/odd-tags.git", ""),
    ("vcs-test.golang.org/git/gitrepo1.git", "v1.2.3 v1.2.4-annotated v2.0.1+incompatible v2.0.2+incompatible"),
    ("vcs-test.golang.org/git/gitrepo-sha256.git", "v1.2.3 v1.2.4-annotated v1.3.0"),
    ("vcs-test.golang.org/git/semver-branch.git", "v0.1.0"),
    ("vcs-test.golang.org/git/v2sub.git", "v2.0.0+incompatible"),
    ("vcs-test.golang.org/git/v2sub.git/v2", "v2.0.0"),
    ("vcs-test.golang.org/git/legacytest.git", "v1.0.0 v1.1.0-pre v1.2.0 v2.0.0+incompatible"),
    ("vcs-test.golang.org/git/prefixtagtests.git", "v0.1.0 v0.2.0"),
    ("vcs-test.golang.org/git/prefixtagtests.git/sub", "v0.0.9 v0.0.10"),
    ("vcs-test.golang.org/git/retract-pseudo.git", "v1.0.0"),
    ("vcs-test.golang.org/git/querytest.git", "v0.0.0-pre1 v0.0.0 v0.0.1 v0.0.2 v0.0.3 v0.1.0 v0.1.1 v0.1.2 v0.3.0 v1.0.0 v1.1.0 v1.9.0 v1.9.9 v1.9.10-pre1"),
    ("vcs-test.golang.org/git/querytest.git/v2", "v2.0.0 v2.1.0 v2.2.0 v2.5.5 v2.6.0-pre1"),
    ("vcs-test.golang.org/git/no-tags.git", ""),
    ("vcs-test.golang.org/git/no-such-repository.git", "!"),
];

#[test]
fn the_go_trees_own_repositories_become_what_its_tests_expect() {
    let sides = Sides::with_roots(ROOTS, build_all);
    let mut findings = Findings::new("gotree");
    compare(&sides, ROWS, &mut findings);
    compare_lists(&sides, LISTS, &mut findings);
    findings.end();
}
