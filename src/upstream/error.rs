//! The closed classes of failure.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::base::units::show_elapsed;
use crate::egress::EgressError;
use crate::egress::error::status_may_pass;
use crate::route::FailureClass;
use crate::store::StoreError;
use crate::vcs::VcsError;

/// How an upstream failed. Its text is what the error body's line for this upstream says.
#[derive(Debug, Clone)]
pub enum Failure {
    /// It does not have it. The status it said so with; a directory has none.
    Absent(Option<u16>),
    /// It refuses the caller.
    Denied(u16),
    /// A repository gave nothing; which class that is, the reason says.
    Vcs(Arc<VcsError>),
    /// It has no time now.
    Busy(Busy),
    /// It did not answer as a working server would.
    Outage(Outage),
    /// It answered with something that cannot be right.
    Corrupt(String),
}

/// Ways of having no time.
#[derive(Debug, Clone)]
pub enum Busy {
    /// It said so.
    Said {
        /// By this status.
        status: u16,
        /// When to come again, where it said that.
        retry_after: Option<Duration>,
    },
    /// It was not asked: its limits left no turn.
    NoTurn {
        /// Which limit.
        why: String,
        /// When there will be a turn, where that is known.
        retry_after: Option<Duration>,
    },
}

/// Ways of not working.
#[derive(Debug, Clone)]
pub enum Outage {
    /// A status of no use.
    Status(u16),
    /// The network.
    Network(EgressError),
    /// The disk, of a directory upstream.
    Disk(Arc<StoreError>),
    /// A directory that does not answer in time, as a dead mount does.
    DiskHangs(Duration),
    /// It was not asked: its circuit breaker is open.
    Open {
        /// For so much longer.
        rest: Duration,
        /// The failure that opened it.
        why: Arc<str>,
        /// Whether that was a time limit.
        hangs: bool,
    },
    /// It was not asked at first: it was late a moment ago, for this reason, and others may have the answer.
    Suspect(Arc<str>),
    /// It had not answered within its route's `hedge_after`, and another upstream was faster.
    Overtaken(Duration),
}

/// An upstream's failure.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{failure}{}", .via.as_ref().map_or_else(String::new, |proxy| format!(" (through the proxy {proxy})")))]
pub struct UpstreamError {
    /// What happened.
    pub failure: Failure,
    /// The proxy that the answer came through, where it could have spoken for itself.
    pub via: Option<String>,
}

impl UpstreamError {
    pub(crate) fn corrupt(why: impl fmt::Display) -> Self {
        Failure::Corrupt(why.to_string()).into()
    }

    /// Of an upstream whose files lie on a disk, which fails.
    pub(crate) fn disk(e: StoreError) -> Self {
        Failure::Outage(Outage::Disk(Arc::new(e))).into()
    }
}

impl From<Failure> for UpstreamError {
    fn from(failure: Failure) -> Self {
        Self { failure, via: None }
    }
}

impl From<EgressError> for UpstreamError {
    fn from(e: EgressError) -> Self {
        match e {
            EgressError::TooLarge { .. } => Failure::Corrupt(e.to_string()),
            EgressError::NoTurn { ref retry_after, .. } => {
                Failure::Busy(Busy::NoTurn { retry_after: *retry_after, why: e.to_string() })
            }
            e => Failure::Outage(Outage::Network(e)),
        }
        .into()
    }
}

impl From<VcsError> for UpstreamError {
    fn from(e: VcsError) -> Self {
        match e {
            VcsError::NoTurn(e) => e.into(),
            e => Failure::Vcs(Arc::new(e)).into(),
        }
    }
}

