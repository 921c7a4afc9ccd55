//! Git repositories made on the spot, and a server that hands them out as real ones do: the installed git's own, behind a small
//! front on loopback that counts what it is asked and can fail for chosen repositories.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

/// Where git is: a program that is looked up while it starts costs a copy of the memory of whoever starts it.
static GIT: LazyLock<PathBuf> = LazyLock::new(|| {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|folder| folder.join("git")).find(|file| file.is_file()).unwrap_or_else(|| "git".into())
});

/// A git command in a clean environment: no configuration but the repository's own, nobody to ask, and one fixed date.
pub fn git(dir: &Path) -> Command {
    let mut command = Command::new(&*GIT);
    command.env_clear().current_dir(dir).stdin(Stdio::null());
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", dir).env("LC_ALL", "C");
    command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_TERMINAL_PROMPT", "0");
    for who in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{who}_NAME"), "Somebody").env(format!("GIT_{who}_EMAIL"), "somebody@example.com");
        command.env(format!("GIT_{who}_DATE"), format!("{FIRST} +0000"));
    }
    command
}

/// Runs a git command, which has to succeed; what it printed.
pub fn git_ok(dir: &Path, arguments: &[&str]) -> String {
    let Output { status, stdout, stderr } = git(dir).args(arguments).output().unwrap();
    assert!(status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&stderr));
    String::from_utf8_lossy(&stdout).trim_end().to_owned()
}

/// The time of a repository's first commit; each further one is a minute later.
const FIRST: u64 = 1_600_000_000;

