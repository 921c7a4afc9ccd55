//! modgate beside nginx and its peers, on loopback, with data made on the spot: `cargo bench --bench compare [-- WORKLOAD...]`.
//!
//! | workload | what is asked for |
//! | --- | --- |
//! | `meta` | `.info` and `.mod` of 90 modules, by 32 connections |
//! | `list` | the lists of 20 modules with 200 versions each, by 32 connections |
//! | `small` | 40 zips of 10 to 100 kB, by 16 connections |
//! | `medium` | 8 zips of 2 MB, by 16 connections |
//! | `large` | 3 zips of 30 MB and one of 60 MB, by 16 connections |
//! | `herd` | one zip of 20 MB that nobody has yet, by 64 clients at once; the upstream waits 200 ms and sends 5 MB/s |
//! | `vcs` | versions, lists and a branch out of git repositories, by one client; see below |
//!
//! All but the last two are warm: each server has answered each path before, and its answers were compared with the upstream's
//! bodies (SHA-256), as they are once more in the end. The measure is the CPU time that a server's whole process tree takes for a
//! request or a gigabyte, since rates say more about the load and the machine's other work than about the server. Servers are
//! measured next to each other in time, round after round, and compared with nginx, a caching reverse proxy that knows nothing of
//! modules, inside a round: such ratios hold where absolute figures do not.
//!
//! `vcs` is about waiting: how long it takes a server that has nothing yet, or only older versions of the same repository, to
//! answer the first who asks (`vcs.rs`). Those that leave this to the go command take part.
//!
//! Needs nginx and wrk from Debian's packages. `ROUNDS` (3) and `SECS` (3) say how often and how long each workload is
//! measured. Further servers take part when `COMPARE_GOPROXY` (goproxy.github.io's), `COMPARE_GOPROXYIO` (goproxy.io's),
//! `COMPARE_ATHENS`, or `COMPARE_MODGATE` (another build of this one) give the paths of their programs. Athens needs the go
//! command too.

mod client;
mod data;
mod load;
mod measure;
mod peers;
mod report;
mod upstream;
mod vcs;

/// Repositories and their server, as the tests have them.
#[path = "../../tests/support/git.rs"]
#[expect(clippy::unwrap_used, unreachable_pub, dead_code, reason = "written for tests, where whoever cannot go on ends")]
mod git;

use std::io::{Write, stderr, stdout};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use data::{Data, HERD};
use load::{Load, Wrk};
use measure::{Used, Watch};
use peers::{OWN, Peer, Server, Source};
use report::{HerdRow, Row, VcsRow, median};
use upstream::Upstream;
use vcs::{VCS, Vcs};

/// Whatever went wrong, in words for who started the benchmark.
type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

/// A warm workload, named as its set of paths.
struct Workload {
    name: &'static str,
    connections: u32,
    cost: Cost,
}

/// What a workload's CPU time is divided by.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cost {
    Request,
    Gigabyte,
}

const WORKLOADS: [Workload; 5] = [
    Workload { name: "meta", connections: 32, cost: Cost::Request },
    Workload { name: "list", connections: 32, cost: Cost::Request },
    Workload { name: "small", connections: 16, cost: Cost::Gigabyte },
    Workload { name: "medium", connections: 16, cost: Cost::Gigabyte },
    Workload { name: "large", connections: 16, cost: Cost::Gigabyte },
];
/// The name of the cold workload, and its clients.
const HERD_NAME: &str = "herd";
const HERD_CLIENTS: usize = 64;
/// Between two measurements, for what the last one left behind.
const PAUSE: Duration = Duration::from_millis(300);

static STOPPED: AtomicBool = AtomicBool::new(false);

/// Whether a signal asked for the end. Whoever waits looks here, so that servers are ended and folders removed.
fn stopped() -> bool {
    STOPPED.load(Ordering::Relaxed)
}

fn main() -> ExitCode {
    // `cargo test --all-targets` runs this too, without the argument that `cargo bench` gives.
    if !std::env::args().any(|argument| argument == "--bench") {
        let _ = writeln!(stderr(), "compare: measures only under cargo bench");
        return ExitCode::SUCCESS;
    }
    watch_signals();
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            let _ = writeln!(stderr(), "compare: modgate gave wrong answers; see above");
            ExitCode::FAILURE
        }
        Err(e) => {
            let _ = writeln!(stderr(), "compare: {e}");
            ExitCode::FAILURE
        }
    }
}

