//! Layer 8: what modgate is told to do.
//!
//! Layers are read by figment ([`load`]): the defaults built in, a TOML file, `MODGATE_…` variables. [`read`] takes the
//! result apart key by key and keeps every error; [`check`] makes the checked [`Config`] of it, in which nothing dangles: the listeners
//! ([`server`]), upstreams and routes, who people are ([`auth`]) and what their teams may ask ([`team`]), and who could see or
//! be told what is not theirs ([`audience`]). Where
//! no layer names upstreams or routes, [`go_env`] gives the machine's Go settings.
//!
//! The checked form speaks in the settings of the components that it is for; no component sees `Config`.

mod audience;
mod auth;
mod check;
mod egress;
mod go_chains;
pub mod go_env;
pub mod load;
pub mod read;
mod server;
mod team;
mod trust;
mod vanity;
mod vcs;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use url::Url;

use crate::egress::Policy;
use crate::module::Pattern;
use crate::server::audit;
use crate::server::identify::Doors;
use crate::server::limits::TeamLimits;
use crate::server::tls::TlsSettings;
use crate::sumdb::Verifier;
use crate::{access, gateway, upstream};
use read::Finding;

/// The defaults, as the file that documents them.
pub const DEFAULTS: &str = include_str!("../../config/default.toml");

/// A checked configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// The listeners.
    pub server: Server,
    /// The cache.
    pub cache: Cache,
    /// How the gateway keeps what it fetched.
    pub gateway: gateway::Settings,
    /// The upstreams; routes name them by their place here.
    pub upstreams: Vec<Upstream>,
    /// Who may ask, with their routes and policy. The first is everybody who is of no team.
    pub teams: Vec<gateway::Team>,
    /// How each of them is come by.
    pub doors: Doors,
    /// Who people are.
    pub access: access::Settings,
    /// How often each team's clients may ask.
    pub limits: Vec<TeamLimits>,
    /// What is written down of what was asked, where it is.
    pub audit: Option<audit::Settings>,
    /// The checksum databases that are passed on; the first is the one that proves.
    pub databases: Vec<Database>,
    /// The modules that no checksum database is asked about.
    pub no_sumdb: Vec<Pattern>,
    /// The vanity host's rules.
    pub vanity: Vec<crate::server::vanity::Rule>,
    /// Logging.
    pub log: Log,
    /// What is allowed but worth a word.
    pub warnings: Vec<Finding>,
    /// Where upstreams and routes come from, for the line at start.
    pub origin: Origin,
    /// The files that it was read from, secrets and certificates among them.
    pub files: Vec<read::Watch>,
}

/// Where the upstreams come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A configuration.
    Configured,
    /// The machine's Go settings.
    GoSettings,
}

/// Listeners and threads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Where the go command asks; by TLS where that is set.
    pub listen: Vec<SocketAddr>,
    /// Where it asks without TLS, where there is TLS.
    pub listen_plain: Vec<SocketAddr>,
    /// What TLS is spoken.
    pub tls: Option<TlsSettings>,
    /// Proxies in front that say for whom they ask.
    pub trusted_proxies: Vec<IpNet>,
    /// Where health and explanations are asked for; none where it is switched off.
    pub admin: Vec<SocketAddr>,
    /// Threads that serve; `None` is one a core.
    pub workers: Option<usize>,
    /// How long a stop waits for answers under way.
    pub shutdown_grace: Duration,
}

/// The cache's bounds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cache {
    /// Its folder.
    pub dir: PathBuf,
    /// The most bytes on disk.
    pub max_size: Option<u64>,
    /// The bytes that its disk is to have left.
    pub min_free: u64,
    /// How long a repository's mirror is kept into which nothing is fetched.
    pub mirror_ttl: Duration,
    /// The most bytes of small answers in memory.
    pub memory: u64,
}

/// One upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// Its name, which is its folder's in the cache too.
    pub name: String,
    /// Whether it is the company's own.
    pub private: bool,
    /// What it is.
    pub kind: UpstreamKind,
    /// When it is left alone.
    pub breaker: upstream::guard::Settings,
}

/// What an upstream is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpstreamKind {
    /// A server of the module proxy protocol, and the way out to it.
    GoProxy(upstream::goproxy::Settings, Box<Policy>),
    /// Version control, and the way out to its hosts.
    Vcs(Box<crate::vcs::Settings>, Box<Policy>),
    /// A directory in the layout of the module cache's download folder, and how long a look into it may take.
    Directory(PathBuf, Duration),
    /// What imports brought.
    Offline,
}

/// A checksum database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Database {
    /// Its name and key.
    pub key: Verifier,
    /// The servers that are asked, in order.
    pub via: Vec<Via>,
}

/// A way to a checksum database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Via {
    /// Through a module proxy that passes it on, by its place among the upstreams.
    Upstream(usize),
    /// Straight to its own server.
    Direct(Url, Box<Policy>),
}

/// Logging.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// A level or filter, as `tracing-subscriber` reads it.
    pub filter: String,
    /// Whether lines are JSON.
    pub json: bool,
}

/// All that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// One entry a mistake; never empty.
    pub findings: Vec<Finding>,
    /// The files that were read or looked for.
    pub files: Vec<read::Watch>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, finding) in self.findings.iter().enumerate() {
            if n > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{finding}")?;
        }
        Ok(())
    }
}

impl Config {
    /// Reads and checks the configuration: a file, or none.
    ///
    /// # Errors
    /// Every mistake in it, with file, line and key.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        let (reading, dict) = load::layers(file)?;
        check::check(&reading, dict)
    }
}
