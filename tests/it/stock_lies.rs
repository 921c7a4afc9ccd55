//! Bundles that somebody changed on their way: what is not proven is refused by name, and the rest comes in.

use std::fs;
use std::io::{Cursor, Read};
use std::path::Path;

use tar::{Archive, Builder, EntryType, Header};

use crate::stock::Office;
use crate::stock_bundle::{World, assert_served};
use crate::support::modules::Module;
use crate::support::sumdb::{Sumdb, go_sum};
use crate::verify::{body, files, forged};

/// One entry of a tar.
#[derive(Clone)]
struct Entry {
    name: Vec<u8>,
    kind: EntryType,
    link: String,
    bytes: Vec<u8>,
    /// What its head says of its length.
    length: Option<u64>,
}

impl Entry {
    fn file(name: &str, bytes: &[u8]) -> Self {
        Self { name: name.into(), kind: EntryType::Regular, link: String::new(), bytes: bytes.to_vec(), length: None }
    }

    fn link(name: &str, kind: EntryType, to: &str) -> Self {
        Self { kind, link: to.to_owned(), ..Self::file(name, b"") }
    }

    fn name(&self) -> String {
        String::from_utf8_lossy(&self.name).into_owned()
    }
}

fn read(bundle: &str) -> Vec<Entry> {
    let mut archive = Archive::new(fs::File::open(bundle).unwrap());
    let entry = |entry: std::io::Result<tar::Entry<'_, fs::File>>| {
        let mut entry = entry.unwrap();
        let name = entry.path_bytes().into_owned();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        Entry { name, bytes, ..Entry::file("", b"") }
    };
    archive.entries().unwrap().map(entry).collect()
}

fn tar_of(entries: &[Entry]) -> Vec<u8> {
    let mut tar = Builder::new(Vec::new());
    for entry in entries {
        let mut header = Header::new_gnu();
        header.set_size(entry.length.unwrap_or(entry.bytes.len() as u64));
        header.set_entry_type(entry.kind);
        if !entry.link.is_empty() {
            header.as_old_mut().linkname[..entry.link.len()].copy_from_slice(entry.link.as_bytes());
        }
        // Past what the library takes for a good name.
        assert!(entry.name.len() <= 100, "{}", entry.name());
        header.as_old_mut().name[..entry.name.len()].copy_from_slice(&entry.name);
        header.set_cksum();
        tar.append(&header, Cursor::new(&entry.bytes)).unwrap();
    }
    tar.into_inner().unwrap()
}

/// A world, its bundle's entries, and where it is taken in.
fn world() -> (World, Vec<Entry>) {
    let world = World::new();
    let home = world.home();
    let entries = read(&World::export(&home, "bundle.tar", &world.every()));
    (world, entries)
}

/// Takes a changed bundle in, which has to fail.
fn refused(office: &Office, entries: &[Entry]) -> String {
    let path = office.path("lie.tar");
    fs::write(&path, tar_of(entries)).unwrap();
    office.fails(&["import", &path])
}

fn at<'a>(entries: &'a mut [Entry], name: &str) -> &'a mut Entry {
    entries.iter_mut().find(|e| e.name() == name).unwrap_or_else(|| panic!("no {name}"))
}

#[test]
fn two_imports_at_once_come_to_the_same_as_one() {
    let (world, entries) = world();
    let away = world.away();
    let path = away.path("good.tar");
    fs::write(&path, tar_of(&entries)).unwrap();
    for _ in 0..4 {
        std::thread::scope(|scope| {
            let both = [(); 3].map(|()| scope.spawn(|| away.ok(&["import", &path])));
            for one in both {
                assert!(one.join().unwrap().contains("3 look-ups proven"));
            }
        });
        assert_only(&away, &world.every());
        assert!(away.ok(&["verify"]).contains("8 files: 6 as the checksum database has them, 2 as first seen"));
        fs::remove_dir_all(away.path("cache")).unwrap();
    }
}

