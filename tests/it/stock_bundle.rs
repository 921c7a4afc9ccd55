//! `export` and `import`: what one modgate has, proven in another that reaches nobody; and the upstream of imports there.

use std::fs;
use std::process::Stdio;

use crate::stock::Office;
use crate::support::eventually;
use crate::support::gate::{Gate, route, upstream};
use crate::support::go::Go;
use crate::support::modules::Module;
use crate::support::sumdb::{Sumdb, go_sum, zip_sum};
use crate::support::upstream::{Reply, Upstream};
use crate::verify::{body, files, forged};

pub(crate) const PARTS: [&str; 3] = ["info", "mod", "zip"];

/// Public modules, private ones, whoever has them, and the database of the public ones.
pub(crate) struct World {
    pub(crate) public: Vec<Module>,
    pub(crate) private: Vec<Module>,
    pub(crate) up: Upstream,
    pub(crate) inside: Upstream,
    pub(crate) database: Sumdb,
    pub(crate) server: Upstream,
}

impl World {
    pub(crate) fn new() -> Self {
        let public = vec![
            Module::new("example.com/m", "v1.0.0"),
            Module::new("example.com/Upper/n", "v1.2.0-RC.1").requires("example.com/m", "v1.0.0"),
            Module::new("example.com/large", "v1.0.0").bulk(600_000),
        ];
        let private = vec![Module::new("corp.example/secret", "v1.0.0").requires("example.com/m", "v1.0.0")];
        let mut database = Sumdb::knowing(&public);
        database.fill(300);
        let (up, inside, server) = (Upstream::serving(&public), Upstream::serving(&private), database.serve());
        Self { public, private, up, inside, database, server }
    }

    /// More modules in the world, after so many other records of the database.
    pub(crate) fn grow(&mut self, records: usize, modules: &[Module]) {
        self.database.fill(records);
        for module in modules {
            self.database.add(module);
            self.public.push(module.clone());
        }
        self.database.publish(&self.server, "");
        for (path, bytes) in crate::support::modules::tree(&self.public) {
            self.up.set(&path, Reply::Good(bytes));
        }
    }

    pub(crate) fn every(&self) -> Vec<Module> {
        [self.public.clone(), self.private.clone()].concat()
    }

    /// Where all is reached.
    pub(crate) fn home(&self) -> Office {
        Office::new(&self.home_text())
    }

    pub(crate) fn home_text(&self) -> String {
        let tables = upstream("inside", &self.inside.url(), "private = true\n") + &upstream("public", &self.up.url(), "");
        self.database.table(&self.server) + &tables + &route("corp.example", &["inside"], "") + &route("*", &["public"], "")
    }

    /// Where nothing is.
    pub(crate) fn away(&self) -> Office {
        Office::new(&away(&self.database))
    }

    pub(crate) fn names(modules: &[Module]) -> Vec<String> {
        modules.iter().map(|m| format!("{}@{}", m.path, m.version)).collect()
    }

    /// A bundle of these modules.
    pub(crate) fn export(home: &Office, bundle: &str, modules: &[Module]) -> String {
        let (names, path) = (Self::names(modules), home.path(bundle));
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        home.ok(&[&["export", "-o", &path][..], &names].concat());
        path
    }

    pub(crate) fn forget(&self) {
        self.up.forget();
        self.inside.forget();
        self.server.forget();
    }

    /// That nobody was asked anything.
    pub(crate) fn assert_silence(&self) {
        assert_eq!((self.up.asked(), self.inside.asked(), self.server.asked()), (vec![], vec![], vec![]));
    }
}

/// A configuration that reaches nobody.
pub(crate) fn away(database: &Sumdb) -> String {
    let upstreams = "[upstreams.own]\ntype = \"offline\"\nprivate = true\n[upstreams.imported]\ntype = \"offline\"\n";
    format!("[sumdb]\ndatabases = [\"{} http://127.0.0.1:9\"]\nvia = []\n{upstreams}", database.verifier())
        + &route("corp.example", &["own"], "")
        + &route("*", &["imported"], "")
}

