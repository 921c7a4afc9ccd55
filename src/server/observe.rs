//! One line a request, and one of the audit where that is wanted.
//!
//! The line is written when the answer has been sent or given up, with the bytes that went out. Hits say little; a failed
//! request says all that is known: the rule, and each upstream with its verdict and time.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_http::{Method, Request, StatusCode};

use super::audit::{Audit, Event};
use crate::access::{Caller, How};
use crate::gateway::Trail;
use crate::store::Word;

/// The target of request lines, for log filters.
pub const REQUEST: &str = "modgate::request";

/// A path that is no question is shown up to so many characters.
const MAX_SHOWN: usize = 500;

/// Whether request lines are wanted at all; asked before anything is put together for one.
pub(super) fn is_logged() -> bool {
    tracing::enabled!(target: REQUEST, tracing::Level::INFO)
}

/// What is known of a request when its answer begins.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) id: String,
    pub(super) method: Method,
    /// The decoded question where it could be read, else the path as it came.
    pub(super) what: String,
    pub(super) status: StatusCode,
    pub(super) started: Instant,
    pub(super) trail: Trail,
    pub(super) visitor: Visitor,
    /// The sum of what is still arriving and what it rests on, once it is known.
    pub(super) sum: Option<Word>,
    /// Where the audit's lines go.
    pub(super) audit: Option<Arc<Audit>>,
    /// Why there is no answer.
    pub(super) error: Option<String>,
    /// The length of the body, where it is known at its beginning.
    pub(super) expected: Option<u64>,
    /// The end of the body was reached.
    pub(super) complete: bool,
    /// Why the body was broken off.
    pub(super) aborted: Option<String>,
    /// There was an answer, whose end writes the lines. Where there is none, because the client went away before, the record writes
    /// them itself when it is dropped.
    pub(super) answered: bool,
}

/// What is written down in a status' stead where nobody waited for one, as nginx has it.
const GONE: u16 = 499;

impl Drop for Record {
    fn drop(&mut self) {
        if !self.answered {
            self.status = StatusCode::from_u16(GONE).unwrap_or(StatusCode::BAD_REQUEST);
            self.error.get_or_insert_with(|| "the client went away before there was an answer".to_owned());
            self.log(0, false);
        }
    }
}

/// Who asks, and what for.
#[derive(Debug, Clone)]
pub(super) struct Visitor {
    /// The address that it comes from.
    pub(super) address: IpAddr,
    pub(super) caller: Option<Arc<Caller>>,
    /// The team that it is answered for; everybody has no name.
    pub(super) team: Option<Arc<str>>,
    /// The question's path, a team's prefix aside.
    pub(super) path: String,
}

impl Record {
    /// The record of a request that is being answered.
    pub(super) fn new(id: String, request: &Request, started: Instant, trail: Trail, visitor: Visitor) -> Self {
        Self {
            visitor,
            sum: None,
            audit: None,
            id,
            method: request.method().clone(),
            what: request.uri().path().chars().take(MAX_SHOWN).collect(),
            status: StatusCode::OK,
            started,
            trail,
            error: None,
            expected: None,
            complete: false,
            aborted: None,
            answered: false,
        }
    }

    /// Writes the lines.
    pub(super) fn log(&self, bytes: u64, whole: bool) {
        self.audit(bytes, whole);
        if !is_logged() {
            return;
        }
        let status = self.status.as_u16();
        let ms = millis(self.started.elapsed());
        let cache = self.trail.cache.name();
        let upstream = self.trail.upstream.as_deref().unwrap_or("-");
        let (id, method, what) = (&self.id, self.method.as_str(), &self.what);
        // A field without a value is left out.
        let (who, team) = (self.visitor.caller.as_ref().map(|caller| &*caller.name), self.visitor.team.as_deref());
        let ended = match (&self.aborted, whole) {
            (Some(reason), _) => reason.as_str(),
            (None, true) => "",
            (None, false) => "the client went away",
        };
        let rule = || self.trail.plan.as_ref().map(crate::route::Plan::rule).unwrap_or_default();
        if let Some(error) = &self.error {
            let (rule, tried) = (rule(), self.trail.attempts_line());
            if self.status.is_server_error() {
                tracing::warn!(target: REQUEST, id, method, what, who, team, status, bytes, ms, cache, rule, tried, error);
            } else {
                tracing::info!(target: REQUEST, id, method, what, who, team, status, bytes, ms, cache, rule, tried, error);
            }
        } else if ended.is_empty() {
            tracing::info!(target: REQUEST, id, method, what, who, team, status, bytes, ms, cache, upstream);
        } else {
            let rule = rule();
            tracing::warn!(target: REQUEST, id, method, what, who, team, status, bytes, ms, cache, upstream, rule, ended);
        }
    }
}

impl Record {
    fn audit(&self, bytes: u64, whole: bool) {
        let Some(audit) = &self.audit else { return };
        let Visitor { address, caller, team, path } = &self.visitor;
        let late = || self.sum.as_ref()?.get()?.split(' ').next().map(str::to_owned);
        audit.note(Event {
            id: self.id.clone(),
            client: address.to_string(),
            who: caller.as_ref().map(|caller| Arc::clone(&caller.name)),
            how: caller.as_ref().map_or(How::Anonymous, |caller| caller.how).name(),
            team: team.clone(),
            path: path.clone(),
            plan: self.trail.plan.clone(),
            upstream: self.trail.upstream.clone(),
            cache: self.trail.cache.name(),
            sum: self.trail.checked.as_ref().map(|checked| checked.sum.to_string()).or_else(late),
            status: self.status.as_u16(),
            bytes,
            whole: whole && self.aborted.is_none(),
            ms: millis(self.started.elapsed()),
            error: self.error.clone(),
        });
    }
}

/// Milliseconds with three places, as a person reads them.
fn millis(elapsed: Duration) -> f64 {
    (elapsed.as_secs_f64() * 1e6).round() / 1e3
}
