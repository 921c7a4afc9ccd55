//! `modgate gc`: the disk cache brought below its bound.

use std::path::Path;
use std::time::Duration;

use super::{CliError, out};
use crate::assemble::MIRRORS;
use crate::base::units::show_size;
use crate::config::Config;
use crate::store::evict::{EvictRule, Expendable, IN_USE, evict};
use crate::vcs::mirrors::remove_unused;

pub(super) fn run(config: Option<&Path>, max_size: Option<u64>, private_too: bool) -> Result<(), CliError> {
    let config = Config::load(config)?;
    let mirrors = remove_unused(&config.cache.dir.join(MIRRORS), config.cache.mirror_ttl)?;
    if mirrors > 0 {
        out(format_args!("{mirrors} mirrors of repositories removed, into which nothing was fetched for long"));
    }
    let Some(max_size) = max_size.or(config.cache.max_size) else {
        return Err(CliError::Said("there is no bound: set cache.max_size, or give --max-size".into()));
    };
    let Expendable { upstreams, beside } = config.gateway.expendable;
    let expendable = Expendable { upstreams: upstreams.filter(|_| !private_too), beside };
    // Whoever wants it empty means all of it.
    let rule = EvictRule { max_size, expendable, in_use: if max_size == 0 { Duration::ZERO } else { IN_USE } };
    let dir = &config.cache.dir;
    if !dir.is_dir() {
        out(format_args!("{}: nothing there yet", dir.display()));
        return Ok(());
    }
    let done = evict(dir, &rule)?;
    out(format_args!(
        "{}: {} before, {} files removed, {} now (bound {})",
        dir.display(),
        show_size(done.before),
        done.removed,
        show_size(done.after),
        show_size(max_size)
    ));
    if done.after > max_size {
        out(format_args!(
            "what is left is kept on purpose: {} of private or unknown upstreams (--private-too removes them), and files used in the last minute",
            show_size(done.kept)
        ));
    }
    Ok(())
}
