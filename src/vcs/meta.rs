//! Pages that say where a module's repository is: `<meta name="go-import" content="prefix vcs url [subdirectory]">`
//! (<https://go.dev/ref/mod#vcs-find>). Pure, without I/O.

use html5gum::{DefaultEmitter, Token, Tokenizer};

/// The most of a page that is read, in bytes.
pub const MAX_PAGE: usize = 1 << 20;

/// The longest content that an entry may have. Its parts are remembered, and shown where they are refused.
const MAX_CONTENT: usize = 2 << 10;
/// The most that a page's entries may take of memory, in bytes, since many pages are remembered; further ones do not count.
const MAX_ENTRIES: usize = 128 << 10;

/// One `go-import` entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The import path of the repository's root.
    pub prefix: String,
    /// `git`, `hg`, `svn`, `bzr`, `fossil`, or `mod` for a module proxy.
    pub vcs: String,
    /// Where it is.
    pub url: String,
    /// The directory within the repository that counts as its top; mostly empty.
    pub subdirectory: String,
}

/// The entries of a page, those for module proxies first.
pub fn entries(page: &[u8]) -> Vec<Entry> {
    let (mut found, mut taken) = (Vec::new(), 0);
    for token in Tokenizer::new_with_emitter(page, DefaultEmitter::default()) {
        let Ok(token) = token;
        match token {
            Token::StartTag(tag) if tag.name.as_slice() == b"body" => break,
            Token::EndTag(tag) if tag.name.as_slice() == b"head" => break,
            Token::StartTag(tag) if tag.name.as_slice() == b"meta" => {
                let get =
                    |name: &[u8]| tag.attributes.get(name).map(|value| String::from_utf8_lossy(value.as_slice()).into_owned());
                if get(b"name").as_deref() == Some("go-import") && taken < MAX_ENTRIES {
                    let content = get(b"content").unwrap_or_default();
                    found.extend(entry(&content));
                    taken += content.len() + size_of::<Entry>();
                }
            }
            _ => {}
        }
    }
    let (proxies, others): (Vec<Entry>, Vec<Entry>) = found.into_iter().partition(|e| e.vcs == "mod");
    let replaced = |e: &Entry| proxies.iter().any(|p| p.prefix == e.prefix);
    let others: Vec<Entry> = others.into_iter().filter(|e| !replaced(e)).collect();
    proxies.into_iter().chain(others).collect()
}

fn entry(content: &str) -> Option<Entry> {
    if content.len() > MAX_CONTENT {
        return None;
    }
    let mut fields = content.split_whitespace().map(str::to_owned);
    let (prefix, vcs, url) = (fields.next()?, fields.next()?, fields.next()?);
    let subdirectory = fields.next().unwrap_or_default();
    fields.next().is_none().then_some(Entry { prefix, vcs, url, subdirectory })
}

/// Chooses the entry for a path.
///
/// # Errors
/// That there is none, or that there are several.
pub fn choose<'e>(entries: &'e [Entry], path: &str) -> Result<&'e Entry, String> {
    let fits = |e: &&Entry| path.strip_prefix(e.prefix.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let mut fitting = entries.iter().filter(fits);
    match (fitting.next(), fitting.next()) {
        (Some(one), None) => Ok(one),
        (Some(proxy), Some(next)) if proxy.vcs == "mod" && next.vcs != "mod" => Ok(proxy),
        (Some(_), Some(_)) => Err(format!("multiple meta tags match import path {path:?}")),
        (None, _) if entries.is_empty() => Err("no go-import meta tags".into()),
        (None, _) => Err(format!("no go-import meta tag of the page matches import path {path:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn chosen(page: &str, path: &str) -> Result<String, String> {
        choose(&entries(page.as_bytes()), path).map(|e| format!("{} {} {} {}", e.prefix, e.vcs, e.url, e.subdirectory))
    }

    #[test]
    fn pages_are_read_as_loosely_as_the_go_command_reads_them() {
        let git = Ok("h/a git https://g/a ".to_owned());
        for page in [
            "<meta name=\"go-import\" content=\"h/a git https://g/a\">",
            "<!DOCTYPE html><HTML><HEAD><META NAME='go-import' CONTENT='h/a\n git  https://g/a'/></HEAD>",
            "<meta name=go-import content=\"h/a git https&#58;//g/a\"><p <<< broken",
            "<head><meta name=go-import content='h/b git https://g/b'><meta name=go-import content='h/a git https://g/a'></head>",
            "<meta name=go-import content='h/a git x'><meta name=go-import content='h/a git'>"
                .replace(" x'", " https://g/a'")
                .as_str(),
        ] {
            assert_eq!(chosen(page, "h/a/sub"), git, "{page}");
        }
        for page in [
            "",
            "<body><meta name=go-import content='h/a git https://g/a'>",
            "</head><meta name=go-import content='h/a git https://g/a'>",
            "<!-- <meta name=go-import content='h/a git https://g/a'> -->",
            "<meta name=go-import content='h/a git'>",
            "<meta name=go-import content='h/a git https://g/a x y'>",
            "<meta name=Go-Import content='h/a git https://g/a'>",
            "<meta name=go-import content='h/ab git https://g/a'>",
        ] {
            assert!(chosen(page, "h/a/sub").is_err(), "{page}");
        }
    }

    #[test]
    fn a_proxy_goes_before_a_repository_and_two_repositories_are_one_too_many() {
        let git = |prefix: &str, url: &str| format!("<meta name=go-import content='{prefix} git {url}'>");
        let proxy = |prefix: &str| format!("<meta name=go-import content='{prefix} mod https://m/'>");
        let is_proxy = |page: &str, path: &str| chosen(page, path).is_ok_and(|e| e.contains(" mod "));
        assert!(is_proxy(&(git("h/a", "https://g") + &proxy("h/a")), "h/a"));
        assert!(is_proxy(&(git("h/a", "https://g") + &proxy("h/a/b")), "h/a/b/c"));
        assert!(chosen(&(git("h/a", "https://g") + &git("h/a/b", "https://x")), "h/a/b").is_err());
        assert!(chosen(&(git("h/a", "https://g") + &git("h/a", "https://x")), "h/a").is_err());
        assert!(chosen(&(proxy("h/a") + &proxy("h/a/b")), "h/a/b").is_err());
        let with_directory = "<meta name=go-import content='h/a git https://g/a svc/x'>";
        assert_eq!(chosen(with_directory, "h/a"), Ok("h/a git https://g/a svc/x".into()));
    }

    proptest! {
        #[test]
        fn no_page_breaks_it(page in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = choose(&entries(&page), "h/a");
        }

        #[test]
        fn no_likely_page_breaks_it(page in "(<meta |name=|go-import|content=|[\"'<>/ &;a-z]){0,40}") {
            let _ = choose(&entries(page.as_bytes()), "h/a");
        }
    }
}
