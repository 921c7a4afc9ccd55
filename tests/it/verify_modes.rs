//! The modes of a route, what is fenced from the database, and what is said about it.

use std::fs;

use crate::support::eventually;
use crate::support::gate::{Gate, route, upstream};
use crate::support::http::get;
use crate::support::modules::Module;
use crate::support::sumdb::{Sumdb, go_sum, lookups, zip_sum};
use crate::support::upstream::{Reply, Upstream};
use crate::verify::{assert_nowhere, body, forged, gate, kept, text};

fn publish(up: &Upstream, module: &Module) {
    for part in ["info", "mod", "zip"] {
        up.set(&module.url(part), Reply::Good(body(module, part)));
    }
}

#[test]
fn trust_first_takes_what_the_database_cannot_be_asked_about_and_nothing_that_it_denies() {
    let known = Module::new("example.com/known", "v1.0.0");
    let unknown = Module::new("example.com/m", "v1.0.0").bulk(200_000);
    let up = Upstream::serving(&[forged(&known), unknown.clone()]);
    let database = Sumdb::knowing(std::slice::from_ref(&known));
    let server = database.serve();
    let config = text(&database.table(&server), &[&up], "verify = \"sumdb-or-trust-first\"");
    let gate = Gate::start(&config);
    for part in ["mod", "zip"] {
        assert!(gate.get(&unknown.url(part)).body == body(&unknown, part), "{part}");
        assert_eq!(gate.get(&known.url(part)).status, 502, "{part}: it has a sum there, and another one");
    }
    assert_nowhere(&gate, &forged(&known));
    let note = gate.dir.path().join("cache/.sums/u0").join(&unknown.url("zip")[1..]);
    let note = || fs::read_to_string(&note).unwrap_or_default();
    eventually("its sum is noted", || note().contains(&zip_sum(&unknown)));
    assert!(note().contains("seen") && !note().contains("proven"), "{}", note());
    // What was seen first stays, when the file is gone and the upstream says otherwise.
    eventually("both are kept", || kept(&gate).len() == 2);
    fs::remove_dir_all(gate.cache("u0")).unwrap();
    publish(&up, &forged(&unknown));
    let gate = Gate::start_in(gate.into_dir(), &config);
    for part in ["mod", "zip"] {
        let answer = gate.get(&unknown.url(part));
        // A large zip is under way before it can be judged.
        assert!(answer.status == 502 || (answer.status == 200 && !answer.whole), "{part}: {}", answer.text());
    }
    assert_eq!(kept(&gate), Vec::<String>::new());
    // A route that wants a proof is not content with it.
    publish(&up, &unknown);
    let strict = Gate::start_in(gate.into_dir(), &text(&database.table(&server), &[&up], "verify = \"sumdb\""));
    for part in ["mod", "zip"] {
        assert_eq!(strict.get(&unknown.url(part)).status, 403, "{part}");
    }
}

#[test]
fn what_was_only_seen_is_proven_when_a_route_wants_it() {
    let module = Module::new("example.com/m", "v1.0.0").bulk(200_000);
    let bad = forged(&module);
    let up = Upstream::serving(std::slice::from_ref(&bad));
    let database = Sumdb::knowing(std::slice::from_ref(&module));
    let server = database.serve();
    let lax = gate(&database.table(&server), &[&up], "verify = \"off\"");
    for part in ["mod", "zip"] {
        assert!(lax.get(&bad.url(part)).body == body(&bad, part), "{part}");
    }
    assert_eq!(lookups(&server), 0);
    eventually("they are kept", || kept(&lax).len() == 2);
    publish(&up, &module);
    let strict = Gate::start_in(lax.into_dir(), &text(&database.table(&server), &[&up], "verify = \"sumdb\""));
    for part in ["mod", "zip"] {
        assert!(strict.get(&module.url(part)).body == body(&module, part), "{part}");
    }
    eventually("the proven ones are kept", || {
        let here = |part: &str| fs::read(strict.cache("u0").join(&module.url(part)[1..])).unwrap_or_default();
        here("mod") == body(&module, "mod") && here("zip") == module.zip()
    });
}

