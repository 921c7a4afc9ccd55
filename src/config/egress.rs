//! An upstream's way out: proxy, TLS, credentials and limits, each key of its own or else as `[egress]` has it.
//!
//! Secrets come from files and from the environment, and are read here, so that a reload reads them anew. What is said of them
//! never repeats them.

use std::io::Read;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use url::Url;

use super::read::{Finding, Item, Place, Reading, Table};
use crate::base::Secret;
use crate::egress::credentials::{self, Credentials};
use crate::egress::proxy::{self, Login, NoProxy, Proxy, ProxyRule};
use crate::egress::throttle::{Rate, ThrottleSettings};
use crate::egress::tls::{self, Identity, TlsSettings, TlsVersion};
use crate::egress::{Limits, Policy};

/// The largest file with a secret or certificates that is read, in bytes.
const MAX_FILE: u64 = 4 << 20;
/// The most requests of a `rate_limit` or `max_concurrent`.
const MANY: usize = 1_000_000;

/// What `[egress]` says for every upstream that does not say otherwise.
pub(super) struct Defaults {
    limits: Limits,
    proxy: ProxyKeys,
    tls: TlsKeys,
    retries: u32,
}

/// Where requests go through.
#[derive(Clone)]
enum Choice {
    /// As the environment's variables say.
    Env,
    None,
    One(Proxy),
}

#[derive(Clone)]
struct ProxyKeys {
    choice: Choice,
    exempt: Vec<String>,
}

/// TLS settings, and which of them were set.
#[derive(Clone, Default)]
struct TlsKeys {
    authorities: Option<Vec<rustls::pki_types::CertificateDer<'static>>>,
    identity: Option<Identity>,
    min_version: Option<TlsVersion>,
    insecure_skip_verify: Option<bool>,
}

impl Default for Defaults {
    fn default() -> Self {
        let proxy = ProxyKeys { choice: Choice::Env, exempt: Vec::new() };
        Self { limits: Limits::default(), proxy, tls: TlsKeys::default(), retries: 0 }
    }
}

impl Defaults {
    /// The time limits.
    pub(super) fn limits(&self) -> Limits {
        self.limits
    }

    /// Reads `[egress]`.
    pub(super) fn read(reading: &Reading, mut table: Table<'_>) -> Option<Self> {
        let limits = take_limits(&mut table, None);
        let proxy = proxy_keys(reading, &mut table, &Self::default().proxy);
        let tls = tls_keys(reading, table.table("tls"), &TlsKeys::default());
        let retries = retries(&mut table);
        table.finish();
        Some(Self { limits: limits?, proxy: proxy?, tls: tls?, retries: retries? })
    }

    /// The way out to a server that has no table of its own, as those of the machine's Go settings: as `[egress]` has it.
    pub(super) fn plain(&self, reading: &Reading, credentials: Option<Credentials>, warnings: &mut Vec<Finding>) -> Option<Policy> {
        let proxy = rule(reading, &self.proxy)?;
        let tls = self.tls.clone().settled();
        if tls.insecure_skip_verify {
            let said = reading.warning("egress.tls.insecure_skip_verify", UNVERIFIED);
            warnings.extend(Some(said).filter(|w| !warnings.contains(w)));
        }
        Some(Policy {
            limits: self.limits,
            proxy,
            tls,
            credentials,
            throttle: ThrottleSettings::default(),
            retries: self.retries,
            reach: None,
        })
    }
}

