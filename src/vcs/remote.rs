//! A repository's URL, and what the git program is told so that it goes there as the configuration says: through which proxy, as whom,
//! trusting whom, and by no other protocol.
//!
//! Nothing of the machine's or the user's git configuration counts unless the configuration names a file. Secrets go by the
//! environment, which only this user can read, and never by arguments.

use std::ffi::OsString;
use std::io::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rustls::pki_types::PrivateKeyDer;
use url::Url;

use super::error::VcsError;
use crate::base::Secret;
use crate::egress::credentials::netrc_login;
use crate::egress::proxy::bare;
use crate::egress::tls::TlsVersion;
use crate::egress::{Limits, ProxyRule, Reach, TlsSettings};

/// A repository's URL that is safe to hand to git: an absolute one with a host and a protocol that runs no program of its choice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepoUrl {
    text: String,
    scheme: Scheme,
    host: String,
    port: Option<u16>,
}

/// How a repository is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// `https://`
    Https,
    /// `http://`
    Http,
    /// `ssh://`, `git+ssh://`, `ssh+git://`
    Ssh,
    /// `git://`
    Git,
    /// `file://`, which only the configuration may name.
    File,
}

impl Scheme {
    /// Whether what comes that way can be trusted to come from the server.
    pub fn is_secure(self) -> bool {
        matches!(self, Self::Https | Self::Ssh)
    }

    /// The protocols that git may use, `GIT_ALLOW_PROTOCOL`.
    fn allowed(self) -> &'static str {
        match self {
            Self::Https => "https",
            Self::Http => "http:https",
            Self::Ssh => "ssh:git+ssh:ssh+git",
            Self::Git => "git",
            Self::File => "file",
        }
    }

    fn port(self) -> u16 {
        match self {
            Self::Https => 443,
            Self::Http => 80,
            Self::Ssh => 22,
            Self::Git => 9418,
            Self::File => 0,
        }
    }
}

impl RepoUrl {
    /// Reads a URL.
    ///
    /// # Errors
    /// What is wrong with it; the text does not repeat a password.
    pub fn parse(text: &str) -> Result<Self, String> {
        if !text.contains("://") {
            return Err("a repository's URL has a scheme, as ssh://git@host/path (not git@host:path)".into());
        }
        if text.chars().any(|c| c.is_whitespace() || c.is_control() || matches!(c, '\\' | '\'' | '"' | '`' | '$')) {
            return Err("the repository's URL holds characters that do not belong there".into());
        }
        let url = Url::parse(text).map_err(|e| format!("the repository's URL is none ({e})"))?;
        // What is checked here is to be what git and ssh see, who read URLs by rules of their own.
        let (scheme, rest) = text.split_once("://").unwrap_or_default();
        let authority = rest.split('/').next().unwrap_or_default();
        let plain =
            authority.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._@:[]".contains(&b)) && authority.matches('@').count() < 2;
        if !plain || scheme != url.scheme() || (authority.is_empty() && url.scheme() != "file") {
            return Err(
                "the repository's URL is not written plainly: scheme://user@host:port/path, the scheme in small letters, and a \
                        password in credentials"
                    .into(),
            );
        }
        let scheme = match url.scheme() {
            "https" => Scheme::Https,
            "http" => Scheme::Http,
            "ssh" | "git+ssh" | "ssh+git" => Scheme::Ssh,
            "git" => Scheme::Git,
            "file" => Scheme::File,
            other => return Err(format!("the scheme {other:?} is not one of https, http, ssh, git+ssh, git")),
        };
        if url.password().is_some() {
            return Err("a password does not belong into a repository's URL (it goes into credentials)".into());
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err("a repository's URL has neither a query nor a fragment".into());
        }
        let plain = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)) && !text.starts_with('-');
        let host = bare(url.host_str().unwrap_or_default()).to_ascii_lowercase();
        let good_host = host.parse::<IpAddr>().is_ok() || (plain(&host) && is_name(&host));
        // An address in another form than the usual one, as 0x7f.1 or 010.0.0.1, is a different one to each who reads it.
        let good_host = good_host && (authority.contains('[') || authority.to_ascii_lowercase().contains(&host));
        if scheme != Scheme::File && !good_host {
            return Err("the repository's URL has no host name that can be used".into());
        }
        if !plain(url.username()) {
            return Err("the user in the repository's URL is none".into());
        }
        Ok(Self { text: text.to_owned(), scheme, host, port: url.port() })
    }

    /// The URL's text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// How it is reached.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The server's name or address, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The server's port.
    pub fn port(&self) -> u16 {
        self.port.unwrap_or(self.scheme.port())
    }

    /// `host` or `host:port`, for what is said about it.
    pub(super) fn authority(&self) -> String {
        if self.scheme == Scheme::File {
            return "a repository of this machine".to_owned();
        }
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        self.port.map_or_else(|| host.clone(), |port| format!("{host}:{port}"))
    }

    fn is_http(&self) -> bool {
        matches!(self.scheme, Scheme::Https | Scheme::Http)
    }
}

