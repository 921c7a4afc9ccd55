//! Which servers may be reached where somebody else than the configuration names them: a module path, or a page's `go-import`.
//!
//! Without bounds such a name makes modgate ask services that only this machine or this network can reach (server-side request
//! forgery). So addresses of this machine and of private networks are refused, but for hosts that the configuration names.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::EgressError;
use super::connect::look_up;
use super::error::Wait;
use super::proxy::NoProxy;

/// Public servers, and those of the own network that the configuration names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reach {
    /// Hosts, addresses and networks, written as in `no_proxy`.
    pub internal: NoProxy,
}

impl Reach {
    /// Whether the server may be reached at this address.
    ///
    /// # Errors
    /// That it may not.
    pub fn check(&self, host: &str, port: u16, address: IpAddr) -> Result<(), EgressError> {
        let literal = host.parse::<IpAddr>().ok();
        let named = self.internal.matches(&host.to_ascii_lowercase(), literal, port)
            || self.internal.matches(&address.to_string(), Some(address.to_canonical()), port);
        if named || is_public(address) {
            return Ok(());
        }
        Err(EgressError::Internal { host: host.to_owned(), address })
    }

    /// Whether the configuration names a host as one of its own.
    pub fn names(&self, host: &str) -> bool {
        self.internal.names(&host.to_ascii_lowercase())
    }

    /// The same where somebody else looks the name up, as far as that can be told from the name.
    ///
    /// # Errors
    /// That it may not.
    pub fn check_name(&self, host: &str, port: u16) -> Result<(), EgressError> {
        let name = host.trim_end_matches('.').to_ascii_lowercase();
        // RFC 6761: such a name is this machine, and to a proxy the proxy's.
        let is_local = name == "localhost" || name.ends_with(".localhost");
        let address = if is_local { Some(Ipv4Addr::LOCALHOST.into()) } else { name.parse().ok() };
        address.map_or(Ok(()), |address| self.check(host, port, address))
    }

    /// Looks a server up; its addresses, all of which may be reached.
    ///
    /// # Errors
    /// That it has no address, or one that may not be reached.
    pub async fn look_up(&self, host: &str, port: u16, limit: Duration) -> Result<Vec<SocketAddr>, EgressError> {
        let late = |_| EgressError::Timeout(Wait::Connect(format!("looking up {host}")));
        let found = tokio::time::timeout(limit, look_up(host, port)).await.map_err(late)??;
        found.iter().try_for_each(|address| self.check(host, port, address.ip()))?;
        Ok(found)
    }

    /// The same for a program that goes there by itself. Where a proxy leads there, it looks the name up and decides; there are no
    /// addresses then.
    ///
    /// # Errors
    /// That the server may not be reached.
    pub async fn admit(&self, host: &str, port: u16, proxied: bool, limit: Duration) -> Result<Vec<SocketAddr>, EgressError> {
        if proxied { self.check_name(host, port).map(|()| Vec::new()) } else { self.look_up(host, port, limit).await }
    }
}

/// Whether an address is one of the public internet (RFC 6890, RFC 4291), however it is wrapped.
fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => match (ip.segments(), ip.octets()) {
            // 6to4 and NAT64 lead on to the address within.
            ([0x2002, ..], [_, _, a, b, c, d, ..]) => is_public_v4(Ipv4Addr::new(a, b, c, d)),
            ([0x64, 0xff9b, 0, 0, 0, 0, ..], [.., a, b, c, d]) => is_public_v4(Ipv4Addr::new(a, b, c, d)),
            ([0x64, 0xff9b, 1, ..], _) => false,
            _ => is_public_v6(ip),
        },
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    let special = ip.is_loopback()
        || ip.is_private()
        || ip.is_link_local()
        || ip.is_multicast()
        || ip.is_documentation()
        || matches!((a, b), (0 | 240..=255, _) | (100, 64..=127) | (198, 18 | 19))
        || (a, b, c) == (192, 0, 0);
    !special
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    let first = ip.segments()[0];
    let global = first & 0xe000 == 0x2000;
    let second = ip.segments()[1];
    // 2001::/23 is for protocols, some of which lead on to an IPv4 address as Teredo does.
    let special = first == 0x2001 && (second < 0x200 || second == 0xdb8);
    global && !special
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_addresses_are_refused_however_they_are_written() {
        let reach = Reach { internal: NoProxy::parse(["*.corp.example", "10.1.0.0/16"].into_iter()) };
        let check = |host: &str, ip: &str| reach.check(host, 443, ip.parse().expect("address")).is_ok();
        for public in ["1.1.1.1", "2606:4700::1111", "2002:101:101::", "64:ff9b::101:101"] {
            assert!(check("x.example", public), "{public}");
        }
        for private in [
            "127.0.0.1",
            "0.0.0.0",
            "10.0.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "fc00::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::127.0.0.1",
            "2002:7f00:1::",
            "2001:0:7f00:1::",
            "64:ff9b::a00:1",
        ] {
            assert!(!check("x.example", private), "{private}");
        }
        for (name, may) in
            [("localhost", false), ("a.LocalHost.", false), ("127.0.0.1", false), ("::1", false), ("x.example", true)]
        {
            assert_eq!(reach.check_name(name, 443).is_ok(), may, "{name}");
        }
        assert!(check("git.corp.example", "192.168.1.1") && check("x.example", "10.1.2.3"));
    }
}
