//! What these tests share: programs that end with the test that started them, and waits that have a limit.

use std::fs::{self, File};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::go::Go;

/// The longest that a command may take, downloads and compiling on a busy machine included.
pub(crate) const LIMIT: Duration = Duration::from_secs(240);

/// Another program, stopped when it goes out of scope.
pub(crate) struct Program {
    child: Child,
    log: PathBuf,
}

impl Program {
    /// Starts a program that writes its errors to a file.
    pub(crate) fn start(mut command: Command, log: &Path) -> Self {
        let name = command.get_program().to_owned();
        let file = File::create(log).unwrap();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file).spawn();
        let child = child.unwrap_or_else(|e| panic!("{} cannot be started: {e}", name.display()));
        Self { child, log: log.to_owned() }
    }

    /// Waits until it listens on a port of loopback.
    pub(crate) fn listens(&mut self, address: &str) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(address).is_err() {
            assert!(self.child.try_wait().unwrap().is_none(), "the program ended before it listened:\n{}", self.log());
            assert!(Instant::now() < deadline, "the program does not listen:\n{}", self.log());
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// What it wrote, when it has written nothing for half a second.
    pub(crate) fn log_at_rest(&self) -> String {
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut log = self.log();
        loop {
            thread::sleep(Duration::from_millis(500));
            let later = self.log();
            if later == log {
                return log;
            }
            assert!(Instant::now() < deadline, "it does not stop writing:\n{later}");
            log = later;
        }
    }

    /// What it wrote so far.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a command to its end, with this on its standard input; what it printed. It has to succeed.
pub(crate) fn output_of(mut command: Command, input: &[u8]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let [stdin, stdout, stderr] = ["in", "out", "err"].map(|name| dir.path().join(name));
    fs::write(&stdin, input).unwrap();
    command.stdin(File::open(&stdin).unwrap()).stdout(File::create(&stdout).unwrap()).stderr(File::create(&stderr).unwrap());
    let mut child = command.spawn().unwrap_or_else(|e| panic!("{command:?} cannot be started: {e}"));
    let deadline = Instant::now() + LIMIT;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            panic!("{command:?} took longer than {LIMIT:?}");
        }
        thread::sleep(Duration::from_millis(20));
    };
    let read = |path| String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned();
    assert!(status.success(), "{command:?}: {status}\n{}{}", read(&stdout), read(&stderr));
    read(&stdout)
}

/// Runs the go command in a clean room, which has to succeed; what it printed.
pub(crate) fn go_ok(go: &Arc<Go>, arguments: &[&str]) -> String {
    limited(go, arguments, Go::ok)
}

/// Runs the go command in a clean room, which has to fail; what it complained of.
pub(crate) fn go_fails(go: &Arc<Go>, arguments: &[&str]) -> String {
    limited(go, arguments, Go::fails)
}

/// Runs the go command in a clean room, whether it succeeds or not; what it printed, which has to be something.
pub(crate) fn go_prints(go: &Arc<Go>, arguments: &[&str]) -> String {
    limited(go, arguments, |go, arguments| {
        let output = go.run(arguments);
        assert!(!output.stdout.is_empty(), "go {}: {}", arguments[..3].join(" "), String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    })
}

/// Runs the go command in a clean room, which has to succeed; what it said beside what it printed.
pub(crate) fn go_says(go: &Arc<Go>, arguments: &[&str]) -> String {
    limited(go, arguments, |go, arguments| {
        let output = go.run(arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "go {arguments:?}: {said}");
        said
    })
}

/// A clean room has no limit of its own, so it is waited for from outside.
fn limited(go: &Arc<Go>, arguments: &[&str], run: fn(&Go, &[&str]) -> String) -> String {
    let (done, result) = mpsc::channel();
    let (own, words) = (Arc::clone(go), arguments.iter().map(|&a| a.to_owned()).collect::<Vec<String>>());
    let runner = thread::spawn(move || {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        // Whoever waited may have given up.
        let _ = done.send(run(&own, &words));
    });
    match result.recv_timeout(LIMIT) {
        Ok(printed) => printed,
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("go {arguments:?} took longer than {LIMIT:?}"),
        Err(mpsc::RecvTimeoutError::Disconnected) => std::panic::resume_unwind(runner.join().unwrap_err()),
    }
}

/// A setting of this machine's go command.
pub(crate) fn go_env(name: &str) -> String {
    let mut command = Command::new("go");
    command.args(["env", name]);
    output_of(command, b"").trim().to_owned()
}

/// The machine's own Go module proxy.
pub(crate) fn public_proxy() -> String {
    let list = go_env("GOPROXY");
    let first = list.split([',', '|']).next().unwrap_or_default();
    assert!(first.starts_with("http"), "GOPROXY of this machine names no server first: {list}");
    first.trim_end_matches('/').to_owned()
}

/// The first program of this name in PATH, or where the system's servers are installed.
pub(crate) fn program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from));
    let found = dirs.map(|dir| dir.join(name)).find(|file| file.is_file());
    found.unwrap_or_else(|| panic!("{name} is not installed; tests/run installs it"))
}

/// All files below a folder, by their path below it, in order.
pub(crate) fn files_below(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push(path.strip_prefix(root).unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

/// Copies a folder with all that lies below it.
pub(crate) fn copy_tree(from: &Path, to: &Path) {
    for file in files_below(from) {
        let target = to.join(&file);
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::write(target, fs::read(from.join(&file)).unwrap()).unwrap();
    }
}

/// Makes the same numbers each time (xorshift).
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % bound.max(1)
    }

    pub(crate) fn of<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())]
    }
}
