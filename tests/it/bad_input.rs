//! What is malformed gets a status and one clear line; nothing is written, and no upstream is asked.

use std::fs;
use std::path::Path;

use crate::support::gate::{Gate, route, upstream};
use crate::support::http::{get, raw, request};
use crate::support::upstream::Upstream;

fn files_below(folder: &Path) -> usize {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    entries.flatten().map(|e| if e.path().is_dir() { files_below(&e.path()) } else { 1 }).sum()
}

fn gate() -> (Gate, Upstream) {
    let up = Upstream::start();
    let gate = Gate::start(&(upstream("u", &up.url(), "") + &route("*", &["u"], "")));
    (gate, up)
}

/// Whether nothing came of it: no question upstream, no file beside the lock of the temporary folder.
fn assert_nothing_came_of_it(gate: &Gate, up: &Upstream) {
    assert_eq!(up.asked(), Vec::<String>::new());
    assert_eq!(files_below(&gate.cache("u")), 0);
    assert_eq!(files_below(&gate.dir.path().join("cache")), 1, "the lock alone");
}

#[test]
fn malformed_paths_are_refused_in_one_line() {
    let (gate, up) = gate();
    let table: &[(u16, &[&str])] = &[
        (
            400,
            &[
                "/example.com/../etc/@v/list",
                "/example.com/%2e%2e/%2e%2e/etc/passwd/@v/list",
                "/..%2f..%2fetc/@v/list",
                "/example.com/m%00/@v/list",
                "/example.com/m/@v/v1.0.0%00.zip",
                "//example.com/m/@v/list",
                "/example.com//m/@v/list",
                "/example.com/m//@v/list",
                "/example.com/%/@v/list",
                "/example.com/%4/@v/list",
                "/example.com/%zz/@v/list",
                "/example.com/%ff%fe/@v/list",
                "/example.com/%c0%ae%c0%ae/@v/list",
                "/example.com/M/@v/list",
                "/example.com/!!m/@v/list",
                "/example.com/m!/@v/list",
                "/Example.com/m/@v/list",
                "/nodot/m/@v/list",
                "/-example.com/m/@v/list",
                "/example.com/m/v1/@v/list",
                "/example.com/con/@v/list",
                "/example.com/m~1/@v/list",
                "/example.com/.hidden/@v/list",
                "/example.com/m/@v/v1.0.zip",
                "/example.com/m/@v/v2.0.0.zip",
                "/example.com/m/@v/v1.0.0+meta.mod",
                "/example.com/m/@v/master.zip",
                "/example.com/m/@v/..%2f..%2fx.info",
                "/example.com/m/@v/%20%0a.info",
                "/example.com/m/@v/a%5cb.info",
                "/gopkg.in/yaml/@v/list",
            ],
        ),
        (
            404,
            &[
                "/",
                "/robots.txt",
                "/example.com/m",
                "/example.com/m/@v/",
                "/example.com/m/@v/v1.0.0.tar.gz",
                "/-/healthz",
                "/cached-only",
            ],
        ),
    ];
    for (status, paths) in table {
        for path in *paths {
            let answer = gate.get(path);
            assert_eq!((answer.status, answer.whole), (*status, true), "{path}: {}", answer.text());
            let text = answer.text();
            assert!(text.starts_with("modgate: ") && text.lines().count() == 1 && text.len() > 20, "{path}: {text:?}");
            assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
        }
    }
    assert_nothing_came_of_it(&gate, &up);
}

