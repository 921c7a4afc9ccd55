//! Corners of the commands that keep the cache: what a bundle, a disk or a person can do to them.

use std::fs;
use std::io::Read;

use crate::stock::Office;
use crate::stock_bundle::World;
use crate::support::gate::{route, upstream};
use crate::support::modules::Module;
use crate::support::sumdb::{Sumdb, go_mod_sum, zip_sum};
use crate::support::upstream::{Reply, Upstream};
use crate::verify::{body, forged};

/// The entries of a bundle: names and contents.
fn read(bundle: &str) -> Vec<(String, Vec<u8>)> {
    let mut archive = tar::Archive::new(fs::File::open(bundle).unwrap());
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        (String::from_utf8(entry.path_bytes().into_owned()).unwrap(), bytes)
    });
    entries.collect()
}

fn tar_of(entries: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, bytes) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, &bytes[..]).unwrap();
    }
    tar.into_inner().unwrap()
}

fn world() -> (World, Vec<(String, Vec<u8>)>) {
    let world = World::new();
    let home = world.home();
    let entries = read(&World::export(&home, "bundle.tar", &world.every()));
    (world, entries)
}

fn import(office: &Office, entries: &[(String, Vec<u8>)]) -> (Option<i32>, String) {
    let path = office.path("bundle.tar");
    fs::write(&path, tar_of(entries)).unwrap();
    office.run(&["import", &path], "")
}

#[test]
fn a_look_at_one_damaged_tile_removes_nothing_that_nobody_can_give_again() {
    let (world, entries) = world();
    let away = world.away();
    assert_eq!(import(&away, &entries).0, Some(0));
    let mut bytes = fs::read(away.path("cache/.sumdb/sum.example.org/tile/8/1/000.p/1")).unwrap();
    bytes[3] ^= 1;
    fs::write(away.path("cache/.sumdb/sum.example.org/tile/8/1/000.p/1"), bytes).unwrap();
    let (code, said) = away.run(&["verify"], "");
    assert!(fs::metadata(away.path("cache/.sumdb/sum.example.org/lookup/example.com/m@v1.0.0")).is_ok(), "{said}");
    assert_eq!(code, Some(1), "it has found something bad: {said}");
}

