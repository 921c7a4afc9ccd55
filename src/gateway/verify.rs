//! What zips and go.mod files are held against before they are kept: the checksum database's sums, or those that were seen first.
//!
//! A sum that was found good is noted beside the upstream's folder, so that a kept file is not looked at again, and so that the first
//! sum of a private version outlives the file. A note says what the sum rests on: one that was only seen first does not do where the
//! route wants a proof.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;

use super::answer::{Answer, Content, Kind, Lifetime};
use super::chain::Found;
use super::{Gateway, GatewayError, Team};
use crate::base::Call;
use crate::module::zip::{MAX_GO_MOD, ZipError};
use crate::module::{Ask, ModulePath, ModuleVersion, Pattern, Sum};
use crate::route::{Plan, Verify};
use crate::store::{DiskStore, Durable, FileMark, Folder, Look, Shelf, StoreError};
use crate::sumdb::{Database, SumdbAsk, SumdbError};
use crate::upstream::UpstreamError;

/// Go toolchains are modules of this path. They are programs that developers run, so they are never served unproven.
pub const TOOLCHAIN: &str = "golang.org/toolchain";
/// The folder of noted sums, beside the upstreams' folders.
pub const SUMS: &str = ".sums";
/// The longest word on what a sum rests on.
const MAX_WORD: usize = 256;
/// The largest note of a sum.
const MAX_NOTE: u64 = 4096;

/// What modules have to prove, and by what.
#[derive(Debug, Clone)]
pub struct Trust {
    /// The databases that are passed on. The first is the one that proves.
    pub databases: Vec<Arc<Database>>,
    /// The modules that no database is asked about, as GONOSUMDB has it.
    pub no_sumdb: Vec<Pattern>,
}

/// The noted sums of a cache.
#[derive(Debug, Clone)]
pub struct Ledger(Shelf);

/// What a sum rests on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// The database of this name has it.
    Proven(Arc<str>),
    /// It was the first that was seen: when and from whom.
    Seen(Arc<str>),
}

/// A sum that was found good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// The sum.
    pub sum: Sum,
    /// What it rests on.
    pub standing: Standing,
}

impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.standing {
            Standing::Proven(by) => write!(f, "{} proven by {by}", self.sum),
            Standing::Seen(first) => write!(f, "{} seen first {first}", self.sum),
        }
    }
}

/// What is written down of a kept part: its sum, and which file it was that had it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// Its sum.
    pub checked: Checked,
    /// The file; another that comes to lie in its place is looked at anew.
    pub file: Option<FileMark>,
}

impl Note {
    /// Reads a note.
    pub fn parse(note: &[u8]) -> Option<Self> {
        let mut fields = std::str::from_utf8(note).ok()?.strip_suffix('\n')?.splitn(4, ' ');
        let (sum, file) = (Sum::parse(fields.next()?)?, fields.next()?);
        let (kind, what) = (fields.next()?, fields.next()?);
        if what.len() > MAX_WORD || what.contains(char::is_control) {
            return None;
        }
        let what = what.into();
        let standing = match kind {
            "proven" => Standing::Proven(what),
            "seen" => Standing::Seen(what),
            _ => return None,
        };
        let file = match file.split_once('.') {
            Some((length, nanos)) => {
                let modified = SystemTime::UNIX_EPOCH.checked_add(Duration::from_nanos(nanos.parse().ok()?))?;
                Some(FileMark { length: length.parse().ok()?, modified })
            }
            None => None,
        };
        Some(Self { checked: Checked { sum, standing }, file })
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = |mark: &FileMark| mark.modified.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_nanos());
        let file = self.file.as_ref().map_or_else(|| "-".to_owned(), |mark| format!("{}.{}", mark.length, nanos(mark)));
        let (kind, what) = match &self.checked.standing {
            Standing::Proven(by) => ("proven", by),
            Standing::Seen(first) => ("seen", first),
        };
        writeln!(f, "{} {file} {kind} {what}", self.checked.sum)
    }
}

impl Ledger {
    /// The ledger of a cache.
    pub fn of(store: &Arc<DiskStore>) -> Self {
        Self(store.shelf(SUMS))
    }

    /// What was noted of an upstream's part of a version.
    ///
    /// # Errors
    /// What the disk says. A damaged note counts as none: it was not synced because the database has what it said.
    pub fn read(&self, upstream: &str, ask: &Ask, look: Look) -> Result<Option<Note>, StoreError> {
        Ok(self.0.read(&path(upstream, ask), MAX_NOTE, look)?.and_then(|note| Note::parse(&note)))
    }