/// That no file of the cache is anything but a part of these modules.
fn assert_only(office: &Office, modules: &[Module]) {
    for upstream in ["imported", "own"] {
        for (name, bytes) in files(Path::new(&office.path("cache")).join(upstream).as_path()) {
            let good = name.ends_with("/@v/list")
                || modules.iter().any(|m| ["info", "mod", "zip"].iter().any(|p| m.url(p)[1..] == name && body(m, p) == bytes));
            assert!(good, "{upstream}/{name}");
        }
    }
}

#[test]
fn files_that_are_not_what_the_database_has_are_refused_and_the_rest_comes_in() {
    let (world, entries) = world();
    let m = &world.public[0];
    let evil = forged(m);
    let mut one_byte = m.zip();
    let middle = one_byte.len() / 3;
    one_byte[middle] ^= 1;
    let zip = "download/example.com/m/@v/v1.0.0.zip";
    let go_mod = "download/example.com/m/@v/v1.0.0.mod";
    let info = "download/example.com/m/@v/v1.0.0.info";
    for (name, bytes, why) in [
        (zip, one_byte, ""),
        (zip, evil.zip(), "checksum mismatch"),
        (zip, world.public[1].zip(), ""),
        (zip, Vec::new(), ""),
        (zip, b"no zip".to_vec(), ""),
        (zip, m.zip()[..m.zip().len() - 10].to_vec(), ""),
        (go_mod, body(&evil, "mod"), "checksum mismatch"),
        (go_mod, body(&world.public[1], "mod"), "checksum mismatch"),
        (go_mod, b"<html>".to_vec(), ""),
        (info, world.public[1].info(), "it speaks of v1.2.0-RC.1"),
        (info, b"{}".to_vec(), ""),
    ] {
        let mut lie = entries.clone();
        at(&mut lie, name).bytes = bytes;
        let away = world.away();
        let said = refused(&away, &lie);
        let short = name.strip_prefix("download/").unwrap();
        assert!(said.contains(&format!("REFUSED  {short}: ")) && said.contains(why), "{name}: {said}");
        assert!(said.contains("11 files taken in") && said.contains("1 files were refused"), "{said}");
        assert_only(&away, &world.every());
        // The right one comes in later.
        let path = away.path("good.tar");
        fs::write(&path, tar_of(&entries)).unwrap();
        assert!(away.ok(&["import", &path]).contains("1 files taken in, 11 were there already"));
        assert_served(&away.serve(), &world.every());
    }
}

#[test]
fn private_files_are_held_against_the_sums_that_come_along() {
    let (world, entries) = world();
    let evil = forged(&world.private[0]);
    for part in ["mod", "zip"] {
        let mut lie = entries.clone();
        at(&mut lie, &format!("download/corp.example/secret/@v/v1.0.0.{part}")).bytes = body(&evil, part);
        let away = world.away();
        let said = refused(&away, &lie);
        assert!(said.contains(&format!("REFUSED  corp.example/secret/@v/v1.0.0.{part}: ")), "{said}");
        assert!(said.contains("checksum mismatch"), "{said}");
        assert_only(&away, &world.every());
    }
    // What was first seen elsewhere counts for nothing where the database has a say.
    let public = forged(&world.public[0]);
    let mut lie = entries.clone();
    for part in ["mod", "zip"] {
        let sum = if part == "mod" { crate::support::sumdb::go_mod_sum(&public) } else { crate::support::sumdb::zip_sum(&public) };
        at(&mut lie, &format!("download/example.com/m/@v/v1.0.0.{part}")).bytes = body(&public, part);
        for standing in ["seen 2024-01-01T00:00:00Z from x", "proven sum.example.org"] {
            let note = format!("{sum} - {standing}\n");
            lie.insert(1, Entry::file(&format!("sums/example.com/m/@v/v1.0.0.{part}"), note.as_bytes()));
        }
    }
    let away = world.away();
    let said = refused(&away, &lie);
    assert!(said.contains("2 files were refused") && said.contains("10 files taken in"), "{said}");
    assert_only(&away, &world.every());
}

