//! What a server's processes use, as the system counts it.

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// The unit of CPU times in `/proc`: Linux shows them to programs in hundredths of a second on x86 and Arm.
const TICKS_A_SECOND: f64 = 100.0;
/// How often memory is looked at. Looking stops a server for a moment, so not too often.
const SAMPLE: Duration = Duration::from_millis(200);

/// What was used between [`Watch::start`] and [`Watch::stop`] by a process and its children, dead ones too.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Used {
    /// Seconds of CPU, user and system.
    pub(crate) cpu: f64,
    /// The most memory in MiB: of all processes together, shared pages counted once (Pss, sampled), and at least what the
    /// largest of them had at its peak (`VmHWM`).
    pub(crate) peak: f64,
}

/// An observation that is under way.
pub(crate) struct Watch {
    pid: u32,
    cpu: f64,
    done: Arc<AtomicBool>,
    sampler: Option<JoinHandle<()>>,
    peak: Arc<Mutex<u64>>,
}

impl Watch {
    /// Begins to watch a process and its children.
    pub(crate) fn start(pid: u32) -> Self {
        for pid in tree(pid) {
            // Sets its VmHWM back; where that is not allowed, the peak is that of its whole life.
            let _ = fs::write(format!("/proc/{pid}/clear_refs"), "5");
        }
        let (done, peak) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(0)));
        let sampler = {
            let (done, peak) = (Arc::clone(&done), Arc::clone(&peak));
            thread::spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    raise(&peak, tree(pid).into_iter().map(|p| kilobytes(p, "smaps_rollup", "Pss:")).sum());
                    thread::park_timeout(SAMPLE);
                }
            })
        };
        Self { pid, cpu: cpu(pid), done, sampler: Some(sampler), peak }
    }

    /// Ends it.
    pub(crate) fn stop(mut self) -> Used {
        let cpu = cpu(self.pid) - self.cpu;
        raise(&self.peak, tree(self.pid).into_iter().map(|p| kilobytes(p, "status", "VmHWM:")).max().unwrap_or(0));
        self.end();
        let peak = *self.peak.lock().unwrap_or_else(PoisonError::into_inner);
        Used { cpu, peak: f64::from(u32::try_from(peak).unwrap_or(u32::MAX)) / 1024.0 }
    }

    fn end(&mut self) {
        self.done.store(true, Ordering::Relaxed);
        if let Some(sampler) = self.sampler.take() {
            sampler.thread().unpark();
            let _ = sampler.join();
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.end();
    }
}

fn raise(peak: &Mutex<u64>, seen: u64) {
    let mut peak = peak.lock().unwrap_or_else(PoisonError::into_inner);
    *peak = seen.max(*peak);
}

/// The fields of `/proc/<pid>/stat` after the program's name, which may itself hold spaces; the first is the state.
fn stat(pid: u32) -> Option<Vec<i64>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = text.rsplit_once(')')?;
    Some(fields.split_whitespace().map(|field| field.parse().unwrap_or(0)).collect())
}

/// A process and all below it.
fn tree(root: u32) -> Vec<u32> {
    let mut children: BTreeMap<i64, Vec<u32>> = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        if let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok())
            && let Some(parent) = stat(pid).and_then(|fields| fields.get(1).copied())
        {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = vec![root];
    let mut at = 0;
    while let Some(pid) = found.get(at) {
        found.extend(children.remove(&i64::from(*pid)).unwrap_or_default());
        at += 1;
    }
    found
}

/// The CPU seconds of a tree, those of its dead children among them.
pub(crate) fn cpu(root: u32) -> f64 {
    let ticks: i64 = tree(root).into_iter().filter_map(stat).filter_map(|f| f.get(11..15).map(|t| t.iter().sum::<i64>())).sum();
    f64::from(u32::try_from(ticks).unwrap_or(0)) / TICKS_A_SECOND
}

/// A field of a file of `/proc/<pid>`, given there in kB.
fn kilobytes(pid: u32, file: &str, field: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    line.and_then(|value| value.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
