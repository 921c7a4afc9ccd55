//! A configuration's tables, read key by key, with every error kept instead of the first one alone.
//!
//! Each error names the file, the line and the key, or the environment variable. A [`Table`] knows which of its keys were asked
//! for; what is left over when it is finished is an unknown key.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use figment::value::{Dict, Num, Tag, Value};

use crate::base::units;
use crate::module::Pattern;

/// One thing that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Where it stands.
    pub place: Place,
    /// The key, dotted, with places in lists in brackets.
    pub key: String,
    /// What is wrong.
    pub problem: String,
}

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In a file, at a line where it is known.
    File(PathBuf, Option<usize>),
    /// In an environment variable.
    Environment(String),
    /// In the defaults that are built in.
    Default,
    /// In the machine's Go settings.
    GoSettings,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::File(path, Some(line)) => write!(f, "{}:{line}: ", path.display())?,
            Place::File(path, None) => write!(f, "{}: ", path.display())?,
            Place::Environment(name) => write!(f, "environment variable {name}: ")?,
            Place::Default => f.write_str("built-in defaults: ")?,
            Place::GoSettings => f.write_str("Go settings of this machine: ")?,
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.problem)
    }
}

/// Which layer a value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layer {
    Default,
    File,
    Environment,
}

/// A file, and which one it was before it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watch {
    /// Where it lies.
    pub path: PathBuf,
    /// Which one lay there; none where there was none.
    pub mark: Option<Mark>,
}

/// What tells one file from another under the same name, and from itself after a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Mark {
    /// That of the file which lies there now.
    pub fn of(path: &Path) -> Option<Self> {
        use std::os::unix::fs::MetadataExt;
        let meta = std::fs::metadata(path).ok()?;
        Some(Self {
            device: meta.dev(),
            inode: meta.ino(),
            length: meta.len(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        })
    }
}

impl Watch {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), mark: Mark::of(path) }
    }
}

/// What all tables of one reading share.
pub(super) struct Reading {
    pub(super) file: Option<PathBuf>,
    /// The line of each key of the file.
    pub(super) lines: HashMap<String, usize>,
    pub(super) layer_of: Box<dyn Fn(Tag) -> Layer>,
    pub(super) findings: RefCell<Vec<Finding>>,
    /// The files that were read, whose change makes another configuration.
    pub(super) files: RefCell<Vec<Watch>>,
}

impl Reading {
    /// Takes note of a file that is about to be read.
    pub(super) fn read_from(&self, path: &Path) {
        let mut files = self.files.borrow_mut();
        if !files.iter().any(|known| known.path == path) {
            files.push(Watch::new(path));
        }
    }

    pub(super) fn say(&self, tag: Option<Tag>, key: &str, problem: impl Into<String>) {
        // A variable wins over the file, so that where there is one it is what is wrong.
        let unmarked = || if value_of(&variable(key)).is_some() { Layer::Environment } else { Layer::File };
        let place = match tag.map_or_else(unmarked, |t| (self.layer_of)(t)) {
            Layer::Default => Place::Default,
            Layer::Environment => Place::Environment(variable(key)),
            Layer::File => match &self.file {
                Some(file) => Place::File(file.clone(), self.line(key)),
                // Without a file, what is missing is missing from the environment.
                None => Place::Environment(variable(key)),
            },
        };
        self.findings.borrow_mut().push(Finding { place, key: key.to_owned(), problem: problem.into() });
    }

    /// Adds a finding that has its place already.
    pub(super) fn add(&self, finding: Finding) {
        // What several upstreams take from one place is said once.
        if !self.findings.borrow().contains(&finding) {
            self.findings.borrow_mut().push(finding);
        }
    }

    /// A finding about the whole of a configuration that is allowed but worth a word.
    pub(super) fn warning(&self, key: &str, problem: impl Into<String>) -> Finding {
        let place = self.file.clone().map_or(Place::Environment("MODGATE_…".into()), |file| Place::File(file, None));
        Finding { place, key: key.to_owned(), problem: problem.into() }
    }

