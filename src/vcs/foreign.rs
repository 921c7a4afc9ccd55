//! Mercurial, Subversion, Bazaar and Fossil, through a go command of this machine, as it makes modules of them itself.
//!
//! It runs with a [`home`], a module cache and settings of its own, straight (`GOPROXY=direct`), two at a time. What it unpacked goes once it
//! has been handed on; its copies of repositories stay, so that the next version costs the difference.

use std::convert::Infallible;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quick_cache::sync::Cache;
use serde::Deserialize;
use tokio::sync::{Mutex, Semaphore, mpsc};
use url::Url;

use super::error::VcsError;
use super::remote::Access;
use super::words::had_no_room;
use super::{Settings, Zip, home};
use crate::base::Secret;
use crate::egress::{Body, EgressError};
use crate::module::list::VersionList;
use crate::module::zip::{MAX_GO_MOD, MAX_ZIP};
use crate::module::{Info, ModulePath, ModuleVersion, Query, Version};
use crate::process::{ProcessError, Run};

/// How many go commands run at the same time.
const AT_ONCE: usize = 2;
/// The most that one of them may print, in bytes.
const MAX_OUTPUT: usize = 16 << 20;
const PIECE: usize = 128 << 10;

/// The go command and its surroundings.
#[derive(Debug)]
pub(super) struct GoCommand {
    folder: PathBuf,
    environment: Vec<(String, String)>,
    files: Vec<(&'static str, Secret)>,
    limit: Duration,
    turns: Semaphore,
    /// Modules that are being worked on, each by one go command at a time.
    modules: Cache<String, Arc<Mutex<()>>>,
}

/// A module of a repository that is not git's.
#[derive(Debug, Clone)]
pub struct Foreign {
    go: Arc<GoCommand>,
    path: ModulePath,
    system: &'static str,
    url: Url,
}

/// What the go command prints of a module.
#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct Printed {
    version: String,
    versions: Vec<String>,
    time: Option<String>,
    origin: Option<serde_json::Value>,
    error: Option<serde_json::Value>,
    go_mod: PathBuf,
    zip: PathBuf,
}

