//! Zips that one reader reads in one way and another in another: two directories, of which either may be the one that counts.
//! What modgate has proven has to be what the go command unpacks, which need not have a checksum database itself; and what it
//! cannot unpack at all is not worth keeping.

use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use crate::support::eventually;
use crate::support::gate::{Gate, route, upstream};
use crate::support::modules::Module;
use crate::support::upstream::{Reply, Upstream};

use super::database::{Database, x_mod_says};
use super::{cached_files, named, sumdb};

/// A zip made by hand, its files stored as they are.
#[derive(Default)]
struct Raw(Vec<u8>);

/// A file in it: its name, its contents, and where it lies.
type Stored = (String, Vec<u8>, usize);

impl Raw {
    fn put(&mut self, parts: &[&[u8]]) -> usize {
        let at = self.0.len();
        self.0.extend_from_slice(&parts.concat());
        at
    }

    /// The headers and contents of files.
    fn files(&mut self, module: &Module) -> Vec<Stored> {
        let mut files = module.files.clone();
        files.insert("go.mod".into(), module.go_mod.clone().into_bytes());
        let stored = files.into_iter().map(|(name, contents)| {
            let name = format!("{}@{}/{name}", module.path, module.version);
            let sizes = [crc(&contents), small(contents.len()), small(contents.len())].concat();
            let lengths = [short(name.len()), short(0)].concat();
            let at = self.put(&[b"PK\x03\x04\x14\0\0\0\0\0\0\0\0\0", &sizes, &lengths, name.as_bytes(), &contents]);
            (name, contents, at)
        });
        stored.collect()
    }

    /// A directory of files, which are said to lie so much further on, with flags and something more for each.
    fn directory(
        &mut self,
        files: &[Stored],
        further: usize,
        flags: u8,
        more: impl Fn(usize) -> (Option<usize>, Vec<u8>),
    ) -> usize {
        let start = self.0.len();
        for (name, contents, at) in files {
            let (other, extra) = more(*at);
            let sizes = [crc(contents), small(contents.len()), small(contents.len())].concat();
            let lengths = [short(name.len()), short(extra.len())].concat();
            let at = other.unwrap_or(at + further);
            self.put(&[
                b"PK\x01\x02\x14\0\x14\0",
                &[flags, 0],
                b"\0\0\0\0\0\0",
                &sizes,
                &lengths,
                &[0; 10],
                &small(at),
                name.as_bytes(),
                &extra,
            ]);
        }
        start
    }

    /// What ends a zip.
    fn end(&mut self, [here, count]: [usize; 2], size: usize, offset: usize, comment: usize) -> usize {
        self.put(&[b"PK\x05\x06\0\0\0\0", &short(here), &short(count), &small(size), &small(offset), &short(comment)])
    }
}

/// Stands where the number is too large to stand there.
const MAX: usize = 0xFFFF_FFFF;

fn short(number: usize) -> Vec<u8> {
    u16::try_from(number).unwrap().to_le_bytes().to_vec()
}

fn small(number: usize) -> Vec<u8> {
    u32::try_from(number).unwrap().to_le_bytes().to_vec()
}

fn long(number: usize) -> Vec<u8> {
    (number as u64).to_le_bytes().to_vec()
}

fn crc(contents: &[u8]) -> Vec<u8> {
    let crc = contents.iter().fold(!0_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 })
    });
    (!crc).to_le_bytes().to_vec()
}

fn plain(_: usize) -> (Option<usize>, Vec<u8>) {
    (None, Vec::new())
}

/// An extra field that says where a file lies, as large zips have it.
fn far(at: usize) -> Vec<u8> {
    [&[1, 0, 8, 0][..], &long(at)].concat()
}

