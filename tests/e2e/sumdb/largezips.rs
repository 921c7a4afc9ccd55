//! Zips that are too large to wait for: whoever downloads one gets its beginning before modgate has its end and its sum.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::thread;

use crate::support::gate::Gate;
use crate::support::http;
use crate::support::modules::Module;
use crate::support::upstream::{Reply, Upstream};

use super::cached_files;
use super::database::Database;
use super::mirrors::{gate_before, tampered};

/// A module of several megabytes, of which whoever downloads it gets the beginning before modgate has the end.
struct Large {
    module: Module,
    zip: Vec<u8>,
    tampered: Vec<u8>,
}

/// Its zips take a while to make, so they are made once.
fn large() -> &'static Large {
    static LARGE: LazyLock<Large> = LazyLock::new(|| {
        let module = Module::new("example.com/large", "v1.0.0").bulk(6 << 20);
        Large { zip: module.zip(), tampered: tampered(&module).zip(), module }
    });
    &LARGE
}

impl Large {
    /// What a proxy of it answers, with this zip.
    fn files(&self, zip: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let module = &self.module;
        let files = [("info", module.info()), ("mod", module.go_mod.clone().into_bytes()), ("zip", zip.to_vec())];
        files.into_iter().map(|(part, bytes)| (module.url(part), bytes)).collect()
    }

    /// A database that knows the real one.
    fn database(&self) -> Database {
        let database = Database::start(30, &[]);
        database.puts(&self.files(&self.zip));
        database
    }

    /// A mirror of it that gives this zip.
    fn mirror(&self, zip: &[u8]) -> Upstream {
        let mirror = Upstream::start();
        for (path, body) in self.files(zip) {
            mirror.set(&path, Reply::Good(body));
        }
        mirror
    }

    fn nothing_bad_is_kept(&self, gate: &Gate) {
        for (file, bytes) in cached_files(&gate.dir.path().join("cache")) {
            assert!(file.extension().unwrap() == "mod" || bytes == self.zip, "{} is not the real one", file.display());
        }
    }
}

#[test]
fn a_large_zip_that_turns_out_wrong_is_broken_off_and_the_next_mirror_has_the_next_try() {
    let large = large();
    let (database, url) = (large.database(), large.module.url("zip"));
    for reply in [Reply::Good(large.tampered.clone()), Reply::Chunked(large.tampered.clone())] {
        let bad = large.mirror(&[]);
        bad.set(&url, reply);
        let sole = gate_before(&database, &[&bad]);
        for _ in 0..2 {
            let answer = sole.get(&url);
            assert!(answer.status != 200 || !answer.whole, "{} whole bytes that are not the real ones", answer.body.len());
        }
        large.nothing_bad_is_kept(&sole);
        // Nor are there parts of it.
        let range = http::request(&sole.address, "GET", &url, &[("Range", "bytes=6291000-6291999")]);
        assert!(
            range.status != 206 || !range.whole || large.zip[6_291_000..].starts_with(&range.body),
            "a part that is not proven"
        );

        let honest = large.mirror(&large.zip);
        let gate = gate_before(&database, &[&bad, &honest]);
        let first = gate.get(&url);
        assert!(first.body == large.zip || !first.whole || first.status != 200, "what is whole is real");
        let second = gate.get(&url);
        assert!(second.status == 200 && second.whole && second.body == large.zip, "{} {}", second.status, second.whole);
        large.nothing_bad_is_kept(&gate);
        for part in ["info", "mod"] {
            assert_eq!(gate.get(&large.module.url(part)).status, 200);
        }
    }
}

#[test]
fn many_who_want_a_large_zip_at_once_all_get_the_real_one_or_none() {
    let large = large();
    let (database, url) = (large.database(), large.module.url("zip"));
    let (bad, honest) = (large.mirror(&large.tampered), large.mirror(&large.zip));
    let gate = gate_before(&database, &[&bad, &honest]);
    thread::scope(|scope| {
        let all: Vec<_> = (0..8).map(|_| scope.spawn(|| gate.get(&url))).collect();
        for answer in all.into_iter().map(|a| a.join().unwrap()) {
            assert!(answer.body == large.zip || !answer.whole || answer.status != 200, "what is whole is real");
        }
    });
    assert!(gate.get(&url).body == large.zip, "the next one gets it");
    large.nothing_bad_is_kept(&gate);
}
