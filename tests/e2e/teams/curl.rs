//! Requests by the `curl` program.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::helpers::program;

/// How curl prints what it knows of a transfer.
const SAID: &str = "%{http_code} %{http_version} %{num_connects}";

/// curl with arguments of its own.
#[derive(Clone)]
pub(super) struct Client {
    arguments: Vec<String>,
}

/// What came.
pub(super) struct Answer {
    /// curl's exit code: 0 is that all of the answer came.
    pub(super) code: i32,
    pub(super) status: u16,
    /// `1.1` or `2`.
    pub(super) version: String,
    pub(super) body: Vec<u8>,
    headers: HashMap<String, String>,
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The status of an answer that came whole, or nothing.
    pub(super) fn whole(&self) -> Option<u16> {
        (self.code == 0).then_some(self.status)
    }
}

impl Client {
    /// One that trusts the authority in this file.
    pub(super) fn trusting(file: &Path) -> Self {
        Self { arguments: vec!["--cacert".into(), file.display().to_string()] }
    }

    /// The same with further arguments.
    pub(super) fn with(&self, arguments: &[&str]) -> Self {
        let more = arguments.iter().map(|&a| a.to_owned());
        Self { arguments: self.arguments.iter().cloned().chain(more).collect() }
    }

    /// The same with a certificate and key as [`super::openssl::Certified::lay`] lays them.
    pub(super) fn showing(&self, dir: &Path, name: &str) -> Self {
        let [pem, key] = ["pem", "key"].map(|kind| dir.join(format!("{name}.{kind}")).display().to_string());
        self.with(&["--cert", &pem, "--key", &key])
    }

    /// The same with a bearer token.
    pub(super) fn bearing(&self, token: &str) -> Self {
        self.with(&["-H", &format!("Authorization: Bearer {token}")])
    }

    /// The command, which ends after two minutes.
    pub(super) fn command(&self) -> Command {
        let mut command = Command::new(program("curl"));
        // Neither the proxies of this machine nor somebody's own settings.
        command.env_clear().arg("-q").args(["-sS", "--noproxy", "*", "--max-time", "120"]).args(&self.arguments);
        command
    }

    pub(super) fn get(&self, url: &str) -> Answer {
        let dir = TempDir::new().unwrap();
        let [body, head] = ["body", "head"].map(|name| dir.path().join(name));
        let mut command = self.command();
        let output = command.arg("-D").arg(&head).arg("-o").arg(&body).args(["-w", SAID, url]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let words: Vec<&str> = said.split(' ').collect();
        let head = fs::read_to_string(head).unwrap_or_default();
        let headers = head.lines().filter_map(|line| line.split_once(':'));
        Answer {
            code: output.status.code().unwrap_or(-1),
            status: words[0].parse().unwrap_or_default(),
            version: words.get(1).copied().unwrap_or_default().to_owned(),
            body: fs::read(body).unwrap_or_default(),
            headers: headers.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect(),
        }
    }

    /// The status of an answer that came whole, or nothing.
    pub(super) fn status(&self, url: &str) -> Option<u16> {
        self.get(url).whole()
    }
}
