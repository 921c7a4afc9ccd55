//! The shape of a module zip: every file lies below `module@version/`, within the limits of `golang.org/x/mod/zip`
//! (<https://go.dev/ref/mod#zip-files>).
//!
//! Only the zip's directory is read, so a look costs little even for a large file. Whether the contents are the right ones
//! is the checksum database's to say, not the shape's.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use flate2::read::DeflateDecoder;
use rawzip::{
    CompressionMethod, ErrorKind, FileReader, MAX_CENTRAL_DIRECTORY_RECORD_SIZE, ZipArchive, ZipArchiveEntryWayfinder,
    ZipFileHeaderRecord, ZipReader, ZipVerification,
};

use super::ModuleVersion;

/// The largest zip that the go command accepts, and the largest sum of its files' sizes (`MaxZipFile` of x/mod/zip).
pub const MAX_ZIP: u64 = 500 << 20;
/// The largest go.mod that the go command accepts (`MaxGoMod` of x/mod/zip).
pub const MAX_GO_MOD: u64 = 16 << 20;

/// The largest directory of a zip that is read, in bytes: names of a million files.
const MAX_DIRECTORY: u64 = 64 << 20;

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

/// A zip whose directory any two readers find in the same place: it ends where the record of its end begins, that is the last thing
/// in the file, and what both kinds of that record say is the same. Otherwise what was looked at here might not be what the go
/// command unpacks.
pub(super) fn open(file: File, buffer: &mut [u8]) -> Result<ZipArchive<FileReader>, ZipError> {
    let damaged = |why: &str| ZipError::Damaged(why.to_owned());
    let (length, again) = (file.metadata()?.len(), file.try_clone()?);
    let archive = ZipArchive::from_file(file, buffer)?;
    let at = archive.eocd_offset();
    let end: [u8; 22] = read_at(&again, at)?;
    if &end[..4] != b"PK\x05\x06" || at + 22 + number(&end, 20, 2) != length {
        return Err(damaged("something follows the end of its directory"));
    }
    let mut comment = vec![0; usize::try_from(number(&end, 20, 2)).unwrap_or(0)];
    again.read_exact_at(&mut comment, at + 22)?;
    if comment.windows(4).any(|four| four == b"PK\x05\x06") {
        return Err(damaged("its comment holds another end"));
    }
    let [records, size, offset] = [(10, 2), (12, 4), (16, 4)].map(|(from, bytes)| number(&end, from, bytes));
    let locator: Option<[u8; 20]> = at.checked_sub(20).and_then(|at| read_at(&again, at).ok());
    let (records, size, offset, ends) = match locator.filter(|locator| locator.starts_with(b"PK\x06\x07")) {
        Some(locator) => {
            let record_at = number(&locator, 8, 8);
            let record: [u8; 56] = read_at(&again, record_at)?;
            if !record.starts_with(b"PK\x06\x06") || record_at.checked_add(12 + number(&record, 4, 8)) != Some(at - 20) {
                return Err(damaged("the long end of its directory is not where it has to be"));
            }
            let long = [(32, 8), (40, 8), (48, 8)].map(|(from, bytes)| number(&record, from, bytes));
            let same = |short: u64, most: u64, long: u64| short == long || short == most;
            let agree = same(records, 0xFFFF, long[0]) && same(size, 0xFFFF_FFFF, long[1]) && same(offset, 0xFFFF_FFFF, long[2]);
            if !agree || number(&record, 24, 8) != long[0] {
                return Err(damaged("the two ends of its directory differ"));
            }
            (long[0], long[1], long[2], record_at)
        }
        None => (records, size, offset, at),
    };
    if offset.checked_add(size) != Some(ends) || offset != archive.directory_offset() || records != archive.entries_hint() {
        return Err(damaged("its directory does not end where it has to"));
    }
    if size > MAX_DIRECTORY {
        return Err(damaged("its directory is larger than that of any module"));
    }
    let mut entries = archive.entries(buffer);
    let (mut count, mut reached) = (0, offset);
    while let Some(entry) = entries.next_entry()? {
        let path = entry.file_path();
        let name: &[u8] = path.as_ref();
        let lengths = name.len() + entry.extra_fields().remaining_bytes().len() + entry.comment().as_bytes().len();
        reached = entry.central_directory_offset() + 46 + lengths as u64;
        count += 1;
    }
    if count != records || reached != ends {
        return Err(damaged("its directory has not as many files as it promises, or more than that"));
    }
    Ok(archive)
}

/// Whether these last bytes of a file are the end of a zip without a comment. A zip that was cut off has none.
pub fn ends_plainly(end: &[u8; 22]) -> bool {
    end.starts_with(b"PK\x05\x06") && number(end, 20, 2) == 0
}

fn read_at<const N: usize>(file: &File, at: u64) -> Result<[u8; N], ZipError> {
    let mut bytes = [0; N];
    match file.read_exact_at(&mut bytes, at) {
        Ok(()) => Ok(bytes),
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Err(ZipError::Damaged("it ends too early".into())),
        Err(e) => Err(e.into()),
    }
}

