//! Checksums as go.sum and the checksum database have them: `h1:` and the base64 of a SHA-256 over a sorted list of files
//! (`golang.org/x/mod/sumdb/dirhash.Hash1`, <https://go.dev/ref/mod#go-sum-files>).

use std::fmt;
use std::fs::File;
use std::io;

use base64::Engine;
use base64::alphabet::STANDARD as ALPHABET;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use sha2::{Digest, Sha256};

use super::ModuleVersion;
use super::zip::{self, ZipError};

/// Base64 as Go's `base64.StdEncoding` reads and writes it: padded, and minding no bits that are left over.
pub(crate) const BASE64: GeneralPurpose = GeneralPurpose::new(
    &ALPHABET,
    GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true).with_decode_padding_mode(DecodePaddingMode::RequireCanonical),
);

/// So many bytes of a file are unpacked and hashed at once.
const PIECE: usize = 64 << 10;

/// The sum of a zip or a go.mod.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sum([u8; 32]);

impl Sum {
    /// Reads `h1:…`; `None` for anything else, sums of other kinds included.
    pub fn parse(text: &str) -> Option<Self> {
        let digest = BASE64.decode(text.strip_prefix("h1:")?).ok()?;
        Some(Self(digest.try_into().ok()?))
    }

    /// The sum of a go.mod.
    pub fn of_go_mod(text: &[u8]) -> Self {
        Self::of_files(vec![("go.mod".into(), Sha256::digest(text).into())])
    }

    /// The sum of a module zip, whose files are all unpacked for it. Blocks.
    ///
    /// # Errors
    /// What is wrong with the zip: it cannot be unpacked, or not within the bounds that the go command sets.
    pub fn of_zip(file: File, version: &ModuleVersion) -> Result<Self, ZipError> {
        let (mut files, mut piece) = (Vec::new(), vec![0; PIECE]);
        zip::unpack(file, version, |name, content| {
            let mut digest = Sha256::new();
            loop {
                match content.read(&mut piece) {
                    Ok(0) => break,
                    Ok(read) => digest.update(&piece[..read]),
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(e) => return Err(e),
                }
            }
            files.push((name.into(), digest.finalize().into()));
            Ok(())
        })?;
        Ok(Self::of_files(files))
    }

    fn of_files(mut files: Vec<(Box<str>, [u8; 32])>) -> Self {
        files.sort_unstable();
        let mut sum = Sha256::new();
        for (name, digest) in files {
            for byte in digest {
                sum.update(HEX[usize::from(byte)]);
            }
            sum.update(b"  ");
            sum.update(name.as_bytes());
            sum.update(b"\n");
        }
        Self(sum.finalize().into())
    }
}

/// Two hexadecimal digits a byte.
const HEX: [[u8; 2]; 256] = {
    let digits = b"0123456789abcdef";
    let mut table = [[0; 2]; 256];
    let mut n = 0;
    while n < 256 {
        table[n] = [digits[n >> 4], digits[n & 15]];
        n += 1;
    }
    table
};

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "h1:{}", BASE64.encode(self.0))
    }
}

impl fmt::Debug for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_of_a_published_go_mod() {
        // golang.org/x/text v0.3.0, as the public checksum database has it.
        let published = "h1:NqM8EUOU14njkJ3fqMW+pc6Ldnwhi/IjpwHt7yyuwOQ=";
        assert_eq!(Sum::of_go_mod(b"module golang.org/x/text\n").to_string(), published);
        assert_eq!(Sum::parse(published).map(|s| s.to_string()).as_deref(), Some(published));
    }

    #[test]
    fn what_is_no_sum() {
        for text in [
            "",
            "h1:",
            "h1:abc",
            "h2:NqM8EUOU14njkJ3fqMW+pc6Ldnwhi/IjpwHt7yyuwOQ=",
            "h1:NqM8EUOU14njkJ3fqMW+pc6Ldnwhi/IjpwHt7yyuwO",
        ] {
            assert_eq!(Sum::parse(text), None, "{text}");
        }
    }
}
