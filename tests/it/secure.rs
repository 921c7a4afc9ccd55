//! TLS at the listener: HTTP/1.1 and HTTP/2 give the same, certificates are changed under connections that go on, client certificates
//! are people, and what misbehaves there holds up nobody.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::support::eventually;
use crate::support::gate::{Gate, route, upstream};
use crate::support::http;
use crate::support::modules::Module;
use crate::support::people::{bearer, token};
use crate::support::secure::{Client, ask1, ask2};
use crate::support::tls::{Authority, Certified, Validity};
use crate::support::upstream::{Reply, Upstream};

const BOTH: &[&str] = &["h2", "http/1.1"];

/// A folder with a server's certificate, and one for those of clients.
fn folder(server: &Authority, clients: &Authority) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), &server.server(&["localhost"]));
    fs::write(dir.path().join("clients.pem"), clients.pem()).unwrap();
    dir
}

fn put(dir: &Path, certified: &Certified) {
    fs::write(dir.join("tls.pem"), &certified.pem).unwrap();
    fs::write(dir.join("tls.key"), &certified.key_pem).unwrap();
}

fn text(up: &Upstream, more: &str) -> String {
    let tls = "# [server] tls = { cert_file = \"tls.pem\", key_file = \"tls.key\", client_ca_file = \"clients.pem\" }\n";
    format!("{tls}{more}{}{}", upstream("u", &up.url(), "private = true\n"), route("*", &["u"], ""))
}

fn open(up: &Upstream) -> (Gate, Authority) {
    let authority = Authority::new("servers");
    let dir = folder(&authority, &Authority::new("clients"));
    (Gate::start_in(dir, &text(up, "[auth]\nanonymous = true\n")), authority)
}

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

fn large() -> Module {
    Module::new("example.com/large", "v1.0.0").bulk(5 << 20)
}

#[test]
fn both_versions_of_http_give_what_plain_http_gives() {
    let small = Module::new("example.com/m", "v1.0.0");
    let up = Upstream::serving(&[small.clone(), large()]);
    let (gate, authority) = open(&up);
    let client = Client::new(&authority, None, BOTH);
    let old = Client::new(&authority, None, &["http/1.1"]);
    run(async {
        let two = client.connect2(&gate.address).await;
        let mut one = old.connect(&gate.address).await.unwrap();
        for round in 0..3 {
            for (path, wanted) in [
                (small.url("info"), small.info()),
                (small.url("mod"), small.go_mod.clone().into_bytes()),
                (small.url("zip"), small.zip()),
                (large().url("zip"), large().zip()),
                ("/example.com/m/@v/list".to_owned(), b"v1.0.0\n".to_vec()),
            ] {
                let answer = ask2(&two, "GET", &path, &[]).await.unwrap();
                assert_eq!((answer.status, answer.broken.is_none()), (200, true), "{path}");
                assert!(answer.body == wanted, "{path} in round {round}");
                let length = answer.headers.get("content-length").map(|n| n.to_str().unwrap().to_owned());
                if round > 0 {
                    assert_eq!(length, Some(wanted.len().to_string()), "{path}");
                }
                assert!(answer.headers.contains_key("date") && answer.headers.contains_key("x-request-id"));
                let (status, _, body) = ask1(&mut one, &path, &[]).await;
                assert!(status == 200 && body == wanted, "{path}");
                let head = ask2(&two, "HEAD", &path, &[]).await.unwrap();
                assert_eq!((head.status, head.body.len()), (200, 0), "{path}");
                assert_eq!(head.headers.get("content-length").unwrap().to_str().unwrap(), wanted.len().to_string(), "{path}");
            }
            eventually("the zip is stored", || gate.cache("u").join(&large().url("zip")[1..]).is_file());
        }
        // Conditions and ranges.
        let whole = ask2(&two, "GET", &large().url("zip"), &[]).await.unwrap();
        let tag = whole.headers.get("etag").unwrap().to_str().unwrap().to_owned();
        let same = ask2(&two, "GET", &large().url("zip"), &[("if-none-match", &tag)]).await.unwrap();
        assert_eq!((same.status, same.body.len()), (304, 0));
        let part = ask2(&two, "GET", &large().url("zip"), &[("range", "bytes=1000000-3000000")]).await.unwrap();
        assert!(part.status == 206 && part.body == large().zip()[1_000_000..=3_000_000]);
        let (status, _, body) = ask1(&mut one, &large().url("zip"), &[("Range", "bytes=-70000")]).await;
        let zip = large().zip();
        assert!(status == 206 && body == zip[zip.len() - 70_000..]);
    });
    for part in ["info", "mod", "zip"] {
        assert_eq!(up.count(&small.url(part)), 1, "{part}");
    }
}