    /// The line of a key, or of the nearest table around it.
    fn line(&self, key: &str) -> Option<usize> {
        let mut key = key;
        loop {
            if let Some(line) = self.lines.get(key) {
                return Some(*line);
            }
            key = &key[..key.rfind(['.', '['])?];
        }
    }
}

/// The environment variable of a key.
fn variable(key: &str) -> String {
    format!("MODGATE_{}", key.to_ascii_uppercase().replace('.', "__"))
}

/// What a variable holds; figment takes the names in any case.
fn value_of(variable: &str) -> Option<OsString> {
    std::env::vars_os()
        .find(|(name, _)| name.to_str().is_some_and(|name| name.eq_ignore_ascii_case(variable)))
        .map(|(_, value)| value)
}

/// A value and where it stands.
#[derive(Clone)]
pub(super) struct Item<'r> {
    reading: &'r Reading,
    pub(super) key: String,
    value: Value,
}

impl<'r> Item<'r> {
    pub(super) fn say(&self, problem: impl Into<String>) {
        self.reading.say(Some(self.value.tag()), &self.key, problem);
    }

    /// A text. Numbers and booleans count as such: an environment variable that looks like one is one to figment.
    pub(super) fn text(&self) -> Option<String> {
        match &self.value {
            Value::String(_, s) => Some(s.clone()),
            Value::Char(_, c) => Some(c.to_string()),
            Value::Bool(_, b) => Some(b.to_string()),
            Value::Num(_, Num::F32(n)) => Some(n.to_string()),
            Value::Num(_, Num::F64(n)) => Some(n.to_string()),
            Value::Num(_, n) => n.to_i128().map(|n| n.to_string()).or_else(|| n.to_u128().map(|n| n.to_string())),
            _ => None,
        }
        .or_else(|| {
            self.say("has to be a text in quotes");
            None
        })
    }

    /// The path of a file or folder, beside the configuration file, or in the current folder where there is none.
    pub(super) fn path(&self) -> Option<PathBuf> {
        let text = match &self.value {
            Value::String(_, text) => text.clone(),
            _ if self.is_environment() => self.raw_variable().or_else(|| self.text())?,
            _ => {
                self.say("has to be a path, a text in quotes");
                return None;
            }
        };
        if text.starts_with('~') {
            self.say(format!("{text}: only a shell knows what ~ is; write the folder out, or ./~ for one of that name"));
            return None;
        }
        let folder = self.reading.file.as_deref().and_then(Path::parent);
        Some(folder.map_or_else(|| PathBuf::from(&text), |folder| folder.join(&text)))
    }

    pub(super) fn parsed<T>(&self, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        parse(&self.text()?).map_err(|e| self.say(e)).ok()
    }

    /// What came of a look at what the value names; a failure is said.
    pub(super) fn judge<T>(&self, result: Result<T, String>) -> Option<T> {
        result.map_err(|e| self.say(e)).ok()
    }

    /// What its environment variable holds, letter by letter: figment reads numbers and lists out of variables, and what it made of
    /// a secret is not the secret.
    pub(super) fn raw_variable(&self) -> Option<String> {
        value_of(&variable(&self.key))?.into_string().ok()
    }

    /// Whether it is a default that is built in.
    pub(super) fn is_default(&self) -> bool {
        (self.reading.layer_of)(self.value.tag()) == Layer::Default
    }

    /// Whether it is a text without anything in it, as a variable that is set to nothing.
    pub(super) fn is_empty(&self) -> bool {
        matches!(&self.value, Value::String(_, text) if text.trim().is_empty())
    }

    /// Whether it is this text.
    pub(super) fn is(&self, word: &str) -> bool {
        matches!(&self.value, Value::String(_, text) if text == word)
    }