/// Zips with two faces, each showing these two to whoever looks in the one way or in the other.
fn two_faced(one: &Module, two: &Module) -> Vec<(&'static str, Vec<u8>)> {
    let start = || {
        let mut raw = Raw::default();
        let (one, two) = (raw.files(one), raw.files(two));
        (raw, one, two)
    };
    let mut zips = Vec::new();

    // By its offset the directory is the one, by its size it is the other.
    let (mut raw, one_files, two_files) = start();
    let count = [one_files.len(); 2];
    let directory: usize = two_files.iter().map(|(name, ..)| 46 + name.len()).sum();
    let apart = directory + 64;
    let second = raw.directory(&two_files, apart, 0, plain);
    raw.put(&[&[0; 64]]);
    let first = raw.directory(&one_files, 0, 0, plain);
    let size = raw.0.len() - second;
    raw.end(count, size, first, 0);
    assert_eq!(first - second, apart);
    zips.push(("the size leads elsewhere", raw.0));

    // In its comment there is another end.
    let (mut raw, one_files, two_files) = start();
    let first = raw.directory(&one_files, 0, 0, plain);
    let second = raw.directory(&two_files, 0, 0, plain);
    let size = second - first;
    raw.end(count, size, first, 22);
    raw.end(count, size, second, 0);
    zips.push(("an end in the comment", raw.0));

    // After its end there is something more, which may be another end.
    for (what, tail) in [("an end after the end", 0), ("an end after the end, and more", 5)] {
        let (mut raw, one_files, two_files) = start();
        let first = raw.directory(&one_files, 0, 0, plain);
        let second = raw.directory(&two_files, 0, 0, plain);
        raw.end(count, second - first, first, 0);
        raw.end(count, second - first, second, 0);
        raw.put(&[&vec![0; tail]]);
        zips.push((what, raw.0));
    }

    // The same in the end that large zips have; and a directory of theirs for readers that take this one for large.
    for (what, size, offset) in [("large, and the size leads elsewhere", MAX, MAX), ("large for some", 0xFFFF, 0)] {
        let (mut raw, one_files, two_files) = start();
        let second = raw.directory(&two_files, apart, 0, plain);
        raw.put(&[&[0; 64]]);
        let first = raw.directory(&one_files, 0, 0, plain);
        let (size_of_both, many) = (raw.0.len() - second, long(count[0]));
        let sizes = [many.clone(), many, long(size_of_both), long(first)].concat();
        let large = raw.put(&[b"PK\x06\x06", &long(44), &[45, 0, 45, 0, 0, 0, 0, 0, 0, 0, 0, 0], &sizes]);
        raw.put(&[b"PK\x06\x07\0\0\0\0", &long(large), &small(1)]);
        raw.end(count, size, if offset == 0 { first } else { offset }, 0);
        zips.push((what, raw.0));
    }

    // Each file says twice where it lies, or once when it need not.
    for (what, marked, order) in
        [("places twice", true, [0, 1]), ("places twice, the other way", true, [1, 0]), ("a place too many", false, [1, 1])]
    {
        let (mut raw, one_files, two_files) = start();
        let places = |at: usize| {
            let n = one_files.iter().position(|(.., place)| *place == at).unwrap();
            let both = [at, two_files[n].2];
            (marked.then_some(MAX), order.iter().flat_map(|which| far(both[*which])).collect())
        };
        let first = raw.directory(&one_files, 0, 0, places);
        let size = raw.0.len() - first;
        raw.end(count, size, first, 0);
        zips.push((what, raw.0));
    }
    zips
}