/// Reads an upstream's way out.
pub(super) fn policy(
    reading: &Reading,
    table: &mut Table<'_>,
    url: Option<&Url>,
    defaults: &Defaults,
    warnings: &mut Vec<Finding>,
) -> Option<Policy> {
    let limits = take_limits(table, Some(defaults.limits));
    let proxy = proxy_keys(reading, table, &defaults.proxy).and_then(|keys| rule(reading, &keys));
    let tls = tls_keys(reading, table.table("tls"), &defaults.tls).map(TlsKeys::settled);
    let headers = auth(reading, table, url);
    let throttle = throttle(table);
    let retries = if table.has("retries") { retries(table) } else { Some(defaults.retries) };
    let mut warn = |key: &str, problem: &str| warnings.push(reading.warning(&format!("{}.{key}", table.key), problem));
    if tls.as_ref().is_some_and(|t| t.insecure_skip_verify) {
        warn("tls.insecure_skip_verify", UNVERIFIED);
    }
    if headers.as_ref().is_some_and(|h| !h.is_empty()) && url.is_some_and(|u| u.scheme() == "http") {
        warn("auth", "the credentials cross the network unencrypted: the url is http");
    }
    let credentials = headers?;
    let credentials = if credentials.is_empty() { None } else { Some(Credentials::new(url?, credentials)) };
    Some(Policy { limits: limits?, proxy: proxy?, tls: tls?, credentials, throttle: throttle?, retries: retries?, reach: None })
}

const UNVERIFIED: &str = "whoever answers is taken for the upstream: its certificate is NOT looked at";

/// Time limits; those that are not set are taken from `defaults`, where there are any.
fn take_limits(table: &mut Table<'_>, defaults: Option<Limits>) -> Option<Limits> {
    let connect = table.limit("connect").or(defaults.map(|d| d.connect));
    let first_byte = table.limit("first_byte").or(defaults.map(|d| d.first_byte));
    let idle = table.limit("idle").or(defaults.map(|d| d.idle));
    let total = table.limit("total").or(defaults.map(|d| d.total));
    Some(Limits { connect: connect?, first_byte: first_byte?, idle: idle?, total: total? })
}

fn retries(table: &mut Table<'_>) -> Option<u32> {
    table.number("retries", 0, 10).and_then(|n| u32::try_from(n).ok())
}

/// `proxy`, `proxy_auth` and `no_proxy`.
fn proxy_keys(reading: &Reading, table: &mut Table<'_>, defaults: &ProxyKeys) -> Option<ProxyKeys> {
    let choice = match table.take("proxy") {
        None => Some(defaults.choice.clone()),
        Some(item) => item.parsed(|text| match text {
            "env" => Ok(Choice::Env),
            "none" => Ok(Choice::None),
            _ if text.contains("://") => Proxy::parse(text).map(Choice::One),
            _ => Err("has to be \"env\", \"none\", or the URL of a proxy (http://, https://, socks5://, socks5h://)".into()),
        }),
    };
    let login = table.take("proxy_auth").map(|item| {
        let mut table = item.clone().table()?;
        let login = login(reading, &mut table);
        table.finish();
        Some((item, login?))
    });
    let exempt = match table.items("no_proxy") {
        None => Some(defaults.exempt.clone()),
        Some(items) => items.iter().map(exempt).collect::<Vec<_>>().into_iter().collect::<Option<Vec<_>>>().map(|e| e.concat()),
    };
    let choice = match (choice?, login) {
        (choice, None) => Some(choice),
        (_, Some(None)) => None,
        (Choice::One(proxy), Some(Some((item, (user, password))))) if proxy.login.is_none() => {
            item.judge(proxy.logging_in(Login { user, password })).map(Choice::One)
        }
        (Choice::One(_), Some(Some((item, _)))) => {
            item.say("the proxy's URL names a user already");
            None
        }
        (Choice::Env | Choice::None, Some(Some((item, _)))) => {
            item.say("belongs to a proxy that is named by its URL");
            None
        }
    };
    Some(ProxyKeys { choice: choice?, exempt: exempt? })
}

/// The entries of one item of `no_proxy`, which may be several with commas between.
fn exempt(item: &Item<'_>) -> Option<Vec<String>> {
    item.parsed(|text| {
        let entries = text.split(',').map(str::trim).filter(|e| !e.is_empty());
        let network = |e: &str| e.contains('/') && proxy::network(e).is_none();
        match entries.clone().find(|e| network(e)) {
            Some(bad) => Err(format!("{bad:?} is no network such as \"10.0.0.0/8\"")),
            None => Ok(entries.map(str::to_owned).collect()),
        }
    })
}

