//! `modgate export` and `modgate import`: modules for an office without a network, in one file.
//!
//! The file is a tar. First comes what proves the modules, below `sumdb/` as the databases' URLs have it, and below `sums/` what was seen
//! first of versions that no database knows; then the modules below `download/`, in the layout of the module cache, so that the unpacked
//! folder is a GOPROXY of its own. Whoever takes it in believes none of it unproven.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, BufWriter, Read};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use tar::{Archive, Builder, EntryType, Header};

use super::wanted::{Fetched, Wanted};
use super::warm::{SETTLE, said};
use super::{CliError, Names, out, warn};
use crate::assemble::Foundation;
use crate::base::Call;
use crate::base::units::show_size;
use crate::config::Config;
use crate::gateway::stock::{Taken, Untaken};
use crate::gateway::verify::{Checked, Note, Standing, TOOLCHAIN};
use crate::gateway::{Content, Gateway};
use crate::module::zip::MAX_ZIP;
use crate::module::{Ask, ModuleVersion};
use crate::store::{Durable, Spool};
use crate::sumdb::SumdbAsk;

/// The first entry, which says what the file is.
const MARK: (&str, &str) = ("modgate-bundle", "1\n");
/// The largest entry that is not a zip.
const MAX_SMALL: u64 = 16 << 20;
/// A zip is read and written in pieces of this size.
const PIECE: usize = 256 << 10;

pub(super) fn export(config: Option<&Path>, names: &Names, output: &Path) -> Result<(), CliError> {
    let config = Config::load(config)?;
    warn(&config);
    let wanted = Wanted::read(names)?;
    let foundation = Foundation::lay(&config)?;
    let gateway = foundation.gateway(&config)?;
    let written = foundation.runtime().block_on(async {
        let fetched = wanted.fetch(&gateway, names.jobs.into()).await;
        super::serve::settle(std::slice::from_ref(&gateway), SETTLE).await;
        // What is missing would be missed where nobody can fetch it.
        said(&fetched)?;
        write(&gateway, &fetched, output).await
    });
    foundation.close();
    written
}

/// Writes the file beside its place, and names it when it is whole.
async fn write(gateway: &Arc<Gateway>, fetched: &Fetched, output: &Path) -> Result<(), CliError> {
    let folder = output.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let temp = tempfile::NamedTempFile::new_in(folder)?;
    let mut tar = Builder::new(BufWriter::new(temp));
    append(&mut tar, MARK.0, MARK.1.as_bytes())?;
    let versions: Vec<ModuleVersion> = fetched.parts.values().map(|(version, _)| version.clone()).collect();
    for database in &gateway.trust().databases {
        let asked: Vec<_> = versions.iter().filter(|v| !gateway.is_fenced(&v.module)).cloned().collect();
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
        let checked = gateway.answer(ask, &kept).await.trail.checked;
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
            let answer = gateway.answer(ask, &kept).await.result.map_err(|e| CliError::Said(format!("{ask}: {e}")))?;
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
    let temp = tar.into_inner()?.into_inner().map_err(io::IntoInnerError::into_error)?;
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
        lookups: Vec::new(),
        count: Count::default(),
    };
    let done = importing.all(file);
    let Importing { count, .. } = importing;
    out(format_args!(
        "{} look-ups proven; {} files taken in, {} were there already, {} lists",
        count.proven, count.taken, count.there, count.lists
    ));
    for (what, why) in &count.refused {
        out(format_args!("REFUSED  {what}: {why}"));
    }
    let refused = count.refused.len();
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
    refused: Vec<(String, String)>,
}

struct Importing<'a> {
    gateway: &'a Arc<Gateway>,
    foundation: &'a Foundation,
    config: &'a Config,
    upstream: Option<&'a str>,
    /// What was seen first elsewhere, by the part's path.
    seen: HashMap<String, Checked>,
    /// What the file's look-ups are about, by their database.
    lookups: Vec<(String, ModuleVersion)>,
    count: Count,
}