/// Whether a host is a name and no address: its last part has a letter, and is not a number in hexadecimal digits.
fn is_name(host: &str) -> bool {
    let last = host.rsplit('.').next().unwrap_or_default();
    !last.starts_with("0x") && last.bytes().any(|b| b.is_ascii_alphabetic())
}

/// Who modgate is to one host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostAccess {
    /// The host, in lower case and without brackets.
    pub host: String,
    /// The port, where it is for one alone.
    pub port: Option<u16>,
    /// User and password, or user and token.
    pub login: Option<(String, Secret)>,
    /// The private key for ssh.
    pub ssh_key: Option<PathBuf>,
    /// The hosts' keys for ssh, in the form of `known_hosts`.
    pub known_hosts: Option<PathBuf>,
}

/// Files that git is shown for TLS.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificates of those that are trusted.
    pub authorities: Option<PathBuf>,
    /// A certificate to show, and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Whether TLS 1.2 is too old.
    pub only_1_3: bool,
    /// Whether any certificate is taken.
    pub insecure_skip_verify: bool,
}

impl TlsFiles {
    /// Writes what git has to be shown into a folder. The system's authorities stand beside the configured ones, since git takes one file.
    pub(super) fn write(tls: &TlsSettings, folder: &Path) -> std::io::Result<Self> {
        let own_roots = std::env::var_os("SSL_CERT_FILE").is_some() || std::env::var_os("SSL_CERT_DIR").is_some();
        let authorities = if tls.authorities.is_empty() && !own_roots {
            None
        } else {
            let system = rustls_native_certs::load_native_certs().certs;
            let file = folder.join("authorities.pem");
            write_private(
                &file,
                system.iter().chain(&tls.authorities).map(|c| pem("CERTIFICATE", c)).collect::<String>().as_bytes(),
            )?;
            Some(file)
        };
        let identity = match &tls.identity {
            None => None,
            Some(identity) => {
                let (certificate, key) = (folder.join("certificate.pem"), folder.join("key.pem"));
                let chain: String = identity.chain.iter().map(|c| pem("CERTIFICATE", c)).collect();
                write_private(&certificate, chain.as_bytes())?;
                let kind = match &*identity.key {
                    PrivateKeyDer::Pkcs1(_) => "RSA PRIVATE KEY",
                    PrivateKeyDer::Sec1(_) => "EC PRIVATE KEY",
                    _ => "PRIVATE KEY",
                };
                write_private(&key, pem(kind, identity.key.secret_der()).as_bytes())?;
                Some((certificate, key))
            }
        };
        let only_1_3 = tls.min_version == TlsVersion::V1_3;
        Ok(Self { authorities, identity, only_1_3, insecure_skip_verify: tls.insecure_skip_verify })
    }
}

