//! Which team a request is of: what it is addressed to, who sends it, and what follows from both.
//!
//! A request is addressed to a team by the first element of its path or by the host that it asks. Who sends it is of some teams, of
//! none, or not known. A team with members is for them alone; one without is for whoever may come in at all.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use actix_http::header::{AUTHORIZATION, HOST, HeaderMap, HeaderName, HeaderValue};
use actix_http::{HttpMessage, Request, StatusCode};
use ipnet::IpNet;

use super::connection::Wire;
use super::error::Refusal;
use super::tls::Tls;
use crate::access::patience::network;
use crate::access::{Access, Caller, Refused};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Who may come in where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doors {
    /// Whether those come in who do not say who they are.
    pub anonymous: bool,
    /// The teams, by place; the first is everybody.
    pub teams: Vec<Door>,
    /// Proxies that say for whom they ask (`X-Forwarded-For`).
    pub trusted_proxies: Vec<IpNet>,
}

/// How one team is come by.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Door {
    /// Its name; everybody has none.
    pub name: Option<Arc<str>>,
    /// The first element of the paths that are addressed to it.
    pub prefix: Option<String>,
    /// The hosts that are its own, in lower case.
    pub hosts: Vec<String>,
    /// Whether it has members, so that nobody else comes in.
    pub members_only: bool,
}

/// Where a request is addressed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Address {
    /// The place of a team, where it is addressed to one.
    pub(super) team: Option<usize>,
    /// Where in its path the question begins.
    pub(super) begins: usize,
}

/// A request that has been let in.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// The place of the team that it is answered for.
    pub(super) team: usize,
    /// Where in its path the question begins.
    pub(super) begins: usize,
    /// Who asks, where that is known.
    pub(super) caller: Option<Arc<Caller>>,
}

/// Why a request is not let in.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Turned {
    /// Nobody knows who sends it.
    Login,
    /// Its sender is of other teams.
    NotOf(usize),
    /// Its sender is of several teams, and it does not say which it is for.
    Several(Vec<usize>),
}

/// What is known of a sender without any work.
pub(super) enum Sender {
    Known(Option<Arc<Caller>>),
    /// There are credentials that have to be looked at.
    Unknown,
}

impl Doors {
    /// Everybody comes in, and there are no teams.
    pub fn open() -> Self {
        Self { anonymous: true, teams: vec![Door::default()], trusted_proxies: Vec::new() }
    }

    /// The team that a request is addressed to, and where in its path the question begins.
    pub(super) fn addressed(&self, request: &Request) -> Address {
        if self.teams.len() == 1 {
            return Address::default();
        }
        let path = request.uri().path();
        let first = path.strip_prefix('/').unwrap_or_default();
        let first = &first[..first.find('/').unwrap_or(first.len())];
        // A module path's first element has a dot, and a prefix has none.
        if !first.contains('.')
            && let Some(place) = self.teams.iter().position(|team| team.prefix.as_deref() == Some(first))
        {
            return Address { team: Some(place), begins: first.len() + 1 };
        }
        let host = host_of(request);
        let asked = |team: &Door| team.hosts.iter().any(|own| own.eq_ignore_ascii_case(host));
        Address { team: self.teams.iter().position(asked), begins: 0 }
    }

    /// The team that a request is answered for.
    fn decide(&self, addressed: Option<usize>, caller: Option<&Caller>) -> Result<usize, Turned> {
        match (addressed, caller) {
            (Some(team), Some(caller)) if caller.teams.contains(&team) => Ok(team),
            (Some(team), Some(_)) if self.teams[team].members_only => Err(Turned::NotOf(team)),
            (Some(team), None) if self.teams[team].members_only || !self.anonymous => Err(Turned::Login),
            (Some(team), _) => Ok(team),
            (None, Some(caller)) => match caller.teams.as_slice() {
                [] => Ok(0),
                [team] => Ok(*team),
                several => Err(Turned::Several(several.to_vec())),
            },
            (None, None) if self.anonymous => Ok(0),
            (None, None) => Err(Turned::Login),
        }
    }

