//! Modules made from git repositories: how long the first who asks has to wait, each time on a server that has nothing yet.
//!
//! The repositories are made on the spot and served by git's own `http-backend`, so that all pay the same way there. A version is
//! its `.info`, `.mod` and `.zip`, one after the other, as the go command asks for them. What the servers answer is compared with
//! what the first of them answered: zips by their `h1:` sums.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Cursor, Read};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::data::noise;
use crate::git::{Change, GitServer, Script};
use crate::measure::cpu;
use crate::peers::{GIT_HOST, Peer, Server, Source};
use crate::report::VcsRow;
use crate::{PAUSE, Result, client, say, stopped};

/// The workload's name.
pub(crate) const VCS: &str = "vcs";

/// A repository in figures.
#[derive(Debug, Clone, Copy)]
struct Shape {
    name: &'static str,
    /// Files, all there from the first commit on, and the bytes of each.
    files: usize,
    bytes: usize,
    /// Each further one writes one in fifty of the files anew.
    commits: usize,
}

const SHAPES: [Shape; 3] = [
    Shape { name: "small", files: 20, bytes: 2_000, commits: 30 },
    Shape { name: "large", files: 3_000, bytes: 2_500, commits: 200 },
    Shape { name: "long", files: 50, bytes: 2_000, commits: 5_000 },
];
/// The tags of each; behind the last one the branch goes on.
const TAGS: usize = 12;
/// How many of these versions are asked for.
const VERSIONS: usize = 10;
/// How many servers are asked for their first version, in each round.
const FIRSTS: usize = 3;
/// When a list is certain to be asked for anew: what modgate was told, and a little more.
const LIST_OLD: Duration = Duration::from_millis(1500);

/// The repositories, their server, and what was answered so far.
pub(crate) struct Vcs {
    git: GitServer,
    _root: TempDir,
    /// What each path came to where it was asked for first.
    truths: RefCell<BTreeMap<String, String>>,
}

impl Vcs {
    /// Makes the repositories.
    pub(crate) fn make() -> Result<Self> {
        let root = tempfile::Builder::new().prefix("modgate-compare-").tempdir()?;
        for shape in SHAPES {
            shape.build(&root.path().join(shape.name));
        }
        Ok(Self { git: GitServer::start(root.path()), _root: root, truths: RefCell::default() })
    }

    /// Measures all peers that know git, next to each other, repository by repository.
    pub(crate) fn rounds(&self, peers: &[Peer], rounds: u64) -> Result<Vec<VcsRow>> {
        let mut peers: Vec<&Peer> = peers.iter().filter(|peer| peer.knows_git()).collect();
        let mut rows = Vec::new();
        for round in 0..rounds {
            for shape in SHAPES {
                for peer in &peers {
                    self.versions(peer, shape, round, &mut rows)?;
                    self.others(peer, shape, round, &mut rows)?;
                }
            }
            // Nobody always comes after the same one.
            peers.rotate_left(1);
        }
        Ok(rows)
    }

    /// The versions in their order, then the branch.
    fn versions(&self, peer: &Peer, shape: Shape, round: u64, rows: &mut Vec<VcsRow>) -> Result<()> {
        // The first is over soon, and there is but one a server.
        for _ in 1..FIRSTS {
            let server = peer.start(Source::Git(&self.git.url()))?;
            rows.push(self.version((peer, &server), shape, round, 1)?);
        }
        let server = peer.start(Source::Git(&self.git.url()))?;
        for n in 1..=VERSIONS {
            rows.push(self.version((peer, &server), shape, round, n)?);
        }
        rows.push(self.measure((peer, &server), shape, ("branch after that", round), &["main.info"])?);
        Ok(())
    }

    fn version(&self, server: (&Peer, &Server), shape: Shape, round: u64, n: usize) -> Result<VcsRow> {
        let step = match n {
            1 => "1st version",
            VERSIONS => "10th version",
            _ => "2nd to 9th, each",
        };
        let parts = ["info", "mod", "zip"].map(|part| format!("v1.{n}.0.{part}"));
        self.measure(server, shape, (step, round), &parts.each_ref().map(String::as_str))
    }

    /// What is asked without having any version.
    fn others(&self, peer: &Peer, shape: Shape, round: u64, rows: &mut Vec<VcsRow>) -> Result<()> {
        let server = peer.start(Source::Git(&self.git.url()))?;
        for (step, part) in [("list", "list"), ("list again", "list"), ("branch", "main.info")] {
            rows.push(self.measure((peer, &server), shape, (step, round), &[part])?);
            thread::sleep(LIST_OLD);
        }
        Ok(())
    }

