//! Parsers of what comes from a network or a file: whatever it is, they say yes or no, and neither panic nor hang.

use std::collections::BTreeSet;
use std::io::Write;

use modgate::gateway::verify::Note;
use modgate::module::list::VersionList;
use modgate::module::unpacked::{LARGEST, Unpacking};
use modgate::module::{Ask, Info, ModulePath, ModuleVersion, Pattern, Query, Sum, Version, zip};
use modgate::sumdb::record::Record;
use modgate::sumdb::tree::Head;
use modgate::sumdb::{SumdbAsk, Verifier, note};
use proptest::prelude::*;

use crate::support::modules::Module;
use crate::support::sumdb::zip_sum;

fn version_of(module: &Module) -> ModuleVersion {
    ModuleVersion::new(ModulePath::parse(&module.path).unwrap(), Version::parse(&module.version).unwrap()).unwrap()
}

/// To write a zip anew with no file compressed but these.
fn plain(packed: &[&str]) -> Unpacking {
    Unpacking { packed: packed.iter().map(|name| (*name).to_owned()).collect(), length: 0 }
}

fn temp(bytes: &[u8]) -> std::fs::File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn text_is_a_version_a_query_or_neither(text in "\\PC{0,40}|v[0-9.]{1,12}(-[0-9a-z.-]{0,20})?(\\+[a-z.]{0,14})?") {
        if let Ok(version) = Version::parse(&text) {
            prop_assert_eq!(version.as_str(), text.as_str());
            prop_assert_eq!(Query::parse(&text).map(|q| q.as_str().to_owned()), Ok(text.clone()));
            prop_assert_eq!(version.cmp(&version.clone()), std::cmp::Ordering::Equal);
        }
        if let Ok(query) = Query::unescape(&text) {
            prop_assert_eq!(query.escaped(), text);
        }
    }

    #[test]
    fn text_is_a_path_or_not(text in "\\PC{0,40}|[a-z.]{1,8}(/[a-zA-Z0-9.~_-]{1,8}){0,4}") {
        if let Ok(path) = ModulePath::parse(&text) {
            prop_assert_eq!(ModulePath::unescape(&path.escaped()), Ok(path.clone()));
            prop_assert!(Pattern::parse(path.as_str()).is_ok_and(|p| p.matches(path.as_str())));
            let url = format!("/{}/@v/list", path.escaped());
            prop_assert!(Ask::parse(&url).is_ok());
        }
    }

    #[test]
    fn bytes_are_an_info_or_not(bytes in proptest::collection::vec(any::<u8>(), 0..200), cut in 0_usize..60) {
        let _ = Info::parse(bytes.into());
        let whole = br#"{"Version":"v1.2.3","Time":"2024-02-03T04:05:06Z"}"#;
        prop_assert_eq!(Info::parse(whole[..cut.min(whole.len())].to_vec().into()).is_ok(), cut >= whole.len());
    }

    #[test]
    fn a_list_that_is_written_is_read_again(text in "((v[0-9]{1,3}\\.[0-9]{1,3}\\.[0-9]{1,3}(-[a-z0-9.]{1,6})?|\\PC{0,10})\\n){0,20}") {
        let module = ModulePath::parse("example.com/m").unwrap();
        let list = VersionList::parse(&module, &text);
        prop_assert_eq!(VersionList::parse(&module, &list.render_all()), list);
    }

    #[test]
    fn a_damaged_zip_is_refused_or_harmless(at in 0_usize..100_000, byte in any::<u8>(), cut in 0_usize..100_000, extra in 0_usize..64) {
        let module = Module::new("example.com/m", "v1.0.0").file("a/b.txt", "some text").file("c.go", "package c");
        let version = version_of(&module);
        let good = module.zip();
        prop_assert!(zip::check(temp(&good), &version).is_ok());
        prop_assert_eq!(zip::go_mod(temp(&good), &version).unwrap(), Some(module.go_mod.clone().into_bytes()));
        let mut flipped = good.clone();
        let at = at % flipped.len();
        flipped[at] = byte;
        let _ = (zip::check(temp(&flipped), &version), zip::go_mod(temp(&flipped), &version));
        // What is not what was packed never has its sum.
        if flipped != good && Sum::of_zip(temp(&flipped), &version).is_ok_and(|sum| sum.to_string() == zip_sum(&module)) {
            // The other library minds some fields that nothing depends on.
            prop_assert!(contents(&flipped).is_none_or(|flipped| Some(flipped) == contents(&good)));
        }
        // Nor is it ever written anew as something else than another library finds in it.
        let anew = tempfile::tempfile().unwrap();
        if plain(&[]).write(temp(&flipped), &version, anew.try_clone().unwrap()).is_ok() {
            prop_assert_eq!(Sum::of_zip(anew, &version).unwrap(), Sum::of_zip(temp(&flipped), &version).unwrap());
        }
        let cut = &good[..cut % good.len()];
        prop_assert!(zip::check(temp(cut), &version).is_err());
        let longer = temp(&[good.as_slice(), &vec![byte; extra]].concat());
        prop_assert_eq!(zip::check(longer, &version).is_ok(), extra == 0);
    }

    #[test]
    fn bytes_are_a_note_a_head_a_record_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..300), at in 0_usize..400, byte in any::<u8>()) {
        let key = Verifier::parse(KEY).unwrap();
        let _ = (note::open(&bytes, &key), Record::parse(&bytes), Head::parse(&String::from_utf8_lossy(&bytes)));
        let _ = (Note::parse(&bytes), Verifier::parse(&String::from_utf8_lossy(&bytes)));
        let mut changed = LOOKUP.as_bytes().to_vec();
        let at = at % changed.len();
        changed[at] = byte;
        if let Some(record) = Record::parse(&changed)
            && changed != LOOKUP.as_bytes()
        {
            let whole = Record::parse(LOOKUP.as_bytes()).unwrap();
            // The signature holds together what is signed; what is not, differs from the record in the tree.
            let signed = note::open(record.rest, &key).is_ok();
            prop_assert!(!signed || (record.number, record.text) != (whole.number, whole.text) || record.rest != whole.rest);
        }
    }

    #[test]
    fn questions_to_a_database_are_read_or_not(path in "\\PC{0,60}|sum.example/(lookup|tile|latest)(/[a-z0-9.!@/%-]{0,30})?") {
        if let Ok((name, ask)) = SumdbAsk::parse(&path, ["sum.example"].into_iter()) {
            let again = format!("{name}/{ask}");
            prop_assert!(!again.contains("..") && !again.contains("//"), "{again}");
        }
    }
}

