//! The one table of statuses, and the text that goes with them.
//!
//! The go command shows an error's body when it is plain text, at most eight lines and without a blank one; so that is what
//! clients get. The log gets more.

use std::time::Duration;

use actix_http::StatusCode;

use crate::gateway::{Attempt, ChainVerdict, GatewayError, Trail};
use crate::module::AskError;

/// The go command shows so many lines.
const MAX_LINES: usize = 8;
/// A line is cut at so many characters.
const MAX_LINE: usize = 400;

/// What a refused request is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    /// At most eight lines, none blank.
    pub(super) text: String,
    /// Seconds, where coming again makes sense.
    pub(super) retry_after: Option<u64>,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, what: &str) -> Self {
        Self { status, text: format!("modgate: {}\n", one_line(what)), retry_after: None }
    }

    /// The same, where coming again makes sense after a while.
    pub(super) fn after(self, wait: Duration) -> Self {
        Self { retry_after: Some(seconds(wait)), ..self }
    }

    pub(super) fn of_ask(error: &AskError) -> Self {
        let status = match error {
            AskError::Unknown(_) => StatusCode::NOT_FOUND,
            AskError::Encoding(_) | AskError::Malformed(_) => StatusCode::BAD_REQUEST,
        };
        Self::new(status, &error.to_string())
    }

    /// The refusal of a question that the gateway could not answer: what happened, then a line for each upstream.
    pub(super) fn of_gateway(error: &GatewayError, what: &str, trail: &Trail) -> Self {
        let mut refusal = Self::new(status(error), &format!("{what}: {error}"));
        // An upstream that was asked for a list and then for the latest version may fail twice; to hear the same twice helps nobody.
        let mut failures: Vec<(&Attempt, String)> = Vec::new();
        for attempt in &trail.attempts {
            if let Some(why) = attempt.verdict.failure().map(ToString::to_string)
                && !failures.iter().any(|(other, said)| other.upstream == attempt.upstream && *said == why)
            {
                failures.push((attempt, why));
            }
        }
        let room = MAX_LINES - 1;
        let shown = if failures.len() > room { room - 1 } else { failures.len() };
        for (attempt, _) in &failures[..shown] {
            refusal.text.push_str(&one_line(&attempt.to_string()));
            refusal.text.push('\n');
        }
        if shown < failures.len() {
            refusal.text.extend(["and ", &(failures.len() - shown).to_string(), " more\n"]);
        }
        refusal.retry_after = match error {
            GatewayError::Overloaded => Some(1),
            GatewayError::Chain(_, Some(after)) => Some(seconds(*after)),
            _ => None,
        };
        refusal
    }
}

/// Whole seconds, and none too few.
fn seconds(wait: Duration) -> u64 {
    wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0)).max(1)
}

/// The status of a gateway's error.
pub(super) fn status(error: &GatewayError) -> StatusCode {
    match error {
        GatewayError::NoRoute | GatewayError::NoUpstream | GatewayError::NotCached => StatusCode::NOT_FOUND,
        GatewayError::Fenced | GatewayError::Unrecorded => StatusCode::NOT_FOUND,
        // The go command stops at this one, so that nobody gets round it by the next proxy.
        GatewayError::Denied(_) | GatewayError::Unproven | GatewayError::Outside => StatusCode::FORBIDDEN,
        GatewayError::Unverified { timed_out: true, .. } => StatusCode::GATEWAY_TIMEOUT,
        GatewayError::Unverified { .. } => StatusCode::BAD_GATEWAY,
        GatewayError::Chain(ChainVerdict::Absent, _) => StatusCode::NOT_FOUND,
        GatewayError::Chain(ChainVerdict::TimedOut, _) => StatusCode::GATEWAY_TIMEOUT,
        GatewayError::Chain(ChainVerdict::Failed, _) | GatewayError::Partial(_) => StatusCode::BAD_GATEWAY,
        GatewayError::Overloaded | GatewayError::NoRoom(_) => StatusCode::SERVICE_UNAVAILABLE,
        GatewayError::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// A text on one line, without control characters, cut to a readable length.
fn one_line(text: &str) -> String {
    let mut line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_LINE).collect();
    if line.len() < text.len() {
        line.push('…');
    }
    line.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::Verdict;
    use crate::upstream::Failure;

    #[test]
    fn bodies_are_what_the_go_command_shows() {
        let attempt = |n: usize| Attempt {
            upstream: format!("u{n}").into(),
            verdict: Verdict::Failed(Failure::Corrupt("line\n\nbreaks \u{1b}[31m".into()).into()),
            elapsed: Duration::from_millis(12),
        };
        let trail = Trail { attempts: (0..12).map(attempt).collect(), ..Trail::default() };
        let error = GatewayError::Chain(ChainVerdict::Failed, None);
        let refusal = Refusal::of_gateway(&error, "example.com/m@v1.0.0", &trail);
        assert_eq!(refusal.status, StatusCode::BAD_GATEWAY);
        assert_eq!(refusal.text.lines().count(), 8);
        assert!(refusal.text.lines().all(|l| !l.trim().is_empty()));
        assert!(!refusal.text.contains('\u{1b}'));
        assert!(refusal.text.starts_with("modgate: example.com/m@v1.0.0: no upstream could answer\nu0: corrupt: "));
        assert!(refusal.text.ends_with("and 6 more\n"));
        let twice = Trail { attempts: vec![attempt(0), attempt(1), attempt(0)], ..Trail::default() };
        assert_eq!(
            Refusal::of_gateway(&error, "example.com/m@v1.0.0", &twice).text.lines().count(),
            3,
            "nobody is named twice for one thing"
        );
    }
}