/// What a commit does to one path.
#[derive(Debug, Clone, Copy)]
pub enum Change<'a> {
    File(&'a str),
    Bytes(&'a [u8]),
    /// A file of so many bytes that begins like this.
    Large(&'a str, usize),
    Link(&'a str),
    /// Another repository's commit.
    Submodule(&'a str),
    /// The path and all below it are there no longer.
    Gone,
}

/// A repository as it is written down: commits on branches, and tags. Whatever a tree can hold can be said here, names too that
/// no file system takes.
pub struct Script {
    stream: Vec<u8>,
    commits: u64,
    tips: BTreeMap<String, u64>,
    after: Vec<Vec<String>>,
    format: &'static str,
    empty_head: Option<String>,
}

impl Default for Script {
    fn default() -> Self {
        Self::new()
    }
}

impl Script {
    pub fn new() -> Self {
        Self { stream: Vec::new(), commits: 0, tips: BTreeMap::new(), after: Vec::new(), format: "sha1", empty_head: None }
    }

    /// With the longer hashes.
    pub fn sha256() -> Self {
        Self { format: "sha256", ..Self::new() }
    }

    /// A further commit on a branch, or the first one, which has no parent.
    #[must_use]
    pub fn commit(mut self, branch: &str, changes: &[(&str, Change<'_>)]) -> Self {
        let parent = self.tips.get(branch).copied();
        self.add(branch, parent, None, changes);
        self
    }

    /// The first commit of a branch, made on top of another branch.
    #[must_use]
    pub fn fork(mut self, branch: &str, from: &str, changes: &[(&str, Change<'_>)]) -> Self {
        self.add(branch, Some(self.tips[from]), None, changes);
        self
    }

    /// A commit on a branch that brings in another one.
    #[must_use]
    pub fn merge(mut self, branch: &str, other: &str, changes: &[(&str, Change<'_>)]) -> Self {
        self.add(branch, Some(self.tips[branch]), Some(self.tips[other]), changes);
        self
    }

    /// Author and committer differ in time and zone, as only the committer's time counts, and that in UTC.
    fn add(&mut self, branch: &str, parent: Option<u64>, other: Option<u64>, changes: &[(&str, Change<'_>)]) {
        let time = FIRST + 60 * self.commits;
        self.commits += 1;
        let mark = self.commits;
        let reference = reference(branch);
        // Without this, a commit without a parent would go on top of a branch of that name.
        self.say(&format!("reset {reference}\n\ncommit {reference}\nmark :{mark}\n"));
        self.say(&format!("author Somebody <somebody@example.com> {} -0700\n", time - 86_400));
        self.say(&format!("committer Somebody Else <else@example.com> {time} +0200\n"));
        self.data(format!("commit {mark}").as_bytes());
        for (word, parent) in [("from", parent), ("merge", other)] {
            if let Some(parent) = parent {
                self.say(&format!("{word} :{parent}\n"));
            }
        }
        for (path, change) in changes {
            self.change(path, *change);
        }
        self.tips.insert(branch.to_owned(), mark);
    }

    fn change(&mut self, path: &str, change: Change<'_>) {
        let path = quoted(path);
        match change {
            Change::Gone => return self.say(&format!("D {path}\n")),
            Change::Submodule(hash) => return self.say(&format!("M 160000 {hash} {path}\n")),
            Change::Link(_) => self.say(&format!("M 120000 inline {path}\n")),
            Change::File(_) | Change::Bytes(_) | Change::Large(..) => self.say(&format!("M 100644 inline {path}\n")),
        }
        match change {
            Change::File(text) | Change::Link(text) => self.data(text.as_bytes()),
            Change::Bytes(bytes) => self.data(bytes),
            Change::Large(text, length) => {
                let mut bytes = text.as_bytes().to_vec();
                bytes.resize(length, b'x');
                self.data(&bytes);
            }
            Change::Gone | Change::Submodule(_) => {}
        }
    }

    /// Tags at a branch's tip, as it is now.
    #[must_use]
    pub fn tag(mut self, branch: &str, tags: &[&str]) -> Self {
        for tag in tags {
            self.say(&format!("reset refs/tags/{tag}\nfrom :{}\n\n", self.tips[branch]));
        }
        self
    }

    /// A tag that is an object of its own.
    #[must_use]
    pub fn annotate(mut self, branch: &str, tag: &str) -> Self {
        self.say(&format!("tag {tag}\nfrom :{}\ntagger Somebody <somebody@example.com> {FIRST} +0000\n", self.tips[branch]));
        self.data(tag.as_bytes());
        self
    }

    /// A git command in the finished repository, for what has no word here.
    #[must_use]
    pub fn then(mut self, arguments: &[&str]) -> Self {
        self.after.push(arguments.iter().map(|&word| word.to_owned()).collect());
        self
    }

    /// The branch that the repository opens with, `main` otherwise; it need not exist.
    #[must_use]
    pub fn head(mut self, branch: &str) -> Self {
        self.empty_head = Some(branch.to_owned());
        self
    }

    fn say(&mut self, text: &str) {
        self.stream.extend_from_slice(text.as_bytes());
    }

    fn data(&mut self, bytes: &[u8]) {
        self.say(&format!("data {}\n", bytes.len()));
        self.stream.extend_from_slice(bytes);
        self.say("\n");
    }

    /// Writes it down as a bare repository.
    pub fn build(self, dir: &Path) {
        fs::create_dir_all(dir).unwrap();
        let head = format!("--initial-branch={}", self.empty_head.as_deref().unwrap_or("main"));
        git_ok(dir, &["init", "-q", "--bare", &format!("--object-format={}", self.format), &head]);
        let mut command = git(dir);
        command.args(["fast-import", "--quiet", "--force"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // What it has to say about a script that it does not take comes out below.
        let _ = child.stdin.take().unwrap().write_all(&self.stream);
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "git fast-import: {}", String::from_utf8_lossy(&output.stderr));
        for arguments in &self.after {
            git_ok(dir, &arguments.iter().map(String::as_str).collect::<Vec<_>>());
        }
    }
}

/// A branch's full name; names that begin with `refs/` are full.
fn reference(branch: &str) -> String {
    if branch.starts_with("refs/") { branch.to_owned() } else { format!("refs/heads/{branch}") }
}

/// A path as the import reads it.
fn quoted(path: &str) -> String {
    let bytes = path.bytes().map(|byte| match byte {
        b'"' | b'\\' => format!("\\{}", char::from(byte)),
        b' '..=b'~' => char::from(byte).to_string(),
        _ => format!("\\{byte:03o}"),
    });
    format!("\"{}\"", bytes.collect::<String>())
}

/// How a server fails for one repository.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// Answers everything with a status.
    Status(u16),
    /// Accepts and never answers.
    Hang,
    /// Says what it has, and takes so long over every pack.
    Slow(Duration),
}

#[derive(Default)]
struct State {
    asked: Vec<String>,
    faults: BTreeMap<String, Fault>,
    /// How many packs of a repository are asked for: now, at most at the same time, and altogether.
    fetches: BTreeMap<String, (usize, usize, usize)>,
    login: Option<(String, String)>,
}

/// A running server of all repositories below a folder, with or without `.git` in their URLs. It ends with the test's process.
#[derive(Clone)]
pub struct GitServer {
    pub address: String,
    root: PathBuf,
    state: Arc<Mutex<State>>,
}

impl GitServer {
    pub fn start(root: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = Self { address, root: root.to_owned(), state: Arc::default() };
        let shared = server.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let server = shared.clone();
                std::thread::spawn(move || server.serve(stream));
            }
        });
        server
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Who may ask from now on; anybody else gets a 401.
    pub fn require(&self, user: &str, password: &str) {
        self.state.lock().unwrap().login = Some((user.to_owned(), password.to_owned()));
    }

    /// How a repository fails from now on.
    pub fn fail(&self, repository: &str, fault: Fault) {
        self.state.lock().unwrap().faults.insert(repository.to_owned(), fault);
    }

    /// The repository is as it was.
    pub fn heal(&self, repository: &str) {
        self.state.lock().unwrap().faults.remove(repository);
    }

    /// What was asked for, in order: the repository's name without `.git`, a slash, and what of it.
    pub fn asked(&self) -> Vec<String> {
        self.state.lock().unwrap().asked.clone()
    }

    /// How often one thing was asked of a repository: `info/refs`, which every command begins with, or `git-upload-pack`.
    pub fn count(&self, repository: &str, what: &str) -> usize {
        let wanted = format!("{repository}/{what}");
        self.asked().iter().filter(|asked| **asked == wanted).count()
    }

    /// How many packs of a repository were asked for at most at the same time, and altogether.
    pub fn fetches(&self, repository: &str) -> (usize, usize) {
        self.state.lock().unwrap().fetches.get(repository).map_or((0, 0), |(_, most, all)| (*most, *all))
    }

    /// Forgets what was asked.
    pub fn forget(&self) {
        self.state.lock().unwrap().asked.clear();
    }

    fn serve(&self, stream: TcpStream) -> Option<()> {
        let mut out = stream.try_clone().ok()?;
        let mut reader = BufReader::new(stream);
        let request = Request::read(&mut reader, &mut out)?;
        let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
        let cut = ["/info/refs", "/git-upload-pack", "/HEAD", "/objects/"].iter().find_map(|end| path.find(end));
        let (name, what) = path.split_at(cut.unwrap_or(path.len()));
        let name = name.trim_start_matches('/');
        let folder = if self.root.join(name).is_dir() { name } else { name.strip_suffix(".git").unwrap_or(name) };
        let plain = name.strip_suffix(".git").unwrap_or(name);
        let fault = {
            let mut state = self.state.lock().unwrap();
            state.asked.push(format!("{plain}{what}"));
            if state.login.as_ref().is_some_and(|(user, password)| !request.shows(user, password)) {
                Some(Fault::Status(401))
            } else {
                state.faults.get(plain).copied()
            }
        };
        match fault {
            Some(Fault::Status(status)) => {
                let _ = write!(
                    out,
                    "HTTP/1.1 {status} X\r\nWWW-Authenticate: Basic realm=\"x\"\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno"
                );
            }
            // Until the other side gives up.
            Some(Fault::Hang) => {
                let _ = reader.read(&mut [0; 1]);
            }
            None | Some(Fault::Slow(_)) => {
                let fetches = request.body.windows(13).any(|words| words == b"command=fetch");
                let count = |change: &dyn Fn(&mut (usize, usize, usize))| {
                    change(self.state.lock().unwrap().fetches.entry(plain.to_owned()).or_default());
                };
                if fetches {
                    count(&|(now, most, all)| (*now, *most, *all) = (*now + 1, (*now + 1).max(*most), *all + 1));
                    if let Some(Fault::Slow(time)) = fault {
                        std::thread::sleep(time);
                    }
                }
                let answer = self.answer(&request, &format!("/{folder}{what}"), query);
                if fetches {
                    // Whoever has the answer may ask for the next before this thread gets another turn.
                    count(&|(now, ..)| *now -= 1);
                }
                // In one go: the system would hold back the second of two small pieces.
                out.write_all(&answer?).ok()?;
            }
        }
        Some(())
    }

    /// Lets git answer.
    fn answer(&self, request: &Request, path: &str, query: &str) -> Option<Vec<u8>> {
        let mut command = git(&self.root);
        command.arg("http-backend").env("GIT_PROJECT_ROOT", &self.root).env("GIT_HTTP_EXPORT_ALL", "1");
        command.env("REQUEST_METHOD", &request.method).env("PATH_INFO", path).env("QUERY_STRING", query);
        command.env("REMOTE_ADDR", "127.0.0.1").env("CONTENT_LENGTH", request.body.len().to_string());
        for (variable, header) in
            [("CONTENT_TYPE", "content-type"), ("HTTP_CONTENT_ENCODING", "content-encoding"), ("GIT_PROTOCOL", "git-protocol")]
        {
            if let Some(value) = request.headers.get(header) {
                command.env(variable, value);
            }
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().ok()?;
        let mut stdin = child.stdin.take()?;
        let body = request.body.clone();
        // It may answer before it has read everything, and neither side is to wait for the other.
        let writer = std::thread::spawn(move || {
            let _ = stdin.write_all(&body);
        });
        let output = child.wait_with_output().ok()?;
        let _ = writer.join();
        let end = output.stdout.windows(4).position(|four| four == b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(&output.stdout[..end]).into_owned();
        let status = head.lines().find_map(|line| line.strip_prefix("Status: ")).unwrap_or("200 OK");
        let lines: Vec<&str> = head.lines().filter(|line| !line.starts_with("Status: ")).chain(["Connection: close"]).collect();
        let body = &output.stdout[end + 4..];
        let mut whole =
            format!("HTTP/1.1 {status}\r\n{}\r\nContent-Length: {}\r\n\r\n", lines.join("\r\n"), body.len()).into_bytes();
        whole.extend_from_slice(body);
        Some(whole)
    }
}

/// A request with its whole body.
struct Request {
    method: String,
    target: String,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Request {
    fn read(reader: &mut BufReader<TcpStream>, out: &mut TcpStream) -> Option<Self> {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        let mut words = line.split(' ').map(str::to_owned);
        let (method, target) = (words.next()?, words.next()?);
        let mut headers = BTreeMap::new();
        loop {
            line.clear();
            reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
        if headers.contains_key("expect") {
            out.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").ok()?;
        }
        let mut body = Vec::new();
        if headers.get("transfer-encoding").is_some_and(|coding| coding == "chunked") {
            read_chunks(reader, &mut body)?;
        } else {
            let length = headers.get("content-length").and_then(|n| n.parse().ok()).unwrap_or(0);
            reader.take(length).read_to_end(&mut body).ok()?;
        }
        Some(Self { method, target, headers, body })
    }

    fn shows(&self, user: &str, password: &str) -> bool {
        use base64::Engine;
        let wanted = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
        self.headers.get("authorization").is_some_and(|given| *given == format!("Basic {wanted}"))
    }
}

fn read_chunks(reader: &mut impl BufRead, body: &mut Vec<u8>) -> Option<()> {
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let length = usize::from_str_radix(line.trim(), 16).ok()?;
        let mut chunk = vec![0; length + 2];
        reader.read_exact(&mut chunk).ok()?;
        if length == 0 {
            return Some(());
        }
        body.extend_from_slice(&chunk[..length]);
    }
}
