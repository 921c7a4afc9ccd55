//! The kept files as a whole: looked at again, taken in from elsewhere, forgotten. For the commands that keep the cache.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;

use super::transfer::{self, note};
use super::verify::{Checked, Expected, Note, Standing, internal, look_at};
use super::{Gateway, GatewayError};
use crate::module::zip::{MAX_GO_MOD, MAX_ZIP, ZipError};
use crate::module::{Ask, Info, ModuleVersion, Sum};
use crate::route::Plan;
use crate::store::{Look, Spool, StoreError, evict};
use crate::upstream::{MAX_INFO, MAX_LIST, UpstreamError, check_go_mod};

/// What a look at a kept file came to.
#[derive(Debug, Clone)]
pub enum Examined {
    /// It is what it has to be.
    Good(Checked),
    /// Nothing is known that it could be held against.
    Unknown,
    /// It is not what it has to be, or damaged.
    Bad(String),
}

/// What became of a file that was to be taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It is kept.
    In,
    /// One was kept already.
    There,
}

/// Why a file is not taken in.
#[derive(Debug, thiserror::Error)]
pub enum Untaken {
    /// No upstream of a route of this configuration would keep it.
    #[error("no route leads to an upstream that would keep it")]
    NoPlace,
    /// It could not be proven.
    #[error(transparent)]
    Unproven(#[from] GatewayError),
    /// It is not what it has to be.
    #[error(transparent)]
    Bad(#[from] UpstreamError),
    /// The disk.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Gateway {
    /// The zips and go.mod files that are kept of a member. Blocks.
    ///
    /// # Errors
    /// What the disk says.
    pub fn kept(&self, member: usize) -> Result<Vec<Ask>, StoreError> {
        let folder = self.store.root().join(&*self.members[member].name);
        let of_file = |file: PathBuf| {
            let name = file.strip_prefix(&folder).ok()?.to_str()?.replace('%', "%25");
            Ask::parse(&format!("/{name}")).ok().filter(|ask| matches!(ask, Ask::GoMod(_) | Ask::Zip(_)))
        };
        Ok(evict::files(&folder)?.into_iter().filter_map(of_file).collect())
    }

    /// Looks at a kept zip or go.mod: against the sum that was noted of it, else against what its route wants, which is found out by
    /// asking nobody, and then noted.
    ///
    /// # Errors
    /// What the disk says.
    pub async fn examine(&self, member: usize, ask: &Ask) -> Result<Examined, GatewayError> {
        let (name, folder) = (Arc::clone(&self.members[member].name), self.members[member].folder.clone());
        let (ledger, part) = (self.ledger.clone(), ask.clone());
        let look = tokio::task::spawn_blocking(move || Ok((ledger.read(&name, &part, Look::Full)?, look_at(&folder, &part))));
        let (noted, looked) = look.await.map_err(|_| GatewayError::Internal)?.map_err(|e: StoreError| internal(&e))?;
        let (sum, mark) = match looked {
            Ok(Some((sum, mark, _))) => (sum, mark),
            Ok(None) => return Ok(Examined::Unknown),
            Err(ZipError::Io(e)) => return Err(internal(&StoreError::new("read", ask.path().as_ref(), e))),
            Err(e) => return Ok(Examined::Bad(e.to_string())),
        };
        let name = &self.members[member].name;
        let expected = match (noted, self.plan_of(member, ask)) {
            (Some(noted), _) => Expected::Sum(noted.checked),
            (None, Some(plan)) => match self.expected(&plan, ask, true).await {
                Ok(expected) => expected,
                Err(_) => return Ok(Examined::Unknown),
            },
            (None, _) => return Ok(Examined::Unknown),
        };
        if !expected.is_sum() {
            return Ok(Examined::Unknown);
        }
        match expected.judge(sum, name, ask) {
            Ok(Some(checked)) => {
                let (ledger, name, ask) = (self.ledger.clone(), Arc::clone(name), ask.clone());
                let note = Note { checked: checked.clone(), file: Some(mark) };
                let noted = tokio::task::spawn_blocking(move || ledger.write(&name, &ask, &note)).await;
                noted.map_err(|_| GatewayError::Internal)?.map_err(|e| internal(&e))?;
                Ok(Examined::Good(checked))
            }
            Ok(None) => Ok(Examined::Unknown),
            Err(e) => Ok(Examined::Bad(e.to_string())),
        }
    }

    /// The first plan for a module, everybody's or else a team's, in which this member has a part.
    fn plan_of(&self, member: usize, ask: &Ask) -> Option<Plan> {
        self.plans(ask.module()).find(|plan| plan.route.steps.iter().any(|step| step.upstream == member))
    }

    /// The place of the upstream that a file taken in belongs to: this one, or the first that keeps files, of everybody's route for
    /// it or else of a team's.
    pub fn keeper(&self, ask: &Ask, upstream: Option<&str>) -> Option<usize> {
        let keeps = |member: usize| {
            let member = &self.members[member];
            member.folder.is_writable() && upstream.is_none_or(|name| *member.name == *name)
        };
        let first = |plan: Plan| plan.route.steps.iter().map(|step| step.upstream).find(|member| keeps(*member));
        self.plans(ask.module()).find_map(first)
    }

    /// Takes a part of a version in as though its keeper had just given it: it has to prove what its route wants, by what is known
    /// here. `seen` is the sum that was first seen elsewhere, which counts where nothing else does.
    ///
    /// # Errors
    /// Why it is not kept.
    pub async fn take_in(&self, member: usize, ask: &Ask, spool: Spool, seen: Option<Checked>) -> Result<Taken, Untaken> {
        let plan = self.plan_of(member, ask).ok_or(Untaken::NoPlace)?;
        let folder = self.members[member].folder.clone();
        let expected = match self.expected(&plan, ask, false).await? {
            // Whoever made the bundle can say what was seen there, but not what is proven.
            Expected::First => match seen {
                Some(seen @ Checked { standing: Standing::Seen(_), .. }) => Expected::Sum(seen),
                _ => Expected::First,
            },
            other => other,
        };
        let name = &self.members[member].name;
        let unreadable = |e| StoreError::new("read the temporary file of", ask.path().as_ref(), e);
        let checked = match ask {
            Ask::Zip(version) if spool.written() <= MAX_ZIP => {
                let sum = transfer::check(spool.file().map_err(unreadable)?, version.clone(), None, true).await?;
                sum.map_or(Ok(None), |sum| expected.judge(sum, name, ask))?
            }
            Ask::GoMod(_) if spool.written() <= MAX_GO_MOD => {
                let text = spool.read_all().map_err(unreadable)?;
                check_go_mod(&text).map_err(UpstreamError::corrupt)?;
                expected.judge(Sum::of_go_mod(&text), name, ask)?
            }
            Ask::Info(version) if spool.written() <= MAX_INFO => {
                let info = Info::parse(spool.read_all().map_err(unreadable)?).map_err(UpstreamError::corrupt)?;
                if info.version != version.version {
                    return Err(UpstreamError::corrupt(format!("it speaks of {}", info.version)).into());
                }
                None
            }
            _ => return Err(UpstreamError::corrupt("larger than such a file can be, or no part of a version").into()),
        };
        let (ledger, ask) = (self.ledger.clone(), ask.clone());
        let kept = tokio::task::spawn_blocking(move || {
            let named = folder.commit(&ask, spool)?;
            note(&ledger, &folder, &ask, checked, named)?;
            Ok::<_, StoreError>(named)
        });
        let named = kept.await.map_err(|_| GatewayError::Internal)??;
        Ok(if named.is_some() { Taken::In } else { Taken::There })
    }

    /// Adds versions to the kept list of an upstream, as though it had listed them. Blocks.
    ///
    /// # Errors
    /// What the disk says.
    pub fn add_to_list(&self, member: usize, ask: &Ask, versions: &[String]) -> Result<(), StoreError> {
        let folder = &self.members[member].folder;
        let (known, asked) = folder.read(ask, MAX_LIST, Look::Full)?.unwrap_or((Bytes::new(), SystemTime::UNIX_EPOCH));
        let mut lines: Vec<&str> = std::str::from_utf8(&known).unwrap_or_default().lines().collect();
        lines.extend(versions.iter().map(String::as_str));
        lines.sort_unstable();
        lines.dedup();
        folder.keep(ask, &(lines.join("\n") + "\n").into())?;
        // Whoever listed the others is asked again as soon as it would have been.
        folder.date(ask, asked)
    }

    /// Forgets what was noted of a version, and puts its kept files aside, so that it is fetched as though it had never been seen. How
    /// many files that were. Blocks.
    ///
    /// # Errors
    /// What the disk says.
    pub fn forget(&self, version: &ModuleVersion) -> Result<usize, StoreError> {
        let mut files = 0;
        for ask in [Ask::Info(version.clone()), Ask::GoMod(version.clone()), Ask::Zip(version.clone())] {
            for member in &self.members {
                self.ledger.forget(&member.name, &ask);
                if member.folder.is_writable() && member.folder.has(&ask) {
                    member.folder.set_aside(&ask)?;
                    files += 1;
                }
            }
        }
        Ok(files)
    }
}
