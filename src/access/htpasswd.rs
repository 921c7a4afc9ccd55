//! Password files: a user and a hash a line, as Apache's `htpasswd -B` and `modgate hash-password` write them. Argon2id (RFC
//! 9106) and bcrypt are taken; what can be reversed or guessed fast is not.

use std::hash::Hasher;

use argon2::password_hash::phc;
use argon2::{Argon2, Params, PasswordHasher, PasswordVerifier};
use ring::hmac;

use crate::base::Secret;

/// The most memory that verifying one password may take, in KiB.
const MAX_MEMORY: u32 = 256 << 10;
/// The most passes and lanes.
const MAX_PASSES: u32 = 64;
/// The dearest bcrypt cost: some ten seconds a password.
const MAX_COST: u32 = 16;

/// A user, their password's hash, and the teams that they are of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The name that they log in with.
    pub name: String,
    /// What their password is held against.
    pub hash: PasswordHash,
    /// Their teams, by place.
    pub teams: Vec<usize>,
}

/// A password's hash. It has no text form: who has it can guess at leisure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PasswordHash {
    kind: Kind,
    text: Secret,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Argon2id,
    Bcrypt,
}

impl PasswordHash {
    /// Reads a hash.
    ///
    /// # Errors
    /// What is wrong with it; the text never repeats it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let kind = if text.starts_with("$argon2id$") {
            let parsed = phc::PasswordHash::new(text).map_err(|e| format!("not an Argon2 hash ({e})"))?;
            let params = Params::try_from(&parsed).map_err(|e| format!("not an Argon2 hash ({e})"))?;
            if parsed.salt.is_none() || parsed.hash.is_none() {
                return Err("an Argon2 hash without its salt or its end".into());
            }
            if params.m_cost() > MAX_MEMORY || params.t_cost() > MAX_PASSES || params.p_cost() > MAX_PASSES {
                return Err("an Argon2 hash that is too dear: at most 256 MiB, 64 passes and 64 lanes".into());
            }
            Kind::Argon2id
        } else if let Some(rest) = ["$2y$", "$2b$", "$2a$"].iter().find_map(|p| text.strip_prefix(p)) {
            let cost = rest.split('$').next().and_then(|cost| cost.parse::<u32>().ok());
            if text.len() != 60 || text.parse::<bcrypt::HashParts>().is_err() {
                return Err("not a bcrypt hash".into());
            }
            if !cost.is_some_and(|cost| (4..=MAX_COST).contains(&cost)) {
                return Err(format!("a bcrypt hash whose cost is not within 4 to {MAX_COST}"));
            }
            Kind::Bcrypt
        } else {
            return Err("not an Argon2id or bcrypt hash (modgate hash-password and htpasswd -B make such ones)".into());
        };
        Ok(Self { kind, text: Secret::new(text) })
    }

    /// Hashes a password anew, by Argon2id as OWASP has it (19 MiB, 2 passes).
    ///
    /// # Errors
    /// A system without random numbers.
    pub fn of_password(password: &str) -> Result<String, String> {
        let hash = Argon2::default().hash_password(password.as_bytes()).map_err(|e| e.to_string())?;
        Ok(hash.to_string())
    }

    /// Whether this is the password. Takes long on purpose, and blocks.
    pub fn verify(&self, password: &str) -> bool {
        match self.kind {
            Kind::Argon2id => phc::PasswordHash::new(self.text.expose())
                .is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok()),
            Kind::Bcrypt => bcrypt::verify(password, self.text.expose()).unwrap_or(false),
        }
    }
}

/// The entries of a file, or all that is wrong with it, each with its line.
pub type Parsed<T> = Result<Vec<T>, Vec<(usize, String)>>;

/// Reads a file's users. Empty lines and those that begin with `#` are passed over.
///
/// # Errors
/// All that is wrong, each with its line.
pub fn parse(text: &str) -> Parsed<(String, PasswordHash)> {
    let (mut users, mut wrong) = (Vec::<(String, PasswordHash)>::new(), Vec::new());
    for (n, line) in entries(text) {
        let entry = line.split_once(':').ok_or_else(|| "not user:hash".to_owned()).and_then(|(name, hash)| {
            check_name(name)?;
            if users.iter().any(|(other, _)| other == name) {
                return Err(format!("the user {name:?} stands here twice"));
            }
            Ok((name.to_owned(), PasswordHash::parse(hash.trim_end())?))
        });
        match entry {
            Ok(user) => users.push(user),
            Err(why) => wrong.push((n, why)),
        }
    }
    if wrong.is_empty() { Ok(users) } else { Err(wrong) }
}

/// A file's entries with their line numbers.
pub(super) fn entries(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(n, line)| (n + 1, line.trim())).filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

/// Checks the name of a user or a token.
///
/// # Errors
/// What is wrong with it.
pub fn check_name(name: &str) -> Result<(), String> {
    let plain = |c: char| !c.is_control() && !c.is_whitespace() && c != ':';
    if name.is_empty() || name.len() > 255 || !name.chars().all(plain) {
        return Err("a name has 1 to 255 characters without white space and colons".into());
    }
    if name.starts_with('#') {
        return Err("a line that begins with # is a comment; no name can".into());
    }
    Ok(())
}

