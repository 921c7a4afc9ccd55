//! Credentials: where they come from, whom they go to, and that nothing which modgate prints has them.

use std::fs;

use crate::support::gate::{Gate, program, route, upstream};
use crate::support::http;
use crate::support::modules::Module;
use crate::support::proxy::{FakeProxy, Manner};
use crate::support::upstream::{Reply, Upstream};
use crate::support::{eventually, free_port};

const INFO: &str = "/example.com/m/@v/v1.0.0.info";

fn module() -> Module {
    Module::new("example.com/m", "v1.0.0")
}

/// The value of a header in the newest request that an upstream got.
fn sent(up: &Upstream, name: &str) -> Option<String> {
    let heads = up.heads();
    let mut lines = heads.last()?.lines().filter_map(|l| l.split_once(':'));
    lines.find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.trim().to_owned())
}

#[test]
fn they_come_from_files_and_the_environment_in_every_form() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
    let up = Upstream::serving(&[module()]);
    write("password", "open sesame\n");
    write("token", "t0ken");
    write("netrc", &format!("machine other login x password y\nmachine {} login me password open\n", up.address));
    write("key", "k3y\r\n");
    let variables =
        [("PASS", "open sesame"), ("MODGATE_UPSTREAMS__U__AUTH__PASSWORD", "0123\"5"), ("TOKEN", "t0ken"), ("EMPTY", "")];
    // The table, and the header that it makes. Basic is of "me:open sesame", "me:0123\"5", "me:open".
    let table = [
        ("username = \"me\", password_file = \"password\"", "authorization", "Basic bWU6b3BlbiBzZXNhbWU="),
        ("username = \"me\", password_env = \"PASS\"", "authorization", "Basic bWU6b3BlbiBzZXNhbWU="),
        ("username = \"me\"", "authorization", "Basic bWU6MDEyMyI1"),
        ("bearer_file = \"token\"", "authorization", "Bearer t0ken"),
        ("bearer_env = \"TOKEN\"", "authorization", "Bearer t0ken"),
        ("netrc_file = \"netrc\"", "authorization", "Basic bWU6b3Blbg=="),
        ("headers = { \"Private-Token\" = { file = \"key\" }, X-Tenant = \"a b\" }", "private-token", "k3y"),
        ("headers = { X-Tenant = \"a b\" }", "x-tenant", "a b"),
    ];
    for (auth, header, value) in table {
        // modgate's own variable for the password is there only where the table needs it.
        let own = auth == "username = \"me\"";
        let with: Vec<_> = variables.iter().copied().filter(|(n, _)| own || !n.starts_with("MODGATE")).collect();
        let folder = tempfile::tempdir().unwrap();
        for name in ["password", "token", "netrc", "key"] {
            fs::write(folder.path().join(name), fs::read(dir.path().join(name)).unwrap()).unwrap();
        }
        let text = upstream("u", &up.url(), &format!("auth = {{ {auth} }}")) + &route("*", &["u"], "");
        let gate = Gate::start_with(folder, &text, &with);
        assert_eq!(gate.get(INFO).status, 200);
        assert_eq!(sent(&up, header).as_deref(), Some(value), "{auth}");
    }
}

#[test]
fn a_redirect_that_leaves_the_origin_leaves_them_behind() {
    let (up, other) = (Upstream::start(), Upstream::serving(&[module()]));
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("token"), "t0ken").unwrap();
    let auth = "auth = { bearer_file = \"token\", headers = { \"Private-Token\" = \"k3y\" } }";
    let gate = Gate::start_in(folder, &(upstream("u", &up.url(), auth) + &route("*", &["u"], "")));
    let to = |url: String| Reply::Full(302, vec![("Location".into(), url)], Vec::new());
    // Within the origin they go along.
    up.set(INFO, to("/elsewhere".into()));
    up.set("/elsewhere", to(format!("{}{INFO}", other.url())));
    assert_eq!(gate.get(INFO).status, 200);
    assert_eq!((sent(&up, "authorization").as_deref(), sent(&up, "private-token").as_deref()), (Some("Bearer t0ken"), Some("k3y")));
    assert_eq!((sent(&other, "authorization"), sent(&other, "private-token")), (None, None));
    // And they do not come back with a redirect that comes back.
    let path = module().url("mod");
    up.set(&path, to(format!("{}/away", other.url())));
    other.set("/away", to(format!("{}/back", up.url())));
    up.set("/back", Reply::Good(module().go_mod.into_bytes()));
    assert_eq!(gate.get(&path).status, 200);
    assert!(up.heads().last().unwrap().starts_with("GET /back "));
    assert_eq!((sent(&up, "authorization"), sent(&up, "private-token")), (None, None));
}

