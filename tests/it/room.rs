//! Where the cache has no room: what is sent on is refused honestly, what is there is served, and the disk is left its part.

use std::fs;
use std::path::PathBuf;

use crate::support::eventually;
use crate::support::gate::{Gate, route, upstream};
use crate::support::modules::Module;
use crate::support::upstream::Upstream;

#[test]
fn where_there_is_no_room_nobody_else_is_blamed() {
    let (kept, wanted) =
        (Module::new("example.com/m", "v1.0.0").bulk(300_000), Module::new("example.com/m", "v1.1.0").bulk(300_000));
    let (first, second) = (Upstream::serving(&[kept.clone(), wanted.clone()]), Upstream::serving(&[kept.clone(), wanted.clone()]));
    let breaker = "breaker = { failures = 1 }";
    let tables = upstream("first", &first.url(), breaker) + &upstream("second", &second.url(), breaker);
    let gate = Gate::start(&(tables + &route("*", &["first", "second"], "fallback = \"any-error\"")));
    assert!(gate.get(&kept.url("zip")).whole);
    eventually("it is kept", || gate.cache("first").join("example.com/m/@v/v1.0.0.zip").exists());
    // As on a disk that is full, no file can be made below this.
    let temp = gate.dir.path().join("cache/.tmp");
    fs::remove_dir_all(&temp).unwrap();
    fs::write(&temp, "").unwrap();
    for _ in 0..2 {
        let answer = gate.get(&wanted.url("zip"));
        assert_eq!(answer.status, 503, "{}", answer.text());
        let text = answer.text();
        assert!(text.starts_with("modgate: example.com/m/@v/v1.1.0.zip: modgate cannot store it on its way: "), "{text}");
        assert!(!text.contains(gate.dir.path().to_str().unwrap()), "no folder of the server's in {text}");
        assert_eq!(text.lines().count(), 1, "no upstream is at fault: {text}");
    }
    assert_eq!((first.count(&wanted.url("zip")), second.count(&wanted.url("zip"))), (2, 0), "another's would fit no better");
    // What needs no file on its way, or is there, is served.
    assert_eq!(gate.get(&wanted.url("mod")).status, 200);
    assert_eq!(gate.get(&wanted.url("info")).status, 200);
    assert_eq!(gate.get(&kept.url("zip")).body, kept.zip());
    fs::remove_file(&temp).unwrap();
    assert_eq!(gate.get(&wanted.url("zip")).body, wanted.zip());
}

#[test]
fn the_disk_is_left_its_part_whoever_filled_it() {
    let modules: Vec<Module> = (0..4).map(|n| Module::new("example.com/m", &format!("v1.0.{n}")).bulk(100_000)).collect();
    let up = Upstream::serving(&modules);
    let tables = upstream("open", &up.url(), "") + &upstream("own", &up.url(), "private = true");
    let routes = route("example.com", &["open"], "") + &route("corp.example", &["own"], "");
    let text = format!("{tables}{routes}");
    let first = Gate::start_in(tempfile::tempdir().unwrap(), &text);
    for module in &modules {
        assert!(first.get(&module.url("zip")).whole);
    }
    let zips = |gate: &Gate| -> Vec<PathBuf> {
        let dir = gate.cache("open").join("example.com/m/@v");
        modules.iter().map(|module| dir.join(format!("{}.zip", module.version))).collect()
    };
    let paths = zips(&first);
    eventually("all are kept", || paths.iter().all(|path| path.exists()));
    let own = first.cache("own").join("corp.example/p/@v/v1.0.0.zip");
    fs::create_dir_all(own.parent().unwrap()).unwrap();
    fs::write(&own, "the only copy").unwrap();
    // No disk has as much left as that.
    let text = format!("[cache]\nmin_free = \"1000000TiB\"\n\n{text}");
    let second = Gate::start_in(first.into_dir(), &text);
    let paths = zips(&second);
    eventually("what can be had again is gone", || !paths.iter().any(|path| path.exists()));
    assert!(second.cache("own").join("corp.example/p/@v/v1.0.0.zip").exists(), "this may be the only one");
    eventually("it says so", || second.log().contains("the disk had less than cache.min_free left"));
    assert!(modules.iter().all(|module| second.get(&module.url("zip")).body == module.zip()), "what is gone is fetched again");
}