#[test]
fn errors_and_bad_requests_over_http_2() {
    let up = Upstream::start();
    let (gate, authority) = open(&up);
    run(async {
        let two = Client::new(&authority, None, BOTH).connect2(&gate.address).await;
        for (method, path, wanted) in [
            ("GET", "/example.com/m/@v/list".to_owned(), 404),
            ("GET", "/example.com/../m/@v/list".to_owned(), 400),
            ("GET", "/example.com/m/@v/%00.info".to_owned(), 400),
            ("POST", "/example.com/m/@v/list".to_owned(), 405),
            ("GET", format!("/{}/@v/list", "x".repeat(5000)), 414),
            ("GET", "/-/explain?module=example.com/m".to_owned(), 404),
        ] {
            let answer = ask2(&two, method, &path, &[]).await.unwrap();
            assert_eq!(answer.status, wanted, "{method} {path}");
            assert!(answer.body.starts_with(b"modgate: "), "{path}");
        }
        // What comes with a question keeps nobody from its answer.
        for (method, wanted) in [("POST", 405), ("GET", 404)] {
            let mut sending = two.clone().ready().await.unwrap();
            let request = ::http::Request::builder().method(method).uri("https://localhost/example.com/m/@v/list");
            let (response, mut stream) = sending.send_request(request.body(()).unwrap(), false).unwrap();
            let piece = vec![b'x'; 60_000];
            for n in 0..5 {
                stream.reserve_capacity(piece.len());
                let room = std::future::poll_fn(|cx| stream.poll_capacity(cx));
                if tokio::time::timeout(Duration::from_secs(10), room).await.unwrap().is_none() {
                    break;
                }
                stream.send_data(piece.clone().into(), n == 4).unwrap();
            }
            assert_eq!(response.await.unwrap().status(), wanted, "{method}");
        }
        let huge = "x".repeat(40_000);
        // Either the frames' own bound or ours says no; the connection's other streams are none of its business.
        let refused = ask2(&two, "GET", "/example.com/m/@v/list", &[("x-huge", &huge)]).await;
        assert!(refused.is_err() || refused.unwrap().status == 431);
        let two = Client::new(&authority, None, BOTH).connect2(&gate.address).await;
        assert_eq!(ask2(&two, "GET", "/example.com/n/@v/list", &[]).await.unwrap().status, 404);
    });
}

#[test]
fn a_zip_streams_and_one_that_breaks_off_is_never_taken_for_whole() {
    let up = Upstream::start();
    let (slow, cut) =
        (Module::new("example.com/slow", "v1.0.0").bulk(2 << 20), Module::new("example.com/cut", "v1.0.0").bulk(2 << 20));
    up.set(&slow.url("zip"), Reply::Slow(slow.zip(), 200_000, Duration::from_millis(100)));
    up.set(&cut.url("zip"), Reply::Reset(cut.zip(), 1 << 20));
    let (gate, authority) = open(&up);
    run(async {
        let two = Client::new(&authority, None, BOTH).connect2(&gate.address).await;
        let started = Instant::now();
        let request = ::http::Request::get(format!("https://localhost{}", slow.url("zip")));
        let mut sending = two.clone().ready().await.unwrap();
        let (response, _) = sending.send_request(request.body(()).unwrap(), true).unwrap();
        let mut stream = response.await.unwrap().into_body();
        assert!(stream.data().await.unwrap().is_ok());
        assert!(started.elapsed() < Duration::from_millis(800), "the first bytes come while the rest is still coming");
        // Whoever goes away takes nothing along.
        drop(stream);
        let whole = ask2(&two, "GET", &slow.url("zip"), &[]).await.unwrap();
        assert!(whole.body == slow.zip() && whole.broken.is_none());
        let broken = ask2(&two, "GET", &cut.url("zip"), &[]).await.unwrap();
        assert!(broken.broken.is_some() && broken.body.len() <= 1 << 20, "{:?}", broken.broken);
        let mut one = Client::new(&authority, None, &["http/1.1"]).connect(&gate.address).await.unwrap();
        let broken = tokio::spawn(async move { ask1(&mut one, "/example.com/cut/@v/v1.0.0.zip", &[]).await });
        let broken = broken.await;
        assert!(broken.is_err() || broken.unwrap().0 != 200);
        assert_eq!(ask2(&two, "GET", "/example.com/none/@v/list", &[]).await.unwrap().status, 404, "the connection goes on");
    });
    assert_eq!(up.count(&slow.url("zip")), 1);
}

