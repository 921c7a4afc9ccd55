//! From what is asked of a module to a commit and a version, as the go command's direct mode goes
//! (<https://go.dev/ref/mod#vcs-version>).

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::Mutex;

use super::error::VcsError;
use super::git::{Hash, Refs, Repository, is_hex};
use super::origin::Origin;
use super::place::{Place, Second, place};
use crate::module::gomod::{GoMod, synthesized};
use crate::module::list::VersionList;
use crate::module::pseudo::{self, is_pseudo};
use crate::module::semver::{canonical, canonical_module, compare, major, major_fits};
use crate::module::{Info, ModulePath, ModuleVersion, Query, Version, is_semver};

/// A module in a repository.
#[derive(Debug, Clone)]
pub struct Module {
    pub(super) path: ModulePath,
    /// The import path of the repository's top.
    pub(super) root: String,
    /// The directory that holds it, or holds its major version directories; empty for the top.
    pub(super) dir: String,
    pub(super) repository: Arc<Repository>,
}

/// What was found under a name.
struct Found {
    hash: Hash,
    /// The full name of the ref that leads there.
    reference: Option<String>,
}

/// A commit, seen from a module.
pub(super) struct Revision {
    pub(super) hash: Hash,
    pub(super) time: Timestamp,
    /// The full name of the ref that led there.
    pub(super) reference: Option<String>,
    /// Its tags, in order.
    tags: Vec<String>,
    files: Mutex<HashMap<String, Option<Bytes>>>,
}

/// A canonical version, checked, and where its files are.
pub(super) struct Located {
    pub(super) revision: Revision,
    pub(super) place: Place,
}

/// What an `.info` was asked about.
#[derive(Clone, Copy)]
struct Asked<'t>(&'t str);

impl Asked<'_> {
    /// The version without `+incompatible`.
    fn base(&self) -> &str {
        self.0.strip_suffix("+incompatible").unwrap_or(self.0)
    }

    fn is_canonical(&self) -> bool {
        canonical_module(self.0).as_deref() == Some(self.0)
    }
}

impl Module {
    /// A module of a repository whose top has the import path `root`; `subdirectory` counts as its top.
    ///
    /// # Errors
    /// That such a repository cannot hold it.
    pub(super) fn new(path: ModulePath, root: &str, subdirectory: &str, repository: Arc<Repository>) -> Result<Self, VcsError> {
        let own = if path.as_str() == root { root } else { path.prefix() };
        let relative = own.strip_prefix(root).filter(|rest| rest.is_empty() || rest.starts_with('/'));
        let Some(relative) = relative else {
            return Err(VcsError::not_found(format!("repository rooted at {root} cannot contain module {path}")));
        };
        let elements = relative.split('/').chain(subdirectory.split('/')).filter(|e| !e.is_empty() && *e != ".");
        let dir = elements.collect::<Vec<_>>().join("/");
        let root = root.to_owned();
        Ok(Self { path, root, dir, repository })
    }

    pub(super) fn suffix(&self) -> &str {
        self.path.major_suffix()
    }

    /// The major version that the path asks for, as `v2`; empty where it asks for none.
    fn major(&self) -> &str {
        let suffix = self.suffix();
        suffix.strip_suffix("-unstable").unwrap_or(suffix).get(1..).unwrap_or_default()
    }

    /// What the module's tags begin with.
    fn tag_prefix(&self) -> String {
        if self.dir.is_empty() { String::new() } else { format!("{}/", self.dir) }
    }

    fn invalid(&self, version: &str, why: impl std::fmt::Display) -> VcsError {
        VcsError::not_found(format!("{}@{version}: invalid version: {why}", self.path))
    }

    /// The versions that its tags name. One question to the server, and where `+incompatible` ones could be among them, a few commits.
    pub async fn list(&self) -> Result<VersionList, VcsError> {
        let refs = self.repository.fresh_refs().await?;
        let texts = self.versions(&refs).await?;
        Ok(VersionList::from_versions(texts.iter().filter_map(|text| Version::parse(text).ok())))
    }

