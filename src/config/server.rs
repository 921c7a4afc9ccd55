//! `[server]`, `[admin]`, `[limits]` and `[audit]`: where modgate listens, how it is spoken with, how often, and what is written down.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;

use super::check::all;
use super::egress::{file, frequency};
use super::read::{Finding, Place, Reading, Table};
use super::{Origin, Server, Upstream, UpstreamKind};
use crate::base::units;
use crate::egress::proxy::{bare, network};
use crate::egress::tls::{TlsVersion, read_certificates, read_identity};
use crate::server::audit;
use crate::server::limits::{Rate, TeamLimits};
use crate::server::tls::TlsSettings;

/// Reads `[server]` and `[admin]`; and of `[server]` the most fetches at once.
pub(super) fn server(
    reading: &Reading,
    mut table: Table<'_>,
    mut admin: Table<'_>,
    warnings: &mut Vec<Finding>,
) -> Option<(Server, usize)> {
    let listen = addresses(&mut table, "listen");
    let tls = match table.take("tls") {
        None => Some(None),
        Some(item) => item.table().and_then(|table| tls(reading, table)).map(Some),
    };
    let beside_tls = table.has("listen_plain").then(|| addresses(&mut table, "listen_plain"));
    let trusted_proxies = match table.items("trusted_proxies") {
        None => Some(Vec::new()),
        Some(items) => all(items.iter().filter(|item| !item.is_empty()).map(|item| item.parsed(net))),
    };
    let workers = table.number("workers", 0, 1024);
    let shutdown_grace = table.duration("shutdown_grace");
    let max_fetches = table.number("max_fetches", 1, 1_000_000);
    if let (Some(_), Some(None)) = (&beside_tls, &tls) {
        table.say("listen_plain", "is for a listener without TLS beside one with it: there is no server.tls");
    }
    table.finish();
    let admin = {
        let addresses = addresses(&mut admin, "listen");
        admin.finish();
        addresses
    };
    if let Some(listen) = &listen
        && listen.is_empty()
    {
        reading.say(None, "server.listen", "at least one address is needed");
    }
    let listen_plain = beside_tls.unwrap_or_else(|| Some(Vec::new()));
    if let (Some(listen), Some(plain)) = (&listen, &listen_plain)
        && let Some(twice) = plain.iter().find(|address| listen.contains(address))
    {
        reading.say(None, "server.listen_plain", format!("{twice} is in server.listen too"));
    }
    if let (Some(admin), Some(listen)) = (&admin, &listen) {
        for open in admin.iter().filter(|address| !address.ip().is_loopback() && !listen.contains(address)) {
            let problem =
                format!("whoever reaches {open} is told how any team's modules are answered; it asks nobody who they are");
            warnings.push(reading.warning("admin.listen", problem));
        }
    }
    let server = Server {
        listen: listen?,
        listen_plain: listen_plain?,
        tls: tls?,
        trusted_proxies: trusted_proxies?,
        admin: admin?,
        workers: workers.filter(|n| *n > 0),
        shutdown_grace: shutdown_grace.unwrap_or_default(),
    };
    Some((server, max_fetches.unwrap_or(1)))
}

/// The table `server.tls`.
fn tls(reading: &Reading, mut table: Table<'_>) -> Option<TlsSettings> {
    let (cert, key) = (table.take("cert_file"), table.take("key_file"));
    let identity = if let (Some(cert), Some(key)) = (&cert, &key) {
        let (pem, key_pem) = (file(reading, cert), file(reading, key));
        pem.zip(key_pem).and_then(|((_, pem), (_, key))| cert.judge(read_identity(&pem, &key)))
    } else {
        table.say("", "has no cert_file and key_file: a certificate with those that lead to its root, and its key");
        None
    };
    let client_authorities = match table.take("client_ca_file") {
        None => Some(Vec::new()),
        Some(item) => file(reading, &item).and_then(|(_, pem)| item.judge(read_certificates(&pem))),
    };
    let min_version = table.word("min_version", &[("1.2", TlsVersion::V1_2), ("1.3", TlsVersion::V1_3)]);
    table.finish();
    Some(TlsSettings { identity: identity?, client_authorities: client_authorities?, min_version: min_version.unwrap_or_default() })
}

/// An address, or a network of them.
fn net(text: &str) -> Result<IpNet, String> {
    let found = text.parse::<IpAddr>().map(IpNet::from).ok().or_else(|| network(text));
    found.ok_or_else(|| format!("{text:?} is no address and no network such as \"10.0.0.0/8\""))
}