#[test]
fn what_the_database_did_not_sign_proves_nothing() {
    let (world, entries) = world();
    let base = "sumdb/sum.example.org";
    let lookup = format!("{base}/lookup/example.com/m@v1.0.0");
    let evil = forged(&world.public[0]);
    let with = |name: &str, change: &dyn Fn(&mut Vec<u8>)| {
        let mut lie = entries.clone();
        change(&mut at(&mut lie, name).bytes);
        lie
    };
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let other_sum = |bytes: &mut Vec<u8>| {
        *bytes = text(bytes).replace(&go_sum(&world.public[0]), &go_sum(&evil)).into_bytes();
    };
    let mut lie = with(&lookup, &other_sum);
    at(&mut lie, "download/example.com/m/@v/v1.0.0.zip").bytes = evil.zip();
    at(&mut lie, "download/example.com/m/@v/v1.0.0.mod").bytes = body(&evil, "mod");
    let gone = entries.iter().filter(|e| e.name() != lookup).cloned().collect::<Vec<_>>();
    let other_key = Sumdb::new("sum.example.org");
    let unsigned = with(&lookup, &|bytes| {
        let (record, head) = {
            let text = text(bytes);
            let at = text.find("go.sum database tree").unwrap();
            (text[..at].to_owned(), text[at..].to_owned())
        };
        *bytes = (record + &other_key.signed(&head[..=head.find("\n\n").unwrap()])).into_bytes();
    });
    for (what, lie, whys) in [
        ("another sum", lie, &["another in its signed tree", "lookup/example.com/m@v1.0.0"][..]),
        ("a look-up less", gone, &["example.com/m/@v/v1.0.0.zip: "]),
        ("another key", unsigned, &["not signed"]),
        ("no record", with(&lookup, &|bytes| bytes.clear()), &["lookup/example.com/m@v1.0.0"]),
        (
            "another's look-up",
            with(&lookup, &|bytes| *bytes = entries.iter().find(|e| e.name().ends_with("large@v1.0.0")).unwrap().bytes.clone()),
            &["says nothing of this version"],
        ),
    ] {
        let away = world.away();
        let said = refused(&away, &lie);
        assert!(whys.iter().all(|why| said.contains(why)), "{what}: {said}");
        for part in ["mod", "zip"] {
            assert!(said.contains(&format!("REFUSED  example.com/m/@v/v1.0.0.{part}: ")), "{what}: {said}");
            assert!(!away.kept("imported", &world.public[0].url(part)).exists(), "{what}");
        }
        assert!(said.contains("2 look-ups proven"), "{what}: {said}");
        assert_only(&away, &world.every());
    }
    // A tile that does not fit: what it would prove is refused, private modules come in.
    for tile in entries.iter().map(Entry::name).filter(|n| n.contains("/tile/")) {
        let away = world.away();
        let said = refused(&away, &with(&tile, &|bytes| bytes[20] ^= 1));
        assert!(
            said.contains("REFUSED  sumdb/sum.example.org/lookup/") && said.contains("does not fit the signed tree"),
            "{tile}: {said}"
        );
        assert!(away.kept("own", &world.private[0].url("zip")).exists());
        assert_only(&away, &world.every());
        let path = away.path("good.tar");
        fs::write(&path, tar_of(&entries)).unwrap();
        away.ok(&["import", &path]);
        assert_served(&away.serve(), &world.every());
    }
}

