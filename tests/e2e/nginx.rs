//! nginx on both sides of modgate: as an upstream that serves a tree of plain files, and as the reverse proxy in front, as a
//! company would run it.
//!
//! nginx is strict about lengths, ranges and kept connections, and it is somebody else's work: what comes whole through it on
//! both sides was framed rightly on both sides.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::thread;

use tempfile::TempDir;

use crate::helpers::{Program, go_ok, output_of, program};
use crate::support::gate::{Gate, route, upstream};
use crate::support::go::Go;
use crate::support::http::{self, Answer};
use crate::support::modules::{Module, tree};
use crate::support::{eventually, free_port};

const MEGABYTE: usize = 1 << 20;

/// Modules with zips from almost nothing to 20 MB.
fn recorded() -> Vec<Module> {
    let sizes = [0, 1, 2, 5, 10, 20];
    let sized = sizes.map(|size| Module::new(&format!("example.com/Size{size}"), "v1.0.0").bulk(size * MEGABYTE));
    let more = [Module::new("example.com/Size0", "v1.1.0-rc.1"), Module::new("example.com/old", "v2.0.0+incompatible")];
    sized.into_iter().chain(more).collect()
}

/// A running nginx. It is one process, so that nothing is left of it when it is stopped.
pub(crate) struct Nginx {
    pub(crate) address: String,
    dir: TempDir,
    _program: Program,
}

impl Nginx {
    /// Starts it with the contents of its `http` block; `{dir}` stands for its folder and `{address}` for where it listens.
    pub(crate) fn start(dir: TempDir, http: &str) -> Self {
        let address = format!("127.0.0.1:{}", free_port());
        let folder = dir.path().display().to_string();
        let kinds = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
        let temps = kinds.map(|kind| format!("{kind}_temp_path {folder}/{kind};\n")).concat();
        let http = http.replace("{dir}", &folder).replace("{address}", &address);
        let text = format!(
            "daemon off;\nmaster_process off;\npid {folder}/pid;\nerror_log stderr warn;\n\
             events {{ worker_connections 1024; }}\n\
             http {{\n{temps}log_format asked '$request_uri $status';\naccess_log {folder}/asked asked;\nsendfile on;\n{http}\n}}\n"
        );
        fs::write(dir.path().join("nginx.conf"), text).unwrap();
        let mut command = Command::new(program("nginx"));
        command.args(["-e", "stderr", "-p", &folder, "-c", &format!("{folder}/nginx.conf")]);
        let mut running = Program::start(command, &dir.path().join("errors"));
        running.listens(&address);
        Self { address, dir, _program: running }
    }

    /// An nginx that serves a tree of files.
    fn serving(tree: &BTreeMap<String, Vec<u8>>) -> Self {
        let dir = TempDir::new().unwrap();
        for (path, body) in tree {
            let file = dir.path().join("tree").join(&path[1..]);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, body).unwrap();
        }
        Self::start(dir, "server { listen {address}; root {dir}/tree; default_type application/octet-stream; }")
    }

    /// An nginx in front of another server, to which it keeps its connections; below `/plain` it does not and speaks HTTP/1.0,
    /// as it does where nobody tells it otherwise.
    fn before(server: &str) -> Self {
        let http = "upstream modgate { server SERVER; keepalive 8; }\n\
                    server {\n\
                    listen {address};\n\
                    location / { proxy_pass http://modgate; proxy_http_version 1.1; proxy_set_header Connection ''; }\n\
                    location /plain/ { proxy_pass http://SERVER/; }\n\
                    }";
        Self::start(TempDir::new().unwrap(), &http.replace("SERVER", server))
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn get(&self, path: &str) -> Answer {
        http::get(&self.address, path)
    }

    /// The paths that it was asked for, with the statuses it gave.
    pub(crate) fn asked(&self) -> Vec<String> {
        let log = fs::read_to_string(self.dir.path().join("asked")).unwrap_or_default();
        log.lines().map(str::to_owned).collect()
    }
}

/// A tree of files behind modgate behind nginx.
struct Site {
    tree: BTreeMap<String, Vec<u8>>,
    files: Nginx,
    gate: Gate,
    front: Nginx,
}

impl Site {
    fn start() -> Self {
        let tree = tree(&recorded());
        let files = Nginx::serving(&tree);
        let gate = Gate::start(&(upstream("files", &files.url(), "") + &route("*", &["files"], "")));
        let front = Nginx::before(&gate.address);
        Self { tree, files, gate, front }
    }

    /// The paths of the zips, all of which the cache has by now.
    fn cached_zips(&self) -> Vec<&str> {
        let zips: Vec<&str> = self.tree.keys().map(String::as_str).filter(|path| path.rsplit('.').next() == Some("zip")).collect();
        for path in &zips {
            assert!(self.front.get(path).whole, "{path}");
            let file = self.gate.cache("files").join(&path[1..]);
            eventually("the zip is stored", || file.is_file());
        }
        zips
    }
}