/// Reads `[limits]`, or a team's `limits`.
pub(super) fn limits(mut table: Table<'_>) -> Option<TeamLimits> {
    let mut rate = |key| match table.take(key) {
        None => Some(None),
        Some(item) => frequency(item.table()?).map(|(requests, per, burst)| Some(Rate { requests, per, burst })),
    };
    let (per_client, all) = (rate("per_client"), rate("all"));
    table.finish();
    Some(TeamLimits { per_client: per_client?, all: all? })
}

/// Reads `[audit]`, which may say that nothing is written down.
#[expect(clippy::option_option, reason = "wrong, nothing, something, as for every optional key")]
pub(super) fn audit(reading: &Reading, mut table: Table<'_>) -> Option<Option<audit::Settings>> {
    let item = table.take("file");
    let max_size = table.parsed("max_size", units::parse_size);
    let keep = table.number("keep", 0, 10_000);
    let all = table.word("include", &[("downloads", false), ("all", true)]);
    table.finish();
    let Some(item) = item.filter(|item| !item.is_empty()) else { return Some(None) };
    let file = if item.is("stdout") { None } else { Some(item.path()?) };
    if let Some(path) = &file
        && !folder_of(path).is_dir()
    {
        reading.say(None, "audit.file", format!("there is no folder {}", folder_of(path).display()));
        return None;
    }
    let max_size = max_size?;
    if max_size < 4096 {
        reading.say(None, "audit.max_size", "has to be 4 KiB at least");
        return None;
    }
    Some(Some(audit::Settings { file, max_size, keep: keep?, all: all? }))
}

fn folder_of(path: &std::path::Path) -> PathBuf {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).map_or_else(|| PathBuf::from("."), PathBuf::from)
}

/// One address or a list; an empty text is none.
fn addresses(table: &mut Table<'_>, key: &'static str) -> Option<Vec<SocketAddr>> {
    let items = table.items(key)?;
    let mut found: Vec<SocketAddr> = Vec::new();
    let mut good = true;
    for item in items {
        let text = item.text()?;
        // figment takes a comma-separated variable for one text.
        for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
            let problem = match address(part) {
                None => format!("{part:?} is not an address such as \"127.0.0.1:8080\" or \":8080\""),
                Some(address) if found.contains(&address) => format!("{address} stands here twice"),
                Some(address) => {
                    found.push(address);
                    continue;
                }
            };
            item.say(problem);
            good = false;
        }
    }
    good.then_some(found)
}

fn address(text: &str) -> Option<SocketAddr> {
    if let Some(port) = text.strip_prefix(':') {
        return Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port.parse().ok()?));
    }
    if let Some(port) = text.strip_prefix("localhost:") {
        return Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port.parse().ok()?));
    }
    text.parse().ok()
}

/// An upstream that is modgate's own address would be asked by itself, for ever.
pub(super) fn own_addresses(reading: &Reading, server: &Server, upstreams: &[Upstream], origin: Origin) {
    for upstream in upstreams {
        let UpstreamKind::GoProxy(settings, _) = &upstream.kind else { continue };
        let port = settings.url.port_or_known_default();
        let host = bare(settings.url.host_str().unwrap_or_default());
        let ip = host.parse::<IpAddr>().ok();
        let is_self = |own: &SocketAddr| {
            let same_host = match ip {
                Some(ip) => {
                    ip == own.ip()
                        || (ip.is_loopback() && own.ip().is_unspecified())
                        || (ip.is_loopback() && own.ip().is_loopback())
                }
                None => host == "localhost" && (own.ip().is_loopback() || own.ip().is_unspecified()),
            };
            port == Some(own.port()) && same_host
        };
        if let Some(own) = server.listen.iter().chain(&server.listen_plain).find(|own| is_self(own)) {
            let problem = format!("names {own}, where modgate itself listens: it would ask itself without end");
            match origin {
                Origin::Configured => reading.say(None, &format!("upstreams.{}.url", upstream.name), problem),
                Origin::GoSettings => {
                    let problem = format!("GOPROXY {problem}; give the upstreams by --config, or run modgate with another GOPROXY");
                    reading.findings.borrow_mut().push(Finding { place: Place::GoSettings, key: String::new(), problem });
                }
            }
        }
    }
}
