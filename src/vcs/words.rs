//! What git's complaints mean, and how they are shown.

use std::path::{Path, PathBuf};

use super::error::VcsError;
use super::remote::RepoUrl;
use crate::process::ProcessError;
use crate::store::evict;

/// What git's end means that worked in `folder`. Its words are in English, by `LC_ALL`. `files` are shown by other names.
pub(super) fn classified(e: &ProcessError, url: &RepoUrl, folder: &Path, files: &[(PathBuf, &str)]) -> VcsError {
    let complaint = match e {
        ProcessError::Failed { complaint, .. } => complaint,
        ProcessError::Start { missing: true, .. } => {
            return VcsError::broken("the program git is not installed where modgate runs");
        }
        ProcessError::Timeout { .. } => {
            return VcsError::Broken { why: format!("{}: {e}", url.authority()), hangs: true, may_pass: false };
        }
        ProcessError::Start { .. } | ProcessError::TooMuch { .. } => return VcsError::broken(e.to_string()),
    };
    // The URL is in it, and a repository may have any name.
    let lower = complaint.to_lowercase().replace(url.as_str().trim_end_matches('/').to_lowercase().as_str(), "");
    let status = lower.split("returned error: ").nth(1).and_then(|rest| rest.get(..3)?.parse::<u16>().ok());
    // A server's own words come along with its status, and say nothing more reliable.
    let own = |line: &&str| status.is_none() || !line.starts_with("remote:");
    let lower = lower.lines().filter(own).collect::<Vec<_>>().join("\n");
    let says = |words: &[&str]| words.iter().any(|w| lower.contains(w));
    let why = format!("git, {}: {}", url.authority(), shown(complaint, files));
    if had_no_room(complaint, folder) {
        VcsError::NoRoom(why)
    } else if says(&MISSING) || status == Some(410) {
        VcsError::NotFound(why)
    } else if says(&DENIED) {
        VcsError::Denied(why)
    } else {
        let hangs = says(&["timed out", "operation too slow", "timeout"]);
        VcsError::Broken { why, hangs, may_pass: !hangs && says(&PASSING) }
    }
}

/// Whether a program that worked in `folder` complains of a full disk, and that disk is full or nearly so: the words may be the
/// server's, or a lie. What the program could not finish lies there still.
pub(super) fn had_no_room(complaint: &str, folder: &Path) -> bool {
    tells_full(complaint) && evict::free(folder).is_some_and(|free| free < NEARLY)
}

fn tells_full(complaint: &str) -> bool {
    let lower = complaint.to_lowercase();
    FULL.iter().any(|words| lower.contains(words))
}

/// Whether git complains of the mirror itself: files of it were lost or cut off, as by a power failure.
pub(super) fn tells_damage(e: &ProcessError) -> bool {
    let ProcessError::Failed { complaint, .. } = e else { return false };
    let own = complaint.lines().filter(|line| line.starts_with("error: ") || line.starts_with("fatal: "));
    own.into_iter().any(|line| DAMAGED.iter().any(|words| line.contains(words)))
}

const DAMAGED: [&str; 8] = [
    "object file ",
    "loose object ",
    "packfile ",
    "index file ",
    "bad object ",
    "bad tree object ",
    "unable to read tree",
    "fatal: not a git repository: ",
];
/// A disk with less than so many bytes left may have had no room for a part of what was to be written.
const NEARLY: u64 = 64 << 20;
const FULL: [&str; 2] = ["no space left on device", "disk quota exceeded"];
const MISSING: [&str; 7] = [
    "repository not found",
    "does not appear to be a git repository",
    "/' not found",
    "could not be found",
    "access denied or repository not exported",
    "does not exist or you do not have",
    "no such repository",
];
const DENIED: [&str; 9] = [
    "authentication failed",
    "could not read username",
    "could not read password",
    "terminal prompts disabled",
    "permission denied",
    "returned error: 401",
    "returned error: 403",
    "access denied",
    "invalid credentials",
];
const PASSING: [&str; 10] = [
    "could not resolve host",
    "temporary failure in name resolution",
    "connection refused",
    "connection reset",
    "couldn't connect",
    "failed to connect",
    "early eof",
    "hung up unexpectedly",
    "returned error: 5",
    "unexpected disconnect",
];