#[test]
fn a_long_word_on_what_was_seen_first_does_no_harm() {
    let (world, mut entries) = world();
    let secret = &world.private[0];
    for (part, sum) in [("mod", go_mod_sum(secret)), ("zip", zip_sum(secret))] {
        let note = entries.iter_mut().find(|(name, _)| *name == format!("sums{}", secret.url(part))).unwrap();
        note.1 = format!("{sum} - seen {}\n", "x".repeat(10_000)).into_bytes();
    }
    let away = world.away();
    let (code, said) = import(&away, &entries);
    let gate = away.serve();
    for part in ["mod", "zip"] {
        let status = gate.get(&secret.url(part)).status;
        assert!(status == 200 || code == Some(1) && status == 404, "{part}: {status}: {said}");
    }
    let output = gate.command(&["verify"]);
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn a_note_of_what_was_seen_first_is_one_line_of_printable_words() {
    let (world, mut entries) = world();
    let secret = &world.private[0];
    let note = entries.iter_mut().find(|(name, _)| *name == format!("sums{}", secret.url("zip"))).unwrap();
    note.1 = format!("{} - seen now\u{1b}[2J\nall is well\n", zip_sum(secret)).into_bytes();
    let away = world.away();
    import(&away, &entries);
    let kept = fs::read_to_string(away.path("cache/.sums/own/corp.example/secret/@v/v1.0.0.zip")).unwrap_or_default();
    assert!(kept.lines().count() <= 1 && !kept.contains('\u{1b}'), "{kept:?}");
}

#[test]
fn a_version_that_was_refused_is_not_listed() {
    let (world, mut entries) = world();
    let evil = forged(&world.public[0]);
    let zip = entries.iter_mut().find(|(name, _)| name.ends_with("example.com/m/@v/v1.0.0.zip")).unwrap();
    zip.1 = evil.zip();
    let list = entries.iter_mut().find(|(name, _)| name.ends_with("example.com/m/@v/list")).unwrap();
    list.1 = b"v1.0.0\nv9.9.9\n".to_vec();
    let away = world.away();
    assert_eq!(import(&away, &entries).0, Some(1));
    let listed = away.serve().get("/example.com/m/@v/list");
    assert_eq!(listed.status, 404, "{}", listed.text());
}

#[test]
fn a_list_that_is_none_is_refused() {
    let (world, mut entries) = world();
    let list = entries.iter_mut().find(|(name, _)| name.ends_with("example.com/m/@v/list")).unwrap();
    list.1 = b"<html>\nv1.0.0\xff\n".to_vec();
    let away = world.away();
    let (code, said) = import(&away, &entries);
    assert!(code == Some(1) && said.contains("example.com/m/@v/list"), "{said}");
    // The zip is good all the same.
    assert_eq!(away.serve().get("/example.com/m/@latest").status, 200);
}

#[test]
fn an_import_hides_no_versions_that_an_upstream_has() {
    let world = World::new();
    let home = world.home();
    let bundle = World::export(&home, "bundle.tar", &world.public);
    let newer = Module::new("example.com/m", "v1.1.0");
    world.up.set("/example.com/m/@v/list", Reply::Good(b"v1.0.0\nv1.1.0\n".to_vec()));
    for part in ["info", "mod", "zip"] {
        world.up.set(&newer.url(part), Reply::Good(body(&newer, part)));
    }
    let other = world.home();
    other.ok(&["import", &bundle]);
    assert_eq!(other.serve().get("/example.com/m/@v/list").text(), "v1.0.0\nv1.1.0\n");
}

#[test]
fn a_bundle_that_was_cut_between_two_files_is_not_whole() {
    let (world, entries) = world();
    // Without the blocks of zeros that end a tar.
    let whole = tar_of(&entries[..entries.len() - 6]);
    let away = world.away();
    fs::write(away.path("cut.tar"), &whole[..whole.len() - 1024]).unwrap();
    let said = away.fails(&["import", &away.path("cut.tar")]);
    assert!(said.contains("not a whole bundle"), "{said}");
}

#[test]
fn an_older_bundle_is_proven_after_a_newer_one_alone() {
    let mut world = World::new();
    let home = world.home();
    let older = World::export(&home, "older.tar", &world.every());
    let later = [Module::new("example.com/later", "v1.0.0")];
    world.grow(2000, &later);
    let newer = World::export(&home, "newer.tar", &later);
    let away = world.away();
    away.ok(&["import", &newer]);
    // The newer one had what proves it, but nothing of that was kept.
    away.ok(&["import", &older]);
}

#[test]
fn a_private_file_that_differs_from_the_kept_one_is_said() {
    let world = World::new();
    let (home, elsewhere) = (world.home(), world.home());
    let first = World::export(&home, "first.tar", &world.private);
    for part in ["mod", "zip"] {
        world.inside.set(&world.private[0].url(part), Reply::Good(body(&forged(&world.private[0]), part)));
    }
    let other = World::export(&elsewhere, "other.tar", &world.private);
    let away = world.away();
    away.ok(&["import", &first]);
    let said = away.fails(&["import", &other]);
    assert!(said.contains("REFUSED  corp.example/secret/@v/v1.0.0.zip"), "{said}");
}

#[test]
fn one_name_that_no_disk_takes_does_not_stop_the_rest() {
    let (world, mut entries) = world();
    let long = "x".repeat(300);
    let first = entries.iter().position(|(name, _)| name.starts_with("download/")).unwrap();
    entries.insert(first, (format!("download/example.com/{long}/@v/v1.0.0.info"), b"{\"Version\":\"v1.0.0\"}".to_vec()));
    let away = world.away();
    let (code, said) = import(&away, &entries);
    assert!(code == Some(1) && said.contains("12 files taken in"), "{said}");
}

#[test]
fn a_go_mod_with_a_local_replacement_is_no_hindrance() {
    let module = Module::new("example.com/m", "v1.0.0");
    let up = Upstream::serving(std::slice::from_ref(&module));
    let office = Office::new(&(upstream("u", &up.url(), "") + &route("*", &["u"], "")));
    let text = "module example.org/main\n\ngo 1.21\n\nrequire (\n\texample.com/m v1.0.0\n\texample.org/beside v0.0.0\n)\n\n\
                replace example.org/beside => ../beside\n";
    office.ok(&["warm", &office.write("go.mod", text)]);
}

#[test]
fn what_could_not_be_stored_fails_a_warm_run() {
    let module = Module::new("example.com/m", "v1.0.0");
    let up = Upstream::serving(std::slice::from_ref(&module));
    let office = Office::new(&(upstream("u", &up.url(), "") + &route("*", &["u"], "")));
    fs::create_dir_all(office.path("cache/u")).unwrap();
    // As on a full disk, nothing can be kept below this.
    fs::write(office.path("cache/u/example.com"), "").unwrap();
    let said = office.fails(&["warm", "example.com/m@v1.0.0"]);
    assert!(said.contains("example.com/m"), "{said}");
}

#[test]
fn more_jobs_than_fetches_are_allowed_wait_for_their_turn() {
    let modules: Vec<Module> = (0..40).map(|n| Module::new("example.com/m", &format!("v1.{n}.0"))).collect();
    let up = Upstream::serving(&modules);
    let office = Office::new(&(upstream("u", &up.url(), "") + &route("*", &["u"], "")));
    let config = fs::read_to_string(office.path("modgate.toml")).unwrap();
    office.write("modgate.toml", &config.replace("[server]\n", "[server]\nmax_fetches = 4\n"));
    let names: Vec<String> = modules.iter().map(|m| format!("{}@{}", m.path, m.version)).collect();
    office.ok(&["warm", "--jobs", "64", &office.write("list", &names.join("\n"))]);
}

#[test]
fn verify_goes_on_past_a_file_that_cannot_be_read() {
    let modules = [Module::new("example.com/m", "v1.0.0"), Module::new("example.com/n", "v1.0.0")];
    let up = Upstream::serving(&modules);
    let database = Sumdb::knowing(&modules);
    let server = database.serve();
    let office = Office::new(&(database.table(&server) + &upstream("u", &up.url(), "") + &route("*", &["u"], "")));
    office.ok(&["warm", "example.com/m@v1.0.0", "example.com/n@v1.0.0"]);
    let large = fs::File::options().write(true).open(office.kept("u", &modules[0].url("mod"))).unwrap();
    large.set_len(20 << 20).unwrap();
    let said = office.fails(&["verify"]);
    assert!(said.contains("BAD  u/example.com/m/@v/v1.0.0.mod") && said.contains("4 files: "), "{said}");
}

#[test]
fn a_version_of_a_private_directory_can_be_forgotten() {
    let module = Module::new("corp.example/m", "v1.0.0");
    let dir = tempfile::tempdir().unwrap();
    let put = |module: &Module| {
        for part in ["info", "mod", "zip"] {
            let path = dir.path().join(&module.url(part)[1..]);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, body(module, part)).unwrap();
        }
    };
    put(&module);
    let text = format!("[upstreams.tree]\ntype = \"directory\"\npath = {:?}\nprivate = true\n", dir.path().display().to_string());
    let office = Office::new(&(text + &route("*", &["tree"], "")));
    office.ok(&["warm", "corp.example/m@v1.0.0"]);
    put(&forged(&module));
    let said = office.fails(&["warm", "corp.example/m@v1.0.0"]);
    assert!(said.contains("modgate verify --forget corp.example/m@v1.0.0"), "{said}");
    office.ok(&["verify", "--forget", "corp.example/m@v1.0.0"]);
    office.ok(&["warm", "corp.example/m@v1.0.0"]);
}

#[test]
fn what_a_bundle_says_of_first_sights_has_a_bound() {
    let (world, mut entries) = world();
    let sum = zip_sum(&world.private[0]);
    let note = format!("{sum} - seen {}\n", "x".repeat(8 << 20)).into_bytes();
    entries.insert(1, ("sums/x".into(), note));
    let away = world.away();
    let (code, said) = import(&away, &entries);
    assert!(code == Some(1) && said.contains("REFUSED  sums/x") && said.contains("12 files taken in"), "{code:?} {said}");
}

#[test]
fn a_version_whose_zip_was_refused_is_not_the_latest() {
    let (world, mut entries) = world();
    entries.retain(|(name, _)| !name.contains("/lookup/example.com/m@"));
    let away = world.away();
    assert_eq!(import(&away, &entries).0, Some(1));
    let gate = away.serve();
    // Else the go command takes it for the latest, and cannot have it.
    let answer = gate.get("/example.com/m/@latest");
    assert_eq!(answer.status, 404, "{}", answer.text());
}
