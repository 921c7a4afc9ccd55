//! `modgate warm`: what a build will ask for, fetched before it does.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::wanted::{Fetched, Wanted};
use super::{CliError, Names, out, start_logging_trouble, warn};
use crate::assemble::Foundation;
use crate::base::units::show_size;
use crate::config::Config;
use crate::gateway::{Gateway, Team};

/// How long the last answers may take to be stored.
const SETTLE: Duration = Duration::from_secs(60);

pub(super) fn run(config: Option<&Path>, names: &Names) -> Result<(), CliError> {
    let config = Config::load(config)?;
    warn(&config);
    let _guard = start_logging_trouble(&config.log);
    let wanted = Wanted::read(names)?;
    let foundation = Foundation::lay(&config)?;
    let gateway = foundation.gateway(&config)?;
    let fetched = foundation.runtime().block_on(fetch(
        &gateway,
        super::team(&gateway, names.team.as_deref())?,
        wanted,
        at_once(names, &config),
    ));
    foundation.close();
    fetched.map(drop)
}

/// So many files are fetched at once: as many as the command line says, and the gateway lets.
pub(super) fn at_once(names: &Names, config: &Config) -> usize {
    usize::from(names.jobs).min(config.gateway.max_fetches)
}

/// Fetches what is wanted, and says what came of it; what could not be had or stored fails the command.
pub(super) async fn fetch(gateway: &Arc<Gateway>, team: &Team, wanted: Wanted, at_once: usize) -> Result<Fetched, CliError> {
    let fetched = wanted.fetch(gateway, team, at_once).await;
    let settled = super::serve::settle(std::slice::from_ref(gateway), SETTLE).await;
    out(format_args!(
        "{} versions: {} files came ({}), {} were there already",
        fetched.parts.len(),
        fetched.came,
        show_size(fetched.bytes),
        fetched.there
    ));
    if !settled || gateway.unstored() > 0 {
        return Err(CliError::Said(format!("{} files could not be stored in the cache", gateway.unstored().max(1))));
    }
    match fetched.failed.len() {
        0 => Ok(fetched),
        n => Err(CliError::Said(format!("{n} files could not be had; run it again to try these alone"))),
    }
}