#[test]
fn another_history_than_the_kept_one_is_refused() {
    let (world, entries) = world();
    let away = world.away();
    let path = away.path("good.tar");
    fs::write(&path, tar_of(&entries)).unwrap();
    away.ok(&["import", &path]);
    let head = fs::read_to_string(away.path("cache/.sumdb/sum.example.org/latest")).unwrap();
    // The same name and key, and its first records; larger and smaller than the kept one.
    for (fill, evidence) in [(900, 1), (20, 2)] {
        let new = Module::new("example.com/new", "v1.0.0");
        let mut forked = world.database.fork(4);
        forked.add(&forged(&world.public[0]));
        forked.add(&new);
        forked.fill(fill);
        let of_fork = |(path, bytes): (String, Vec<u8>)| Entry::file(&format!("sumdb/sum.example.org{path}"), &bytes);
        let wanted = |path: &str| path.contains("/tile/") || path == "/latest" || path.contains("/new@");
        let mut lie = vec![entries[0].clone()];
        lie.extend(forked.answers().into_iter().filter(|(path, _)| wanted(path)).map(of_fork));
        lie.extend(["mod", "zip"].map(|part| Entry::file(&format!("download{}", new.url(part)), &body(&new, part))));
        lie.extend(entries.last().cloned());
        let said = refused(&away, &lie);
        assert!(said.contains("SECURITY: the database sum.example.org has signed two trees"), "{said}");
        assert!(said.contains("3 files were refused"), "{said}");
        assert_only(&away, &world.every());
        assert_eq!(fs::read_to_string(away.path("cache/.sumdb/sum.example.org/latest")).unwrap(), head);
        assert_eq!(fs::read_dir(away.path("cache/.sumdb/sum.example.org/evidence")).unwrap().count(), evidence);
    }
    assert_served(&away.serve(), &world.every());
}

#[test]
fn names_lead_nowhere_but_into_the_cache() {
    let (world, entries) = world();
    let zip = world.public[0].zip();
    let long = format!("download/{}/@v/v1.0.0.mod", "a.b/".to_owned() + &"x".repeat(60));
    let tricks = vec![
        Entry::file("../escape", b"x"),
        Entry::file("download/../../escape/@v/v1.0.0.zip", &zip),
        Entry::file("download/../imported/example.com/m/@v/v1.0.0.zip", &zip),
        Entry::file("/download/example.com/x/@v/v1.0.0.zip", &zip),
        Entry::file("/etc/escape", b"x"),
        Entry::file("./download/example.com/x/@v/v1.0.0.zip", &zip),
        Entry::file("download//example.com/x/@v/v1.0.0.zip", &zip),
        Entry::file("download/.sums/x", b"x"),
        Entry::file("download/.sums/imported/example.com/m/@v/v1.0.0.mod", b"module x\n"),
        Entry::file("download/example.com/m/@latest", b"{\"Version\":\"v9.0.0\"}"),
        Entry::file("download/example.com/m/@v/main.info", b"{\"Version\":\"v1.0.0\"}"),
        Entry::file("download/example.com/m/@v/v1.0.0.lock", b"x"),
        Entry::file("download/example.com/m/@v/%2e%2e.info", b"x"),
        Entry::file("download/example.com/M/@v/v1.0.0.info", b"x"),
        Entry::file("sumdb/sum.other.example/latest", b"x"),
        Entry::file("sumdb/sum.example.org/../../escape", b"x"),
        Entry::file("sumdb/sum.example.org/tile/8/0/../../../../escape", b"x"),
        Entry::file("sumdb/sum.example.org/exported", b"1\n"),
        Entry::file("sumdb/sum.example.org/evidence/x", b"x"),
        Entry::link("download/example.com/l/@v/v1.0.0.zip", EntryType::Symlink, "/etc/passwd"),
        Entry::link("download/example.com/h/@v/v1.0.0.zip", EntryType::Link, "modgate-bundle"),
        Entry::link("download/example.com/d/@v", EntryType::Directory, ""),
        Entry::link("download/example.com/f/@v/v1.0.0.zip", EntryType::Fifo, ""),
        Entry { name: b"download/\xff\xfe/@v/list".to_vec(), ..Entry::file("", b"v1.0.0\n") },
        Entry::file(&long, b"module x\n"),
    ];
    for trick in tricks {
        let mut lie = entries.clone();
        let place = if trick.name().starts_with("sumdb") { 1 } else { lie.len() };
        lie.insert(place, trick.clone());
        let away = world.away();
        let said = refused(&away, &lie);
        assert!(said.contains("12 files taken in") && said.contains("1 files were refused"), "{}: {said}", trick.name());
        assert_only(&away, &world.every());
        let all = files(away.dir.path()).into_iter().map(|(name, _)| name);
        let strange: Vec<_> = all.filter(|n| n.contains("escape") || n.contains("sum.other") || n.contains("evidence")).collect();
        assert!(strange.is_empty(), "{strange:?}");
        assert!(!Path::new("/etc/escape").exists());
    }
}