fn rule(reading: &Reading, keys: &ProxyKeys) -> Option<ProxyRule> {
    match &keys.choice {
        Choice::None => Some(ProxyRule::default()),
        Choice::One(proxy) => Some(ProxyRule::always(proxy.clone(), NoProxy::parse(keys.exempt.iter().map(String::as_str)))),
        Choice::Env => {
            let read = ProxyRule::from_env(&|name| std::env::var(name).ok(), &keys.exempt);
            read.map_err(|(name, problem)| reading.add(Finding { place: Place::Environment(name), key: String::new(), problem }))
                .ok()
        }
    }
}

/// The table `tls`.
fn tls_keys(reading: &Reading, mut table: Table<'_>, defaults: &TlsKeys) -> Option<TlsKeys> {
    let authorities = match table.take("ca_file") {
        None => Some(None),
        Some(item) => file(reading, &item).and_then(|(_, pem)| item.judge(tls::read_certificates(&pem)).map(Some)),
    };
    let identity = match (table.take("cert_file"), table.take("key_file")) {
        (None, None) => Some(None),
        (Some(cert), Some(key)) => {
            let (pem, key_pem) = (file(reading, &cert), file(reading, &key));
            pem.zip(key_pem).and_then(|((_, pem), (_, key))| cert.judge(tls::read_identity(&pem, &key)).map(Some))
        }
        (Some(one), None) | (None, Some(one)) => {
            one.say("cert_file and key_file belong together");
            None
        }
    };
    let min_version = table.word("min_version", &[("1.2", TlsVersion::V1_2), ("1.3", TlsVersion::V1_3)]);
    let insecure_skip_verify = table.flag("insecure_skip_verify");
    table.finish();
    Some(TlsKeys {
        authorities: authorities?.or_else(|| defaults.authorities.clone()),
        identity: identity?.or_else(|| defaults.identity.clone()),
        min_version: min_version.or(defaults.min_version),
        insecure_skip_verify: insecure_skip_verify.or(defaults.insecure_skip_verify),
    })
}

impl TlsKeys {
    fn settled(self) -> TlsSettings {
        TlsSettings {
            authorities: self.authorities.unwrap_or_default(),
            identity: self.identity,
            min_version: self.min_version.unwrap_or_default(),
            insecure_skip_verify: self.insecure_skip_verify.unwrap_or(false),
        }
    }
}

/// `rate_limit`, `max_concurrent` and `max_wait`.
fn throttle(table: &mut Table<'_>) -> Option<ThrottleSettings> {
    let default = ThrottleSettings::default();
    let max_concurrent = table.number("max_concurrent", 1, MANY);
    let max_wait = table.duration("max_wait").unwrap_or(default.max_wait);
    let rate = match table.take("rate_limit") {
        None => None,
        Some(item) => Some(rate(item.table()?)?),
    };
    Some(ThrottleSettings { rate, max_concurrent, max_wait })
}

fn rate(mut table: Table<'_>) -> Option<Rate> {
    let max_wait = table.duration("max_wait").unwrap_or(ThrottleSettings::default().max_wait);
    let (requests, per, burst) = frequency(table)?;
    Some(Rate { requests, per, burst, max_wait })
}

/// So many requests, in which time, and how many at once.
pub(super) fn frequency(mut table: Table<'_>) -> Option<(NonZeroU32, Duration, NonZeroU32)> {
    let number = |n: usize| u32::try_from(n).ok().and_then(NonZeroU32::new);
    let missing = !table.has("requests");
    let requests = table.number("requests", 1, MANY).and_then(number);
    if missing {
        table.say("", "has no requests");
    }
    let per = table.limit("per").unwrap_or(Duration::from_secs(1));
    let burst = if table.has("burst") { table.number("burst", 1, MANY).and_then(number) } else { requests };
    // The limiter counts nanoseconds in 64 bits.
    if let (Some(requests), Some(burst)) = (requests, burst) {
        let step = per.as_nanos() / u128::from(requests.get());
        if step == 0 {
            table.say("", "allows more than a request in a nanosecond, which is no limit");
        } else if step.saturating_mul(u128::from(burst.get()) + 1) > u128::from(u64::MAX) / 4 {
            table.say("", "allows a burst that takes more than a century to save up");
        }
    }
    table.finish();
    Some((requests?, per, burst?))
}

