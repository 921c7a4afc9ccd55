//! Tokens that CI systems give their jobs (RFC 7519), for example GitLab's ID tokens and GitHub's OIDC tokens.
//!
//! A token has to be signed by a key of its issuer, with an algorithm that the key is for, and to name the issuer, one of the
//! audiences and an end in time. Its claims then say which teams its bearer is of. An issuer may serve the whole world, so being one
//! of its bearers alone means nothing: without a rule on claims that holds, nobody is let in.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jsonwebtoken::crypto::{CryptoProvider, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{Error, ErrorKind, new_error};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind, Header, Validation};
use ring::signature::{self, UnparsedPublicKey};
use serde_json::{Map, Value};
use url::Url;
use wildmatch::WildMatch;

use super::keys::{self, Key, KeySet};
use super::{Caller, How, Refused, Verdict};
use crate::egress::{EgressHandle, Policy};

/// How far clocks may differ, in seconds.
const LEEWAY: u64 = 30;
/// The longest name of a caller that is made of a token.
const MAX_NAME: usize = 200;

/// One that gives tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct Issuer {
    /// Its name in the configuration.
    pub name: String,
    /// What its tokens call it (`iss`).
    pub issuer: String,
    /// Whom its tokens are for (`aud`); one of these.
    pub audiences: Vec<String>,
    /// Where its keys come from.
    pub keys: Keys,
    /// What all its tokens have to say. Where this is something, one that is of no team is let in all the same.
    pub claims: Vec<Claim>,
    /// Which teams its tokens' bearers are of: all claims of a rule have to hold.
    pub teams: Vec<(Vec<Claim>, usize)>,
}

/// Where keys come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keys {
    /// A set, as it was read from a file.
    Set(String),
    /// A server, the way to it, and how often it is asked.
    Server(Url, Box<Policy>, Duration),
}

/// What a claim has to be: one of these texts, with `*` for any run of characters and `?` for one. Of a list in the token, one item
/// has to match.
#[derive(Debug, Clone, PartialEq)]
pub struct Claim {
    name: String,
    values: Vec<WildMatch>,
}

impl Claim {
    /// A claim of this name.
    pub fn new(name: &str, values: &[String]) -> Self {
        Self { name: name.to_owned(), values: values.iter().map(|value| WildMatch::new(value)).collect() }
    }

    fn holds(&self, claims: &Map<String, Value>) -> bool {
        let matches = |text: &str| self.values.iter().any(|value| value.matches(text));
        let one = |value: &Value| match value {
            Value::String(text) => matches(text),
            Value::Bool(_) | Value::Number(_) => matches(&value.to_string()),
            Value::Null | Value::Array(_) | Value::Object(_) => false,
        };
        match claims.get(&self.name) {
            Some(Value::Array(items)) => items.iter().any(one),
            Some(value) => one(value),
            None => false,
        }
    }
}

/// Checks a set of keys.
///
/// # Errors
/// That there is none of use in it.
pub fn check_set(set: &[u8]) -> Result<(), String> {
    keys::parse(set).map(drop)
}

/// Whether a text looks like a token: three parts in base64url, the first of them a JSON object.
pub(super) fn looks_like_one(text: &str) -> bool {
    let plain = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    text.starts_with("eyJ") && text.split('.').count() == 3 && text.split('.').all(plain)
}

/// Judges tokens.
pub(super) struct Jwts {
    keys: Vec<Arc<KeySet>>,
}