/// Measures and prints; whether all of modgate's answers were right.
fn run() -> Result<bool> {
    let wanted = wanted(std::env::args().skip(1))?;
    let (rounds, seconds) = (number("ROUNDS", 3)?, number("SECS", 3)?);
    let (peers, wrk) = (peers::peers()?, Wrk::new()?);
    say("making the modules")?;
    let data = Arc::new(Data::make()?);
    let upstream = Upstream::start(&data)?;
    let bench = Bench { data, upstream, wrk, rounds, seconds, peers };

    let workloads: Vec<&Workload> = WORKLOADS.iter().filter(|w| wanted.contains(&w.name)).collect();
    let rows = if workloads.is_empty() { Vec::new() } else { bench.warm(&workloads)? };
    let herds = if wanted.contains(&HERD_NAME) { bench.herds()? } else { Vec::new() };
    let of_git = if wanted.contains(&VCS) { Vcs::make()?.rounds(&bench.peers, rounds)? } else { Vec::new() };

    let mut out = stdout();
    writeln!(out, "{}\n", bench.head()?)?;
    if !rows.is_empty() {
        writeln!(out, "{}", report::loads(&rows, units)?)?;
    }
    if !herds.is_empty() {
        writeln!(out, "{HERD_NAME}: {HERD_CLIENTS} clients, one cold zip of 20 MB, upstream 200 ms + 5 MB/s\n")?;
        writeln!(out, "{}", report::herds(&herds)?)?;
    }
    if !of_git.is_empty() {
        writeln!(out, "{VCS}: modules out of git repositories, asked for by one client\n")?;
        writeln!(out, "{}", report::vcs(&of_git)?)?;
    }
    let own_wrong = rows.iter().filter(|r| r.peer == OWN).map(|r| r.wrong).sum::<u64>()
        + herds.iter().filter(|r| r.peer == OWN).map(|r| r.wrong).sum::<u64>()
        // What they make is compared with what the others make, and the truth is with any of them.
        + of_git.iter().map(|r: &VcsRow| r.wrong).sum::<u64>();
    Ok(own_wrong == 0)
}

/// The workloads named on the command line; all where none is.
fn wanted(arguments: impl Iterator<Item = String>) -> Result<Vec<&'static str>> {
    let names: Vec<&str> = WORKLOADS.iter().map(|w| w.name).chain([HERD_NAME, VCS]).collect();
    let mut wanted = Vec::new();
    for argument in arguments.filter(|a| a != "--bench") {
        let known = names.iter().find(|name| **name == argument);
        wanted.push(*known.ok_or_else(|| format!("no workload {argument:?}; there are {}", names.join(", ")))?);
    }
    Ok(if wanted.is_empty() { names } else { wanted })
}

/// A number from the environment.
fn number(variable: &str, otherwise: u64) -> Result<u64> {
    match std::env::var(variable) {
        Ok(text) => text.parse().ok().filter(|n| (1..=1000).contains(n)).ok_or_else(|| format!("{variable}: {text:?}?").into()),
        Err(_) => Ok(otherwise),
    }
}

/// The units of a workload's cost and rate.
fn units(workload: &str) -> (&'static str, &'static str) {
    match WORKLOADS.iter().find(|w| w.name == workload).map(|w| w.cost) {
        Some(Cost::Request) => ("µs/request", "requests/s"),
        _ => ("s/GB", "MB/s"),
    }
}

/// What all measurements share.
struct Bench {
    data: Arc<Data>,
    upstream: Upstream,
    wrk: Wrk,
    rounds: u64,
    seconds: u64,
    peers: Vec<Peer>,
}

impl Bench {
    /// The warm workloads, on servers that run all the while.
    fn warm(&self, workloads: &[&Workload]) -> Result<Vec<Row>> {
        let mut servers: Vec<(&Peer, Server)> = Vec::new();
        let mut wrong: Vec<(&str, &str, u64)> = Vec::new();
        for peer in &self.peers {
            say(&format!("warming {}", peer.name))?;
            let server = peer.start(Source::Proxy(&self.upstream.address))?;
            for workload in workloads {
                wrong.push((peer.name, workload.name, self.check(peer, &server, workload)?));
                self.wrk.run(&server.address, self.data.set(workload.name), workload.connections, 1)?;
            }
            servers.push((peer, server));
        }
        let mut rows = Vec::new();
        for round in 0..self.rounds {
            for workload in workloads {
                for (peer, server) in &servers {
                    rows.push(self.measure(workload, peer, server, round)?);
                }
            }
            // Nobody always comes after the same one.
            servers.rotate_left(1);
        }
        for (peer, server) in &servers {
            for workload in workloads {
                wrong.push((peer.name, workload.name, self.check(peer, server, workload)?));
            }
        }
        for (peer, workload, count) in wrong {
            if let Some(row) = rows.iter_mut().find(|r: &&mut Row| r.peer == peer && r.workload == workload) {
                row.wrong += count;
            }
        }
        rows.sort_by_key(|row| {
            let workload = WORKLOADS.iter().position(|w| w.name == row.workload);
            (workload, self.peers.iter().position(|p| p.name == row.peer), row.round)
        });
        Ok(rows)
    }

