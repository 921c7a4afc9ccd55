//! The scripts by which the Go tree makes the repositories of its own tests (`cmd/go/testdata/vcstest/git`), and as much of
//! their language (`cmd/internal/script`, `cmd/go/internal/vcweb/script.go`) as they use.
//!
//! A script ends by comparing the hashes of what it made with those that it should have made, so a mistake here does not stay
//! hidden.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::support::git::git;

/// What became of a script.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Built {
    /// A repository.
    Repository,
    /// A folder of pages.
    Pages,
    /// Nothing, as the script itself found.
    Skipped,
}

/// A script at work.
struct Run {
    dir: PathBuf,
    env: BTreeMap<String, String>,
    stdout: String,
    handler: Option<String>,
}

/// Runs a script in a folder, which is made.
pub(crate) fn build(text: &str, dir: &Path) -> Result<Built, String> {
    fs::create_dir_all(dir).unwrap();
    let (comment, files) = txtar(text);
    for (name, contents) in files {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, contents).unwrap();
    }
    let mut run = Run { dir: dir.to_owned(), env: BTreeMap::new(), stdout: String::new(), handler: None };
    for (number, line) in comment.lines().enumerate() {
        let done = run.line(line).map_err(|e| format!("line {}: {}: {e}", number + 1, line.trim()))?;
        if !done {
            return Ok(Built::Skipped);
        }
    }
    match run.handler.as_deref() {
        Some("git") => Ok(Built::Repository),
        Some("dir") => Ok(Built::Pages),
        other => Err(format!("handled by {other:?}")),
    }
}

/// A txtar archive: what stands before its files, and the files.
fn txtar(text: &str) -> (String, Vec<(String, String)>) {
    let (mut comment, mut files) = (String::new(), Vec::<(String, String)>::new());
    for line in text.split_inclusive('\n') {
        let name = line.trim_end().strip_prefix("-- ").and_then(|rest| rest.strip_suffix(" --"));
        match (name, files.last_mut()) {
            (Some(name), _) => files.push((name.trim().to_owned(), String::new())),
            (None, Some((_, contents))) => contents.push_str(line),
            (None, None) => comment.push_str(line),
        }
    }
    (comment, files)
}

impl Run {
    /// Runs one line; whether the script goes on.
    fn line(&mut self, line: &str) -> Result<bool, String> {
        let mut words = self.words(line)?;
        while words.first().is_some_and(|word| word.starts_with('[') && word.ends_with(']')) {
            // Every git that these tests run with knows SHA-256; of another condition nothing is known.
            match words.remove(0).as_str() {
                "[git-sha256]" => {}
                "[!git-sha256]" => return Ok(true),
                other => return Err(format!("unknown condition {other}")),
            }
        }
        let Some((command, arguments)) = words.split_first() else { return Ok(true) };
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        match (command.as_str(), arguments.as_slice()) {
            ("skip", _) => return Ok(false),
            ("handle", [handler]) => self.handler = Some((*handler).to_owned()),
            ("at", [time]) => {
                for name in ["GIT_COMMITTER_DATE", "GIT_AUTHOR_DATE"] {
                    self.env.insert(name.to_owned(), (*time).to_owned());
                }
            }
            ("env", pairs) => {
                for pair in pairs {
                    let (name, value) = pair.split_once('=').ok_or("no value")?;
                    self.env.insert(name.to_owned(), value.to_owned());
                }
            }
            ("git", arguments) => self.git(arguments)?,
            ("echo", words) => self.stdout = format!("{}\n", words.join(" ")),
            ("unquote", [text]) => self.stdout = unquote(text)?,
            ("mkdir", dirs) => dirs.iter().try_for_each(|dir| fs::create_dir_all(self.dir.join(dir))).map_err(|e| e.to_string())?,
            ("cd", [dir]) => self.dir = self.dir.join(dir),
            ("cp", [from, to]) => fs::write(self.dir.join(to), self.read(from)?).map_err(|e| e.to_string())?,
            ("cmp", [one, other]) => {
                let (one, other) = (self.read(one)?, self.read(other)?);
                if one != other {
                    return Err(format!("differ:\n{one}---\n{other}"));
                }
            }
            _ => return Err("unknown command".to_owned()),
        }
        Ok(true)
    }

    /// A file, or what the last command printed.
    fn read(&self, name: &str) -> Result<String, String> {
        match name {
            "stdout" => Ok(self.stdout.clone()),
            name => fs::read_to_string(self.dir.join(name)).map_err(|e| e.to_string()),
        }
    }

    fn git(&mut self, arguments: &[&str]) -> Result<(), String> {
        let output = git(&self.dir).envs(&self.env).args(arguments).output().unwrap();
        self.stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
    }

    /// The words of a line: separated by blanks, except in single quotes, outside of which variables are replaced too.
    fn words(&self, line: &str) -> Result<Vec<String>, String> {
        let (mut words, mut word) = (Vec::new(), None::<String>);
        let mut chars = line.chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                '#' => break,
                ' ' | '\t' | '\r' => words.extend(word.take()),
                '\'' => {
                    let word = word.get_or_insert_default();
                    loop {
                        match chars.next().ok_or("unterminated quoted argument")? {
                            '\'' if chars.next_if_eq(&'\'').is_some() => word.push('\''),
                            '\'' => break,
                            c => word.push(c),
                        }
                    }
                }
                '$' => {
                    let mut name = String::new();
                    while let Some(c) = chars.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
                        name.push(c);
                    }
                    word.get_or_insert_default().push_str(self.env.get(&name).map_or("", String::as_str));
                }
                c => word.get_or_insert_default().push(c),
            }
        }
        words.extend(word);
        Ok(words)
    }
}

/// The inside of a Go string literal.
fn unquote(text: &str) -> Result<String, String> {
    let mut plain = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        plain.push(match c {
            '\\' => match chars.next() {
                Some('n') => '\n',
                Some('t') => '\t',
                Some(c @ ('\\' | '"')) => c,
                other => return Err(format!("unknown escape {other:?}")),
            },
            c => c,
        });
    }
    Ok(plain)
}
