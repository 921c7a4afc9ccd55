//! The vanity host: pages that tell a developer's own go command where the module of an import path is, by `go-import` and
//! `go-source` tags (<https://go.dev/ref/mod#vcs-find>). So hosts on unusual ports, subgroups and ssh are found without a proxy.

use actix_http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use actix_http::{Request, Response, StatusCode};
use bytes::Bytes;

use super::body::Body;
use super::error::Refusal;
use super::identify::host_of;
use crate::module::path::split_major;
use crate::vcs::rules::{Match, Matched, Template};

/// One configured rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The import paths that it is for.
    pub pattern: Match,
    /// Where their modules are.
    pub target: Target,
    /// Where people read their sources.
    pub source: Option<Source>,
}

/// Where modules are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// In a git repository, below a directory that counts as its top; that is mostly empty.
    Repository(Template, String),
    /// At a module proxy.
    Proxy(Template),
}

/// Where people read sources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// A repository's page.
    pub home: Template,
    /// How pages lie below it.
    pub kind: SourceKind,
}

/// How the pages of directories and files lie below that of a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceKind {
    /// As at GitLab.
    GitLab,
    /// As at GitHub.
    GitHub,
    /// As at Gitea and Forgejo.
    Gitea,
}

impl SourceKind {
    /// What stands between a repository's page and a directory, and a file; and before a line's number.
    fn between(self) -> (&'static str, &'static str) {
        match self {
            Self::GitLab => ("/-/tree/HEAD", "/-/blob/HEAD"),
            Self::GitHub => ("/tree/HEAD", "/blob/HEAD"),
            Self::Gitea => ("/src/HEAD", "/src/HEAD"),
        }
    }
}

/// Whether a request is the go command's question for a page.
pub(super) fn is_asked(request: &Request) -> bool {
    request.uri().query().is_some_and(|query| query.split('&').any(|pair| pair == "go-get=1"))
}

/// The page for a request. The import path is the path itself where that begins with a host, else the host that was asked and the path.
pub(super) fn answer(rules: &[Rule], request: &Request, path: &str) -> Result<Response<Body>, Refusal> {
    let path = path.trim_matches('/');
    let host = host_of(request).to_ascii_lowercase();
    let below_host = if path.is_empty() { host.clone() } else { format!("{host}/{path}") };
    let first_has_dot = path.split('/').next().is_some_and(|first| first.contains('.'));
    let paths = [Some(path).filter(|_| first_has_dot), Some(below_host.as_str())];
    let found = paths.into_iter().flatten().find_map(|path| page(rules, path));
    let page = found
        .ok_or_else(|| Refusal::new(StatusCode::NOT_FOUND, &format!("no [[vanity]] rule is for {path:?} or {below_host:?}")))?;
    let mut response = Response::with_body(StatusCode::OK, Body::bytes(Bytes::from(page)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=300"));
    Ok(response)
}

/// The page of an import path.
fn page(rules: &[Rule], path: &str) -> Option<String> {
    let plain =
        |e: &str| !e.is_empty() && e.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b)) && !matches!(e, "." | "..");
    if !path.split('/').all(plain) {
        return None;
    }
    // A major version suffix is no part of a repository's path.
    let own = split_major(path).map_or(path, |at| &path[..at]);
    let (rule, matched) = rules.iter().find_map(|rule| Some((rule, rule.pattern.matches(own).into_iter().next()?)))?;
    Some(rule.page(&matched, path))
}

impl Rule {
    fn page(&self, matched: &Matched, path: &str) -> String {
        let root = &matched.root;
        let import = match &self.target {
            Target::Repository(repo, subdir) if subdir.is_empty() => format!("{root} git {}", repo.fill(matched)),
            Target::Repository(repo, subdir) => format!("{root} git {} {subdir}", repo.fill(matched)),
            Target::Proxy(url) => format!("{root} mod {}", url.fill(matched)),
        };
        let source = self.source.as_ref().map(|source| {
            let home = source.home.fill(matched);
            let (directory, file) = source.kind.between();
            let content = format!("{root} {home} {home}{directory}{{/dir}} {home}{file}{{/dir}}/{{file}}#L{{line}}");
            format!("<meta name=\"go-source\" content=\"{}\">\n", escaped(&content))
        });
        let (import, path, source) = (escaped(&import), escaped(path), source.unwrap_or_default());
        format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"go-import\" content=\"{import}\">\n{source}\
             <title>{path}</title>\n</head>\n<body>\n<p><code>go get {path}</code></p>\n</body>\n</html>\n"
        )
    }
}

/// A text as HTML has it in an attribute or between tags.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vcs::meta::{choose, entries};

    fn rule(pattern: &str, target: impl Fn(Template) -> Target, to: &str) -> Rule {
        let pattern = Match::parse(pattern).expect("pattern");
        let target = target(Template::parse(to, &pattern).expect("template"));
        let home = Template::parse("https://web.example/{name}", &pattern).ok();
        Rule { source: home.map(|home| Source { home, kind: SourceKind::GitLab }), pattern, target }
    }

    #[test]
    fn pages_say_what_a_reader_of_such_pages_finds() {
        let repository = |subdir: &'static str| move |to| Target::Repository(to, subdir.to_owned());
        let rules = [
            rule("h.example/{group}/{name}", repository(""), "https://h.example:888/{group}/{name}.git"),
            rule("s.example/{name}", repository("go"), "ssh://git@s.example:2222/{name}"),
            rule("m.example/{path...}", Target::Proxy, "https://goproxy.example"),
        ];
        let read = |path: &str| {
            let page = page(&rules, path)?;
            let entry = choose(&entries(page.as_bytes()), path).expect("an entry").clone();
            Some([entry.prefix, entry.vcs, entry.url, entry.subdirectory].join(" "))
        };
        assert_eq!(read("h.example/a/b/c").as_deref(), Some("h.example/a/b git https://h.example:888/a/b.git "));
        assert_eq!(read("h.example/a/b/v2").as_deref(), Some("h.example/a/b git https://h.example:888/a/b.git "));
        assert_eq!(read("s.example/x").as_deref(), Some("s.example/x git ssh://git@s.example:2222/x go"));
        assert_eq!(read("m.example/x/y").as_deref(), Some("m.example/x/y mod https://goproxy.example "));
        assert_eq!(read("h.example/a"), None);
        assert_eq!(read("h.example/a/\"><script>"), None);
        let page = page(&rules, "h.example/a/b").expect("a page");
        assert!(page.contains("https://web.example/b/-/blob/HEAD{/dir}/{file}#L{line}"), "{page}");
    }
}
