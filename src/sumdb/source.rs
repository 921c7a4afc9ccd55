//! Where a database is asked: through module proxies that pass it on, or itself. All in order, the next where one fails.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use url::Url;

use super::SumdbError;
use super::tile::{self, Named};
use super::tiles;
use crate::egress::{EgressError, EgressHandle};
use crate::store::{Look, Shelf};

/// A server of the database, or files that came from one.
#[derive(Debug)]
pub struct Source {
    name: Arc<str>,
    kind: Kind,
    failed: Mutex<Option<Instant>>,
}

#[derive(Debug)]
enum Kind {
    Server(Server),
    Files(Shelf),
}

#[derive(Debug)]
struct Server {
    base: Url,
    egress: EgressHandle,
    absent: Vec<u16>,
    /// Whether a proxy passes the database on, and when it was asked that; the database itself is not asked.
    passes_on: Option<Mutex<Option<(Instant, bool)>>>,
}

/// What a server said when it gave nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trouble {
    /// That it does not have it.
    Absent(String),
    /// That it does not pass the database on, which says nothing about the database.
    NoPassage(String),
    /// Anything else.
    Failed {
        /// What happened, with the server's name in front.
        why: String,
        /// Whether that was a time limit.
        timed_out: bool,
    },
}

/// How long it is remembered whether a proxy passes the database on.
const SUPPORT: Duration = Duration::from_secs(600);
/// How long a server may take for one of its small answers, all in all.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);
/// A server that failed is asked after the others for so long.
const LAST: Duration = Duration::from_secs(30);

impl Source {
    /// The database itself, at this URL.
    pub fn direct(base: Url, egress: EgressHandle) -> Self {
        Self::of("direct".into(), Kind::Server(Server { base, egress, absent: vec![404, 410], passes_on: None }))
    }

    /// Files in the layout of the database's URLs, as an export has them.
    pub fn files(name: Arc<str>, shelf: Shelf) -> Self {
        Self::of(name, Kind::Files(shelf))
    }

    fn of(name: Arc<str>, kind: Kind) -> Self {
        Self { name, kind, failed: Mutex::default() }
    }

    /// A module proxy at this URL that may pass the database of this name on, and by which statuses it says that it does not have
    /// something.
    pub fn proxy(name: Arc<str>, proxy: &Url, database: &str, egress: EgressHandle, absent: Vec<u16>) -> Self {
        let base = below(proxy, &format!("sumdb/{database}"));
        Self::of(name, Kind::Server(Server { base, egress, absent, passes_on: Some(Mutex::default()) }))
    }

    /// Its name, for messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Fetches what is at this path.
    pub(super) async fn get(&self, path: &str, limit: u64) -> Result<Bytes, Trouble> {
        let result = match &self.kind {
            Kind::Server(server) => {
                let got = tokio::time::timeout(ANSWER_LIMIT, server.get(&self.name, path, limit)).await;
                let late = || Trouble::Failed {
                    why: format!("{}: no answer within {} s", self.name, ANSWER_LIMIT.as_secs()),
                    timed_out: true,
                };
                got.unwrap_or_else(|_| Err(late()))
            }
            Kind::Files(shelf) => self.read(shelf, path, limit).await,
        };
        let failed = matches!(result, Err(Trouble::Failed { .. })).then(Instant::now);
        *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = failed;
        result
    }

    async fn read(&self, shelf: &Shelf, path: &str, limit: u64) -> Result<Bytes, Trouble> {
        let (shelf, path) = (shelf.clone(), path.to_owned());
        let read = tokio::task::spawn_blocking(move || match Named::parse(&path) {
            Some(Named { kind: tile::Kind::Hashes(tile), width }) => {
                Ok(tiles::read(&shelf, tile, width).and_then(|bytes| tile::cut(&bytes, width)))
            }
            _ => shelf.read(&path, limit, Look::Full),
        });
        let failed = |why: String| Trouble::Failed { why: format!("{}: {why}", self.name), timed_out: false };
        let read = read.await.map_err(|e| failed(e.to_string()))?.map_err(|e| failed(e.to_string()))?;
        read.ok_or_else(|| Trouble::Absent(format!("{}: not there", self.name)))
    }

