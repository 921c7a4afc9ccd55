//! `modgate warm`: what a build will ask for, fetched before it does.

use std::path::Path;
use std::time::Duration;

use super::wanted::{Fetched, Wanted};
use super::{CliError, Names, out, warn};
use crate::assemble::Foundation;
use crate::base::units::show_size;
use crate::config::Config;

/// How long the last answers may take to be stored.
pub(super) const SETTLE: Duration = Duration::from_secs(60);

pub(super) fn run(config: Option<&Path>, names: &Names) -> Result<(), CliError> {
    let config = Config::load(config)?;
    warn(&config);
    let wanted = Wanted::read(names)?;
    let foundation = Foundation::lay(&config)?;
    let gateway = foundation.gateway(&config)?;
    let fetched = foundation.runtime().block_on(async {
        let fetched = wanted.fetch(&gateway, names.jobs.into()).await;
        super::serve::settle(std::slice::from_ref(&gateway), SETTLE).await;
        fetched
    });
    foundation.close();
    said(&fetched)
}

/// Says what came of fetching; what could not be had fails the command.
pub(super) fn said(fetched: &Fetched) -> Result<(), CliError> {
    out(format_args!(
        "{} versions: {} files came ({}), {} were there already",
        fetched.parts.len(),
        fetched.came,
        show_size(fetched.bytes),
        fetched.there
    ));
    match fetched.failed.len() {
        0 => Ok(()),
        n => Err(CliError::Said(format!("{n} files could not be had; run it again to try these alone"))),
    }
}
