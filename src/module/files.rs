//! Which files of a tree belong into a module's zip (`CheckFiles` of `golang.org/x/mod/zip`,
//! <https://go.dev/ref/mod#zip-path-size-constraints>).

use std::collections::{HashMap, HashSet};

use unicode_properties::{GeneralCategoryGroup, UnicodeGeneralCategory};

use super::path::check_element;
use super::zip::{MAX_GO_MOD, MAX_ZIP};

/// The largest LICENSE at the top of a module (`MaxLICENSE` of x/mod/zip).
pub const MAX_LICENSE: u64 = 16 << 20;

/// What a tree has under a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A file.
    Regular,
    /// A symbolic link, which no module holds.
    Symlink,
}

/// One entry of a tree. Its name is relative to the module's directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its path; it need not be text.
    pub name: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// In bytes, as far as it is known beforehand.
    pub size: u64,
}

/// Chooses the entries that are in the module's zip; `new` says that the module's language is Go 1.24 or newer.
///
/// # Errors
/// Why there can be no zip of this tree.
pub fn select(entries: &[Entry], new: bool) -> Result<Vec<&str>, String> {
    let nested = nested_modules(entries);
    let mut names = Names::default();
    let (mut chosen, mut total) = (Vec::new(), 0_u64);
    for entry in entries {
        let shown = String::from_utf8_lossy(&entry.name);
        let refused = |why: &str| Err(format!("{shown}: {why}"));
        // Names that are no text are refused, unless they are left out; for that their text is near enough.
        if !is_clean(&shown) {
            return refused("file path is not clean");
        }
        if is_vendored(&shown, new) || in_nested(&entry.name, &nested) || shown == ".hg_archival.txt" {
            continue;
        }
        let Ok(name) = std::str::from_utf8(&entry.name) else { return refused("malformed file path: invalid UTF-8") };
        if let Err(why) = check_file_path(name) {
            return refused(&format!("malformed file path: {why}"));
        }
        if name.to_lowercase() == "go.mod" && name != "go.mod" {
            return refused("go.mod files must have lowercase names");
        }
        names.add(name).map_err(|other| format!("{name}: case-insensitive file name collision: {other:?} and {name:?}"))?;
        if entry.kind != Kind::Regular {
            continue;
        }
        total = total.saturating_add(entry.size);
        if total > MAX_ZIP {
            return Err(too_large());
        }
        if (name == "go.mod" && entry.size > MAX_GO_MOD) || (name == "LICENSE" && entry.size > MAX_LICENSE) {
            return refused(&format!("file is too large (max size is {MAX_GO_MOD} bytes)"));
        }
        chosen.push(name);
    }
    Ok(chosen)
}

/// Why a tree that is too large has no zip.
pub fn too_large() -> String {
    format!("module source tree too large (max size is {MAX_ZIP} bytes)")
}

/// The directories of other modules, each with a slash at its end.
fn nested_modules(entries: &[Entry]) -> HashSet<&[u8]> {
    let of = |entry: &'_ Entry| {
        let at = entry.name.iter().rposition(|b| *b == b'/')? + 1;
        let is_one = entry.kind == Kind::Regular && entry.name[at..].eq_ignore_ascii_case(b"go.mod");
        is_one.then_some(at)
    };
    entries.iter().filter_map(|e| of(e).map(|at| &e.name[..at])).collect()
}

fn in_nested(name: &[u8], nested: &HashSet<&[u8]>) -> bool {
    (0..name.len()).any(|at| name[at] == b'/' && nested.contains(&name[..=at]))
}

/// Whether `path.Clean` would leave it as it is. What begins with `..` is refused later, unless it is left out.
fn is_clean(name: &str) -> bool {
    !name.split('/').skip_while(|element| *element == "..").any(|element| matches!(element, "" | "." | ".."))
}

/// Whether a file lies in a vendored package.
fn is_vendored(name: &str, new: bool) -> bool {
    if new && name == "vendor/modules.txt" {
        return true;
    }
    let rest = match name.strip_prefix("vendor/") {
        Some(rest) => rest,
        None => match name.find("/vendor/") {
            Some(at) if new => &name[at + "/vendor/".len()..],
            // An old mistake: the length is taken from the beginning, wherever the folder is. Sums depend on it.
            Some(_) => return name.bytes().skip("/vendor/".len()).any(|b| b == b'/'),
            None => return false,
        },
    };
    rest.contains('/')
}