pub(crate) fn assert_served(gate: &Gate, modules: &[Module]) {
    for module in modules {
        for part in PARTS {
            let answer = gate.get(&module.url(part));
            assert!(answer.status == 200 && answer.body == body(module, part), "{}: {}", module.url(part), answer.text());
        }
    }
}

/// Downloads modules and checks them by the database that the gate passes on.
fn download(gate: &Gate, world: &World, modules: &[Module]) -> String {
    let go = Go::with_proxy(&gate.url()).env("GOSUMDB", &world.database.verifier()).env("GONOSUMDB", "corp.example");
    let work = go.main_module("module example.org/main\n\ngo 1.21\n");
    let names = World::names(modules);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    // So that the sums are written down, too.
    go.ok(&[&["get"], &names[..]].concat());
    go.ok(&["mod", "download", "all"]);
    fs::read_to_string(work.join("go.sum")).unwrap()
}

#[test]
fn a_bundle_is_proven_and_served_where_nobody_is_reached() {
    let world = World::new();
    let home = world.home();
    let bundle = World::export(&home, "bundle.tar", &world.every());
    let away = world.away();
    world.forget();
    let said = away.ok(&["import", &bundle]);
    assert!(said.contains("3 look-ups proven; 12 files taken in, 0 were there already, 4 lists"), "{said}");
    let said = away.ok(&["import", &bundle]);
    assert!(said.contains("0 files taken in, 12 were there already, 4 lists"), "{said}");
    let gate = away.serve();
    assert_served(&gate, &world.every());
    world.assert_silence();
    // The go command proves it all again.
    let sums = download(&gate, &world, &world.every());
    for module in world.every() {
        assert!(sums.contains(&format!("{} {} {}\n", module.path, module.version, zip_sum(&module))), "{sums}");
    }
    world.assert_silence();
    // The sums are noted with what they rest on.
    let note = |path: &str| fs::read_to_string(gate.dir.path().join("cache/.sums").join(path)).unwrap();
    let proven = note("imported/example.com/m/@v/v1.0.0.zip");
    assert!(proven.contains(" proven sum.example.org"), "{proven}");
    let secret = note("own/corp.example/secret/@v/v1.0.0.zip");
    assert!(secret.contains(" seen first ") || secret.contains(" seen ") && secret.contains("from inside"), "{secret}");
    // In the other one it is the first that was fetched.
    let first = fs::read_to_string(home.path("cache/.sums/inside/corp.example/secret/@v/v1.0.0.zip")).unwrap();
    assert_eq!(first.split(" seen ").nth(1), secret.split(" seen ").nth(1));
}

#[test]
fn an_unpacked_bundle_is_a_goproxy_of_its_own() {
    let world = World::new();
    let home = world.home();
    let bundle = World::export(&home, "bundle.tar", &world.every());
    let to = tempfile::tempdir().unwrap();
    tar::Archive::new(fs::File::open(&bundle).unwrap()).unpack(to.path()).unwrap();
    let go = Go::with_proxy(&format!("file://{}/download", to.path().display()));
    go.main_module(
        "module example.org/main\n\ngo 1.21\n\nrequire (\n\tcorp.example/secret v1.0.0\n\texample.com/Upper/n v1.2.0-RC.1\n)\n",
    );
    go.ok(&["mod", "download", "all"]);
    assert!(go.ok(&["list", "-m", "-versions", "example.com/Upper/n"]).contains("v1.2.0-RC.1"));
}