impl Jwts {
    /// Keys of issuers. Those that were had `before` from the same place are had still.
    pub(super) fn new(issuers: &[Issuer], ways: Vec<Option<EgressHandle>>, before: Option<(&[Issuer], &Self)>) -> Self {
        // There is one in a process; a second time it is the same.
        let _ = PROVIDER.install_default();
        let had = |issuer: &Issuer| {
            let (issuers, jwts) = before?;
            let same = issuers.iter().position(|other| other.name == issuer.name && other.keys == issuer.keys)?;
            jwts.keys.get(same).cloned()
        };
        let made = |issuer: &Issuer, way| match (&issuer.keys, way) {
            (Keys::Server(url, _, refresh), Some(way)) => KeySet::of_server(&issuer.name, url.clone(), way, *refresh),
            (Keys::Set(set), _) => KeySet::of_file(&issuer.name, set),
            (Keys::Server(..), None) => KeySet::of_file(&issuer.name, ""),
        };
        let ways = ways.into_iter().chain(std::iter::repeat(None));
        let keys = issuers.iter().zip(ways).map(|(issuer, way)| had(issuer).unwrap_or_else(|| made(issuer, way)));
        Self { keys: keys.collect() }
    }

    /// Has the keys of the issuer at this place; how many of them are of use.
    pub(super) async fn probe(&self, at: usize) -> Result<usize, String> {
        match self.keys.get(at) {
            Some(keys) => keys.probe().await,
            None => Err("there is no such issuer".to_owned()),
        }
    }

    /// Says who bears this token.
    pub(super) async fn judge(&self, issuers: &[Issuer], token: &str) -> Verdict {
        let malformed = |e: Error| {
            let why: String = e.to_string().chars().take(MAX_NAME).collect();
            Refused::wrong(format!("a malformed JWT ({why})"))
        };
        let header = jsonwebtoken::decode_header(token).map_err(malformed)?;
        if header.crit.is_some() {
            return Err(Refused::wrong("a JWT with extensions that have to be understood (crit)"));
        }
        // Which keys to verify it with only its own word can tell; that word is not believed before.
        let claimed: Map<String, Value> = jsonwebtoken::dangerous::insecure_decode_claims(token).map_err(malformed)?;
        let named = claimed.get("iss").and_then(Value::as_str).unwrap_or_default();
        let mut refused = Refused::wrong("a JWT of an unknown issuer");
        // Several may go by one name, with keys or audiences of their own.
        for (issuer, keys) in issuers.iter().zip(&self.keys).filter(|(issuer, _)| issuer.issuer == named) {
            let why = match verify_by_any(issuer, keys, &header, token).await {
                Ok(claims) => match entitle(issuer, &claims) {
                    Ok(caller) => return Ok(caller),
                    Err(why) => why,
                },
                Err(why) => why,
            };
            // What cannot be said now may be right; what is right and of no use is more than wrong.
            if !matches!((&refused, &why), (Refused::Unavailable(_), _) | (Refused::Unentitled(_), Refused::Wrong(_))) {
                refused = why;
            }
        }
        Err(refused)
    }
}

/// The claims of a token that one of its issuer's keys has signed.
async fn verify_by_any(issuer: &Issuer, keys: &Arc<KeySet>, header: &Header, token: &str) -> Result<Map<String, Value>, Refused> {
    let by = |found: &[Key]| {
        let mut failed = None;
        for key in found {
            match verify(issuer, key, token) {
                Ok(claims) => return Ok(claims),
                Err(e) => failed = Some(e),
            }
        }
        Err(failed)
    };
    let found = keys.find(header.kid.as_deref(), header.alg).await;
    let found = found.map_err(|_| Refused::Unavailable("the keys of this token's issuer cannot be had".into()))?;
    let mut verified = by(&found);
    if let Err(Some(e)) = &verified
        && matches!(e.kind(), ErrorKind::InvalidSignature)
        && let Some(found) = keys.find_anew(header.kid.as_deref(), header.alg).await
    {
        verified = by(&found);
    }
    verified.map_err(|failed| {
        let why = failed.map_or_else(|| "it names an unknown key or algorithm".to_owned(), |e| said(&e));
        Refused::wrong(format!("a JWT of {}: {why}", issuer.name))
    })
}

