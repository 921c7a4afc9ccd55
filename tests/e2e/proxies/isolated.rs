//! modgate where there is no way out but a proxy: a network namespace with one link, to the proxy's address, without a default
//! route and without a name server. Whatever leaks past the proxy fails here.

use crate::daemons::{dante, squid};
use crate::helpers::public_proxy;
use crate::namespace::{Inside, Namespace};
use crate::support::gate::{route, upstream};
use crate::support::{eventually, http};

use super::{SMALL, SMALL_INFO, public_authority, public_host};

/// An upstream for everything: the machine's module proxy, through what the test says.
fn public(proxy: &str) -> String {
    upstream("public", &public_proxy(), &format!("proxy = {proxy:?}\nretries = 2\n")) + &route("*", &["public"], "")
}

/// The real go command gets a module through a modgate inside, both being shut in.
fn go_gets_the_small_module(inside: &Inside<'_>) {
    let (succeeded, said) = inside.go(&inside.url(), &["mod", "download", "-json", SMALL]);
    assert!(succeeded && said.contains("\"Zip\""), "{said}\n{}", inside.log());
}

/// What modgate says of a request that cannot succeed.
fn failure(inside: &Inside<'_>) -> String {
    let answer = http::get(inside.address(), SMALL_INFO);
    assert_eq!(answer.status, 502, "{}", answer.text());
    let (succeeded, said) = inside.go(&inside.url(), &["mod", "download", SMALL]);
    assert!(!succeeded && said.contains("modgate: "), "{said}");
    answer.text()
}

#[test]
fn only_the_proxy_leads_out_of_the_namespace() {
    let namespace = Namespace::make();
    // The namespace holds: neither the go command nor modgate without a proxy can get out.
    let bare = namespace.modgate(Some(&public("none")), &[]);
    let (succeeded, said) = bare.go(&public_proxy(), &["mod", "download", SMALL]);
    assert!(!succeeded, "the namespace has another way out: {said}");
    let said = failure(&bare);
    assert!(said.contains(&format!("cannot resolve {}", public_host())), "{said}");
    drop(bare);

    let squid = squid(namespace.host(), "http_access allow all");
    let through_squid = namespace.modgate(Some(&public(&squid.url("http"))), &[]);
    go_gets_the_small_module(&through_squid);
    // Squid writes of a tunnel when it is closed.
    drop(through_squid);
    squid.logs(&format!("- CONNECT {} 200", public_authority()));
}

#[test]
fn socks5h_leaves_the_name_to_dante_and_socks5_cannot() {
    let namespace = Namespace::make();
    let dante = dante(namespace.host(), &public_host(), false);
    let by_name = namespace.modgate(Some(&public(&dante.url("socks5h"))), &[]);
    go_gets_the_small_module(&by_name);
    dante.logs("tcp/connect [");
    drop(by_name);

    let before = dante.log().matches("tcp/connect [").count();
    let by_address = namespace.modgate(Some(&public(&dante.url("socks5"))), &[]);
    let said = failure(&by_address);
    assert!(said.contains(&format!("cannot resolve {}", public_host())), "{said}");
    assert_eq!(dante.log().matches("tcp/connect [").count(), before, "dante was to lead somewhere: {}", dante.log());
}

#[test]
fn the_environment_names_the_proxy_with_and_without_a_configuration() {
    let namespace = Namespace::make();
    let squid = squid(namespace.host(), "http_access allow all");
    let (proxy, public_url) = (squid.url("http"), public_proxy());
    let configured = public("env");
    let cases = [
        (Some(configured.as_str()), vec![("HTTPS_PROXY", proxy.as_str())]),
        (Some(&configured), vec![("all_proxy", &proxy)]),
        (None, vec![("GOPROXY", &public_url), ("HTTPS_PROXY", &proxy)]),
        // As Go has it, a proxy without a scheme is one of http.
        (None, vec![("GOPROXY", &public_url), ("https_proxy", &squid.address), ("NO_PROXY", "example.com,localhost")]),
    ];
    for (config, variables) in cases {
        let before = squid.log().lines().count();
        let inside = namespace.modgate(config, &variables);
        go_gets_the_small_module(&inside);
        drop(inside);
        let line = format!("- CONNECT {} 200", public_authority());
        eventually("squid writes of the tunnel", || squid.log().lines().skip(before).any(|l| l == line));
    }
    // NO_PROXY is heeded: the way it spares the proxy leads nowhere.
    let spared = namespace.modgate(None, &[("GOPROXY", &public_url), ("HTTPS_PROXY", &proxy), ("NO_PROXY", &public_host())]);
    let said = failure(&spared);
    assert!(said.contains(&format!("cannot resolve {}", public_host())), "{said}");
}