#[test]
fn another_configuration_takes_it_in_without_asking_its_servers() {
    let world = World::new();
    let home = world.home();
    let bundle = World::export(&home, "bundle.tar", &world.every());
    let (mirror, sums) = (Upstream::always(Reply::Hang), Upstream::always(Reply::Hang));
    let tables = upstream("mirror", &mirror.url(), "") + &upstream("second", &mirror.url(), "");
    let text = world.database.table(&sums)
        + &tables
        + &upstream("team", &mirror.url(), "private = true\n")
        + &route("corp.example", &["team"], "")
        + &route("*", &["mirror", "second"], "");
    let office = Office::new(&text);
    let said = office.ok(&["import", &bundle]);
    assert!(said.contains("12 files taken in"), "{said}");
    assert!(office.kept("mirror", &world.public[0].url("zip")).is_file());
    assert!(office.kept("team", &world.private[0].url("zip")).is_file());
    // Another member of the route, by its name.
    let office = Office::new(&text);
    let said = office.fails(&["import", "--upstream", "second", &bundle]);
    assert!(said.contains("9 files taken in") && said.contains("REFUSED  corp.example/secret/@v/v1.0.0.zip: no route"), "{said}");
    assert!(office.kept("second", &world.public[0].url("zip")).is_file());
    assert!(!office.kept("mirror", &world.public[0].url("zip")).exists());
    assert!(office.fails(&["import", "--upstream", "other", &bundle]).contains("there is no upstream \"other\""));
    // Without a route for some of it, the rest comes in.
    let office = Office::new(&text.replace("match = [\"*\"]", "match = [\"example.com/m\"]"));
    let said = office.fails(&["import", &bundle]);
    assert!(said.contains("REFUSED  example.com/large/@v/v1.0.0.zip: no route leads to"), "{said}");
    assert!(said.contains("6 files taken in") && said.contains("8 files were refused"), "{said}");
    assert_eq!((mirror.asked(), sums.asked()), (vec![], vec![]));
}

#[test]
fn of_private_modules_the_sums_count_that_were_first_seen_at_home() {
    let world = World::new();
    let secret = &world.private[0];
    let home = world.home();
    let bundle = World::export(&home, "bundle.tar", &world.private);
    // What is there later does not matter: the first is kept, and is what another bundle has.
    for part in ["mod", "zip"] {
        world.inside.set(&secret.url(part), Reply::Good(body(&forged(secret), part)));
    }
    let second = World::export(&home, "second.tar", &world.private);
    let away = world.away();
    away.ok(&["import", &bundle]);
    away.ok(&["import", &second]);
    // One from elsewhere, where the other was seen first, is refused once the files are gone.
    let elsewhere = world.home();
    let other = World::export(&elsewhere, "other.tar", &world.private);
    fs::remove_dir_all(away.path("cache/own")).unwrap();
    let said = away.fails(&["import", &other]);
    for part in ["mod", "zip"] {
        assert!(said.contains(&format!("REFUSED  corp.example/secret/@v/v1.0.0.{part}: ")), "{said}");
    }
    assert!(said.contains("was seen first") && said.contains("--forget corp.example/secret@v1.0.0"), "{said}");
    assert!(!away.kept("own", &secret.url("zip")).exists());
    away.ok(&["import", &bundle]);
    // Told so, it takes the other.
    away.ok(&["verify", "--forget", "corp.example/secret@v1.0.0"]);
    away.ok(&["import", &other]);
    assert!(fs::read(away.kept("own", &secret.url("zip"))).unwrap() == forged(secret).zip());
}

#[test]
fn later_bundles_are_of_the_same_history_and_their_lists_are_added() {
    let mut world = World::new();
    let home = world.home();
    let mut bundles = vec![(World::export(&home, "0.tar", &world.every()), world.every())];
    for (n, records) in [700, 3, 2000].into_iter().enumerate() {
        let more =
            [Module::new("example.com/m", &format!("v1.{}.0", n + 1)), Module::new(&format!("example.com/later{n}"), "v1.0.0")];
        world.grow(records, &more);
        bundles.push((World::export(&home, &format!("{}.tar", n + 1), &more), more.to_vec()));
    }
    world.forget();
    // One may be left out, and come later where what it is the end of was proven.
    for order in [&[0, 1, 2, 3][..], &[0, 1, 3, 2, 0], &[3, 3]] {
        let away = world.away();
        for at in order {
            away.ok(&["import", &bundles[*at].0]);
        }
        let there: Vec<Module> = order.iter().flat_map(|at| bundles[*at].1.clone()).collect();
        let gate = away.serve();
        assert_served(&gate, &there);
        let list = gate.get("/example.com/m/@v/list").text();
        let wanted = if order.len() > 2 { "v1.0.0\nv1.1.0\nv1.2.0\nv1.3.0\n" } else { "v1.3.0\n" };
        assert_eq!(list, wanted, "{order:?}");
        assert!(gate.get("/example.com/m/@latest").text().contains("v1.3.0"));
        download(&gate, &world, &bundles[3].1);
        let head = fs::read_to_string(gate.dir.path().join("cache/.sumdb/sum.example.org/latest")).unwrap();
        assert_eq!(head, world.database.head(), "{order:?}: the newest is kept");
    }
    world.assert_silence();
}

