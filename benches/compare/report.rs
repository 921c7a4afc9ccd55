//! Rounds made into tables.

use std::fmt::Write as _;

use crate::Result;
use crate::peers::{OWN, REFERENCE};

/// One measurement of a workload.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    /// The workload.
    pub(crate) workload: &'static str,
    /// The server.
    pub(crate) peer: &'static str,
    /// The round.
    pub(crate) round: u64,
    /// What it cost, in the workload's unit.
    pub(crate) cost: f64,
    /// Requests or megabytes a second.
    pub(crate) rate: f64,
    /// Milliseconds.
    pub(crate) p99: f64,
    /// MiB.
    pub(crate) peak: f64,
    /// Answers that failed under load, or whose bodies were not the upstream's.
    pub(crate) wrong: u64,
}

/// One herd.
#[derive(Debug, Clone)]
pub(crate) struct HerdRow {
    /// The server.
    pub(crate) peer: &'static str,
    /// Fetches of the zip that the upstream saw.
    pub(crate) fetches: u64,
    /// Seconds to the first byte, the middle client's and the last one's.
    pub(crate) first_byte: [f64; 2],
    /// Seconds until the last client had everything.
    pub(crate) total: f64,
    /// MiB.
    pub(crate) peak: f64,
    /// Seconds of CPU.
    pub(crate) cpu: f64,
    /// Clients that did not get the whole and right zip.
    pub(crate) wrong: u64,
}

/// One answer out of a git repository, or those that a version is made of.
#[derive(Debug, Clone)]
pub(crate) struct VcsRow {
    /// The repository.
    pub(crate) repository: &'static str,
    /// What was asked for.
    pub(crate) step: &'static str,
    /// The server.
    pub(crate) peer: &'static str,
    /// The round.
    pub(crate) round: u64,
    /// How long it took.
    pub(crate) seconds: f64,
    /// Seconds of CPU.
    pub(crate) cpu: f64,
    /// Requests that the git server saw.
    pub(crate) requests: u64,
    /// Answers that failed, or said something else than another server's.
    pub(crate) wrong: u64,
}

/// The middle of these values.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => f64::midpoint(values[n / 2 - 1], values[n / 2]),
    }
}

/// Three digits, more or less.
fn short(value: f64) -> String {
    match value {
        v if v.is_nan() => "-".into(),
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v if v >= 1.0 => format!("{v:.2}"),
        v => format!("{v:.3}"),
    }
}

/// Workloads under load: medians over the rounds. `units` says for a workload in what its cost and its rate are given.
pub(crate) fn loads(rows: &[Row], units: impl Fn(&str) -> (&'static str, &'static str)) -> Result<String> {
    let mut out = format!("| workload | server | CPU cost | x {REFERENCE} (spread) | throughput | p99 ms | peak MiB | wrong |\n");
    out.push_str("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |\n");
    for (workload, peer) in in_order(rows.iter().map(|r| (r.workload, r.peer))) {
        let mine: Vec<&Row> = rows.iter().filter(|r| r.workload == workload && r.peer == peer).collect();
        let middle = |of: fn(&Row) -> f64| short(median(mine.iter().map(|r| of(r))));
        let reference = |round| rows.iter().find(|r| r.workload == workload && r.peer == REFERENCE && r.round == round);
        let ratios: Vec<f64> = mine.iter().filter_map(|r| Some(r.cost / reference(r.round)?.cost)).collect();
        let (cost, rate) = units(workload);
        writeln!(
            out,
            "| {workload} | {peer} | {} {cost} | {} | {} {rate} | {} | {} | {} |",
            middle(|r| r.cost),
            spread(&ratios),
            middle(|r| r.rate),
            middle(|r| r.p99),
            middle(|r| r.peak),
            mine.iter().map(|r| r.wrong).sum::<u64>(),
        )?;
    }
    Ok(out)
}

/// Herds: medians over the rounds, but the most of all rounds where a fault would be in being more.
pub(crate) fn herds(rows: &[HerdRow]) -> Result<String> {
    let mut out =
        String::from("| server | upstream fetches | first byte p50 s | first byte max s | total s | peak MiB | CPU s | wrong |\n");
    out.push_str("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n");
    for peer in in_order(rows.iter().map(|r| r.peer)) {
        let mine: Vec<&HerdRow> = rows.iter().filter(|r| r.peer == peer).collect();
        let middle = |of: fn(&HerdRow) -> f64| short(median(mine.iter().map(|r| of(r))));
        writeln!(
            out,
            "| {peer} | {} | {} | {} | {} | {} | {} | {} |",
            mine.iter().map(|r| r.fetches).max().unwrap_or(0),
            middle(|r| r.first_byte[0]),
            middle(|r| r.first_byte[1]),
            middle(|r| r.total),
            middle(|r| r.peak),
            middle(|r| r.cpu),
            mine.iter().map(|r| r.wrong).sum::<u64>(),
        )?;
    }
    Ok(out)
}

/// Answers out of git repositories: medians over the rounds, and of times also how they compare with this modgate's in the same
/// round.
pub(crate) fn vcs(rows: &[VcsRow]) -> Result<String> {
    let mut out = format!("| repository | step | server | time ms | x {OWN} (spread) | CPU ms | git requests | wrong |\n");
    out.push_str("| --- | --- | --- | ---: | ---: | ---: | ---: | ---: |\n");
    for (repository, step) in in_order(rows.iter().map(|r| (r.repository, r.step))) {
        let here: Vec<&VcsRow> = rows.iter().filter(|r| r.repository == repository && r.step == step).collect();
        let time = |peer, round| median(here.iter().filter(|r| r.peer == peer && r.round == round).map(|r| r.seconds));
        for peer in in_order(here.iter().map(|r| r.peer)) {
            let mine: Vec<&&VcsRow> = here.iter().filter(|r| r.peer == peer).collect();
            let middle = |of: fn(&VcsRow) -> f64| short(median(mine.iter().map(|r| of(r))));
            let ratios: Vec<f64> =
                in_order(mine.iter().map(|r| r.round)).into_iter().map(|n| time(peer, n) / time(OWN, n)).collect();
            writeln!(
                out,
                "| {repository} | {step} | {peer} | {} | {} | {} | {} | {} |",
                middle(|r| r.seconds * 1e3),
                spread(&ratios),
                middle(|r| r.cpu * 1e3),
                mine.iter().map(|r| r.requests).max().unwrap_or(0),
                mine.iter().map(|r| r.wrong).sum::<u64>(),
            )?;
        }
    }
    Ok(out)
}

/// The middle of some ratios, the least, and the most.
fn spread(ratios: &[f64]) -> String {
    let (low, high) = ratios.iter().fold((f64::MAX, f64::MIN), |(low, high), r| (low.min(*r), high.max(*r)));
    format!("{:.2} ({low:.2}..{high:.2})", median(ratios.iter().copied()))
}

/// Each value once, where it first stood.
fn in_order<T: PartialEq>(values: impl Iterator<Item = T>) -> Vec<T> {
    values.fold(Vec::new(), |mut seen, value| {
        if !seen.contains(&value) {
            seen.push(value);
        }
        seen
    })
}