/// A key that is made of all hashes, so that nobody knows it who does not know them.
pub(super) fn stand_in_key(users: &[User]) -> hmac::Key {
    let all: Vec<&str> = users.iter().map(|user| user.hash.text.expose()).collect();
    hmac::Key::new(hmac::HMAC_SHA256, all.join("\n").as_bytes())
}

/// The user of this name and the hash that the password is held against. For an unknown name it is somebody's hash all the same, the
/// same one each time, so that the time it takes does not tell who is known.
pub(super) fn hash_for<'a>(users: &'a [User], name: &str, key: &hmac::Key) -> (Option<&'a User>, &'a PasswordHash) {
    // All names are compared, whatever is found.
    let found = users.iter().fold(None, |found, user| if user.name == name { Some(user) } else { found });
    let mut hasher = std::hash::DefaultHasher::new();
    hasher.write(hmac::sign(key, name.as_bytes()).as_ref());
    let stand_in = &users[usize::try_from(hasher.finish() % users.len() as u64).unwrap_or(0)];
    (found, found.map_or(&stand_in.hash, |user| &user.hash))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    // htpasswd -nbB -C 4 ann sesame
    const BCRYPT: &str = "$2y$04$Qom1/nXNzFY0iWds0Gx9Ue5vMYUeTumvc6JlloO/uKW4P2M11txei";
    // echo -n sesame | argon2 somesalt -id -t 1 -k 64 -p 1 -e
    const ARGON2ID: &str = "$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHQ$cfFq9ZC/NNpyETLTpF8cJwoOJrn3G4cLyP0fBDpEUbg";

    #[test]
    fn hashes_of_other_programs() {
        for hash in [BCRYPT, ARGON2ID] {
            let hash = PasswordHash::parse(hash).expect("hash");
            assert!(hash.verify("sesame"));
            assert!(!hash.verify("Sesame") && !hash.verify("") && !hash.verify("sesame "));
            assert_eq!(format!("{hash:?}").matches("(secret)").count(), 1);
        }
        let own = PasswordHash::of_password("open sesame").expect("hash");
        assert!(own.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
        assert!(PasswordHash::parse(&own).expect("hash").verify("open sesame"));
    }

    #[test]
    fn what_is_not_taken() {
        let dear = "$argon2id$v=19$m=4194304,t=1,p=1$c29tZXNhbHQ$RdescudvJCsgt3ub+b9dWRWJTmaaJObG";
        for bad in [
            "sesame",
            "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=",
            "$apr1$xxxxxxxx$dxHfLAsjHkDRmG83UXe8K0",
            "$2y$04$tooshort",
            "$2y$31$Qom1/nXNzFY0iWds0Gx9Ue5vMYUeTumvc6JlloO/uKW4P2M11txei",
            "$2y$xx$Qom1/nXNzFY0iWds0Gx9Ue5vMYUeTumvc6JlloO/uKW4P2M11txei",
            "$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHQ",
            "$argon2i$v=19$m=64,t=1,p=1$c29tZXNhbHQ$RdescudvJCsgt3ub+b9dWRWJTmaaJObG",
            dear,
        ] {
            let why = PasswordHash::parse(bad).expect_err(bad);
            assert!(!why.contains(bad), "{why}");
        }
    }

    #[test]
    fn files() {
        let text = format!("# people\n\nann:{BCRYPT}\n  bob:{BCRYPT}  \n");
        let users = parse(&text).expect("users");
        assert_eq!(users.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["ann", "bob"]);
        let wrong =
            parse(&format!("ann:{BCRYPT}\nann:{BCRYPT}\n\nbob\n:{BCRYPT}\nc d:{BCRYPT}\neve:{{SHA}}x\n")).expect_err("wrong");
        assert_eq!(wrong.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [2, 4, 5, 6, 7]);
    }

    #[test]
    fn an_unknown_name_meets_the_same_hash_each_time() {
        let user = |name: &str, hash| User { name: name.into(), hash: PasswordHash::parse(hash).expect("hash"), teams: vec![] };
        let users = [user("ann", BCRYPT), user("bob", ARGON2ID)];
        let key = stand_in_key(&users);
        let kind = |name: &str| hash_for(&users, name, &key).1.kind;
        assert_eq!((kind("ann"), kind("bob")), (Kind::Bcrypt, Kind::Argon2id));
        let unknown: Vec<_> = (0..64).map(|n| kind(&format!("x{n}"))).collect();
        assert!(unknown.contains(&Kind::Bcrypt) && unknown.contains(&Kind::Argon2id));
        assert!((0..64).all(|n| kind(&format!("x{n}")) == unknown[n]));
        assert!(hash_for(&users, "x", &key).0.is_none());
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_not(text in "[ -~\n$:]{0,200}") {
            let _ = parse(&text);
            let _ = PasswordHash::parse(&format!("$argon2id${text}"));
            let _ = PasswordHash::parse(&format!("$2y${text}"));
        }
    }
}
