//! Load by `wrk`: one thread, connections that stay open, and the paths of a workload in turn.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;
use tempfile::TempDir;

use crate::peers::{end, find};
use crate::{Result, stopped};

/// How much longer than asked for it may take.
const GRACE: Duration = Duration::from_secs(30);

/// What wrk is told: to ask for each line of a file in turn, and to say in the end what came of it.
const SCRIPT: &str = r#"
local requests, at = {}, 0

function init(args)
  for path in io.lines(args[1]) do
    requests[#requests + 1] = wrk.format("GET", path)
  end
end

function request()
  at = at % #requests + 1
  return requests[at]
end

function done(summary, latency)
  local e = summary.errors
  io.write(string.format('\n{"seconds": %.6f, "requests": %d, "bytes": %d, "errors": %d, "p99": %.3f}\n',
    summary.duration / 1e6, summary.requests, summary.bytes,
    e.connect + e.read + e.write + e.timeout + e.status, latency:percentile(99) / 1e3))
end
"#;

/// What wrk counted.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(crate) struct Load {
    /// How long it asked.
    pub(crate) seconds: f64,
    /// Whole answers.
    pub(crate) requests: f64,
    /// Bytes received, those of answers that were not finished among them.
    pub(crate) bytes: f64,
    /// Failed connections and answers that were no 200.
    pub(crate) errors: u64,
    /// Milliseconds within which 99 of 100 requests were answered.
    pub(crate) p99: f64,
}

/// wrk with its script.
pub(crate) struct Wrk {
    program: PathBuf,
    dir: TempDir,
}

impl Wrk {
    /// Finds it.
    pub(crate) fn new() -> Result<Self> {
        let wrk = Self { program: find("wrk", "wrk")?, dir: tempfile::tempdir()? };
        fs::write(wrk.dir.path().join("paths.lua"), SCRIPT)?;
        Ok(wrk)
    }

    /// Asks a server for these paths.
    pub(crate) fn run(&self, address: &str, paths: &[String], connections: u32, seconds: u64) -> Result<Load> {
        let (list, out) = (self.dir.path().join("paths"), self.dir.path().join("out"));
        fs::write(&list, paths.join("\n"))?;
        let mut command = Command::new(&self.program);
        command.args(["-t1", "--timeout", "30s", &format!("-c{connections}"), &format!("-d{seconds}s"), "-s"]);
        command.arg(self.dir.path().join("paths.lua")).arg(format!("http://{address}")).arg("--").arg(list);
        let file = File::create(&out)?;
        let mut child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .process_group(0)
            .spawn()
            .map_err(|e| format!("wrk: {e}"))?;
        let deadline = Instant::now() + Duration::from_secs(seconds) + GRACE;
        let status = loop {
            match child.try_wait()? {
                Some(status) => break Some(status),
                None if stopped() || Instant::now() > deadline => break None,
                None => thread::sleep(Duration::from_millis(10)),
            }
        };
        end(&mut child);
        if stopped() {
            return Err("stopped".into());
        }
        let said = fs::read_to_string(&out)?;
        let line = said.lines().rev().find(|line| line.starts_with('{')).filter(|_| status.is_some_and(|s| s.success()));
        Ok(serde_json::from_str(line.ok_or_else(|| format!("wrk did not finish:\n{said}"))?)?)
    }
}