/// What git and ssh add to every failure, or advise whoever sits before them.
const IDLE_WORDS: [&str; 5] = [
    "fatal: Could not read from remote repository",
    "Please make sure you have the correct access rights",
    "and the repository exists.",
    "remove with:",
    "ssh-keygen -f",
];

/// The end of what a program complained of, as one line in which these files have other names.
fn shown(complaint: &str, files: &[(PathBuf, &str)]) -> String {
    let lines: Vec<&str> = complaint.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    let idle = |line: &&str| IDLE_WORDS.iter().any(|words| line.starts_with(words));
    let telling: Vec<&str> = lines.iter().copied().filter(|line| !idle(line)).collect();
    let lines = if telling.is_empty() { lines } else { telling };
    let last = lines[lines.len().saturating_sub(4)..].join("; ");
    let named = files.iter().filter(|(path, _)| path.components().count() > 1);
    let last = named.fold(last, |text, (path, name)| text.replace(&*path.to_string_lossy(), name));
    let clean: String = last.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let from = clean.char_indices().rev().nth(500).map_or(0, |(at, _)| at);
    clean[from..].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_git_complains_of_is_told_apart_whatever_servers_and_repositories_are_called() {
        let failed = |complaint: &str| ProcessError::Failed { program: "git".into(), code: Some(128), complaint: complaint.into() };
        let url = RepoUrl::parse("https://h.example/timeout-access/denied").expect("url");
        let class = |complaint: &str| classified(&failed(complaint), &url, Path::new("."), &[]);
        let access = "fatal: unable to access 'https://h.example/timeout-access/denied/': ";
        let said = |status: u16| {
            class(&format!("remote: the backend could not be found\n{access}The requested URL returned error: {status}"))
        };
        assert!(matches!(said(503), VcsError::Broken { hangs: false, may_pass: true, .. }));
        assert!(matches!((said(401), said(403)), (VcsError::Denied(_), VcsError::Denied(_))));
        assert!(said(410).is_not_found());
        assert!(class("fatal: repository 'https://h.example/timeout-access/denied/' not found").is_not_found());
        assert!(class("remote: ERROR: The project you were looking for could not be found.").is_not_found());
        assert!(matches!(class(&format!("{access}Failed to connect")), VcsError::Broken { hangs: false, may_pass: true, .. }));
        // Whoever has as much room as this machine has no full disk, whatever a server says.
        let full = "fatal: write error: No space left on device";
        assert!(tells_full(full) && matches!(class(full), VcsError::Broken { .. }));
        assert!(matches!(class(&format!("remote: {full}\nfatal: early EOF")), VcsError::Broken { may_pass: true, .. }));
        assert!(matches!(class(&format!("{access}Operation timed out")), VcsError::Broken { hangs: true, .. }));
    }

    #[test]
    fn what_tells_nothing_is_left_out_and_files_have_other_names() {
        let boilerplate = "fatal: Could not read from remote repository.\n\nPlease make sure you have the correct access rights\nand the repository exists.";
        let files = [("/etc/keys/a".into(), "ssh_key_file"), ("/".into(), "~")];
        let said = shown(
            &format!("Load key \"/etc/keys/a\": bad permissions\ngit@h: Permission denied (publickey).\n{boilerplate}"),
            &files,
        );
        assert_eq!(said, "Load key \"ssh_key_file\": bad permissions; git@h: Permission denied (publickey).");
        assert!(shown(boilerplate, &files).contains("Could not read"));
    }

    proptest! {
        #[test]
        fn nothing_that_git_could_say_breaks_it(text in "(\\PC|[\n/x]){0,600}") {
            let _ = shown(&text, &[("/x".into(), "x")]);
        }
    }
}
