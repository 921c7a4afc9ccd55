//! `modgate export` and `modgate import`: modules for an office without a network, in one file.
//!
//! The file is a tar. First comes what proves the modules, below `sumdb/` as the databases' URLs have it, and below `sums/` what was seen
//! first of versions that no database knows; then the modules below `download/`, in the layout of the module cache, so that the unpacked
//! folder is a GOPROXY of its own. Whoever takes it in believes none of it unproven.

use std::collections::{BTreeMap, HashMap};
use std::fs::{File, Permissions};
use std::io::{self, BufWriter, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use tar::{Archive, Builder, EntryType, Header};
use tempfile::NamedTempFile;

use super::wanted::{Fetched, Wanted};
use super::warm::{at_once, fetch};
use super::{CliError, Names, out, start_logging_trouble, warn};
use crate::assemble::Foundation;
use crate::base::Call;
use crate::base::units::show_size;
use crate::config::Config;
use crate::gateway::Team;
use crate::gateway::stock::{Taken, Untaken};
use crate::gateway::verify::{Checked, Note, Standing, TOOLCHAIN};
use crate::gateway::{Content, Gateway};
use crate::module::list::VersionList;
use crate::module::zip::MAX_ZIP;
use crate::module::{Ask, ModuleVersion};
use crate::store::{Durable, Spool};
use crate::sumdb::SumdbAsk;
use crate::sumdb::tile::{Kind, Named};
use crate::upstream::MAX_LIST;

/// The first entry, which says what the file is.
const MARK: (&str, &str) = ("modgate-bundle", "1\n");
/// The last entry: without it the file was cut off.
const END: &str = "modgate-bundle-end";
/// The longest name of an entry.
const MAX_NAME: u64 = 4096;
/// The largest note of what was seen first, and the most of them.
const MAX_NOTE: u64 = 1024;
const MAX_NOTES: usize = 1 << 20;
/// So many refusals are told one by one.
const TOLD: usize = 200;
/// The largest entry that is not a zip.
const MAX_SMALL: u64 = 16 << 20;
/// A zip is read and written in pieces of this size.
const PIECE: usize = 256 << 10;

pub(super) fn export(config: Option<&Path>, names: &Names, output: &Path) -> Result<(), CliError> {
    if output == Path::new("-") {
        return Err(CliError::Said("-o wants the name of a file; a bundle is not written to standard output".into()));
    }
    let config = Config::load(config)?;
    warn(&config);
    let _guard = start_logging_trouble(&config.log);
    let wanted = Wanted::read(names)?;
    let folder = output.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let temp = NamedTempFile::new_in(folder);
    let temp = temp.map_err(|e| CliError::Said(format!("cannot write in {}: {e}", folder.display())))?;
    let foundation = Foundation::lay(&config)?;
    let gateway = foundation.gateway(&config)?;
    let team = super::team(&gateway, names.team.as_deref())?;
    let written = foundation.runtime().block_on(async {
        // What is missing would be missed where nobody can fetch it.
        let fetched = fetch(&gateway, team, wanted, at_once(names, &config)).await?;
        write(&gateway, team, &fetched, temp, output).await
    });
    foundation.close();
    written
}

/// Writes the file beside its place, and names it when it is whole.
async fn write(gateway: &Arc<Gateway>, team: &Team, fetched: &Fetched, temp: NamedTempFile, output: &Path) -> Result<(), CliError> {
    let mut tar = Builder::new(BufWriter::new(temp));
    append(&mut tar, MARK.0, MARK.1.as_bytes())?;
    let versions: Vec<ModuleVersion> = fetched.parts.values().map(|(version, _)| version.clone()).collect();
    for database in &gateway.trust().databases {
        let asked: Vec<_> = versions.iter().filter(|v| !gateway.is_fenced(team, &v.module)).cloned().collect();
        let (files, unknown) = database.export(&asked).await?;
        for (name, bytes) in files {
            append(&mut tar, &format!("sumdb/{}/{name}", database.name()), &bytes)?;
        }
        for version in unknown {
            out(format_args!("{version}: {} does not know it", database.name()));
        }
    }
    let kept = Call { cached_only: true, ..Call::new() };
    for ask in fetched.parts.values().flat_map(|(_, asks)| asks) {
        let checked = gateway.answer(team, ask, &kept).await.trail.checked;
        if let Some(seen @ Checked { standing: Standing::Seen(_), .. }) = checked {
            let note = Note { checked: seen, file: None };
            append(&mut tar, &format!("sums/{}", ask.path()), note.to_string().as_bytes())?;
        }
    }
    let (mut count, mut lists) = (0, BTreeMap::<String, Vec<String>>::new());
    for (version, asks) in fetched.parts.values() {
        if asks.iter().any(|ask| matches!(ask, Ask::Zip(_))) && version.module.as_str() != TOOLCHAIN {
            lists.entry(Ask::List(version.module.clone()).path()).or_default().push(version.version.to_string());
        }
        for ask in asks {
            let answer = gateway.answer(team, ask, &kept).await.result.map_err(|e| CliError::Said(format!("{ask}: {e}")))?;
            let name = format!("download/{}", ask.path());
            match answer.content {
                Content::Bytes(bytes) => append(&mut tar, &name, &bytes)?,
                Content::File { file, length } => append_file(&mut tar, &name, &file, length)?,
                Content::Growing { .. } => return Err(CliError::Said(format!("{ask} is still arriving"))),
            }
            count += 1;
        }
    }
    for (name, versions) in lists {
        append(&mut tar, &format!("download/{name}"), (versions.join("\n") + "\n").as_bytes())?;
    }
    append(&mut tar, END, b"")?;
    let temp = tar.into_inner()?.into_inner().map_err(io::IntoInnerError::into_error)?;
    temp.as_file().set_permissions(Permissions::from_mode(0o644))?;
    temp.as_file().sync_all()?;
    let length = temp.as_file().metadata()?.len();
    temp.persist(output).map_err(|e| e.error)?;
    out(format_args!("{}: {count} files, {}", output.display(), show_size(length)));
    Ok(())
}

fn header(length: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_size(length);
    header.set_mode(0o644);
    header.set_entry_type(EntryType::Regular);
    header
}

fn append(tar: &mut Builder<impl io::Write>, name: &str, bytes: &[u8]) -> Result<(), CliError> {
    Ok(tar.append_data(&mut header(bytes.len() as u64), name, bytes)?)
}

fn append_file(tar: &mut Builder<impl io::Write>, name: &str, file: &File, length: u64) -> Result<(), CliError> {
    struct From<'a>(&'a File, u64);
    impl Read for From<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let read = std::os::unix::fs::FileExt::read_at(self.0, into, self.1)?;
            self.1 += read as u64;
            Ok(read)
        }
    }
    Ok(tar.append_data(&mut header(length), name, From(file, 0).take(length))?)
}

