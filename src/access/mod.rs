//! Layer 4: who asks.
//!
//! A client says who it is by what the go command can send: a user and password, a token, or a CI system's JWT, each as the password
//! of Basic or as a Bearer token (netrc, `user:password@` in GOPROXY, GOAUTH), or by a client certificate. What it says is
//! held against password files ([`htpasswd`]), lists of hashed tokens ([`token`]), the keys of issuers ([`jwt`]) and rules on
//! certificates ([`certificate`]). What comes out is a [`Caller`]: a name for the log, and the teams that it is of.
//!
//! Passwords are slow to verify on purpose, so a verdict is remembered for a while, by a digest that only this process can make,
//! and many requests with the same credentials wait for one verification. Failures cost their sender time, and after some of
//! them its address is not listened to for a while. An unknown user costs what a known one costs.
//!
//! Specification: RFC 7617 (Basic), RFC 6750 (Bearer), RFC 7519 (JWT), RFC 7517 (JWK), RFC 5280 (certificates).

pub mod certificate;
pub mod htpasswd;
pub mod jwt;
mod keys;
pub mod patience;
pub mod token;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use quick_cache::sync::Cache;
use ring::hmac;
use ring::rand::SystemRandom;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use crate::base::Secret;
use crate::base::flight::{self, FlightError, Flights};
use crate::egress::EgressHandle;
use jwt::Jwts;
use patience::Patience;

/// So many good verdicts are remembered, and so many bad ones.
const REMEMBERED: usize = 20_000;
/// A bad verdict is remembered for so long: whoever repeats it pays in time, and nobody pays in work.
const BAD_FOR: Duration = Duration::from_secs(15);
/// What a wrong credential costs its sender before it is told.
const DELAY: Duration = Duration::from_millis(400);
/// So many verifications may be under way.
const UNDER_WAY: usize = 4096;
/// The most passwords that are hashed at once.
const LANES: usize = 8;
/// How long a password waits for its turn to be hashed: in the morning all come at once, and waiting is better than failing.
const TURN: Duration = Duration::from_secs(60);
/// The longest password or token that is looked at.
const MAX_SECRET: usize = 16 << 10;

/// Who may come in, and of which teams they are. Teams are named by their place in the table of teams, where the first is
/// everybody.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Settings {
    /// Users with passwords; no name stands here twice.
    pub users: Vec<htpasswd::User>,
    /// Static tokens.
    pub tokens: Vec<token::Token>,
    /// Issuers of JWTs.
    pub issuers: Vec<jwt::Issuer>,
    /// What certificates say, and whom that makes their holder.
    pub certificates: Vec<certificate::Rule>,
    /// How long a good verdict is remembered.
    pub remember: Duration,
}

impl Settings {
    /// Whether anybody can say who they are by what they send.
    pub fn has_credentials(&self) -> bool {
        !(self.users.is_empty() && self.tokens.is_empty() && self.issuers.is_empty())
    }
}

/// How a caller said who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// They did not.
    Anonymous,
    /// By a user's password.
    Password,
    /// By a static token.
    Token,
    /// By a token of an issuer.
    Jwt,
    /// By a client certificate.
    Certificate,
}

impl How {
    /// The word for it in logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Anonymous => "anonymous",
            Self::Password => "password",
            Self::Token => "token",
            Self::Jwt => "jwt",
            Self::Certificate => "certificate",
        }
    }
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// A name for the log; no secret.
    pub name: Arc<str>,
    /// How they said so.
    pub how: How,
    /// The teams that they are of, by place; empty for those who are of none.
    pub teams: Vec<usize>,
    /// When what they showed stops being good, by itself.
    pub expires: Option<SystemTime>,
}

/// Why a caller is not let in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// What was sent is not right. Clients are not told more than that; this is for the log.
    #[error("{0}")]
    Wrong(Arc<str>),
    /// It is right, and gives no entrance here.
    #[error("{0}")]
    Unentitled(Arc<str>),
    /// Too many wrong ones came from this address lately.
    #[error("too many wrong credentials from this address")]
    Limited(Duration),
    /// It cannot be said at the moment.
    #[error("{0}")]
    Unavailable(Arc<str>),
}

impl Refused {
    fn wrong(why: impl Into<Arc<str>>) -> Self {
        Self::Wrong(why.into())
    }
}

/// What came of a look at credentials.
pub type Verdict = Result<Arc<Caller>, Refused>;

/// A digest of credentials that only this process can make.
type Digest = [u8; 32];

