//! One git repository: what its server has, and a bare mirror of what was needed of it so far.
//!
//! The mirror is shared by all versions of all modules of the repository. It begins shallow: a commit that a branch or tag names is
//! fetched alone. Where history is asked for, or a commit that no ref names, all branches and tags are fetched, and from then
//! on only what is new. One fetch at a time runs for a repository, the others wait and then look again. A bare hash is never asked
//! of a server: it could hand out commits that no branch and no tag leads to, such as those of pull requests.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};

use super::error::VcsError;
use super::fetch::Mirror;
use super::remote::{Access, Named, Pinned, RepoUrl, pin};
use super::words::{classified, tells_damage};
use crate::egress::{EgressHandle, Reach};
use crate::module::zip::MAX_GO_MOD;
use crate::process::{ProcessError, Run};

/// The most bytes of a tree's list, and of hashes that are read.
pub(super) const MAX_TEXT: usize = 256 << 20;
/// The most bytes of refs that are read; those of a repository with a few hundred thousand merge requests are less.
const MAX_REFS: usize = 64 << 20;
/// How long what a server said of its refs is good for a name that it does not have.
const REFS_KNOWN: Duration = Duration::from_secs(3);
/// How long a failure to reach a server is good for the next who asks.
const FAILURE_KNOWN: Duration = Duration::from_secs(3);

/// A commit's full hash, in hexadecimal digits: 40, or 64 for SHA-256.
pub(super) type Hash = Arc<str>;

/// What repositories of one upstream share.
#[derive(Debug)]
pub(super) struct Git {
    pub(super) access: Access,
    pub(super) reach: Reach,
    pub(super) egress: EgressHandle,
    /// The largest file that a fetch may write.
    pub(super) max_file: u64,
    /// The folder of mirrors.
    pub(super) mirrors: PathBuf,
    /// Programs at work at the same time on mirrors.
    pub(super) slots: Arc<Semaphore>,
    /// The same over the network, apart, so that servers which hang leave room for what is here already.
    pub(super) network: Semaphore,
}

/// What a server has: `HEAD`, branches and tags by their full names, and the commits they lead to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Refs(BTreeMap<String, Hash>);

/// A repository.
#[derive(Debug)]
pub(super) struct Repository {
    pub(super) git: Arc<Git>,
    pub(super) url: RepoUrl,
    named: Named,
    /// Where that one's redirects led to when they were followed last.
    moved: ArcSwapOption<RepoUrl>,
    pub(super) folder: PathBuf,
    known: Mutex<Known>,
    pub(super) mirror: Mutex<Mirror>,
    /// How often something may have been added to the mirror.
    pub(super) additions: AtomicU64,
    /// The commit that was read last: `.info`, `.mod` and `.zip` of a version are asked for one after the other.
    last: ArcSwapOption<Read>,
    /// Whether git found the mirror damaged; it is made anew then before it is used again.
    pub(super) damaged: AtomicBool,
}

/// Files of a commit, as they were read.
#[derive(Debug)]
struct Read {
    hash: Hash,
    paths: Vec<String>,
    commit: Commit,
}

/// What is known of the server.
#[derive(Debug, Default)]
struct Known {
    refs: Option<Arc<Refs>>,
    /// When that was asked, and how it ended.
    asked: Option<(Instant, Result<(), VcsError>)>,
}

/// A commit's time, and the files that were asked for, by their paths.
#[derive(Debug, Clone)]
pub(super) struct Commit {
    pub(super) time: Timestamp,
    pub(super) files: Vec<Option<Bytes>>,
}

impl Refs {
    fn parse(text: &str) -> Self {
        let mut refs = BTreeMap::new();
        let mut peeled = Vec::new();
        for line in text.lines() {
            let Some((hash, name)) = line.split_once('\t') else { continue };
            let counts = name == "HEAD" || name.starts_with("refs/heads/") || name.starts_with("refs/tags/");
            if !counts || !is_hash(hash) || !is_ref_name(name) {
                continue;
            }
            match name.strip_suffix("^{}") {
                Some(name) => peeled.push((name.to_owned(), Hash::from(hash))),
                None => drop(refs.insert(name.to_owned(), Hash::from(hash))),
            }
        }
        // An annotated tag counts as the commit that it leads to.
        refs.extend(peeled);
        Self(refs)
    }

