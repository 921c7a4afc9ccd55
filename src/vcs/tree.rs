//! From a commit to a module's zip (<https://go.dev/ref/mod#zip-files>).
//!
//! The tree's list says beforehand which files belong into it, so that a tree without a zip is told at once. Their contents come from
//! `git archive`, because attributes such as `eol=crlf` and `ident` change them, and go through deflate into the body, piece by
//! piece. Order, times and compression are fixed, so that the same commit gives the same bytes.

use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use flate2::Compression;
use flate2::write::DeflateEncoder;
use rawzip::{CompressionMethod, ZipArchiveWriter};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::Zip;
use super::error::VcsError;
use super::revision::{Located, Module};
use crate::egress::{Body, EgressError};
use crate::module::ModuleVersion;
use crate::module::files::{Entry, Kind, select, too_large};
use crate::module::gomod::GoMod;
use crate::module::zip::MAX_ZIP;
use crate::process::{ProcessError, Run, Running};

/// How many pieces of a zip may wait for its reader.
const PIECES: usize = 8;
/// How many bytes a piece has.
const PIECE: usize = 128 << 10;

type Pieces = mpsc::Sender<Result<Bytes, EgressError>>;

impl Module {
    /// A version's zip, as it is being made.
    pub async fn zip(&self, version: &ModuleVersion) -> Result<Zip, VcsError> {
        let located = self.locate(version).await?;
        let mut entries = self.entries(&located).await?;
        let license = self.license(&located, &mut entries).await?;
        let new = located.place.go_mod.as_deref().and_then(GoMod::parse).is_some_and(|go_mod| go_mod.is_1_24());
        let chosen = select(&entries, new).map_err(|why| VcsError::not_found(format!("{version}: no zip can be made: {why}")))?;
        let chosen = chosen.into_iter().map(str::to_owned).collect();
        let slot = self.repository.slot().await;
        let (reader, running) = self.archive(&located).stream().map_err(|e| self.repository.classified(&e))?;
        let (pieces, body) = mpsc::channel(PIECES);
        let into = Output { pieces: pieces.clone(), piece: BytesMut::new() };
        let making = Making { prefix: format!("{version}/"), dir: located.place.dir.clone(), chosen, license, into };
        let repository = Arc::clone(&self.repository);
        let work = tokio::task::spawn_blocking(move || making.run(reader));
        tokio::spawn(async move {
            let end = finish(work, running).await.map_err(|e| match e {
                End::Git(e) => EgressError::Broken(repository.classified(&e).to_string()),
                End::Made(why) => EgressError::Unusable(why),
                End::Unwanted => EgressError::Stopped,
            });
            drop(slot);
            // A reader that is gone needs no end.
            let _ = pieces.send(end.map(|()| Bytes::new())).await;
        });
        Ok(Zip { length: None, body: Body::new(body) })
    }

    /// What the module's directory holds, by names relative to it.
    async fn entries(&self, located: &Located) -> Result<Vec<Entry>, VcsError> {
        let tree = format!("{}:{}", located.revision.hash, located.place.dir);
        let arguments = ["ls-tree", "-r", "-z", "-l", "--full-tree", "--end-of-options", &tree];
        let listed = self.repository.local(&arguments, Vec::new()).await.map_err(|e| self.repository.classified(&e))?;
        Ok(listed.split(|b| *b == 0).filter_map(entry).collect())
    }

    /// The LICENSE of the repository's top, for a module below it that has none; it is added to the entries.
    async fn license(&self, located: &Located, entries: &mut Vec<Entry>) -> Result<Option<Bytes>, VcsError> {
        if located.place.dir.is_empty() || entries.iter().any(|e| e.name == b"LICENSE") {
            return Ok(None);
        }
        let license = self.file(&located.revision, "LICENSE").await?;
        let entry = |text: &Bytes| Entry { name: b"LICENSE".to_vec(), kind: Kind::Regular, size: text.len() as u64 };
        entries.extend(license.as_ref().map(entry));
        Ok(license)
    }

    fn archive(&self, located: &Located) -> Run {
        let mut arguments =
            vec!["archive".into(), "--format=tar".into(), "--end-of-options".into(), located.revision.hash.to_string()];
        let dir = &located.place.dir;
        arguments.extend((!dir.is_empty()).then(|| dir.clone()));
        // Everything comes with its whole path; what lies above the directory is cut off.
        self.repository.local_run(arguments)
    }
}

/// One entry of `ls-tree -l -z`: `MODE TYPE HASH SIZE<tab>NAME`. Submodules are none.
fn entry(line: &[u8]) -> Option<Entry> {
    let tab = line.iter().position(|b| *b == b'\t')?;
    let (head, name) = (std::str::from_utf8(&line[..tab]).ok()?, line[tab + 1..].to_vec());
    let mut words = head.split_ascii_whitespace();
    let (mode, kind, size) = (words.next()?, words.next()?, words.nth(1).and_then(|s| s.parse().ok()));
    if kind != "blob" {
        return None;
    }
    let kind = if mode == "120000" { Kind::Symlink } else { Kind::Regular };
    Some(Entry { name, kind, size: size.unwrap_or(0) })
}