pub(super) fn import(config: Option<&Path>, bundle: &Path, upstream: Option<&str>) -> Result<(), CliError> {
    let config = Config::load(config)?;
    warn(&config);
    let _guard = start_logging_trouble(&config.log);
    let foundation = Foundation::lay(&config)?;
    let gateway = foundation.gateway(&config)?;
    if let Some(name) = upstream.filter(|name| !gateway.members().iter().any(|m| *m.name == **name)) {
        return Err(CliError::Said(format!("there is no upstream {name:?}")));
    }
    let file = File::open(bundle).map_err(|e| CliError::Said(format!("{}: {e}", bundle.display())))?;
    let mut importing = Importing {
        gateway: &gateway,
        foundation: &foundation,
        config: &config,
        upstream,
        seen: HashMap::new(),
        asked: Vec::new(),
        lists: BTreeMap::new(),
        count: Count::default(),
    };
    let done = importing.all(file);
    let Importing { count, .. } = importing;
    out(format_args!(
        "{} look-ups proven; {} files taken in, {} were there already, {} lists",
        count.proven, count.taken, count.there, count.lists
    ));
    for (what, why) in &count.told {
        out(format_args!("REFUSED  {what}: {why}"));
    }
    let refused = count.refused;
    if refused > TOLD {
        out(format_args!("and {} more", refused - TOLD));
    }
    drop(gateway);
    foundation.close();
    done?;
    if refused == 0 { Ok(()) } else { Err(CliError::Said(format!("{refused} files were refused"))) }
}

#[derive(Debug, Default)]
struct Count {
    proven: usize,
    taken: usize,
    there: usize,
    lists: usize,
    refused: usize,
    /// The first of them, and why.
    told: Vec<(String, String)>,
}