#[test]
fn what_was_imported_is_exported_again() {
    let mut world = World::new();
    let home = world.home();
    let first = World::export(&home, "first.tar", &world.every());
    let middle = world.away();
    middle.ok(&["import", &first]);
    world.grow(500, &[Module::new("example.com/later", "v1.0.0")]);
    let second = World::export(&home, "second.tar", &world.public[3..]);
    let (end, again) = (world.away(), World::export(&middle, "again.tar", &world.every()[..3]));
    end.ok(&["import", &again]);
    middle.ok(&["import", &second]);
    world.forget();
    let all = World::export(&middle, "all.tar", &world.every());
    end.ok(&["import", &all]);
    assert_served(&end.serve(), &world.every());
    let fresh = world.away();
    fresh.ok(&["import", &all]);
    assert_served(&fresh.serve(), &world.every());
    world.assert_silence();
}

#[test]
fn what_could_not_be_had_makes_no_bundle() {
    let world = World::new();
    let home = world.home();
    fs::write(home.path("old.tar"), "old").unwrap();
    world.up.set(&world.public[0].url("zip"), Reply::Status(500));
    let (names, path) = (World::names(&world.public), home.path("old.tar"));
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let said = home.fails(&[&["export", "-o", &path][..], &names].concat());
    assert!(said.contains("example.com/m/@v/v1.0.0.zip: ") && said.contains("1 files could not be had"), "{said}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "old");
    world.up.set(&world.public[0].url("zip"), Reply::Good(world.public[0].zip()));
    World::export(&home, "old.tar", &world.public);
    assert!(fs::metadata(&path).unwrap().len() > 600_000);
    let names: Vec<String> =
        fs::read_dir(home.dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    assert!(names.iter().all(|n| !n.starts_with('.')), "{names:?}");
}

#[test]
fn an_import_that_was_killed_leaves_whole_files_and_is_repeated() {
    let mut world = World::new();
    let many: Vec<Module> = (0..40).map(|n| Module::new("example.com/many", &format!("v1.{n}.0")).bulk(200_000)).collect();
    world.grow(1, &many);
    let home = world.home();
    let bundle = World::export(&home, "bundle.tar", &world.every());
    let away = world.away();
    let mut command = away.command(&["import", &bundle]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    eventually("some are there", || away.kept("imported", &many[2].url("zip")).exists() || child.try_wait().unwrap().is_some());
    child.kill().unwrap();
    child.wait().unwrap();
    for (name, bytes) in files(std::path::Path::new(&away.path("cache/imported"))) {
        let of = world.public.iter().find(|m| PARTS.iter().any(|part| m.url(part)[1..] == name));
        let module = of.unwrap_or_else(|| panic!("{name}"));
        assert!(PARTS.iter().any(|part| body(module, part) == bytes), "{name} is whole");
    }
    away.ok(&["import", &bundle]);
    assert_eq!(fs::read_dir(away.path("cache/.tmp")).unwrap().count(), 0);
    assert_served(&away.serve(), &world.every());
}

#[test]
fn an_import_beside_a_server_is_served_at_once() {
    let mut world = World::new();
    let home = world.home();
    let first = World::export(&home, "first.tar", &world.every());
    world.grow(400, &[Module::new("example.com/m", "v1.1.0")]);
    let second = World::export(&home, "second.tar", &world.public[3..]);
    let gate = world.away().serve();
    assert_eq!(gate.get(&world.public[0].url("zip")).status, 404);
    for (bundle, modules) in [(&first, &world.every()[..3]), (&second, &world.public[3..])] {
        let output = gate.command(&["import", bundle]);
        assert!(output.status.success(), "{output:?}");
        assert_served(&gate, modules);
        for module in modules {
            let path = format!("{}/lookup/{}@{}", world.database.below(), module.path, module.version);
            let answer = gate.get(&path.replace("Upper", "!upper").replace("RC", "!r!c"));
            assert!(answer.text().contains(&go_sum(module)), "{path}: {}", answer.text());
        }
    }
    assert_eq!(gate.get(&format!("{}/latest", world.database.below())).text(), world.database.head());
    download(&gate, &world, &world.every()[1..]);
}

#[test]
fn an_offline_upstream_has_what_was_imported_and_nothing_else() {
    let world = World::new();
    let home = world.home();
    let bundle = World::export(&home, "bundle.tar", &world.every());
    let away = world.away();
    away.ok(&["import", &bundle]);
    let gate = away.serve();
    assert_served(&gate, &world.every());
    for (module, version) in
        [("example.com/m", "v1.0.0"), ("example.com/!upper/n", "v1.2.0-RC.1"), ("corp.example/secret", "v1.0.0")]
    {
        let list = gate.get(&format!("/{module}/@v/list"));
        assert_eq!((list.status, list.text()), (200, format!("{version}\n")), "{module}");
        let latest = gate.get(&format!("/{module}/@latest"));
        assert!(latest.status == 200 && latest.text().contains(version), "{module}: {}", latest.text());
    }
    for absent in [
        "/example.com/m/@v/v1.0.1.info",
        "/example.com/m/@v/v1.0.1.mod",
        "/example.com/m/@v/v1.0.1.zip",
        "/example.com/m/@v/main.info",
        "/example.com/@v/list",
        "/example.com/@latest",
        "/example.com/other/@v/list",
        "/example.com/m/v2/@v/list",
        "/corp.example/other/@v/list",
        "/corp.example/secret/@v/v1.1.0.zip",
        "/golang.org/toolchain/@v/v0.0.1-go1.26.8.linux-amd64.zip",
    ] {
        assert_eq!(gate.get(absent).status, 404, "{absent}");
    }
    let probe = gate.command(&["check", "--probe"]);
    assert!(probe.status.success() && String::from_utf8_lossy(&probe.stdout).contains("offline: nothing to be reached"));
    // The go command goes on to the parents of a package's path, and finds the module.
    let go = Go::with_proxy(&gate.url()).env("GOSUMDB", &world.database.verifier()).env("GONOSUMDB", "corp.example");
    let work = go.main_module("module example.org/main\n\ngo 1.21\n");
    fs::write(
        work.join("main.go"),
        "package main\n\nimport (\n\t_ \"corp.example/secret\"\n\t_ \"example.com/large\"\n)\n\nfunc main() {}\n",
    )
    .unwrap();
    go.ok(&["mod", "tidy"]);
    go.ok(&["build", "-o", "built", "."]);
    go.fails(&["get", "example.com/m/none"]);
    world.assert_upstreams_were_asked_at_home_only(&gate);
}

impl World {
    fn assert_upstreams_were_asked_at_home_only(&self, gate: &Gate) {
        let before = (self.up.asked().len(), self.server.asked().len());
        assert_eq!(gate.get("/example.com/never/@v/list").status, 404);
        assert_eq!((self.up.asked().len(), self.server.asked().len()), before);
    }
}

#[test]
fn imports_are_never_evicted() {
    let world = World::new();
    let home = world.home();
    let bundle = World::export(&home, "bundle.tar", &world.every());
    let text = format!("[cache]\nmax_size = \"1KiB\"\n\n{}", away(&world.database));
    let office = Office::new(&text);
    office.ok(&["import", &bundle]);
    let old = fs::FileTimes::new().set_accessed(std::time::SystemTime::UNIX_EPOCH);
    for folder in ["imported", "own", ".sumdb"] {
        for (name, _) in files(std::path::Path::new(&office.path("cache")).join(folder).as_path()) {
            let file = fs::File::options().append(true).open(office.path(&format!("cache/{folder}/{name}"))).unwrap();
            file.set_times(old).unwrap();
        }
    }
    let said = office.ok(&["gc", "--max-size", "1B"]);
    assert!(said.contains("0 files removed") && said.contains("kept on purpose"), "{said}");
    // The server has counted when it is up for a moment.
    let gate = office.serve();
    assert_served(&gate, &world.every());
    let said = gate.command(&["gc", "--max-size", "0B", "--private-too"]);
    assert!(String::from_utf8_lossy(&said.stdout).contains("files removed"), "{said:?}");
}