/// Says who asks.
pub struct Access {
    settings: Settings,
    jwts: Jwts,
    key: hmac::Key,
    /// Chooses whose hash stands in for an unknown user's: the same as long as the users are the same.
    stand_in: hmac::Key,
    good: Cache<Digest, (Instant, Arc<Caller>)>,
    bad: Cache<Digest, (Instant, Refused)>,
    verifying: Arc<Flights<Digest, Verdict>>,
    hashing: Arc<Semaphore>,
    patience: Arc<Patience>,
    runtime: Handle,
}

/// Why nobody can be let in.
#[derive(Debug, thiserror::Error)]
#[error("the system gives no random numbers")]
pub struct NoRandomness;

impl Access {
    /// Takes settings up. `ways` leads to the servers of the issuers' keys, by the issuers' order; those with a file need none. What
    /// was found out by the settings `before` and still holds is taken over: issuers' keys, and passwords that were right.
    ///
    /// # Errors
    /// A system without random numbers.
    pub fn new(
        settings: Settings,
        ways: Vec<Option<EgressHandle>>,
        runtime: Handle,
        before: Option<&Self>,
    ) -> Result<Arc<Self>, NoRandomness> {
        let made = || hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).map_err(|_| NoRandomness);
        let key = before.map_or_else(made, |before| Ok(before.key.clone()))?;
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let this = Arc::new(Self {
            stand_in: htpasswd::stand_in_key(&settings.users),
            jwts: Jwts::new(&settings.issuers, ways, before.map(|before| (&before.settings.issuers[..], &before.jwts))),
            settings,
            key,
            good: Cache::new(REMEMBERED),
            bad: Cache::new(REMEMBERED),
            verifying: Flights::new(UNDER_WAY),
            // A password costs a core some dozens of milliseconds, and memory; one core stays for other work where there are more.
            hashing: Arc::new(Semaphore::new((cores - 1).clamp(1, LANES))),
            patience: before.map_or_else(Arc::default, |before| Arc::clone(&before.patience)),
            runtime,
        });
        if let Some(before) = before {
            this.take_over(before);
        }
        Ok(this)
    }

    /// Remembers the passwords that were right and still are: of users whose hash is the same. Their teams are the new ones.
    fn take_over(&self, before: &Self) {
        let hash_of = |settings: &'_ Settings, name: &str| settings.users.iter().find(|user| user.name == name).cloned();
        let now = Instant::now();
        for (digest, (until, caller)) in before.good.iter().filter(|(_, (_, caller))| caller.how == How::Password) {
            let (old, new) = (hash_of(&before.settings, &caller.name), hash_of(&self.settings, &caller.name));
            if let (Some(old), Some(new)) = (old, new)
                && old.hash == new.hash
            {
                let until = until.min(now + self.settings.remember);
                self.good.insert(digest, (until, Arc::new(Caller { teams: new.teams, ..(*caller).clone() })));
            }
        }
    }

    /// What it was made of.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Who sends this `Authorization`, where that was found good a while ago. The hot path: no work but a digest.
    pub fn recall(&self, authorization: &[u8]) -> Option<Arc<Caller>> {
        self.recall_digest(&self.digest(authorization))
    }

    /// Has the keys of the issuer at this place; how many of them are of use.
    ///
    /// # Errors
    /// Why they cannot be had.
    pub async fn probe_issuer(&self, at: usize) -> Result<usize, String> {
        self.jwts.probe(at).await
    }

    fn recall_digest(&self, digest: &Digest) -> Option<Arc<Caller>> {
        let (until, caller) = self.good.get(digest)?;
        (Instant::now() < until).then_some(caller)
    }

    /// Who sends this `Authorization` from this address.
    ///
    /// # Errors
    /// Why they are not let in; that takes a moment.
    pub async fn identify(self: &Arc<Self>, authorization: &[u8], from: IpAddr) -> Verdict {
        let digest = self.digest(authorization);
        if let Some(caller) = self.recall_digest(&digest) {
            return Ok(caller);
        }
        let known_bad = self.bad.get(&digest).filter(|(until, _)| Instant::now() < *until).map(|(_, refused)| refused);
        let verdict = match known_bad {
            Some(refused) => Err(refused),
            None => self.verify(digest, authorization, from).await,
        };
        if matches!(verdict, Err(Refused::Wrong(_) | Refused::Unentitled(_))) {
            tokio::time::sleep(DELAY).await;
        }
        verdict
    }

    /// Verifies, once for all who ask the same at the same time.
    async fn verify(self: &Arc<Self>, digest: Digest, authorization: &[u8], from: IpAddr) -> Verdict {
        let flight = self.verifying.board(digest, &[], |pilot, _| {
            let (this, authorization) = (Arc::clone(self), Secret::new(String::from_utf8_lossy(authorization)));
            self.runtime.spawn(async move {
                let verdict = this.judge(&authorization, from).await;
                this.remember(digest, &verdict);
                pilot.land(verdict);
            });
        });
        let landed = match flight {
            Ok(flight) => flight::landed(flight).await,
            Err(e) => Err(e),
        };
        landed.unwrap_or_else(|e| {
            let why = match e {
                FlightError::Full => "too many credentials are being verified",
                FlightError::Lost => "the verification broke down",
            };
            Err(Refused::Unavailable(why.into()))
        })
    }

    fn remember(&self, digest: Digest, verdict: &Verdict) {
        let now = Instant::now();
        match verdict {
            Ok(caller) => {
                let rest = caller.expires.map(|at| at.duration_since(SystemTime::now()).unwrap_or_default());
                let time = rest.map_or(self.settings.remember, |rest| rest.min(self.settings.remember));
                self.good.insert(digest, (now + time, Arc::clone(caller)));
            }
            Err(refused @ (Refused::Wrong(_) | Refused::Unentitled(_))) => {
                self.bad.insert(digest, (now + BAD_FOR, refused.clone()));
            }
            Err(Refused::Limited(_) | Refused::Unavailable(_)) => {}
        }
    }

    async fn judge(&self, authorization: &Secret, from: IpAddr) -> Verdict {
        if let Some(rest) = self.patience.rest(from, Instant::now()) {
            return Err(Refused::Limited(rest));
        }
        let verdict = match Presented::parse(authorization.expose()) {
            Some(presented) => self.judge_presented(&presented, from).await,
            None => Err(Refused::wrong("no Basic or Bearer credentials")),
        };
        if let Err(Refused::Wrong(why)) = &verdict {
            self.patience.wrong(from, Instant::now());
            // Whoever does not wait for the answer leaves a trace too. The text may be a stranger's, so it is written as a quoted one.
            tracing::warn!(%from, why = &**why, "wrong credentials");
        }
        verdict
    }

    async fn judge_presented(&self, presented: &Presented, from: IpAddr) -> Verdict {
        let (secret, user) = match presented {
            Presented::Basic(user, password) => (password, Some(user)),
            Presented::Bearer(token) => (token, None),
        };
        if let Some(token) = token::find(&self.settings.tokens, secret.expose()) {
            return Ok(Arc::new(Caller {
                name: token.name.as_str().into(),
                how: How::Token,
                teams: token.teams.clone(),
                expires: None,
            }));
        }
        if jwt::looks_like_one(secret.expose()) && !self.settings.issuers.is_empty() {
            return self.jwts.judge(&self.settings.issuers, secret.expose()).await;
        }
        match user {
            Some(user) if !self.settings.users.is_empty() => self.judge_password(user, secret, from).await,
            Some(_) => Err(Refused::wrong("an unknown token")),
            None => Err(Refused::wrong("an unknown bearer token")),
        }
    }

    async fn judge_password(&self, user: &str, password: &Secret, from: IpAddr) -> Verdict {
        let (known, hash) = htpasswd::hash_for(&self.settings.users, user, &self.stand_in);
        let busy = || Refused::Unavailable("too many passwords are being verified".into());
        let place = tokio::time::timeout(TURN, Arc::clone(&self.hashing).acquire_owned()).await.map_err(|_| busy())?;
        // Others from there may have been wrong meanwhile.
        if let Some(rest) = self.patience.rest(from, Instant::now()) {
            return Err(Refused::Limited(rest));
        }
        let (hash, password) = (hash.clone(), password.clone());
        let verified = tokio::task::spawn_blocking(move || {
            let _place = place;
            hash.verify(password.expose())
        });
        let verified = tokio::time::timeout(TURN, verified).await.map_err(|_| busy())?;
        let right = verified.map_err(|_| Refused::Unavailable("the verification broke down".into()))?;
        match known {
            Some(user) if right => Ok(Arc::new(Caller {
                name: user.name.as_str().into(),
                how: How::Password,
                teams: user.teams.clone(),
                expires: None,
            })),
            Some(user) => Err(Refused::wrong(format!("a wrong password of user {:?}", user.name))),
            None => Err(Refused::wrong("an unknown user, or an unknown token")),
        }
    }

    fn digest(&self, authorization: &[u8]) -> Digest {
        let tag = hmac::sign(&self.key, authorization);
        let mut digest = [0; 32];
        digest.copy_from_slice(&tag.as_ref()[..32]);
        digest
    }
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// What an `Authorization` header holds.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Presented {
    /// A user and a password (RFC 7617).
    Basic(String, Secret),
    /// A token (RFC 6750).
    Bearer(Secret),
}

