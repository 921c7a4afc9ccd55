//! From a module path to its repository: by the configured rules, by what the path says itself, or by the page at its address.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quick_cache::sync::Cache;
use tokio::sync::Mutex;
use url::Url;

use super::error::VcsError;
use super::foreign::Foreign;
use super::hosts::{ByPath, OTHERS, by_path};
use super::meta::{self, Entry, MAX_PAGE};
use super::remote::{Named, RepoUrl, Scheme};
use super::revision::Module;
use super::rules::{Match, Matched, Template};
use super::{Fetcher, Source};
use crate::egress::EgressError;
use crate::egress::proxy::bare;
use crate::module::ModulePath;

/// One configured rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The module paths that it is for.
    pub pattern: Match,
    /// The repository's URL.
    pub repo: Template,
    /// The directory of the repository that counts as its top; mostly empty.
    pub subdir: String,
}

/// How long it is known where a repository is.
const FOUND_KNOWN: Duration = Duration::from_secs(600);
/// How long it is known that a page names none.
const NOTHING_KNOWN: Duration = Duration::from_secs(60);
/// How long it is known that a page cannot be had.
const FAILURE_KNOWN: Duration = Duration::from_secs(5);

/// Something that was found out, and when.
pub(super) type Remembered<T> = Arc<Mutex<Option<(Instant, Result<T, VcsError>)>>>;

/// What was found out a while ago, where it is still good; else it is found out by one, while those who ask beside it wait.
async fn remembered<T: Clone>(
    among: &Cache<String, Remembered<T>>,
    key: &str,
    find: impl Future<Output = Result<T, VcsError>>,
) -> Result<T, VcsError> {
    let Ok(slot) = among.get_or_insert_with(key, || Ok::<_, Infallible>(Remembered::default()));
    let mut slot = slot.lock().await;
    if let Some((at, found)) = &*slot {
        let good = match found {
            Ok(_) => FOUND_KNOWN,
            Err(e) if e.is_not_found() => NOTHING_KNOWN,
            Err(_) => FAILURE_KNOWN,
        };
        if at.elapsed() < good {
            return found.clone();
        }
    }
    let found = find.await;
    *slot = Some((Instant::now(), found.clone())).filter(|(_, found)| !matches!(found, Err(VcsError::NoTurn(_))));
    found
}

/// What is remembered of a place is not the same for those who may ask without encryption: anybody could have answered them.
fn key(place: &str, insecure: bool) -> String {
    format!("{}{place}", if insecure { "insecure " } else { "" })
}

impl Fetcher {
    /// Finds where a module is.
    ///
    /// # Errors
    /// That it is nowhere, or why that cannot be found out.
    pub async fn resolve(&self, path: &ModulePath) -> Result<Source, VcsError> {
        if let Some(found) = self.by_rules(path).await {
            return found.map(Source::Git);
        }
        // The go command asks about the parents of a path too; there is nothing where repositories are said to begin further down.
        if let Some(rule) = self.settings.rules.iter().find(|rule| rule.pattern.is_below(path.as_str())) {
            return Err(VcsError::not_found(format!("no repository: those of {} lie below this path", rule.pattern)));
        }
        match by_path(path.as_str()).map_err(VcsError::not_found)? {
            ByPath::Known(root) => self.module(path, &root, &format!("https://{root}"), "", Named::Configured).map(Source::Git),
            ByPath::Other(system) => self.foreign(path, system, &format!("https://{path}")).await,
            ByPath::Suffix(root) => {
                let key = key(&root, self.is_insecure(path.as_str()));
                let url = remembered(&self.schemes, &key, self.by_schemes(path, &root)).await?;
                self.module(path, &root, &url, "", Named::ByHost).map(Source::Git)
            }
            ByPath::Nothing => self.by_page(path).await,
        }
    }

    /// A module of a repository.
    fn module(&self, path: &ModulePath, root: &str, url: &str, subdir: &str, named: Named) -> Result<Module, VcsError> {
        let url = RepoUrl::parse(url).map_err(|why| VcsError::unrecognized(path, why))?;
        if named.is_guarded() && url.scheme() == Scheme::File {
            return Err(VcsError::unrecognized(path, "file URL disallowed"));
        }
        if named.is_guarded() && !url.scheme().is_secure() && !self.is_insecure(path.as_str()) {
            let why = format!("{} is not asked without encryption unless insecure names the path", url.authority());
            return Err(VcsError::unrecognized(path, why));
        }
        Module::new(path.clone(), root, subdir, self.repository(url, named))
    }

    fn is_insecure(&self, path: &str) -> bool {
        self.settings.insecure.iter().any(|pattern| pattern.matches(path))
    }