    /// The same in order, by what the server was heard to have: those that the path allows, then `+incompatible` ones.
    async fn versions(&self, refs: &Refs) -> Result<Vec<String>, VcsError> {
        let (suffix, prefix) = (self.suffix(), self.tag_prefix());
        if suffix.ends_with("-unstable") {
            return Ok(Vec::new());
        }
        let named = |tag: &str| tag[prefix.len()..].to_owned();
        let tagged = refs.tags(&prefix).map(|(tag, _)| named(tag));
        let usual = tagged.filter(|v| canonical(v).as_deref() == Some(v) && !is_pseudo(v));
        let (mut list, others): (Vec<String>, Vec<String>) = usual.partition(|v| major_fits(suffix, v));
        list.sort_by(|a, b| compare(a, b));
        let at_top = self.dir.is_empty() && suffix.is_empty();
        let mut incompatible: Vec<String> = others.into_iter().filter(|_| at_top).collect();
        incompatible.sort_by(|a, b| compare(a, b));
        if incompatible.is_empty() || (!list.is_empty() && self.has_go_mod(refs, list.last()).await?) {
            return Ok(list);
        }
        for of_major in incompatible.chunk_by(|a, b| major(a) == major(b)) {
            if !self.has_go_mod(refs, of_major.last()).await? {
                list.extend(of_major.iter().map(|v| format!("{v}+incompatible")));
            }
        }
        Ok(list)
    }