    /// The place of the team of this name.
    pub(super) fn named(&self, name: &str) -> Option<usize> {
        self.teams.iter().position(|team| team.name.as_deref() == Some(name))
    }

    /// Lets a request in that is addressed so, and whose sender is known.
    pub(super) fn enter(&self, to: Address, caller: Option<Arc<Caller>>) -> Result<Entry, Box<Refusal>> {
        match self.decide(to.team, caller.as_deref()) {
            Ok(team) => Ok(Entry { team, begins: to.begins, caller }),
            Err(turned) => Err(Box::new(self.refusal(&turned))),
        }
    }

    fn refusal(&self, turned: &Turned) -> Refusal {
        let name = |place: usize| self.teams[place].name.as_deref().unwrap_or_default();
        match turned {
            Turned::Login => login("this needs a user and password, a token, or a client certificate"),
            Turned::NotOf(team) => {
                Refusal::new(StatusCode::FORBIDDEN, &format!("whoever asks is not of the team {:?}", name(*team)))
            }
            Turned::Several(teams) => {
                let ways = teams.iter().map(|team| match (&self.teams[*team].prefix, self.teams[*team].hosts.first()) {
                    (Some(prefix), _) => format!("/{prefix}/"),
                    (None, Some(host)) => host.clone(),
                    (None, None) => name(*team).to_owned(),
                });
                let ways = ways.collect::<Vec<_>>().join(", ");
                Refusal::new(StatusCode::FORBIDDEN, &format!("whoever asks is of several teams; ask one of them: {ways}"))
            }
        }
    }

    /// The address that a request comes from: its connection's, or where that is a trusted proxy's, whom that names.
    pub(super) fn address_of(&self, headers: &HeaderMap, peer: Option<SocketAddr>) -> IpAddr {
        let peer = peer.map_or(IpAddr::from([0, 0, 0, 0]), |peer| peer.ip().to_canonical());
        let trusted = |address: &IpAddr| self.trusted_proxies.iter().any(|net| net.contains(address));
        if !trusted(&peer) {
            return peer;
        }
        // From the right, each item was added by the one to its right. The first that is no proxy of ours is who asked; what stands
        // before that is its own word, and what cannot be read ends it.
        let fields: Vec<&[u8]> = headers.get_all(FORWARDED_FOR).map(HeaderValue::as_bytes).collect();
        let mut nearest = peer;
        for item in fields.iter().rev().flat_map(|field| field.rsplit(|b| *b == b',')) {
            let Some(address) = std::str::from_utf8(item).ok().and_then(forwarded) else { break };
            nearest = address;
            if !trusted(&address) {
                break;
            }
        }
        nearest
    }
}

/// An address as proxies write it, with a port or without.
fn forwarded(item: &str) -> Option<IpAddr> {
    let item = item.trim();
    let with_port = || item.parse::<SocketAddr>().ok().map(|address| address.ip());
    let in_brackets = || item.strip_prefix('[')?.strip_suffix(']')?.parse::<IpAddr>().ok();
    item.parse::<IpAddr>().ok().or_else(with_port).or_else(in_brackets).map(|address| address.to_canonical())
}

/// Who sends a request, as far as that is known without any work.
pub(super) fn sender(access: &Access, tls: Option<&Tls>, request: &Request, wire: &Wire) -> Sender {
    if access.settings().has_credentials()
        && let Some(authorization) = request.headers().get(AUTHORIZATION)
    {
        return access.recall(authorization.as_bytes()).map_or(Sender::Unknown, |caller| Sender::Known(Some(caller)));
    }
    // One that is not believed any more says nothing.
    let certificate = wire.certificate.as_ref().zip(tls);
    Sender::Known(certificate.and_then(|(certificate, tls)| tls.caller_of(certificate, &access.settings().certificates)))
}

