//! Why a request brought nothing.

use std::fmt;
use std::time::Duration;

/// Which wait came to its limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wait {
    /// Connecting; what was being waited for.
    Connect(String),
    /// Waiting for the head of the answer.
    FirstByte,
    /// Waiting for the next piece of the body.
    Idle,
    /// All of it.
    Total,
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(doing) => write!(f, "{doing} took longer than its limit (connect)"),
            Self::FirstByte => f.write_str("no answer within its limit (first_byte)"),
            Self::Idle => f.write_str("the body stalled for longer than its limit (idle)"),
            Self::Total => f.write_str("the whole request took longer than its limit (total)"),
        }
    }
}

/// Why a request brought nothing. No text in it holds a URL's query, a user or a password.
#[derive(Debug, Clone, thiserror::Error)]
pub enum EgressError {
    /// The host's name has no address.
    #[error("cannot resolve {host}: {why}")]
    Resolve {
        /// The host.
        host: String,
        /// What the resolver said.
        why: String,
    },
    /// No connection.
    #[error("cannot connect to {host}: {why}")]
    Connect {
        /// Host and port.
        host: String,
        /// What the system said.
        why: String,
    },
    /// No connection, for a reason that lies with this machine and not with the server: no file descriptor or memory is left.
    #[error("this machine cannot make another connection, to {host}: {why}")]
    Exhausted {
        /// The host, and the port where it came so far.
        host: String,
        /// What the system said.
        why: String,
    },
    /// The TLS handshake failed.
    #[error("TLS with {host} failed: {why}")]
    Tls {
        /// Host and port.
        host: String,
        /// What was wrong.
        why: String,
    },
    /// The proxy cannot be reached.
    #[error("the proxy {proxy} cannot be used: {why}")]
    NoProxy {
        /// The proxy.
        proxy: String,
        /// How reaching it failed.
        why: Box<EgressError>,
    },
    /// The proxy does not lead to the server.
    #[error("the proxy {proxy} does not lead to {to}: {why}")]
    Proxy {
        /// The proxy.
        proxy: String,
        /// Host and port of the server.
        to: String,
        /// What the proxy said.
        why: String,
        /// Whether asking again may help.
        may_pass: bool,
    },
    /// A limit was reached.
    #[error("{0}")]
    Timeout(Wait),
    /// The connection broke, or what came is not HTTP.
    #[error("{0}")]
    Broken(String),
    /// An answer came that cannot be used.
    #[error("{0}")]
    Unusable(String),
    /// The body ended before it was whole.
    #[error("the body was cut off after {received} bytes{}", of_expected(*.expected))]
    CutOff {
        /// Bytes that came.
        received: u64,
        /// Bytes that were promised, where the head said so.
        expected: Option<u64>,
    },
    /// A body that broke off could not be continued.
    #[error("{cut}, and could not be resumed: {why}")]
    NotResumed {
        /// How it broke off.
        cut: Box<EgressError>,
        /// Why there is no more of it.
        why: String,
    },
    /// The body is larger than the caller can use.
    #[error("the body is larger than {limit} bytes")]
    TooLarge {
        /// The caller's bound.
        limit: u64,
    },
    /// A server that nobody but the configuration may name.
    #[error("{host} lies at {address}, inside a private network; it is not asked unless internal_hosts names it")]
    Internal {
        /// The host.
        host: String,
        /// Its address.
        address: std::net::IpAddr,
    },
    /// Redirects that lead nowhere.
    #[error("redirect: {0}")]
    Redirect(String),
    /// The upstream's limits left no room for the request, which was not sent.
    #[error("not asked: {why}")]
    NoTurn {
        /// Which limit.
        why: String,
        /// When there will be room, where that is known.
        retry_after: Option<Duration>,
    },
    /// The egress thread is gone: modgate is stopping.
    #[error("stopping")]
    Stopped,
}

impl EgressError {
    /// Whether it was a time limit.
    pub fn is_timeout(&self) -> bool {
        match self {
            Self::Timeout(_) => true,
            Self::NoProxy { why: inner, .. } | Self::NotResumed { cut: inner, .. } => inner.is_timeout(),
            _ => false,
        }
    }

    /// Whether it lies with this machine alone.
    pub fn is_exhaustion(&self) -> bool {
        match self {
            Self::Exhausted { .. } => true,
            Self::NoProxy { why: inner, .. } | Self::NotResumed { cut: inner, .. } => inner.is_exhaustion(),
            _ => false,
        }
    }

    /// Whether the same request may well succeed a moment later. A time limit is none of these: waiting for it a second time
    /// would double what it bounds.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Resolve { .. } | Self::Connect { .. } | Self::Exhausted { .. } | Self::Broken(_) | Self::CutOff { .. } => true,
            Self::Proxy { may_pass, .. } => *may_pass,
            Self::NoProxy { why, .. } => why.may_pass(),
            Self::Tls { .. } | Self::Timeout(_) | Self::Unusable(_) | Self::NotResumed { .. } | Self::TooLarge { .. } => false,
            Self::Internal { .. } | Self::Redirect(_) | Self::NoTurn { .. } | Self::Stopped => false,
        }
    }
}

/// Whether a server, or a proxy, that answers by this status may well answer otherwise a moment later.
pub fn status_may_pass(status: u16) -> bool {
    matches!(status, 500 | 502..=504)
}

fn of_expected(expected: Option<u64>) -> String {
    expected.map_or(String::new(), |n| format!(" of {n}"))
}
