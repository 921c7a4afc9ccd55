//! What repositories are served by besides http: sshd, git's own daemon, and servers that keep silent.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use tempfile::TempDir;

use crate::daemons::Daemon;
use crate::helpers::{output_of, program};
use crate::support::free_port;
use crate::support::git::Change::File;
use crate::support::git::{Script, git, git_ok};

/// A repository with a version and a commit after it.
pub(super) fn repository(folder: &Path) {
    Script::new()
        .commit("main", &[("go.mod", File("module git.example/m\n")), ("m.go", File("package m\n"))])
        .tag("main", &["v1.0.0"])
        .commit("main", &[("a", File("a"))])
        .build(folder);
}

/// A folder with a repository, and an sshd that leads to it.
pub(super) fn behind_ssh() -> (TempDir, Sshd) {
    let root = TempDir::new().unwrap();
    repository(&root.path().join("m.git"));
    (root, Sshd::start())
}

/// An upstream of one rule, `git.example/NAME`, with more lines, and the route to it.
pub(super) fn upstream(repo: &str, more: &str) -> String {
    format!(
        "[log]\nlevel = \"trace\"\n\n[upstreams.git]\ntype = \"vcs\"\nprivate = true\nretries = 0\n\
         repositories = [{{ match = \"git.example/{{name}}\", repo = {repo:?} }}]\n{more}\n\n\
         [[routes]]\nmatch = [\"*\"]\nupstreams = [\"git\"]\n"
    )
}

/// An sshd on loopback with host keys of its own, which lets in whoever runs the test, by keys of its own.
pub(super) struct Sshd {
    pub(super) daemon: Daemon,
    user: String,
}

impl Sshd {
    pub(super) fn start() -> Self {
        let dir = TempDir::new().unwrap();
        let folder = dir.path().display().to_string();
        for name in ["host", "other_host", "key", "stuck_key", "locked_key", "unknown_key"] {
            let secret = if name == "locked_key" { "a passphrase" } else { "" };
            let mut keygen = Command::new(program("ssh-keygen"));
            keygen.args(["-q", "-t", "ed25519", "-N", secret, "-C", name, "-f", &format!("{folder}/{name}")]);
            output_of(keygen, b"");
        }
        let public = |name: &str| fs::read_to_string(dir.path().join(format!("{name}.pub"))).unwrap();
        // Whoever shows this key is let in, and hears nothing any more.
        let stuck = format!("command=\"exec sleep 600\" {}", public("stuck_key"));
        fs::write(dir.path().join("authorized"), public("key") + &stuck + &public("locked_key")).unwrap();
        let mut whoami = Command::new("id");
        whoami.arg("-un");
        let user = output_of(whoami, b"").trim().to_owned();
        if user == "root" {
            // Where sshd is not started by the system, the folder that its unprivileged part sees is not there.
            fs::create_dir_all("/run/sshd").unwrap();
        }
        let port = free_port();
        let text = format!(
            "ListenAddress 127.0.0.1:{port}\nHostKey {folder}/host\nPidFile none\nAuthorizedKeysFile {folder}/authorized\n\
             StrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin yes\n\
             LogLevel VERBOSE\nMaxStartups 100\n"
        );
        fs::write(dir.path().join("sshd_config"), text).unwrap();
        let host = public("host");
        fs::write(dir.path().join("known"), format!("[127.0.0.1]:{port} {host}")).unwrap();
        fs::write(dir.path().join("changed"), format!("[127.0.0.1]:{port} {}", public("other_host"))).unwrap();
        fs::write(dir.path().join("empty"), "").unwrap();
        // It starts itself anew for each connection, by the whole path that it was started by.
        let mut command = Command::new(program("sshd"));
        command.args(["-D", "-e", "-f"]).arg(dir.path().join("sshd_config"));
        Self { daemon: Daemon::start(command, dir, &format!("127.0.0.1:{port}"), "said"), user }
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.daemon.dir.path().join(name)
    }

    /// The URL of repositories below a folder, by a rule's name for them.
    pub(super) fn repo(&self, root: &Path) -> String {
        self.repo_at(&self.daemon.address, root)
    }

    /// The same by another address.
    pub(super) fn repo_at(&self, address: &str, root: &Path) -> String {
        format!("ssh://{}@{address}{}/{{name}}.git", self.user, root.display())
    }

    /// Credentials for the server: by which key, and by which list of host keys.
    pub(super) fn credentials(&self, key: &str, known: &str) -> String {
        self.credentials_at(&self.daemon.address, key, known)
    }

    /// The same by another address.
    pub(super) fn credentials_at(&self, address: &str, key: &str, known: &str) -> String {
        let [key, known] = [key, known].map(|name| self.file(name).display().to_string());
        format!("credentials = {{ {address:?} = {{ ssh_key_file = {key:?}, known_hosts_file = {known:?} }} }}")
    }

    /// The lines of a private key, none of which anybody else should see.
    pub(super) fn secrets(&self, key: &str) -> Vec<String> {
        fs::read_to_string(self.file(key)).unwrap().lines().filter(|l| !l.starts_with("---")).map(str::to_owned).collect()
    }

    /// How many connections it has let in by a key.
    pub(super) fn sessions(&self) -> usize {
        self.daemon.log().matches("Accepted publickey").count()
    }
}

/// A server that accepts and says nothing; its address.
pub(super) fn silent() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || listener.incoming().collect::<Vec<_>>());
    address
}

/// git's own daemon, for all repositories below a folder.
pub(super) fn git_daemon(root: &Path) -> Daemon {
    let address = format!("127.0.0.1:{}", free_port());
    let port = address.rsplit(':').next().unwrap();
    let mut command = git(root);
    command.args(["daemon", "--listen=127.0.0.1", &format!("--port={port}"), "--export-all", "--reuseaddr", "--verbose"]);
    command.arg(format!("--base-path={}", root.display())).stdin(Stdio::null());
    Daemon::start(command, TempDir::new().unwrap(), &address, "said")
}

/// The hash of a repository's branch.
pub(super) fn tip(folder: &Path) -> String {
    git_ok(folder, &["rev-parse", "main"])
}