    /// By the first rule that matches the path. A rule that takes the rest of a path does not say how much of it is the root;
    /// then the longest that the server has is it.
    async fn by_rules(&self, path: &ModulePath) -> Option<Result<Module, VcsError>> {
        // A major version suffix is no part of a repository's path, but for those of gopkg.in.
        let own = if path.major_suffix().starts_with('.') { path.as_str() } else { path.prefix() };
        let mut tried = self.settings.rules.iter().map(|rule| (rule, rule.pattern.matches(own)));
        let (rule, matched) = tried.find(|(_, matched)| !matched.is_empty())?;
        let of = |m: &Matched| self.module(path, &m.root, &rule.repo.fill(m), &rule.subdir, Named::Configured);
        if let [one] = matched.as_slice() {
            return Some(of(one));
        }
        let find = async {
            let mut first = None;
            for candidate in &matched {
                match of(candidate)?.repository.refs().await {
                    Ok(_) => return Ok(candidate.root.clone()),
                    Err(e @ (VcsError::NotFound(_) | VcsError::Denied(_))) => first = first.or(Some(e)),
                    Err(e) => return Err(e),
                }
            }
            Err(first.unwrap_or_else(|| VcsError::not_found("no repository")))
        };
        let root = remembered(&self.roots, path.as_str(), find).await;
        Some(root.and_then(|root| {
            let of_root = matched.iter().find(|m| m.root == root).ok_or_else(|| VcsError::not_found("no repository"));
            of_root.and_then(of)
        }))
    }

    /// The URL of a repository whose path ends in `.git`: by the first scheme that leads to it.
    async fn by_schemes(&self, path: &ModulePath, root: &str) -> Result<String, VcsError> {
        let insecure = self.is_insecure(path.as_str());
        let schemes: &[&str] = if insecure { &["git", "https", "http", "git+ssh", "ssh"] } else { &["https", "git+ssh", "ssh"] };
        let plain = root.strip_suffix(".git").unwrap_or(root);
        let mut failures = Vec::new();
        for scheme in schemes {
            let url = format!("{scheme}://{plain}");
            match self.module(path, root, &url, "", Named::ByHost)?.repository.refs().await {
                Ok(_) => return Ok(url),
                Err(e @ VcsError::NoTurn(_)) => return Err(e),
                Err(e) => failures.push((scheme, e)),
            }
        }
        let said: Vec<String> = failures.iter().map(|(scheme, e)| format!("{scheme}: {e}")).collect();
        let why = format!("{plain}: no secure protocol found for repository ({})", said.join("; "));
        // A server that nobody reaches is not one that does not have it.
        Err(match failures.into_iter().map(|(_, e)| e).find(|e| !matches!(e, VcsError::Broken { .. })) {
            None => VcsError::broken(why),
            Some(VcsError::Denied(_)) => VcsError::Denied(why),
            Some(_) => VcsError::NotFound(why),
        })
    }

    /// By the `go-import` tags of the page at the path's address.
    async fn by_page(&self, path: &ModulePath) -> Result<Source, VcsError> {
        let unknown = |why: String| VcsError::unrecognized(path, why);
        if !self.settings.discover {
            return Err(unknown("no rule is for it, and discovery is switched off".into()));
        }
        let entries = self.entries(path.as_str(), path).await?;
        let entry = meta::choose(&entries, path.as_str()).map_err(unknown)?;
        if entry.prefix != path.as_str() {
            // Whoever has a part of a host must not say where the whole of it is.
            let own = self.entries(&entry.prefix, path).await?;
            if meta::choose(&own, path.as_str()) != Ok(entry) {
                return Err(unknown(format!(
                    "the pages of {path} and {} disagree about go-import for {}",
                    entry.prefix, entry.prefix
                )));
            }
        }
        self.by_entry(path, entry).await
    }

    /// A module of another system than git, whose repository's server may be reached.
    async fn foreign(&self, path: &ModulePath, system: &'static str, url: &str) -> Result<Source, VcsError> {
        let url = Url::parse(url).ok().filter(Url::has_host);
        let url = url.ok_or_else(|| VcsError::unrecognized(path, "its repository has no URL"))?;
        self.not_ours(path, &url)?;
        let access = &self.git.access;
        let (host, port) = (bare(url.host_str().unwrap_or_default()), url.port_or_known_default().unwrap_or(0));
        // These programs know proxies for http alone, and none for this machine.
        let proxied = matches!(url.scheme(), "http" | "https") && host != "localhost" && access.proxy.for_url(&url).is_some();
        self.git.reach.admit(host, port, proxied, access.limits.connect).await?;
        Ok(Source::Foreign(Foreign::new(Arc::clone(&self.foreign), path.clone(), system, url)))
    }