/// The key of the public checksum database, and one of its answers.
const KEY: &str = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8";
const LOOKUP: &str = "1\ngolang.org/x/text v0.3.0 h1:g61tztE5qeGQ89tm6NTjjM9VPIm088od1l6aSorWRWg=\n\
    golang.org/x/text v0.3.0/go.mod h1:NqM8EUOU14njkJ3fqMW+pc6Ldnwhi/IjpwHt7yyuwOQ=\n\n\
    go.sum database tree\n66385784\ndRgqg6bNjCv/HjgbQbR4FTQxb01x93qAiafZ4wW6HNI=\n\n\
    — sum.golang.org Az3grgdaBaBYyyTCLNv4P301f7lAEOLAqFA3S8qHA1DrIw6NQDwtMmAExrmeIOAA0fY8RhokDCBm9LiX4cF0aBcOHgs=\n";

#[test]
fn a_zip_written_anew_without_compression_has_the_same_in_it() {
    let words = "the same words again and again, which makes them small\n".repeat(4000);
    let many = (0..300).fold(Module::new("example.com/m", "v1.0.0"), |module, n| module.file(&format!("d{n}/ä.go"), "package d"));
    for module in [many, Module::new("example.com/m", "v1.0.0").file("words.txt", words).file("empty", "").bulk(70_000)] {
        let version = version_of(&module);
        let packed = module.zip();
        let words = format!("{version}/words.txt");
        for stay in [&[][..], &[words.as_str()]] {
            let anew = tempfile::NamedTempFile::new().unwrap();
            plain(stay).write(temp(&packed), &version, anew.reopen().unwrap()).unwrap();
            let written = std::fs::read(anew.path()).unwrap();
            assert_eq!(contents(&written), contents(&packed));
            assert_eq!(Sum::of_zip(temp(&written), &version).unwrap().to_string(), zip_sum(&module));
            zip::check(temp(&written), &version).unwrap();
            let mut archive = ::zip::ZipArchive::new(std::io::Cursor::new(&written)).unwrap();
            for n in 0..archive.len() {
                let file = archive.by_index(n).unwrap();
                let wanted = if stay.contains(&&*file.name().unwrap()) { "Deflated" } else { "Stored" };
                assert_eq!(format!("{:?}", file.compression()), wanted);
            }
        }
    }
}

