//! Which way a request goes: straight, or through a proxy. Pure decisions without I/O.
//!
//! The rules for exceptions are those of Go's `golang.org/x/net/http/httpproxy`, which the go command itself goes by; a test
//! compares both row by row.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use url::Url;

use crate::base::Secret;

/// How a proxy is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyScheme {
    /// HTTP: CONNECT for https, the absolute form for http (RFC 9110 §9.3.6, RFC 9112 §3.2.2).
    Http,
    /// The same inside TLS.
    Https,
    /// SOCKS 5 (RFC 1928), names being looked up here.
    Socks5,
    /// SOCKS 5, names being looked up by the proxy.
    Socks5h,
}

/// A user and a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// The user's name.
    pub user: String,
    /// The password.
    pub password: Secret,
}

/// A proxy. Its text form is its URL without user and password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy {
    /// How it is spoken to.
    pub scheme: ProxyScheme,
    /// Its name or address, without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Who modgate is to it.
    pub login: Option<Login>,
}

impl Proxy {
    /// Reads `scheme://[user:password@]host[:port]`. Without a scheme it is `http`, as Go has it.
    ///
    /// # Errors
    /// What is wrong, in words that hold nothing of the text: it may hold a password.
    pub fn parse(text: &str) -> Result<Self, String> {
        let with_scheme = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let url = Url::parse(&with_scheme).map_err(|e| format!("not the URL of a proxy ({e})"))?;
        let (scheme, default_port) = match url.scheme() {
            "http" => (ProxyScheme::Http, 80),
            "https" => (ProxyScheme::Https, 443),
            "socks5" => (ProxyScheme::Socks5, 1080),
            "socks5h" => (ProxyScheme::Socks5h, 1080),
            _ => return Err("a proxy's URL begins with http://, https://, socks5:// or socks5h://".into()),
        };
        let host = bare(url.host_str().unwrap_or_default()).to_owned();
        if host.is_empty() {
            return Err("the proxy's URL names no host".into());
        }
        if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
            return Err("a proxy's URL ends after the host and port".into());
        }
        let decoded = |text: &str| percent_decode_str(text).decode_utf8().map(std::borrow::Cow::into_owned);
        let login = match (url.username(), url.password()) {
            ("", None) => None,
            (user, password) => {
                let not_text = |_| "user or password in the proxy's URL are not UTF-8".to_owned();
                let password = decoded(password.unwrap_or_default()).map_err(not_text)?;
                Some(Login { user: decoded(user).map_err(not_text)?, password: Secret::new(password) })
            }
        };
        let proxy = Self { scheme, host, port: url.port().unwrap_or(default_port), login: None };
        login.map_or_else(|| Ok(proxy.clone()), |login| proxy.clone().logging_in(login))
    }

    /// The same with a user and a password.
    ///
    /// # Errors
    /// Those that the proxy's protocol cannot carry.
    pub fn logging_in(self, login: Login) -> Result<Self, String> {
        let carried = |text: &str| (1..=255).contains(&text.len());
        let fits = carried(&login.user) && carried(login.password.expose());
        if !(fits || self.forwards_http()) {
            return Err("SOCKS carries users and passwords of 1 to 255 bytes".into());
        }
        Ok(Self { login: Some(login), ..self })
    }

    /// Whether plain http goes through it in the absolute form.
    pub(super) fn forwards_http(&self) -> bool {
        matches!(self.scheme, ProxyScheme::Http | ProxyScheme::Https)
    }
}

impl Proxy {
    /// Its URL with user and password, for a program that has to be told them.
    pub fn url_with_login(&self) -> Secret {
        let Some(Login { user, password }) = &self.login else { return Secret::new(self.to_string()) };
        let encode = |text| utf8_percent_encode(text, NON_ALPHANUMERIC);
        let plain = self.to_string();
        let (scheme, server) = plain.split_once("://").unwrap_or(("http", &plain));
        Secret::new(format!("{scheme}://{}:{}@{server}", encode(user), encode(password.expose())))
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.scheme {
            ProxyScheme::Http => "http",
            ProxyScheme::Https => "https",
            ProxyScheme::Socks5 => "socks5",
            ProxyScheme::Socks5h => "socks5h",
        };
        write!(f, "{scheme}://{}", host_port(&self.host, self.port))
    }
}