/// A PEM block (RFC 7468).
fn pem(label: &str, der: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

/// Writes a file that nobody else can read. Whoever reads it meanwhile finds the whole of it, old or new.
#[expect(clippy::disallowed_methods, reason = "it says what this process was told, and is written anew after a crash")]
pub(super) fn write_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let new = path.with_extension(format!("{:016x}", fastrand::u64(..)));
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    let written = file.write_all(bytes).and_then(|()| std::fs::rename(&new, path));
    written.inspect_err(|_| drop(std::fs::remove_file(&new)))
}

/// Everything that git is told.
#[derive(Debug, Clone)]
pub struct Access {
    /// Which proxy leads where.
    pub proxy: ProxyRule,
    /// How TLS is spoken.
    pub tls: TlsFiles,
    /// Who modgate is, by host.
    pub hosts: Vec<HostAccess>,
    /// A netrc file's text, for hosts without an entry of their own.
    pub netrc: Option<Secret>,
    /// A git configuration that counts.
    pub git_config: Option<PathBuf>,
    /// This program, which ssh runs to get through a proxy.
    pub program: PathBuf,
    /// Time limits.
    pub limits: Limits,
}

/// Who named a repository. The more of a stranger that is, the less is done for it: a page must not make modgate fetch with its own
/// logins, or from inside, what its reader may not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Named {
    /// A rule, or the well-known form of a path.
    Configured,
    /// The repository's own host, by its path or page, or a host whose pages count as the configuration's (`internal_hosts`).
    ByHost,
    /// Any other host.
    ByStranger,
}

impl Named {
    /// Whether the server's addresses are looked at before git goes there.
    pub(super) fn is_guarded(self) -> bool {
        self != Self::Configured
    }

    /// Whether modgate shows itself there as anybody.
    pub(super) fn has_logins(self) -> bool {
        self != Self::ByStranger
    }
}

/// Addresses that a host was found to have and that git has to use. Empty where it may look for itself.
pub(super) type Pinned = Vec<IpAddr>;

/// The variable by which `modgate connect` learns its proxy.
pub const CONNECT_PROXY: &str = "MODGATE_CONNECT_PROXY";
/// The variable by which it learns whom to trust besides the system's authorities: a PEM file.
pub const CONNECT_CA: &str = "MODGATE_CONNECT_CA_FILE";

/// What git runs for a user and a password: it prints what the environment holds. A constant, since git hands it to a shell.
const HELPER: &str =
    "!f() { test \"$1\" = get && printf 'username=%s\\npassword=%s\\n' \"$MODGATE_GIT_USER\" \"$MODGATE_GIT_PASSWORD\"; }; f";

type Variables = Vec<(OsString, OsString)>;

impl Access {
    /// The host's entry: the one with its port goes before the one for all ports.
    fn host(&self, host: &str, port: u16) -> Option<&HostAccess> {
        let of = |wanted: Option<u16>| self.hosts.iter().find(|h| h.host == host && h.port == wanted);
        of(Some(port)).or_else(|| of(None))
    }

    /// The files that ssh is shown for a server, by the names that the configuration has for them.
    pub(super) fn files(&self, url: &RepoUrl) -> Vec<(PathBuf, &'static str)> {
        let Some(host) = self.host(url.host(), url.port()) else { return Vec::new() };
        let named = [(&host.ssh_key, "ssh_key_file"), (&host.known_hosts, "known_hosts_file")];
        named.into_iter().filter_map(|(file, name)| Some((file.clone()?, name))).collect()
    }

    /// User and password for a server of http or https.
    pub(super) fn login(&self, url: &RepoUrl) -> Option<(String, Secret)> {
        if let Some(login) = self.host(url.host(), url.port()).and_then(|h| h.login.clone()) {
            return Some(login);
        }
        let netrc = self.netrc.as_ref().filter(|_| url.scheme == Scheme::Https)?;
        netrc_login(netrc.expose(), &Url::parse(&url.text).ok()?)
    }

    /// Whether a server of http or https would be shown a login.
    pub(super) fn has_login(&self, url: &Url) -> bool {
        RepoUrl::parse(url.as_str()).is_ok_and(|url| self.login(&url).is_some())
    }

