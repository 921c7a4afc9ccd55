//! The modules that are served: made anew each time, always the same, of noise that does not compress.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Cursor, Write as _};
use std::sync::Arc;

use zip::write::SimpleFileOptions;

use crate::Result;

/// A zip that no server has seen before it is asked for by all clients at once.
pub(crate) const HERD: &str = "/mod.example/herd/@v/v1.0.0.zip";

/// Everything that the upstream has, and which of it each workload asks for.
pub(crate) struct Data {
    bodies: BTreeMap<String, Arc<Vec<u8>>>,
    sets: BTreeMap<&'static str, Vec<String>>,
}

impl Data {
    /// Makes all modules.
    pub(crate) fn make() -> Result<Self> {
        let mut data = Self { bodies: BTreeMap::new(), sets: BTreeMap::new() };
        for n in 0..90 {
            let base = data.module(&format!("mod.example/meta{n}"), &["v1.2.3"], 1000)?;
            data.ask("meta", [format!("{base}.info"), format!("{base}.mod")]);
        }
        let versions: Vec<String> = (0..200).map(|n| format!("v1.{}.{}", n / 10, n % 10)).collect();
        let versions: Vec<&str> = versions.iter().map(String::as_str).collect();
        for n in 0..20 {
            let path = format!("mod.example/list{n}");
            data.module(&path, &versions, 1000)?;
            data.ask("list", [format!("/{path}/@v/list")]);
        }
        data.zips("small", (0..40).map(|n| 10_000 + n * 90_000 / 39))?;
        data.zips("medium", [2_000_000; 8])?;
        data.zips("large", [30_000_000, 30_000_000, 60_000_000, 30_000_000])?;
        data.module("mod.example/herd", &["v1.0.0"], 20_000_000)?;
        Ok(data)
    }

    /// The body of a path, if the upstream has it.
    pub(crate) fn body(&self, path: &str) -> Option<Arc<Vec<u8>>> {
        self.bodies.get(path).map(Arc::clone)
    }

    /// The paths of a workload.
    pub(crate) fn set(&self, name: &str) -> &[String] {
        self.sets.get(name).map_or(&[], Vec::as_slice)
    }

    fn zips(&mut self, set: &'static str, sizes: impl IntoIterator<Item = usize>) -> Result<()> {
        for (n, size) in sizes.into_iter().enumerate() {
            let base = self.module(&format!("mod.example/{set}{n}"), &["v1.0.0"], size)?;
            self.ask(set, [format!("{base}.zip")]);
        }
        Ok(())
    }

    fn ask(&mut self, set: &'static str, paths: impl IntoIterator<Item = String>) {
        self.sets.entry(set).or_default().extend(paths);
    }

    /// A module with these versions, the highest last; it alone has parts, with a zip of roughly `size`. Their common
    /// beginning is returned. Some proxies ask for a module's other parts, its list, or its latest version too.
    fn module(&mut self, path: &str, versions: &[&str], size: usize) -> Result<String> {
        let version = versions.last().copied().unwrap_or("v1.0.0");
        let base = format!("/{path}/@v/{version}");
        let info = format!(r#"{{"Version":"{version}","Time":"2024-02-03T04:05:06Z"}}"#);
        let mut go_mod = format!("module {path}\n\ngo 1.21\n\nrequire (\n");
        for n in 0..12 {
            writeln!(go_mod, "\tmod.example/meta{n} v1.2.3")?;
        }
        go_mod.push_str(")\n");
        let zip = zip(&format!("{path}@{version}"), &go_mod, &noise(self.bodies.len() as u64, size))?;
        let mut put = |path: String, body: Vec<u8>| self.bodies.insert(path, Arc::new(body));
        put(format!("/{path}/@v/list"), format!("{}\n", versions.join("\n")).into());
        put(format!("/{path}/@latest"), info.clone().into());
        put(format!("{base}.info"), info.into());
        put(format!("{base}.mod"), go_mod.into());
        put(format!("{base}.zip"), zip);
        Ok(base)
    }
}

/// A module zip; nothing in it is compressed, as nothing could be.
fn zip(name: &str, go_mod: &str, bulk: &[u8]) -> Result<Vec<u8>> {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::with_capacity(bulk.len() + 1000)));
    let stored = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (file, contents) in [("go.mod", go_mod.as_bytes()), ("p.go", b"package p\n"), ("bulk.bin", bulk)] {
        zip.start_file(format!("{name}/{file}"), stored)?;
        zip.write_all(contents)?;
    }
    Ok(zip.finish()?.into_inner())
}

/// Bytes of a xorshift generator.
pub(crate) fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64 ^ (seed << 17);
    let mut out = Vec::with_capacity(bytes + 8);
    while out.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(bytes);
    out
}