/// A number in a record, its lowest byte first.
fn number(record: &[u8], from: usize, bytes: usize) -> u64 {
    record[from..from + bytes].iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// Checks the zip's directory.
///
/// # Errors
/// What is wrong with it.
pub fn check(file: File, version: &ModuleVersion) -> Result<(), ZipError> {
    let shape = |why: String| ZipError::Shape { version: version.to_string(), why };
    let prefix = format!("{version}/");
    let mut buffer = vec![0; MAX_CENTRAL_DIRECTORY_RECORD_SIZE];
    let archive = open(file, &mut buffer)?;
    let mut entries = archive.entries(&mut buffer);
    let mut total = 0_u64;
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
        if total > MAX_ZIP {
            return Err(shape(format!("its files are larger than {MAX_ZIP} bytes together")));
        }
    }
    Ok(())
}

/// Reads the `go.mod` at the root of a module zip, where there is one.
///
/// # Errors
/// What is wrong with the zip.
pub fn go_mod(file: File, version: &ModuleVersion) -> Result<Option<Vec<u8>>, ZipError> {
    let wanted = format!("{version}/go.mod");
    let again = file.try_clone()?;
    let mut buffer = vec![0; MAX_CENTRAL_DIRECTORY_RECORD_SIZE];
    let archive = open(file, &mut buffer)?;
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
    packed.read(&archive, &again, &wanted, &mut None, |content| content.take(MAX_GO_MOD + 1).read_to_end(&mut text).map(|_| ()))?;
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
    let again = file.try_clone()?;
    let archive = open(file, &mut buffer)?;
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
    let (mut left, mut inflater) = (MAX_ZIP, None);
    for (name, packed) in files {
        packed.read(&archive, &again, &name, &mut inflater, |content| {
            let mut bounded = content.take(left + 1);
            each(&name, &mut bounded)?;
            left = bounded.limit().saturating_sub(1);
            if bounded.limit() == 0 { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(()) }
        })?;
    }
    Ok(())
}

/// What inflates one file after another: its tables and buffers are larger than most files.
type Inflater<'a> = DeflateDecoder<ZipReader<&'a FileReader>>;

/// Holds what comes to its end against the length and the checksum that the zip's directory says. rawzip has the same, with a
/// checksum in plain code, which costs as much as a third of the hashing.
struct Verified<R> {
    content: R,
    expected: ZipVerification,
    crc: crc32fast::Hasher,
    length: u64,
}

impl<R: Read> Verified<R> {
    fn new(content: R, expected: ZipVerification) -> Self {
        Self { content, expected, crc: crc32fast::Hasher::new(), length: 0 }
    }
}

impl<R: Read> Read for Verified<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        let read = self.content.read(buf)?;
        self.crc.update(&buf[..read]);
        self.length += read as u64;
        if read == 0 || self.length >= self.expected.uncompressed_size {
            let own = ZipVerification { crc: self.crc.clone().finalize(), uncompressed_size: self.length };
            self.expected.valid(own).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
        }
        Ok(read)
    }
}

/// Where a file of a zip lies, and how it is packed.
struct Packed {
    at: ZipArchiveEntryWayfinder,
    method: CompressionMethod,
    /// Its checksum, where another copy of it has to follow the file.
    repeated: Option<u32>,
}

impl Packed {
    fn of(entry: &ZipFileHeaderRecord<'_>) -> Self {
        let repeated = entry.flags().has_data_descriptor().then(|| entry.crc32());
        Self { at: entry.wayfinder(), method: entry.compression_method(), repeated }
    }

    /// Unpacks it; its length and checksum have to be as the zip says when it is read to its end.
    fn read<'a>(
        &self,
        archive: &'a ZipArchive<FileReader>,
        file: &File,
        name: &str,
        inflater: &mut Option<Inflater<'a>>,
        read: impl FnOnce(&mut dyn Read) -> io::Result<()>,
    ) -> Result<(), ZipError> {
        let entry = archive.get_entry(self.at)?;
        if let Some(crc) = self.repeated {
            let (_, end) = entry.compressed_data_range();
            let follows: [u8; 8] = read_at(file, end)?;
            let own = if follows.starts_with(b"PK\x07\x08") { number(&follows, 4, 4) } else { number(&follows, 0, 4) };
            if own != u64::from(crc) {
                return Err(ZipError::Damaged(format!("{name}: what follows it has another checksum")));
            }
        }
        let raw = entry.reader();
        let expected = raw.claim_verifier();
        let done = match self.method {
            CompressionMethod::STORE => read(&mut Verified::new(raw, expected)),
            CompressionMethod::DEFLATE => {
                let inflater = match inflater {
                    Some(inflater) => {
                        inflater.reset(raw);
                        inflater
                    }
                    None => inflater.insert(DeflateDecoder::new(raw)),
                };
                read(&mut Verified::new(inflater, expected))
            }
            other => return Err(ZipError::Damaged(format!("{name} is packed by method {other}"))),
        };
        // What the disk says has a number; what the zip is, has none.
        done.map_err(|e| if e.raw_os_error().is_some() { ZipError::Io(e) } else { ZipError::Damaged(format!("{name}: {e}")) })
    }
}
