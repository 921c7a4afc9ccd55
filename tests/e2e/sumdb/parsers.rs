//! Notes, tree heads, records, tile names, keys and sums are read as `golang.org/x/mod` reads them: both see the same rows, picked
//! by hand and made from those by a generator that makes the same ones each time. `tests/xsumdb` prints what x/mod says.
//!
//! Intended differences, which are not compared:
//! - Go passes over line breaks within base64; nothing that has them gets so far.
//! - Numbers of records with a sign or with zeros in front are not taken.
//! - Tiles of another height than 8, or past the end of any tree, are not tiles.

use std::io::{Cursor, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use modgate::module::{ModulePath, ModuleVersion, Sum, Version};
use modgate::sumdb::note::{self, Verifier};
use modgate::sumdb::record::Record;
use modgate::sumdb::tile::{Kind, Named};
use modgate::sumdb::tree::Head;
use serde_json::{Value, json};

use crate::helpers::Chance;

use super::database::{Database, pads, x_mod_says};

/// How many rows of each kind are made by changing others.
const CHANGED: usize = 3000;

/// What changes are made of.
const PIECES: &[&[u8]] = &[
    b"\n",
    b"\n\n",
    b"\n\n\n",
    b" ",
    b"  ",
    b"\t",
    b"\r",
    b"\0",
    b"\x7f",
    b"\xff",
    b"\xe2\x80",
    b"\xc2\xa0",
    b"\xe2\x80\x94 ",
    b"+",
    b"-",
    b"=",
    b"==",
    b"A",
    b"AAAA",
    b"/",
    b"0",
    b"00",
    b"1",
    b"9",
    b"x",
    b"sum.test",
    b"sum.test ",
    b"\xe2\x80\x94 sum.test ",
    b"go.sum database tree\n",
    b"\xe2\x80\x94 other.test AAAAAAAA\n",
    b"\xe2\x80\x94 a+b AAAAAAAA\n",
    b"99999999999999999999",
    b".p/",
    b"x001/",
    b"tile/8/",
    b"data",
];

/// One of the messages with a few changes.
fn changed(chance: &mut Chance, messages: &[Vec<u8>]) -> Vec<u8> {
    let mut message = messages[chance.below(messages.len())].clone();
    for _ in 0..=chance.below(3) {
        let (a, b) = (chance.below(message.len() + 1), chance.below(message.len() + 1));
        let (low, high) = (a.min(b), a.max(b).min(a.min(b) + 6));
        match chance.below(6) {
            0 | 1 => drop(message.splice(low..low, chance.of(PIECES).iter().copied())),
            2 => drop(message.splice(low..high, chance.of(PIECES).iter().copied())),
            3 => drop(message.drain(low..high)),
            4 => drop(message.splice(low..low, message[low..high].to_vec())),
            // The end of another one.
            _ => {
                let other = &messages[chance.below(messages.len())];
                let from = chance.below(other.len() + 1);
                drop(message.splice(low.., other[from..].iter().copied()));
            }
        }
    }
    message
}

/// These messages, and as many changed ones.
fn with_changed(seed: u64, messages: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut chance = Chance(seed);
    let made: Vec<Vec<u8>> = (0..CHANGED).map(|_| changed(&mut chance, messages)).collect();
    messages.iter().cloned().chain(made).collect()
}

/// The verdict of x/mod in the same form as ours: `None` where it refuses, else what it read.
fn read(verdict: &Value) -> Option<Vec<Vec<u8>>> {
    let bytes = |name: &str| verdict[name].as_str().map(|text| BASE64.decode(text).unwrap()).unwrap_or_default();
    let said = verdict["said"].as_str().unwrap_or_default().as_bytes().to_vec();
    verdict["ok"].as_bool().unwrap().then(|| vec![said, bytes("text"), bytes("rest")])
}

/// Compares the verdicts on rows. Ours is `None` where the row is not one that modgate is asked, and so many rows at least have to
/// be taken by both.
fn compare(kind: &str, key: &str, messages: &[Vec<u8>], least: usize, ours: impl Fn(&[u8]) -> Option<Option<Vec<Vec<u8>>>>) {
    let row = |message: &Vec<u8>| {
        // Tile names and keys go over as text.
        let text = std::str::from_utf8(message).unwrap_or("\u{0}");
        json!({ "kind": kind, "vkey": key, "text": text, "msg": BASE64.encode(message) })
    };
    let theirs = x_mod_says(&messages.iter().map(row).collect::<Vec<_>>());
    let (mut taken, mut refused, mut different) = (0, 0, Vec::new());
    for (message, theirs) in messages.iter().zip(&theirs) {
        let Some(ours) = ours(message) else { continue };
        let theirs = read(theirs);
        *(if theirs.is_some() { &mut taken } else { &mut refused }) += 1;
        if ours != theirs {
            let shown = |read: &Option<Vec<Vec<u8>>>| {
                read.as_ref().map(|r| r.iter().map(|p| p.escape_ascii().to_string()).collect::<Vec<_>>())
            };
            different.push(format!("{}: x/mod {:?}, modgate {:?}", message.escape_ascii(), shown(&theirs), shown(&ours)));
        }
    }
    assert!(taken >= least && refused >= least, "both are tried: {kind}: {taken} taken, {refused} refused");
    assert!(different.is_empty(), "{kind}: {} of {} differ:\n{}", different.len(), messages.len(), different.join("\n"));
}

/// A key, and messages that a database signed with it.
fn signed() -> (String, Vec<Vec<u8>>) {
    let database = Database::start(5, &[]);
    let mut notes = Vec::new();
    for (words, path) in
        [("honest", "/latest"), ("grow=300", "/latest"), ("badsig", "/latest"), ("wrongkey", "/latest"), ("honest", "/latest")]
    {
        database.now(words);
        notes.push(database.get(path).body);
    }
    let (good, wrong) = (String::from_utf8(notes[0].clone()).unwrap(), String::from_utf8(notes[3].clone()).unwrap());
    let bad = String::from_utf8(notes[2].clone()).unwrap();
    let signature = |note: &str| note.rsplit_once("\n\n").unwrap().1.to_owned();
    let other = "\u{2014} other.test AAAAAAAA\n";
    // Several signatures, of the key itself and of others, in each order; the same one twice; and very many.
    for more in [
        other.to_owned(),
        signature(&good),
        signature(&wrong),
        signature(&bad),
        other.repeat(99),
        other.repeat(100),
        other.repeat(101),
    ] {
        notes.push(format!("{good}{more}").into_bytes());
        let (text, own) = good.rsplit_once("\n\n").unwrap();
        notes.push(format!("{text}\n\n{more}{own}").into_bytes());
    }
    notes.push(format!("more\n\nthan one part\n\n{}", signature(&good)).into_bytes());
    // Bits that are left over in base64, and padding.
    notes.push(good.replace("=\n\n", "=\n\n\n").into_bytes());
    (database.key.clone(), notes)
}

#[test]
fn notes() {
    let (key, notes) = signed();
    let verifier = Verifier::parse(&key).unwrap();
    compare("note", &key, &with_changed(0x9E37_79B9_7F4A_7C15, &notes), 20, |message| {
        Some(note::open(message, &verifier).ok().map(|text| vec![Vec::new(), text.as_bytes().to_vec(), Vec::new()]))
    });
}

#[test]
fn tree_heads() {
    let heads: Vec<Vec<u8>> = [
        "go.sum database tree\n2\nnND/nri/U0xuHUrYSy0HtMeal2vzD9V4k/BO79C+QeI=\n",
        "go.sum database tree\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n",
        "go.sum database tree\n9223372036854775807\nnND/nri/U0xuHUrYSy0HtMeal2vzD9V4k/BO79C+QeI=\nmore\nlines\n\n",
        "go.sum database tree\n9223372036854775808\nnND/nri/U0xuHUrYSy0HtMeal2vzD9V4k/BO79C+QeI=\n",
        "go.sum database tree\n2\nnND/nri/U0xuHUrYSy0HtMeal2vzD9V4k/BO79C+QeJ=\n",
        "go.sum database tree\n2\nnND/nri/U0xuHUrYSy0HtMeal2vzD9V4k/BO79C+QeI\n",
        "go.sum database tree v2\n2\nnND/nri/U0xuHUrYSy0HtMeal2vzD9V4k/BO79C+QeI=\n",
        "go.sum database tree\n-0\nnND/nri/U0xuHUrYSy0HtMeal2vzD9V4k/BO79C+QeI=\n",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec();
    let long = [heads[0].clone(), vec![b'x'; 1_000_000 - heads[0].len()]].concat();
    let heads = [heads, vec![long.clone(), [long, b"x".to_vec()].concat()]].concat();
    let mut rows = with_changed(0x2545_F491_4F6C_DD1D, &heads[..8]);
    rows.extend_from_slice(&heads[8..]);
    compare("tree", "", &rows, 30, |message| {
        let text = std::str::from_utf8(message).ok().filter(|text| !text.contains('\r'))?;
        Some(Head::parse(text).map(|head| vec![format!("{} {}", head.size, head.root).into_bytes(), Vec::new(), Vec::new()]))
    });
}

#[test]
fn records() {
    let database = Database::start(12, &[]);
    let mut records: Vec<Vec<u8>> = pads(&[0, 3, 11]).iter().map(|name| database.get(&format!("/lookup/{name}")).body).collect();
    records.extend(
        ["0\na\n\n", "5\na\nb\n\nrest\n\nrest", "5\n\na\n\n", "5\n\n\n", "5\n\n", "\na\n\n", "5\n\u{7f}\u{85}\n\n"]
            .map(|r| r.as_bytes().to_vec()),
    );
    compare("record", "", &with_changed(0x1234_5678_9ABC_DEF1, &records), 100, |message| {
        let number = message.split(|b| *b == b'\n').next().unwrap();
        let read = Record::parse(message);
        let plain =
            number == b"0" || number.first().is_some_and(|b| (b'1'..=b'9').contains(b)) && number.iter().all(u8::is_ascii_digit);
        if !plain {
            assert_eq!(read, None, "{}", message.escape_ascii());
            return None;
        }
        Some(read.map(|r| vec![r.number.to_string().into_bytes(), r.text.as_bytes().to_vec(), r.rest.to_vec()]))
    });
}

#[test]
fn tile_names() {
    let names: Vec<Vec<u8>> = [
        "tile/8/0/000",
        "tile/8/0/999",
        "tile/8/1/x001/000",
        "tile/8/0/x001/x234/067.p/1",
        "tile/8/0/x001/x234/067",
        "tile/8/7/000.p/255",
        "tile/8/data/000",
        "tile/8/data/x123/456.p/7",
        "tile/8/8/000",
        "tile/8/63/000",
        "tile/8/64/000",
        "tile/8/0/x000/001",
        "tile/4/0/001",
        "tile/8/0/001.p/256",
        "tile/8/0/001.p/0",
        "tile/8/0/x072/x057/x594/x037/x927/935",
        "tile/8/0/x072/x057/x594/x037/x927/936",
        "tile/8/0/x009/x223/x372/x036/x854/x775/807",
        "tile/8/-1/000",
        "tile/30/0/000",
        "tile/8/0/1.p/1",
        "tile/8/0/001.p/1/1",
        "tile/8/0",
    ]
    .map(|name| name.as_bytes().to_vec())
    .to_vec();
    compare("tilepath", "", &with_changed(0xDEAD_BEEF_1234_5677, &names), 30, |message| {
        let name = std::str::from_utf8(message).ok()?;
        let read = Named::parse(name);
        let said = read.map(|named| {
            let (level, index) = match named.kind {
                Kind::Data(index) => ("-1".to_owned(), index),
                Kind::Hashes(tile) => (tile.level.to_string(), tile.index),
            };
            vec![format!("8 {level} {index} {}", named.width).into_bytes(), Vec::new(), Vec::new()]
        });
        // Trees that need such tiles would have more records than can be counted.
        let level = name.split('/').nth(2).and_then(|level| level.parse::<u64>().ok());
        let vast = name.matches('x').count() >= 5;
        if !name.starts_with("tile/8/") || level.is_some_and(|level| level >= 8) || said.is_none() && vast {
            assert_eq!(said, None, "{name}");
            return None;
        }
        Some(said)
    });
}

#[test]
fn keys() {
    let key = Database::start(0, &[]).key.clone();
    let (name, rest) = key.split_once('+').unwrap();
    let (hash, data) = rest.split_once('+').unwrap();
    let keys: Vec<Vec<u8>> = [
        key.clone(),
        "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8".to_owned(),
        format!("{name}+{}+{data}", hash.to_uppercase()),
        format!("{name}+{hash}+{}", data.trim_end_matches('=')),
        format!("{name}+0{hash}+{data}"),
        format!("{name}+{hash}+{data}+"),
        format!("+{hash}+{data}"),
        format!("{name}+{hash}+"),
        format!("{name}+{hash}"),
        name.to_owned(),
        "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW".to_owned(),
        "a+1d9f4b91+AA==".to_owned(),
    ]
    .map(String::into_bytes)
    .to_vec();
    compare("vkey", "", &with_changed(0x0F0F_1234_4321_F0F1, &keys), 4, |message| {
        let text = std::str::from_utf8(message).ok().filter(|text| !text.contains(['\r', '\n']))?;
        // The hash is not given out; that the rest of the key was read as it stands there says that it was right.
        let hash = text.split('+').nth(1).unwrap_or_default().to_lowercase();
        Some(Verifier::parse(text).ok().map(|key| vec![format!("{} {hash}", key.name()).into_bytes(), Vec::new(), Vec::new()]))
    });
}

/// A zip of these entries, as they are.
fn zip(entries: &[(&str, &[u8])], stored: bool) -> Vec<u8> {
    let mut out = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let method = if stored { zip::CompressionMethod::Stored } else { zip::CompressionMethod::Deflated };
    let options = zip::write::SimpleFileOptions::default().compression_method(method);
    for (name, contents) in entries {
        if name.ends_with('/') {
            out.add_directory(name.trim_end_matches('/'), options).unwrap();
        } else {
            out.start_file(*name, options).unwrap();
            out.write_all(contents).unwrap();
        }
    }
    out.finish().unwrap().into_inner()
}

#[test]
fn sums_of_zips() {
    let version = ModuleVersion::new(ModulePath::parse("a.b/c").unwrap(), Version::parse("v1.0.0").unwrap()).unwrap();
    let large = vec![7; 300_000];
    let base: &[(&str, &[u8])] = &[("a.b/c@v1.0.0/go.mod", b"module a.b/c\n"), ("a.b/c@v1.0.0/x.go", b"package c\n")];
    let more: &[&[(&str, &[u8])]] = &[
        &[],
        &[("a.b/c@v1.0.0/empty", b"")],
        &[("a.b/c@v1.0.0/folder/", b""), ("a.b/c@v1.0.0/folder/x", b"x")],
        &[("a.b/c@v1.0.0/\u{e9}\u{65e5}\u{1f600}", b"x"), ("a.b/c@v1.0.0/Z", b""), ("a.b/c@v1.0.0/a", b"")],
        &[("a.b/c@v1.0.0/a-b", b"1"), ("a.b/c@v1.0.0/a/b", b"2"), ("a.b/c@v1.0.0/a.b", b"3"), ("a.b/c@v1.0.0/a b", b"4")],
        &[("a.b/c@v1.0.0/large", &large)],
    ];
    let mut zips: Vec<Vec<u8>> = Vec::new();
    for more in more {
        for stored in [false, true] {
            zips.push(zip(&[base, more].concat(), stored));
            let mut backwards = [base, more].concat();
            backwards.reverse();
            zips.push(zip(&backwards, stored));
        }
    }
    let rows: Vec<Value> = zips.iter().map(|zip| json!({ "kind": "zip", "msg": BASE64.encode(zip) })).collect();
    let dir = tempfile::tempdir().unwrap();
    for (n, (zip, theirs)) in zips.iter().zip(x_mod_says(&rows)).enumerate() {
        let file = dir.path().join(format!("{n}.zip"));
        std::fs::write(&file, zip).unwrap();
        let ours = Sum::of_zip(std::fs::File::open(&file).unwrap(), &version).unwrap();
        assert_eq!(theirs["said"], ours.to_string(), "zip {n}");
    }
    // Damaged ones: whatever modgate has a sum of has the same one for x/mod.
    let mut chance = Chance(0x5555_1234_7777_4321);
    let damaged: Vec<Vec<u8>> = (0..1500)
        .map(|_| {
            // Not the large one, and the long name's.
            let mut zip = zips[chance.below(zips.len() - 4)].clone();
            let at = chance.below(zip.len());
            zip[at] ^= 1 << chance.below(8);
            zip
        })
        .collect();
    let rows: Vec<Value> = damaged.iter().map(|zip| json!({ "kind": "zip", "msg": BASE64.encode(zip) })).collect();
    let (mut summed, mut different) = (0, Vec::new());
    for (n, (zip, theirs)) in damaged.iter().zip(x_mod_says(&rows)).enumerate() {
        let file = dir.path().join("damaged.zip");
        std::fs::write(&file, zip).unwrap();
        if let Ok(ours) = Sum::of_zip(std::fs::File::open(&file).unwrap(), &version) {
            summed += 1;
            if theirs["ok"] != true || theirs["said"] != ours.to_string() {
                different.push(format!("{n}: x/mod {theirs}, modgate {ours}"));
            }
        }
    }
    assert!((100..1400).contains(&summed), "both are tried: {summed}");
    assert!(different.is_empty(), "{} of {summed} differ:\n{}", different.len(), different.join("\n"));
}

#[test]
fn sums_of_go_mods() {
    let texts: Vec<Vec<u8>> =
        ["", "module a.b/c\n", "module a.b/c", "\r\n", "\u{feff}module x\n"].map(|t| t.as_bytes().to_vec()).to_vec();
    let rows: Vec<Value> = texts.iter().map(|text| json!({ "kind": "gomod", "msg": BASE64.encode(text) })).collect();
    for (text, theirs) in texts.iter().zip(x_mod_says(&rows)) {
        assert_eq!(theirs["said"], Sum::of_go_mod(text).to_string(), "{}", text.escape_ascii());
    }
}
