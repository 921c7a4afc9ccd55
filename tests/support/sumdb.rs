//! A checksum database with a key of its own: its records, tree, tiles and signed heads, made anew from the written rules
//! (RFC 6962 §2.1, <https://go.dev/ref/mod#checksum-database>, the comments of `golang.org/x/mod/sumdb`), and put on an [`Upstream`],
//! which counts what is asked of it and can be made to fail in all its ways.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use sha2::{Digest, Sha256};

use super::modules::{Module, escape};
use super::upstream::{Reply, Upstream};

/// A database. What it holds is written down here; servers show it as it was when it was published.
pub struct Sumdb {
    pub name: String,
    seed: Vec<u8>,
    /// The version that a record is looked up by, and its text.
    records: Vec<(String, String)>,
}

type Hash = [u8; 32];

impl Sumdb {
    /// An empty one with a fresh key.
    pub fn new(name: &str) -> Self {
        let seed = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Self { name: name.to_owned(), seed: seed.as_ref().to_vec(), records: Vec::new() }
    }

    /// One that knows these modules, after some that nobody asks about.
    pub fn knowing(modules: &[Module]) -> Self {
        let mut database = Self::new("sum.example.org");
        database.fill(5);
        for module in modules {
            database.add(module);
        }
        database
    }

    /// Another of the same name and key that shares its first records.
    pub fn fork(&self, shared: usize) -> Self {
        Self { name: self.name.clone(), seed: self.seed.clone(), records: self.records[..shared].to_vec() }
    }

    /// Records of versions that nobody asks about.
    pub fn fill(&mut self, count: usize) {
        for n in self.records.len()..self.records.len() + count {
            self.say(
                &format!("example.net/filler@v0.0.{n}"),
                &format!("example.net/filler v0.0.{n} h1:{}\n", BASE64.encode([0; 32])),
            );
        }
    }

    /// The record of a module, with the right sums.
    pub fn add(&mut self, module: &Module) {
        self.say(&format!("{}@{}", module.path, module.version), &go_sum(module));
    }

    /// A record with any text.
    pub fn say(&mut self, version: &str, text: &str) {
        self.records.push((version.to_owned(), text.to_owned()));
    }

    fn key(&self) -> Ed25519KeyPair {
        Ed25519KeyPair::from_pkcs8(&self.seed).unwrap()
    }

    fn key_data(&self) -> Vec<u8> {
        [&[1], self.key().public_key().as_ref()].concat()
    }

    fn key_hash(&self) -> [u8; 4] {
        let digest = Sha256::digest([self.name.as_bytes(), b"\n", &self.key_data()].concat());
        [digest[0], digest[1], digest[2], digest[3]]
    }

    /// Its key, as GOSUMDB has it.
    pub fn verifier(&self) -> String {
        let hash = self.key_hash().map(|byte| format!("{byte:02x}")).concat();
        format!("{}+{hash}+{}", self.name, BASE64.encode(self.key_data()))
    }

    /// The newest tree head, signed.
    pub fn head(&self) -> String {
        let leaves = self.leaves();
        self.signed(&format!("go.sum database tree\n{}\n{}\n", leaves.len(), BASE64.encode(root(&leaves))))
    }

    /// A text with its signature.
    pub fn signed(&self, text: &str) -> String {
        let signature = [&self.key_hash()[..], self.key().sign(text.as_bytes()).as_ref()].concat();
        format!("{text}\n\u{2014} {} {}\n", self.name, BASE64.encode(signature))
    }

    fn leaves(&self) -> Vec<Hash> {
        self.records.iter().map(|(_, text)| Sha256::digest([b"\0", text.as_bytes()].concat()).into()).collect()
    }

    /// What it answers to each path now.
    pub fn answers(&self) -> Vec<(String, Vec<u8>)> {
        let (head, leaves) = (self.head(), self.leaves());
        let mut answers = vec![("/latest".to_owned(), head.clone().into_bytes()), ("/supported".to_owned(), Vec::new())];
        for (number, (version, text)) in self.records.iter().enumerate() {
            let (module, version) = version.split_once('@').unwrap();
            let path = format!("/lookup/{}@{}", escape(module), escape(version));
            answers.push((path, format!("{number}\n{text}\n{head}").into_bytes()));
        }
        for level in 0..3_u32 {
            let span = 256_usize.pow(level);
            let hashes: Vec<Hash> = leaves.chunks_exact(span).map(root).collect();
            for (index, tile) in hashes.chunks(256).enumerate() {
                // Every shorter form of a tile is had too.
                for width in 1..=tile.len() {
                    let part = if width == 256 { String::new() } else { format!(".p/{width}") };
                    answers.push((format!("/tile/8/{level}/{index:03}{part}"), tile[..width].concat()));
                }
            }
        }
        answers
    }

    /// Puts all of it on a server, below this path. What the server says of other paths stays.
    pub fn publish(&self, server: &Upstream, below: &str) {
        for (path, body) in self.answers() {
            server.set(&format!("{below}{path}"), Reply::Good(body));
        }
    }

    /// A server of its own.
    pub fn serve(&self) -> Upstream {
        let server = Upstream::start();
        self.publish(&server, "");
        server
    }

    /// Where a module proxy passes it on.
    pub fn below(&self) -> String {
        format!("/sumdb/{}", self.name)
    }

    /// The table of a configuration that asks it at this server and nowhere else.
    pub fn table(&self, server: &Upstream) -> String {
        format!("[sumdb]\ndatabases = [\"{} {}\"]\nvia = [\"direct\"]\n", self.verifier(), server.url())
    }
}

/// The look-ups among what a server was asked.
pub fn lookups(server: &Upstream) -> usize {
    server.asked().iter().filter(|path| path.contains("/lookup/")).count()
}

/// The hash of a tree, by its definition.
fn root(leaves: &[Hash]) -> Hash {
    match leaves.len() {
        0 => Sha256::digest([]).into(),
        1 => leaves[0],
        count => {
            let (left, right) = leaves.split_at(count.next_power_of_two() / 2);
            Sha256::digest([&[1][..], &root(left), &root(right)].concat()).into()
        }
    }
}

/// A module's lines of a go.sum.
pub fn go_sum(module: &Module) -> String {
    let (path, version) = (&module.path, &module.version);
    format!("{path} {version} {}\n{path} {version}/go.mod {}\n", zip_sum(module), go_mod_sum(module))
}

/// The sum of a module's files.
pub fn zip_sum(module: &Module) -> String {
    let named = |(name, contents): (&String, &Vec<u8>)| (format!("{}@{}/{name}", module.path, module.version), contents.clone());
    let mut files: Vec<_> = module.files.iter().map(named).collect();
    files.push((format!("{}@{}/go.mod", module.path, module.version), module.go_mod.clone().into_bytes()));
    sum_of(files)
}

/// The sum of a module's go.mod.
pub fn go_mod_sum(module: &Module) -> String {
    sum_of(vec![("go.mod".to_owned(), module.go_mod.clone().into_bytes())])
}

fn sum_of(mut files: Vec<(String, Vec<u8>)>) -> String {
    files.sort();
    let mut lines = String::new();
    for (name, contents) in &files {
        for byte in Sha256::digest(contents) {
            write!(lines, "{byte:02x}").unwrap();
        }
        writeln!(lines, "  {name}").unwrap();
    }
    format!("h1:{}", BASE64.encode(Sha256::digest(lines)))
}