/// The same, whatever work it takes.
pub(super) async fn find_sender(
    access: &Arc<Access>,
    request: &Request,
    from: IpAddr,
) -> Result<Option<Arc<Caller>>, (Box<Refusal>, Refused)> {
    let Some(authorization) = request.headers().get(AUTHORIZATION) else { return Ok(None) };
    let verdict = access.identify(authorization.as_bytes(), from).await;
    verdict.map(Some).map_err(|refused| (Box::new(refusal_of(&refused)), refused))
}

fn refusal_of(refused: &Refused) -> Refusal {
    match refused {
        Refused::Wrong(_) => login("a wrong user, password or token"),
        Refused::Unentitled(_) => Refusal::new(StatusCode::FORBIDDEN, "these credentials are good, but give no entrance here"),
        Refused::Limited(rest) => {
            Refusal::new(StatusCode::TOO_MANY_REQUESTS, "too many wrong credentials came from this address").after(*rest)
        }
        Refused::Unavailable(_) => {
            let soon = std::time::Duration::from_secs(5);
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "it cannot be said at the moment who asks").after(soon)
        }
    }
}

fn login(what: &str) -> Refusal {
    Refusal::new(StatusCode::UNAUTHORIZED, what)
}

/// The host that a request asks, without a port.
pub(super) fn host_of(request: &Request) -> &str {
    let by_header = || request.headers().get(HOST).and_then(|host| host.to_str().ok());
    let host = request.uri().host().or_else(by_header).unwrap_or_default();
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    }
}