    /// Who it is that a page of a path's host names another host as.
    fn named(&self, path: &ModulePath, host: &str) -> Named {
        let own = path.as_str().split('/').next().unwrap_or_default();
        if own.eq_ignore_ascii_case(host) || self.git.reach.names(own) { Named::ByHost } else { Named::ByStranger }
    }

    /// Refuses what a stranger's page names where it would be asked with a login of modgate's or inside its network.
    fn not_ours(&self, path: &ModulePath, url: &Url) -> Result<(), VcsError> {
        let host = bare(url.host_str().unwrap_or_default());
        let ours = self.git.reach.names(host) || self.git.access.has_login(url);
        if ours && self.named(path, host) == Named::ByStranger {
            let why = format!("its page leads to {host}, which it may not unless internal_hosts names the page's host");
            return Err(VcsError::Denied(format!("unrecognized import path \"{path}\": {why}")));
        }
        Ok(())
    }

    async fn by_entry(&self, path: &ModulePath, entry: &Entry) -> Result<Source, VcsError> {
        let unknown = |why: String| VcsError::unrecognized(path, why);
        let subdir = &entry.subdirectory;
        if subdir.starts_with(['/', '-'])
            || subdir.contains(|c: char| c.is_control() || c == '\\')
            || subdir.split('/').any(|e| e == "..")
        {
            return Err(unknown(format!("subdirectory {subdir:?} in go-import is not one")));
        }
        match entry.vcs.as_str() {
            "git" => {
                let host = Url::parse(&entry.url).ok().and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default();
                self.module(path, &entry.prefix, &entry.url, subdir, self.named(path, &host)).map(Source::Git)
            }
            "mod" => {
                let url = Url::parse(&entry.url).map_err(|e| unknown(format!("the URL of its module proxy is none ({e})")))?;
                let secure = url.scheme() == "https" || (url.scheme() == "http" && self.is_insecure(path.as_str()));
                let bare = url.query().is_none() && url.fragment().is_none();
                let plain = bare && url.host_str().is_some() && url.username().is_empty() && url.password().is_none();
                if secure && plain {
                    self.not_ours(path, &url)?;
                    Ok(Source::Proxy(url))
                } else {
                    Err(unknown("the URL of its module proxy cannot be used".into()))
                }
            }
            other => match OTHERS.into_iter().find(|o| *o == other) {
                Some(system) => self.foreign(path, system, &entry.url).await,
                None => Err(unknown(format!("unknown version control system {other:?}"))),
            },
        }
    }

    /// The entries of an import path's page, which is asked for on behalf of a path at it or below it.
    async fn entries(&self, at: &str, path: &ModulePath) -> Result<Arc<Vec<Entry>>, VcsError> {
        let insecure = self.is_insecure(path.as_str()) || self.is_insecure(at);
        let limits = self.git.access.limits;
        let limit = limits.total.min(limits.connect + limits.first_byte + limits.idle);
        let late =
            || VcsError::Broken { why: format!("the page of {at} took longer than {limit:?}"), hangs: true, may_pass: false };
        // A server that sends a few bytes now and then must not keep all waiting who need the page.
        let read = async { tokio::time::timeout(limit, self.read_page(at, insecure)).await.unwrap_or_else(|_| Err(late())) };
        remembered(&self.pages, &key(at, insecure), read).await
    }

    /// Reads the page of an import path: by https, and where that may be and brought no answer at all, by http.
    async fn read_page(&self, at: &str, insecure: bool) -> Result<Arc<Vec<Entry>>, VcsError> {
        let unknown = |why: String| VcsError::unrecognized(at, why);
        let (host, rest) = at.split_once('/').unwrap_or((at, ""));
        let url = |scheme: &str| Url::parse(&format!("{scheme}://{host}/{rest}?go-get=1")).map_err(|e| unknown(e.to_string()));
        let is_host = host.contains('.') && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.:".contains(&b));
        if !is_host || at.contains(['?', '#', '@', '\\']) {
            return Err(unknown(format!("{at:?} is no address of a page")));
        }
        let mut answer = self.egress.get_page(url("https")?).await;
        if insecure && matches!(&answer, Err(e) if !matches!(e, EgressError::NoTurn { .. } | EgressError::Internal { .. })) {
            answer = self.egress.get_page(url("http")?).await;
        }
        let mut response = answer?;
        let status = response.status;
        // The tags stand at the beginning, however long the page is.
        let found = meta::entries(&response.body.beginning(MAX_PAGE).await?);
        if !found.is_empty() || status == 200 {
            return Ok(Arc::new(found));
        }
        let why = format!("unrecognized import path \"{at}\": {host} answered {status} for {at}?go-get=1");
        Err(match status {
            401 | 403 => VcsError::Denied(why),
            429 | 500..=599 => VcsError::broken(why),
            _ => VcsError::NotFound(why),
        })
    }
}
