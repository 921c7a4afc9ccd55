//! A module's zip written anew with its files stored, which means without compression. Its sum stays what it is, for that is of
//! what is in it (<https://go.dev/ref/mod#zip-files>).

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufWriter, Write};

use ::zip::result::ZipError as WriteError;
use ::zip::write::SimpleFileOptions;
use ::zip::{CompressionMethod, ZipWriter};
use rawzip::MAX_CENTRAL_DIRECTORY_RECORD_SIZE;

use super::ModuleVersion;
use super::zip::{MAX_ZIP, ZipError, open, unpack};

/// The largest zip that is written. The go command takes larger ones, but what stays compressed may come out larger than it was.
pub const LARGEST: u64 = MAX_ZIP - MAX_ZIP / 64;
/// A zip is left alone of which compression has taken less than this part.
const WORTH: u64 = 50;
/// Bytes of a file's two headers, without its name.
const RECORDS: u64 = 30 + 46;
/// So many bytes are written at once.
const WRITTEN: usize = 256 << 10;

/// How a zip is to be written anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unpacking {
    /// The files that have to stay compressed, lest it get too large.
    pub packed: BTreeSet<String>,
    /// How long it gets, about.
    pub length: u64,
}

impl Unpacking {
    /// How to write a zip anew, no larger than `largest`; `None` where that is not worth while.
    ///
    /// # Errors
    /// What is wrong with the zip's directory.
    pub fn of(file: File, largest: u64) -> Result<Option<Self>, ZipError> {
        let mut buffer = vec![0; MAX_CENTRAL_DIRECTORY_RECORD_SIZE];
        let archive = open(file, &mut buffer)?;
        let mut entries = archive.entries(&mut buffer);
        let (mut files, mut length, mut gain) = (Vec::new(), 22_u64, 0_u64);
        while let Some(entry) = entries.next_entry()? {
            let (path, size) = (entry.file_path(), entry.uncompressed_size_hint());
            let name: &[u8] = path.as_ref();
            length = length.saturating_add(size).saturating_add(RECORDS + 2 * name.len() as u64);
            if entry.compression_method() != rawzip::CompressionMethod::STORE {
                let saved = size.saturating_sub(entry.compressed_size_hint());
                gain = gain.saturating_add(saved);
                files.push((saved, String::from_utf8_lossy(name).into_owned()));
            }
        }
        // As few as can be.
        files.sort_unstable_by(|a, b| b.cmp(a));
        let mut packed = BTreeSet::new();
        for (saved, name) in files {
            if length <= largest {
                break;
            }
            (length, gain) = (length.saturating_sub(saved), gain.saturating_sub(saved));
            packed.insert(name);
        }
        Ok((length <= largest && gain > length / WORTH).then_some(Self { packed, length }))
    }

    /// Writes the zip anew, in the same order. Blocks.
    ///
    /// # Errors
    /// What is wrong with the zip, and what the disk says.
    pub fn write(&self, file: File, version: &ModuleVersion, into: File) -> Result<(), ZipError> {
        let failed = |e| match e {
            WriteError::Io(e) => e,
            other => io::Error::new(io::ErrorKind::InvalidData, other),
        };
        // This library says a file's length and checksum before the file and not after it, which some readers need where it is stored.
        let mut zip = ZipWriter::new(BufWriter::with_capacity(WRITTEN, into));
        unpack(file, version, |name, content| {
            let packed = self.packed.contains(name);
            let method = if packed { CompressionMethod::Deflated } else { CompressionMethod::Stored };
            zip.start_file(name, SimpleFileOptions::default().compression_method(method)).map_err(failed)?;
            io::copy(content, &mut zip).map(drop)
        })?;
        zip.finish().map_err(failed)?.flush()?;
        Ok(())
    }
}
