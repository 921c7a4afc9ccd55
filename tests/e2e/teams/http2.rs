//! HTTP/2 beside HTTP/1.1, on one port: the same answers, whole or not at all; and what else may come to such a port.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Stdio;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::{Site, TLS};
use crate::helpers::{go_env, go_says};
use crate::support::gate::{route, upstream};
use crate::support::go::Go;
use crate::support::modules::{Module, tree};
use crate::support::upstream::{Reply, Upstream};
use crate::support::{free_port, http};

const MEGABYTE: usize = 1 << 20;
const VERSIONS: [(&str, &str); 2] = [("--http1.1", "1.1"), ("--http2", "2")];

/// A modgate before an upstream that serves these modules.
fn before(modules: &[Module]) -> (Site, Upstream) {
    let public = Upstream::serving(modules);
    let site = Site::start(&(TLS.to_owned() + &upstream("public", &public.url(), "") + &route("*", &["public"], "")));
    (site, public)
}

#[test]
fn both_versions_give_the_same_bytes() {
    let large = Module::new("example.com/Large", "v1.0.0").bulk(20 * MEGABYTE);
    let modules = [large, Module::new("example.com/small", "v1.0.0"), Module::new("example.com/small", "v1.1.0-rc.1")];
    let (site, public) = before(&modules);
    for (path, wanted) in tree(&modules) {
        let url = site.url(&path);
        let length = wanted.len().to_string();
        // Cold by both, the first time by the one and the second by the other.
        let mut answers = Vec::new();
        for (argument, version) in VERSIONS.iter().chain(&VERSIONS) {
            let client = site.curl().with(&[argument]);
            let answer = client.get(&url);
            assert_eq!((answer.whole(), answer.version.as_str()), (Some(200), *version), "{path}");
            assert!(answer.body == wanted, "{version}: {path} differs");
            assert_eq!(answer.header("content-length"), length, "{version}: {path}");
            answers.push(answer);

            let head = client.with(&["--head"]).get(&url);
            assert_eq!((head.whole(), head.version.as_str()), (Some(200), *version), "HEAD {path}");
            assert_eq!(head.header("content-length"), length, "{version}: HEAD {path}");
        }
        for header in ["content-type", "etag", "cache-control", "accept-ranges"] {
            let said: Vec<&str> = answers[2..].iter().map(|answer| answer.header(header)).collect();
            assert_eq!(said[0], said[1], "{path}: {header}");
        }
        let etag = answers[3].header("etag");
        if path.rsplit('.').next() != Some("zip") {
            continue;
        }
        assert!(etag.len() > 2, "{path} has a validator");
        for (argument, version) in VERSIONS {
            let client = site.curl().with(&[argument]);
            let same = client.with(&["-H", &format!("If-None-Match: {etag}")]).get(&url);
            assert_eq!((same.whole(), same.body.len(), same.version.as_str()), (Some(304), 0, version), "{path}");
            let half = wanted.len() / 2;
            let part = client.with(&["-r", &format!("{half}-")]).get(&url);
            assert_eq!((part.whole(), part.version.as_str()), (Some(206), version), "{path}");
            let range = format!("bytes {half}-{}/{length}", wanted.len() - 1);
            assert_eq!(part.header("content-range"), range, "{version}: {path}");
            assert!(part.body == wanted[half..], "{version}: {path}: another part");
            let past = client.with(&["-r", &format!("{length}-")]).get(&url);
            assert_eq!(past.whole(), Some(416), "{version}: {path}");
        }
    }
    for path in tree(&modules).keys().filter(|path| !path.ends_with("/list")) {
        assert_eq!(public.count(path), 1, "{path}");
    }
    for (argument, version) in VERSIONS {
        let absent = site.curl().with(&[argument]).get(&site.url("/example.com/absent/@v/v1.0.0.zip"));
        assert_eq!((absent.whole(), absent.version.as_str()), (Some(404), version));
    }
}

#[test]
fn a_cold_slow_zip_begins_before_the_upstream_is_done() {
    let (site, public) = before(&[]);
    for (argument, version) in VERSIONS {
        let module = Module::new(&format!("example.com/slow{}", version.replace('.', "")), "v1.0.0").bulk(MEGABYTE);
        let zip = module.zip();
        // Twenty pieces in four seconds.
        let reply = Reply::Slow(zip.clone(), zip.len() / 20, Duration::from_millis(200));
        public.set(&module.url("zip"), reply);
        public.set(&module.url("info"), Reply::Good(module.info()));
        public.set(&module.url("mod"), Reply::Good(module.go_mod.clone().into_bytes()));
        let mut command = site.curl().with(&[argument, "-N", &site.url(&module.url("zip"))]).command();
        let started = Instant::now();
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut output = child.stdout.take().unwrap();
        let mut body = vec![0];
        output.read_exact(&mut body).unwrap();
        let begun = started.elapsed();
        output.read_to_end(&mut body).unwrap();
        let ended = started.elapsed();
        assert!(child.wait().unwrap().success(), "{version}");
        assert!(body == zip, "{version}: the zip differs");
        assert!(begun < Duration::from_secs(2), "{version}: the first byte came after {begun:?}");
        assert!(ended > Duration::from_millis(3800), "{version}: the upstream was not slow: {ended:?}");
    }
}

