//! The shape of a module zip: every file lies below `module@version/`, within the limits of `golang.org/x/mod/zip`
//! (<https://go.dev/ref/mod#zip-files>).
//!
//! Only the zip's directory is read, so a look costs little even for a large file. Whether the contents are the right ones
//! is the checksum database's to say, not the shape's.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read};

use rawzip::{
    CompressionMethod, ErrorKind, FileReader, MAX_CENTRAL_DIRECTORY_RECORD_SIZE, ZipArchive, ZipArchiveEntryWayfinder,
    ZipFileHeaderRecord,
};

use super::ModuleVersion;

/// The largest zip that the go command accepts, and the largest sum of its files' sizes (`MaxZipFile` of x/mod/zip).
pub const MAX_ZIP: u64 = 500 << 20;
/// The largest go.mod that the go command accepts (`MaxGoMod` of x/mod/zip).
pub const MAX_GO_MOD: u64 = 16 << 20;

/// Why a file is not the zip of a module version.
#[derive(Debug, thiserror::Error)]
pub enum ZipError {
    /// It could not be read.
    #[error("the zip could not be read: {0}")]
    Io(#[from] io::Error),
    /// It is no zip, or a damaged one.
    #[error("not a whole zip file: {0}")]
    Damaged(String),
    /// It holds something that no module zip may hold.
    #[error("not a module zip of {version}: {why}")]
    Shape {
        /// Which version it was to be.
        version: String,
        /// What is wrong.
        why: String,
    },
}

impl From<rawzip::Error> for ZipError {
    fn from(e: rawzip::Error) -> Self {
        let text = e.to_string();
        match e.into_kind() {
            ErrorKind::IO(e) if e.kind() != io::ErrorKind::UnexpectedEof => Self::Io(e),
            _ => Self::Damaged(text),
        }
    }
}

/// Checks the zip's directory.
///
/// # Errors
/// What is wrong with it.
pub fn check(file: File, version: &ModuleVersion) -> Result<(), ZipError> {
    let shape = |why: String| ZipError::Shape { version: version.to_string(), why };
    let prefix = format!("{version}/");
    let mut buffer = vec![0; MAX_CENTRAL_DIRECTORY_RECORD_SIZE];
    let archive = ZipArchive::from_file(file, &mut buffer)?;
    let promised = archive.entries_hint();
    let mut entries = archive.entries(&mut buffer);
    let (mut total, mut count) = (0_u64, 0_u64);
    while let Some(entry) = entries.next_entry()? {
        let path = entry.file_path();
        let name: &[u8] = path.as_ref();
        let shown = || String::from_utf8_lossy(&name[..name.len().min(200)]).into_owned();
        let inner =
            name.strip_prefix(prefix.as_bytes()).ok_or_else(|| shape(format!("{:?} does not lie below {prefix}", shown())))?;
        if inner.split(|b| *b == b'/').any(|element| element == b".." || element == b".") || inner.contains(&0) {
            return Err(shape(format!("unsafe file name {:?}", shown())));
        }
        total = total.saturating_add(entry.uncompressed_size_hint());
        count += 1;
        if total > MAX_ZIP {
            return Err(shape(format!("its files are larger than {MAX_ZIP} bytes together")));
        }
    }
    if count != promised {
        return Err(ZipError::Damaged(format!("{count} files where its directory promises {promised}")));
    }
    Ok(())
}

/// Reads the `go.mod` at the root of a module zip, where there is one.
///
/// # Errors
/// What is wrong with the zip.
pub fn go_mod(file: File, version: &ModuleVersion) -> Result<Option<Vec<u8>>, ZipError> {
    let wanted = format!("{version}/go.mod");
    let mut buffer = vec![0; MAX_CENTRAL_DIRECTORY_RECORD_SIZE];
    let archive = ZipArchive::from_file(file, &mut buffer)?;
    let mut entries = archive.entries(&mut buffer);
    let mut found = None;
    while let Some(entry) = entries.next_entry()? {
        let path = entry.file_path();
        let name: &[u8] = path.as_ref();
        if name == wanted.as_bytes() {
            found = Some(Packed::of(&entry));
            break;
        }
    }
    let Some(packed) = found else { return Ok(None) };
    let mut text = Vec::new();
    packed.read(&archive, &wanted, |content| content.take(MAX_GO_MOD + 1).read_to_end(&mut text).map(|_| ()))?;
    if text.len() as u64 > MAX_GO_MOD {
        return Err(ZipError::Shape { version: version.to_string(), why: format!("go.mod is larger than {MAX_GO_MOD} bytes") });
    }
    Ok(Some(text))
}

/// Unpacks all files of a zip, in the order of its directory, names and all as they stand there. What they hold is read once, by
/// `each`, and is never more than [`MAX_ZIP`] together.
///
/// # Errors
/// What is wrong with the zip: two files of one name, a wrong length or checksum, too much in it.
pub fn unpack(
    file: File,
    version: &ModuleVersion,
    mut each: impl FnMut(&str, &mut dyn Read) -> io::Result<()>,
) -> Result<(), ZipError> {
    let shape = |why: String| ZipError::Shape { version: version.to_string(), why };
    let mut buffer = vec![0; MAX_CENTRAL_DIRECTORY_RECORD_SIZE];
    let archive = ZipArchive::from_file(file, &mut buffer)?;
    let mut entries = archive.entries(&mut buffer);
    let (mut files, mut names) = (Vec::new(), HashSet::new());
    while let Some(entry) = entries.next_entry()? {
        let path = entry.file_path();
        let name = std::str::from_utf8(path.as_ref()).map_err(|_| shape("a file name that is not UTF-8".into()))?;
        if name.contains('\n') || !names.insert(name.to_owned()) {
            return Err(shape(format!("{name:?} stands there twice, or has a line break in its name")));
        }
        files.push((name.to_owned(), Packed::of(&entry)));
    }
    let mut left = MAX_ZIP;
    for (name, packed) in files {
        packed.read(&archive, &name, |content| {
            let mut bounded = content.take(left + 1);
            each(&name, &mut bounded)?;
            left = bounded.limit().saturating_sub(1);
            if bounded.limit() == 0 { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(()) }
        })?;
    }
    Ok(())
}

/// Where a file of a zip lies, and how it is packed.
struct Packed {
    at: ZipArchiveEntryWayfinder,
    method: CompressionMethod,
}

impl Packed {
    fn of(entry: &ZipFileHeaderRecord<'_>) -> Self {
        Self { at: entry.wayfinder(), method: entry.compression_method() }
    }

    /// Unpacks it; its length and checksum have to be as the zip says when it is read to its end.
    fn read(
        &self,
        archive: &ZipArchive<FileReader>,
        name: &str,
        read: impl FnOnce(&mut dyn Read) -> io::Result<()>,
    ) -> Result<(), ZipError> {
        let entry = archive.get_entry(self.at)?;
        let raw = entry.reader();
        let done = match self.method {
            CompressionMethod::STORE => read(&mut entry.verifying_reader(raw)),
            CompressionMethod::DEFLATE => read(&mut entry.verifying_reader(flate2::read::DeflateDecoder::new(raw))),
            other => return Err(ZipError::Damaged(format!("{name} is packed by method {other}"))),
        };
        done.map_err(|e| ZipError::Damaged(format!("{name}: {e}")))
    }
}