impl Importing<'_> {
    fn all(&mut self, file: File) -> Result<(), CliError> {
        let bad = |e: io::Error| CliError::Said(format!("not a whole bundle: {e}"));
        let mut archive = Archive::new(io::BufReader::new(file));
        // The databases' files stay only until they are proven.
        let from = tempfile::tempdir_in(self.foundation.store().temp())?;
        let (mut first, mut proven) = (true, false);
        for entry in archive.entries().map_err(bad)? {
            let mut entry = entry.map_err(bad)?;
            let name = String::from_utf8(entry.path_bytes().into_owned()).unwrap_or_default();
            if std::mem::take(&mut first) {
                let mark = small(&mut entry).map_err(bad)?;
                if name != MARK.0 || mark != MARK.1.as_bytes() {
                    return Err(CliError::Said("not a bundle that this version of modgate can read".into()));
                }
                continue;
            }
            if !matches!(entry.header().entry_type(), EntryType::Regular) {
                self.refuse(&name, "not a file");
                continue;
            }
            match name.split_once('/') {
                Some(("sumdb", below)) if !proven => self.sumdb(below, &small(&mut entry).map_err(bad)?, from.path())?,
                Some(("sums", below)) => {
                    let note = Note::parse(&small(&mut entry).map_err(bad)?);
                    self.seen.extend(note.map(|note| (below.to_owned(), note.checked)));
                }
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
        Ok(())
    }

    fn refuse(&mut self, what: &str, why: &str) {
        self.count.refused.push((what.escape_debug().to_string(), why.to_owned()));
    }

    /// Puts a file of a database where it is read from for its proof.
    fn sumdb(&mut self, below: &str, bytes: &[u8], from: &Path) -> Result<(), CliError> {
        let names: Vec<&str> = self.gateway.databases().collect();
        let Ok((database, ask)) = SumdbAsk::parse(&below.replace('%', "%25"), names.into_iter()) else {
            self.refuse(below, "not of a database of this configuration");
            return Ok(());
        };
        let name = below.strip_prefix(database).unwrap_or_default().trim_start_matches('/');
        self.foundation.files(from, database).write(name, bytes, Durable::No)?;
        if let SumdbAsk::Lookup(version) = ask {
            self.lookups.push((database.to_owned(), version));
        }
        Ok(())
    }

    /// Has the databases look up, in the file instead of anywhere else, what the file has.
    fn prove(&mut self, from: &Path) -> Result<(), CliError> {
        for settings in &self.config.databases {
            let name = settings.key.name();
            let database = self.foundation.database_of_files(settings, from)?;
            for (_, version) in self.lookups.iter().filter(|(of, _)| of == name) {
                match self.foundation.runtime().block_on(database.sums(version, false)) {
                    Ok(_) => self.count.proven += 1,
                    Err(e) => self.count.refused.push((format!("sumdb/{name}/lookup/{version}"), e.to_string())),
                }
            }
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
            Ask::List(_) => {
                let text = String::from_utf8_lossy(&small(entry)?).into_owned();
                self.gateway.add_to_list(keeper, &ask, &text.lines().map(str::to_owned).collect::<Vec<_>>())?;
                self.count.lists += 1;
            }
            Ask::Info(_) | Ask::GoMod(_) | Ask::Zip(_) => {
                let spool = self.spool(entry)?;
                let seen = self.seen.get(&ask.path()).cloned();
                match self.foundation.runtime().block_on(self.gateway.take_in(keeper, &ask, spool, seen)) {
                    Ok(Taken::In) => self.count.taken += 1,
                    Ok(Taken::There) => self.count.there += 1,
                    Err(Untaken::Store(e)) => return Err(e.into()),
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
fn small(entry: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    entry.take(MAX_SMALL + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_SMALL { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(bytes) }
}