    /// Whether a tagged version has a go.mod at the repository's top.
    async fn has_go_mod(&self, refs: &Refs, tag: Option<&String>) -> Result<bool, VcsError> {
        let Some(name) = tag.map(|tag| format!("refs/tags/{tag}")) else { return Ok(false) };
        let Some(hash) = refs.get(&name) else { return Ok(false) };
        match self.repository.commit(hash, Some(&name), &["go.mod".into()]).await {
            Ok(commit) => Ok(commit.files.first().is_some_and(Option::is_some)),
            // A tag that leads to no commit has no files.
            Err(e) if e.is_not_found() => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// The latest version, as the go command takes it: the highest release that is not retracted, else the highest pre-release,
    /// else the tip of the server's main branch.
    pub async fn latest(&self) -> Result<Info, VcsError> {
        let refs = self.repository.fresh_refs().await?;
        let mut versions = self.versions(&refs).await?;
        let retracted = self.retractions(&versions).await;
        if let Some(at) = versions.iter().position(|v| v.ends_with("+incompatible"))
            && at > 0
            && self.has_go_mod(&refs, versions.get(at - 1)).await?
        {
            versions.truncate(at);
        }
        versions.retain(|v| !retracted.retracts(v));
        let is_release = |v: &&String| !v.contains('-');
        let best = versions.iter().rev().find(is_release).or(versions.last());
        if let Some(version) = best {
            return self.info(&query(version)?).await;
        }
        let head = refs.get("HEAD").ok_or_else(|| VcsError::not_found(format!("{}: no commits", self.path)))?;
        let found = Found { hash: Arc::clone(head), reference: Some("HEAD".into()) };
        self.foresee(&found, &refs, Asked("")).await?;
        let revision = self.open(found, &refs, "").await?;
        let version = self.version_of(&revision, &refs, None, Asked("")).await?;
        self.written(&revision, &refs, &version, Asked(""))
    }

    /// The facts about a version, or the version that a branch, a tag or a commit comes to.
    pub async fn info(&self, query: &Query) -> Result<Info, VcsError> {
        if query.as_str() == "latest" {
            return Box::pin(self.latest()).await;
        }
        let (revision, refs, version) = self.checked(query.as_str()).await?;
        self.written(&revision, &refs, &version, Asked(query.as_str()))
    }

    /// A version's go.mod; one is made up where it has none.
    pub async fn go_mod(&self, version: &ModuleVersion) -> Result<Bytes, VcsError> {
        let located = self.locate(version).await?;
        Ok(located.place.go_mod.unwrap_or_else(|| synthesized(&self.path).into()))
    }

    /// A version's commit and the place of the module in it.
    pub(super) async fn locate(&self, version: &ModuleVersion) -> Result<Located, VcsError> {
        let text = version.version.as_str();
        let (revision, _, found) = self.checked(text).await?;
        if found != text {
            return Err(self.invalid(text, format!("resolves to version {found}")));
        }
        let place = self.place(&revision, text).await?;
        Ok(Located { revision, place })
    }

    async fn checked(&self, text: &str) -> Result<(Revision, Arc<Refs>, String), VcsError> {
        let asked = Asked(text);
        let name = self.revision_name(text);
        let found = self.look_up(&name).await.map_err(|e| match e {
            VcsError::NotFound(why) => self.invalid(text, why),
            e => e,
        })?;
        let refs = self.repository.refs().await?;
        let named =
            found.reference.as_deref().and_then(|r| r.strip_prefix("refs/tags/")).filter(|tag| *tag == name).map(str::to_owned);
        self.foresee(&found, &refs, asked).await?;
        let revision = self.open(found, &refs, text).await?;
        let version = self.version_of(&revision, &refs, named.as_deref(), asked).await?;
        Ok((revision, refs, version))
    }

    /// The name by which the repository knows what was asked.
    fn revision_name(&self, text: &str) -> String {
        if !is_semver(text) {
            return text.to_owned();
        }
        match pseudo::take_apart(text) {
            Some(parts) => parts.revision.to_owned(),
            None => self.tag_prefix() + Asked(text).base(),
        }
    }

    /// Finds a tag, a branch, `HEAD`, or a commit by the beginning of its hash. Tags are assumed to stay where they are; for
    /// anything else the server is asked unless it was a moment ago.
    async fn look_up(&self, name: &str) -> Result<Found, VcsError> {
        let (repository, tag) = (&self.repository, format!("refs/tags/{name}"));
        let known = repository.refs().await?;
        if let Some(hash) = known.get(&tag) {
            return Ok(Found { hash: Arc::clone(hash), reference: Some(tag) });
        }
        let is_hash = (7..=64).contains(&name.len()) && is_hex(name);
        if is_hash {
            if let Some(found) = by_refs(&known, name)? {
                return Ok(found);
            }
            if let Some(hash) = repository.find_here(name).await? {
                return Ok(Found { hash, reference: None });
            }
        }
        let refs = repository.renewed_refs().await?;
        if let Some(found) = by_refs(&refs, name)? {
            return Ok(found);
        }
        let found = if is_hash { repository.find(name).await? } else { None };
        found.map(|hash| Found { hash, reference: None }).ok_or_else(|| VcsError::not_found(format!("unknown revision {name}")))
    }

    /// Brings all history at once where it will be needed. Else the commit would be fetched alone first, then the highest version for
    /// what it retracts, and history after all.
    async fn foresee(&self, found: &Found, refs: &Arc<Refs>, asked: Asked<'_>) -> Result<(), VcsError> {
        if self.hangs_on_history(found, refs, asked) { self.repository.bring_all(refs).await } else { Ok(()) }
    }

    /// Whether the tags before a commit say its version, as far as that can be told without them: none at it does, and there are others.
    fn hangs_on_history(&self, found: &Found, refs: &Refs, asked: Asked<'_>) -> bool {
        let (prefix, suffix) = (self.tag_prefix(), self.suffix());
        let fits = |tag: &str| self.version_of_tag(tag).is_some_and(|(version, _)| major_fits(suffix, &version));
        let mut versions = refs.tags(&prefix).filter(|(tag, _)| fits(tag)).map(|(_, hash)| hash).peekable();
        !is_semver(asked.0) && versions.peek().is_some() && versions.all(|hash| *hash != found.hash)
    }

    /// Opens a commit, with the files that are likely to be asked for.
    async fn open(&self, found: Found, refs: &Refs, asked: &str) -> Result<Revision, VcsError> {
        let Found { hash, reference } = found;
        let tags: Vec<String> = refs.tags("").filter(|(_, h)| **h == hash).map(|(tag, _)| tag.to_owned()).collect();
        let mut paths = vec![in_dir(&self.dir, "go.mod")];
        let further = match self.suffix() {
            "" => Some(major(asked)).filter(|major| self.dir.is_empty() && !matches!(*major, "" | "v0" | "v1")),
            suffix => suffix.strip_prefix('/'),
        };
        paths.extend(further.map(|major| in_dir(&in_dir(&self.dir, major), "go.mod")));
        // A ref of the server's by which the commit can be fetched.
        let name = reference.as_deref().filter(|r| *r != "HEAD");
        let other = || refs.iter().find(|(name, h)| **h == hash && *name != "HEAD").map(|(name, _)| name);
        let name = name.or_else(other).or(reference.as_deref());
        let commit = self.repository.commit(&hash, name, &paths).await?;
        let files = Mutex::new(paths.into_iter().zip(commit.files).collect());
        Ok(Revision { hash, time: commit.time, reference, tags, files })
    }

    /// A file of a commit.
    pub(super) async fn file(&self, revision: &Revision, path: &str) -> Result<Option<Bytes>, VcsError> {
        let mut files = revision.files.lock().await;
        if let Some(known) = files.get(path) {
            return Ok(known.clone());
        }
        let read = self.repository.commit(&revision.hash, None, &[path.to_owned()]).await?;
        let file = read.files.into_iter().next().flatten();
        files.insert(path.to_owned(), file.clone());
        Ok(file)
    }

    async fn place(&self, revision: &Revision, version: &str) -> Result<Place, VcsError> {
        let first = self.file(revision, &in_dir(&self.dir, "go.mod")).await?;
        let second = match self.suffix().strip_prefix('/').filter(|_| self.root != self.path.as_str()) {
            None => Second::NoMatter,
            Some(major) => {
                let file = self.file(revision, &in_dir(&in_dir(&self.dir, major), "go.mod")).await?;
                file.map_or(Second::Missing, Second::There)
            }
        };
        place(self, first, &second, version, &self.revision_name(version)).map_err(|why| self.invalid(version, why))
    }

    /// The version of a commit. `named` is the tag by which it was asked for.
    async fn version_of(
        &self,
        revision: &Revision,
        refs: &Arc<Refs>,
        named: Option<&str>,
        asked: Asked<'_>,
    ) -> Result<String, VcsError> {
        if is_pseudo(asked.0) {
            let version = self.accept(revision, asked.0, asked).await?;
            self.check_pseudo(revision, refs, asked.0).await?;
            return Ok(version);
        }
        if let Some((version, true)) = named.and_then(|tag| self.version_of_tag(tag))
            && let Ok(version) = self.accept(revision, &version, asked).await
        {
            return Ok(version);
        }
        let retracted = self.retractions(&self.versions(refs).await?).await;
        let (mut highest, mut base) = (String::new(), String::new());
        for tag in &revision.tags {
            let Some((version, exact)) = self.version_of_tag(tag) else { continue };
            if !asked.0.is_empty() && is_semver(asked.0) && compare(&version, asked.0).is_eq() {
                if exact {
                    return self.accept(revision, &version, asked).await;
                }
                base.clone_from(&version);
            }
            if exact && compare(&highest, &version).is_lt() && self.may_be(revision, &version, asked, &retracted).await? {
                highest = version;
            }
        }
        if !highest.is_empty() {
            return self.accept(revision, &highest, asked).await;
        }
        if base.is_empty() {
            base = self.base(revision, refs, asked, &retracted).await?;
        }
        let short: String = revision.hash.chars().take(12).collect();
        let version = pseudo::build(self.major(), &base, revision.time, &short);
        self.accept(revision, &version, asked).await
    }

    /// The highest version among the tags of a commit and of those before it.
    async fn base(&self, revision: &Revision, refs: &Arc<Refs>, asked: Asked<'_>, retracted: &GoMod) -> Result<String, VcsError> {
        let prefix = self.tag_prefix();
        // Without a tag that could be one, history need not be fetched.
        let mut candidates = Vec::new();
        for (tag, _) in refs.tags(&prefix) {
            if let Some((version, _)) = self.version_of_tag(tag)
                && self.may_be(revision, &version, asked, retracted).await?
            {
                candidates.push((tag, version));
            }
        }
        if candidates.is_empty() {
            return Ok(String::new());
        }
        let before = self.repository.tags_up_to(&revision.hash).await?;
        let before: std::collections::HashSet<&str> = before.iter().map(String::as_str).collect();
        let versions = candidates.into_iter().filter(|(tag, _)| before.contains(tag)).map(|(_, version)| version);
        Ok(versions.max_by(|a, b| compare(a, b)).unwrap_or_default())
    }

    /// Whether a version can be one of this module at this commit.
    async fn may_be(&self, revision: &Revision, version: &str, asked: Asked<'_>, retracted: &GoMod) -> Result<bool, VcsError> {
        let fits = major_fits(self.suffix(), version) || self.may_be_incompatible(revision, version, asked).await?;
        Ok(fits && !retracted.retracts(version))
    }

    /// The version that a tag names, and whether it names it exactly rather than with something behind it.
    fn version_of_tag(&self, tag: &str) -> Option<(String, bool)> {
        let version = tag.strip_prefix(self.tag_prefix().as_str())?;
        if is_pseudo(tag) {
            return None;
        }
        let plain = canonical(version)?;
        version.starts_with(&plain).then(|| (plain.clone(), plain == version))
    }

    /// Whether a commit's version may be `+incompatible`: a module at the top, whose path asks for no major version, without a
    /// go.mod there, and unless asked for by that name, without one in the directory of that major version.
    async fn may_be_incompatible(&self, revision: &Revision, version: &str, asked: Asked<'_>) -> Result<bool, VcsError> {
        if !self.dir.is_empty() || !self.suffix().is_empty() || self.file(revision, "go.mod").await?.is_some() {
            return Ok(false);
        }
        if asked.0.ends_with("+incompatible") {
            return Ok(true);
        }
        Ok(self.file(revision, &in_dir(major(version), "go.mod")).await?.is_none())
    }

    /// Takes a canonical version for what it is, or refuses it.
    async fn accept(&self, revision: &Revision, version: &str, asked: Asked<'_>) -> Result<String, VcsError> {
        self.place(revision, version).await?;
        let mut version = if version == asked.base() { asked.0.to_owned() } else { version.to_owned() };
        let base = version.strip_suffix("+incompatible").unwrap_or(&version).to_owned();
        let fits = major_fits(self.suffix(), &base);
        let mut refused = None;
        if fits && version.ends_with("+incompatible") {
            refused = Some(format!("+incompatible suffix not allowed: major version {} is compatible", major(&version)));
        } else if !fits && self.may_be_incompatible(revision, &base, asked).await? {
            version = format!("{base}+incompatible");
        } else if !fits && self.suffix().is_empty() {
            let path = in_dir(self.path.prefix(), major(&version));
            refused = Some(format!("module contains a go.mod file, so module path must match major version ({path:?})"));
        } else if !fits {
            refused = Some("module path includes a major version suffix, so major version must match".to_owned());
        }
        if asked.is_canonical() && asked.base() != base {
            return Err(self.invalid(asked.0, format!("resolves to version {version} ({} is not a tag)", asked.base())));
        }
        refused.map_or(Ok(version.clone()), |why| Err(self.invalid(&version, why)))
    }

    /// Checks what a pseudo-version says of its commit.
    async fn check_pseudo(&self, revision: &Revision, refs: &Refs, version: &str) -> Result<(), VcsError> {
        let bad = |why: String| VcsError::not_found(format!("{}@{version}: invalid pseudo-version: {why}", self.path));
        let parts = pseudo::take_apart(version.strip_suffix("+incompatible").unwrap_or(version));
        let parts = parts.ok_or_else(|| bad("none".into()))?;
        let short = &revision.hash[..12];
        if parts.revision != short {
            let how = if parts.revision.starts_with(short) {
                "revision is longer than canonical"
            } else if short.starts_with(parts.revision) {
                "revision is shorter than canonical"
            } else {
                "does not match short name of revision"
            };
            return Err(bad(format!("{how} (expected {short})")));
        }
        let time = pseudo::digits_of(revision.time);
        if parts.time != time {
            return Err(bad(format!("does not match version-control timestamp (expected {time})")));
        }
        let base = parts.base.map_err(bad)?;
        if base.is_empty() {
            let wrong = self.major().is_empty() && major(version) == "v1";
            return if wrong { Err(bad("major version without preceding tag must be v0, not v1".into())) } else { Ok(()) };
        }
        let prefix = self.tag_prefix();
        if let Some(tag) = revision.tags.iter().find(|tag| tag.strip_prefix(&prefix).unwrap_or(tag) == base) {
            return Err(bad(format!(
                "tag ({tag}) found on revision {short} is already canonical, so should not be replaced with a pseudo-version derived from that tag"
            )));
        }
        let with_base = format!("{prefix}{base}");
        let mut last = None;
        for (tag, hash) in refs.tags(&with_base).filter(|(tag, _)| compare(&tag[prefix.len()..], &base).is_eq()) {
            if self.repository.descends(hash, &revision.hash).await? {
                return Ok(());
            }
            last = Some(tag);
        }
        Err(bad(match last {
            None => format!("preceding tag ({base}) not found"),
            Some(tag) => format!("revision {short} is not a descendent of preceding tag ({tag})"),
        }))
    }

    /// What the go.mod of the highest of these versions retracts; nothing where that cannot be had.
    async fn retractions(&self, versions: &[String]) -> GoMod {
        let compatible = versions.iter().take_while(|v| !v.ends_with("+incompatible"));
        let highest = compatible.clone().filter(|v| !v.contains('-')).last().or(compatible.last());
        let read = async {
            let tag = self.tag_prefix() + highest?;
            let refs = self.repository.refs().await.ok()?;
            let name = format!("refs/tags/{tag}");
            let found = Found { hash: Arc::clone(refs.get(&name)?), reference: Some(name) };
            let revision = self.open(found, &refs, highest?).await.ok()?;
            GoMod::parse(&self.place(&revision, highest?).await.ok()?.go_mod?)
        };
        read.await.unwrap_or_default()
    }

    /// The `.info` of a version.
    fn written(&self, revision: &Revision, refs: &Refs, version: &str, asked: Asked<'_>) -> Result<Info, VcsError> {
        let parsed = Version::parse(version).map_err(|e| self.invalid(version, e))?;
        let mut origin = Origin {
            vcs: "git",
            url: self.repository.url().as_str(),
            subdir: &self.dir,
            hash: &revision.hash,
            reference: revision.reference.as_deref(),
            ..Origin::default()
        };
        if asked.is_canonical() {
            // It is kept for ever, and what a ref leads to is not for ever.
            origin.reference = origin.reference.filter(|_| !parsed.is_pseudo());
        } else if parsed.is_pseudo() {
            let major = self.suffix().get(1..).map(|major| format!("{major}.")).unwrap_or_default();
            origin.add_tags(self.tag_prefix() + &major, refs);
        }
        let json = origin.info(version, revision.time).map_err(VcsError::broken)?;
        Ok(Info { version: parsed, time: Some(revision.time), json })
    }
}

/// A name among refs: a tag, a branch, `HEAD`, or the beginning of the hash that one of them leads to.
fn by_refs(refs: &Refs, name: &str) -> Result<Option<Found>, VcsError> {
    for full in [format!("refs/tags/{name}"), format!("refs/heads/{name}")] {
        if let Some(hash) = refs.get(&full) {
            return Ok(Some(Found { hash: Arc::clone(hash), reference: Some(full) }));
        }
    }
    if name == "HEAD" {
        return Ok(refs.get(name).map(|hash| Found { hash: Arc::clone(hash), reference: Some(name.to_owned()) }));
    }
    if name.len() < 7 || !is_hex(name) {
        return Ok(None);
    }
    let mut fitting = refs.iter().filter(|(_, hash)| hash.starts_with(name));
    let Some((reference, hash)) = fitting.next() else { return Ok(None) };
    if fitting.any(|(_, other)| other != hash) {
        return Err(VcsError::not_found(format!("ambiguous revision {name}")));
    }
    Ok(Some(Found { hash: Arc::clone(hash), reference: Some(reference.to_owned()) }))
}

fn query(version: &str) -> Result<Query, VcsError> {
    Query::parse(version).map_err(|e| VcsError::not_found(e.to_string()))
}

/// A path within a directory; the empty one is the top.
pub(super) fn in_dir(dir: &str, name: &str) -> String {
    if dir.is_empty() { name.to_owned() } else { format!("{dir}/{name}") }
}