impl Presented {
    fn parse(header: &str) -> Option<Self> {
        let (scheme, rest) = header.split_once(' ')?;
        let rest = rest.trim();
        if rest.is_empty() || rest.len() > MAX_SECRET {
            return None;
        }
        if scheme.eq_ignore_ascii_case("bearer") {
            return Some(Self::Bearer(Secret::new(rest)));
        }
        if !scheme.eq_ignore_ascii_case("basic") {
            return None;
        }
        let decoded = String::from_utf8(STANDARD.decode(rest).ok()?).ok()?;
        let (user, password) = decoded.split_once(':')?;
        Some(Self::Basic(user.to_owned(), Secret::new(password)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn headers() {
        let basic = |user: &str, password: &str| Some(Presented::Basic(user.into(), Secret::new(password)));
        // RFC 7617 §2 and §2.1.
        assert_eq!(Presented::parse("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="), basic("Aladdin", "open sesame"));
        assert_eq!(Presented::parse("basic dGVzdDoxMjPCow=="), basic("test", "123£"));
        assert_eq!(Presented::parse("Basic dTphOmI="), basic("u", "a:b"), "a password may hold colons");
        assert_eq!(Presented::parse("BEARER  x.y.z "), Some(Presented::Bearer(Secret::new("x.y.z"))));
        for bad in ["", "Basic", "Basic ", "Basic !", "Basic dQ==", "Digest x", "Bearer ", "Basic gIA6eA=="] {
            assert_eq!(Presented::parse(bad), None, "{bad}");
        }
        assert_eq!(Presented::parse(&format!("Bearer {}", "x".repeat(MAX_SECRET + 1))), None);
    }

    proptest! {
        #[test]
        fn any_header_is_read_or_not(header in ".{0,80}") {
            let _ = Presented::parse(&header);
            let _ = Presented::parse(&format!("Basic {header}"));
        }

        #[test]
        fn what_is_written_is_read(user in "[^:]{0,20}", password in ".{0,20}") {
            let header = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
            prop_assert_eq!(Presented::parse(&header), Some(Presented::Basic(user, Secret::new(password))));
        }
    }

    #[tokio::test]
    async fn who_is_remembered_and_who_is_not() {
        let users = vec![htpasswd::User {
            name: "ann".into(),
            // htpasswd -nbB -C 4 ann sesame
            hash: htpasswd::PasswordHash::parse("$2y$04$Qom1/nXNzFY0iWds0Gx9Ue5vMYUeTumvc6JlloO/uKW4P2M11txei").expect("hash"),
            teams: vec![2],
        }];
        let settings = Settings { users, remember: Duration::from_secs(60), ..Settings::default() };
        let access = Access::new(settings, Vec::new(), Handle::current(), None).expect("access");
        let header = |text: &str| format!("Basic {}", STANDARD.encode(text)).into_bytes();
        let here = IpAddr::from([127, 0, 0, 1]);
        assert_eq!(access.recall(&header("ann:sesame")), None);
        let first = access.identify(&header("ann:sesame"), here).await.expect("let in");
        assert_eq!((first.how, first.teams.as_slice()), (How::Password, &[2][..]));
        assert_eq!(access.recall(&header("ann:sesame")), Some(first));
        for wrong in ["ann:Sesame", "ann:", "bob:sesame", "ANN:sesame"] {
            assert!(matches!(access.identify(&header(wrong), here).await, Err(Refused::Wrong(_))), "{wrong}");
            assert_eq!(access.recall(&header(wrong)), None);
        }
        // Settings that leave the user alone remember, with the new teams; others do not.
        let with = |users: Vec<htpasswd::User>| Settings { users, ..access.settings().clone() };
        let user = access.settings().users[0].clone();
        let moved = with(vec![htpasswd::User { teams: vec![5], ..user.clone() }]);
        let next = Access::new(moved, Vec::new(), Handle::current(), Some(&access)).expect("access");
        assert_eq!(next.recall(&header("ann:sesame")).map(|caller| caller.teams.clone()), Some(vec![5]));
        assert_eq!(next.recall(&header("ann:Sesame")), None);
        let hash = htpasswd::PasswordHash::of_password("sesame").expect("hash");
        let other = htpasswd::User { hash: htpasswd::PasswordHash::parse(&hash).expect("hash"), ..user };
        for users in [vec![other], vec![]] {
            let next = Access::new(with(users), Vec::new(), Handle::current(), Some(&access)).expect("access");
            assert_eq!(next.recall(&header("ann:sesame")), None);
        }
    }
}