    /// Compares all bodies of a workload; how many were wrong.
    fn check(&self, peer: &Peer, server: &Server, workload: &Workload) -> Result<u64> {
        let wrong = client::check(&server.address, self.data.set(workload.name), &self.data)?;
        if wrong > 0 {
            say(&format!("{}: {wrong} wrong answers in {}\n{}", peer.name, workload.name, server.log()))?;
        }
        Ok(wrong)
    }

    fn measure(&self, workload: &Workload, peer: &Peer, server: &Server, round: u64) -> Result<Row> {
        thread::sleep(PAUSE);
        let watch = Watch::start(server.pid());
        let load: Load = self.wrk.run(&server.address, self.data.set(workload.name), workload.connections, self.seconds)?;
        let Used { cpu, peak } = watch.stop();
        let (cost, rate) = match workload.cost {
            Cost::Request => (cpu / load.requests * 1e6, load.requests / load.seconds),
            Cost::Gigabyte => (cpu / load.bytes * 1e9, load.bytes / load.seconds / 1e6),
        };
        let (unit, rate_unit) = units(workload.name);
        say(&format!("round {round} {}: {} {cost:.2} {unit}, {rate:.0} {rate_unit}", workload.name, peer.name))?;
        Ok(Row { workload: workload.name, peer: peer.name, round, cost, rate, p99: load.p99, peak, wrong: load.errors })
    }

    /// The cold workload: each time a server that has nothing.
    fn herds(&self) -> Result<Vec<HerdRow>> {
        let truth = client::sum(&self.data.body(HERD).ok_or("the herd's zip is missing")?);
        let mut rows = Vec::new();
        for round in 0..self.rounds {
            for peer in &self.peers {
                if stopped() {
                    return Err("stopped".into());
                }
                let server = peer.start(Source::Proxy(&self.upstream.address))?;
                thread::sleep(PAUSE);
                let (before, watch) = (self.upstream.fetches(HERD), Watch::start(server.pid()));
                let herd = client::herd(&server.address, HERD, HERD_CLIENTS, &truth);
                let (Used { cpu, peak }, fetches) = (watch.stop(), self.upstream.fetches(HERD) - before);
                let last = |seconds: &[f64]| seconds.last().copied().unwrap_or(f64::NAN);
                let first_byte = [median(herd.first_byte.iter().copied()), last(&herd.first_byte)];
                let (total, wrong) = (last(&herd.total), herd.wrong);
                say(&format!("round {round} {HERD_NAME}: {} {fetches} fetches, {total:.2} s, {wrong} wrong", peer.name))?;
                rows.push(HerdRow { peer: peer.name, fetches, first_byte, total, peak, cpu, wrong });
            }
        }
        Ok(rows)
    }

    /// When, where, and how it was measured.
    fn head(&self) -> Result<String> {
        let now = jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC").to_string();
        let info = std::fs::read_to_string("/proc/cpuinfo")?;
        let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':')).map(|(_, model)| model.trim());
        let cores = thread::available_parallelism()?;
        let version = Command::new(peers::find("nginx", "nginx-light")?).arg("-v").output()?;
        let version = String::from_utf8_lossy(&version.stderr).trim().replace("nginx version: nginx/", "nginx ");
        let (rounds, seconds, own) = (self.rounds, self.seconds, env!("CARGO_PKG_VERSION"));
        let cpu = model.unwrap_or(std::env::consts::ARCH);
        Ok(format!("{now}, {cpu}, {cores} cores; modgate {own}, {version}; medians of {rounds} rounds of {seconds} s"))
    }
}

/// A line of progress, apart from the tables.
fn say(text: &str) -> Result<()> {
    Ok(writeln!(stderr(), "compare: {text}")?)
}

/// From now on SIGINT and SIGTERM set [`STOPPED`].
fn watch_signals() {
    thread::spawn(|| {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
        runtime.block_on(async {
            let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) else {
                return;
            };
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            STOPPED.store(true, Ordering::Relaxed);
        });
    });
}
