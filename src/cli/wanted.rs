//! Which modules a person names: by go.sum and go.mod files, by lists, one by one.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use indicatif::{ProgressBar, ProgressStyle};

use super::{CliError, Names, err};
use crate::base::Call;
use crate::gateway::{CacheStatus, Content, Gateway, GatewayError, Outcome, Team};
use crate::module::gomod::{GoMod, Replacement};
use crate::module::{Ask, Info, ModulePath, ModuleVersion, Query, Version};

/// The largest file of names that is read.
const MAX_FILE: u64 = 64 << 20;
/// How long, and how often, a file waits whose fetch has no place.
const TURN: Duration = Duration::from_millis(50);
const TURNS: usize = 1200;
/// The module of the Go toolchains, and what stands in front of their versions.
const TOOLCHAIN: (&str, &str) = ("golang.org/toolchain", "v0.0.1-");

/// What is wanted.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    /// Versions whose every part is wanted, in the order in which they were named.
    whole: Vec<ModuleVersion>,
    /// Versions of which a build needs the go.mod alone.
    go_mods: Vec<ModuleVersion>,
    /// go.mod files, whose whole graph is wanted.
    roots: Vec<GoMod>,
    /// What names a version: a branch, `latest`.
    queries: Vec<Ask>,
    /// Zips alone.
    zips: Vec<ModuleVersion>,
}

/// What came of fetching.
#[derive(Debug, Default)]
pub(super) struct Fetched {
    /// The parts that are in the cache now, by version.
    pub(super) parts: BTreeMap<String, (ModuleVersion, Vec<Ask>)>,
    /// How many of them were there before.
    pub(super) there: usize,
    /// How many came, and how many bytes they have.
    pub(super) came: usize,
    pub(super) bytes: u64,
    /// What could not be had, and why.
    pub(super) failed: Vec<(String, String)>,
}

impl Wanted {
    /// Reads what files, names and toolchains a command line has. `-` is standard input.
    pub(super) fn read(of: &Names) -> Result<Self, CliError> {
        let mut wanted = Self::default();
        if of.modules.is_empty() && of.toolchain.is_empty() {
            return Err(CliError::Said("nothing is named: give go.sum or go.mod files, lists, or module@version".into()));
        }
        for name in &of.modules {
            if name.contains('@') && !Path::new(name).exists() {
                wanted.line(name).map_err(|e| CliError::Said(format!("{name}: {e}")))?;
                continue;
            }
            let text = text_of(name)?;
            let of_line = |n: usize, e: String| CliError::Said(format!("{name}:{}: {e}", n + 1));
            let extension = Path::new(name).extension().and_then(|e| e.to_str());
            if extension == Some("mod") {
                let parsed = GoMod::parse(text.as_bytes());
                wanted.roots.push(parsed.ok_or_else(|| CliError::Said(format!("{name}: cannot be read as a go.mod")))?);
                continue;
            }
            let is_sum = extension == Some("sum");
            for (n, line) in text.lines().enumerate() {
                let line = line.trim();
                if line.is_empty() || line.starts_with('#') {
                    continue;
                }
                let read = if is_sum { wanted.sum_line(line) } else { wanted.line(line) };
                read.map_err(|e| of_line(n, e))?;
            }
        }
        for toolchain in &of.toolchain {
            let version = version(TOOLCHAIN.0, &format!("{}{toolchain}", TOOLCHAIN.1));
            wanted
                .zips
                .push(version.map_err(|e| CliError::Said(format!("toolchain {toolchain:?}, as go1.26.8.linux-amd64: {e}")))?);
        }
        Ok(wanted)
    }

    /// A line of a go.sum.
    fn sum_line(&mut self, line: &str) -> Result<(), String> {
        let mut fields = line.split_whitespace();
        let (Some(module), Some(text), Some(_), None) = (fields.next(), fields.next(), fields.next(), fields.next()) else {
            return Err("not a line of a go.sum".into());
        };
        match text.strip_suffix("/go.mod") {
            Some(text) => self.go_mods.push(version(module, text)?),
            None => self.whole.push(version(module, text)?),
        }
        Ok(())
    }