    /// Notes a sum. Blocks.
    ///
    /// # Errors
    /// What the disk says.
    pub fn write(&self, upstream: &str, ask: &Ask, note: &Note) -> Result<(), StoreError> {
        let durable = match note.checked.standing {
            Standing::Proven(_) => Durable::No,
            // Nobody else knows it.
            Standing::Seen(_) => Durable::Yes,
        };
        self.0.write(&path(upstream, ask), note.to_string().as_bytes(), durable)
    }

    /// Notes the sum of a file that is there. One that the database has can be found out again, so that a disk which does not take
    /// the note is no reason to withhold the file. Blocks.
    ///
    /// # Errors
    /// What the disk says, of a sum that nobody else knows.
    pub fn write_if_able(&self, upstream: &str, ask: &Ask, note: &Note) -> Result<(), StoreError> {
        match self.write(upstream, ask, note) {
            Err(e) if matches!(note.checked.standing, Standing::Proven(_)) => {
                tracing::warn!(error = %e, "a sum that was proven could not be noted, and will be found out again");
                Ok(())
            }
            done => done,
        }
    }

    /// Forgets a sum. Blocks.
    pub fn forget(&self, upstream: &str, ask: &Ask) {
        self.0.remove(&path(upstream, ask));
    }
}

fn path(upstream: &str, ask: &Ask) -> String {
    format!("{upstream}/{}", ask.path())
}

/// What the parts of a module have to show on a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Nothing: nobody verifies, all its upstreams are public, and the module is not said to be private either.
    Nothing,
    /// That they are what was seen first.
    Seen,
    /// That they are what this database has. Without one nothing will do.
    Proof(Option<Arc<str>>),
    /// The same where that database knows them, else that they are what was seen first.
    ProofOrSeen(Option<Arc<str>>),
}

/// What a part has to be.
#[derive(Debug, Clone)]
pub(super) enum Expected {
    /// It has this sum.
    Sum(Checked),
    /// Whatever it is: it is seen for the first time.
    First,
    /// Nobody minds: an `.info`, or what has nothing to show.
    Anything,
}

impl Expected {
    /// Whether a sum is known that it has to have.
    pub(super) fn is_sum(&self) -> bool {
        matches!(self, Self::Sum(_))
    }

    /// Whether its sum is wanted at all.
    pub(super) fn wants_sum(&self) -> bool {
        !matches!(self, Self::Anything)
    }

    /// Whether it is proven, so that nothing else need agree.
    pub(super) fn is_proven(&self) -> bool {
        matches!(self, Self::Sum(Checked { standing: Standing::Proven(_), .. }))
    }

    /// Holds what came from an upstream against it.
    pub(super) fn judge(&self, sum: Sum, upstream: &str, ask: &Ask) -> Result<Option<Checked>, UpstreamError> {
        let known = match self {
            Self::Anything => return Ok(None),
            Self::First => {
                let standing = Standing::Seen(format!("{} from {upstream}", Timestamp::now()).into());
                return Ok(Some(Checked { sum, standing }));
            }
            Self::Sum(known) if known.sum == sum => return Ok(Some(known.clone())),
            Self::Sum(known) => known,
        };
        Err(UpstreamError::corrupt(match &known.standing {
            Standing::Proven(by) => format!("checksum mismatch: it has {sum}, and {by} has {}", known.sum),
            Standing::Seen(first) => format!(
                "checksum mismatch: it has {sum}, and {} was seen first ({first}); a version never changes, so release a new one, or \
                 where the change is right, run `modgate verify --forget {}`",
                known.sum,
                version_of(ask).map_or_else(String::new, ToString::to_string)
            ),
        }))
    }
}

fn version_of(ask: &Ask) -> Option<&ModuleVersion> {
    match ask {
        Ask::Info(version) | Ask::GoMod(version) | Ask::Zip(version) => Some(version),
        Ask::List(_) | Ask::Latest(_) | Ask::Query(..) => None,
    }
}

impl From<SumdbError> for GatewayError {
    fn from(e: SumdbError) -> Self {
        match e {
            SumdbError::Absent => Self::Unrecorded,
            SumdbError::Unreachable { timed_out, .. } => Self::Unverified { why: e.to_string().into(), timed_out },
            SumdbError::Refused(why) => Self::Unverified { why, timed_out: false },
            SumdbError::NotCached => Self::NotCached,
        }
    }
}

