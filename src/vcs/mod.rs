//! Layer 4: modules from version control, as the go command's direct mode makes them (<https://go.dev/ref/mod#vcs>).
//!
//! [`resolve`] finds a module's repository: by configured [`rules`], by its path ([`hosts`]), or by the page at its address ([`meta`]),
//! whose words lead nowhere that [`crate::egress::Reach`] does not allow. [`git`] asks the server for its refs and keeps a bare mirror,
//! into which [`fetch`] brings what is needed; [`remote`] is what the git program is told for that, [`words`] what it says where it fails.
//! [`revision`] turns what is asked into a commit and a version, [`place`] finds the module in the commit, [`tree`] makes its zip,
//! [`origin`] says where it came from. Systems other than git go through a local go command ([`foreign`]) with a [`home`] of its own.
//!
//! The measure is the go command itself: the same versions, times, go.mod files and sums, or the same refusal.

mod error;
mod fetch;
mod foreign;
mod git;
mod home;
mod hosts;
pub mod meta;
pub mod mirrors;
mod origin;
mod place;
pub mod remote;
pub mod resolve;
mod revision;
pub mod rules;
mod tree;
mod words;

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use quick_cache::sync::Cache;
use tokio::sync::Semaphore;

pub use error::VcsError;
pub use foreign::Foreign;
pub use remote::{Access, HostAccess, RepoUrl, TlsFiles};
pub use resolve::Rule;
pub use revision::Module;

use crate::base::Secret;
use crate::egress::{Body, EgressHandle, Policy};
use crate::module::Pattern;
use crate::process::{ProcessError, Run};
use foreign::GoCommand;
use git::{Git, Repository};
use meta::Entry;
use remote::Named;
use resolve::Remembered;

/// How many pages and roots are remembered.
const REMEMBERED: usize = 2000;
/// How many repositories are, each with what its server has.
const REPOSITORIES: usize = 500;

/// A fetcher's settings.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    /// Where repositories are; the first rule that matches counts.
    pub rules: Vec<Rule>,
    /// Whether pages are asked about paths for which nothing else says where their repository is.
    pub discover: bool,
    /// Module paths that may be had without encryption, as GOINSECURE has them.
    pub insecure: Vec<Pattern>,
    /// Who modgate is, by host.
    pub hosts: Vec<HostAccess>,
    /// A netrc file's text, for hosts without an entry of their own.
    pub netrc: Option<Secret>,
    /// A git configuration that counts.
    pub git_config: Option<PathBuf>,
    /// How many programs may work at the same time over the network, and as many on mirrors.
    pub programs: usize,
    /// The largest file that a fetch may write, in bytes: about the largest history.
    pub max_pack: u64,
}

/// Fetches modules from version control.
#[derive(Debug)]
pub struct Fetcher {
    settings: Settings,
    egress: EgressHandle,
    git: Arc<Git>,
    foreign: Arc<GoCommand>,
    repositories: Cache<String, Arc<Repository>>,
    pages: Cache<String, Remembered<Arc<Vec<Entry>>>>,
    schemes: Cache<String, Remembered<String>>,
    roots: Cache<String, Remembered<String>>,
}

/// Where a module comes from.
#[derive(Debug, Clone)]
pub enum Source {
    /// A git repository.
    Git(Module),
    /// A module proxy that a page named.
    Proxy(url::Url),
    /// A repository of another system.
    Foreign(Foreign),
}

/// A zip that is being made, or lies in a file already.
#[derive(Debug)]
pub struct Zip {
    /// Its length, where it is known.
    pub length: Option<u64>,
    /// Its bytes.
    pub body: Body,
}

impl Fetcher {
    /// A fetcher that keeps its mirrors in a folder.
    ///
    /// # Errors
    /// That the folder cannot be used.
    pub fn new(settings: Settings, policy: &Policy, egress: EgressHandle, folder: &Path) -> std::io::Result<Self> {
        let private = folder.join("tls");
        std::fs::create_dir_all(&private)?;
        // What lies there is as private as the repositories are.
        std::fs::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
        let access = Access {
            proxy: policy.proxy.clone(),
            tls: TlsFiles::write(&policy.tls, &private)?,
            hosts: settings.hosts.clone(),
            netrc: settings.netrc.clone(),
            git_config: settings.git_config.clone(),
            program: own_program()?,
            limits: policy.limits,
        };
        let foreign = GoCommand::new(folder.join("go"), &settings, &access);
        let git = Git {
            access,
            reach: policy.reach.clone().unwrap_or_default(),
            egress: egress.clone(),
            max_file: settings.max_pack,
            mirrors: folder.to_owned(),
            slots: Arc::new(Semaphore::new(settings.programs.max(1))),
            network: Semaphore::new(settings.programs.max(1)),
        };
        Ok(Self {
            settings,
            egress,
            git: Arc::new(git),
            foreign: Arc::new(foreign),
            repositories: Cache::new(REPOSITORIES),
            pages: Cache::new(REMEMBERED),
            schemes: Cache::new(REMEMBERED),
            roots: Cache::new(REMEMBERED),
        })
    }

    /// Whether the git program is there. Its hosts are many, and none of them is asked.
    ///
    /// # Errors
    /// That it is not.
    pub async fn probe(&self) -> Result<String, VcsError> {
        let missing = |e: ProcessError| VcsError::broken(e.to_string());
        let version = Run::new("git").args(["--version"]).output().await.map_err(missing)?;
        Ok(String::from_utf8_lossy(&version).trim().to_owned())
    }

    fn repository(&self, url: RepoUrl, named: Named) -> Arc<Repository> {
        // One that the configuration names is not the same as one that a page names, though they keep one mirror: the first is trusted.
        let key = format!("{named:?} {}", url.as_str());
        let make = || Ok::<_, Infallible>(Arc::new(Repository::new(Arc::clone(&self.git), url, named)));
        let Ok(repository) = self.repositories.get_or_insert_with(&key, make);
        repository
    }
}

/// This program's file, as it was when it was first asked for: an upgrade puts another in its place, and the system then speaks of a
/// deleted one.
fn own_program() -> std::io::Result<PathBuf> {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    if let Some(program) = PROGRAM.get() {
        return Ok(program.clone());
    }
    let program = std::env::current_exe()?;
    Ok(PROGRAM.get_or_init(|| program).clone())
}