#[test]
fn the_first_sum_of_a_private_version_outlives_its_files() {
    for bulk in [0, 400_000] {
        let module = Module::new("corp.example/m", "v1.0.0").bulk(bulk);
        let changed = forged(&module);
        let up = Upstream::serving(std::slice::from_ref(&module));
        let tables = upstream("own", &up.url(), "private = true") + &route("*", &["own"], "verify = \"off\"");
        let gate = Gate::start(&tables);
        for part in ["info", "mod", "zip"] {
            assert!(gate.get(&module.url(part)).body == body(&module, part), "{part}");
        }
        eventually("they are kept", || kept(&gate).len() == 2);
        fs::remove_dir_all(gate.cache("own")).unwrap();
        publish(&up, &changed);
        // In one process and in the next.
        let gate = Gate::start_in(gate.into_dir(), &tables);
        for part in ["mod", "zip"] {
            let answer = gate.get(&module.url(part));
            if part == "zip" && bulk > 0 {
                assert!(answer.status == 502 || !answer.whole, "{}", answer.status);
                eventually("the log says why", || gate.log().contains("modgate verify --forget corp.example/m@v1.0.0"));
                continue;
            }
            assert_eq!(answer.status, 502, "{part}");
            for wanted in ["seen first", "a version never changes", "modgate verify --forget corp.example/m@v1.0.0"] {
                assert!(answer.text().contains(wanted), "{part}: {wanted:?} is not in {}", answer.text());
            }
        }
        assert_eq!(kept(&gate), Vec::<String>::new());
        assert_nowhere(&gate, &changed);
        publish(&up, &module);
        let gate = Gate::start_in(gate.into_dir(), &tables);
        for part in ["mod", "zip"] {
            assert!(gate.get(&module.url(part)).body == body(&module, part), "{part}");
        }
    }
}

#[test]
fn a_private_version_is_the_same_from_all_upstreams_of_a_route() {
    let module = Module::new("corp.example/m", "v1.0.0");
    let (first, second) = (Upstream::serving(std::slice::from_ref(&module)), Upstream::serving(&[forged(&module)]));
    let tables = upstream("first", &first.url(), "private = true") + &upstream("second", &second.url(), "private = true");
    let tables = tables + &route("*", &["first", "second"], "verify = \"off\"\nfallback = \"any-error\"");
    let gate = Gate::start(&tables);
    assert!(gate.get(&module.url("zip")).body == module.zip());
    eventually("it is kept", || kept(&gate).len() == 1);
    fs::remove_dir_all(gate.cache("first")).unwrap();
    first.only(Reply::Status(500));
    let gate = Gate::start_in(gate.into_dir(), &tables);
    let answer = gate.get(&module.url("zip"));
    assert_eq!(answer.status, 502);
    assert!(answer.text().contains("second: corrupt: checksum mismatch"), "{}", answer.text());
    assert_eq!(kept(&gate), Vec::<String>::new());
}

#[test]
fn toolchains_are_proven_whatever_the_route_says() {
    let good = Module::new("golang.org/toolchain", "v0.0.1-go1.99.1.linux-amd64").bulk(100_000);
    let bad = Module::new("golang.org/toolchain", "v0.0.1-go1.99.2.linux-amd64");
    let unknown = Module::new("golang.org/toolchain", "v0.0.1-go1.99.3.linux-amd64");
    let up = Upstream::serving(&[good.clone(), forged(&bad), unknown.clone()]);
    let database = Sumdb::knowing(&[good.clone(), bad.clone()]);
    let server = database.serve();
    for more in ["verify = \"off\"", "verify = \"sumdb-or-trust-first\"", "verify = \"off\"\n[policy]\nmin_age = \"1s\""] {
        let table = database.table(&server) + "no_sumdb = [\"golang.org\"]\n";
        let gate = gate(&table, &[&up], more);
        assert!(gate.get(&good.url("zip")).body == good.zip());
        assert_eq!((gate.get(&bad.url("zip")).status, gate.get(&unknown.url("zip")).status), (502, 403));
        eventually("the good one is kept", || kept(&gate).len() == 1);
    }
    // Where there is nothing to prove by, there are none.
    let gate = gate("[sumdb]\ndatabases = []\n", &[&up], "");
    let answer = gate.get(&good.url("zip"));
    assert_eq!(answer.status, 502);
    assert!(answer.text().contains("no checksum database is configured"), "{}", answer.text());
    assert_eq!(gate.get(&Module::new("golang.org/toolchain", "v0.0.1-go1.99.1.linux-amd64").url("info")).status, 200);
}

