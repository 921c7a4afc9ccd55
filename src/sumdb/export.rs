//! What a database said, for somebody who cannot ask it; and a look at what is kept of it.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use super::record::Record;
use super::tree::{self, Coord};
use super::{Database, MAX_LOOKUP, SumdbError, lookup_path, tile};
use crate::module::escape::unescape;
use crate::module::{ModulePath, ModuleVersion, Version};
use crate::store::evict;

/// The sizes of the trees whose heads have been exported.
const EXPORTED: &str = "exported";

/// The files of an export, by their names below the database's URL.
type Files = Vec<(String, Bytes)>;

impl Database {
    /// What proves these versions to somebody who can ask nobody: look-ups, a signed head, and the tiles between them, by their names
    /// below the database's URL. Whoever has taken an earlier export in can prove that this one is of the same history. With them
    /// come the versions that the database does not know.
    ///
    /// # Errors
    /// What could not be had of it.
    pub async fn export(self: &Arc<Self>, versions: &[ModuleVersion]) -> Result<(Files, Vec<ModuleVersion>), SumdbError> {
        let (mut files, mut unknown, mut found) = (Vec::new(), Vec::new(), Vec::new());
        for version in versions {
            match self.look_up(version, false).await {
                Ok(looked) => {
                    files.push((lookup_path(version), looked.answer.clone()));
                    found.push(looked);
                }
                Err(SumdbError::Absent) => unknown.push(version.clone()),
                Err(e) => return Err(e),
            }
        }
        let Some(newest) = self.heads.newest() else { return Ok((files, unknown)) };
        let mut wanted = Vec::new();
        for looked in found {
            let record = Record::parse(&looked.answer).ok_or_else(|| SumdbError::refused("a kept look-up is damaged".into()))?;
            wanted.push(Coord { level: 0, index: record.number });
            wanted.extend(tree::parts(self.heads.read(&looked.answer.slice_ref(record.rest))?.head.size));
        }
        let before = self.get(EXPORTED, MAX_LOOKUP).await.unwrap_or_default();
        let mut sizes: BTreeSet<u64> = String::from_utf8_lossy(&before).lines().filter_map(tree::number).collect();
        wanted.extend(sizes.iter().filter(|size| **size <= newest.head.size).flat_map(|size| tree::parts(*size)));
        wanted.sort_unstable();
        wanted.dedup();
        let proof = self.tiles.prove(&newest.head, &wanted, &self.sources).await?;
        self.tiles.keep(&proof).await;
        files.extend(proof.tiles.into_iter().map(|(tile, bytes)| (tile.path(tile::width_of(&bytes)), bytes)));
        files.push(("latest".into(), newest.note));
        sizes.insert(newest.head.size);
        let sizes = sizes.iter().fold(String::new(), |text, size| format!("{text}{size}\n"));
        self.put(EXPORTED, &sizes.into()).await;
        Ok((files, unknown))
    }

    /// Proves all look-ups that are kept once more, by what is kept; with `repair`, what that does not prove is asked for again. How
    /// many are good, and what is wrong with the others.
    pub async fn check_kept(self: &Arc<Self>, repair: bool) -> (usize, Vec<(String, SumdbError)>) {
        let root = self.shelf.root().join("lookup");
        let listed = {
            let root = root.clone();
            tokio::task::spawn_blocking(move || evict::files(&root)).await
        };
        let files = listed.ok().and_then(Result::ok).unwrap_or_default();
        let (mut good, mut bad) = (0, Vec::new());
        for file in files {
            let name = file.strip_prefix(&root).ok().and_then(|name| name.to_str()).unwrap_or_default();
            let Some(version) = version_of(name) else {
                bad.push((name.to_owned(), SumdbError::refused("not the name of a look-up".into())));
                continue;
            };
            let mut looked = self.look_up(&version, true).await;
            if looked.is_err() && repair {
                looked = self.look_up(&version, false).await;
            }
            match looked {
                Ok(_) => good += 1,
                Err(e) => bad.push((name.to_owned(), e)),
            }
        }
        (good, bad)
    }
}

/// The version of a look-up's file.
fn version_of(name: &str) -> Option<ModuleVersion> {
    let (module, version) = name.rsplit_once('@')?;
    ModuleVersion::new(ModulePath::unescape(module).ok()?, Version::parse(&unescape(version)?).ok()?).ok()
}