#[test]
fn a_zip_is_written_anew_where_that_is_worth_while_and_not_too_large() {
    let how = |module: &Module, largest| Unpacking::of(temp(&module.zip()), largest).unwrap().map(|how| how.packed);
    let module = Module::new("example.com/m", "v1.0.0");
    // What compression does not make smaller is left alone, and so is what is stored.
    assert_eq!(how(&module.clone().bulk(70_000), LARGEST), None);
    let words = module.file("much", "word ".repeat(20_000)).file("more", "word ".repeat(5_000)).file("less", "word ".repeat(1_000));
    assert_eq!(how(&words, LARGEST), Some(BTreeSet::new()));
    let version = version_of(&words);
    let anew = tempfile::tempfile().unwrap();
    plain(&[]).write(temp(&words.zip()), &version, anew.try_clone().unwrap()).unwrap();
    assert_eq!(Unpacking::of(anew, LARGEST).unwrap(), None);
    // Of 130 kB in all the largest file stays as it is, or the two largest, or there is nothing to be gained.
    let names = |names: &[&str]| Some(names.iter().map(|name| format!("{version}/{name}")).collect::<BTreeSet<_>>());
    for (largest, packed) in [(129_000, names(&["much"])), (20_000, names(&["much", "more"])), (500, None)] {
        assert_eq!(how(&words, largest), packed, "{largest}");
        let Some(how) = Unpacking::of(temp(&words.zip()), largest).unwrap() else { continue };
        let anew = tempfile::tempfile().unwrap();
        how.write(temp(&words.zip()), &version, anew.try_clone().unwrap()).unwrap();
        let length = anew.metadata().unwrap().len();
        assert!(length <= largest && length.abs_diff(how.length) < 200, "{length} {how:?}");
        assert_eq!(Unpacking::of(anew, largest).unwrap(), None, "once is enough");
    }
}

/// What another library unpacks of a zip, by name.
fn contents(bytes: &[u8]) -> Option<std::collections::BTreeMap<String, Vec<u8>>> {
    let mut archive = ::zip::ZipArchive::new(std::io::Cursor::new(bytes)).ok()?;
    let mut found = std::collections::BTreeMap::new();
    for n in 0..archive.len() {
        let mut file = archive.by_index(n).ok()?;
        let mut content = Vec::new();
        std::io::Read::read_to_end(&mut file, &mut content).ok()?;
        let name = file.name().ok()?.into_owned();
        found.insert(name, content);
    }
    Some(found)
}

#[test]
fn zips_of_other_shapes_are_refused() {
    let version = ModuleVersion::new(ModulePath::parse("example.com/m").unwrap(), Version::parse("v1.0.0").unwrap()).unwrap();
    let refused = |module: Module| zip::check(temp(&module.zip()), &version).unwrap_err().to_string();
    assert!(refused(Module::new("example.com/other", "v1.0.0")).contains("does not lie below example.com/m@v1.0.0/"));
    assert!(refused(Module::new("example.com/m", "v1.0.1")).contains("does not lie below"));
    assert!(refused(Module::new("example.com/m", "v1.0.0").file("../../etc/passwd", "x")).contains("unsafe file name"));
    assert!(zip::check(temp(b""), &version).is_err());
}
