//! The audit: a line of JSON for each download, to prove afterwards who had what. A thread of its own writes it, so that no request
//! waits for a disk; when lines come faster than they can be written, the next line says how many were lost.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;
use serde::Serialize;

use crate::module::Ask;
use crate::route::Plan;

/// So many lines may wait to be written.
const WAITING: usize = 16 << 10;
/// How long a written line may wait to reach the file.
const FLUSH: Duration = Duration::from_millis(200);
/// A file that cannot be written is told of so often.
const TOLD: Duration = Duration::from_secs(60);
/// How long a stop waits for the last lines.
const LAST: Duration = Duration::from_secs(5);

/// Where lines go, and which.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The file; none is standard output.
    pub file: Option<PathBuf>,
    /// A file that has grown so large is put aside. The next lines go into a new one.
    pub max_size: u64,
    /// So many files are kept that were put aside.
    pub keep: usize,
    /// Whether `.info`, lists and all other questions count too, not only zips, go.mod files and what was refused.
    pub all: bool,
}

/// What is known of a request when it is over.
#[derive(Debug, Clone)]
pub(super) struct Event {
    pub(super) id: String,
    pub(super) client: String,
    pub(super) who: Option<Arc<str>>,
    pub(super) how: &'static str,
    pub(super) team: Option<Arc<str>>,
    /// The question's path, the team's prefix aside.
    pub(super) path: String,
    pub(super) plan: Option<Plan>,
    pub(super) upstream: Option<Arc<str>>,
    pub(super) cache: &'static str,
    pub(super) sum: Option<String>,
    pub(super) status: u16,
    pub(super) bytes: u64,
    pub(super) whole: bool,
    pub(super) ms: f64,
    pub(super) error: Option<String>,
}

/// A line. `null` is what is not known, or not so.
#[derive(Serialize)]
struct Line<'a> {
    time: String,
    id: &'a str,
    client: &'a str,
    who: Option<&'a str>,
    how: &'a str,
    team: Option<&'a str>,
    kind: &'a str,
    module: Option<String>,
    version: Option<String>,
    route: Option<String>,
    upstream: Option<&'a str>,
    cache: &'a str,
    sum: Option<&'a str>,
    status: u16,
    bytes: u64,
    complete: bool,
    ms: f64,
    error: Option<&'a str>,
}

#[derive(Serialize)]
struct Lost {
    time: String,
    lost: u64,
}

enum Order {
    Write(SystemTime, Box<Event>),
    /// There may be new settings.
    Look,
    Stop,
}

/// Hands lines to the thread that writes them.
#[derive(Debug)]
pub struct Audit {
    orders: SyncSender<Order>,
    lost: Arc<AtomicU64>,
    /// Settings that are to count from now on.
    next: Arc<Mutex<Option<Settings>>>,
}

impl Audit {
    /// Starts to write. The handle is for the end of it.
    ///
    /// # Errors
    /// A file that cannot be opened, or no thread.
    pub fn start(settings: Settings) -> io::Result<(Arc<Self>, AuditThread)> {
        let (orders, inbox) = sync_channel(WAITING);
        let lost = Arc::new(AtomicU64::new(0));
        let next = Arc::new(Mutex::new(None));
        let writer = Writer::open(settings, Arc::clone(&lost), Arc::clone(&next))?;
        let thread = std::thread::Builder::new().name("audit".into()).spawn(move || writer.run(&inbox))?;
        let end = AuditThread { orders: orders.clone(), thread: Some(thread) };
        Ok((Arc::new(Self { orders, lost, next }), end))
    }