    /// Whether it stands in one of modgate's own environment variables.
    pub(super) fn is_environment(&self) -> bool {
        (self.reading.layer_of)(self.value.tag()) == Layer::Environment
    }

    /// The table, where it is one.
    pub(super) fn table_or_none(self) -> Option<Table<'r>> {
        if matches!(self.value, Value::Dict(..)) { self.table() } else { None }
    }

    /// The items of a list; anything else is a list of one.
    pub(super) fn list(self) -> Vec<Item<'r>> {
        match self.value {
            Value::Array(_, values) => values
                .into_iter()
                .enumerate()
                .map(|(n, value)| Item { reading: self.reading, key: format!("{}[{n}]", self.key), value })
                .collect(),
            _ => vec![self],
        }
    }

    pub(super) fn table(self) -> Option<Table<'r>> {
        let Value::Dict(tag, dict) = self.value else {
            self.say("has to be a table");
            return None;
        };
        Some(Table { reading: self.reading, key: self.key, tag: Some(tag), dict, known: Vec::new() })
    }
}

/// A table, emptied key by key.
pub(super) struct Table<'r> {
    reading: &'r Reading,
    pub(super) key: String,
    tag: Option<Tag>,
    dict: Dict,
    known: Vec<&'static str>,
}

impl<'r> Table<'r> {
    pub(super) fn root(reading: &'r Reading, dict: Dict) -> Self {
        Self { reading, key: String::new(), tag: None, dict, known: Vec::new() }
    }

    fn path(&self, key: &str) -> String {
        if self.key.is_empty() { key.to_owned() } else { format!("{}.{key}", self.key) }
    }

    pub(super) fn say(&self, key: &str, problem: impl Into<String>) {
        let (path, tag) = if key.is_empty() { (self.key.clone(), self.tag) } else { (self.path(key), None) };
        self.reading.say(tag.or(self.tag), &path, problem);
    }