#[test]
fn whole_files_come_through_nginx_on_both_sides() {
    let site = Site::start();
    for cold_or_warm in ["cold", "warm"] {
        for (path, body) in &site.tree {
            let plain = site.front.get(&format!("/plain{path}"));
            for (place, answer) in [("plainly before", plain), ("before", site.front.get(path)), ("behind", site.gate.get(path))] {
                assert_eq!(answer.status, 200, "{cold_or_warm}, {place} nginx: {path}");
                assert!(answer.whole && answer.body == *body, "{cold_or_warm}, {place} nginx: {path} differs");
                assert_eq!(answer.header("content-length"), body.len().to_string(), "{cold_or_warm}, {place} nginx: {path}");
            }
        }
    }
    let absent = site.front.get("/example.com/absent/@v/v1.0.0.zip");
    assert_eq!((absent.status, absent.header("content-type")), (404, "text/plain; charset=utf-8"));
    // Every file was fetched once.
    let mut fetched: Vec<String> = site.files.asked().into_iter().filter(|line| line.ends_with(" 200")).collect();
    fetched.sort();
    let wanted: Vec<String> = site.tree.keys().map(|path| format!("{path} 200")).collect();
    assert_eq!(fetched, wanted, "what nginx was asked as an upstream");

    let go = Arc::new(Go::with_proxy(&site.front.url()));
    go.main_module("module example.com/main\n\ngo 1.21\n");
    go_ok(&go, &["mod", "download", "example.com/Size20@v1.0.0", "example.com/old@v2.0.0+incompatible"]);
    assert_eq!(go_ok(&go, &["list", "-m", "-versions", "example.com/Size0"]), "example.com/Size0 v1.0.0 v1.1.0-rc.1\n");
}

#[test]
fn heads_ranges_and_conditions_are_right_behind_nginx() {
    let site = Site::start();
    for path in site.cached_zips() {
        let whole = &site.tree[path];
        let length = whole.len();
        for server in [&site.front.address, &site.gate.address] {
            let ask = |method, headers: &[(&str, &str)]| http::request(server, method, path, headers);
            let head = ask("HEAD", &[]);
            assert_eq!((head.status, head.header("content-length")), (200, length.to_string().as_str()), "{path}");
            assert_eq!((head.header("content-type"), head.header("accept-ranges")), ("application/zip", "bytes"), "{path}");
            assert!(head.header("cache-control").contains("immutable") && head.body.is_empty(), "{path}");
            let etag = head.header("etag");
            assert!(etag.len() > 2, "{path} has a validator");
            assert_eq!(ask("GET", &[("If-None-Match", etag)]).status, 304, "{path}");

            let half = length / 2;
            let parts = [
                ("bytes=0-99".to_owned(), 0, 100),
                (format!("bytes={half}-"), half, length),
                ("bytes=-50".to_owned(), length - 50, length),
                (format!("bytes={half}-{}", length + 1000), half, length),
                (format!("bytes={}-{}", length - 1, length - 1), length - 1, length),
            ];
            for (range, from, to) in parts {
                let part = ask("GET", &[("Range", &range), ("If-Range", etag)]);
                assert_eq!((part.status, part.whole), (206, true), "{path} {range}");
                assert_eq!(part.header("content-range"), format!("bytes {from}-{}/{length}", to - 1), "{path} {range}");
                assert!(part.body == whole[from..to], "{path} {range} is another part");
            }
            let past = ask("GET", &[("Range", &format!("bytes={length}-"))]);
            assert_eq!((past.status, past.header("content-range")), (416, format!("bytes */{length}").as_str()), "{path}");
            let other = ask("GET", &[("Range", "bytes=0-99"), ("If-Range", "\"another\"")]);
            assert!(other.status == 200 && other.body == *whole, "{path}: a range of another file");
        }
    }
}

#[test]
fn a_head_is_right_before_anything_is_cached() {
    let site = Site::start();
    for (path, body) in &site.tree {
        for server in [&site.front.address, &site.gate.address] {
            let head = http::request(server, "HEAD", path, &[]);
            assert_eq!((head.status, head.header("content-length")), (200, body.len().to_string().as_str()), "{path}");
            assert!(head.body.is_empty(), "{path}");
        }
    }
}

#[test]
fn fifty_clients_at_once_get_what_they_asked_for() {
    let site = Arc::new(Site::start());
    let clients: Vec<_> = (0..50)
        .map(|client| {
            let site = Arc::clone(&site);
            thread::spawn(move || {
                // Each begins at another file, half of them behind nginx.
                let files: Vec<(&String, &Vec<u8>)> = site.tree.iter().collect();
                let server = if client % 2 == 0 { &site.front.address } else { &site.gate.address };
                for turn in 0..files.len() {
                    let (path, body) = files[(client + turn) % files.len()];
                    let answer = http::get(server, path);
                    assert!(
                        answer.status == 200 && answer.whole && answer.body == *body,
                        "client {client}: {path}: {}",
                        answer.status
                    );
                }
            })
        })
        .collect();
    for client in clients {
        client.join().unwrap();
    }
    for path in site.tree.keys() {
        let line = format!("{path} 200");
        assert_eq!(site.files.asked().iter().filter(|l| **l == line).count(), 1, "{path} was fetched once");
    }
}

/// A short run of a load generator, with kept connections all the way.
#[test]
fn kept_connections_stay_in_step_under_load() {
    let site = Site::start();
    for file in ["!size0/@v/list", "!size0/@v/v1.0.0.info", "!size0/@v/v1.0.0.zip", "!size1/@v/v1.0.0.zip"] {
        let path = format!("/example.com/{file}");
        for server in [site.front.url(), site.gate.url()] {
            let mut wrk = Command::new(program("wrk"));
            wrk.args(["-t1", "-c50", "-d1s", "--timeout", "10s", &format!("{server}{path}")]);
            let said = output_of(wrk, b"");
            assert!(!said.contains("Non-2xx") && !said.contains("Socket errors"), "{path}: {said}");
            assert!(said.contains("requests in"), "{path}: {said}");
        }
    }
}