/// The claims of a token that is signed by this key, for one of the issuer's audiences, and good now.
fn verify(issuer: &Issuer, key: &Key, token: &str) -> Result<Map<String, Value>, Error> {
    let mut wanted = Validation::new(Algorithm::RS256);
    wanted.algorithms.clone_from(&key.algorithms);
    wanted.leeway = LEEWAY;
    wanted.validate_nbf = true;
    wanted.set_audience(&issuer.audiences);
    wanted.set_issuer(&[&issuer.issuer]);
    wanted.set_required_spec_claims(&["exp", "iss", "aud"]);
    jsonwebtoken::decode(token, &key.public, &wanted).map(|data| data.claims)
}

/// What a failure means for the log.
fn said(e: &Error) -> String {
    match e.kind() {
        ErrorKind::InvalidSignature => "its signature is wrong".into(),
        ErrorKind::ExpiredSignature => "it has expired".into(),
        ErrorKind::ImmatureSignature => "it is not good yet (is the clock right here?)".into(),
        ErrorKind::InvalidAudience => "it is for another audience".into(),
        ErrorKind::InvalidAlgorithm => "its algorithm is not one of its key's".into(),
        _ => e.to_string(),
    }
}

/// What the bearer of a verified token may.
fn entitle(issuer: &Issuer, claims: &Map<String, Value>) -> Verdict {
    let subject = claims.get("sub").and_then(Value::as_str).unwrap_or("-");
    let name: String = format!("{}:{subject}", issuer.name).chars().filter(|c| !c.is_control()).take(MAX_NAME).collect();
    if let Some(missing) = issuer.claims.iter().find(|claim| !claim.holds(claims)) {
        return Err(Refused::Unentitled(
            format!("the JWT of {name} does not have the claim {:?} that is wanted", missing.name).into(),
        ));
    }
    let mut teams: Vec<usize> = Vec::new();
    for (rule, team) in &issuer.teams {
        if rule.iter().all(|claim| claim.holds(claims)) && !teams.contains(team) {
            teams.push(*team);
        }
    }
    if teams.is_empty() && issuer.claims.is_empty() {
        return Err(Refused::Unentitled(format!("the JWT of {name} is of no team").into()));
    }
    let expires = claims.get("exp").and_then(Value::as_f64).and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let expires = expires.and_then(|since| SystemTime::UNIX_EPOCH.checked_add(since));
    Ok(Arc::new(Caller { name: name.into(), how: How::Jwt, teams, expires }))
}

/// Signatures by ring, which the program has already for TLS. Nothing is signed here.
static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: |_, _| Err(new_error(ErrorKind::InvalidAlgorithm)),
    verifier_factory: verifier,
    key_utils: KeyUtils::new_unimplemented(),
};

struct Verifier {
    algorithm: Algorithm,
    key: DecodingKey,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as the provider's table has it")]
fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>, Error> {
    if key.family() != algorithm.family() {
        return Err(new_error(ErrorKind::InvalidAlgorithm));
    }
    Ok(Box::new(Verifier { algorithm: *algorithm, key: key.clone() }))
}

impl jsonwebtoken::signature::Verifier<Vec<u8>> for Verifier {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), jsonwebtoken::signature::Error> {
        let wrong = |_| jsonwebtoken::signature::Error::new();
        let by_rsa = |parameters: &'static signature::RsaParameters| match self.key.kind() {
            DecodingKeyKind::RsaModulusExponent { n, e } => {
                signature::RsaPublicKeyComponents { n, e }.verify(parameters, message, signature).map_err(wrong)
            }
            DecodingKeyKind::SecretOrDer(_) => Err(wrong(ring::error::Unspecified)),
        };
        let by_point = |algorithm: &'static dyn signature::VerificationAlgorithm| match self.key.kind() {
            DecodingKeyKind::SecretOrDer(point) => {
                UnparsedPublicKey::new(algorithm, point).verify(message, signature).map_err(wrong)
            }
            DecodingKeyKind::RsaModulusExponent { .. } => Err(wrong(ring::error::Unspecified)),
        };
        match self.algorithm {
            Algorithm::RS256 => by_rsa(&signature::RSA_PKCS1_2048_8192_SHA256),
            Algorithm::RS384 => by_rsa(&signature::RSA_PKCS1_2048_8192_SHA384),
            Algorithm::RS512 => by_rsa(&signature::RSA_PKCS1_2048_8192_SHA512),
            Algorithm::PS256 => by_rsa(&signature::RSA_PSS_2048_8192_SHA256),
            Algorithm::PS384 => by_rsa(&signature::RSA_PSS_2048_8192_SHA384),
            Algorithm::PS512 => by_rsa(&signature::RSA_PSS_2048_8192_SHA512),
            Algorithm::ES256 => by_point(&signature::ECDSA_P256_SHA256_FIXED),
            Algorithm::ES384 => by_point(&signature::ECDSA_P384_SHA384_FIXED),
            Algorithm::EdDSA => by_point(&signature::ED25519),
            _ => Err(wrong(ring::error::Unspecified)),
        }
    }
}