    pub(super) fn get(&self, name: &str) -> Option<&Hash> {
        self.0.get(name)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Hash)> {
        self.0.iter().map(|(name, hash)| (name.as_str(), hash))
    }

    /// Tags by their short names, in order, from those on that begin with `prefix`.
    pub(super) fn tags<'r>(&'r self, prefix: &'r str) -> impl Iterator<Item = (&'r str, &'r Hash)> {
        let start = format!("refs/tags/{prefix}");
        self.0
            .range(start..)
            .map_while(|(name, hash)| Some((name.strip_prefix("refs/tags/")?, hash)))
            .take_while(move |(tag, _)| tag.starts_with(prefix))
    }

    /// Whether hashes are those of SHA-256.
    pub(super) fn is_sha256(&self) -> bool {
        self.0.values().next().is_some_and(|hash| hash.len() == 64)
    }
}

fn is_hash(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && is_hex(text)
}

/// Whether a text is of the digits that hashes are written in.
pub(super) fn is_hex(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// What git itself demands of a ref's name (`git check-ref-format`), a tag's `^{}` aside.
fn is_ref_name(name: &str) -> bool {
    let name = name.strip_suffix("^{}").unwrap_or(name);
    let bad = |c: char| c.is_control() || matches!(c, ' ' | '~' | '^' | ':' | '?' | '*' | '[' | '\\');
    let element = |e: &str| !e.is_empty() && !e.starts_with('.') && e.strip_suffix(".lock").is_none();
    !name.contains(bad) && !name.contains("..") && !name.contains("@{") && !name.ends_with('.') && name.split('/').all(element)
}

impl Repository {
    pub(super) fn new(git: Arc<Git>, url: RepoUrl, named: Named) -> Self {
        let name = Sha256::digest(format!("git {}", url.as_str()));
        let name = u128::from_be_bytes(std::array::from_fn(|at| name[at]));
        let folder = git.mirrors.join(format!("{name:032x}"));
        Self {
            git,
            url,
            named,
            moved: ArcSwapOption::empty(),
            folder,
            known: Mutex::default(),
            mirror: Mutex::default(),
            additions: AtomicU64::new(0),
            last: ArcSwapOption::empty(),
            damaged: AtomicBool::new(false),
        }
    }

    pub(super) fn url(&self) -> &RepoUrl {
        &self.url
    }

    /// What was heard of the server last, however long ago; asked now where it never was.
    pub(super) async fn refs(&self) -> Result<Arc<Refs>, VcsError> {
        self.refs_within(None).await
    }

    /// What the server has, as it said a moment ago at the most. Those who ask at the same time share one question.
    pub(super) async fn fresh_refs(&self) -> Result<Arc<Refs>, VcsError> {
        self.refs_within(Some(Duration::ZERO)).await
    }

    /// The same for a name that was not among what was heard last: asked again every few seconds at the most.
    pub(super) async fn renewed_refs(&self) -> Result<Arc<Refs>, VcsError> {
        self.refs_within(Some(REFS_KNOWN)).await
    }

    async fn refs_within(&self, age: Option<Duration>) -> Result<Arc<Refs>, VcsError> {
        let wanted = Instant::now();
        let mut known = self.known.lock().await;
        let young = |asked: Instant, age: Duration| asked + age >= wanted;
        match (&known.asked, &known.refs) {
            (_, Some(refs)) if age.is_none() => return Ok(Arc::clone(refs)),
            (Some((asked, Ok(()))), Some(refs)) if age.is_some_and(|age| young(*asked, age)) => return Ok(Arc::clone(refs)),
            (Some((asked, Err(e))), _) if young(*asked, FAILURE_KNOWN) => return Err(e.clone()),
            _ => {}
        }
        let asked = Instant::now();
        match self.ask_refs().await {
            Ok(refs) => {
                let refs = match &known.refs {
                    Some(before) if **before == refs => Arc::clone(before),
                    _ => Arc::new(refs),
                };
                (known.refs, known.asked) = (Some(Arc::clone(&refs)), Some((asked, Ok(()))));
                Ok(refs)
            }
            Err(e) => {
                // A turn that was not had says nothing of the server.
                if !matches!(e, VcsError::NoTurn(_)) {
                    known.asked = Some((Instant::now(), Err(e.clone())));
                }
                Err(e)
            }
        }
    }

    async fn ask_refs(&self) -> Result<Refs, VcsError> {
        let limits = self.git.access.limits;
        let limit = limits.connect + limits.first_byte + limits.idle;
        let listed = self.network((limit.min(limits.total), MAX_REFS), |url| {
            vec!["ls-remote".into(), "-q".into(), "--end-of-options".into(), url]
        });
        let text = match listed.await {
            Err(e @ (VcsError::Denied(_) | VcsError::Broken { hangs: false, .. })) => return Err(self.perhaps_missing(e).await),
            listed => listed?,
        };
        Ok(Refs::parse(&String::from_utf8_lossy(&text)))
    }

    /// Well-known hosts answer for what they do not have as for what is secret. Their page says which it is. Elsewhere a page may well
    /// be missing that has a repository below it.
    async fn perhaps_missing(&self, e: VcsError) -> VcsError {
        let known = matches!(self.url.host(), "github.com" | "bitbucket.org" | "gitlab.com" | "codeberg.org");
        let secret = !known || self.git.access.login(&self.url).is_some() || !matches!(e, VcsError::Denied(_));
        let Some(url) = url::Url::parse(self.url.as_str()).ok().filter(|u| !secret && matches!(u.scheme(), "http" | "https"))
        else {
            return e;
        };
        match self.git.egress.get(url).await {
            Ok(page) if matches!(page.status, 404 | 410) => {
                VcsError::not_found(format!("repository {} ({}, to the asker without a login)", self.url.as_str(), page.status))
            }
            _ => e,
        }
    }

    /// Runs git over the network, within the upstream's limits, and again where it failed in a way that may pass.
    pub(super) async fn network(
        &self,
        limits: (Duration, usize),
        arguments: impl Fn(String) -> Vec<String>,
    ) -> Result<Vec<u8>, VcsError> {
        let mut repeated = 0;
        let mut known = self.moved.load_full();
        let mut url = known.as_deref().unwrap_or(&self.url).clone();
        loop {
            let failed = match self.network_once(&url, limits, arguments(url.as_str().to_owned())).await {
                Err(e) => e,
                done => return done,
            };
            if let Some(moved) = self.redirected(&url, &failed).await? {
                url = moved;
                continue;
            }
            if known.take().is_some() {
                // It may have moved on, which its first place knows.
                self.moved.store(None);
                url = self.url.clone();
                continue;
            }
            let again =
                matches!(failed, VcsError::Broken { may_pass: true, .. }).then(|| self.git.egress.again(repeated)).flatten();
            let Some(wait) = again else { return Err(failed) };
            tracing::debug!(repository = self.url.as_str(), error = %failed, ?wait, "asked again");
            repeated += 1;
            tokio::time::sleep(wait).await;
        }
    }

    async fn network_once(&self, url: &RepoUrl, limits: (Duration, usize), arguments: Vec<String>) -> Result<Vec<u8>, VcsError> {
        let git = &self.git;
        let _turn = git.egress.turn().await?;
        let _slot = git.network.acquire().await;
        let limit = git.access.limits.connect;
        let pinned = match self.named {
            Named::Configured => Pinned::new(),
            Named::ByHost => pin(url, &git.reach, &git.access.proxy, limit).await?,
            Named::ByStranger => pin(url, &Reach::default(), &git.access.proxy, limit).await?,
        };
        let run = self.command(arguments).envs(git.access.remote(url, &pinned, self.named)?);
        run.limits(limits.0, limits.1).largest_file(git.max_file).output().await.map_err(|e| self.classified(&e))
    }

    /// Where a guarded server's answer was a redirect, which git does not follow then: where that leads, by requests that look at each
    /// address before they go there.
    async fn redirected(&self, url: &RepoUrl, failed: &VcsError) -> Result<Option<RepoUrl>, VcsError> {
        const SERVICE: &str = "/info/refs";
        let says_so = matches!(failed, VcsError::Broken { why, .. } if why.contains("returned error: 30"));
        if !self.named.is_guarded() || !says_so || url != &self.url {
            return Ok(None);
        }
        let asked = format!("{}{SERVICE}?service=git-upload-pack", url.as_str().trim_end_matches('/'));
        let asked = url::Url::parse(&asked).map_err(|_| VcsError::broken("the repository's URL cannot be asked"))?;
        let mut found = self.git.egress.get(asked).await?.url;
        let Some(path) = found.path().strip_suffix(SERVICE).map(str::to_owned) else { return Ok(None) };
        found.set_path(&path);
        found.set_query(None);
        let moved = RepoUrl::parse(found.as_str()).map_err(VcsError::broken)?;
        self.moved.store(Some(Arc::new(moved.clone())));
        Ok(Some(moved))
    }

    /// A git command for the mirror. Its home is no user's, so that git and curl do not look into one, unless a git configuration
    /// counts, which may speak of its own; ssh knows the user's by itself.
    fn command(&self, arguments: Vec<String>) -> Run {
        let home = std::env::var_os("HOME").filter(|_| self.git.access.git_config.is_some());
        let home = home.unwrap_or_else(|| self.git.mirrors.clone().into());
        Run::new("git").args(arguments).env("GIT_DIR", &self.folder).env("HOME", home).folder(&self.git.mirrors)
    }

    /// A git command that works on the mirror alone.
    pub(super) fn local_run(&self, arguments: Vec<String>) -> Run {
        self.command(arguments).envs(self.git.access.local()).limits(self.git.access.limits.total, MAX_TEXT)
    }

    /// A place among the programs that may work at the same time.
    pub(super) async fn slot(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.git.slots).acquire_owned().await.ok()
    }

    /// Runs git on the mirror alone.
    pub(super) async fn local(&self, arguments: &[&str], input: Vec<u8>) -> Result<Vec<u8>, ProcessError> {
        let _slot = self.git.slots.acquire().await;
        let run = self.local_run(arguments.iter().map(|a| (*a).to_owned()).collect());
        run.input(input).output().await
    }

    /// Facts about a commit, which is fetched where the mirror does not have it. `name` is a ref that leads to it, where there is one.
    pub(super) async fn commit(self: &Arc<Self>, hash: &Hash, name: Option<&str>, paths: &[String]) -> Result<Commit, VcsError> {
        let additions = self.additions.load(Ordering::Acquire);
        if self.is_made() {
            let last = self.last.load_full();
            if let Some(last) = last.filter(|last| last.hash == *hash && last.paths == paths) {
                return Ok(last.commit.clone());
            }
            match self.read(hash, paths).await {
                Ok(Some(commit)) => return Ok(commit),
                Err(e) if self.is_made() => return Err(e),
                Ok(None) | Err(_) => {}
            }
        }
        self.bring(hash, name, additions).await?;
        if let Some(commit) = self.read(hash, paths).await? {
            return Ok(commit);
        }
        // The ref leads elsewhere by now; the commit may still be part of a history.
        self.bring_all(&self.refs().await?).await?;
        let missing = || VcsError::not_found(format!("unknown revision {hash}: the server has no such commit"));
        self.read(hash, paths).await?.ok_or_else(missing)
    }

    /// Reads a commit and files of it from the mirror; `None` where it is not there.
    async fn read(&self, hash: &Hash, paths: &[String]) -> Result<Option<Commit>, VcsError> {
        let asked = paths.iter().fold(format!("{hash}\n"), |asked, path| asked + hash + ":" + path + "\n");
        let _slot = self.git.slots.acquire().await;
        let run = self.local_run(vec!["cat-file".into(), "--batch".into()]).input(asked.into_bytes());
        let most = (paths.len() + 1) * (MAX_FILE + 1024);
        let answered = match run.limits(self.git.access.limits.total, most).output().await {
            Err(ProcessError::TooMuch { .. }) => return Err(VcsError::not_found("a go.mod or LICENSE larger than 16 MiB")),
            answered => answered.map_err(|e| self.classified(&e))?,
        };
        let small = answered.len() <= MAX_KEPT;
        let mut rest = Bytes::from(answered);
        let Some(head) = blob(&mut rest, "commit") else { return Ok(None) };
        let time = committed(&head).ok_or_else(|| VcsError::not_found(format!("commit {hash} has no time that can be read")))?;
        let commit = Commit { time, files: paths.iter().map(|_| blob(&mut rest, "blob")).collect() };
        let read = || Arc::new(Read { hash: Arc::clone(hash), paths: paths.to_vec(), commit: commit.clone() });
        self.last.store(small.then(read));
        Ok(Some(commit))
    }

    /// The commit whose hash begins so, among all that branches and tags lead to.
    pub(super) async fn find(self: &Arc<Self>, prefix: &str) -> Result<Option<Hash>, VcsError> {
        self.bring_all(&self.refs().await?).await?;
        self.find_here(prefix).await
    }

    /// The same among those that the mirror has already.
    pub(super) async fn find_here(&self, prefix: &str) -> Result<Option<Hash>, VcsError> {
        if !self.is_made() {
            return Ok(None);
        }
        let run = |arguments: Vec<String>, input| async move {
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            let written = self.local(&arguments, input).await.map_err(|e| self.classified(&e))?;
            Ok::<_, VcsError>(String::from_utf8_lossy(&written).into_owned())
        };
        let objects = run(vec!["rev-parse".into(), format!("--disambiguate={prefix}")], Vec::new()).await?;
        if objects.is_empty() {
            return Ok(None);
        }
        let checked = run(vec!["cat-file".into(), "--batch-check".into()], objects.into_bytes()).await?;
        let mut reachable = Vec::new();
        for hash in checked.lines().filter_map(|line| line.split_once(" commit ").map(|(hash, _)| hash)) {
            let arguments =
                ["for-each-ref", "--count=1", "--format=x", "--contains", hash, "refs/heads", "refs/tags", "refs/modgate"];
            if !run(arguments.map(str::to_owned).to_vec(), Vec::new()).await?.is_empty() {
                reachable.push(Hash::from(hash));
            }
        }
        Ok(if reachable.len() == 1 { reachable.pop() } else { None })
    }

    /// The tags, by their short names, that lead to a commit or to one before it.
    pub(super) async fn tags_up_to(self: &Arc<Self>, hash: &Hash) -> Result<Vec<String>, VcsError> {
        let refs = self.refs().await?;
        self.bring_all(&refs).await?;
        let merged = format!("--merged={hash}");
        let listed = self.local(&["for-each-ref", "--format=%(refname)", &merged, "refs/tags"], Vec::new()).await;
        let listed = listed.map_err(|e| self.classified(&e))?;
        let text = String::from_utf8_lossy(&listed);
        Ok(text
            .lines()
            .filter(|name| refs.get(name).is_some())
            .filter_map(|n| n.strip_prefix("refs/tags/"))
            .map(str::to_owned)
            .collect())
    }

    /// Whether one commit comes after another, or is the same.
    pub(super) async fn descends(self: &Arc<Self>, from: &Hash, hash: &Hash) -> Result<bool, VcsError> {
        // A history that is cut off can only say yes.
        if from == hash || (self.is_made() && self.is_ancestor(from, hash).await?) {
            return Ok(true);
        }
        if self.is_whole() && self.has(from).await && self.has(hash).await {
            return Ok(false);
        }
        self.bring_all(&self.refs().await?).await?;
        self.is_ancestor(from, hash).await
    }

    async fn is_ancestor(&self, from: &Hash, of: &Hash) -> Result<bool, VcsError> {
        match self.local(&["merge-base", "--is-ancestor", "--end-of-options", from, of], Vec::new()).await {
            Ok(_) => Ok(true),
            // 1 says no, 128 that one of them is not here.
            Err(ProcessError::Failed { code: Some(1 | 128), .. }) => Ok(false),
            Err(e) => Err(self.classified(&e)),
        }
    }

    pub(super) async fn has(&self, hash: &Hash) -> bool {
        self.local(&["cat-file", "-e", hash], Vec::new()).await.is_ok()
    }

    pub(super) fn classified(&self, e: &ProcessError) -> VcsError {
        let home = std::env::var_os("HOME").map(|home| (PathBuf::from(home), "~"));
        let own = [(self.folder.clone(), "the mirror"), (self.git.mirrors.clone(), "…")];
        let files = self.git.access.files(&self.url).into_iter().chain(own).chain(home);
        if tells_damage(e) && !self.damaged.swap(true, Ordering::Relaxed) {
            tracing::warn!(repository = self.url.as_str(), error = %e, "the mirror is damaged and will be made anew");
        }
        classified(e, &self.url, &self.git.mirrors, &files.collect::<Vec<_>>())
    }
}

