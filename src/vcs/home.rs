//! The home of a go command: what Mercurial and Subversion are told by files in it, since they read no variables, and the logins.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use super::Settings;
use super::remote::{Access, write_private};
use crate::base::Secret;
use crate::egress::proxy::{Proxy, ProxyScheme};

/// How both reach servers by ssh.
pub(super) const SSH: &str = "ssh -o BatchMode=yes -o StrictHostKeyChecking=yes";

/// The files, by their paths.
pub(super) fn files(settings: &Settings, access: &Access) -> Vec<(&'static str, Secret)> {
    let files = [(".netrc", netrc(settings)), (".hgrc", mercurial(settings, access)), (".subversion/servers", subversion(access))];
    files.map(|(path, text)| (path, Secret::new(text))).into()
}

/// Writes them, where nobody else can read them.
pub(super) fn write(files: &[(&str, Secret)], home: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(home.join(".subversion"))?;
    files.iter().try_for_each(|(path, text)| write_private(&home.join(path), text.expose().as_bytes()))
}

fn netrc(settings: &Settings) -> String {
    let logins = settings.hosts.iter().filter_map(|host| {
        let (user, password) = host.login.as_ref()?;
        Some(format!("machine {} login {user} password {}\n", host.host, password.expose()))
    });
    logins.chain(settings.netrc.as_ref().map(|netrc| netrc.expose().to_owned())).collect()
}

/// A proxy that both can use, for which they know http alone.
fn proxy(access: &Access) -> Option<&Arc<Proxy>> {
    access.proxy.https.as_ref().filter(|proxy| proxy.scheme == ProxyScheme::Http)
}

fn mercurial(settings: &Settings, access: &Access) -> String {
    let mut text = format!("[ui]\ninteractive = False\nssh = {SSH}\n");
    if let Some(file) = &access.tls.authorities {
        let _ = write!(text, "[web]\ncacerts = {}\n", file.display());
    }
    if let Some(proxy) = proxy(access) {
        let _ = write!(text, "[http_proxy]\nhost = {}:{}\nno = {}\n", proxy.host, proxy.port, access.proxy.exempt);
        if let Some(login) = &proxy.login {
            let _ = write!(text, "user = {}\npasswd = {}\n", login.user, login.password.expose());
        }
    }
    text.push_str("[auth]\n");
    for (at, host) in settings.hosts.iter().enumerate() {
        let Some((user, password)) = &host.login else { continue };
        let port = host.port.map_or_else(String::new, |port| format!(":{port}"));
        let _ = write!(text, "h{at}.prefix = {}{port}\nh{at}.schemes = https http\n", host.host);
        let _ = write!(text, "h{at}.username = {user}\nh{at}.password = {}\n", password.expose());
    }
    text
}

fn subversion(access: &Access) -> String {
    let mut text = "[global]\nstore-plaintext-passwords = no\n".to_owned();
    if let Some(file) = &access.tls.authorities {
        let _ = writeln!(text, "ssl-authority-files = {}", file.display());
    }
    if let Some(proxy) = proxy(access) {
        let _ = write!(text, "http-proxy-host = {}\nhttp-proxy-port = {}\n", proxy.host, proxy.port);
        let _ = writeln!(text, "http-proxy-exceptions = {}", access.proxy.exempt);
        if let Some(login) = &proxy.login {
            let _ = write!(text, "http-proxy-username = {}\nhttp-proxy-password = {}\n", login.user, login.password.expose());
        }
    }
    text
}