    /// A line of a list: `module@version`, or the two apart; the version may be a query.
    fn line(&mut self, line: &str) -> Result<(), String> {
        let (module, text) = line.split_once(['@', ' ', '\t']).ok_or("not module@version")?;
        let text = text.trim();
        if let Ok(version) = version(module, text) {
            self.whole.push(version);
            return Ok(());
        }
        let module = ModulePath::parse(module).map_err(|e| e.to_string())?;
        self.queries.push(match text {
            "latest" => Ask::Latest(module),
            text => Ask::Query(module, Query::parse(text).map_err(|e| e.to_string())?),
        });
        Ok(())
    }

    /// Brings it all into the cache, so many parts at once. What is there already is not fetched again.
    pub(super) async fn fetch(self, gateway: &Arc<Gateway>, team: &Team, at_once: usize) -> Fetched {
        let bar = ProgressBar::no_length().with_style(
            ProgressStyle::with_template("{elapsed:>4} {wide_bar} {pos}/{len} {msg}").unwrap_or(ProgressStyle::default_bar()),
        );
        let mut fetching =
            Fetching { gateway, team, at_once, bar, call: Call::new(), done: HashSet::new(), result: Fetched::default() };
        let Self { mut whole, go_mods, roots, queries, zips } = self;
        for json in fetching.round(queries).await {
            let Some((ask, json)) = json else { continue };
            let version = Info::parse(json).ok().and_then(|info| ModuleVersion::new(ask.module().clone(), info.version).ok());
            whole.extend(version);
        }
        for root in roots {
            whole.extend(fetching.graph(&root).await);
        }
        let parts = |v: &ModuleVersion| [Ask::GoMod(v.clone()), Ask::Info(v.clone()), Ask::Zip(v.clone())];
        let asks = go_mods.into_iter().map(Ask::GoMod).chain(whole.iter().flat_map(parts)).chain(zips.into_iter().map(Ask::Zip));
        fetching.round(asks.collect()).await;
        fetching.bar.finish_and_clear();
        fetching.result
    }
}

struct Fetching<'a> {
    gateway: &'a Arc<Gateway>,
    team: &'a Team,
    at_once: usize,
    bar: ProgressBar,
    call: Call,
    done: HashSet<Ask>,
    result: Fetched,
}

type Small = Option<(Ask, bytes::Bytes)>;