impl Failure {
    /// Its class.
    pub fn class(&self) -> FailureClass {
        match self {
            Self::Absent(_) => FailureClass::Absent,
            Self::Denied(_) => FailureClass::Denied,
            Self::Vcs(e) => match **e {
                VcsError::NotFound(_) => FailureClass::Absent,
                VcsError::Denied(_) => FailureClass::Denied,
                VcsError::Broken { .. } | VcsError::NoRoom(_) => FailureClass::Outage,
                VcsError::NoTurn(_) => FailureClass::Busy,
            },
            Self::Busy(_) => FailureClass::Busy,
            Self::Outage(_) => FailureClass::Outage,
            Self::Corrupt(_) => FailureClass::Corrupt,
        }
    }

    /// Whether it was a time limit.
    pub fn is_timeout(&self) -> bool {
        match self {
            Self::Outage(Outage::Network(e)) => e.is_timeout(),
            Self::Vcs(e) => matches!(**e, VcsError::Broken { hangs: true, .. }),
            Self::Outage(Outage::DiskHangs(_) | Outage::Overtaken(_) | Outage::Suspect(_) | Outage::Open { hangs: true, .. }) => {
                true
            }
            _ => false,
        }
    }

    /// What was said where it is modgate itself that had no room to work.
    pub fn no_room(&self) -> Option<&str> {
        match self {
            Self::Vcs(e) => match &**e {
                VcsError::NoRoom(why) => Some(why),
                _ => None,
            },
            _ => None,
        }
    }

    /// Whether the same question may well be answered a moment later. A short time that the upstream asks for is waited for
    /// before the question is sent again; a long one makes it busy then.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Outage(Outage::Network(e)) => e.may_pass(),
            Self::Outage(Outage::Status(status)) => status_may_pass(*status),
            Self::Busy(Busy::Said { retry_after, .. }) => retry_after.is_some_and(|after| after <= SHORT),
            _ => false,
        }
    }

    /// When to come again, where that is known.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Busy(Busy::Said { retry_after, .. } | Busy::NoTurn { retry_after, .. }) => *retry_after,
            _ => None,
        }
    }
}

/// An upstream that wants to be left alone for so long at the most is asked again after that.
const SHORT: Duration = Duration::from_secs(2);

/// A status code with its name.
fn status_text(status: u16) -> String {
    match http_reason(status) {
        Some(reason) => format!("{status} {reason}"),
        None => status.to_string(),
    }
}

fn http_reason(status: u16) -> Option<&'static str> {
    awc::http::StatusCode::from_u16(status).ok()?.canonical_reason()
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent(None) => f.write_str("not there"),
            Self::Absent(Some(status)) => write!(f, "{} (absent)", status_text(*status)),
            Self::Vcs(e) => write!(f, "{e}"),
            Self::Denied(status) => write!(f, "{} (denied)", status_text(*status)),
            Self::Busy(Busy::NoTurn { why, .. }) => f.write_str(why),
            Self::Busy(Busy::Said { status, retry_after }) => {
                write!(f, "{} (busy", status_text(*status))?;
                if let Some(after) = retry_after {
                    write!(f, ", asks to wait {} s", after.as_secs())?;
                }
                f.write_str(")")
            }
            Self::Outage(outage) => write!(f, "{outage}"),
            Self::Corrupt(why) => write!(f, "corrupt: {why}"),
        }
    }
}

impl fmt::Display for Outage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => f.write_str(&status_text(*status)),
            Self::Suspect(why) => write!(f, "not asked, it was late a moment ago: {why}"),
            Self::Overtaken(after) => write!(f, "no answer after {}, when another upstream had one", show_elapsed(*after)),
            Self::Network(e) => write!(f, "{e}"),
            Self::Disk(e) => write!(f, "{e}"),
            Self::Open { rest, why, .. } if rest.is_zero() => {
                write!(f, "not asked, one request at a time finds out whether it works again, because: {why}")
            }
            Self::Open { rest, why, .. } => {
                let seconds = rest.as_secs_f64().ceil();
                write!(f, "not asked, its circuit breaker is open for {seconds} s more, because: {why}")
            }
            Self::DiskHangs(after) => write!(f, "the directory did not answer within {} s", after.as_secs()),
        }
    }
}