#[test]
fn a_reload_reads_them_again() {
    let up = Upstream::serving(&[module()]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    fs::write(&file, "first").unwrap();
    let text = upstream("u", &up.url(), "auth = { bearer_file = \"token\" }") + &route("*", &["u"], "");
    let gate = Gate::start_in(folder, &text);
    gate.get("/example.com/a/@v/v1.0.0.info");
    assert_eq!(sent(&up, "authorization").as_deref(), Some("Bearer first"));
    fs::write(&file, "second").unwrap();
    gate.signal(rustix::process::Signal::HUP);
    eventually("the new configuration is in force", || gate.log().contains("is in force"));
    gate.get("/example.com/b/@v/v1.0.0.info");
    assert_eq!(sent(&up, "authorization").as_deref(), Some("Bearer second"));
    // One that cannot be read keeps the old one.
    fs::remove_file(&file).unwrap();
    gate.signal(rustix::process::Signal::HUP);
    eventually("the log says so", || gate.log().contains("the old one stays"));
    gate.get("/example.com/c/@v/v1.0.0.info");
    assert_eq!(sent(&up, "authorization").as_deref(), Some("Bearer second"));
}

#[test]
fn a_reload_that_changes_nothing_of_an_upstream_keeps_its_limits() {
    let up = Upstream::start();
    let limit = "rate_limit = { requests = 2, per = \"1h\", max_wait = \"0\" }";
    let text = upstream("u", &up.url(), limit) + &route("*", &["u"], "");
    let gate = Gate::start(&text);
    gate.get("/example.com/a/@v/v1.0.0.info");
    for n in 0..3 {
        gate.signal(rustix::process::Signal::HUP);
        eventually("it is in force", || gate.log().matches("is in force").count() == n + 1);
        gate.get(&format!("/example.com/b{n}/@v/v1.0.0.info"));
    }
    assert_eq!(up.asked().len(), 2);
}

/// Every secret of the test below in every form that could be printed: as it is, and as HTTP's Basic scheme has it.
const SECRETS: [&str; 10] = [
    "pa55-of-auth",
    "cGE1NS1vZi1hdXRo",
    "bWU6cGE1NS1vZi1hdXRo",
    "t0ken-of-bearer",
    "k3y-of-header",
    "pa55-of-proxy",
    "bWU6cGE1NS1vZi1wcm94eQ",
    "pa55-of-netrc",
    "bWU6cGE1NS1vZi1uZXRyYw",
    "query-of-redirect",
];

#[test]
fn nothing_that_is_printed_has_them() {
    let dir = tempfile::tempdir().unwrap();
    let proxy = FakeProxy::start(Manner::Leads);
    let refusing = FakeProxy::start(Manner::Says("HTTP/1.1 407 X\r\nContent-Length: 0\r\n\r\n".into()));
    let modules: Vec<Module> =
        ["a", "b", "c", "d", "e", "f"].iter().map(|n| Module::new(&format!("{n}.example/m"), "v1.0.0")).collect();
    let up = Upstream::serving(&modules);
    let away = Reply::Full(
        302,
        vec![("Location".into(), format!("http://127.0.0.1:{}/x?sig=query-of-redirect", free_port()))],
        Vec::new(),
    );
    up.set("/f.example/m/@v/v1.0.0.mod", away);
    for (name, text) in [
        ("pass", "pa55-of-auth"),
        ("token", "t0ken-of-bearer"),
        ("key", "k3y-of-header"),
        ("proxypass", "pa55-of-proxy"),
        ("netrc", &format!("machine {} login me password pa55-of-netrc", up.address)),
    ] {
        fs::write(dir.path().join(name), text).unwrap();
    }
    let named = up.url().replace("127.0.0.1", "mod.test");
    let at = |p: &FakeProxy| p.address.clone();
    let text = "[log]\nlevel = \"trace\"\n".to_owned()
        + &upstream("a", &up.url(), "auth = { username = \"me\", password_file = \"pass\" }")
        + &upstream(
            "b",
            &named,
            &format!("auth = {{ bearer_file = \"token\" }}\nproxy = \"http://me:pa55-of-proxy@{}\"", at(&proxy)),
        )
        + &upstream(
            "c",
            "https://mod.test",
            &format!(
                "proxy = \"http://{}\"\nproxy_auth = {{ username = \"me\", password_file = \"proxypass\" }}\nretries = 1",
                at(&refusing)
            ),
        )
        + &upstream("d", &up.url(), "auth = { netrc_file = \"netrc\" }")
        + &upstream(
            "e",
            &named,
            &format!(
                "auth = {{ headers = {{ Private-Token = {{ file = \"key\" }} }} }}\nproxy = \"http://me:pa55-of-proxy@{}\"",
                at(&refusing)
            ),
        )
        + &upstream("f", &up.url(), "auth = { bearer_env = \"TOKEN\" }")
        + &["a", "b", "c", "d", "e", "f"].map(|n| route(&format!("{n}.example"), &[n], "")).concat();
    let mut gate = Gate::start_with(dir, &text, &[("TOKEN", "t0ken-of-bearer")]);
    let mut printed = String::new();
    for module in &modules {
        for part in ["info", "mod", "zip"] {
            printed.push_str(&gate.get(&module.url(part)).text());
        }
        printed += &gate.get(&format!("/{}/@v/list", module.path)).text();
        printed += &http::get(&gate.admin, &format!("/-/explain?module={}@v1.9.0", module.path)).text();
    }
    gate.signal(rustix::process::Signal::HUP);
    eventually("it was read again", || gate.log().contains("is in force"));
    for arguments in
        [&["check", "--probe"][..], &["check"], &["explain", "c.example/m@v1.2.0"], &["explain", "--json", "e.example/m"]]
    {
        let mut command = program();
        command
            .arg("--config")
            .arg(gate.dir.path().join("modgate.toml"))
            .env("TOKEN", "t0ken-of-bearer")
            .env("HOME", gate.dir.path());
        let output = command.args(arguments).output().unwrap();
        printed += &(String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr));
    }
    gate.stop();
    printed += &gate.log();
    assert!(printed.contains("407 Proxy Authentication Required") && printed.contains("with credentials"), "{printed}");
    assert!(printed.contains("TRACE") && printed.len() > 20_000, "{}", printed.len());
    for secret in SECRETS {
        let at = printed.find(secret);
        assert!(at.is_none(), "{secret} was printed: {}", &printed[at.unwrap_or(0).saturating_sub(200)..][..300]);
    }
    // They were sent, though.
    let heads = up.heads().concat() + &proxy.asked().concat() + &refusing.asked().concat();
    for sent in ["bWU6cGE1NS1vZi1hdXRo", "t0ken-of-bearer", "bWU6cGE1NS1vZi1wcm94eQ", "bWU6cGE1NS1vZi1uZXRyYw", "k3y-of-header"] {
        assert!(heads.contains(sent), "{sent} was not sent");
    }
}

