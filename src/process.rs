//! Layer 3: other programs, within bounds.
//!
//! A program runs without a shell, without a terminal and in an environment of its own, as the leader of a process group. Its time and
//! its output are limited; where a limit is reached, or nobody waits for it any more, the whole group is killed, so that nothing that
//! it started lives on.

use std::ffi::{OsStr, OsString};
use std::io::PipeReader;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process_group, prlimit};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

/// The most of a program's complaints that is kept, in bytes.
const MAX_COMPLAINT: usize = 16 << 10;

/// A program to run.
#[derive(Debug, Clone)]
pub struct Run {
    program: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    folder: Option<PathBuf>,
    input: Vec<u8>,
    time: Duration,
    output: usize,
    /// The largest file that it may write, in bytes.
    file: Option<u64>,
}

/// Why a program did not do its work.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ProcessError {
    /// It could not be started.
    #[error("cannot run {program}: {why}")]
    Start {
        /// The program's name.
        program: String,
        /// What the system said.
        why: String,
        /// Whether there is no such program.
        missing: bool,
    },
    /// It took too long and was killed.
    #[error("{program} took longer than its limit of {} s", .limit.as_secs_f64())]
    Timeout {
        /// The program's name.
        program: String,
        /// Its limit.
        limit: Duration,
    },
    /// It wrote too much and was killed.
    #[error("{program} wrote more than {limit} bytes")]
    TooMuch {
        /// The program's name.
        program: String,
        /// Its limit.
        limit: usize,
    },
    /// It ended with another code than 0.
    #[error("{program}: {complaint}")]
    Failed {
        /// The program's name.
        program: String,
        /// Its exit code; none where a signal ended it.
        code: Option<i32>,
        /// What it wrote to its standard error.
        complaint: String,
    },
}