    /// Has a line written, or counts it as lost. Never waits.
    pub(super) fn note(&self, event: Event) {
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
            self.orders.try_send(Order::Write(SystemTime::now(), Box::new(event)))
        {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// From now on these settings count, and the file is opened anew: somebody else may have put it aside.
    pub fn settle(&self, settings: Settings) {
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = Some(settings);
        // A thread that has much to write looks all the same, and nobody waits for a disk.
        let _ = self.orders.try_send(Order::Look);
    }
}

/// The thread that writes.
#[derive(Debug)]
pub struct AuditThread {
    orders: SyncSender<Order>,
    thread: Option<JoinHandle<()>>,
}

impl AuditThread {
    /// Writes what is there and ends.
    pub fn stop(mut self) {
        let Some(thread) = self.thread.take() else { return };
        let deadline = Instant::now() + LAST;
        let mut order = Order::Stop;
        while let Err(TrySendError::Full(back)) = self.orders.try_send(order) {
            if Instant::now() > deadline {
                return;
            }
            order = back;
            std::thread::sleep(Duration::from_millis(10));
        }
        while !thread.is_finished() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Where lines go.
enum Target {
    Stdout(io::Stdout),
    File { file: BufWriter<File>, path: PathBuf, length: u64 },
}

struct Writer {
    settings: Settings,
    /// None while the file cannot be opened.
    target: Option<Target>,
    /// Lines that may not have reached the file yet.
    unsure: u64,
    lost: Arc<AtomicU64>,
    next: Arc<Mutex<Option<Settings>>>,
    told: Option<Instant>,
}

impl Writer {
    fn open(settings: Settings, lost: Arc<AtomicU64>, next: Arc<Mutex<Option<Settings>>>) -> io::Result<Self> {
        let target = Some(target(&settings)?);
        Ok(Self { settings, target, unsure: 0, lost, next, told: None })
    }

    fn run(mut self, inbox: &Receiver<Order>) {
        let mut flushed = Instant::now();
        loop {
            let order = inbox.recv_timeout(FLUSH);
            let next = self.next.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(settings) = next {
                self.settle(settings);
            }
            self.report_lost();
            match order {
                Ok(Order::Write(at, event)) => {
                    if let Some(line) = self.line(at, &event) {
                        self.write(&line, 1);
                    }
                }
                Ok(Order::Look) | Err(RecvTimeoutError::Timeout) => {}
                Ok(Order::Stop) | Err(RecvTimeoutError::Disconnected) => return self.flush(),
            }
            if self.unsure > 0 && flushed.elapsed() >= FLUSH {
                self.flush();
                flushed = Instant::now();
            }
        }
    }

    /// An event's line, where it is wanted. What is refused is always of interest.
    fn line(&self, at: SystemTime, event: &Event) -> Option<String> {
        let question = event.path.strip_prefix(super::CACHED_ONLY_PATH).unwrap_or(&event.path);
        let ask = Ask::parse(question).ok();
        let (kind, version) = match &ask {
            Some(Ask::Zip(v)) => ("zip", Some(v.version.to_string())),
            Some(Ask::GoMod(v)) => ("mod", Some(v.version.to_string())),
            Some(Ask::Info(v)) => ("info", Some(v.version.to_string())),
            Some(Ask::Query(_, query)) => ("info", Some(query.to_string())),
            Some(Ask::List(_)) => ("list", None),
            Some(Ask::Latest(_)) => ("latest", None),
            None if question.starts_with(super::SUMDB) => ("sumdb", None),
            None => ("other", None),
        };
        if !(self.settings.all || matches!(event.status, 401 | 403 | 429 | 499) || matches!(kind, "zip" | "mod")) {
            return None;
        }
        let line = Line {
            time: Timestamp::try_from(at).unwrap_or_default().to_string(),
            id: &event.id,
            client: &event.client,
            who: event.who.as_deref(),
            how: event.how,
            team: event.team.as_deref(),
            kind,
            module: ask.as_ref().map(|ask| ask.module().to_string()),
            version,
            route: event.plan.as_ref().map(Plan::rule),
            upstream: event.upstream.as_deref(),
            cache: event.cache,
            sum: event.sum.as_deref(),
            status: event.status,
            bytes: event.bytes,
            complete: event.whole,
            ms: event.ms,
            error: event.error.as_deref(),
        };
        serde_json::to_string(&line).ok()
    }

    fn report_lost(&mut self) {
        let lost = self.lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let line = serde_json::to_string(&Lost { time: Timestamp::now().to_string(), lost }).unwrap_or_default();
            // Where it cannot be written either, they stay counted.
            if self.write(&line, lost) {
                tracing::error!(lost, "lines of the audit were lost");
            }
        }
    }

    /// Writes a line that stands for so many. Whether it was.
    fn write(&mut self, line: &str, stands_for: u64) -> bool {
        self.rotate();
        let written = match &mut self.target {
            Some(Target::Stdout(out)) => writeln!(out, "{line}"),
            Some(Target::File { file, length, .. }) => {
                *length += line.len() as u64 + 1;
                writeln!(file, "{line}")
            }
            None => Err(io::ErrorKind::NotFound.into()),
        };
        match written {
            Ok(()) => self.unsure += stands_for,
            Err(e) => {
                self.lost.fetch_add(stands_for, Ordering::Relaxed);
                self.tell(&e);
            }
        }
        self.target.is_some()
    }

    fn flush(&mut self) {
        let flushed = match &mut self.target {
            Some(Target::Stdout(out)) => out.flush(),
            Some(Target::File { file, .. }) => file.flush(),
            None => Ok(()),
        };
        match flushed {
            Ok(()) => self.unsure = 0,
            Err(e) => self.tell(&e),
        }
    }

    fn tell(&mut self, e: &io::Error) {
        if self.told.is_none_or(|at| at.elapsed() > TOLD) {
            tracing::error!(error = %e, "the audit cannot be written");
            self.told = Some(Instant::now());
        }
    }

    /// Goes on with another target; what the old one did not take is lost.
    fn go_on_with(&mut self, target: Option<Target>) {
        self.flush();
        if let Some(Target::File { file, .. }) = std::mem::replace(&mut self.target, target) {
            // What is still in its buffer would be written once more when it is dropped, and by then nobody knows whether it was.
            let _ = file.into_parts();
        }
        self.lost.fetch_add(std::mem::take(&mut self.unsure), Ordering::Relaxed);
    }

    fn settle(&mut self, settings: Settings) {
        match target(&settings) {
            Ok(target) => self.go_on_with(Some(target)),
            Err(e) => self.tell(&e),
        }
        self.settings = settings;
    }

    /// Opens the file where it is not, and puts one aside that is full. Where that fails, the file at hand goes on.
    fn rotate(&mut self) {
        if self.target.is_none() {
            match target(&self.settings) {
                Ok(target) => self.target = Some(target),
                Err(e) => self.tell(&e),
            }
        }
        let Some(Target::File { path, length, .. }) = &self.target else { return };
        if *length < self.settings.max_size {
            return;
        }
        let path = path.clone();
        self.flush();
        let rotated = self.put_aside(&path).and_then(|()| target(&self.settings));
        match rotated {
            Ok(target) => {
                self.go_on_with(Some(target));
                if let Err(e) = remove_oldest(&path, self.settings.keep) {
                    self.tell(&e);
                }
            }
            Err(e) => {
                self.tell(&e);
                // It is tried again after as much as that once more.
                if let Some(Target::File { length, .. }) = &mut self.target {
                    *length = 0;
                }
            }
        }
    }

    /// Gives the file another name, unless somebody else has done so already.
    #[expect(clippy::disallowed_methods, reason = "an audit file keeps its lines under another name")]
    fn put_aside(&self, path: &Path) -> io::Result<()> {
        let Some(Target::File { file, .. }) = &self.target else { return Ok(()) };
        let own = file.get_ref().metadata()?.ino();
        if std::fs::metadata(path).is_ok_and(|meta| meta.ino() == own) {
            std::fs::rename(path, aside(path))?;
        }
        Ok(())
    }
}

fn target(settings: &Settings) -> io::Result<Target> {
    let Some(path) = &settings.file else { return Ok(Target::Stdout(io::stdout())) };
    let file = OpenOptions::new().create(true).append(true).mode(0o640).open(path)?;
    let length = file.metadata()?.len();
    Ok(Target::File { file: BufWriter::new(file), path: path.clone(), length })
}

/// The name that a full file gets: its own and the time, so that names in order are files in order.
fn aside(path: &Path) -> PathBuf {
    let time = Timestamp::now();
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}", time.strftime("%Y%m%dT%H%M%S%9f")));
    PathBuf::from(name)
}

/// Keeps the newest of the files that were put aside.
fn remove_oldest(path: &Path, keep: usize) -> io::Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let own = format!("{}.", path.file_name().unwrap_or_default().to_string_lossy());
    let is_aside = |name: &str| {
        name.strip_prefix(&own).is_some_and(|time| time.len() == 24 && time.bytes().all(|b| b.is_ascii_digit() || b == b'T'))
    };
    let mut found: Vec<PathBuf> = std::fs::read_dir(folder)?
        .flatten()
        .filter(|entry| is_aside(&entry.file_name().to_string_lossy()))
        .map(|entry| entry.path())
        .collect();
    found.sort();
    let mut found = VecDeque::from(found);
    while found.len() > keep {
        if let Some(oldest) = found.pop_front() {
            std::fs::remove_file(oldest)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(n: usize) -> Event {
        Event {
            id: format!("{n}"),
            client: "127.0.0.1".into(),
            who: Some("ann".into()),
            how: "password",
            team: None,
            path: format!("/example.com/!m/@v/v1.0.{n}.zip"),
            plan: None,
            upstream: Some("u".into()),
            cache: "miss",
            sum: Some("h1:x".into()),
            status: 200,
            bytes: 7,
            whole: true,
            ms: 1.5,
            error: None,
        }
    }

    #[test]
    fn lines_files_and_what_is_lost() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("audit.jsonl");
        let settings = Settings { file: Some(path.clone()), max_size: 2000, keep: 3, all: false };
        let (audit, thread) = Audit::start(settings.clone()).expect("an audit");
        for n in 0..100 {
            audit.note(event(n));
        }
        audit.note(Event { path: "/example.com/m/@v/list".into(), ..event(100) });
        audit.note(Event { path: "/example.com/m/@v/list".into(), status: 403, ..event(101) });
        drop(audit);
        thread.stop();
        // Taken up again; some lines are lost before the next.
        let (audit, thread) = Audit::start(Settings { max_size: 1 << 20, ..settings }).expect("an audit");
        audit.lost.fetch_add(5, Ordering::Relaxed);
        audit.note(event(102));
        drop(audit);
        thread.stop();
        let mut files: Vec<PathBuf> = std::fs::read_dir(dir.path()).expect("files").flatten().map(|entry| entry.path()).collect();
        files.sort();
        assert_eq!(files.len(), 4, "the file and three before it: {files:?}");
        let sizes = files.iter().map(|file| std::fs::metadata(file).expect("a file").len());
        assert!(sizes.max() < Some(2500));
        let lines: Vec<serde_json::Value> = files[1..]
            .iter()
            .chain([&files[0]])
            .flat_map(|file| std::fs::read_to_string(file).expect("text").lines().map(str::to_owned).collect::<Vec<_>>())
            .map(|line| serde_json::from_str(&line).expect("JSON"))
            .collect();
        let lost: Vec<_> = lines.iter().filter_map(|line| line.get("lost")?.as_u64()).collect();
        assert_eq!(lost, [5]);
        let ids: Vec<usize> = lines.iter().filter_map(|line| line["id"].as_str()?.parse().ok()).collect();
        assert_eq!(ids.last(), Some(&102), "in order, the list that was answered left out: {ids:?}");
        assert!(ids.windows(2).all(|pair| pair[1] == pair[0] + 1 || pair == [99, 101]), "{ids:?}");
        let one = lines.iter().find(|line| line["id"] == "99").expect("the line");
        assert_eq!((one["module"].as_str(), one["version"].as_str()), (Some("example.com/M"), Some("v1.0.99")));
        assert_eq!((one["kind"].as_str(), one["sum"].as_str(), one["bytes"].as_u64()), (Some("zip"), Some("h1:x"), Some(7)));
    }

    #[test]
    fn a_thread_that_cannot_keep_up_costs_lines_and_no_time() {
        let (orders, inbox) = sync_channel(4);
        let audit = Audit { orders, lost: Arc::default(), next: Arc::default() };
        for n in 0..10 {
            audit.note(event(n));
        }
        assert_eq!(audit.lost.load(Ordering::Relaxed), 6);
        drop(inbox);
        audit.note(event(10));
        assert_eq!(audit.lost.load(Ordering::Relaxed), 7);
    }
}