    /// Takes a value out.
    pub(super) fn take(&mut self, key: &'static str) -> Option<Item<'r>> {
        self.known.push(key);
        let value = self.dict.remove(key)?;
        Some(Item { reading: self.reading, key: self.path(key), value })
    }

    /// Whether a key is there still.
    pub(super) fn has(&self, key: &str) -> bool {
        self.dict.contains_key(key)
    }

    /// What stands in it, by name, for a table whose keys are names.
    pub(super) fn items_by_name(mut self) -> Vec<(String, Item<'r>)> {
        std::mem::take(&mut self.dict)
            .into_iter()
            .map(|(name, value)| {
                let item = Item { reading: self.reading, key: self.path(&name), value };
                (name, item)
            })
            .collect()
    }

    /// A table below this one; an empty one where there is none.
    pub(super) fn table(&mut self, key: &'static str) -> Table<'r> {
        let empty = Table { reading: self.reading, key: self.path(key), tag: None, dict: Dict::new(), known: Vec::new() };
        self.take(key).and_then(Item::table).unwrap_or(empty)
    }

    /// The tables below a table, by name.
    pub(super) fn tables(&mut self, key: &'static str) -> Vec<(String, Table<'r>)> {
        let Some(outer) = self.take(key).and_then(Item::table) else { return Vec::new() };
        outer.items_by_name().into_iter().filter_map(|(name, item)| item.table().map(|t| (name, t))).collect()
    }

    /// The tables of a list of tables.
    pub(super) fn list_of_tables(&mut self, key: &'static str) -> Vec<Table<'r>> {
        let Some(item) = self.take(key) else { return Vec::new() };
        if !matches!(item.value, Value::Array(..)) {
            item.say(format!("has to be a list of tables: [[{key}]]"));
        }
        item.list().into_iter().filter_map(Item::table).collect()
    }

    /// A text, or a list of texts.
    pub(super) fn items(&mut self, key: &'static str) -> Option<Vec<Item<'r>>> {
        Some(self.take(key)?.list())
    }

    pub(super) fn parsed<T>(&mut self, key: &'static str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        self.take(key)?.parsed(parse)
    }

    pub(super) fn duration(&mut self, key: &'static str) -> Option<Duration> {
        self.parsed(key, units::parse_duration)
    }

    /// A duration of which zero makes no sense.
    pub(super) fn limit(&mut self, key: &'static str) -> Option<Duration> {
        self.parsed(key, units::parse_limit)
    }

    pub(super) fn number(&mut self, key: &'static str, low: usize, high: usize) -> Option<usize> {
        self.parsed(key, |text| match text.trim().parse::<usize>() {
            Ok(n) if (low..=high).contains(&n) => Ok(n),
            _ => Err(format!("has to be a whole number from {low} to {high}")),
        })
    }

    pub(super) fn flag(&mut self, key: &'static str) -> Option<bool> {
        self.parsed(key, |text| text.parse().map_err(|_| "has to be true or false".to_owned()))
    }

    /// One of a few words.
    pub(super) fn word<T: Copy>(&mut self, key: &'static str, words: &[(&str, T)]) -> Option<T> {
        self.parsed(key, |text| {
            let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
            found.ok_or_else(|| format!("has to be one of: {}", words.iter().map(|(w, _)| *w).collect::<Vec<_>>().join(", ")))
        })
    }

    /// Whatever is left is unknown.
    pub(super) fn finish(self) {
        for (key, value) in &self.dict {
            let known = if self.known.is_empty() { String::new() } else { format!(" (known here: {})", self.known.join(", ")) };
            self.reading.say(Some(value.tag()), &self.path(key), format!("unknown key{known}"));
        }
    }
}

/// The line of each key of a TOML text.
pub(super) fn key_lines(document: &toml_edit::Document<String>) -> HashMap<String, usize> {
    let mut starts = HashMap::new();
    table_lines("", document.as_table(), &mut starts);
    let newlines: Vec<usize> = document.raw().bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(at, _)| at).collect();
    starts.into_iter().map(|(key, at)| (key, newlines.partition_point(|n| *n < at) + 1)).collect()
}

fn table_lines(path: &str, table: &dyn toml_edit::TableLike, starts: &mut HashMap<String, usize>) {
    for (name, item) in table.iter() {
        let key = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        let at = table.key(name).and_then(toml_edit::Key::span).or_else(|| item.span());
        starts.extend(at.map(|span| (key.clone(), span.start)));
        match item {
            toml_edit::Item::ArrayOfTables(tables) => {
                for (n, inner) in tables.iter().enumerate() {
                    starts.extend(inner.span().map(|span| (format!("{key}[{n}]"), span.start)));
                    table_lines(&format!("{key}[{n}]"), inner, starts);
                }
            }
            toml_edit::Item::Value(toml_edit::Value::Array(values)) => {
                for (n, value) in values.iter().enumerate() {
                    starts.extend(value.span().map(|span| (format!("{key}[{n}]"), span.start)));
                    if let Some(inner) = value.as_inline_table() {
                        table_lines(&format!("{key}[{n}]"), inner, starts);
                    }
                }
            }
            other => {
                if let Some(inner) = other.as_table_like() {
                    table_lines(&key, inner, starts);
                }
            }
        }
    }
}

/// The line of a byte in a text, counted from 1.
pub(super) fn line_of(text: &[u8], at: usize) -> usize {
    text.iter().take(at).filter(|b| **b == b'\n').count() + 1
}

/// Patterns with commas between them. One that no module path can match is a mistake: what it was to fence lies open.
pub(super) fn globs(text: &str) -> Result<Vec<Pattern>, String> {
    let patterns = Pattern::parse_list(text).map_err(|e| e.to_string())?;
    let never = |pattern: &Pattern| pattern.never_matches().map(|why| format!("{:?}: {why}", pattern.as_str()));
    patterns.iter().find_map(never).map_or(Ok(()), Err)?;
    Ok(patterns)
}