impl GoCommand {
    pub(super) fn new(folder: PathBuf, settings: &Settings, access: &Access) -> Self {
        let in_folder = |name: &str| folder.join(name).to_string_lossy().into_owned();
        let insecure: Vec<String> = settings.insecure.iter().map(ToString::to_string).collect();
        let mut environment: Vec<(String, String)> = [
            ("GO111MODULE", "on".to_owned()),
            ("GOPROXY", "direct".into()),
            ("GOSUMDB", "off".into()),
            ("GOENV", "off".into()),
            ("GOWORK", "off".into()),
            ("GOFLAGS", "-modcacherw -mod=mod".into()),
            ("GOTOOLCHAIN", "local".into()),
            ("GOINSECURE", insecure.join(",")),
            ("GOPATH", in_folder("path")),
            ("GOMODCACHE", in_folder("modules")),
            ("GOCACHE", in_folder("build")),
            ("HOME", in_folder("home")),
            ("HGPLAIN", "1".into()),
            // Fossil asks who its user is, whatever it is to do.
            ("USER", "modgate".into()),
            ("SVN_SSH", home::SSH.into()),
            ("LC_ALL", "C".into()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        let proxies = [("HTTPS_PROXY", &access.proxy.https), ("HTTP_PROXY", &access.proxy.http)];
        let told = proxies
            .into_iter()
            .filter_map(|(name, proxy)| Some((name.to_owned(), proxy.as_ref()?.url_with_login().expose().to_owned())));
        environment.extend(told);
        environment.push(("NO_PROXY".into(), access.proxy.exempt.to_string()));
        environment
            .extend(access.tls.authorities.as_ref().map(|file| ("SSL_CERT_FILE".into(), file.to_string_lossy().into_owned())));
        let files = home::files(settings, access);
        Self { folder, environment, files, limit: access.limits.total, turns: Semaphore::new(AT_ONCE), modules: Cache::new(1000) }
    }

    /// Runs it for a repository of this system: a page that names another one to it than it named to modgate gets nowhere.
    async fn run(&self, system: &str, arguments: &[&str]) -> Result<Printed, VcsError> {
        let _turn = self.turns.acquire().await;
        let home = self.folder.join("home");
        let unusable = |e| VcsError::own("the folder of the go command cannot be used", &e);
        home::write(&self.files, &home).map_err(unusable)?;
        let run = self.program("go", arguments).env("GOVCS", format!("*:{system}"));
        let (printed, complaint) = match run.output_and_complaint().await {
            Ok(ended) => ended,
            Err(ProcessError::Start { missing: true, .. }) => {
                return Err(VcsError::broken(
                    "the go command is not installed where modgate runs, and repositories other than git need it",
                ));
            }
            Err(e) => return Err(self.failed(&e)),
        };
        let read: Printed = serde_json::from_slice(&printed).unwrap_or_default();
        match &read.error {
            None if !read.version.is_empty() || !read.versions.is_empty() => Ok(read),
            None => Err(self.classified(&complaint)),
            Some(serde_json::Value::String(why)) => Err(self.classified(why)),
            Some(other) => Err(self.classified(other.get("Err").and_then(|e| e.as_str()).unwrap_or(&complaint))),
        }
    }

    /// A program with the same surroundings.
    fn program(&self, name: &str, arguments: &[&str]) -> Run {
        let run = Run::new(name).args(arguments).envs(self.environment.iter().map(|(n, v)| (n, v)));
        run.folder(&self.folder.join("home")).limits(self.limit, MAX_OUTPUT)
    }

    fn failed(&self, e: &ProcessError) -> VcsError {
        match e {
            ProcessError::Start { missing: true, program, .. } => not_installed(program),
            ProcessError::Timeout { .. } => VcsError::Broken { why: e.to_string(), hangs: true, may_pass: false },
            ProcessError::Failed { .. } => self.classified(&e.to_string()),
            e => VcsError::broken(e.to_string()),
        }
    }

    /// Whatever keeps Subversion from its server is an unknown revision to the go command. Asked itself, it says what it was.
    async fn perhaps_unreachable(&self, url: &Url, e: VcsError) -> VcsError {
        if !matches!(&e, VcsError::NotFound(why) if why.contains("unknown revision")) {
            return e;
        }
        let asked = self.program("svn", &["info", "--non-interactive", "--", url.as_str()]).output().await;
        asked.err().map_or(e, |e| self.failed(&e))
    }

    /// What the go command's words mean, or those of a program that it runs.
    fn classified(&self, words: &str) -> VcsError {
        let folder = self.folder.to_string_lossy();
        let line = words.replace(&*folder, "…").split('\n').map(str::trim).filter(|l| !l.is_empty()).collect::<Vec<_>>().join("; ");
        let line: String = line.chars().filter(|c| !c.is_control()).take(500).collect();
        if let Some(at) = line.find("executable file not found") {
            let program = line[..at].rsplit('"').nth(1).unwrap_or("a program").to_owned();
            return not_installed(&program);
        }
        if had_no_room(words, &self.folder) { VcsError::NoRoom(line) } else { meaning(line) }
    }
}

fn meaning(line: String) -> VcsError {
    let says = |words: &[&str]| words.iter().any(|w| line.contains(w));
    // Whatever fails is an invalid version to the go command, a server that cannot be reached too. A module may be called timeout.
    let hangs = says(&["i/o timeout", "handshake timeout", "timed out", "deadline exceeded"]);
    if says(&MISSING) {
        VcsError::NotFound(line)
    } else if hangs || says(&FAILING) {
        VcsError::Broken { why: line, hangs, may_pass: false }
    } else if says(&DENIED) {
        VcsError::Denied(line)
    } else if !line.contains("exit status") && says(&UNKNOWN) {
        VcsError::NotFound(line)
    } else {
        VcsError::broken(line)
    }
}

fn not_installed(program: &str) -> VcsError {
    VcsError::broken(format!("the program {program} is not installed where modgate runs, and this repository needs it"))
}

/// What says that a server cannot be reached or trusted.
const FAILING: [&str; 14] = [
    "dial tcp",
    "etwork is unreachable",
    "o route to host",
    "tls: ",
    "unexpected EOF",
    "onnection refused",
    "onnection reset",
    "no such host",
    "could not resolve",
    "Name or service not known",
    "nable to connect",
    "ertificate",
    "x509: ",
    "no secure protocol found",
];
const DENIED: [&str; 9] = [
    "401 Unauthorized",
    "403 Forbidden",
    "HTTP Error 401",
    "HTTP Error 403",
    "uthorization failed",
    "uthentication failed",
    "http authorization required",
    "Permission denied",
    "Host key verification failed",
];
/// What says, of a program that failed, that there is no such thing.
const MISSING: [&str; 5] = ["404 Not Found", "HTTP Error 404", "E170000", "E210005", "E160013"];
/// What the go command itself says of that.
const UNKNOWN: [&str; 8] = [
    "unknown revision",
    "invalid version",
    "no matching versions",
    "not found",
    "missing go.mod",
    "does not exist",
    "no go-import meta tags",
    "invalid pseudo-version",
];

impl Foreign {
    pub(super) fn new(go: Arc<GoCommand>, path: ModulePath, system: &'static str, url: Url) -> Self {
        Self { go, path, system, url }
    }

    /// The turn to work on the module: what one go command is done with is taken away, and another may be about to read it.
    fn turn(&self) -> Arc<Mutex<()>> {
        let Ok(turn) = self.go.modules.get_or_insert_with(self.path.as_str(), || Ok::<_, Infallible>(Arc::default()));
        turn
    }

    async fn run(&self, arguments: &[&str]) -> Result<Printed, VcsError> {
        match self.go.run(self.system, arguments).await {
            Err(e) if self.system == "svn" => Err(self.go.perhaps_unreachable(&self.url, e).await),
            printed => printed,
        }
    }

    /// The versions that its tags name.
    pub async fn list(&self) -> Result<VersionList, VcsError> {
        let turn = self.turn();
        let _turn = turn.lock().await;
        let printed = self.run(&["list", "-m", "-e", "-versions", "-json", &format!("{}@latest", self.path)]).await?;
        Ok(VersionList::from_versions(printed.versions.iter().filter_map(|text| Version::parse(text).ok())))
    }

    /// The latest version.
    pub async fn latest(&self) -> Result<Info, VcsError> {
        self.stat("latest").await
    }

    /// The facts about a version, or the version that a branch, a tag or a commit comes to.
    pub async fn info(&self, query: &Query) -> Result<Info, VcsError> {
        self.stat(query.as_str()).await
    }

    async fn stat(&self, query: &str) -> Result<Info, VcsError> {
        let turn = self.turn();
        let _turn = turn.lock().await;
        let printed = self.run(&["list", "-m", "-e", "-json", &format!("{}@{query}", self.path)]).await?;
        let mut json = serde_json::Map::new();
        json.insert("Version".into(), printed.version.clone().into());
        json.extend(printed.time.map(|time| ("Time".to_owned(), time.into())));
        json.extend(printed.origin.map(|origin| ("Origin".to_owned(), origin)));
        let json = serde_json::to_vec(&json).map_err(|e| VcsError::broken(e.to_string()))?;
        Info::parse(json.into()).map_err(|e| VcsError::broken(e.to_string()))
    }

    /// A version's go.mod.
    pub async fn go_mod(&self, version: &ModuleVersion) -> Result<Bytes, VcsError> {
        let (_, go_mod, _) = self.download(version).await?;
        Ok(go_mod)
    }

    /// A version's zip.
    pub async fn zip(&self, version: &ModuleVersion) -> Result<Zip, VcsError> {
        let (file, _, length) = self.download(version).await?;
        let (pieces, body) = mpsc::channel(8);
        tokio::task::spawn_blocking(move || {
            let mut file = file;
            loop {
                let mut piece = vec![0; PIECE];
                let read = file.read(&mut piece).map_err(|e| EgressError::Broken(format!("the zip of the go command: {e}")));
                let (last, piece) = match read {
                    Ok(count) => {
                        piece.truncate(count);
                        (count == 0, Ok(Bytes::from(piece)))
                    }
                    Err(e) => (true, Err(e)),
                };
                // A reader that is gone needs no more, and an empty piece is the end.
                if pieces.blocking_send(piece).is_err() || last {
                    return;
                }
            }
        });
        Ok(Zip { length: Some(length), body: Body::new(body) })
    }

    /// Has the go command make a version; its zip, opened, its go.mod, and the zip's length.
    async fn download(&self, version: &ModuleVersion) -> Result<(std::fs::File, Bytes, u64), VcsError> {
        let turn = self.turn();
        let _turn = turn.lock().await;
        let printed = self.run(&["mod", "download", "-json", &version.to_string()]).await?;
        if printed.version != version.version.as_str() {
            return Err(VcsError::not_found(format!("{version}: resolves to version {}", printed.version)));
        }
        let taken = take(&printed.zip, &printed.go_mod);
        // Opened files stay readable; what lies in the folder is not needed twice.
        let modules = self.go.folder.join("modules");
        forget(&modules, &printed, version);
        taken.map_err(|e| VcsError::broken(format!("what the go command made of {version} cannot be read: {e}")))
    }
}

fn take(zip: &Path, go_mod: &Path) -> std::io::Result<(std::fs::File, Bytes, u64)> {
    let file = std::fs::File::open(zip)?;
    let length = file.metadata()?.len();
    if length > MAX_ZIP {
        return Err(std::io::Error::other("larger than a module may be"));
    }
    let mut text = Vec::new();
    std::fs::File::open(go_mod)?.take(MAX_GO_MOD + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MAX_GO_MOD {
        return Err(std::io::Error::other("a go.mod larger than a module may have"));
    }
    Ok((file, text.into(), length))
}

/// Takes away what the go command keeps of a version, zip and unpacked files.
fn forget(modules: &Path, printed: &Printed, version: &ModuleVersion) {
    let folder = modules.join(format!("{}@{}", version.module.escaped(), version.version.escaped()));
    let _ = std::fs::remove_dir_all(folder);
    for file in [&printed.zip, &printed.go_mod] {
        let known = file.file_stem().is_some_and(|stem| stem.to_string_lossy() == version.version.escaped());
        if known && file.starts_with(modules) {
            for end in ["zip", "ziphash", "mod", "info", "lock"] {
                let _ = std::fs::remove_file(file.with_extension(end));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outages_are_told_from_what_is_not_there() {
        type Right = fn(&VcsError) -> bool;
        let (broken, denied, missing): (Right, Right, Right) =
            (|e| matches!(e, VcsError::Broken { .. }), |e| matches!(e, VcsError::Denied(_)), VcsError::is_not_found);
        let page = "unrecognized import path \"x.test/a\": ";
        let rows: [(String, Right); 8] = [
            (format!("{page}https fetch: Get \"https://x.test/a?go-get=1\": dial tcp: lookup x.test: no such host"), broken),
            (
                format!(
                    "{page}https fetch: Get \"https://x.test/a?go-get=1\": dial tcp 192.0.2.1:40404: connect: no route to host"
                ),
                broken,
            ),
            (format!("{page}reading https://x.test/a?go-get=1: 500 Internal Server Error"), broken),
            (format!("{page}reading https://x.test/a?go-get=1: 404 Not Found"), missing),
            (format!("{page}parse https://x.test/a?go-get=1: no go-import meta tags ()"), missing),
            ("x.test/timeout@v0.0.0-20240401123456-403401404abc: invalid version: unknown revision 403401404abc".into(), missing),
            ("hg identify: abort: error: _ssl.c: certificate verify failed".into(), broken),
            ("svn: E170001: Authorization failed".into(), denied),
        ];
        for (line, right) in rows {
            let meaning = meaning(line);
            assert!(right(&meaning), "{meaning:?}");
        }
    }
}