    /// The variables of git's environment for work that stays on this machine.
    pub(super) fn local(&self) -> Variables {
        self.settings(Vec::new(), "none")
    }

    /// What is left of it for a repository that a stranger named.
    fn without_logins(&self) -> Self {
        let known_hosts = |host: &HostAccess| HostAccess { login: None, ssh_key: None, ..host.clone() };
        let tls = TlsFiles { identity: None, ..self.tls.clone() };
        Self { hosts: self.hosts.iter().map(known_hosts).collect(), netrc: None, git_config: None, tls, ..self.clone() }
    }

    /// The variables of git's environment for a repository.
    pub(super) fn remote(&self, url: &RepoUrl, pinned: &Pinned, named: Named) -> Result<Variables, VcsError> {
        if named.has_logins() { self.told(url, pinned, named) } else { self.without_logins().told(url, pinned, named) }
    }

    fn told(&self, url: &RepoUrl, pinned: &Pinned, named: Named) -> Result<Variables, VcsError> {
        let mut config: Vec<(String, String)> = vec![
            ("protocol.version".into(), "2".into()),
            // A pack stays one: a file for each of its objects takes several times as long, to write and to read.
            ("fetch.unpackLimit".into(), "1".into()),
            ("http.lowSpeedLimit".into(), "1".into()),
            // The wait for the first byte counts as well.
            ("http.lowSpeedTime".into(), seconds(self.limits.idle.max(self.limits.first_byte))),
            // A redirect of a server that others named could lead inside; it is looked at before git goes there.
            ("http.followRedirects".into(), if named.is_guarded() { "false" } else { "initial" }.into()),
        ];
        let mut more = Variables::new();
        if url.is_http() {
            self.for_http(url, pinned, &mut config, &mut more);
        }
        // A git configuration that the operator named may rewrite URLs to another protocol.
        let allowed = if self.git_config.is_some() { "https:http:ssh:git+ssh:ssh+git:git:file" } else { url.scheme.allowed() };
        let mut variables = self.settings(config, allowed);
        if url.scheme == Scheme::Ssh || self.git_config.is_some() {
            more.push(("GIT_SSH_COMMAND".into(), self.ssh(url, pinned, named)?.into()));
            more.push(("GIT_SSH_VARIANT".into(), "ssh".into()));
            more.extend(
                std::env::var_os("SSH_AUTH_SOCK").filter(|_| named.has_logins()).map(|socket| ("SSH_AUTH_SOCK".into(), socket)),
            );
            if let Some(proxy) = self.proxy.for_ssh(url.host(), url.port()) {
                more.push((CONNECT_PROXY.into(), proxy.url_with_login().expose().into()));
                more.extend(self.tls.authorities.as_ref().map(|file| (CONNECT_CA.into(), file.into())));
            }
        }
        variables.extend(more);
        Ok(variables)
    }

    fn for_http(&self, url: &RepoUrl, pinned: &Pinned, config: &mut Vec<(String, String)>, more: &mut Variables) {
        let proxy = self.proxy.choose(url.scheme == Scheme::Https, url.host(), url.port());
        let mut set = |key: &str, value: String| config.push((key.into(), value));
        set("http.proxy", proxy.map(|p| p.url_with_login().expose().to_owned()).unwrap_or_default());
        let text = |path: &Path| path.to_string_lossy().into_owned();
        if let Some(authorities) = &self.tls.authorities {
            set("http.sslCAInfo", text(authorities));
            set("http.proxySSLCAInfo", text(authorities));
        }
        if let Some((certificate, key)) = &self.tls.identity {
            set("http.sslCert", text(certificate));
            set("http.sslKey", text(key));
        }
        if self.tls.only_1_3 {
            set("http.sslVersion", "tlsv1.3".into());
        }
        set("http.sslVerify", (!self.tls.insecure_skip_verify).to_string());
        if proxy.is_none() {
            // git 2.37 and later; older ones look the host up again.
            let host = url.host();
            if !pinned.is_empty() && host.parse::<IpAddr>().is_err() {
                let addresses: Vec<String> = pinned.iter().map(ToString::to_string).collect();
                set("http.curloptResolve", format!("{host}:{}:{}", url.port(), addresses.join(",")));
            }
        }
        if let Some((user, password)) = self.login(url) {
            let scheme = if url.scheme == Scheme::Https { "https" } else { "http" };
            config.push((format!("credential.{scheme}://{}.helper", url.authority()), HELPER.into()));
            more.push(("MODGATE_GIT_USER".into(), user.into()));
            more.push(("MODGATE_GIT_PASSWORD".into(), password.expose().into()));
        }
    }