impl Gateway {
    /// What the parts of a module have to prove on this route.
    pub fn mode(&self, plan: &Plan, module: &ModulePath) -> Verify {
        if module.as_str() == TOOLCHAIN {
            Verify::Sumdb
        } else if self.is_exempt(module) {
            Verify::Off
        } else {
            plan.route.verify
        }
    }

    /// The same, with what it takes.
    pub(super) fn wanted(&self, plan: &Plan, module: &ModulePath) -> Wanted {
        let database = || self.databases().next().map(Arc::from);
        match self.mode(plan, module) {
            Verify::Sumdb => Wanted::Proof(database()),
            Verify::SumdbOrTrustFirst => Wanted::ProofOrSeen(database()),
            Verify::Off if self.is_exempt(module) || plan.route.steps.iter().any(|step| self.members[step.upstream].private) => {
                Wanted::Seen
            }
            Verify::Off => Wanted::Nothing,
        }
    }

    /// Whether a module is among those that no database is asked about.
    fn is_exempt(&self, module: &ModulePath) -> bool {
        self.trust.no_sumdb.iter().any(|p| p.matches(module.as_str()))
    }

    /// What a part has to be.
    ///
    /// # Errors
    /// That it cannot be had, because nothing could prove it.
    pub(super) async fn expected(&self, plan: &Plan, ask: &Ask, cached_only: bool) -> Result<Expected, GatewayError> {
        let (Ask::GoMod(version) | Ask::Zip(version)) = ask else { return Ok(Expected::Anything) };
        let wanted = self.wanted(plan, &version.module);
        if wanted == Wanted::Nothing {
            return Ok(Expected::Anything);
        }
        if wanted != Wanted::Seen {
            match (self.proven(version, ask, cached_only).await, wanted) {
                (Ok(checked), _) => return Ok(Expected::Sum(checked)),
                (Err(SumdbError::Absent), Wanted::Proof(_)) => return Err(GatewayError::Unproven),
                (Err(e), Wanted::Proof(_)) => return Err(e.into()),
                // The database does not know it, or there is none to be asked from here, and the route is content with that.
                (Err(SumdbError::Absent), _) => {}
                (Err(SumdbError::NotCached), _) if !cached_only => {}
                // That it is away just now, or not to be believed, is no reason to believe anybody else.
                (Err(e), _) => return Err(e.into()),
            }
        }
        Ok(self.seen_first(plan, ask).await?.map_or(Expected::First, Expected::Sum))
    }

    async fn proven(&self, version: &ModuleVersion, ask: &Ask, cached_only: bool) -> Result<Checked, SumdbError> {
        let Some(database) = self.trust.databases.first() else {
            return Err(SumdbError::Refused("no checksum database is configured, and this is never served unproven".into()));
        };
        let sums = database.sums(version, cached_only).await?;
        let sum = if matches!(ask, Ask::Zip(_)) { sums.zip } else { sums.go_mod };
        Ok(Checked { sum: sum.ok_or(SumdbError::Absent)?, standing: Standing::Proven(database.name().into()) })
    }

    /// The first of the plan's upstreams that a sum was noted for.
    async fn seen_first(&self, plan: &Plan, ask: &Ask) -> Result<Option<Checked>, GatewayError> {
        let names: Vec<_> = plan.route.steps.iter().map(|s| Arc::clone(&self.members[s.upstream].name)).collect();
        let (ledger, ask) = (self.ledger.clone(), ask.clone());
        let read = move |look| {
            let noted = |name: &Arc<str>| ledger.read(name, &ask, look).map(|note| note.map(|note| note.checked)).transpose();
            names.iter().find_map(noted).transpose()
        };
        self.store.look(read).await.map_err(|e| internal(&e))
    }

    /// Looks at a kept file that nothing good is noted of, and notes it. What was looked at is what is answered with. `None` where it is
    /// gone, or not what it has to be: then it was put aside.
    ///
    /// # Errors
    /// That it cannot be said.
    pub(super) async fn check_kept(
        &self,
        plan: &Plan,
        ask: &Ask,
        member: usize,
        call: &Call,
    ) -> Result<Option<Found>, GatewayError> {
        let expected = self.expected(plan, ask, call.cached_only).await?;
        let (folder, name) = (self.members[member].folder.clone(), Arc::clone(&self.members[member].name));
        let (ledger, ask) = (self.ledger.clone(), ask.clone());
        let _place = self.hashing.acquire().await;
        let looked = tokio::task::spawn_blocking(move || {
            let judged = match look_at(&folder, &ask) {
                Ok(None) => return Ok(None),
                Ok(Some((sum, mark, answer))) => expected.judge(sum, &name, &ask).map(|checked| (checked, mark, answer)),
                Err(ZipError::Io(e)) => return Err(StoreError::new("read", ask.path().as_ref(), e)),
                Err(e) => Err(UpstreamError::corrupt(e)),
            };
            match judged {
                Ok((checked, mark, answer)) => {
                    if let Some(checked) = &checked {
                        ledger.write_if_able(&name, &ask, &Note { checked: checked.clone(), file: Some(mark) })?;
                    }
                    Ok(Some(Found { member, answer, checked }))
                }
                Err(e) => {
                    let aside = folder.set_aside(&ask)?;
                    tracing::error!(upstream = %name, %ask, error = %e, aside = %aside.display(), "a kept file is not what it has to be, and was put aside");
                    Ok(None)
                }
            }
        });
        looked.await.map_err(|_| GatewayError::Internal)?.map_err(|e| internal(&e))
    }

