//! Through a proxy to a server: CONNECT (RFC 9110 §9.3.6) and SOCKS 5 (RFC 1928, RFC 1929).

use std::fmt;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_socks::tcp::Socks5Stream;
use tokio_socks::{Error as SocksError, TargetAddr};

use super::credentials::basic;
use super::proxy::{Login, Proxy, host_port};

/// The longest head of a proxy's answer.
const MAX_HEAD: usize = 16 << 10;

/// Why a proxy does not lead to the server.
#[derive(Debug)]
pub(super) enum TunnelError {
    /// It answered CONNECT with another status than 2xx; in words.
    Refused(u16, String),
    /// It broke off, or said something that is no answer.
    Broken(String),
    /// SOCKS.
    Socks(SocksError),
}

impl fmt::Display for TunnelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(_, why) => f.write_str(why),
            Self::Broken(why) => f.write_str(why),
            Self::Socks(SocksError::Io(e)) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
                f.write_str("it closed the connection")
            }
            Self::Socks(SocksError::PasswordAuthFailure(_)) => f.write_str("it does not accept the user and password"),
            Self::Socks(SocksError::NoAcceptableAuthMethods | SocksError::AuthorizationRequired) => {
                f.write_str("it wants another way to log in (modgate knows none at all, and user with password)")
            }
            Self::Socks(e) => write!(f, "{e}"),
        }
    }
}

/// Asks an HTTP proxy to lead on to `host:port`. Afterwards the stream is the server's. `speaks` says that the server may begin, as those
/// of ssh do: its first words can come together with the answer, and must not be read with it.
pub(super) async fn connect(
    proxy: &Proxy,
    mut io: impl AsyncRead + AsyncWrite + Unpin,
    (host, port): (&str, u16),
    speaks: bool,
) -> Result<(), TunnelError> {
    let target = host_port(host, port);
    let mut head = format!(
        "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nUser-Agent: {}\r\nProxy-Connection: keep-alive\r\n",
        super::client::USER_AGENT
    );
    if let Some(Login { user, password }) = &proxy.login {
        head.extend(["Proxy-Authorization: ", basic(user, password.expose()).expose(), "\r\n"]);
    }
    head.push_str("\r\n");
    let broken = |e: std::io::Error| TunnelError::Broken(format!("it broke off ({e})"));
    io.write_all(head.as_bytes()).await.map_err(broken)?;
    io.flush().await.map_err(broken)?;
    let mut answer = Vec::new();
    loop {
        let mut piece = [0; 1024];
        let most = if speaks { 1 } else { piece.len() };
        let count = io.read(&mut piece[..most]).await.map_err(broken)?;
        if count == 0 {
            return Err(TunnelError::Broken("it closed the connection without an answer to CONNECT".into()));
        }
        answer.extend_from_slice(&piece[..count]);
        if let Some(verdict) = verdict(&answer, proxy.login.is_some()) {
            return verdict;
        }
    }
}

/// What a proxy's answer comes to; `None` until its head is whole.
fn verdict(answer: &[u8], logged_in: bool) -> Option<Result<(), TunnelError>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    match response.parse(answer) {
        Ok(httparse::Status::Partial) if answer.len() < MAX_HEAD => None,
        Ok(httparse::Status::Complete(end)) => Some(match response.code.unwrap_or(0) {
            // A server that may begin is not read from here, and TLS begins with the client.
            200..=299 if end == answer.len() => Ok(()),
            200..=299 => Err(TunnelError::Broken("it sent more than an answer to CONNECT".into())),
            status => {
                let headers = response.headers.iter().filter(|h| h.name.eq_ignore_ascii_case("proxy-authenticate"));
                let offers = headers.filter_map(|h| std::str::from_utf8(h.value).ok());
                Err(TunnelError::Refused(status, refusal(status, offers, logged_in)))
            }
        }),
        Ok(httparse::Status::Partial) => Err(TunnelError::Broken("its answer to CONNECT does not end".into())).into(),
        Err(e) => Some(Err(TunnelError::Broken(format!("its answer to CONNECT is not HTTP ({e})")))),
    }
}

/// A proxy's status in words. For 407, what it wants: its `Proxy-Authenticate` headers say which ways to log in it offers.
pub(super) fn refusal<'t>(status: u16, offers: impl Iterator<Item = &'t str>, logged_in: bool) -> String {
    let reason = awc::http::StatusCode::from_u16(status).ok().and_then(|s| s.canonical_reason()).unwrap_or_default();
    let said = format!("{status} {reason}").trim_end().to_owned();
    if status != 407 {
        return said;
    }
    // Nothing but the schemes' names: what stands behind them is not for a log.
    let scheme = |offer: &str| offer.trim().chars().take_while(char::is_ascii_alphanumeric).take(20).collect::<String>();
    let offers: Vec<String> = offers.map(scheme).filter(|name| !name.is_empty()).collect();
    if !offers.is_empty() && !offers.iter().any(|name| name.eq_ignore_ascii_case("basic")) {
        return format!("{said} (it offers {}; modgate knows Basic)", offers.join(", "));
    }
    let hint = if logged_in { "it does not accept the user and password" } else { "it wants a user and password: proxy_auth" };
    format!("{said} ({hint})")
}

/// Asks a SOCKS proxy to lead on to a server. Afterwards the stream is the server's.
pub(super) async fn socks<S: AsyncRead + AsyncWrite + Unpin>(
    proxy: &Proxy,
    io: S,
    target: TargetAddr<'_>,
) -> Result<S, TunnelError> {
    let done = match &proxy.login {
        None => Socks5Stream::connect_with_socket(io, target).await,
        Some(Login { user, password }) => Socks5Stream::connect_with_password_and_socket(io, target, user, password.expose()).await,
    };
    done.map(Socks5Stream::into_inner).map_err(TunnelError::Socks)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn answers_to_connect() {
        let said = |text: &str| verdict(text.as_bytes(), true).map(|v| v.map_err(|e| e.to_string()));
        assert_eq!(said("HTTP/1.1 200 Connection established\r\n"), None);
        assert_eq!(said("HTTP/1.0 200 OK\r\nVia: x\r\n\r\n"), Some(Ok(())));
        assert_eq!(said("HTTP/1.1 403 Go away\r\n\r\n<html>"), Some(Err("403 Forbidden".into())));
        let text = "HTTP/1.1 407 X\r\nProxy-Authenticate: Negotiate\r\nProxy-Authenticate: NTLM TlRM\r\n\r\n";
        let wanted = "407 Proxy Authentication Required (it offers Negotiate, NTLM; modgate knows Basic)";
        assert_eq!(said(text), Some(Err(wanted.into())));
        let wanted = "407 Proxy Authentication Required (it does not accept the user and password)";
        assert_eq!(said("HTTP/1.1 407 X\r\nProxy-Authenticate: Basic realm=x\r\n\r\n"), Some(Err(wanted.into())));
        assert!(said("SSH-2.0-OpenSSH\r\n").is_some_and(|v| v.is_err()));
        assert!(said("HTTP/1.1 200 OK\r\n\r\nmore").is_some_and(|v| v.is_err()));
        assert!(said(&format!("HTTP/1.1 200 OK\r\nX: {}", "y".repeat(MAX_HEAD))).is_some_and(|v| v.is_err()));
    }

    proptest! {
        #[test]
        fn no_answer_breaks_it(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = verdict(&bytes, false);
        }
    }
}
