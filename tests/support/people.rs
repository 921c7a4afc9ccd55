//! People who say who they are: tokens and passwords made by the program itself, as a person would make them, and the headers that
//! carry them.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::gate::program;

/// Adds a token of this name to a file, and gives its text.
pub fn token(file: &Path, name: &str) -> String {
    let output = program().args(["hash-password", "--token", name]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    append(file, &output.stdout);
    said.split_whitespace().last().unwrap().to_owned()
}

/// Adds a user with this password to a file.
pub fn user(file: &Path, name: &str, password: &str) {
    let mut command = program();
    let mut child = command.args(["hash-password", name]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    writeln!(child.stdin.take().unwrap(), "{password}").unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    append(file, &output.stdout);
}

fn append(file: &Path, line: &[u8]) {
    OpenOptions::new().create(true).append(true).open(file).unwrap().write_all(line).unwrap();
}

/// The `Authorization` of a user and password.
pub fn basic(user: &str, password: impl AsRef<[u8]>) -> String {
    format!("Basic {}", STANDARD.encode([user.as_bytes(), b":", password.as_ref()].concat()))
}

/// The `Authorization` of a token.
pub fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}