impl Fetching<'_> {
    /// Asks for these, save those that were asked for before. The bytes of the small ones.
    async fn round(&mut self, asks: Vec<Ask>) -> Vec<Small> {
        let asks: Vec<Ask> = asks.into_iter().filter(|ask| self.done.insert(ask.clone())).collect();
        self.bar.set_length(self.bar.length().unwrap_or(0) + asks.len() as u64);
        let (gateway, team, call) = (self.gateway, self.team, &self.call);
        let answers = asks.into_iter().map(|ask| async move {
            let mut answered = gateway.answer(team, &ask, call).await;
            for _ in 0..TURNS {
                if !matches!(answered.result, Err(GatewayError::Overloaded)) {
                    break;
                }
                // What came is still being stored.
                tokio::time::sleep(TURN).await;
                answered = gateway.answer(team, &ask, call).await;
            }
            let Outcome { result, trail } = answered;
            match result {
                Ok(answer) => (ask, trail.cache, whole(answer.content).await),
                Err(e) => {
                    let tried = trail.attempts_line();
                    let why = if tried.is_empty() { e.to_string() } else { format!("{e} ({tried})") };
                    (ask, trail.cache, Err(why))
                }
            }
        });
        let mut answers = stream::iter(answers).buffer_unordered(self.at_once);
        let mut small = Vec::new();
        while let Some((ask, cache, answer)) = answers.next().await {
            self.bar.inc(1);
            self.bar.set_message(ask.module().to_string());
            match answer {
                Ok((length, bytes)) => {
                    if cache == CacheStatus::Hit {
                        self.result.there += 1;
                    } else {
                        self.result.came += 1;
                        self.result.bytes += length;
                    }
                    if let Ask::Info(version) | Ask::GoMod(version) | Ask::Zip(version) = &ask {
                        let parts = self.result.parts.entry(version.to_string());
                        parts.or_insert_with(|| (version.clone(), Vec::new())).1.push(ask.clone());
                    }
                    // Zips are many bytes, and nobody reads them here.
                    small.push(bytes.filter(|_| !matches!(ask, Ask::Zip(_))).map(|bytes| (ask, bytes)));
                }
                Err(why) => {
                    self.bar.suspend(|| err(format_args!("modgate: {ask}: {why}")));
                    self.result.failed.push((ask.to_string(), why));
                }
            }
        }
        small
    }

    /// The go.mod files that the go command reads of a graph, and the versions that a build takes out of it. The requirements of a
    /// dependency that names all that it needs (Go 1.17) lead no further (<https://go.dev/ref/mod#graph-pruning>).
    async fn graph(&mut self, root: &GoMod) -> Vec<ModuleVersion> {
        let replaced = |(module, text): &(String, String)| {
            let of = |r: &&Replacement| r.module == *module && r.version.as_ref().is_none_or(|v| v == text);
            match root.replacements.iter().find(of) {
                Some(Replacement { by, .. }) => by.clone(),
                None => Some((module.clone(), text.clone())),
            }
        };
        let named = |required: &[(String, String)]| {
            required.iter().filter_map(replaced).filter_map(|(m, v)| version(&m, &v).ok()).collect::<Vec<_>>()
        };
        let direct = named(&root.required);
        let mut selected: BTreeMap<ModulePath, Version> = BTreeMap::new();
        let mut read: HashMap<ModuleVersion, GoMod> = HashMap::new();
        let mut followed: HashSet<ModuleVersion> = HashSet::new();
        let mut frontier: Vec<(ModuleVersion, bool)> = direct.iter().map(|v| (v.clone(), !root.is_pruned())).collect();
        while !frontier.is_empty() {
            let missing = frontier.iter().filter(|(v, _)| !read.contains_key(v)).map(|(v, _)| Ask::GoMod(v.clone())).collect();
            for (ask, text) in self.round(missing).await.into_iter().flatten() {
                if let (Ask::GoMod(version), Some(parsed)) = (ask, GoMod::parse(&text)) {
                    read.insert(version, parsed);
                }
            }
            let mut next = Vec::new();
            for (v, whole) in frontier {
                let best = selected.entry(v.module.clone()).or_insert_with(|| v.version.clone());
                *best = best.clone().max(v.version.clone());
                let Some(parsed) = read.get(&v) else { continue };
                if (whole || !parsed.is_pruned()) && followed.insert(v) {
                    next.extend(named(&parsed.required).into_iter().map(|v| (v, true)));
                }
            }
            frontier = next;
        }
        if root.is_pruned() {
            // Its go.mod names all that its build needs.
            return direct;
        }
        selected.into_iter().filter_map(|(module, version)| ModuleVersion::new(module, version).ok()).collect()
    }
}

/// The length of an answer when it is all there, and its bytes where they are few.
async fn whole(content: Content) -> Result<(u64, Option<bytes::Bytes>), String> {
    match content {
        Content::Bytes(bytes) => Ok((bytes.len() as u64, Some(bytes))),
        Content::File { length, .. } => Ok((length, None)),
        Content::Growing { mut reader, .. } => match reader.ended().await {
            Ok(length) => Ok((length, None)),
            Err(why) => Err(why.to_string()),
        },
    }
}

fn version(module: &str, version: &str) -> Result<ModuleVersion, String> {
    let module = ModulePath::parse(module).map_err(|e| e.to_string())?;
    let version = Version::parse(version).map_err(|e| e.to_string())?;
    ModuleVersion::new(module, version).map_err(|e| e.to_string())
}

fn text_of(name: &str) -> Result<String, CliError> {
    use std::io::Read;
    let mut text = String::new();
    let read = if name == "-" {
        std::io::stdin().take(MAX_FILE).read_to_string(&mut text)
    } else {
        std::fs::File::open(name).and_then(|file| file.take(MAX_FILE).read_to_string(&mut text))
    };
    read.map_err(|e| CliError::Said(format!("{name}: {e}")))?;
    Ok(text)
}
