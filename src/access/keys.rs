//! The keys of an issuer (RFC 7517): from a file, or from its server, asked again now and then and when a token names a key that is
//! not known, which is how keys are rotated. While the server cannot be asked, the keys that were had go on being good for a while.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind};
use tokio::sync::{Semaphore, SemaphorePermit};
use url::Url;

use crate::egress::EgressHandle;

/// The largest set of keys that is read, in bytes.
const MAX_SET: u64 = 1 << 20;
/// The most keys of a set that are used.
const MAX_KEYS: usize = 100;
/// A server is not asked more often, whatever tokens name.
const PAUSE: Duration = Duration::from_secs(10);
/// How long a server may take, all in all.
const LIMIT: Duration = Duration::from_secs(15);
/// So many tokens wait at once for a server's answer, or until it may be asked again.
const WAITING: usize = 64;
/// The shortest modulus of an RSA key, in bytes: 2048 bits.
const MIN_RSA: usize = 256;
/// How long keys are good for whose server cannot be asked.
const STALE: Duration = Duration::from_secs(24 * 3600);

/// One key, for the algorithms that it may be used with.
#[derive(Debug, Clone)]
pub(super) struct Key {
    id: Option<String>,
    pub(super) public: DecodingKey,
    pub(super) algorithms: Vec<Algorithm>,
}

/// Where keys come from.
enum Source {
    File,
    Server { url: Url, way: EgressHandle, refresh: Duration },
}

struct Had {
    keys: Vec<Key>,
    at: Instant,
}

/// When a server was asked last, and what came of it.
struct Asked {
    ended: Instant,
    result: Result<(), String>,
}

/// An issuer's keys.
pub(super) struct KeySet {
    issuer: String,
    source: Source,
    had: ArcSwapOption<Had>,
    asked: Mutex<Option<Asked>>,
    asking: tokio::sync::Mutex<()>,
    /// Tokens that wait until the server may be asked about their key.
    waiting: Semaphore,
}

impl KeySet {
    /// Keys that do not change.
    pub(super) fn of_file(issuer: &str, set: &str) -> Arc<Self> {
        let keys = parse(set.as_bytes()).unwrap_or_default();
        Self::make(issuer, Source::File, Some(Had { keys, at: Instant::now() }))
    }

    /// Those of a server.
    pub(super) fn of_server(issuer: &str, url: Url, way: EgressHandle, refresh: Duration) -> Arc<Self> {
        Self::make(issuer, Source::Server { url, way, refresh }, None)
    }

    fn make(issuer: &str, source: Source, had: Option<Had>) -> Arc<Self> {
        Arc::new(Self {
            issuer: issuer.to_owned(),
            source,
            had: ArcSwapOption::new(had.map(Arc::new)),
            asked: Mutex::default(),
            asking: tokio::sync::Mutex::default(),
            waiting: Semaphore::new(WAITING),
        })
    }

    /// The keys that a token may be signed with, which says its key's name and its algorithm. None is an answer too: the issuer was
    /// asked since, and has no such key.
    ///
    /// # Errors
    /// That it cannot be said.
    pub(super) async fn find(self: &Arc<Self>, id: Option<&str>, algorithm: Algorithm) -> Result<Vec<Key>, String> {
        let Source::Server { refresh, .. } = &self.source else { return Ok(self.known(id, algorithm)) };
        match self.age() {
            Some(age) if age < STALE => {
                if age >= *refresh {
                    // What is known does for this one.
                    let this = Arc::clone(self);
                    tokio::spawn(async move { this.ask_in_the_background().await });
                }
            }
            _ => {
                let _place = self.place()?;
                self.ask().await?;
                if self.age().is_none_or(|age| age >= STALE) {
                    return Err("they are too old, and cannot be had again".into());
                }
            }
        }
        let found = self.known(id, algorithm);
        if !found.is_empty() {
            return Ok(found);
        }
        // A new key has a name that is not known yet.
        let _place = self.place()?;
        let rest = self.last(|asked| PAUSE.saturating_sub(asked.ended.elapsed())).unwrap_or_default();
        tokio::time::sleep(rest).await;
        self.ask().await?;
        Ok(self.known(id, algorithm))
    }

