//! The servers: how each is started, and that none outlives its measurement.
//!
//! Each runs in a process group and a temporary folder of its own, knows nothing of its caller's environment but `PATH`, and
//! keeps lists for a minute, as far as it can be told.

use std::ffi::OsString;
use std::fs::{self, File};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, geteuid, kill_process_group};
use tempfile::TempDir;

use crate::{Result, stopped};

/// How long a server may take until it listens.
const START: Duration = Duration::from_secs(20);
/// How long it may take to end when asked to.
const END: Duration = Duration::from_secs(5);

/// A server that can be started.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    /// Its name in the tables.
    pub(crate) name: &'static str,
    kind: Kind,
    program: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Modgate,
    Nginx,
    Athens,
    Goproxy,
    Goproxyio,
}

/// Where a server gets modules.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Source<'t> {
    /// From the module proxy at this address.
    Proxy(&'t str),
    /// From the git repositories at this URL, where it looks for those of [`GIT_HOST`].
    Git(&'t str),
}

/// What stands before a repository's name in the paths of modules from git. Everybody knows, without a page, where its
/// repositories are.
pub(crate) const GIT_HOST: &str = "github.com/bench";

/// How long modgate may take a list out of git for fresh.
const LISTS_FRESH: &str = "1s";

/// The variables that name further peers' programs.
const VARIABLES: [(&str, &str, Kind); 4] = [
    ("COMPARE_MODGATE", "modgate (other)", Kind::Modgate),
    ("COMPARE_GOPROXY", "goproxy", Kind::Goproxy),
    ("COMPARE_GOPROXYIO", "goproxyio", Kind::Goproxyio),
    ("COMPARE_ATHENS", "athens", Kind::Athens),
];

/// The name of the peer that all are compared with.
pub(crate) const REFERENCE: &str = "nginx";
/// The name of the modgate that was built for this benchmark.
pub(crate) const OWN: &str = "modgate";

/// nginx and this modgate, then the peers whose programs the environment names.
pub(crate) fn peers() -> Result<Vec<Peer>> {
    let nginx = find("nginx", "nginx-light")?;
    let mut peers = vec![
        Peer { name: REFERENCE, kind: Kind::Nginx, program: nginx },
        Peer { name: OWN, kind: Kind::Modgate, program: env!("CARGO_BIN_EXE_modgate").into() },
    ];
    for (variable, name, kind) in VARIABLES {
        let Some(program) = std::env::var_os(variable).filter(|v| !v.is_empty()) else { continue };
        let program = PathBuf::from(program);
        if !program.is_file() {
            return Err(format!("{variable}: there is no program {}", program.display()).into());
        }
        if kind == Kind::Athens {
            find("go", "golang-go")?;
        }
        peers.push(Peer { name, kind, program });
    }
    Ok(peers)
}

/// The path of a program of the system, or the package of Debian that has it.
pub(crate) fn find(program: &str, package: &str) -> Result<PathBuf> {
    // Debian's nginx lies where only root's PATH leads.
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    let found = folders.find_map(|folder| Some(folder.join(program)).filter(|p| p.is_file()));
    found.ok_or_else(|| format!("{program} is needed: apt-get install {package}").into())
}

impl Peer {
    /// Whether it makes modules from git.
    pub(crate) fn knows_git(&self) -> bool {
        matches!(self.kind, Kind::Modgate | Kind::Athens | Kind::Goproxy)
    }

    /// Starts it with an empty folder and waits until it listens.
    pub(crate) fn start(&self, source: Source<'_>) -> Result<Server> {
        let dir = tempfile::Builder::new().prefix("modgate-compare-").tempdir()?;
        for folder in ["store", "tmp", "home"] {
            fs::create_dir(dir.path().join(folder))?;
        }
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let log = File::create(dir.path().join("log"))?;
        let mut command = self.command(dir.path(), &address, source)?;
        let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0).spawn();
        let child = child.map_err(|e| format!("{}: {e}", self.program.display()))?;
        let mut server = Server { address, child, dir };
        let deadline = Instant::now() + START;
        while TcpStream::connect(&server.address).is_err() {
            if stopped() {
                return Err("stopped".into());
            }
            if Instant::now() > deadline || server.child.try_wait()?.is_some() {
                return Err(format!("{} does not listen:\n{}", self.name, server.log()).into());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
    }

    fn command(&self, dir: &Path, address: &str, source: Source<'_>) -> Result<Command> {
        let store = dir.join("store");
        // What the go command takes for GOPROXY.
        let proxy = match source {
            Source::Proxy(address) => format!("http://{address}"),
            Source::Git(url) => {
                let instead = format!("[url \"{url}/\"]\n\tinsteadOf = https://{GIT_HOST}/\n");
                fs::write(dir.join("home").join(".gitconfig"), instead)?;
                "direct".into()
            }
        };
        let mut command = Command::new(&self.program);
        command.env_clear().current_dir(dir).env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", dir.join("home")).env("TMPDIR", dir.join("tmp")).env("GOTOOLCHAIN", "local").env("GOSUMDB", "off");
        command.env("GIT_CONFIG_NOSYSTEM", "1");
        match self.kind {
            Kind::Modgate => {
                let file = dir.join("modgate.toml");
                fs::write(&file, modgate_config(&store, address, source))?;
                command.arg("--config").arg(file);
            }
            Kind::Nginx => {
                let Source::Proxy(upstream) = source else { return Err("nginx does not know git".into()) };
                let file = dir.join("nginx.conf");
                fs::write(&file, nginx_config(dir, address, upstream))?;
                command.arg("-p").arg(dir).arg("-c").arg(file).args(["-e", "stderr", "-g", "daemon off;"]);
            }
            Kind::Goproxy => {
                command.env("GOPROXY", proxy).args(["server", "--address", address, "--cacher", "dir", "--cacher-dir"]);
                command.arg(store).arg("--temp-dir").arg(dir.join("tmp"));
            }
            Kind::Goproxyio => {
                command.args(["-listen", address, "-cacheExpire", "60s", "-proxy", &proxy, "-cacheDir"]).arg(store);
            }
            Kind::Athens => {
                let go = format!("GOPROXY={proxy};GOSUMDB=off;GOFLAGS=-modcacherw;GOTOOLCHAIN=local;GIT_CONFIG_NOSYSTEM=1");
                let settings: [(&str, OsString); 9] = [
                    ("GO_ENV", "production".into()),
                    ("ATHENS_PORT", address.into()),
                    ("ATHENS_LOG_LEVEL", "panic".into()),
                    ("ATHENS_CLOUD_RUNTIME", "none".into()),
                    ("ATHENS_STORAGE_TYPE", "disk".into()),
                    ("ATHENS_DISK_STORAGE_ROOT", store.into()),
                    ("ATHENS_GO_BINARY_ENV_VARS", go.into()),
                    ("ATHENS_DOWNLOAD_MODE", "sync".into()),
                    ("ATHENS_NETWORK_MODE", "strict".into()),
                ];
                command.envs(settings);
            }
        }
        Ok(command)
    }
}

/// One upstream and one route for all; no request lines, as nginx writes none either. Lists out of git are asked for anew soon,
/// since that is measured.
fn modgate_config(store: &Path, address: &str, source: Source<'_>) -> String {
    let (upstream, list_ttl) = match source {
        Source::Proxy(address) => (format!("type = \"goproxy\"\nurl = \"http://{address}\""), "1m"),
        Source::Git(url) => {
            let rule = format!("{{ match = \"{GIT_HOST}/{{name}}\", repo = \"{url}/{{name}}\" }}");
            (format!("type = \"vcs\"\nrepositories = [{rule}]"), LISTS_FRESH)
        }
    };
    format!(
        r#"[server]
listen = "{address}"
[admin]
listen = ""
[cache]
dir = "{}"
max_size = "100GB"
list_ttl = "{list_ttl}"
[sumdb]
databases = []
[log]
level = "error"
[upstreams.bench]
{upstream}
[[routes]]
match = ["*"]
upstreams = ["bench"]
"#,
        store.display()
    )
}

/// nginx as one would set it up for this: a reverse proxy that keeps everything, with sendfile, open files, one fetch for
/// any number of askers, and connections to the upstream that stay open.
///
/// `tcp_nopush` is off on purpose: together with `proxy_cache` it holds back the ends of small zips on connections that stay
/// open, by 40 ms each.
fn nginx_config(dir: &Path, address: &str, upstream: &str) -> String {
    let dir = dir.display();
    // Without this, root's nginx would serve as a user who may not read the temporary folder.
    let user = if geteuid().is_root() { "user root;" } else { "" };
    let temporary: String =
        ["proxy", "client_body", "fastcgi", "uwsgi", "scgi"].map(|of| format!("  {of}_temp_path {dir}/tmp/{of};\n")).concat();
    format!(
        "{user}
pid {dir}/nginx.pid;
error_log stderr crit;
worker_processes auto;
worker_rlimit_nofile 16384;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  default_type application/octet-stream;
  sendfile on;
  tcp_nopush off;
  keepalive_timeout 120s;
  keepalive_requests 100000000;
  open_file_cache max=16384 inactive=120s;
  open_file_cache_valid 60s;
{temporary}
  upstream modules {{ server {upstream}; keepalive 32; }}
  proxy_http_version 1.1;
  proxy_set_header Connection \"\";
  proxy_cache_path {dir}/store levels=1:2 keys_zone=modules:16m max_size=100g inactive=30d use_temp_path=off;
  proxy_cache modules;
  proxy_cache_key $uri;
  proxy_cache_lock on;
  proxy_cache_lock_timeout 120s;
  proxy_cache_lock_age 120s;
  proxy_cache_use_stale updating error timeout http_500 http_502 http_503 http_504;
  proxy_cache_background_update on;
  server {{
    listen {address} backlog=4096;
    location / {{ proxy_pass http://modules; proxy_cache_valid 200 30d; }}
    location ~ (/@v/list|/@latest)$ {{ proxy_pass http://modules; proxy_cache_valid 200 1m; }}
  }}
}}
"
    )
}

/// A running server. Its group is killed, and its folder removed, when it goes out of scope.
pub(crate) struct Server {
    /// Where it listens.
    pub(crate) address: String,
    child: Child,
    dir: TempDir,
}

impl Server {
    /// The first of its processes.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote, or the end of it.
    pub(crate) fn log(&self) -> String {
        let text = fs::read(self.dir.path().join("log")).unwrap_or_default();
        String::from_utf8_lossy(&text[text.len().saturating_sub(2000)..]).into_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// Ends a child that leads a process group, and all of the group: first kindly.
pub(crate) fn end(child: &mut Child) {
    let group = Pid::from_child(child);
    if matches!(child.try_wait(), Ok(None)) {
        let _ = kill_process_group(group, Signal::TERM);
        let deadline = Instant::now() + END;
        while matches!(child.try_wait(), Ok(None)) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(10));
        }
    }
    // Whoever of the group is left; where nobody is, nothing happens.
    let _ = kill_process_group(group, Signal::KILL);
    let _ = child.wait();
}