struct Importing<'a> {
    gateway: &'a Arc<Gateway>,
    foundation: &'a Foundation,
    config: &'a Config,
    upstream: Option<&'a str>,
    /// What was seen first elsewhere, by the part's path.
    seen: HashMap<String, Checked>,
    /// What the file answers of each database.
    asked: Vec<(String, SumdbAsk)>,
    /// The versions whose zips are there, by their keeper and their list's path.
    lists: BTreeMap<(usize, String), (Ask, Vec<String>)>,
    count: Count,
}

impl Importing<'_> {
    fn all(&mut self, file: File) -> Result<(), CliError> {
        let bad = |e: io::Error| CliError::Said(format!("not a whole bundle: {e}"));
        let mut archive = Archive::new(io::BufReader::new(file));
        // The databases' files stay only until they are proven.
        let from = tempfile::tempdir_in(self.foundation.store().temp())?;
        let (mut first, mut proven, mut ended, mut long_name) = (true, false, false, None);
        // Raw: the library would read names of any length.
        for entry in archive.entries().map_err(bad)?.raw(true) {
            let mut entry = entry.map_err(bad)?;
            let kind = entry.header().entry_type();
            if kind == EntryType::GNULongName {
                let mut name = small(&mut entry, MAX_NAME).map_err(bad)?;
                name.truncate(name.iter().position(|b| *b == 0).unwrap_or(name.len()));
                long_name = Some(name);
                continue;
            }
            let name = long_name.take().unwrap_or_else(|| entry.path_bytes().into_owned());
            let name = String::from_utf8(name).unwrap_or_default();
            if std::mem::take(&mut first) {
                let mark = small(&mut entry, MAX_NAME).map_err(bad)?;
                if name != MARK.0 || mark != MARK.1.as_bytes() {
                    return Err(CliError::Said("not a bundle that this version of modgate can read".into()));
                }
                continue;
            }
            match name.split_once('/') {
                _ if kind != EntryType::Regular => self.refuse(&name, "not a file"),
                None if name == END => ended = true,
                Some(("sumdb", below)) if !proven => self.sumdb(below, &small(&mut entry, MAX_SMALL).map_err(bad)?, from.path())?,
                Some(("sums", below)) => self.sum(below, &mut entry),
                Some(("download", below)) => {
                    if !std::mem::replace(&mut proven, true) {
                        self.prove(from.path())?;
                    }
                    self.module(below, &mut entry)?;
                }
                _ => self.refuse(&name, "nothing of this name belongs into a bundle"),
            }
        }
        if !proven {
            self.prove(from.path())?;
        }
        self.put_lists()?;
        if ended { Ok(()) } else { Err(CliError::Said("not a whole bundle: it was cut off".into())) }
    }

    fn refuse(&mut self, what: &str, why: &str) {
        self.count.refused += 1;
        if self.count.told.len() < TOLD {
            let what: String = what.escape_debug().take(300).collect();
            self.count.told.push((what, why.to_owned()));
        }
    }

    /// Remembers what was first seen elsewhere.
    fn sum(&mut self, below: &str, entry: &mut impl Read) {
        let note = small(entry, MAX_NOTE).ok().and_then(|note| Note::parse(&note));
        match note {
            Some(note) if self.seen.len() < MAX_NOTES => {
                self.seen.insert(below.to_owned(), note.checked);
            }
            _ => self.refuse(&format!("sums/{below}"), "not a note of a sum"),
        }
    }

    /// Puts a file of a database where it is read from for its proof.
    fn sumdb(&mut self, below: &str, bytes: &[u8], from: &Path) -> Result<(), CliError> {
        let names: Vec<&str> = self.gateway.databases().collect();
        let Ok((database, ask)) = SumdbAsk::parse(&below.replace('%', "%25"), names.into_iter()) else {
            self.refuse(below, "not of a database of this configuration");
            return Ok(());
        };
        let name = below.strip_prefix(database).unwrap_or_default().trim_start_matches('/');
        match self.foundation.files(from, database).write(name, bytes, Durable::No) {
            Err(e) if e.source.kind() == io::ErrorKind::InvalidFilename => self.refuse(below, &e.source.to_string()),
            Err(e) => return Err(e.into()),
            Ok(()) => self.asked.push((database.to_owned(), ask)),
        }
        Ok(())
    }

    /// Has the databases look up, in the file instead of anywhere else, what the file has, and prove its tiles, which later look-ups of
    /// other bundles may need.
    fn prove(&mut self, from: &Path) -> Result<(), CliError> {
        let asked = std::mem::take(&mut self.asked);
        for settings in &self.config.databases {
            let name = settings.key.name();
            let database = self.foundation.database_of_files(settings, from)?;
            let own = || asked.iter().filter(|(of, _)| of == name).map(|(_, ask)| ask);
            for ask in own() {
                let SumdbAsk::Lookup(version) = ask else { continue };
                match self.foundation.runtime().block_on(database.sums(version, false)) {
                    Ok(_) => self.count.proven += 1,
                    Err(e) => self.refuse(&format!("sumdb/{name}/{ask}"), &e.to_string()),
                }
            }
            for ask in own() {
                let SumdbAsk::Tile(named @ Named { kind: Kind::Hashes(tile), width }) = ask else { continue };
                if database.size().is_none_or(|size| tile.width_in(size) < *width) {
                    // Of a tree that was not taken in.
                    continue;
                }
                // One that proves nothing is not kept; a look-up that needed it has said so.
                let _ = self.foundation.runtime().block_on(database.tile(*named, false));
            }
        }
        Ok(())
    }

    /// Lists the versions whose zips are there now.
    fn put_lists(&mut self) -> Result<(), CliError> {
        for ((keeper, path), (ask, versions)) in std::mem::take(&mut self.lists) {
            self.gateway.add_to_list(keeper, &ask, &versions).map_err(|e| CliError::Said(format!("{path}: {e}")))?;
            self.count.lists += 1;
        }
        Ok(())
    }

    fn module(&mut self, below: &str, entry: &mut impl Read) -> Result<(), CliError> {
        let ask = match Ask::parse(&format!("/{}", below.replace('%', "%25"))) {
            Ok(ask) => ask,
            Err(e) => {
                self.refuse(below, &e.to_string());
                return Ok(());
            }
        };
        let Some(keeper) = self.gateway.keeper(&ask, self.upstream) else {
            self.refuse(below, &Untaken::NoPlace.to_string());
            return Ok(());
        };
        match &ask {
            // For whoever unpacks the bundle; here those count whose zips are good.
            Ask::List(module) => {
                let text = String::from_utf8(small(entry, MAX_LIST)?).unwrap_or_default();
                let VersionList { tagged, pseudo } = VersionList::parse(module, &text);
                if tagged.is_empty() && pseudo.is_empty() {
                    self.refuse(below, "not a list of versions");
                }
            }
            Ask::Info(version) | Ask::GoMod(version) | Ask::Zip(version) => {
                let spool = self.spool(entry)?;
                let seen = self.seen.get(&ask.path()).cloned();
                let taken = self.foundation.runtime().block_on(self.gateway.take_in(keeper, &ask, spool, seen));
                if taken.is_ok() && matches!(ask, Ask::Zip(_)) {
                    let list = Ask::List(version.module.clone());
                    let listed = self.lists.entry((keeper, list.path())).or_insert_with(|| (list, Vec::new()));
                    listed.1.push(version.version.to_string());
                }
                match taken {
                    Ok(Taken::In) => self.count.taken += 1,
                    Ok(Taken::There) => self.count.there += 1,
                    Err(Untaken::Store(e)) if e.source.kind() != io::ErrorKind::InvalidFilename => return Err(e.into()),
                    Err(e) => self.refuse(below, &e.to_string()),
                }
            }
            Ask::Latest(_) | Ask::Query(..) => self.refuse(below, "only what never changes belongs into a bundle"),
        }
        Ok(())
    }

    fn spool(&self, entry: &mut impl Read) -> Result<Spool, CliError> {
        let mut spool = self.foundation.store().spool()?;
        let mut entry = entry.take(MAX_ZIP + 1);
        loop {
            let mut piece = vec![0; PIECE];
            let read = entry.read(&mut piece)?;
            if read == 0 {
                return Ok(spool);
            }
            piece.truncate(read);
            spool.append(&[Bytes::from(piece)])?;
        }
    }
}

/// A small entry, whole.
fn small(entry: &mut impl Read, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    entry.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(bytes) }
}