    fn failed_lately(&self) -> bool {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|at| at.elapsed() < LAST)
    }
}

impl Server {
    async fn get(&self, name: &str, path: &str, limit: u64) -> Result<Bytes, Trouble> {
        if self.passes_on(name).await? {
            return self.ask(name, path, limit).await;
        }
        Err(Trouble::NoPassage(format!("{name}: does not pass the database on")))
    }

    /// Whether a proxy passes the database on; the database itself always does.
    async fn passes_on(&self, name: &str) -> Result<bool, Trouble> {
        let Some(known) = &self.passes_on else { return Ok(true) };
        let of_late = |known: &Option<(Instant, bool)>| known.filter(|(at, _)| at.elapsed() < SUPPORT).map(|(_, yes)| yes);
        if let Some(yes) = of_late(&known.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(yes);
        }
        let yes = match self.ask(name, "supported", 1 << 16).await {
            Ok(_) => true,
            Err(Trouble::Absent(_)) => false,
            Err(e) => return Err(e),
        };
        *known.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), yes));
        Ok(yes)
    }

    async fn ask(&self, name: &str, path: &str, limit: u64) -> Result<Bytes, Trouble> {
        let failed = |e: &EgressError| Trouble::Failed { why: format!("{name}: {e}"), timed_out: e.is_timeout() };
        let mut response = self.egress.get(below(&self.base, path)).await.map_err(|e| failed(&e))?;
        match response.status {
            200 => response.body.collect(limit).await.map_err(|e| failed(&e)),
            status if self.absent.contains(&status) => Err(Trouble::Absent(format!("{name}: {status}"))),
            status => Err(Trouble::Failed { why: format!("{name}: status {status}"), timed_out: false }),
        }
    }
}

/// A path below a URL.
fn below(base: &Url, path: &str) -> Url {
    let mut url = base.clone();
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.pop_if_empty().extend(path.split('/'));
    }
    url
}

/// The servers in the order in which they are asked now: those last that failed a moment ago.
pub(super) fn in_order(sources: &[Source]) -> Vec<&Source> {
    let (late, first): (Vec<_>, Vec<_>) = sources.iter().partition(|s| s.failed_lately());
    first.into_iter().chain(late).collect()
}

/// What all servers together come to. That one does not have it counts only where no other failed.
#[derive(Debug, Default)]
pub(super) struct Troubles {
    said: Vec<String>,
    absent: bool,
    failed: bool,
    only_late: bool,
    refused: Option<SumdbError>,
}

impl Troubles {
    pub(super) fn add(&mut self, trouble: Trouble) {
        match trouble {
            Trouble::Absent(said) => {
                self.absent = true;
                self.said.push(said);
            }
            Trouble::NoPassage(said) => self.said.push(said),
            Trouble::Failed { why, timed_out } => {
                self.only_late = timed_out && (self.only_late || !self.failed);
                self.failed = true;
                self.said.push(why);
            }
        }
    }

    /// An answer that proves nothing.
    pub(super) fn refuse(&mut self, by: &str, error: SumdbError) {
        match error {
            SumdbError::Refused(why) => self.refused = Some(SumdbError::Refused(format!("{by}: {why}").into())),
            SumdbError::Unreachable { why, timed_out } => {
                self.add(Trouble::Failed { why: format!("{by}: {why}"), timed_out });
            }
            other => self.refused = Some(other),
        }
    }

    pub(super) fn verdict(self) -> SumdbError {
        match self.refused {
            Some(refused) => refused,
            // There was nobody to ask.
            None if self.said.is_empty() => SumdbError::NotCached,
            None if self.absent && !self.failed => SumdbError::Absent,
            None => SumdbError::Unreachable { why: self.said.join("; ").into(), timed_out: self.only_late },
        }
    }
}