/// Which requests go through which proxy.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProxyRule {
    /// The proxy for http.
    pub http: Option<Arc<Proxy>>,
    /// The proxy for https.
    pub https: Option<Arc<Proxy>>,
    /// Where neither is used.
    pub exempt: NoProxy,
    /// Whether this machine's own names and addresses are exempt too, as Go has it for proxies from the environment.
    pub spare_loopback: bool,
}

impl ProxyRule {
    /// Everything through one proxy, but for exceptions.
    pub fn always(proxy: Proxy, exempt: NoProxy) -> Self {
        let proxy = Arc::new(proxy);
        Self { http: Some(Arc::clone(&proxy)), https: Some(proxy), exempt, spare_loopback: false }
    }

    /// As the variables of an environment say: `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` as Go reads them, and `ALL_PROXY` for
    /// what has no variable of its own, each in capitals or in small letters. `more` are exceptions beside those of `NO_PROXY`.
    ///
    /// # Errors
    /// The variable that is wrong, and how.
    pub fn from_env(variable: &dyn Fn(&str) -> Option<String>, more: &[String]) -> Result<Self, (String, String)> {
        let get = |name: &str| {
            let names = [name.to_owned(), name.to_ascii_lowercase()];
            names.into_iter().find_map(|n| variable(&n).filter(|v| !v.is_empty()).map(|v| (n, v)))
        };
        let proxy = |name| match get(name) {
            Some((name, text)) => Proxy::parse(&text).map(|p| Some(Arc::new(p))).map_err(|why| (name, why)),
            // Desktops put things there that other programs read (socks://…), and Go does not look at all.
            None => Ok(get("ALL_PROXY").and_then(|(_, text)| Proxy::parse(&text).ok()).map(Arc::new)),
        };
        let listed = get("NO_PROXY").map(|(_, text)| text).unwrap_or_default();
        let exempt = NoProxy::parse(listed.split(',').chain(more.iter().map(String::as_str)));
        Ok(Self { http: proxy("HTTP_PROXY")?, https: proxy("HTTPS_PROXY")?, exempt, spare_loopback: true })
    }

    /// The proxy for the server of an http or https URL, if any.
    pub fn for_url(&self, url: &Url) -> Option<&Arc<Proxy>> {
        let port = url.port_or_known_default().unwrap_or(80);
        self.choose(url.scheme() == "https", bare(url.host_str().unwrap_or_default()), port)
    }

    /// The proxy for an ssh server, if any. The environment's variables are for http and https, as git has it too.
    pub fn for_ssh(&self, host: &str, port: u16) -> Option<&Arc<Proxy>> {
        self.choose(true, host, port).filter(|_| !self.spare_loopback)
    }

    /// The proxy for a server, if any. `host` is a name or an address, without brackets.
    pub fn choose(&self, https: bool, host: &str, port: u16) -> Option<&Arc<Proxy>> {
        let proxy = if https { self.https.as_ref() } else { self.http.as_ref() }?;
        let ip = host.parse::<IpAddr>().ok().map(|ip| ip.to_canonical());
        let own = self.spare_loopback && (host == "localhost" || ip.is_some_and(|ip| ip.is_loopback()));
        (!own && !self.exempt.matches(&host.to_ascii_lowercase(), ip, port)).then_some(proxy)
    }
}