/// Zips with one face, and something that does not fit.
fn odd(module: &Module) -> Vec<(&'static str, Vec<u8>)> {
    let made = |flags: u8, end: &dyn Fn(usize, usize, usize) -> ([usize; 2], usize, usize)| {
        let mut raw = Raw::default();
        let files = raw.files(module);
        let first = raw.directory(&files, 0, flags, plain);
        let (counts, size, offset) = end(files.len(), raw.0.len() - first, first);
        raw.end(counts, size, offset, 0);
        raw.0
    };
    let mut far_end = made(0, &|n, size, at| ([n, n], size, at));
    far_end.resize(far_end.len() + 70_000, 0);
    vec![
        ("an end where nobody looks", far_end),
        ("as it should be", made(0, &|n, size, at| ([n, n], size, at))),
        ("more files than there are", made(0, &|n, size, at| ([n, n + 1], size, at))),
        ("fewer files than there are", made(0, &|n, size, at| ([n, n - 1], size, at))),
        ("a directory that is too long", made(0, &|n, size, at| ([n, n], size + 3, at))),
        ("a directory that is longer than the file", made(0, &|n, size, at| ([n, n], size + 1_000_000, at))),
        ("a directory that begins later", made(0, &|n, size, at| ([n, n], size, at + 1))),
        ("sums after the files, where there are none", made(8, &|n, size, at| ([n, n], size, at))),
    ]
}

/// The sums of these zips as Go reads them; `None` of those that it cannot read.
fn as_go_reads(zips: &[Vec<u8>]) -> Vec<Option<String>> {
    let rows: Vec<Value> = zips.iter().map(|zip| json!({ "kind": "zip", "msg": BASE64.encode(zip) })).collect();
    let verdicts = x_mod_says(&rows).into_iter();
    verdicts.map(|v| (v["ok"] == true).then(|| v["said"].as_str().unwrap().to_owned())).collect()
}

fn zips_in_cache(gate: &Gate) -> Vec<PathBuf> {
    let files = cached_files(&gate.dir.path().join("cache")).into_keys();
    files.filter(|file| file.extension().is_some_and(|e| e == "zip")).collect()
}

#[test]
fn what_is_proven_is_what_the_go_command_unpacks() {
    let good = Module::new("example.com/plain", "v1.1.0");
    let evil = good.clone().file("p.go", "package plain\n\nconst Version = \"evil!!\"\n");
    let database = Database::start(5, std::slice::from_ref(&good));
    let record = database.get(&format!("/lookup/{}", named(&good))).text();
    let sum = record.lines().nth(1).unwrap().rsplit(' ').next().unwrap().to_owned();
    let zips: Vec<(String, Vec<u8>)> =
        [("good first, ", two_faced(&good, &evil)), ("evil first, ", two_faced(&evil, &good)), ("", odd(&good))]
            .into_iter()
            .flat_map(|(order, zips)| zips.into_iter().map(move |(what, zip)| (format!("{order}{what}"), zip)))
            .collect();
    let read = as_go_reads(&zips.iter().map(|(_, zip)| zip.clone()).collect::<Vec<_>>());
    assert!(read.iter().flatten().any(|s| *s == sum) && read.iter().flatten().any(|s| *s != sum), "Go sees either face: {read:?}");
    let mut wrong = Vec::new();
    for ((what, zip), read) in zips.iter().zip(read) {
        let mirror = Upstream::serving(std::slice::from_ref(&good));
        mirror.set(&good.url("zip"), Reply::Good(zip.clone()));
        let config =
            sumdb(&database, &["direct"]) + &upstream("u1", &mirror.url(), "") + &route("*", &["u1"], "verify = \"sumdb\"\n");
        let gate = Gate::start(&config);
        let answer = gate.get(&good.url("zip"));
        let given = answer.status == 200 && answer.whole;
        if given {
            // It gets its name after the answer has gone out.
            eventually("it is kept", || !zips_in_cache(&gate).is_empty());
        } else {
            assert_eq!(zips_in_cache(&gate), Vec::<PathBuf>::new(), "{what}: not given, and kept");
        }
        if given && read.as_ref() != Some(&sum) {
            wrong.push(format!("{what}: given as proven, and Go reads {}", read.as_deref().unwrap_or("nothing of it")));
        }
        if what == "as it should be" {
            assert!(given, "{} {}", answer.status, answer.text());
        }
    }
    assert!(wrong.is_empty(), "the sum is {sum}:\n{}", wrong.join("\n"));
}