#[test]
fn what_breaks_off_is_an_error_by_both_versions() {
    let (site, public) = before(&[]);
    for (argument, version) in VERSIONS {
        // With a length, curl counts for itself; in chunks, only the end of the stream says that there is more to come.
        for (kind, at) in [("length", MEGABYTE), ("chunks", MEGABYTE), ("reset", MEGABYTE), ("beginning", 10)] {
            let module = Module::new(&format!("example.com/{kind}{}", version.replace('.', "")), "v1.0.0").bulk(2 * MEGABYTE);
            let zip = module.zip();
            public.set(
                &module.url("zip"),
                match kind {
                    "chunks" => Reply::TruncateChunked(zip.clone(), at),
                    "reset" => Reply::Reset(zip.clone(), at),
                    _ => Reply::Truncate(zip.clone(), at),
                },
            );
            public.set(&module.url("info"), Reply::Good(module.info()));
            public.set(&module.url("mod"), Reply::Good(module.go_mod.clone().into_bytes()));
            let client = site.curl().with(&[argument]);
            let url = site.url(&module.url("zip"));
            let answer = client.get(&url);
            assert_eq!(public.count(&module.url("zip")), 1);
            // Where nothing has gone out yet, it may still be a status.
            let refused = matches!(answer.whole(), Some(502));
            assert!(answer.code != 0 || refused, "{version}, {kind}: taken for whole, {} bytes", answer.body.len());
            assert!(refused || zip.starts_with(&answer.body), "{version}, {kind}: other bytes");
            if answer.code != 0 && version == "2" {
                assert_eq!(answer.code, 92, "{kind}: curl calls an error of a stream 92");
            }
            // The next one gets it whole, over any connection.
            public.set(&module.url("zip"), Reply::Good(zip.clone()));
            let deadline = Instant::now() + Duration::from_secs(10);
            loop {
                let again = client.get(&url);
                if again.whole() == Some(200) {
                    assert!(again.body == zip, "{version}, {kind}");
                    break;
                }
                assert!(Instant::now() < deadline, "{version}, {kind}: {} {}", again.code, again.text());
                thread::sleep(Duration::from_millis(200));
            }
        }
    }
}

#[test]
fn the_go_command_comes_by_http2() {
    let large = Module::new("example.com/large", "v1.0.0").bulk(4 * MEGABYTE);
    let small: Vec<Module> = (0..20).map(|n| Module::new(&format!("example.com/small{n}"), "v1.0.0")).collect();
    let modules: Vec<Module> = small.into_iter().chain([large]).collect();
    let (site, _public) = before(&modules);
    let names: Vec<String> = modules.iter().map(|module| format!("{}@{}", module.path, module.version)).collect();
    let arguments: Vec<&str> = ["mod", "download"].into_iter().chain(names.iter().map(String::as_str)).collect();
    for (debug, wanted) in [("http2debug=1", true), ("http2debug=1,http2client=0", false)] {
        let go = Go::with_proxy(&format!("https://localhost:{}", site.port()));
        let go = Arc::new(go.env("SSL_CERT_FILE", &site.authority.path()).env("GODEBUG", debug));
        go.main_module("module example.com/main\n\ngo 1.21\n");
        let said = go_says(&go, &arguments);
        // As net/http writes when an answer's head has come.
        assert_eq!(said.contains("http2: Transport received HEADERS"), wanted, "{}: {debug}: {said}", go_env("GOVERSION"));
        for module in &modules {
            let kept = go.mod_cache().join(format!("cache/download/{}/@v/{}.zip", module.path, module.version));
            assert!(std::fs::read(kept).unwrap() == module.zip(), "{debug}: {}", module.path);
        }
    }
}

#[test]
fn plain_http_is_told_that_this_is_tls() {
    let public = Upstream::serving(&[Module::new("example.com/m", "v1.0.0")]);
    let plain = format!("127.0.0.1:{}", free_port());
    let server = TLS.to_owned() + &format!("# [server] listen_plain = {plain:?}\n");
    let site = Site::start(&(server + &upstream("public", &public.url(), "") + &route("*", &["public"], "")));
    let path = "/example.com/m/@v/v1.0.0.info";
    let curl = site.curl();
    for arguments in [&["--http1.1"][..], &["--head"], &["--http1.0"], &["--http2"]] {
        let client = curl.with(arguments);
        assert_eq!(client.status(&format!("http://{plain}{path}")), Some(200), "{arguments:?}");
        let answer = client.get(&format!("http://{}{path}", site.gate.address));
        assert_eq!((answer.whole(), answer.header("content-type")), (Some(400), "text/plain; charset=utf-8"), "{arguments:?}");
        assert!(arguments[0] == "--head" || answer.text().contains("https://"), "{arguments:?}: {}", answer.text());
    }
    assert_eq!(curl.status(&site.url(path)), Some(200));
}

#[test]
fn who_says_nothing_or_half_a_hello_holds_up_nobody() {
    let (site, _public) = before(&[Module::new("example.com/m", "v1.0.0")]);
    // The beginning of a handshake's record that promises 508 more bytes (RFC 8446 §5.1).
    let half = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];
    let mut waiting: Vec<TcpStream> = (0..300)
        .map(|n| {
            let mut stream = http::open(&site.gate.address);
            let said = [&[][..], &half[..1], &half[..]][n % 3];
            stream.write_all(said).unwrap();
            stream
        })
        .collect();
    let url = site.url("/example.com/m/@v/v1.0.0.zip");
    for (argument, version) in VERSIONS {
        for _ in 0..10 {
            let started = Instant::now();
            assert_eq!(site.curl().with(&[argument, "--max-time", "20"]).status(&url), Some(200), "{version}");
            let took = started.elapsed();
            assert!(took < Duration::from_secs(3), "{version}: an answer took {took:?}");
        }
    }
    // They are not waited for without end either.
    let deadline = Instant::now() + Duration::from_secs(25);
    for stream in &mut waiting {
        stream.set_read_timeout(Some(deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1)))).unwrap();
        let ended = match stream.read(&mut [0; 64]) {
            Ok(_) => true,
            Err(e) => e.kind() == std::io::ErrorKind::ConnectionReset,
        };
        assert!(ended, "a handshake that never came is still waited for");
    }
}