/// Servers that are reached without a proxy, as `NO_PROXY` lists them: names and what lies below them (`corp.example`), only what
/// lies below (`.corp.example`, `*.corp.example`), addresses, networks (`10.0.0.0/8`), each but the last with a port where one is
/// meant, and `*` for all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NoProxy {
    all: bool,
    networks: Vec<IpNet>,
    addresses: Vec<(IpAddr, String)>,
    domains: Vec<Domain>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Domain {
    /// With a dot in front.
    suffix: String,
    /// Whether the name itself counts, beside what lies below it.
    itself: bool,
    /// Empty for every port.
    port: String,
}

impl NoProxy {
    /// Reads entries. What makes no sense matches nothing, as in Go.
    pub fn parse<'t>(entries: impl Iterator<Item = &'t str>) -> Self {
        let mut read = Self::default();
        for entry in entries.map(|e| e.trim().to_lowercase()).filter(|e| !e.is_empty()) {
            if entry == "*" {
                return Self { all: true, ..Self::default() };
            }
            read.add(&entry);
        }
        read
    }

    fn add(&mut self, entry: &str) {
        if let Some(network) = network(entry) {
            self.networks.push(network);
            return;
        }
        let (host, port) = split_host_port(entry).unwrap_or((entry, ""));
        if host.is_empty() {
            return;
        }
        if let Ok(ip) = host.parse::<IpAddr>() {
            self.addresses.push((ip.to_canonical(), port.to_owned()));
            return;
        }
        let name = if host.starts_with("*.") { &host[1..] } else { host };
        let itself = !name.starts_with('.');
        let bare = name.strip_prefix('.').unwrap_or(name);
        // A name is compared in the form that a URL has it in.
        let ascii = if bare.is_ascii() { None } else { url::Host::parse(bare).ok().map(|h| h.to_string()) };
        let suffix = format!(".{}", ascii.as_deref().unwrap_or(bare));
        self.domains.push(Domain { suffix, itself, port: port.to_owned() });
    }

    /// Whether an entry names this host, or the domain that it is in; a port is no matter.
    pub(super) fn names(&self, host: &str) -> bool {
        let name = |d: &Domain| host.ends_with(&d.suffix) || (d.itself && host == &d.suffix[1..]);
        let address =
            |ip: IpAddr| self.networks.iter().any(|n| n.contains(&ip)) || self.addresses.iter().any(|(own, _)| *own == ip);
        self.all || self.domains.iter().any(name) || host.parse::<IpAddr>().is_ok_and(|ip| address(ip.to_canonical()))
    }

    pub(super) fn matches(&self, host: &str, ip: Option<IpAddr>, port: u16) -> bool {
        let port = port.to_string();
        let same_port = |wanted: &str| wanted.is_empty() || wanted == port;
        let name = |d: &Domain| host.ends_with(&d.suffix) || (d.itself && host == &d.suffix[1..]);
        self.all
            || match ip {
                Some(ip) => {
                    self.networks.iter().any(|n| n.contains(&ip))
                        || self.addresses.iter().any(|(own, wanted)| *own == ip && same_port(wanted))
                }
                None => self.domains.iter().any(|d| name(d) && same_port(&d.port)),
            }
    }
}

impl fmt::Display for NoProxy {
    /// As `NO_PROXY` has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let with = |host: String, port: &str| if port.is_empty() { host } else { format!("{host}:{port}") };
        let networks = self.networks.iter().map(ToString::to_string);
        let addresses = self.addresses.iter().map(|(ip, port)| match ip {
            IpAddr::V6(ip) if !port.is_empty() => format!("[{ip}]:{port}"),
            ip => with(ip.to_string(), port),
        });
        let domains = self.domains.iter().map(|d| with(d.suffix[usize::from(d.itself)..].to_owned(), &d.port));
        let all = self.all.then(|| "*".to_owned()).into_iter();
        f.write_str(&all.chain(networks).chain(addresses).chain(domains).collect::<Vec<_>>().join(","))
    }
}

