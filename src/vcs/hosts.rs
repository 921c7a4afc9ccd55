//! Import paths that say by themselves where their repository is: those of well-known hosts, and those with an element that
//! ends in `.git` (<https://go.dev/ref/mod#vcs-find>). Pure, without I/O.

/// The version control systems that the go command knows besides git.
pub(super) const OTHERS: [&str; 4] = ["hg", "svn", "bzr", "fossil"];

/// What a path says of its repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ByPath {
    /// A repository of a well-known host: its root, which is its URL too, but for the scheme.
    Known(String),
    /// A root that ends in `.git`; its URL is the same without that, by a scheme that has to be found.
    Suffix(String),
    /// A repository of another system than git.
    Other(&'static str),
    /// Nothing; its page has to be asked.
    Nothing,
}

/// Looks at a path.
///
/// # Errors
/// That a path of a well-known host is not as those are.
pub(super) fn by_path(path: &str) -> Result<ByPath, String> {
    let elements: Vec<&str> = path.split('/').collect();
    let words = |from: usize| elements[from..].iter().all(|e| is_word(e));
    // So many elements are the root of a path of this host, where all from `from` on are words.
    let known = |host: &str, count: usize, from: usize| {
        if elements.len() < count || !words(from) {
            return Err(format!("invalid {host} import path {path:?}"));
        }
        Ok(elements[..count].join("/"))
    };
    let no_suffix = |root: String| {
        let host = elements[0];
        let bad = root.rsplit_once('.').is_some_and(|(_, end)| end == "git" || OTHERS.contains(&end));
        if bad { Err(format!("invalid version control suffix in {host} path")) } else { Ok(ByPath::Known(root)) }
    };
    let lower = |e: &str, more: &[u8]| {
        !e.is_empty() && e.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || more.contains(&b))
    };
    match elements.as_slice() {
        ["github.com" | "bitbucket.org", ..] => known(elements[0], 3, 1).and_then(no_suffix),
        ["hub.jazz.net", "git", rest @ ..] => {
            let good = rest.first().is_some_and(|user| lower(user, b""));
            known("hub.jazz.net/git", if good { 4 } else { usize::MAX }, 3.min(elements.len())).and_then(no_suffix)
        }
        ["git.apache.org", rest @ ..] => {
            let good =
                rest.first().is_some_and(|e| lower(e, b"_.-") && e.strip_suffix(".git").is_some_and(|name| !name.is_empty()));
            known("git.apache.org", if good { 2 } else { usize::MAX }, 1).map(ByPath::Known)
        }
        ["git.openstack.org", ..] => known("git.openstack.org", 3, 1).map(ByPath::Known),
        ["chiselapp.com", "user", _, "repository", _] => Ok(ByPath::Other("fossil")),
        ["chiselapp.com", ..] => Err(format!("invalid chiselapp.com import path {path:?}")),
        _ => Ok(by_suffix(&elements)),
    }
}

/// The last element that ends in the name of a system makes the root.
fn by_suffix(elements: &[&str]) -> ByPath {
    let host = elements[0];
    let good_host = host.contains('.')
        && host
            .split('.')
            .all(|label| !label.is_empty() && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'));
    let element = |e: &&str| is_word(e.strip_prefix('~').unwrap_or(e));
    if !good_host || !elements[1..].iter().all(element) {
        return ByPath::Nothing;
    }
    let system = |e: &str| {
        let (name, end) = e.rsplit_once('.')?;
        let named = !name.trim_start_matches('~').is_empty();
        if end == "git" { Some("git") } else { OTHERS.into_iter().find(|o| *o == end) }.filter(|_| named)
    };
    let found = elements.iter().enumerate().skip(1).rev().find_map(|(at, e)| system(e).map(|system| (at, system)));
    match found {
        None => ByPath::Nothing,
        Some((at, "git")) => ByPath::Suffix(elements[..=at].join("/")),
        Some((_, other)) => ByPath::Other(other),
    }
}

fn is_word(element: &str) -> bool {
    !element.is_empty() && element.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn paths_of_well_known_hosts_have_their_form() {
        let known = |root: &str| Ok(ByPath::Known(root.to_owned()));
        assert_eq!(by_path("github.com/a/b.c/d"), known("github.com/a/b.c"));
        assert_eq!(by_path("bitbucket.org/a/b"), known("bitbucket.org/a/b"));
        assert_eq!(by_path("git.apache.org/x.git/y"), known("git.apache.org/x.git"));
        assert_eq!(by_path("git.openstack.org/a/b.git"), known("git.openstack.org/a/b.git"));
        assert_eq!(by_path("hub.jazz.net/git/user/b/c"), known("hub.jazz.net/git/user/b"));
        assert_eq!(by_path("chiselapp.com/user/u/repository/r"), Ok(ByPath::Other("fossil")));
        for bad in [
            "github.com/a",
            "github.com/a/b.git",
            "github.com/a/b.git/c",
            "github.com/a/b~c",
            "hub.jazz.net/git/Up/x",
            "chiselapp.com/x",
        ] {
            assert!(by_path(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_last_suffix_makes_the_root() {
        let suffix = |root: &str| Ok(ByPath::Suffix(root.to_owned()));
        assert_eq!(by_path("example.org/team/repo.git/sub"), suffix("example.org/team/repo.git"));
        assert_eq!(by_path("example.org/a.git/b.git/c"), suffix("example.org/a.git/b.git"));
        assert_eq!(by_path("example.org/~u/x.git"), suffix("example.org/~u/x.git"));
        assert_eq!(by_path("example.org/x.hg/y"), Ok(ByPath::Other("hg")));
        for nothing in ["example.org/x", "example.org/.git", "example.org/x.gitx", "example.org"] {
            assert_eq!(by_path(nothing), Ok(ByPath::Nothing), "{nothing}");
        }
    }

    proptest! {
        #[test]
        fn no_path_breaks_it(path in "(github.com|hub.jazz.net/git|git.apache.org|x.y|chiselapp.com|[a-z./~]{0,9})(/[a-z.~]{0,8}){0,5}") {
            let _ = by_path(&path);
        }
    }
}
