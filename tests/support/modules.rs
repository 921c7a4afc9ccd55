//! Modules to serve: their `.info`, `.mod` and `.zip`, the zips made by another library than modgate reads them with.

use std::collections::BTreeMap;
use std::io::{Cursor, Write};

use zip::write::SimpleFileOptions;

/// One version of a module.
#[derive(Debug, Clone)]
pub struct Module {
    pub path: String,
    pub version: String,
    pub time: String,
    pub go_mod: String,
    pub files: BTreeMap<String, Vec<u8>>,
}

impl Module {
    /// A module with one package.
    pub fn new(path: &str, version: &str) -> Self {
        let package = path.rsplit('/').next().unwrap_or(path).replace(['.', '-'], "_");
        let mut module = Self {
            path: path.into(),
            version: version.into(),
            time: "2024-02-03T04:05:06Z".into(),
            go_mod: format!("module {path}\n\ngo 1.21\n"),
            files: BTreeMap::new(),
        };
        module.files.insert("p.go".into(), format!("package {package}\n\nconst Version = {version:?}\n").into_bytes());
        module
    }

    /// The same with a requirement.
    pub fn requires(mut self, path: &str, version: &str) -> Self {
        self.go_mod = format!("{}\nrequire {path} {version}\n", self.go_mod);
        self
    }

    /// The same with another file.
    pub fn file(mut self, name: &str, contents: impl Into<Vec<u8>>) -> Self {
        self.files.insert(name.into(), contents.into());
        self
    }

    /// The same without a file.
    pub fn without(mut self, name: &str) -> Self {
        self.files.remove(name);
        self
    }

    /// The same with a file that does not compress, so that the zip is at least so large.
    pub fn bulk(self, bytes: usize) -> Self {
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let noise = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        });
        self.file("bulk.bin", noise.flatten().take(bytes).collect::<Vec<u8>>())
    }

    pub fn info(&self) -> Vec<u8> {
        format!(r#"{{"Version":"{}","Time":"{}"}}"#, self.version, self.time).into_bytes()
    }

    pub fn zip(&self) -> Vec<u8> {
        let mut out = zip::ZipWriter::new(Cursor::new(Vec::new()));
        let options = SimpleFileOptions::default();
        let mut files = self.files.clone();
        files.insert("go.mod".into(), self.go_mod.clone().into_bytes());
        for (name, contents) in files {
            out.start_file(format!("{}@{}/{name}", self.path, self.version), options).unwrap();
            out.write_all(&contents).unwrap();
        }
        out.finish().unwrap().into_inner()
    }

    /// The path of one of its parts below a proxy's URL, escaped.
    pub fn url(&self, suffix: &str) -> String {
        format!("/{}/@v/{}.{suffix}", escape(&self.path), escape(&self.version))
    }
}

/// The protocol's escaping, for upper-case letters.
pub fn escape(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_ascii_uppercase() { vec!['!', c.to_ascii_lowercase()] } else { vec![c] }).collect()
}

/// Everything that a proxy of these modules answers, by path.
pub fn tree(modules: &[Module]) -> BTreeMap<String, Vec<u8>> {
    let mut tree: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for module in modules {
        tree.insert(module.url("info"), module.info());
        tree.insert(module.url("mod"), module.go_mod.clone().into_bytes());
        tree.insert(module.url("zip"), module.zip());
        let list = tree.entry(format!("/{}/@v/list", escape(&module.path))).or_default();
        list.extend_from_slice(format!("{}\n", module.version).as_bytes());
    }
    tree
}
