//! Static tokens: long random texts, of which only the SHA-256 is kept. A file has a token a line, `name:sha256:<64 hexadecimal
//! digits>`, as `modgate hash-password --token` writes it. They cannot be guessed, so a fast hash does.

use ring::rand::{SecureRandom, SystemRandom};
use sha2::{Digest, Sha256};

use super::htpasswd::{Parsed, check_name, entries};

/// What every token begins with, so that people and scanners know one when they see it.
const PREFIX: &str = "modgate_";

/// A token, as far as it is known here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Its name, for the log.
    pub name: String,
    /// The SHA-256 of its text.
    pub digest: [u8; 32],
    /// The teams that its bearer is of, by place.
    pub teams: Vec<usize>,
}

/// Reads a file's tokens. Empty lines and those that begin with `#` are passed over.
///
/// # Errors
/// All that is wrong, each with its line.
pub fn parse(text: &str) -> Parsed<(String, [u8; 32])> {
    let (mut tokens, mut wrong) = (Vec::<(String, [u8; 32])>::new(), Vec::new());
    for (n, line) in entries(text) {
        let entry = line.split_once(':').ok_or_else(|| "not name:sha256:digits".to_owned()).and_then(|(name, hash)| {
            check_name(name)?;
            let digest = hash.strip_prefix("sha256:").and_then(unhex);
            let digest =
                digest.ok_or("not name:sha256: and 64 hexadecimal digits (modgate hash-password --token makes such lines)")?;
            if tokens.iter().any(|(other, known)| other == name || *known == digest) {
                return Err(format!("the token {name:?} stands here twice"));
            }
            Ok((name.to_owned(), digest))
        });
        match entry {
            Ok(token) => tokens.push(token),
            Err(why) => wrong.push((n, why)),
        }
    }
    if wrong.is_empty() { Ok(tokens) } else { Err(wrong) }
}

/// The token of this text. Its hash is compared with all, bit by bit; who does not know a token cannot choose its hash.
pub(super) fn find<'a>(tokens: &'a [Token], text: &str) -> Option<&'a Token> {
    if tokens.is_empty() {
        return None;
    }
    let digest = digest_of(text);
    tokens.iter().fold(None, |found, token| {
        let differing = token.digest.iter().zip(&digest).fold(0, |all, (a, b)| all | (a ^ b));
        if differing == 0 { Some(token) } else { found }
    })
}

/// Makes a token: its text, and the line of a file for it.
///
/// # Errors
/// A name that cannot stand in a file, or a system without random numbers.
pub fn make(name: &str) -> Result<(String, String), String> {
    check_name(name)?;
    let mut random = [0; 32];
    SystemRandom::new().fill(&mut random).map_err(|_| "the system gives no random numbers")?;
    let text = format!("{PREFIX}{}", hex(&random));
    let line = format!("{name}:sha256:{}", hex(&digest_of(&text)));
    Ok((text, line))
}

fn digest_of(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // A String takes whatever is written.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; 32];
    for (n, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * n..2 * n + 2)?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn files_and_tokens() {
        // printf sesame | sha256sum
        let known = "d0c04f4b1951e4aeaaec8223ed2039e542f3aae805a6fa7f6d794e5afff5d272";
        let read = parse(&format!("# robots\nci:sha256:{known}\n")).expect("tokens");
        let tokens: Vec<Token> = read.into_iter().map(|(name, digest)| Token { name, digest, teams: vec![1] }).collect();
        assert_eq!(find(&tokens, "sesame").map(|t| t.name.as_str()), Some("ci"));
        assert_eq!(find(&tokens, "Sesame"), None);
        assert_eq!(find(&tokens, known), None);
        let upper = known.to_uppercase();
        let wrong =
            parse(&format!("a:sha256:{known}\nb:sha256:{upper}\nc:sha256:{}\nd:{known}\nci\n", &known[1..])).expect_err("wrong");
        assert_eq!(wrong.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [2, 3, 4, 5]);
    }

    #[test]
    fn made_ones_are_found() {
        let (text, line) = make("ci").expect("a token");
        assert!(text.starts_with(PREFIX) && text.len() == PREFIX.len() + 64 && !line.contains(&text));
        let (name, digest) = parse(&line).expect("a line").remove(0);
        assert!(find(&[Token { name, digest, teams: vec![] }], &text).is_some());
        assert!(make("a b").is_err() && make("a:b").is_err() && make("").is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_not(text in "[ -~\n:]{0,200}") {
            let _ = parse(&text);
            let _ = parse(&format!("a:sha256:{text}"));
        }
    }
}