#[test]
fn private_names_are_told_to_no_database() {
    let own = Module::new("corp.example/secret", "v1.0.0");
    let exempt = Module::new("example.com/exempt", "v1.0.0");
    let (private, public) = (Upstream::serving(std::slice::from_ref(&own)), Upstream::serving(std::slice::from_ref(&exempt)));
    // They would even know the answer.
    let database = Sumdb::knowing(&[own.clone(), exempt.clone()]);
    let server = database.serve();
    database.publish(&public, &database.below());
    database.publish(&private, &database.below());
    for via in ["[\"direct\"]", "[\"public\", \"direct\"]"] {
        let table = database.table(&server).replace("[\"direct\"]", via) + "no_sumdb = [\"example.com/exempt\"]\n";
        let tables = table + &upstream("private", &private.url(), "private = true") + &upstream("public", &public.url(), "");
        let routes = route("corp.example", &["private"], "")
            + &route("github.example", &["private"], "verify = \"off\"")
            + &route("example.com", &["public"], "");
        let gate = Gate::start(&(tables + &routes));
        private.forget();
        public.forget();
        server.forget();
        for module in ["corp.example/secret", "github.example/acme/secret", "nowhere.example/secret", "example.com/exempt"] {
            for prefix in ["", "/cached-only"] {
                let path = format!("{prefix}{}/lookup/{module}@v1.0.0", database.below());
                let answer = gate.get(&path);
                assert_eq!(answer.status, 404, "{path}: {}", answer.text());
            }
        }
        assert_eq!((private.asked(), public.asked(), server.asked()), (vec![], vec![], vec![]));
        // Nor are they when they are fetched.
        for module in [&own, &exempt] {
            for part in ["info", "mod", "zip"] {
                assert!(gate.get(&module.url(part)).body == body(module, part), "{} {part}", module.path);
            }
        }
        get(&gate.admin, "/-/explain?module=corp.example/secret@v1.0.0");
        let told = |up: &Upstream| up.asked().into_iter().filter(|path| path.starts_with("/sumdb/")).count();
        assert_eq!((told(&private), told(&public), server.asked().len()), (0, 0, 0));
        assert!(public.asked().iter().all(|path| !path.contains("corp.example")));
        // One that is on a public route is asked about.
        assert_eq!(gate.get(&format!("{}/lookup/example.com/open@v1.0.0", database.below())).status, 404);
        assert!(lookups(&server) + lookups(&public) > 0);
    }
}

#[test]
fn explain_and_check_say_it() {
    let (good, unknown) = (Module::new("example.com/m", "v1.0.0"), Module::new("example.com/m", "v1.1.0"));
    let large = Module::new("example.com/m", "v1.2.0").bulk(900_000);
    let own = Module::new("corp.example/m", "v1.0.0");
    let up = Upstream::serving(&[good.clone(), unknown.clone(), large.clone(), own.clone()]);
    let database = Sumdb::knowing(&[good.clone(), large.clone()]);
    let server = database.serve();
    let policy = "[policy]\ndeny = [\"github.com/evil/*\", \"example.com/m@<v0.9.0\"]\nallow = [\"example.com\", \"corp.example\"]\nmin_age = \"7d\"\n\
        min_age_exempt = [\"corp.example\"]\n";
    let tables = database.table(&server) + "no_sumdb = [\"corp.example/x\"]\n" + policy;
    let tables = tables + &upstream("u0", &up.url(), "") + &upstream("own", &up.url(), "private = true");
    let gate = Gate::start(&(tables + &route("corp.example", &["own"], "") + &route("*", &["u0"], "")));
    let said = |arguments: &[&str]| {
        let output = gate.command(arguments);
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    };
    let check = said(&["check"]);
    for wanted in [
        "(lists merged; verify off)",
        "(lists merged; verify sumdb)",
        &format!("sumdb       sum.example.org: by {}", server.url()),
        "no sumdb    for corp.example/x",
        "denied      github.com/evil/*, example.com/m@<v0.9.0",
        "allowed     example.com, corp.example, and nothing else",
        "age         versions at least 7days old, save those of corp.example",
    ] {
        assert!(check.contains(wanted), "missing {wanted:?} in:\n{check}");
    }
    // What is fetched for it, and what is kept.
    let sums = go_sum(&good);
    let sums: Vec<&str> = sums.lines().map(|line| line.rsplit(' ').next().unwrap()).collect();
    for _ in 0..2 {
        let text = said(&["explain", "example.com/m@v1.0.0"]);
        assert!(text.contains("verify sumdb (sum.example.org)"), "{text}");
        for sum in &sums {
            assert!(text.contains(&format!("{sum} proven by sum.example.org")), "missing {sum} in:\n{text}");
        }
    }
    // One that is sent on while it arrives is waited for.
    let text = said(&["explain", "example.com/m@v1.2.0"]);
    for sum in go_sum(&large).lines().map(|line| line.rsplit(' ').next().unwrap()) {
        assert!(text.contains(&format!("{sum} proven by sum.example.org")), "missing {sum} in:\n{text}");
    }
    let json = get(&gate.admin, "/-/explain?module=example.com/m@v1.0.0");
    let json: serde_json::Value = serde_json::from_slice(&json.body).unwrap();
    assert_eq!(json["verify"].as_str(), Some("sumdb (sum.example.org)"));
    assert!(json["questions"][2]["sum"].as_str().unwrap().starts_with(sums[0]), "{json}");
    let text = said(&["explain", "example.com/m@v1.1.0"]);
    assert!(text.contains("status  403") && text.contains("the checksum database does not know it"), "{text}");
    for _ in 0..2 {
        let text = said(&["explain", "corp.example/m@v1.0.0"]);
        assert!(text.contains("verify off\n") && text.contains(" seen first ") && text.contains("from own"), "{text}");
    }
    let text = said(&["explain", "github.com/evil/x@v1.0.0"]);
    assert!(text.contains("status  403") && text.contains("denied by policy.deny \"github.com/evil/*\""), "{text}");
}