    /// The command that git reaches ssh servers by.
    fn ssh(&self, url: &RepoUrl, pinned: &Pinned, named: Named) -> Result<String, VcsError> {
        let mut options = vec![
            "BatchMode=yes".to_owned(),
            "ControlMaster=no".into(),
            "ControlPath=none".into(),
            "ForwardAgent=no".into(),
            "PermitLocalCommand=no".into(),
            "StrictHostKeyChecking=yes".into(),
            format!("ConnectTimeout={}", seconds(self.limits.connect)),
            format!("ServerAliveInterval={}", seconds(self.limits.idle / 3)),
            "ServerAliveCountMax=3".into(),
        ];
        let host = self.host(url.host(), url.port());
        if let Some(file) = host.and_then(|h| h.known_hosts.as_ref()) {
            options.extend([format!("UserKnownHostsFile={}", ssh_path(file)?), "GlobalKnownHostsFile=/dev/null".into()]);
        }
        if let Some(file) = host.and_then(|h| h.ssh_key.as_ref()) {
            options.extend([format!("IdentityFile={}", ssh_path(file)?), "IdentitiesOnly=yes".into(), "IdentityAgent=none".into()]);
        }
        if !named.has_logins() {
            // Nor by the keys that this user has.
            options.extend(["IdentityFile=none", "IdentitiesOnly=yes", "IdentityAgent=none"].map(str::to_owned));
        }
        if self.proxy.for_ssh(url.host(), url.port()).is_some() {
            let program = quoted(&self.program.to_string_lossy().replace('%', "%%"));
            options.push(format!("ProxyCommand={program} connect %h %p"));
        } else if let (Some(address), Err(_)) = (pinned.first(), url.host().parse::<IpAddr>()) {
            options.extend([format!("HostName={address}"), format!("HostKeyAlias={}", alias(url)), "CheckHostIP=no".into()]);
        }
        let options: Vec<String> = options.iter().map(|o| format!("-o {}", quoted(o))).collect();
        Ok(format!("ssh {}", options.join(" ")))
    }

    fn settings(&self, more: Vec<(String, String)>, allowed: &str) -> Variables {
        let fixed = [
            ("core.fsmonitor", "false"),
            ("core.hooksPath", "/dev/null"),
            ("core.attributesFile", "/dev/null"),
            ("core.autocrlf", "input"),
            ("core.eol", "lf"),
            ("gc.auto", "0"),
            ("maintenance.auto", "false"),
            ("fetch.recurseSubmodules", "no"),
            ("submodule.recurse", "false"),
            ("safe.directory", "*"),
        ];
        let config: Vec<(String, String)> = fixed.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).chain(more).collect();
        let global = self.git_config.clone().unwrap_or_else(|| "/dev/null".into());
        let mut variables: Variables = [
            ("LC_ALL", "C"),
            ("GIT_TERMINAL_PROMPT", "0"),
            ("GCM_INTERACTIVE", "never"),
            ("GIT_ASKPASS", "/bin/false"),
            ("SSH_ASKPASS", "/bin/false"),
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("GIT_ATTR_NOSYSTEM", "1"),
            ("GIT_NO_REPLACE_OBJECTS", "1"),
            ("GIT_LITERAL_PATHSPECS", "1"),
            ("GIT_LFS_SKIP_SMUDGE", "1"),
            ("GIT_OPTIONAL_LOCKS", "0"),
            ("GIT_ALLOW_PROTOCOL", allowed),
        ]
        .into_iter()
        .map(|(name, value)| (name.into(), value.into()))
        .collect();
        variables.push(("GIT_CONFIG_GLOBAL".into(), global.into()));
        variables.push(("GIT_CONFIG_COUNT".into(), config.len().to_string().into()));
        for (at, (key, value)) in config.into_iter().enumerate() {
            variables.push((format!("GIT_CONFIG_KEY_{at}").into(), key.into()));
            variables.push((format!("GIT_CONFIG_VALUE_{at}").into(), value.into()));
        }
        variables
    }
}

