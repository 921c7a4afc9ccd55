//! Signed notes: a text and signatures under it (`golang.org/x/mod/sumdb/note`).

use base64::Engine;
use ring::signature::{ED25519, UnparsedPublicKey};
use sha2::{Digest, Sha256};

use crate::module::sum::BASE64;

/// The byte that stands for Ed25519 in front of a key.
const ED25519_KEY: u8 = 1;
/// The most signatures of one note.
const MAX_SIGNATURES: usize = 100;

/// The public key of a signer: `NAME+HASH+KEYDATA`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verifier {
    name: String,
    hash: u32,
    key: [u8; 32],
}

/// Why a text is no key, or a message no note of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// The key's text is not as it has to be.
    #[error("not a key as \"name+hash+keydata\"")]
    BadKey,
    /// The key's hash is not that of its name and data: it was mistyped.
    #[error("the key's hash does not fit its name and data")]
    KeyHash,
    /// The message is no signed note.
    #[error("not a signed note")]
    Malformed,
    /// A signature that says that it is by this key is not.
    #[error("the signature is not by the database's key")]
    Signature,
    /// Nothing in it is signed by this key.
    #[error("not signed by the database's key")]
    Unsigned,
}

impl Verifier {
    /// Reads a key.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, NoteError> {
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(hash), Some(data)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(NoteError::BadKey);
        };
        if !is_name(name) || hash.len() != 8 || !hash.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(NoteError::BadKey);
        }
        let hash = u32::from_str_radix(hash, 16).map_err(|_| NoteError::BadKey)?;
        let data = BASE64.decode(data).map_err(|_| NoteError::BadKey)?;
        let Some((&ED25519_KEY, key)) = data.split_first() else { return Err(NoteError::BadKey) };
        let key = key.try_into().map_err(|_| NoteError::BadKey)?;
        let digest = Sha256::new().chain_update(name).chain_update("\n").chain_update(&data).finalize();
        if digest[..4] != hash.to_be_bytes() {
            return Err(NoteError::KeyHash);
        }
        Ok(Self { name: name.to_owned(), hash, key })
    }

    /// The signer's name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// A name of a signer.
fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c == '+')
}

/// Opens a note: its text, its last line break included, where the key has signed it.
///
/// # Errors
/// Why it counts for nothing.
pub fn open<'a>(message: &'a [u8], key: &Verifier) -> Result<&'a str, NoteError> {
    let message = std::str::from_utf8(message).map_err(|_| NoteError::Malformed)?;
    if message.bytes().any(|b| b < 0x20 && b != b'\n') {
        return Err(NoteError::Malformed);
    }
    let split = message.rfind("\n\n").ok_or(NoteError::Malformed)?;
    let (text, signatures) = (&message[..=split], &message[split + 2..]);
    let signatures = signatures.strip_suffix('\n').ok_or(NoteError::Malformed)?;
    let mut signed = false;
    for (n, line) in signatures.split('\n').enumerate() {
        let (name, base64) = line.strip_prefix("— ").and_then(|l| l.split_once(' ')).ok_or(NoteError::Malformed)?;
        let signature = BASE64.decode(base64).map_err(|_| NoteError::Malformed)?;
        let (hash, signature) = signature.split_first_chunk().ok_or(NoteError::Malformed)?;
        if !is_name(name) || signature.is_empty() || n >= MAX_SIGNATURES {
            return Err(NoteError::Malformed);
        }
        // The first of several by one key counts, as in x/mod.
        if name == key.name && u32::from_be_bytes(*hash) == key.hash && !signed {
            let public = UnparsedPublicKey::new(&ED25519, &key.key);
            public.verify(text.as_bytes(), signature).map_err(|_| NoteError::Signature)?;
            signed = true;
        }
    }
    if signed { Ok(text) } else { Err(NoteError::Unsigned) }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The key and a tree head of the public checksum database.
    const KEY: &str = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8";
    const HEAD: &str = "go.sum database tree\n66385784\ndRgqg6bNjCv/HjgbQbR4FTQxb01x93qAiafZ4wW6HNI=\n\n\
        — sum.golang.org Az3grgdaBaBYyyTCLNv4P301f7lAEOLAqFA3S8qHA1DrIw6NQDwtMmAExrmeIOAA0fY8RhokDCBm9LiX4cF0aBcOHgs=\n";

    #[test]
    fn a_published_tree_head() {
        let key = Verifier::parse(KEY).expect("key");
        let text = open(HEAD.as_bytes(), &key).expect("signed");
        assert!(text.starts_with("go.sum database tree\n66385784\n") && text.ends_with("HNI=\n"));
        let changed = HEAD.replace("66385784", "66385785");
        assert_eq!(open(changed.as_bytes(), &key), Err(NoteError::Signature));
        let unsigned = HEAD.replace("— sum.golang.org", "— sum.example.org");
        assert_eq!(open(unsigned.as_bytes(), &key), Err(NoteError::Unsigned));
        let twice = format!("{HEAD}— sum.example.org AAAAAAAA\n");
        assert!(open(twice.as_bytes(), &key).is_ok());
    }

    #[test]
    fn keys() {
        assert_eq!(Verifier::parse(&KEY.replace("033d", "033e")), Err(NoteError::KeyHash));
        for bad in ["", "sum.golang.org", "a+033de0ae+", "a b+033de0ae+Ac4z", "a+33de0ae+Ac4z"] {
            assert_eq!(Verifier::parse(bad), Err(NoteError::BadKey), "{bad}");
        }
    }
}