    /// Answers a team's question to a checksum database that is passed on here. What no public upstream is asked about, no
    /// database is either.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn sumdb(&self, team: &Team, database: &str, ask: &SumdbAsk, call: &Call) -> Result<Answer, GatewayError> {
        let database = self.trust.databases.iter().find(|d| d.name() == database).ok_or(GatewayError::Unrecorded)?;
        let (bytes, holds) = match ask {
            SumdbAsk::Supported => (bytes::Bytes::new(), Some(Duration::ZERO)),
            SumdbAsk::Latest => database.latest(call.cached_only).await?,
            SumdbAsk::Tile(named) => database.tile(*named, call.cached_only).await?,
            SumdbAsk::Lookup(version) => {
                if self.is_fenced(team, &version.module) {
                    return Err(GatewayError::Fenced);
                }
                (database.lookup(version, call.cached_only).await?, None)
            }
        };
        let kind = if matches!(ask, SumdbAsk::Tile(_)) { Kind::Octets } else { Kind::Text };
        let lifetime = match holds {
            None => Lifetime::Immutable,
            Some(rest) if rest.is_zero() => Lifetime::Passing,
            Some(rest) => Lifetime::For(rest),
        };
        Ok(Answer::bytes(bytes, kind, lifetime))
    }

    /// Whether a team's question about a module is not to be told to anybody outside: it is on no route of the team's, on one whose
    /// upstreams are all private, private to another team, or among those that no database is asked about.
    pub fn is_fenced(&self, team: &Team, module: &ModulePath) -> bool {
        if module.as_str() == TOOLCHAIN {
            return false;
        }
        !team.routes.plan(module).is_ok_and(|plan| plan.route.public) || self.is_exempt(module)
    }

    /// The names of the databases that are passed on.
    pub fn databases(&self) -> impl Iterator<Item = &str> {
        self.trust.databases.iter().map(|d| d.name())
    }

    /// What modules have to prove.
    pub fn trust(&self) -> &Trust {
        &self.trust
    }
}

/// What is wrong with the disk is the log's to say, not the client's to hear.
pub(super) fn internal(e: &StoreError) -> GatewayError {
    tracing::error!(error = %e, "what is kept cannot be verified");
    GatewayError::Internal
}

/// A kept zip or go.mod: its sum, which file it is, and the answer that it makes; `None` where there is none. Blocks.
///
/// # Errors
/// That it cannot be read, or is no zip.
pub(super) fn look_at(folder: &Folder, ask: &Ask) -> Result<Option<(Sum, FileMark, Answer)>, ZipError> {
    let unreadable = |e: StoreError| ZipError::Io(std::io::Error::other(e.to_string()));
    match ask {
        Ask::GoMod(_) => Ok(folder.read(ask, MAX_GO_MOD, Look::Full).map_err(unreadable)?.map(|(text, modified)| {
            let mark = FileMark { length: text.len() as u64, modified };
            let answer = Answer::bytes(text.clone(), Kind::Text, Lifetime::Immutable);
            (Sum::of_go_mod(&text), mark, Answer { modified: Some(modified), ..answer })
        })),
        Ask::Zip(version) => {
            let Some(stored) = folder.open(ask, Look::Full).map_err(unreadable)? else { return Ok(None) };
            let sum = Sum::of_zip(stored.file.try_clone()?, version)?;
            let mark = stored.mark();
            let answer = Answer::new(Content::File { file: Arc::new(stored.file), length: stored.length }, Kind::Zip);
            Ok(Some((sum, mark, Answer { modified: Some(stored.modified), ..answer })))
        }
        Ask::Info(_) | Ask::Query(..) | Ask::List(_) | Ask::Latest(_) => Ok(None),
    }
}