/// The headers of the table `auth`.
fn auth(reading: &Reading, table: &mut Table<'_>, url: Option<&Url>) -> Option<Vec<(String, Secret)>> {
    let Some(item) = table.take("auth") else { return Some(Vec::new()) };
    let whole = item.clone();
    let mut table = item.table()?;
    let mut headers = Some(Vec::new());
    let mut ways = 0;
    let mut way = |found: Option<Vec<(String, Secret)>>, is_login: bool| {
        ways += usize::from(is_login);
        headers = headers.take().zip(found).map(|(mut all, more)| {
            all.extend(more);
            all
        });
    };
    let authorization = |value: Secret| vec![("authorization".to_owned(), value)];
    if table.has("username") || table.has("password_file") || table.has("password_env") || table.has("password") {
        let login = login(reading, &mut table);
        way(login.map(|(user, password)| authorization(credentials::basic(&user, password.expose()))), true);
    }
    if table.has("bearer_file") || table.has("bearer_env") || table.has("bearer") {
        let token = secret(reading, &mut table, "bearer", "bearer_file", "bearer_env");
        way(token.map(|token| authorization(Secret::new(format!("Bearer {}", token.expose())))), true);
    }
    if let Some(item) = table.take("netrc_file") {
        let login = file(reading, &item).and_then(|(path, bytes)| {
            let found = url.and_then(|url| credentials::netrc_login(&String::from_utf8_lossy(&bytes), url));
            if found.is_none() && url.is_some() {
                item.say(format!("{} has no entry for this upstream's host", path.display()));
            }
            found
        });
        way(login.map(|(user, password)| authorization(credentials::basic(&user, password.expose()))), true);
    }
    if let Some(inner) = table.take("headers").and_then(Item::table) {
        way(fixed_headers(reading, inner), false);
    }
    table.finish();
    if ways > 1 {
        whole.say("has to be one of: username with a password, bearer, netrc_file");
        return None;
    }
    let count = |name: &str| headers.iter().flatten().filter(|(n, _)| n == name).count();
    if ways == 1 && count("authorization") > 1 {
        whole.say("headers.Authorization stands beside a login, which makes that header itself");
        return None;
    }
    if headers.as_ref().is_some_and(Vec::is_empty) {
        whole.say("names no credentials (username with password_file, bearer_file, netrc_file, headers)");
        return None;
    }
    headers
}

/// `headers`: a value as it stands, or `{ file = … }`, or `{ env = … }`.
fn fixed_headers(reading: &Reading, table: Table<'_>) -> Option<Vec<(String, Secret)>> {
    const OURS: [&str; 14] = [
        "host",
        "range",
        "if-range",
        "content-length",
        "transfer-encoding",
        "connection",
        "accept-encoding",
        "proxy-authorization",
        "proxy-connection",
        "keep-alive",
        "expect",
        "upgrade",
        "te",
        "trailer",
    ];
    let mut headers = Some(Vec::new());
    for (name, item) in table.items_by_name() {
        let known = awc::http::header::HeaderName::from_bytes(name.as_bytes()).map(|n| n.as_str().to_owned());
        let value = match item.clone().table_or_none() {
            _ if item.is_environment() && item.raw_variable().is_some() => item.raw_variable().map(Secret::new),
            None => item.text().map(Secret::new),
            Some(mut inner) => {
                let value = secret(reading, &mut inner, "value", "file", "env");
                inner.finish();
                value
            }
        };
        let good = match known {
            Ok(name) if OURS.contains(&name.as_str()) => {
                item.say("this header is modgate's own");
                None
            }
            Ok(name) => value.filter(|v| sendable(&item, v)).map(|value| (name, value)),
            Err(_) => {
                item.say("not the name of a header");
                None
            }
        };
        headers = headers.zip(good).map(|(mut all, one)| {
            all.push(one);
            all
        });
    }
    headers
}

