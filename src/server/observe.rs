//! One line a request.
//!
//! The line is written when the answer has been sent or given up, with the bytes that went out. Hits say little; a failed
//! request says all that is known: the rule, and each upstream with its verdict and time.

use std::time::{Duration, Instant};

use actix_http::{Method, Request, StatusCode};

use crate::gateway::Trail;

/// The target of request lines, for log filters.
pub const REQUEST: &str = "modgate::request";

/// A path that is no question is shown up to so many characters.
const MAX_SHOWN: usize = 500;

/// Whether request lines are wanted at all; asked before anything is put together for one.
pub(super) fn wanted() -> bool {
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
    /// Why there is no answer.
    pub(super) error: Option<String>,
    /// The length of the body, where it is known at its beginning.
    pub(super) expected: Option<u64>,
    /// The end of the body was reached.
    pub(super) complete: bool,
    /// Why the body was broken off.
    pub(super) aborted: Option<String>,
}

impl Record {
    /// The record of a request that is being answered.
    pub(super) fn new(id: String, request: &Request, started: Instant, trail: Trail, status: StatusCode) -> Self {
        Self {
            id,
            method: request.method().clone(),
            what: request.uri().path().chars().take(MAX_SHOWN).collect(),
            status,
            started,
            trail,
            error: None,
            expected: None,
            complete: false,
            aborted: None,
        }
    }

    /// Writes the line.
    pub(super) fn log(&self, bytes: u64, whole: bool) {
        if !wanted() {
            return;
        }
        let status = self.status.as_u16();
        let ms = millis(self.started.elapsed());
        let cache = self.trail.cache.name();
        let upstream = self.trail.upstream.as_deref().unwrap_or("-");
        let (id, method, what) = (&self.id, self.method.as_str(), &self.what);
        let ended = match (&self.aborted, whole) {
            (Some(reason), _) => reason.as_str(),
            (None, true) => "",
            (None, false) => "the client went away",
        };
        let rule = || self.trail.plan.as_ref().map(crate::route::Plan::rule).unwrap_or_default();
        if let Some(error) = &self.error {
            let (rule, tried) = (rule(), self.trail.attempts_line());
            if self.status.is_server_error() {
                tracing::warn!(target: REQUEST, id, method, what, status, bytes, ms, cache, rule, tried, error);
            } else {
                tracing::info!(target: REQUEST, id, method, what, status, bytes, ms, cache, rule, tried, error);
            }
        } else if ended.is_empty() {
            tracing::info!(target: REQUEST, id, method, what, status, bytes, ms, cache, upstream);
        } else {
            let rule = rule();
            tracing::warn!(target: REQUEST, id, method, what, status, bytes, ms, cache, upstream, rule, ended);
        }
    }
}

/// Milliseconds with three places, as a person reads them.
fn millis(elapsed: Duration) -> f64 {
    (elapsed.as_secs_f64() * 1e6).round() / 1e3
}
