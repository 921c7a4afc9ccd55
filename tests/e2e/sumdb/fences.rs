//! Names that are nobody's business: lookups of what lies behind a fence, or is excepted, are answered without a word to anybody.

use crate::support::eventually;
use crate::support::gate::{Gate, route, upstream};
use crate::support::modules::Module;
use crate::support::upstream::Upstream;

use super::database::{Database, pads};
use super::{cached_files, lookup};

struct Fenced {
    database: Database,
    inside: Upstream,
    outside: Upstream,
    gate: Gate,
}

/// A fence around corp.example, and exceptions on the public route.
fn fenced() -> Fenced {
    let private = Module::new("corp.example/Group/secret", "v1.0.0");
    let open = [Module::new("github.com/acme/tool", "v1.0.0"), Module::new("public.example/x", "v1.0.0")];
    let database = Database::start(20, &open);
    let (inside, outside) = (Upstream::serving(&[private]), Upstream::serving(&open));
    let config = format!(
        "[sumdb]\ndatabases = [{:?}]\nvia = [\"outside\", \"direct\"]\nno_sumdb = [\"github.com/acme,*.hidden.example\", \"public.example/*/inner\"]\n",
        database.entry()
    ) + &upstream("inside", &inside.url(), "private = true\n")
        + &upstream("outside", &outside.url(), "")
        + &route("corp.example,*.corp.example", &["inside"], "")
        + &route("*", &["outside"], "");
    Fenced { gate: Gate::start(&config), database, inside, outside }
}

#[test]
fn lookups_behind_a_fence_are_asked_of_nobody() {
    let Fenced { database, inside, outside, gate } = fenced();
    for name in [
        "corp.example/!group/secret@v1.0.0",
        "corp.example@v1.0.0",
        "corp.example/a/b/c@v0.0.0-20240203040506-0123456789ab",
        "git.corp.example/x@v1.2.3",
        "%63orp.example/x@v1.0.0",
        "corp%2eexample/x@v1.0.0",
        "corp.example%2fx@v1.0.0",
        "corp.example/%21group/secret@v1.0.0",
        "corp.example/%21group/secret%40v1.0.0",
        "github.com/acme@v1.0.0",
        "github.com/acme/tool@v1.0.0",
        "a.hidden.example/x@v1.0.0",
        "public.example/x/inner@v1.0.0",
        "public.example/x/inner/most@v1.0.0",
    ] {
        let answer = gate.get(&lookup(name));
        assert_eq!(answer.status, 404, "{name}: {}", answer.text());
    }
    assert_eq!((database.asked(), inside.asked(), outside.asked()), (0, Vec::new(), Vec::new()), "{:?}", database.counts());
    // What is next to the fences is asked for.
    assert_eq!(gate.get(&lookup("public.example/x@v1.0.0")).status, 200);
    assert_eq!(gate.get(&lookup(&pads(&[7])[0])).status, 200);
    for name in ["corp.example.org/x@v1.0.0", "xcorp.example/x@v1.0.0", "github.com/acme2/tool@v1.0.0", "hidden.example/x@v1.0.0"] {
        let answer = gate.get(&lookup(name));
        assert_eq!(answer.status, 404, "{name}: {}", answer.text());
        assert_eq!(database.counts().get(&format!("/lookup/{name}")), Some(&1), "{name}: the database says so");
    }
}

#[test]
fn modules_behind_a_fence_come_without_a_word_to_the_database() {
    let Fenced { database, inside, outside, gate } = fenced();
    let private = Module::new("corp.example/Group/secret", "v1.0.0");
    for part in ["info", "mod", "zip"] {
        let answer = gate.get(&private.url(part));
        assert_eq!(answer.status, 200, "{part}: {}", answer.text());
    }
    assert_eq!((database.asked(), outside.asked()), (0, Vec::new()), "{:?}", database.counts());
    assert!(inside.asked().iter().all(|path| path.contains("/@v/")), "{:?}", inside.asked());
    // An excepted one comes from the public upstream, unproven.
    let excepted = Module::new("github.com/acme/tool", "v1.0.0");
    for part in ["info", "mod", "zip"] {
        let answer = gate.get(&excepted.url(part));
        assert_eq!(answer.status, 200, "{part}: {}", answer.text());
    }
    assert_eq!(database.asked(), 0, "{:?}", database.counts());
    assert!(outside.asked().iter().all(|path| path.contains("/@v/")), "{:?}", outside.asked());
    let public = Module::new("public.example/x", "v1.0.0");
    assert_eq!(gate.get(&public.url("zip")).status, 200);
    assert!(database.asked() > 0, "what is not excepted is proven");
    // A zip gets its name after the answer has gone out.
    eventually("all are kept", || cached_files(&gate.dir.path().join("cache")).len() == 5);
}

#[test]
fn a_private_upstream_is_never_a_way_to_the_database() {
    // A route that has both: what the private upstream lacks may be asked of the public one, and so may the database.
    let module = Module::new("mixed.example/x", "v1.0.0");
    let database = Database::start(20, std::slice::from_ref(&module));
    let (inside, outside) = (Upstream::serving(&[]), Upstream::serving(std::slice::from_ref(&module)));
    let config = format!("[sumdb]\ndatabases = [{:?}]\n", database.entry())
        + &upstream("inside", &inside.url(), "private = true\n")
        + &upstream("outside", &outside.url(), "")
        + &route("*", &["inside", "outside"], "");
    let gate = Gate::start(&config);
    let answer = gate.get(&module.url("zip"));
    assert_eq!((answer.status, answer.body), (200, module.zip()));
    assert_eq!(gate.get(&lookup("mixed.example/x@v1.0.0")).status, 200);
    assert!(inside.asked().iter().all(|path| !path.starts_with("/sumdb/")), "{:?}", inside.asked());
    assert!(database.asked() > 0);
}

#[test]
fn what_is_on_no_route_is_asked_of_nobody() {
    let database = Database::start(20, &[]);
    let config = format!("[sumdb]\ndatabases = [{:?}]\nvia = [\"u1\", \"direct\"]\n", database.entry())
        + &upstream("u1", &database.url(), "")
        + &route("example.org/pad1", &["u1"], "");
    let gate = Gate::start(&config);
    for name in pads(&[2, 10, 19]) {
        assert_eq!(gate.get(&lookup(&name)).status, 404, "{name}");
    }
    assert_eq!(database.asked(), 0, "{:?}", database.counts());
    assert_eq!(gate.get(&lookup(&pads(&[1])[0])).status, 200);
}