#[test]
fn methods_lengths_and_headers_have_bounds() {
    let (gate, up) = gate();
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "BREW"] {
        let answer = request(&gate.address, method, "/example.com/m/@v/list", &[]);
        assert_eq!((answer.status, answer.header("allow")), (405, "GET, HEAD"), "{method}");
        assert_eq!(answer.text().lines().count(), 1);
    }
    let long = format!("/example.com/{}/@v/list", "m".repeat(5000));
    let answer = get(&gate.address, &long);
    assert_eq!(answer.status, 414);
    assert!(answer.text().starts_with("modgate: "), "{}", answer.text());
    let many: Vec<(String, String)> = (0..60).map(|n| (format!("X-Filler-{n}"), "y".repeat(1000))).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    let answer = request(&gate.address, "GET", "/example.com/m/@v/list", &many);
    assert_eq!(answer.status, 431);
    assert!(answer.text().starts_with("modgate: "), "{}", answer.text());
    // Past the parser's own bound the status is the same, or the connection is closed.
    let huge = "z".repeat(400_000);
    let answer = request(&gate.address, "GET", "/example.com/m/@v/list", &[("X-Huge", &huge)]);
    assert!(matches!(answer.status, 431 | 0), "{}", answer.status);
    let raw_bytes =
        raw(&gate.address, b"GET /example.com/\xff\xfe/@v/list HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", false);
    assert_eq!(raw_bytes.status, 400);
    assert!(raw_bytes.text().starts_with("modgate: ") && raw_bytes.whole);
    let overlong = get(&gate.address, &format!("/example.com/{}/@v/list", "m".repeat(100_000)));
    assert_eq!((overlong.status, overlong.text().lines().count()), (414, 1));
    for head in [
        "GET /example.com/m/@v/list HTTP/1.1\r\n",
        "GET /example.com/m/@v/list HTTP/1.1\r\nHost: x\r\nHost: y\r\n",
        "GET /example.com/m/@v/list HTTP/1.2\r\nHost: x\r\n",
        "GET example.com/m/@v/list HTTP/1.1\r\nHost: x\r\n",
        "GET /example.com/m/@v/list HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n",
        "GET /example.com/m/@v/list HTTP/1.1\r\nHost : x\r\n",
        "GET /example.com/m/@v/list HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n",
        "GET /example.com/m/@v/list HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n",
    ] {
        let answer = raw(&gate.address, format!("{head}\r\n").as_bytes(), false);
        assert_eq!((answer.status, answer.text().lines().count(), answer.whole), (400, 1, true), "{head}");
        assert_eq!(answer.header("x-request-id").len(), 16, "{head}");
    }
    let fields = "X: y\r\n".repeat(200);
    let crowded = raw(&gate.address, format!("GET / HTTP/1.1\r\nHost: x\r\n{fields}\r\n").as_bytes(), false);
    assert_eq!((crowded.status, crowded.text().lines().count()), (431, 1));
    let nonsense = raw(&gate.address, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", false);
    assert!(matches!(nonsense.status, 400 | 0), "{}", nonsense.status);
    assert_nothing_came_of_it(&gate, &up);
    // It serves on.
    assert_eq!(gate.get("/example.com/m/@v/list").status, 404);
}

#[test]
fn a_log_line_cannot_be_forged() {
    let (gate, _up) = gate();
    gate.get("/example.com/%0a2026-01-01T00:00:00Z%20ERROR%20forged/@v/list");
    crate::support::eventually("the line", || gate.log().contains("forged"));
    assert!(gate.log().lines().all(|line| !line.starts_with("2026-01-01T00:00:00Z ERROR")));
}

#[test]
fn a_head_that_drips_in_is_read_and_what_follows_it_too() {
    use std::io::{Read, Write};
    let up = Upstream::start();
    up.set("/example.com/m/@v/list", crate::support::upstream::Reply::Good(b"v1.0.0\n".to_vec()));
    let gate = Gate::start(&(upstream("u", &up.url(), "") + &route("*", &["u"], "")));
    let mut stream = crate::support::http::open(&gate.address);
    let head = b"\r\nGET /example.com/m/@v/list HTTP/1.1\r\nHost: x\r\n";
    for byte in head {
        stream.write_all(&[*byte]).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    // The end of one head together with the whole of the next, and a body that nobody asked for.
    stream.write_all(b"\r\nGET /example.com/m/@v/list HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello").unwrap();
    stream.write_all(b"GET /example.com/m/@v/list HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut all = String::new();
    let _ = stream.read_to_string(&mut all);
    assert!(all.matches("HTTP/1.1 200 OK").count() >= 2, "{all}");
    assert_eq!(all.matches("HTTP/1.1").count(), all.matches("v1.0.0\n").count(), "{all}");
}
