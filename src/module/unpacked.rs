//! A module's zip written anew with its files stored, which means without compression. Its sum stays what it is, for that is of what is in it
//! (<https://go.dev/ref/mod#zip-files>).

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufWriter, Write};

use flate2::Compression;
use flate2::write::DeflateEncoder;
use rawzip::path::ZipFilePath;
use rawzip::{CompressionMethod, ErrorKind, MAX_CENTRAL_DIRECTORY_RECORD_SIZE, ZipArchiveWriter};

use super::ModuleVersion;
use super::zip::{MAX_ZIP, ZipError, open, unpack};

/// The largest zip that is written. The go command takes larger ones, but what stays compressed may come out larger than it was.
pub const LARGEST: u64 = MAX_ZIP - MAX_ZIP / 64;
/// A zip is left alone of which compression has taken less than this part.
const WORTH: u64 = 50;
/// Bytes of a file's two headers and of what follows it, without its name.
const RECORDS: u64 = 30 + 46 + 24;
/// So many bytes are written at once.
const WRITTEN: usize = 256 << 10;

/// The files that have to stay compressed when a zip is written anew, lest it get larger than `largest`; `None` where writing it
/// anew is not worth while.
///
/// # Errors
/// What is wrong with the zip's directory.
pub fn stay_packed(file: File, largest: u64) -> Result<Option<BTreeSet<String>>, ZipError> {
    let mut buffer = vec![0; MAX_CENTRAL_DIRECTORY_RECORD_SIZE];
    let archive = open(file, &mut buffer)?;
    let mut entries = archive.entries(&mut buffer);
    let (mut files, mut length, mut gain) = (Vec::new(), 22_u64, 0_u64);
    while let Some(entry) = entries.next_entry()? {
        let (path, size) = (entry.file_path(), entry.uncompressed_size_hint());
        let name: &[u8] = path.as_ref();
        length = length.saturating_add(size).saturating_add(RECORDS + 2 * name.len() as u64);
        if entry.compression_method() != CompressionMethod::STORE {
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
    Ok((length <= largest && gain > length / WORTH).then_some(packed))
}

/// Writes a zip anew, in the same order, with its files stored but for those that are to stay packed. Blocks.
///
/// # Errors
/// What is wrong with the zip, and what the disk says.
pub fn write(file: File, version: &ModuleVersion, packed: &BTreeSet<String>, into: File) -> Result<(), ZipError> {
    let failed = |e: rawzip::Error| match e.into_kind() {
        ErrorKind::IO(e) => e,
        other => io::Error::other(format!("{other:?}")),
    };
    let mut zip = ZipArchiveWriter::new(BufWriter::with_capacity(WRITTEN, into));
    unpack(file, version, |name, content| {
        // The writer makes names safe, and then another sum would come out. No module's names need it.
        if ZipFilePath::from_str(name).as_ref() != name {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a name that no module's file has"));
        }
        let deflated = packed.contains(name);
        let method = if deflated { CompressionMethod::DEFLATE } else { CompressionMethod::STORE };
        let (mut entry, config) = zip.new_file(name).compression_method(method).start().map_err(failed)?;
        let output = if deflated {
            let mut writer = config.wrap(DeflateEncoder::new(&mut entry, Compression::default()));
            io::copy(content, &mut writer)?;
            let (encoder, output) = writer.finish().map_err(failed)?;
            encoder.finish()?;
            output
        } else {
            let mut writer = config.wrap(&mut entry);
            io::copy(content, &mut writer)?;
            writer.finish().map_err(failed)?.1
        };
        entry.finish(output).map_err(failed)?;
        Ok(())
    })?;
    zip.finish()?.flush()?;
    Ok(())
}