/// Who a limit counts for: a caller who is known, else an address (of IPv6 the network that its holder has).
pub(super) fn client_of(caller: Option<&Caller>, address: IpAddr) -> super::limits::Client {
    match caller {
        Some(caller) => super::limits::Client::Caller(caller.how.name(), Arc::clone(&caller.name)),
        None => super::limits::Client::Address(network(address)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::How;
    use actix_http::Uri;

    fn doors(anonymous: bool) -> Doors {
        let door = |name: &str, prefix: Option<&str>, hosts: &[&str], members_only| Door {
            name: Some(name.into()),
            prefix: prefix.map(str::to_owned),
            hosts: hosts.iter().map(|&h| h.to_owned()).collect(),
            members_only,
        };
        let teams = vec![
            Door::default(),
            door("pay", Some("pay"), &["pay.example"], true),
            door("open", Some("o"), &[], false),
            door("maps", None, &["maps.example"], true),
        ];
        Doors { anonymous, teams, trusted_proxies: vec!["10.0.0.0/8".parse().expect("network")] }
    }

    fn caller(teams: &[usize]) -> Caller {
        Caller { name: "ann".into(), how: How::Password, teams: teams.to_vec(), expires: None }
    }

    type Decided = Result<usize, Turned>;

    #[test]
    fn who_is_answered_for_which_team() {
        use Turned::{Login, NotOf, Several};
        let (ann, bob, eve) = (caller(&[1]), caller(&[]), caller(&[1, 3]));
        let table: [(Option<usize>, Option<&Caller>, Decided, Decided); 14] = [
            // addressed, sender, where anybody may come in, where nobody may who is not known
            (None, None, Ok(0), Err(Login)),
            (None, Some(&ann), Ok(1), Ok(1)),
            (None, Some(&bob), Ok(0), Ok(0)),
            (None, Some(&eve), Err(Several(vec![1, 3])), Err(Several(vec![1, 3]))),
            (Some(1), None, Err(Login), Err(Login)),
            (Some(1), Some(&ann), Ok(1), Ok(1)),
            (Some(1), Some(&bob), Err(NotOf(1)), Err(NotOf(1))),
            (Some(1), Some(&eve), Ok(1), Ok(1)),
            (Some(3), Some(&ann), Err(NotOf(3)), Err(NotOf(3))),
            (Some(3), Some(&eve), Ok(3), Ok(3)),
            (Some(2), None, Ok(2), Err(Login)),
            (Some(2), Some(&ann), Ok(2), Ok(2)),
            (Some(2), Some(&bob), Ok(2), Ok(2)),
            (Some(2), Some(&eve), Ok(2), Ok(2)),
        ];
        for (addressed, sender, open, closed) in table {
            assert_eq!(doors(true).decide(addressed, sender), open, "{addressed:?} {sender:?}");
            assert_eq!(doors(false).decide(addressed, sender), closed, "{addressed:?} {sender:?}");
        }
    }

    #[test]
    fn addresses() {
        let doors = doors(true);
        let addressed = |uri: &str, host: &str| {
            let mut request = Request::new();
            request.head_mut().uri = uri.parse::<Uri>().expect("URI");
            request.head_mut().headers.insert(HOST, HeaderValue::from_str(host).expect("host"));
            let Address { team, begins } = doors.addressed(&request);
            (team, begins)
        };
        assert_eq!(addressed("/golang.org/x/mod/@v/list", "x.example"), (None, 0));
        assert_eq!(addressed("/pay/golang.org/x/mod/@v/list", "x.example"), (Some(1), 4));
        assert_eq!(addressed("/pay", "x.example"), (Some(1), 4));
        assert_eq!(addressed("/payments/x", "x.example"), (None, 0));
        assert_eq!(addressed("/PAY/x", "x.example"), (None, 0));
        assert_eq!(addressed("//pay/x", "x.example"), (None, 0));
        assert_eq!(addressed("/golang.org/x/mod/@v/list", "Pay.Example:8443"), (Some(1), 0));
        assert_eq!(addressed("/o/a.b/c", "maps.example"), (Some(2), 2), "the path counts more");
        assert_eq!(addressed("/a.b/c", "maps.example"), (Some(3), 0));
        assert_eq!(addressed("https://maps.example:443/a.b/c", "pay.example"), (Some(3), 0), "an absolute form counts");
    }

    #[test]
    fn whom_proxies_name() {
        let doors = doors(true);
        let from = |peer: &str, forwarded: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in forwarded {
                headers.append(FORWARDED_FOR, HeaderValue::from_bytes(value.as_bytes()).expect("a value"));
            }
            doors.address_of(&headers, Some(peer.parse().expect("address"))).to_string()
        };
        assert_eq!(from("192.0.2.1:5", &["198.51.100.7"]), "192.0.2.1", "a stranger's word counts for nothing");
        assert_eq!(from("10.0.0.1:5", &[]), "10.0.0.1");
        assert_eq!(from("10.0.0.1:5", &["198.51.100.7"]), "198.51.100.7");
        assert_eq!(from("[::ffff:10.0.0.1]:5", &["198.51.100.7"]), "198.51.100.7");
        assert_eq!(
            from("10.0.0.1:5", &["192.0.2.9, 198.51.100.7, 10.2.3.4"]),
            "198.51.100.7",
            "what stands before was the client's"
        );
        assert_eq!(from("10.0.0.1:5", &["192.0.2.9", "198.51.100.7"]), "198.51.100.7");
        assert_eq!(from("10.0.0.1:5", &["10.9.9.9, 10.2.3.4"]), "10.9.9.9");
        assert_eq!(from("10.0.0.1:5", &["nonsense"]), "10.0.0.1");
        assert_eq!(from("10.0.0.1:5", &["192.0.2.66, x, 198.51.100.7"]), "198.51.100.7", "the client's own word ends nothing");
        assert_eq!(from("10.0.0.1:5", &["192.0.2.66, x, 10.2.3.4"]), "10.2.3.4", "it is nobody's word what stands before nonsense");
        assert_eq!(from("10.0.0.1:5", &["\u{e9}, 198.51.100.7:4711"]), "198.51.100.7");
        assert_eq!(from("10.0.0.1:5", &["[2001:db8::1]:80", "[2001:db8::2]"]), "2001:db8::2");
    }
}