/// `username` and a password.
pub(super) fn login(reading: &Reading, table: &mut Table<'_>) -> Option<(String, Secret)> {
    let user = match table.take("username") {
        None => {
            table.say("", "has no username");
            None
        }
        Some(item) => item.parsed(|text| match text {
            "" => Err("is empty".into()),
            _ if text.contains(':') || text.contains(char::is_control) => Err("cannot hold a colon or control characters".into()),
            _ => Ok(text.to_owned()),
        }),
    };
    let password = secret(reading, table, "password", "password_file", "password_env");
    Some((user?, password?))
}

/// A secret from a file, from the variable of a name, or from modgate's own variable for the key itself.
pub(super) fn secret(
    reading: &Reading,
    table: &mut Table<'_>,
    own: &'static str,
    by_file: &'static str,
    by_env: &'static str,
) -> Option<Secret> {
    let (own_item, file_item, env_item) = (table.take(own), table.take(by_file), table.take(by_env));
    let (item, text) = match (own_item, file_item, env_item) {
        (Some(item), None, None) if item.is_environment() => {
            let text = item.judge(item.raw_variable().ok_or_else(|| "is not UTF-8".to_owned()))?;
            (item, text)
        }
        (Some(item), None, None) => {
            item.say(format!(
                "a secret does not stand in a configuration file: name a file by {by_file}, or a variable by {by_env}"
            ));
            return None;
        }
        (None, Some(item), None) => {
            let (_, bytes) = file(reading, &item)?;
            let text = item.judge(String::from_utf8(bytes).map_err(|_| "the file is not UTF-8".to_owned()))?;
            // An editor ends the last line; that is not part of the secret.
            let text = text.strip_suffix('\n').map_or(text.as_str(), |t| t.strip_suffix('\r').unwrap_or(t)).to_owned();
            (item, text)
        }
        (None, None, Some(item)) => {
            let name = item.text()?;
            let found = std::env::var(&name).ok().filter(|v| !v.is_empty());
            let text = item.judge(found.ok_or_else(|| format!("the environment has no variable {name:?}, or an empty one")))?;
            (item, text)
        }
        (None, None, None) => {
            table.say("", format!("has no {by_file} and no {by_env}"));
            return None;
        }
        (own, file, env) => {
            if let Some(item) = own.or(file).or(env) {
                item.say(format!("one of {by_file} and {by_env} is enough"));
            }
            return None;
        }
    };
    let secret = Secret::new(text);
    sendable(&item, &secret).then_some(secret)
}

/// Whether a secret can stand in a header; says so where it cannot.
fn sendable(item: &Item<'_>, secret: &Secret) -> bool {
    let problem = match secret.expose() {
        "" => "is empty",
        text if text.contains(char::is_control) => "holds more than one line, or control characters",
        _ => return true,
    };
    item.say(problem);
    false
}

/// A file that a key names, beside the configuration.
pub(super) fn file(reading: &Reading, item: &Item<'_>) -> Option<(PathBuf, Vec<u8>)> {
    let path = item.path()?;
    reading.read_from(&path);
    let read = read_file(&path).map_err(|why| format!("{} cannot be read: {why}", path.display()));
    Some((path.clone(), item.judge(read)?))
}

fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    let open = || {
        // Opening a pipe waits for who writes into it.
        if !std::fs::metadata(path)?.is_file() {
            return Err(std::io::Error::other("it is no file"));
        }
        let file = std::fs::File::open(path)?;
        let mut bytes = Vec::new();
        file.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
        Ok::<_, std::io::Error>(bytes)
    };
    match open() {
        Ok(bytes) if bytes.len() as u64 > MAX_FILE => Err(format!("larger than {MAX_FILE} bytes")),
        Ok(bytes) => Ok(bytes),
        Err(e) => Err(e.to_string()),
    }
}

/// The user's netrc, as the go command finds it; nothing where there is none or it cannot be read.
pub(super) fn user_netrc() -> Option<String> {
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let path = set("NETRC").or_else(|| set("HOME").map(|home| home.join(".netrc")))?;
    read_file(&path).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}