/// A zip that is being made.
struct Making {
    /// What every name in it begins with.
    prefix: String,
    dir: String,
    chosen: HashSet<String>,
    license: Option<Bytes>,
    into: Output,
}

/// How the making of a zip ended before its end.
enum End {
    Git(ProcessError),
    Made(String),
    Unwanted,
}

impl From<io::Error> for End {
    fn from(e: io::Error) -> Self {
        if e.kind() == io::ErrorKind::BrokenPipe { Self::Unwanted } else { Self::Made(e.to_string()) }
    }
}

impl Making {
    /// Makes it of an archive that is read to its end; what has not been sent yet.
    fn run(self, archive: impl Read) -> Result<(), End> {
        let Self { prefix, dir, mut chosen, license, into } = self;
        let mut zip = ZipArchiveWriter::new(into);
        let mut total = 0;
        let mut add = |name: &str, content: &mut dyn Read| {
            let failed = |e: rawzip::Error| io::Error::other(e.to_string());
            let path = format!("{prefix}{name}");
            let (mut entry, config) =
                zip.new_file(path.as_str()).compression_method(CompressionMethod::DEFLATE).start().map_err(failed)?;
            let mut writer = config.wrap(DeflateEncoder::new(&mut entry, Compression::default()));
            total += io::copy(&mut content.take(MAX_ZIP + 1), &mut writer)?;
            let (encoder, output) = writer.finish().map_err(failed)?;
            encoder.finish()?;
            entry.finish(output).map_err(failed)?;
            if total > MAX_ZIP { Err(io::Error::other(too_large())) } else { Ok(()) }
        };
        let mut archive = tar::Archive::new(archive);
        for file in archive.entries()? {
            let mut file = file?;
            let path = file.path_bytes();
            let inner =
                if dir.is_empty() { Some(&*path) } else { path.strip_prefix(dir.as_bytes()).and_then(|p| p.strip_prefix(b"/")) };
            let name = inner.and_then(|name| std::str::from_utf8(name).ok()).and_then(|name| chosen.take(name));
            if let Some(name) = name.filter(|_| file.header().entry_type().is_file()) {
                add(&name, &mut file)?;
            }
        }
        // git goes on writing behind the last file, and would be broken off.
        io::copy(&mut archive.into_inner(), &mut io::sink())?;
        if let Some(license) = license.filter(|_| chosen.remove("LICENSE")) {
            add("LICENSE", &mut &license[..])?;
        }
        if let Some(missing) = chosen.iter().next() {
            return Err(End::Made(format!("git left {missing} out of the archive")));
        }
        let mut into = zip.finish().map_err(|e| End::Made(e.to_string()))?;
        into.flush()?;
        Ok(())
    }
}

/// Waits for both ends: of git, and of the zip that is made of its archive. Where git failed, that says more.
async fn finish(work: JoinHandle<Result<(), End>>, running: Running) -> Result<(), End> {
    let (made, ended) = tokio::join!(work, running.end());
    let made = made.unwrap_or_else(|e| Err(End::Made(format!("making the zip broke down: {e}"))));
    match (made, ended) {
        (Err(End::Unwanted), _) => Err(End::Unwanted),
        (Err(End::Made(why)), _) if why == too_large() => Err(End::Made(why)),
        (_, Err(e)) => Err(End::Git(e)),
        (made, Ok(())) => made,
    }
}

/// Sends what is written in pieces.
struct Output {
    pieces: Pieces,
    piece: BytesMut,
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        self.pieces.blocking_send(Ok(self.piece.split().freeze())).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn entries_of_a_tree() {
        let line = |text: &str| entry(text.as_bytes()).map(|e| (String::from_utf8_lossy(&e.name).into_owned(), e.kind, e.size));
        let h = "0123456789abcdef0123456789abcdef01234567";
        assert_eq!(line(&format!("100644 blob {h}    7\ta b\tc")), Some(("a b\tc".into(), Kind::Regular, 7)));
        assert_eq!(line(&format!("120000 blob {h}      11\tx")), Some(("x".into(), Kind::Symlink, 11)));
        assert_eq!(line(&format!("160000 commit {h}       -\tsub")), None);
    }

    proptest! {
        #[test]
        fn no_list_and_no_archive_breaks_it(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let _ = entry(&bytes);
            let (pieces, _body) = mpsc::channel(64);
            let into = Output { pieces, piece: BytesMut::new() };
            let making = Making { prefix: "m@v/".into(), dir: String::new(), chosen: HashSet::new(), license: None, into };
            let _ = making.run(&bytes[..]);
        }
    }
}