#[test]
fn no_odd_path_leads_into_another_teams_memory() {
    let secret = Module::new("corp.example/secret", "v1.0.0");
    let up = Upstream::serving(std::slice::from_ref(&secret));
    let authority = Authority::new("servers");
    let dir = folder(&authority, &Authority::new("clients"));
    let token = token(&dir.path().join("tokens"), "ci");
    let gate = Gate::start_in(dir, &text(&up, "[auth]\nanonymous = true\n[teams.a]\nprefix = \"a\"\ntokens_file = \"tokens\"\n"));
    // What is asked here is everybody's too; so it is what a team alone has asked that must not come out of its memory.
    run(async {
        let client = Client::new(&authority, None, BOTH);
        let member = client.connect2(&gate.address).await;
        let authorization = bearer(&token);
        for part in ["info", "mod", "zip"] {
            for _ in 0..3 {
                let path = format!("/a{}", secret.url(part));
                let answer = ask2(&member, "GET", &path, &[("authorization", &authorization)]).await.unwrap();
                assert_eq!(answer.status, 200);
            }
        }
        let asked = up.asked().len();
        let outsider = client.connect2(&gate.address).await;
        for part in ["info", "mod", "zip"] {
            for odd in ["1", "1 ", "%31", "0", "a", ""] {
                let path = format!("{odd}{}", secret.url(part));
                let path = if odd.is_empty() { path[1..].to_owned() } else { path };
                // A client's library may refuse to say such a thing; then it cannot ask it.
                let Ok(path) = ::http::uri::PathAndQuery::try_from(path) else { continue };
                let mut parts = ::http::uri::Parts::default();
                parts.scheme = Some(::http::uri::Scheme::HTTPS);
                parts.authority = Some(::http::uri::Authority::from_static("localhost"));
                parts.path_and_query = Some(path.clone());
                let Ok(uri) = ::http::Uri::from_parts(parts) else { continue };
                let mut sending = outsider.clone().ready().await.unwrap();
                let request = ::http::Request::get(uri).body(()).unwrap();
                let Ok((response, _)) = sending.send_request(request, true) else { continue };
                let status = response.await.map_or(0, |response| response.status().as_u16());
                assert!(matches!(status, 0 | 400), "{path}: {status}");
            }
        }
        assert_eq!(up.asked().len(), asked);
    });
}

#[test]
fn who_goes_away_before_the_answer_leaves_a_trace() {
    let up = Upstream::always(Reply::Hang);
    let authority = Authority::new("servers");
    let dir = folder(&authority, &Authority::new("clients"));
    token(&dir.path().join("tokens"), "ci");
    let more = "[audit]\nfile = \"audit.jsonl\"\n[auth]\nanonymous = true\ntokens_file = \"tokens\"\n";
    let gate = Gate::start_in(dir, &text(&up, more));
    run(async {
        let two = Client::new(&authority, None, BOTH).connect2(&gate.address).await;
        let guess = bearer("guess");
        for headers in [&[][..], &[("authorization", guess.as_str())]] {
            let asking = ask2(&two, "GET", "/example.com/m/@v/v1.0.0.zip", headers);
            assert!(tokio::time::timeout(Duration::from_millis(150), asking).await.is_err(), "it is given up");
        }
    });
    let written = || fs::read_to_string(gate.dir.path().join("audit.jsonl")).unwrap_or_default();
    eventually("both are written down", || written().matches("\"status\":499").count() == 2);
    let log = gate.log();
    assert!(log.contains("the client went away before there was an answer") && log.contains("wrong credentials"), "{log}");
}