    /// Asks for these parts, one after the other.
    fn measure(
        &self,
        (peer, server): (&Peer, &Server),
        shape: Shape,
        (step, round): (&'static str, u64),
        parts: &[&str],
    ) -> Result<VcsRow> {
        thread::sleep(PAUSE);
        if stopped() {
            return Err("stopped".into());
        }
        self.git.forget();
        let (before, started) = (cpu(server.pid()), Instant::now());
        let mut answers = Vec::new();
        for part in parts {
            let path = format!("/{GIT_HOST}/{}/@v/{part}", shape.name);
            let answer = client::whole(&server.address, &path);
            answers.push((path, answer));
        }
        let seconds = started.elapsed().as_secs_f64();
        // What a server still does once it has answered counts too.
        thread::sleep(PAUSE);
        let cpu = cpu(server.pid()) - before;
        let mut wrong = 0;
        for (path, answer) in answers {
            if let Err(why) = answer.map_err(Into::into).and_then(|(status, body)| self.check(&path, status, &body)) {
                wrong += 1;
                say(&format!("{}: {path}: {why}\n{}", peer.name, server.log()))?;
            }
        }
        let requests = self.git.asked().len() as u64;
        say(&format!("round {round} {VCS}: {} {step}: {} {:.0} ms", shape.name, peer.name, seconds * 1e3))?;
        Ok(VcsRow { repository: shape.name, step, peer: peer.name, round, seconds, cpu, requests, wrong })
    }

    fn check(&self, path: &str, status: u16, body: &[u8]) -> Result<()> {
        if status != 200 {
            return Err(format!("status {status}: {}", String::from_utf8_lossy(body)).into());
        }
        let said = said(path, body)?;
        let mut truths = self.truths.borrow_mut();
        let truth = truths.entry(path.to_owned()).or_insert_with(|| said.clone());
        if *truth == said { Ok(()) } else { Err(format!("{said}, where another server said {truth}").into()) }
    }
}

impl Shape {
    fn build(self, dir: &Path) {
        let go_mod = format!("module {GIT_HOST}/{}\n\ngo 1.21\n", self.name);
        let text =
            |commit: usize, file: usize| (format!("p{}/f{file}.go", file % 40), words(commit * self.files + file, self.bytes));
        let mut script = Script::new();
        for commit in 0..self.commits {
            let (first, count) = if commit == 0 { (0, self.files) } else { (commit * 7, self.files.div_ceil(50)) };
            let texts: Vec<(String, String)> = (first..first + count).map(|file| text(commit, file % self.files)).collect();
            let mut changes: Vec<(&str, Change<'_>)> = texts.iter().map(|(name, text)| (&**name, Change::File(text))).collect();
            changes.extend((commit == 0).then_some(("go.mod", Change::File(&go_mod))));
            script = script.commit("main", &changes);
            if let Some(tag) = (1..=TAGS).find(|tag| tag * self.commits / (TAGS + 1) == commit + 1) {
                script = script.tag("main", &[&format!("v1.{tag}.0")]);
            }
        }
        // As a server has it, rather than as it was imported.
        script.then(&["repack", "-adfq"]).build(dir);
    }
}

/// A Go file that compresses about as well as others do.
fn words(seed: usize, bytes: usize) -> String {
    const WORDS: [&str; 16] = [
        "return", "value", "err", "context", "if", "nil", "x", "func", "range", "string", "i", "Errorf", "len", "append", "0x",
        "buffer",
    ];
    let mut text = String::from("package p\n");
    for byte in noise(seed as u64, bytes) {
        text.push_str(WORDS[usize::from(byte & 15)]);
        text.push(char::from(b'a' + byte % 23));
        text.push(if byte % 9 == 0 { '\n' } else { ' ' });
        if text.len() >= bytes {
            break;
        }
    }
    // A comment, so that it is Go.
    text.replace('\n', "\n// ")
}

/// What an answer says, however it is written.
fn said(path: &str, body: &[u8]) -> Result<String> {
    let text = || String::from_utf8_lossy(body).into_owned();
    Ok(match path.rsplit(['.', '/']).next() {
        Some("zip") => h1(body)?,
        Some("info") => {
            let info: serde_json::Value = serde_json::from_slice(body)?;
            format!("{} {}", info["Version"], info["Time"])
        }
        Some("list") => {
            let mut lines: Vec<&str> = std::str::from_utf8(body)?.lines().collect();
            lines.sort_unstable();
            lines.join(" ")
        }
        _ => text(),
    })
}

/// The sum that `go.sum` has of a zip.
fn h1(zip: &[u8]) -> Result<String> {
    let mut zip = zip::ZipArchive::new(Cursor::new(zip))?;
    let mut lines = Vec::new();
    for at in 0..zip.len() {
        let mut file = zip.by_index(at)?;
        let mut content = Vec::new();
        file.read_to_end(&mut content)?;
        let name = file.name()?.into_owned();
        lines.push((name, hex(&Sha256::digest(&content))?));
    }
    lines.sort();
    let mut all = String::new();
    for (name, sum) in lines {
        writeln!(all, "{sum}  {name}")?;
    }
    Ok(format!("h1:{}", BASE64_STANDARD.encode(Sha256::digest(all))))
}

fn hex(bytes: &[u8]) -> Result<String> {
    let mut text = String::new();
    for byte in bytes {
        write!(text, "{byte:02x}")?;
    }
    Ok(text)
}