impl Run {
    /// A program with an empty environment, but for where programs and temporary files are.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        let inherited = ["PATH", "TMPDIR"].into_iter().filter_map(|name| Some((name.into(), std::env::var_os(name)?)));
        Self {
            program: program.into(),
            arguments: Vec::new(),
            environment: inherited.collect(),
            folder: None,
            input: Vec::new(),
            time: Duration::from_secs(60),
            output: 1 << 20,
            file: None,
        }
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments.extend(arguments.into_iter().map(|a| a.as_ref().to_owned()));
        self
    }

    /// Adds a variable.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Adds variables.
    #[must_use]
    pub fn envs<N: AsRef<OsStr>, V: AsRef<OsStr>>(self, variables: impl IntoIterator<Item = (N, V)>) -> Self {
        variables.into_iter().fold(self, |run, (name, value)| run.env(name, value))
    }

    /// Runs it in a folder.
    #[must_use]
    pub fn folder(mut self, folder: &Path) -> Self {
        self.folder = Some(folder.to_owned());
        self
    }

    /// What it reads from its standard input.
    #[must_use]
    pub fn input(mut self, input: Vec<u8>) -> Self {
        self.input = input;
        self
    }

    /// How long it may run, and how many bytes it may write.
    #[must_use]
    pub fn limits(mut self, time: Duration, output: usize) -> Self {
        (self.time, self.output) = (time, output);
        self
    }

    /// The largest file that it, and what it starts, may write, in bytes; the system ends one that writes on.
    #[must_use]
    pub fn largest_file(mut self, bytes: u64) -> Self {
        self.file = Some(bytes);
        self
    }

    /// Runs it to its end; what it wrote.
    ///
    /// # Errors
    /// That it did not start, was killed, or failed.
    pub async fn output(self) -> Result<Vec<u8>, ProcessError> {
        let (written, failed) = self.ended().await?;
        failed.map_or(Ok(written), Err)
    }

    /// Runs it to its end, for a program that prints even where it fails: what it wrote, and what it complained of.
    ///
    /// # Errors
    /// That it did not start or was killed.
    pub async fn output_and_complaint(self) -> Result<(Vec<u8>, String), ProcessError> {
        match self.ended().await? {
            (written, None) => Ok((written, String::new())),
            (written, Some(ProcessError::Failed { code: Some(_), complaint, .. })) => Ok((written, complaint)),
            (_, Some(e)) => Err(e),
        }
    }

    /// Runs it to its end; what it wrote, and how it failed.
    async fn ended(self) -> Result<(Vec<u8>, Option<ProcessError>), ProcessError> {
        let mut started = self.start(Stdio::piped())?;
        let stdout = started.child.stdout.take();
        let limit = self.output;
        let work = async {
            let (kept, complaint) = tokio::join!(read(stdout, limit), started.attend(&self.input));
            kept.map(|kept| (kept, complaint))
        };
        match tokio::time::timeout(self.time, work).await {
            Err(_) => Err(ProcessError::Timeout { program: self.name(), limit: self.time }),
            Ok(None) => Err(ProcessError::TooMuch { program: self.name(), limit }),
            Ok(Some((kept, complaint))) => match started.end(&self, complaint).await {
                Ok(()) => Ok((kept, None)),
                Err(e @ ProcessError::Failed { .. }) => Ok((kept, Some(e))),
                Err(e) => Err(e),
            },
        }
    }

    /// Starts it; what it writes is read from a pipe by a thread that may block. Whoever reads has to wait for [`Running::end`]: only
    /// its success says that the end of the pipe is the end of the output.
    ///
    /// # Errors
    /// That it did not start.
    pub fn stream(self) -> Result<(PipeReader, Running), ProcessError> {
        let failed = |e: &std::io::Error| self.not_started(e);
        let (reader, writer) = std::io::pipe().map_err(|e| failed(&e))?;
        let started = self.start(Stdio::from(writer))?;
        Ok((reader, Running { started, run: self }))
    }

    fn name(&self) -> String {
        self.program.file_name().unwrap_or(self.program.as_os_str()).to_string_lossy().into_owned()
    }

    fn not_started(&self, e: &std::io::Error) -> ProcessError {
        let missing = e.kind() == std::io::ErrorKind::NotFound;
        ProcessError::Start { program: self.name(), why: e.to_string(), missing }
    }

    fn start(&self, stdout: Stdio) -> Result<Started, ProcessError> {
        let mut command = Command::new(whole_path(&self.program).as_deref().unwrap_or(&self.program));
        command.args(&self.arguments).env_clear().envs(self.environment.iter().map(|(n, v)| (n, v)));
        let input = if self.input.is_empty() { Stdio::null() } else { Stdio::piped() };
        command.stdin(input).stdout(stdout).stderr(Stdio::piped()).process_group(0).kill_on_drop(true);
        if let Some(folder) = &self.folder {
            command.current_dir(folder);
        }
        let child = command.spawn().map_err(|e| self.not_started(&e))?;
        let group = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        if let (Some(bytes), Some(_)) = (self.file, group) {
            let limit = Rlimit { current: Some(bytes), maximum: Some(bytes) };
            // It may have ended already. What it starts later has the same limit.
            let _ = prlimit(group, Resource::Fsize, limit);
        }
        Ok(Started { child, group })
    }
}

/// Where `PATH` has a program. One that is started by its whole path costs no copy of this process's memory (`posix_spawn` rather than
/// `fork`), which takes the longer the more memory there is: milliseconds, in which all of its threads may have to wait.
fn whole_path(program: &Path) -> Option<PathBuf> {
    let is_program = |file: &PathBuf| file.is_file() && rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok();
    let bare = program.components().count() == 1 && program.is_relative();
    let path = std::env::var_os("PATH").filter(|_| bare)?;
    std::env::split_paths(&path).filter(|folder| folder.is_absolute()).map(|folder| folder.join(program)).find(is_program)
}

/// A program whose output is being read elsewhere. Dropped, it is killed.
#[derive(Debug)]
pub struct Running {
    started: Started,
    run: Run,
}

impl Running {
    /// Waits for its end.
    ///
    /// # Errors
    /// That it was killed, or failed.
    pub async fn end(mut self) -> Result<(), ProcessError> {
        let attended = tokio::time::timeout(self.run.time, self.started.attend(&self.run.input)).await;
        match attended {
            Err(_) => Err(ProcessError::Timeout { program: self.run.name(), limit: self.run.time }),
            Ok(complaint) => self.started.end(&self.run, complaint).await,
        }
    }
}

/// A process that runs, and its group.
#[derive(Debug)]
struct Started {
    child: Child,
    group: Option<Pid>,
}

