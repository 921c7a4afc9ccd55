//! `modgate verify`: the kept files hashed again, and held against what they have to be.

use std::path::Path;
use std::sync::Arc;

use futures_util::{StreamExt, stream};

use super::{CliError, out, start_logging_trouble};
use crate::assemble::Foundation;
use crate::config::Config;
use crate::gateway::Gateway;
use crate::gateway::stock::Examined;
use crate::gateway::verify::Standing;
use crate::module::{Ask, ModulePath, ModuleVersion, Version};

#[derive(Debug, Default)]
struct Count {
    proven: usize,
    seen: usize,
    unknown: usize,
    bad: usize,
}

pub(super) fn run(config: Option<&Path>, repair: bool, forget: &[String]) -> Result<(), CliError> {
    let config = Config::load(config)?;
    let _guard = start_logging_trouble(&config.log);
    let foundation = Foundation::lay(&config)?;
    let gateway = foundation.gateway(&config)?;
    let done = if forget.is_empty() {
        foundation.runtime().block_on(verify(&gateway, repair))
    } else {
        forget.iter().try_for_each(|name| forget_one(&gateway, name))
    };
    foundation.close();
    done
}

fn forget_one(gateway: &Gateway, name: &str) -> Result<(), CliError> {
    let (module, version) = name.split_once('@').ok_or_else(|| CliError::Said(format!("{name:?} is not module@version")))?;
    let version = ModuleVersion::new(ModulePath::parse(module)?, Version::parse(version)?)?;
    let files = gateway.forget(&version)?;
    let aside = gateway.store().root().join(".bad");
    out(format_args!("{version}: forgotten; {files} kept files are in {} now", aside.display()));
    out("a modgate that is running remembers it for up to an hour, or until it gets SIGHUP");
    Ok(())
}

async fn verify(gateway: &Arc<Gateway>, repair: bool) -> Result<(), CliError> {
    let mut count = Count::default();
    for member in (0..gateway.members().len()).filter(|n| gateway.members()[*n].folder.is_writable()) {
        let of = Arc::clone(gateway);
        let files = tokio::task::spawn_blocking(move || of.kept(member));
        let files = files.await.map_err(|e| CliError::Said(e.to_string()))??;
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let look = |ask: Ask| async move { (gateway.examine(member, &ask).await, ask) };
        let mut looks = stream::iter(files.into_iter().map(look)).buffer_unordered(cores);
        while let Some((examined, ask)) = looks.next().await {
            let name = &gateway.members()[member].name;
            match examined.unwrap_or_else(|e| Examined::Bad(e.to_string())) {
                Examined::Good(checked) if matches!(checked.standing, Standing::Proven(_)) => count.proven += 1,
                Examined::Good(_) => count.seen += 1,
                Examined::Unknown => count.unknown += 1,
                Examined::Bad(why) => {
                    count.bad += 1;
                    out(format_args!("BAD  {name}/{}: {why}", ask.path()));
                    if repair {
                        let aside = gateway.members()[member].folder.set_aside(&ask)?;
                        out(format_args!("     put aside: {}", aside.display()));
                    }
                }
            }
        }
    }
    let mut unproven = 0;
    for database in &gateway.trust().databases {
        let (good, bad) = database.check_kept(repair).await;
        for (name, why) in &bad {
            out(format_args!("BAD  {}/lookup/{}: {why}", database.name(), name.escape_debug()));
        }
        unproven += bad.len();
        out(format_args!("{}: {good} look-ups proven, {} not", database.name(), bad.len()));
    }
    let Count { proven, seen, unknown, bad } = count;
    out(format_args!(
        "{} files: {proven} as the checksum database has them, {seen} as first seen, {unknown} with nothing to hold them against, {bad} BAD",
        proven + seen + unknown + bad
    ));
    if bad > 0 && !repair {
        return Err(CliError::Said("bad files are in the cache; --repair puts them aside, so that they are fetched again".into()));
    }
    if unproven > 0 {
        let again = "--repair asks for what proves them again; where nobody can be asked, import their bundle again";
        return Err(CliError::Said(format!("{unproven} look-ups are not proven by what is kept: {again}")));
    }
    Ok(())
}