impl JwtVerifier for Verifier {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn claims_and_teams() {
        let claim = |name: &str, value: &str| Claim::new(name, &[value.to_owned(), "another".to_owned()]);
        let claims = |text: &str| serde_json::from_str::<Map<String, Value>>(text).expect("claims");
        let own = claims(
            r#"{"sub":"repo:acme/pay:ref:main","project_path":"payments/api","protected":true,"id":7,"groups":["a","maps"],"x":{"a":"b"},"n":null}"#,
        );
        let table = [
            ("project_path", "payments/*", true),
            ("project_path", "payments", false),
            ("project_path", "*/api", true),
            ("sub", "repo:acme/*:ref:main", true),
            ("sub", "repo:acme/*:ref:dev", false),
            ("protected", "true", true),
            ("id", "7", true),
            ("groups", "maps", true),
            ("groups", "map", false),
            ("x", "*", false),
            ("n", "*", false),
            ("none", "*", false),
        ];
        for (name, value, wanted) in table {
            assert_eq!(claim(name, value).holds(&own), wanted, "{name} = {value}");
        }
        let issuer = |all: &[Claim], teams: &[(&str, &str, usize)]| Issuer {
            name: "ci".into(),
            issuer: "https://ci.example".into(),
            audiences: vec!["modgate".into()],
            keys: Keys::Set(String::new()),
            claims: all.to_vec(),
            teams: teams.iter().map(|(name, value, team)| (vec![claim(name, value)], *team)).collect(),
        };
        let teams = |issuer: &Issuer| entitle(issuer, &own).map(|caller| caller.teams.clone());
        let rules = [("project_path", "payments/*", 1), ("groups", "maps", 2), ("groups", "a", 1), ("id", "8", 3)];
        assert_eq!(teams(&issuer(&[], &rules)), Ok(vec![1, 2]));
        assert!(matches!(teams(&issuer(&[], &rules[3..])), Err(Refused::Unentitled(_))), "an issuer's bearer alone is nobody");
        assert_eq!(teams(&issuer(&[claim("protected", "true")], &rules[3..])), Ok(vec![]));
        assert!(matches!(teams(&issuer(&[claim("protected", "false")], &rules)), Err(Refused::Unentitled(_))));
    }

    #[test]
    fn looks() {
        assert!(looks_like_one("eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0.c2ln"));
        for not in ["eyJ", "eyJ.a.", "eyJ.a.b.c", "abc.def.ghi", "eyJ.a b.c", "modgate_eyJ.a.b"] {
            assert!(!looks_like_one(not), "{not}");
        }
    }

    proptest! {
        #[test]
        fn any_token_is_refused(token in "eyJ[A-Za-z0-9_-]{0,60}\\.[A-Za-z0-9_-]{0,60}\\.[A-Za-z0-9_-]{0,60}") {
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
            let issuer = Issuer {
                name: "ci".into(),
                issuer: String::new(),
                audiences: vec!["modgate".into()],
                keys: Keys::Set(r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#.into()),
                claims: vec![],
                teams: vec![],
            };
            let issuers = [issuer];
            let verdict = runtime.block_on(Jwts::new(&issuers, vec![], None).judge(&issuers, &token));
            prop_assert!(matches!(verdict, Err(Refused::Wrong(_))));
        }
    }
}
