//! `modgate explain`: the decision record of a module, made by really asking.

use std::path::Path;

use super::{CliError, out};
use crate::assemble::Foundation;
use crate::config::Config;
use crate::server::explain::explain;

pub(super) fn run(config: Option<&Path>, module: &str, team: Option<&str>, json: bool) -> Result<(), CliError> {
    let config = Config::load(config)?;
    let foundation = Foundation::lay(&config)?;
    let gateway = foundation.gateway(&config)?;
    let explained = foundation.runtime().block_on(async {
        let explained = explain(&gateway, super::team(&gateway, team)?, module).await?;
        super::serve::settle(std::slice::from_ref(&gateway), std::time::Duration::from_secs(10)).await;
        Ok::<_, CliError>(explained)
    })?;
    foundation.close();
    if json {
        out(serde_json::to_string_pretty(&explained).map_err(|e| CliError::Said(e.to_string()))?);
    } else {
        out(explained.to_string().trim_end());
    }
    Ok(())
}
