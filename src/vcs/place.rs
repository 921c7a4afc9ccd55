//! Where in a commit a module is: in its directory, or in the directory of its major version. Pure, without I/O.

use bytes::Bytes;

use super::revision::Module;
use crate::module::gomod::declared_path;
use crate::module::path::split_major;
use crate::module::semver::major;

/// Where a module's files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// The directory; empty for the top.
    pub(super) dir: String,
    /// Its go.mod, where it has one.
    pub(super) go_mod: Option<Bytes>,
}

/// The go.mod of the directory `vN` below a module's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Second {
    /// The module's path does not end in `/vN`, or the repository's root does so too.
    NoMatter,
    /// There is none.
    Missing,
    /// Its text.
    There(Bytes),
}

/// Decides by the go.mod of the module's directory, and where its path ends in `/vN`, by that of the directory `vN` below it.
///
/// # Errors
/// Why the module is in neither.
pub(super) fn place(
    module: &Module,
    first: Option<Bytes>,
    second: &Second,
    version: &str,
    revision: &str,
) -> Result<Place, String> {
    let (suffix, prefix, root, dir) = (module.suffix(), module.path.prefix(), &module.root, &module.dir);
    let declared = first.as_deref().map(declared_path).unwrap_or_default();
    let first_fits = first.is_some() && (is_major(&declared, suffix) || (suffix.is_empty() && declared.starts_with("gopkg.in/")));
    let file = super::revision::in_dir(dir, "go.mod");
    if let Second::There(second) = second {
        let dir = super::revision::in_dir(dir, &suffix[1..]);
        let declared = declared_path(second);
        let fits = is_major(&declared, suffix);
        return if fits && first_fits {
            Err(format!("{prefix}/{file} and ...{suffix}/go.mod both have ...{suffix} module paths at revision {revision}"))
        } else if fits {
            Ok(Place { dir, go_mod: Some(second.clone()) })
        } else if declared.is_empty() {
            Err(format!("{root}/{dir}/go.mod is missing module path at revision {revision}"))
        } else {
            Err(format!("{root}/{dir}/go.mod has non-...{suffix} module path {declared:?} at revision {revision}"))
        };
    }
    if first_fits {
        return Ok(Place { dir: dir.clone(), go_mod: first });
    }
    let missing = *second == Second::Missing;
    let or_there = if missing { format!(" (and ...{suffix}/go.mod does not exist)") } else { String::new() };
    if first.is_some() {
        return Err(if declared.is_empty() {
            format!("{file} is missing module path{or_there} at revision {revision}")
        } else if !suffix.is_empty() {
            format!("{file} has non-...{suffix} module path {declared:?}{or_there} at revision {revision}")
        } else if split_major(&declared).is_none() {
            format!("{file} has malformed module path {declared:?}{or_there} at revision {revision}")
        } else {
            format!("{file} has post-{} module path {declared:?}{or_there} at revision {revision}", major(version))
        });
    }
    if dir.is_empty() && (suffix.is_empty() || suffix.starts_with('.')) {
        return Ok(Place { dir: String::new(), go_mod: None });
    }
    Err(if missing {
        format!("missing {prefix}/go.mod and ...{suffix}/go.mod at revision {revision}")
    } else {
        format!("missing {prefix}/go.mod at revision {revision}")
    })
}

/// Whether the path that a go.mod declares asks for the same major version as a suffix.
fn is_major(declared: &str, suffix: &str) -> bool {
    let Some(at) = split_major(declared).filter(|_| !declared.is_empty()) else { return false };
    let own = &declared[at..];
    let plain = |suffix: &'_ str| suffix.strip_suffix("-unstable").unwrap_or(suffix).get(1..).unwrap_or_default().to_owned();
    if suffix.is_empty() {
        return matches!(plain(own).as_str(), "" | "v0" | "v1");
    }
    !own.is_empty() && own[1..] == suffix[1..]
}