    /// The same for a token that none of the keys which were found has signed: an issuer may have put another key in a key's place.
    /// Nothing where it was asked a moment ago.
    pub(super) async fn find_anew(&self, id: Option<&str>, algorithm: Algorithm) -> Option<Vec<Key>> {
        if matches!(self.source, Source::File) || self.last(|asked| asked.ended.elapsed() < PAUSE) == Some(true) {
            return None;
        }
        let _place = self.place().ok()?;
        self.ask().await.ok()?;
        Some(self.known(id, algorithm))
    }

    /// A place among those who wait for the server. They are few, so that nobody takes up all verifications by nonsense.
    fn place(&self) -> Result<SemaphorePermit<'_>, String> {
        self.waiting.try_acquire().map_err(|_| "too many tokens wait for them".to_owned())
    }

    /// Has the keys, wherever they come from; how many of them are of use.
    ///
    /// # Errors
    /// Why there are none.
    pub(super) async fn probe(&self) -> Result<usize, String> {
        self.ask().await?;
        Ok(self.had.load().as_ref().map_or(0, |had| had.keys.len()))
    }

    fn age(&self) -> Option<Duration> {
        self.had.load().as_ref().map(|had| had.at.elapsed())
    }

    fn known(&self, id: Option<&str>, algorithm: Algorithm) -> Vec<Key> {
        let had = self.had.load();
        let fits =
            |key: &&Key| key.algorithms.contains(&algorithm) && (id.is_none() || key.id.is_none() || key.id.as_deref() == id);
        had.iter().flat_map(|had| &had.keys).filter(fits).cloned().collect()
    }

    fn last<T>(&self, of: impl FnOnce(&Asked) -> T) -> Option<T> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(of)
    }

    /// Asks for keys that are getting old, unless somebody does already or did a moment ago.
    async fn ask_in_the_background(&self) {
        let Ok(_only) = self.asking.try_lock() else { return };
        if self.last(|asked| asked.ended.elapsed() < PAUSE) == Some(true) {
            return;
        }
        // What goes wrong is told there, and those that were had are used.
        let _ = self.get().await;
    }

    /// Asks the server. Who waited for another's question takes its answer; a server that was asked a moment ago is left alone, and
    /// has said what it said.
    async fn ask(&self) -> Result<(), String> {
        let began = Instant::now();
        let _only = self.asking.lock().await;
        let said = self.last(|asked| (asked.ended >= began || asked.ended.elapsed() < PAUSE).then(|| asked.result.clone()));
        match said.flatten() {
            Some(said) => said,
            None => self.get().await,
        }
    }

    async fn get(&self) -> Result<(), String> {
        let Source::Server { url, way, .. } = &self.source else { return Ok(()) };
        let get = async {
            let mut response = way.get(url.clone()).await.map_err(|e| e.to_string())?;
            if response.status != 200 {
                return Err(format!("its server answered {}", response.status));
            }
            response.body.collect(MAX_SET).await.map_err(|e| e.to_string())
        };
        let set = tokio::time::timeout(LIMIT, get).await.unwrap_or_else(|_| Err("its server took too long".to_owned()));
        let result = set.and_then(|set| parse(&set)).map(|keys| {
            self.had.store(Some(Arc::new(Had { keys, at: Instant::now() })));
        });
        if let Err(why) = &result {
            tracing::error!(issuer = self.issuer, why, had = self.age().is_some(), "the keys of an issuer cannot be had");
        }
        let asked = Asked { ended: Instant::now(), result: result.clone() };
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = Some(asked);
        result
    }
}