/// `address/length` as Go's `net.ParseCIDR` reads it; IPv4 addresses in the form of IPv6 ones are IPv4 addresses.
pub fn network(text: &str) -> Option<IpNet> {
    let (address, length) = text.split_once('/')?;
    let length: u8 = length.parse().ok().filter(|_| length.bytes().all(|b| b.is_ascii_digit()))?;
    match address.parse::<IpAddr>().ok()? {
        IpAddr::V6(ip) if length >= 96 && ip.to_ipv4_mapped().is_some() => IpNet::new(ip.to_canonical(), length - 96).ok(),
        ip => IpNet::new(ip, length).ok(),
    }
}

/// `host:port` and `[host]:port` as Go's `net.SplitHostPort` splits them; `None` where it finds fault.
fn split_host_port(text: &str) -> Option<(&str, &str)> {
    let (before, port) = text.rsplit_once(':')?;
    let host = match before.strip_prefix('[') {
        Some(inner) => inner.strip_suffix(']')?,
        None if before.contains(':') => return None,
        None => before,
    };
    (!host.contains(['[', ']']) && !port.contains(['[', ']'])).then_some((host, port))
}

/// A URL's host without the brackets of an IPv6 address.
pub fn bare(host: &str) -> &str {
    host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host)
}

/// `host:port`, with brackets around an IPv6 address.
pub(super) fn host_port(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_read_and_never_shown_with_its_password() {
        let proxy = Proxy::parse("http://us%40er:p%3Ass@proxy.example:3128/").expect("proxy");
        assert_eq!((proxy.to_string().as_str(), proxy.port), ("http://proxy.example:3128", 3128));
        let login = proxy.login.clone().expect("login");
        assert_eq!((login.user.as_str(), login.password.expose()), ("us@er", "p:ss"));
        assert!(!format!("{proxy:?}").contains("p:ss"));
        assert_eq!(Proxy::parse("proxy.example:3128").map(|p| p.to_string()), Ok("http://proxy.example:3128".into()));
        assert_eq!(Proxy::parse("socks5h://[::1]").map(|p| p.to_string()), Ok("socks5h://[::1]:1080".into()));
        for bad in ["", "ftp://p", "http://", "http://u:secret@", "http://p/path", "http://p:99999", "socks5://p?secret"] {
            let why = Proxy::parse(bad).expect_err(bad);
            assert!(!why.contains("secret"), "{why}");
        }
    }

    #[test]
    fn exceptions_are_written_as_they_are_read() {
        let text = "10.0.0.0/8,127.0.0.1,[::1]:80,a.example,.b.example:443";
        let read = NoProxy::parse(text.split(','));
        assert_eq!(read.to_string(), text);
        assert_eq!((NoProxy::parse(["*"].into_iter()).to_string(), NoProxy::default().to_string()), ("*".into(), String::new()));
    }

    #[test]
    fn the_environment_is_read_as_go_reads_it_and_all_proxy_beside() {
        let vars =
            [("HTTPS_PROXY", "a.example:1"), ("https_proxy", "never"), ("http_proxy", ""), ("ALL_PROXY", "socks5://c.example")];
        let get = |name: &str| vars.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
        let rule = ProxyRule::from_env(&get, &["d.example".into()]).expect("rule");
        let chosen = |https, host, port| rule.choose(https, host, port).map(ToString::to_string);
        assert_eq!(chosen(true, "b.example", 443).as_deref(), Some("http://a.example:1"));
        assert_eq!(chosen(false, "b.example", 80).as_deref(), Some("socks5://c.example:1080"));
        for own in ["localhost", "127.0.0.9", "::1", "::ffff:127.0.0.1", "d.example", "x.d.example"] {
            assert_eq!(chosen(true, own, 443), None, "{own}");
        }
        let bad = ProxyRule::from_env(&|n| (n == "http_proxy").then(|| "ftp://u:secret@x".to_owned()), &[]);
        assert_eq!(bad.map_err(|(name, _)| name), Err("http_proxy".to_owned()));
    }
}