#[test]
fn many_streams_at_once_and_no_more_than_that() {
    let up = Upstream::always(Reply::Hang);
    up.set("/example.com/m/@v/list", Reply::Good(b"v1.0.0\n".to_vec()));
    let (gate, authority) = open(&up);
    run(async {
        let client = Client::new(&authority, None, BOTH);
        let two = client.connect2(&gate.address).await;
        let mut hanging = Vec::new();
        for n in 0..120 {
            let two = two.clone();
            hanging
                .push(tokio::spawn(async move { ask2(&two, "GET", &format!("/example.com/hang{n}/@v/list"), &[]).await.is_ok() }));
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(ask2(&two, "GET", "/example.com/m/@v/list", &[]).await.unwrap().body, b"v1.0.0\n");
        for task in hanging {
            task.abort();
        }
        // Streams that are given up give their place back.
        for _ in 0..300 {
            assert_eq!(ask2(&two, "GET", "/example.com/m/@v/list", &[]).await.unwrap().status, 200);
        }
    });
}

#[test]
fn a_new_certificate_disturbs_no_connection() {
    let module = Module::new("example.com/m", "v1.0.0");
    let up = Upstream::serving(std::slice::from_ref(&module));
    let (gate, authority) = open(&up);
    let other = Authority::new("other servers");
    run(async {
        let client = Client::new(&authority, None, BOTH);
        let (two, mut one) =
            (client.connect2(&gate.address).await, Client::new(&authority, None, &[]).connect(&gate.address).await.unwrap());
        assert_eq!(ask2(&two, "GET", &module.url("mod"), &[]).await.unwrap().status, 200);
        put(gate.dir.path(), &other.server(&["localhost"]));
        gate.signal(Signal::HUP);
        eventually("it is read again", || gate.log().contains("is in force"));
        assert!(Client::new(&other, None, BOTH).connect(&gate.address).await.is_ok(), "the new one is shown");
        assert!(client.connect(&gate.address).await.is_err(), "the old one is not shown any more");
        assert_eq!(ask2(&two, "GET", &module.url("info"), &[]).await.unwrap().status, 200);
        assert_eq!(ask1(&mut one, &module.url("zip"), &[]).await.0, 200);
        // A key that is not the certificate's changes nothing.
        fs::write(gate.dir.path().join("tls.key"), other.server(&["localhost"]).key_pem).unwrap();
        gate.signal(Signal::HUP);
        eventually("the log says so", || gate.log().contains("server.tls.cert_file"));
        assert!(Client::new(&other, None, BOTH).connect(&gate.address).await.is_ok());
    });
}

#[test]
fn client_certificates_are_people() {
    let module = Module::new("pay.example/m", "v1.0.0");
    let up = Upstream::serving(std::slice::from_ref(&module));
    let (servers, clients, strangers) = (Authority::new("servers"), Authority::new("clients"), Authority::new("strangers"));
    let teams = "[teams.pay]\ncertificates = [\"CN=a client\"]\n[teams.maps]\nprefix = \"maps\"\ncertificates = [\"OU=maps\"]\n";
    let gate = Gate::start_in(folder(&servers, &clients), &text(&up, teams));
    run(async {
        let status = async |certified: Option<&Certified>, protocols: &[&str]| {
            let client = Client::new(&servers, certified, protocols);
            if protocols.is_empty() {
                // A certificate that is not believed ends a connection of TLS 1.3 after the client's last word.
                let Ok(mut io) = client.connect(&gate.address).await else { return 0 };
                let asked = tokio::spawn(async move { ask1(&mut io, "/pay.example/m/@v/list", &[]).await.0 });
                return asked.await.unwrap_or(0);
            }
            let io = client.connect2(&gate.address).await;
            ask2(&io, "GET", "/pay.example/m/@v/list", &[]).await.map_or(0, |answer| answer.status)
        };
        let good = clients.client(Validity::Now);
        for protocols in [&[][..], BOTH] {
            assert_eq!(status(Some(&good), protocols).await, 200);
            assert_eq!(status(None, protocols).await, 401);
            for bad in [clients.client(Validity::Past), clients.client(Validity::Future), strangers.client(Validity::Now)] {
                assert_eq!(status(Some(&bad), protocols).await, 0, "the handshake fails");
            }
            assert_eq!(status(Some(&clients.server(&["localhost"])), protocols).await, 0, "it is not for clients");
        }
        // Of one team, and not of the other. A connection that goes on is asked again when the authorities change.
        let two = Client::new(&servers, Some(&good), BOTH).connect2(&gate.address).await;
        let mut one = Client::new(&servers, Some(&good), &[]).connect(&gate.address).await.unwrap();
        assert_eq!(ask2(&two, "GET", "/pay.example/m/@v/list", &[]).await.unwrap().status, 200);
        assert_eq!(ask2(&two, "GET", "/maps/pay.example/m/@v/list", &[]).await.unwrap().status, 403);
        assert_eq!(ask1(&mut one, "/pay.example/m/@v/list", &[]).await.0, 200);
        fs::write(gate.dir.path().join("clients.pem"), strangers.pem()).unwrap();
        gate.signal(Signal::HUP);
        eventually("they are other authorities now", || gate.log().contains("is in force"));
        let refused = ask2(&two, "GET", "/pay.example/m/@v/list", &[]).await.unwrap();
        assert_eq!((refused.status, ask1(&mut one, "/pay.example/m/@v/list", &[]).await.0), (401, 401));
        assert_eq!(status(Some(&strangers.client(Validity::Now)), BOTH).await, 200);
    });
}

#[test]
fn who_says_nothing_or_nonsense_holds_up_nobody() {
    let module = Module::new("example.com/m", "v1.0.0");
    let up = Upstream::serving(std::slice::from_ref(&module));
    let (gate, authority) = open(&up);
    // Silent ones, halves of a hello, noise, and plain HTTP.
    let mut held: Vec<TcpStream> = (0..50).map(|_| TcpStream::connect(&gate.address).unwrap()).collect();
    for (n, stream) in held.iter_mut().enumerate() {
        let _ = match n % 3 {
            0 => Ok(()),
            1 => stream.write_all(b"\x16\x03\x01\x02\x00\x01\x00"),
            _ => stream.write_all(&[0x16, 0xff, 0xff, 0xff, 0xff, 1, 2, 3]),
        };
    }
    let plain = http::get(&gate.address, "/example.com/m/@v/list");
    assert_eq!((plain.status, plain.whole), (400, true));
    assert_eq!(plain.text(), "modgate: this port speaks TLS; ask by an https:// URL\n");
    let started = Instant::now();
    run(async {
        let two = Client::new(&authority, None, BOTH).connect2(&gate.address).await;
        assert_eq!(ask2(&two, "GET", &module.url("mod"), &[]).await.unwrap().status, 200);
        // TLS to a port without it fails at once.
        let plain = Gate::start(&(upstream("u", &up.url(), "") + &route("*", &["u"], "")));
        assert!(Client::new(&authority, None, BOTH).connect(&plain.address).await.is_err());
        assert_eq!(plain.get(&module.url("mod")).status, 200);
    });
    assert!(started.elapsed() < Duration::from_secs(5));
    // The silent ones are let go when their time is over.
    thread::scope(|scope| {
        for stream in &mut held {
            scope.spawn(|| {
                stream.set_read_timeout(Some(Duration::from_secs(25))).unwrap();
                let mut rest = Vec::new();
                let ended = stream.read_to_end(&mut rest);
                assert!(ended.is_ok() || ended.unwrap_err().kind() == std::io::ErrorKind::ConnectionReset);
            });
        }
    });
}

#[test]
fn a_stop_lets_streams_finish_and_tells_idle_connections() {
    let up = Upstream::start();
    up.set(&large().url("zip"), Reply::Slow(large().zip(), 500_000, Duration::from_millis(100)));
    let (mut gate, authority) = open(&up);
    let address = gate.address.clone();
    let asker = thread::spawn(move || {
        let mut got = None;
        run(async {
            let client = Client::new(&authority, None, BOTH);
            let _idle = client.connect2(&address).await;
            let two = client.connect2(&address).await;
            got = Some(ask2(&two, "GET", &large().url("zip"), &[]).await.unwrap());
        });
        got.unwrap()
    });
    eventually("it is being fetched", || up.count(&large().url("zip")) == 1);
    thread::sleep(Duration::from_millis(300));
    // Two who have not begun to speak.
    let silent = TcpStream::connect(&gate.address).unwrap();
    let mut half = TcpStream::connect(&gate.address).unwrap();
    half.write_all(b"\x16\x03\x01\x02\x00\x01\x00").unwrap();
    let started = Instant::now();
    assert_eq!(gate.stop(), Some(0));
    drop((silent, half));
    assert!(started.elapsed() < Duration::from_secs(4), "an idle connection is not waited for: {:?}", started.elapsed());
    let answer = asker.join().unwrap();
    assert!(answer.body == large().zip() && answer.broken.is_none());
}