/// Reads a set of keys. Those that are of no use here (of other kinds, for encryption, symmetric) are passed over, so that an issuer
/// may add some.
///
/// # Errors
/// That it is no set, or that none of its keys is of use.
pub(super) fn parse(set: &[u8]) -> Result<Vec<Key>, String> {
    let set: serde_json::Value = serde_json::from_slice(set).map_err(|e| format!("not a JSON set of keys ({e})"))?;
    let keys = set.get("keys").and_then(|keys| keys.as_array()).ok_or("not a set of keys: it has no \"keys\"")?;
    let keys: Vec<Key> = keys.iter().filter_map(|key| usable(&serde_json::from_value(key.clone()).ok()?)).take(MAX_KEYS).collect();
    if keys.is_empty() {
        return Err("a set of keys without one that is of use here (RSA from 2048 bits, P-256, P-384, Ed25519)".into());
    }
    Ok(keys)
}

/// A key that signatures are verified with, and the algorithms that it is for.
fn usable(jwk: &Jwk) -> Option<Key> {
    if jwk.common.public_key_use.as_ref().is_some_and(|use_| *use_ != PublicKeyUse::Signature) {
        return None;
    }
    let all: Vec<Algorithm> = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => AlgorithmFamily::Rsa.algorithms().to_vec(),
        AlgorithmParameters::EllipticCurve(params) => match params.curve {
            EllipticCurve::P256 => vec![Algorithm::ES256],
            EllipticCurve::P384 => vec![Algorithm::ES384],
            _ => return None,
        },
        AlgorithmParameters::OctetKeyPair(params) if params.curve == EllipticCurve::Ed25519 => vec![Algorithm::EdDSA],
        // A symmetric key in a public set is no secret.
        _ => return None,
    };
    let algorithms = match jwk.common.key_algorithm {
        None => all,
        Some(only) => {
            let only = of_key(only)?;
            all.into_iter().filter(|algorithm| *algorithm == only).collect()
        }
    };
    let verifies = |operations: &Vec<KeyOperations>| operations.contains(&KeyOperations::Verify);
    if algorithms.is_empty() || !jwk.common.key_operations.as_ref().is_none_or(verifies) {
        return None;
    }
    let public = DecodingKey::from_jwk(jwk).ok()?;
    if let DecodingKeyKind::RsaModulusExponent { n, .. } = public.kind()
        && n.iter().skip_while(|byte| **byte == 0).count() < MIN_RSA
    {
        return None;
    }
    Some(Key { id: jwk.common.key_id.clone(), public, algorithms })
}

fn of_key(algorithm: KeyAlgorithm) -> Option<Algorithm> {
    Some(match algorithm {
        KeyAlgorithm::RS256 => Algorithm::RS256,
        KeyAlgorithm::RS384 => Algorithm::RS384,
        KeyAlgorithm::RS512 => Algorithm::RS512,
        KeyAlgorithm::PS256 => Algorithm::PS256,
        KeyAlgorithm::PS384 => Algorithm::PS384,
        KeyAlgorithm::PS512 => Algorithm::PS512,
        KeyAlgorithm::ES256 => Algorithm::ES256,
        KeyAlgorithm::ES384 => Algorithm::ES384,
        KeyAlgorithm::EdDSA => Algorithm::EdDSA,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn keys_of_no_use_are_passed_over() {
        // RFC 7517 appendix A.1, and a symmetric key (A.3), a curve that is not known, one for encryption.
        let set = r#"{"keys":[
            {"kty":"EC","crv":"P-256","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM","use":"enc","kid":"1"},
            {"kty":"EC","crv":"P-256","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM","kid":"2"},
            {"kty":"EC","crv":"secp256k1","x":"AA","y":"AA","kid":"3"},
            {"kty":"oct","k":"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow","kid":"4"},
            {"kty":"EC","crv":"P-256","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM","alg":"HS256","kid":"5"},
            {"kty":"XYZ"}, 7, null]}"#;
        let keys = parse(set.as_bytes()).expect("a set");
        assert_eq!(
            keys.iter().map(|k| (k.id.as_deref(), k.algorithms.as_slice())).collect::<Vec<_>>(),
            [(Some("2"), &[Algorithm::ES256][..])]
        );
        for bad in ["", "{}", "[]", r#"{"keys":{}}"#, r#"{"keys":[]}"#, r#"{"keys":[{"kty":"oct","k":"AAAA"}]}"#] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_not(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }
    }
}
