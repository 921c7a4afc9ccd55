//! Proxies as Debian has them: squid, tinyproxy and dante, each a child of the test that started it, with a folder of its own.
//!
//! What a proxy wrote into its log is the proof that a request went through it.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::{Write, stderr};
use std::net::{IpAddr, TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::geteuid;
use tempfile::TempDir;

use crate::helpers::{output_of, program};
use crate::support::eventually;

/// A user of a proxy. The password holds what a URL or a header could get wrong.
pub(crate) const USER: &str = "gate";
pub(crate) const PASSWORD: &str = "Pa:ss w%2Frd@7f3a";

/// A command that is run as root: as it is where the tests are, else by sudo, which must not ask.
pub(crate) fn as_root(program: impl AsRef<OsStr>) -> Command {
    if geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.arg("-n").arg(program);
    command
}

/// A port of this address that is free at this moment.
fn free_port_of(ip: IpAddr) -> u16 {
    TcpListener::bind((ip, 0)).unwrap().local_addr().unwrap().port()
}

/// A server in the foreground, stopped with its children when it goes out of scope.
pub(crate) struct Daemon {
    /// Where it listens.
    pub(crate) address: String,
    pub(crate) dir: TempDir,
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts a server and waits until it listens. What it prints goes to the file `said` in its folder; `log` names the file
    /// there that it logs to.
    pub(crate) fn start(mut command: Command, dir: TempDir, address: &str, log: &str) -> Self {
        let said = File::create(dir.path().join("said")).unwrap();
        // A group of its own, so that nothing of a server of many processes is left behind.
        command.process_group(0).stdin(Stdio::null()).stdout(said.try_clone().unwrap()).stderr(said);
        let child = command.spawn().unwrap_or_else(|e| panic!("{command:?} cannot be started: {e}"));
        let log = dir.path().join(log);
        let mut daemon = Self { address: address.to_owned(), dir, child, log };
        let deadline = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect(address).is_err() {
            let ended = daemon.child.try_wait().unwrap();
            assert!(ended.is_none(), "{command:?} ended before it listened:\n{}{}", daemon.said(), daemon.log());
            assert!(Instant::now() < deadline, "{command:?} does not listen:\n{}{}", daemon.said(), daemon.log());
            thread::sleep(Duration::from_millis(20));
        }
        daemon
    }

    /// What it printed.
    pub(crate) fn said(&self) -> String {
        read(&self.dir.path().join("said"))
    }

    /// What it logged so far.
    pub(crate) fn log(&self) -> String {
        read(&self.log)
    }

    /// Waits until its log holds this: it is written after the answer.
    pub(crate) fn logs(&self, text: &str) {
        eventually(&format!("the proxy logs {text:?}; it logged: {}", self.log()), || self.log().contains(text));
    }

    pub(crate) fn url(&self, scheme: &str) -> String {
        format!("{scheme}://{}", self.address)
    }

    /// After a test that has failed, its reader wants to know what the server said.
    fn complain(&self) {
        if thread::panicking() {
            let _ = writeln!(stderr(), "--- {}, what it said\n{}--- its log\n{}", self.address, self.said(), self.log());
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.complain();
        // Asked to end, it ends its children and gives shared memory back; after a while it is not asked any more.
        let pid = self.child.id();
        for (signal, target, wait) in [("TERM", format!("{pid}"), 10), ("KILL", format!("-{pid}"), 5)] {
            let _ = as_root("sh").args(["-c", &format!("kill -s {signal} -- {target}")]).stderr(Stdio::null()).status();
            let deadline = Instant::now() + Duration::from_secs(wait);
            while Instant::now() < deadline {
                if matches!(self.child.try_wait(), Ok(Some(_))) {
                    return;
                }
                thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

fn read(file: &Path) -> String {
    String::from_utf8_lossy(&fs::read(file).unwrap_or_default()).into_owned()
}

/// A new folder that a server which gives up its rights can write to.
fn open_folder() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o777)).unwrap();
    dir
}

/// A squid on this address that does what these rules say (`{dir}` stands for its folder). It keeps nothing. Its log has a
/// line a request: user, method, URL, status.
pub(crate) fn squid(ip: &str, rules: &str) -> Daemon {
    squid_in(open_folder(), ip, rules)
}

fn squid_in(dir: TempDir, ip: &str, rules: &str) -> Daemon {
    let folder = dir.path().display().to_string();
    let address = format!("{ip}:{}", free_port_of(ip.parse().unwrap()));
    let rules = rules.replace("{dir}", &folder);
    // As many files as the machine allows may be a thousand million, for each of which squid sets memory aside.
    let text = format!(
        "http_port {address}\npid_filename {folder}/pid\ncoredump_dir {folder}\nshutdown_lifetime 0 seconds\ncache_log {folder}/cache.log\n\
         logformat asked %un %rm %ru %>Hs\naccess_log stdio:{folder}/asked asked\n\
         cache deny all\npinger_enable off\nnetdb_filename none\nmax_filedescriptors 1024\nvisible_hostname squid.test\n{rules}\n"
    );
    fs::write(dir.path().join("squid.conf"), text).unwrap();
    let mut command = Command::new(program("squid"));
    // Squids of one name would share memory.
    command.args(["-N", "-d", "1", "-n", &format!("s{}x{}", std::process::id(), address.rsplit(':').next().unwrap())]);
    command.arg("-f").arg(dir.path().join("squid.conf"));
    Daemon::start(command, dir, &address, "asked")
}

/// A squid that wants [`USER`] and [`PASSWORD`].
pub(crate) fn squid_with_login(ip: &str) -> Daemon {
    squid_with_password(ip, PASSWORD)
}

/// A squid that wants [`USER`] and this password.
pub(crate) fn squid_with_password(ip: &str, password: &str) -> Daemon {
    let helper = ["/usr/lib/squid", "/usr/lib64/squid", "/usr/libexec/squid"].map(|dir| Path::new(dir).join("basic_ncsa_auth"));
    let helper = helper.iter().find(|file| file.is_file()).expect("squid's basic_ncsa_auth is not installed");
    let dir = open_folder();
    fs::write(dir.path().join("users"), format!("{USER}:{}\n", hash("-apr1", password))).unwrap();
    let rules = format!(
        "auth_param basic program {} {{dir}}/users\nauth_param basic realm test\nauth_param basic children 1 startup=1\n\
         acl known proxy_auth REQUIRED\nhttp_access allow known\nhttp_access deny all",
        helper.display()
    );
    squid_in(dir, ip, &rules)
}

/// A password as files of users have it.
fn hash(kind: &str, password: &str) -> String {
    let mut openssl = Command::new(program("openssl"));
    openssl.args(["passwd", kind, "-stdin"]);
    output_of(openssl, password.as_bytes()).trim().to_owned()
}

/// A tinyproxy on loopback with more lines of configuration. It logs each request.
pub(crate) fn tinyproxy(more: &str) -> Daemon {
    let dir = open_folder();
    let folder = dir.path().display().to_string();
    let port = free_port_of([127, 0, 0, 1].into());
    let more = more.replace("{dir}", &folder);
    let text = format!(
        "Listen 127.0.0.1\nPort {port}\nTimeout 60\nMaxClients 50\nLogFile \"{folder}/asked\"\nLogLevel Connect\n\
         ViaProxyName \"tinyproxy.test\"\n{more}\n"
    );
    fs::write(dir.path().join("tinyproxy.conf"), text).unwrap();
    let mut command = Command::new(program("tinyproxy"));
    command.arg("-d").arg("-c").arg(dir.path().join("tinyproxy.conf"));
    Daemon::start(command, dir, &format!("127.0.0.1:{port}"), "asked")
}

/// A dante on this address that leads on to what `host` names. It logs each connection; addresses have a dot before the port.
pub(crate) fn dante(ip: &str, host: &str, login: bool) -> Daemon {
    let dir = open_folder();
    let folder = dir.path().display().to_string();
    let port = free_port_of(ip.parse().unwrap());
    let method = if login { "username" } else { "none" };
    let text = format!(
        "logoutput: {folder}/asked\ninternal: {ip} port = {port}\nexternal: {}\n\
         clientmethod: none\nsocksmethod: {method}\nuser.privileged: root\nuser.unprivileged: nobody\n\
         client pass {{ from: 0.0.0.0/0 to: 0.0.0.0/0 }}\n\
         socks pass {{ from: 0.0.0.0/0 to: 0.0.0.0/0 log: connect error }}\n",
        source_address(host)
    );
    fs::write(dir.path().join("danted.conf"), text).unwrap();
    let run = format!("exec {} -f {folder}/danted.conf -p {folder}/pid", program("danted").display());
    let mut command = as_root("unshare");
    if login {
        // Its users are those of the system. So that the machine gets no new user, dante alone sees other files of users.
        fs::write(dir.path().join("passwd"), read(Path::new("/etc/passwd")) + &format!("{USER}:x:65533:65534::/:/bin/false\n"))
            .unwrap();
        fs::write(dir.path().join("shadow"), format!("{USER}:{}:19000:0:99999:7:::\n", hash("-6", PASSWORD))).unwrap();
        let mounts = ["passwd", "shadow"].map(|file| format!("mount --bind {folder}/{file} /etc/{file} && ")).concat();
        command.args(["--mount", "sh", "-c", &format!("{mounts}{run}")]);
    } else {
        command.args(["--mount", "sh", "-c", &run]);
    }
    Daemon::start(command, dir, &format!("{ip}:{port}"), "asked")
}

/// The address of this machine from which this host is reached.
fn source_address(host: &str) -> IpAddr {
    let to = (host, 443).to_socket_addrs().unwrap_or_else(|e| panic!("{host} cannot be looked up: {e}"));
    let to = to.into_iter().find(|a| a.ip().is_ipv4()).unwrap_or_else(|| panic!("{host} has no IPv4 address"));
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    // Sends nothing; it only finds the route.
    socket.connect(to).unwrap();
    socket.local_addr().unwrap().ip()
}