#[test]
fn of_two_entries_of_one_name_the_good_one_counts() {
    let (world, entries) = world();
    let evil = Entry::file("download/example.com/m/@v/v1.0.0.zip", &forged(&world.public[0]).zip());
    for first in [true, false] {
        let mut lie = entries.clone();
        let place = lie.iter().position(|e| e.name == evil.name).unwrap();
        lie.insert(if first { place } else { place + 1 }, evil.clone());
        let away = world.away();
        let path = away.path("lie.tar");
        fs::write(&path, tar_of(&lie)).unwrap();
        let (code, said) = away.run(&["import", &path], "");
        // The kept one stays, whatever comes after it.
        assert!(said.contains("12 files taken in"), "{code:?}: {said}");
        assert_eq!(code, Some(1), "{said}");
        assert_only(&away, &world.every());
        assert_served(&away.serve(), &world.every());
    }
}

#[test]
fn what_is_no_whole_bundle_fails_and_leaves_what_was_proven() {
    let (world, entries) = world();
    let whole = tar_of(&entries);
    let away = world.away();
    let fails = |bytes: &[u8], words: &str| {
        let path = away.path("bad.tar");
        fs::write(&path, bytes).unwrap();
        let said = away.fails(&["import", &path]);
        assert!(said.contains(words), "{words}: {said}");
        assert_only(&away, &world.every());
        assert_eq!(fs::read_dir(away.path("cache/.tmp")).unwrap().count(), 0);
    };
    fails(b"this is no tar", "not a");
    fails(&[b'x'; 2000], "not a whole bundle");
    fails(&tar_of(&entries[1..]), "not a bundle that this version of modgate can read");
    let mut newer = entries.clone();
    newer[0].bytes = b"2\n".to_vec();
    fails(&tar_of(&newer), "not a bundle that this version of modgate can read");
    newer[0] = Entry::file("modgate-bundle", &vec![b'1'; 20 << 20]);
    fails(&tar_of(&newer), "not a whole bundle");
    // Where it is cut within a file.
    for part in [5, 3, 2] {
        fails(&whole[..whole.len() / part + 77], "not a whole bundle");
    }
    // A length that is not there.
    let huge = |name: &str, length: u64| {
        let mut lie = entries.clone();
        lie.push(Entry { length: Some(length), ..Entry::file(name, b"x") });
        tar_of(&lie)
    };
    for name in ["download/example.com/x/@v/v1.0.0.zip", "download/example.com/x/@v/v1.0.0.mod", "download/example.com/x/@v/list"] {
        for length in [1 << 33, 1 << 62, u64::MAX] {
            fails(&huge(name, length), "");
        }
    }
    assert!(away.fails(&["import", &away.path("nothing.tar")]).contains("nothing.tar: No such file"));
    assert!(away.fails(&["import", &away.path("cache")]).contains("not a"), "a folder");
    let path = away.path("good.tar");
    fs::write(&path, whole).unwrap();
    away.ok(&["import", &path]);
    assert_served(&away.serve(), &world.every());
}