/// The most bytes of a commit and its files that are kept in memory.
const MAX_KEPT: usize = 64 << 10;
/// The largest file that is read of a commit.
#[expect(clippy::cast_possible_truncation, reason = "16 MiB")]
const MAX_FILE: usize = MAX_GO_MOD as usize;

/// The next answer of `cat-file --batch`, where it is an object of the wanted kind.
fn blob(rest: &mut Bytes, wanted: &str) -> Option<Bytes> {
    let end = rest.iter().position(|b| *b == b'\n')?;
    let head = rest.split_to(end + 1);
    let head = String::from_utf8_lossy(&head);
    // `HASH KIND SIZE`; what is missing is told by other words, and a path in them may end in anything.
    let mut words = head.trim_end().split(' ');
    let (hash, kind, size) = (words.next()?, words.next()?, words.next().and_then(|s| s.parse::<usize>().ok()));
    let size = size.filter(|_| is_hash(hash) && words.next().is_none())?;
    if size >= rest.len() {
        return None;
    }
    let content = rest.split_to(size);
    let _ = rest.split_to(1);
    (kind == wanted).then_some(content)
}

/// The committer's time in a commit object.
fn committed(commit: &[u8]) -> Option<Timestamp> {
    let text = String::from_utf8_lossy(commit);
    let line = text.lines().take_while(|line| !line.is_empty()).find_map(|line| line.strip_prefix("committer "))?;
    let mut words = line.rsplit(' ');
    let (_zone, seconds) = (words.next()?, words.next()?);
    Timestamp::from_second(seconds.parse().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn refs_are_peeled_and_others_passed_over() {
        let (a, b) = ("a".repeat(40), "b".repeat(40));
        let text = format!(
            "{a}\tHEAD\n{a}\trefs/heads/main\n{a}\trefs/tags/v1.0.0\n{b}\trefs/tags/v1.0.0^{{}}\n{a}\trefs/pull/1/head\n{a}\trefs/tags/-x..y\nno\n"
        );
        let refs = Refs::parse(&text);
        assert_eq!(refs.iter().count(), 3);
        assert_eq!(refs.get("refs/tags/v1.0.0").map(|h| &**h), Some(b.as_str()));
        assert_eq!(refs.tags("v1").map(|(tag, _)| tag).collect::<Vec<_>>(), ["v1.0.0"]);
    }

    #[test]
    fn batches_are_taken_apart() {
        let h = "0123456789abcdef0123456789abcdef01234567";
        let commit = "tree x\nauthor A <a> 5 +0000\ncommitter B <b> 1136214245 +0100\n\ncommitter no\n";
        let text = format!("{h} commit {}\n{commit}\n{h}:go.mod missing\n{h} tree 2\nxx\n{h} blob 3\na\nb\n", commit.len());
        let mut rest = Bytes::from(text);
        let head = blob(&mut rest, "commit").expect("commit");
        assert_eq!(committed(&head).map(|t| t.to_string()).as_deref(), Some("2006-01-02T15:04:05Z"));
        assert_eq!((blob(&mut rest, "blob"), blob(&mut rest, "blob")), (None, None));
        assert_eq!(blob(&mut rest, "blob").as_deref(), Some(&b"a\nb"[..]));
        assert_eq!(blob(&mut rest, "blob"), None);
    }

    proptest! {
        #[test]
        fn nothing_that_git_could_say_breaks_it(text in "([0-9a-f]{40}|[ \t\n]|refs/tags/|commit|blob|committer|[0-9]{1,20}|\\PC)*") {
            let mut rest = Bytes::from(text.clone());
            let _ = (Refs::parse(&text), committed(text.as_bytes()), blob(&mut rest, "blob"));
        }
    }
}