impl Started {
    /// Feeds it and listens to its complaints, to their end.
    async fn attend(&mut self, input: &[u8]) -> String {
        let (stdin, stderr) = (self.child.stdin.take(), self.child.stderr.take());
        let feed = async {
            if let Some(mut stdin) = stdin {
                // One that does not want it all ends earlier, and its code says why.
                let _ = stdin.write_all(input).await;
            }
        };
        let ((), complaint) = tokio::join!(feed, listen(stderr));
        String::from_utf8_lossy(&complaint).trim().to_owned()
    }

    /// Waits for its code. It has closed its output already, so that it is about to end; one that is not is killed.
    async fn end(mut self, run: &Run, complaint: String) -> Result<(), ProcessError> {
        let ended = tokio::time::timeout(run.time, self.child.wait()).await;
        let status = match ended {
            Err(_) => return Err(ProcessError::Timeout { program: run.name(), limit: run.time }),
            Ok(status) => status.map_err(|e| run.not_started(&e))?,
        };
        // It has been waited for: its number may be somebody else's from now on.
        self.group = None;
        if status.success() {
            return Ok(());
        }
        Err(ProcessError::Failed { program: run.name(), code: status.code(), complaint })
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if let Some(group) = self.group {
            // It may have ended by itself.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// Reads to the end; `None` where that is further than the limit.
async fn read(from: Option<impl AsyncRead + Unpin>, limit: usize) -> Option<Vec<u8>> {
    let mut kept = Vec::new();
    // A pipe that cannot be read has come to its end.
    let _ = from?.take(limit as u64 + 1).read_to_end(&mut kept).await;
    (kept.len() <= limit).then_some(kept)
}

/// Reads to the end and keeps the last bytes, where the reason stands.
async fn listen(from: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let (mut kept, mut piece) = (Vec::new(), [0; 4096]);
    let Some(mut from) = from else { return kept };
    while let Ok(count @ 1..) = from.read(&mut piece).await {
        kept.extend_from_slice(&piece[..count]);
        let over = kept.len().saturating_sub(MAX_COMPLAINT);
        kept.drain(..over);
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(future: impl Future<Output = Result<Vec<u8>, ProcessError>>) -> Result<Vec<u8>, ProcessError> {
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime").block_on(future)
    }

    fn shell(script: &str) -> Run {
        Run::new("/bin/sh").args(["-c", script])
    }

    #[test]
    fn a_program_is_fed_and_heard() {
        let done = run(shell("cat; echo \"$A$HOME\"").env("A", "a").input(b"in ".to_vec()).output());
        assert_eq!(done.expect("output"), b"in a\n");
        let failed = run(shell("echo no >&2; exit 3").output());
        assert!(matches!(failed, Err(ProcessError::Failed { code: Some(3), complaint, .. }) if complaint == "no"));
        let missing = run(Run::new("/nonexistent/program").output());
        assert!(matches!(missing, Err(ProcessError::Start { missing: true, .. })));
    }

    #[test]
    fn programs_are_found_where_path_has_them() {
        let found = whole_path(Path::new("sh")).expect("sh");
        assert!(found.is_absolute() && found.ends_with("sh"), "{}", found.display());
        assert_eq!(whole_path(Path::new("/bin/sh")), None);
        assert_eq!(whole_path(Path::new("./sh")), None);
        assert_eq!(whole_path(Path::new("no-such-program")), None);
    }

    #[test]
    fn bounds_hold_for_the_whole_group() {
        let s = Duration::from_secs;
        let wordy = run(shell("yes").limits(s(20), 1000).output());
        assert!(matches!(wordy, Err(ProcessError::TooMuch { .. })));
        let dir = tempfile::tempdir().expect("dir");
        let file = dir.path().join("large");
        let script = format!("sleep 0.2; head -c 100000 /dev/zero > {}", file.display());
        assert!(run(shell(&script).largest_file(5000).output()).is_err());
        assert_eq!(std::fs::metadata(file).expect("file").len(), 5000);
        let alive = dir.path().join("alive");
        // The child of the shell would make the file a moment later.
        let script = format!("(sleep 1; touch {}) & wait", alive.display());
        let slow = run(shell(&script).limits(Duration::from_millis(200), 1000).output());
        assert!(matches!(slow, Err(ProcessError::Timeout { .. })));
        std::thread::sleep(Duration::from_millis(1300));
        assert!(!alive.exists());
    }
}