/// The name under which `known_hosts` has a server.
fn alias(url: &RepoUrl) -> String {
    if url.port() == Scheme::Ssh.port() { url.host().to_owned() } else { format!("[{}]:{}", url.host(), url.port()) }
}

/// Whole seconds, at least one.
fn seconds(time: Duration) -> String {
    time.as_secs().max(1).to_string()
}

/// A path for an option of ssh.
fn ssh_path(path: &Path) -> Result<String, VcsError> {
    let text = path.to_string_lossy();
    if text.contains(['"', '%', '\n', '$', '~']) {
        return Err(VcsError::broken("the path of an ssh file holds characters that ssh does not take"));
    }
    Ok(format!("\"{text}\""))
}

/// A word for a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// Looks a guarded host up before git goes there, and says which addresses git has to use. Where a proxy leads there, that decides.
pub(super) async fn pin(url: &RepoUrl, reach: &Reach, proxy: &ProxyRule, limit: Duration) -> Result<Pinned, VcsError> {
    let by_proxy = match url.scheme {
        Scheme::Https | Scheme::Http => proxy.choose(url.scheme == Scheme::Https, url.host(), url.port()),
        Scheme::Ssh => proxy.for_ssh(url.host(), url.port()),
        Scheme::Git | Scheme::File => None,
    };
    let found = reach.admit(url.host(), url.port(), by_proxy.is_some(), limit).await?;
    Ok(found.iter().map(std::net::SocketAddr::ip).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn urls_that_could_do_more_than_name_a_server_are_refused() {
        for good in [
            "https://h.example/a/b.git",
            "ssh://git@h.example:2222/a",
            "git+ssh://h.example/a",
            "http://127.0.0.1:80/a",
            "https://[::1]:8443/x",
            "file:///srv/git/x",
        ] {
            assert!(RepoUrl::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "git@h.example:a/b",
            "/srv/git",
            "ext::sh -c x",
            "ext://x",
            "-c://x",
            "ssh://-oProxyCommand=x/a",
            "ssh://-l@h.example/a",
            "https://u:secret@h.example/a",
            "https:///a",
            "https://h.example/a b",
            "https://h.example/$(x)",
            "https://h.example/a?x",
            "svn://h.example/a",
            "ssh://h.exa;mple/a",
            "https::https://h.example/a",
            "git::ssh://h.example/a",
            "HTTPS://h.example/a",
            "https://h.example./a",
            "https://0x7f.1/a",
            "https://127.1/a",
            "https://2130706433/a",
            "https://0177.0.0.1/a",
            "ssh://0x7f.1/a",
            "ssh://127.1/a",
            "git://2130706433/a",
            "git://0x7f000001/a",
            "ssh://010.0.0.1/a",
        ] {
            let why = RepoUrl::parse(bad).expect_err(bad);
            assert!(!why.contains("secret"), "{why}");
        }
    }

    proptest! {
        #[test]
        fn no_text_breaks_it(text in "\\PC{0,40}", likely in "(ssh|https|git)://[-a-z@:.\\[\\]/%]{0,30}") {
            let _ = (RepoUrl::parse(&text), RepoUrl::parse(&likely));
        }
    }
}