#[test]
fn mistakes_are_said_all_at_once_and_without_the_secret() {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in [("two-lines", "one\ntwo-s3cret"), ("empty", "\n"), ("netrc", "machine other login a password s3cret")] {
        fs::write(dir.path().join(name), text).unwrap();
    }
    let entry = |n: usize, more: &str| format!("[upstreams.u{n}]\ntype = \"goproxy\"\nurl = \"https://u{n}.example\"\n{more}\n");
    // Each mistake on the fourth line of its table, and the words that name it.
    let table = [
        ("auth = { username = \"a\", password = \"s3cret\" }", "auth.password: a secret does not stand in a configuration file"),
        ("auth = { username = \"a\", password_file = \"missing\" }", "auth.password_file: "),
        ("auth = { username = \"a\", password_file = \"two-lines\" }", "more than one line"),
        ("auth = { username = \"a\", password_file = \"empty\" }", "is empty"),
        ("auth = { username = \"a:b\", password_env = \"S\" }", "cannot hold a colon"),
        ("auth = { bearer_env = \"NOT_THERE\" }", "no variable \"NOT_THERE\""),
        ("auth = { netrc_file = \"netrc\" }", "has no entry for this upstream's host"),
        ("auth = { username = \"a\", password_env = \"S\", bearer_env = \"S\" }", "has to be one of"),
        ("auth = {}", "names no credentials"),
        ("auth = { tokn = \"s3cret\" }", "auth.tokn: unknown key"),
        ("auth = { headers = { Host = \"x\" } }", "modgate's own"),
        ("auth = { headers = { \"bad name\" = \"x\" } }", "not the name of a header"),
        ("proxy = \"ftp://me:s3cret@p\"", "proxy: a proxy's URL begins with"),
        ("proxy = \"http://me:s3cret@p:port\"", "proxy: not the URL of a proxy"),
        ("proxy = \"p:3128\"", "proxy: has to be"),
        ("no_proxy = [\"10.0.0.0/40\"]", "no_proxy[0]: \"10.0.0.0/40\" is no network"),
        ("proxy_auth = { username = \"a\", password_env = \"S\" }", "belongs to a proxy that is named"),
        ("proxy = \"http://me:s3cret@p\"\nproxy_auth = { username = \"a\", password_env = \"S\" }", "names a user already"),
        ("rate_limit = { per = \"1s\" }", "rate_limit: has no requests"),
        ("rate_limit = { requests = 0 }", "rate_limit.requests: has to be a whole number"),
        ("retries = 11", "retries: has to be a whole number from 0 to 10"),
        ("max_concurrent = 0", "max_concurrent: has to be"),
        ("rate_limit = { requests = 1, per = \"10h\", burst = 1000000 }", "takes more than a century"),
        ("rate_limit = { requests = 10, per = \"1ns\" }", "which is no limit"),
        ("proxy = \"socks5://me@p\"", "SOCKS carries users and passwords of 1 to 255 bytes"),
        ("auth = { bearer_env = \"S\", headers = { Authorization = \"x\" } }", "stands beside a login"),
        ("auth = { headers = { Expect = \"x\" } }", "modgate's own"),
        ("tls = { ca_file = \"/dev/null\" }", "it is no file"),
    ];
    let mut text = String::new();
    for (n, (more, _)) in table.iter().enumerate() {
        text += &entry(n, more);
    }
    let names: Vec<String> = (0..table.len()).map(|n| format!("u{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    text += &route("*", &names, "hedge_after = \"0\"");
    fs::write(dir.path().join("m.toml"), text).unwrap();
    let mut command = program();
    command.arg("check").arg("--config").arg(dir.path().join("m.toml")).env("HOME", dir.path()).env("S", "s3cret");
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    for (n, (_, wanted)) in table.iter().enumerate() {
        let line = said.lines().find(|l| l.contains(&format!("upstreams.u{n}.")) && l.contains(wanted));
        assert!(line.is_some_and(|l| l.contains("m.toml:")), "u{n}, {wanted:?} is missing in:\n{said}");
    }
    assert!(said.contains("hedge_after: has to be more than nothing") && !said.contains("s3cret"), "{said}");
}

#[test]
fn a_password_in_clear_is_warned_about() {
    let up = Upstream::start();
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("token"), "t").unwrap();
    let text = upstream("u", &up.url(), "auth = { bearer_file = \"token\" }\nmax_wait = \"1s\"") + &route("*", &["u"], "");
    let gate = Gate::start_in(folder, &text);
    eventually("the warning", || gate.log().contains("upstreams.u.auth: the credentials cross the network unencrypted"));
}