/// `module.CheckFilePath` of x/mod.
fn check_file_path(path: &str) -> Result<(), String> {
    let allowed = |c: char| {
        if c.is_ascii() {
            c.is_ascii_alphanumeric() || "!#$%&()+,-.=@[]^_{}~ ".contains(c)
        } else {
            c.general_category_group() == GeneralCategoryGroup::Letter
        }
    };
    path.split('/').try_for_each(|element| check_element(element, allowed))
}

/// The names of a tree, as file systems see them that do not tell letters by case.
#[derive(Default)]
struct Names {
    seen: HashMap<String, (String, bool)>,
}

impl Names {
    /// Adds a file and its directories; an error is the name that it collides with.
    fn add(&mut self, name: &str) -> Result<(), String> {
        let directories = name.match_indices('/').map(|(at, _)| (&name[..at], true));
        for (path, is_dir) in directories.chain([(name, false)]) {
            match self.seen.get(&folded(path)) {
                Some((other, other_is_dir)) if other != path || !is_dir || !other_is_dir => return Err(other.clone()),
                Some(_) => {}
                None => drop(self.seen.insert(folded(path), (path.to_owned(), is_dir))),
            }
        }
        Ok(())
    }
}

/// A text by which two are compared that differ in case alone, by Unicode's simple folding.
fn folded(text: &str) -> String {
    let fold = |c| unicode_case_mapping::case_folded(c).and_then(|folded| char::from_u32(folded.get())).unwrap_or(c);
    text.chars().map(fold).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tree(names: &[&str]) -> Vec<Entry> {
        names.iter().map(|n| Entry { name: n.as_bytes().to_vec(), kind: Kind::Regular, size: 1 }).collect()
    }

    #[test]
    fn vendored_files_are_left_out_by_the_modules_language() {
        for (name, old, new) in [
            ("vendor/modules.txt", true, false),
            ("vendor/top.go", true, true),
            ("vendor/x/y.go", false, false),
            ("pkg/vendor/vendor.go", false, true),
            ("pkg/vendor/foo/foo.go", false, false),
            ("p/vendor/v.go", false, true),
            ("longdirname/vendor/modules.txt", false, true),
            ("vend/vendor.go", true, true),
            ("x/vendor", true, true),
        ] {
            assert_eq!((!is_vendored(name, false), !is_vendored(name, true)), (old, new), "{name}");
        }
    }

    #[test]
    fn nested_modules_are_left_out_and_bad_names_refused() {
        let all = tree(&["go.mod", "m.go", "sub/go.mod", "sub/x.go'", "b/GO.MOD", "b/c/d", "vendor/a/b"]);
        assert_eq!(select(&all, true), Ok(vec!["go.mod", "m.go"]));
        for bad in [
            &["GO.MOD"][..],
            &["m.go", "M.GO"],
            &["a.go", "a.go/b.go"],
            &["aux.txt"],
            &["k", "\u{212a}"],
            &["a\u{301}"],
            &["A/x", "a/y"],
        ] {
            assert!(select(&tree(bad), true).is_err(), "{bad:?}");
        }
        assert!(select(&tree(&["ß", "ss", "A/x", "A/y"]), true).is_ok());
        for left_out in [&["../vendor/a/b"][..], &["../a/go.mod", "../a/b"]] {
            assert_eq!(select(&tree(left_out), true), Ok(Vec::new()), "{left_out:?}");
        }
        for bad in ["", ".", "..", "../a", "/a", "a/", "a//b", "a/./b", "vendor/../a/b"] {
            assert!(select(&tree(&[bad]), true).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn names_that_are_no_text_are_refused_unless_left_out() {
        let entries =
            [&b"\xff/go.mod"[..], b"\xff/x", b"vendor/a/\xff"].map(|name| Entry { name: name.to_vec(), ..tree(&["x"])[0].clone() });
        assert_eq!(select(&entries, true), Ok(Vec::new()));
        assert!(select(&entries[1..], true).is_err());
    }

    proptest! {
        #[test]
        fn no_tree_breaks_it(names in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..12), 0..8), new: bool) {
            let entries: Vec<Entry> = names.into_iter().map(|name| Entry { name, kind: Kind::Regular, size: 0 }).collect();
            let _ = select(&entries, new);
        }
    }
}
