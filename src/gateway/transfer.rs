//! A zip on its way from an upstream into a spool, and the look at its shape before its end is let go.

use bytes::Bytes;

use crate::egress::{Body, EgressError};
use crate::module::ModuleVersion;
use crate::module::zip::{self, MAX_ZIP, ZipError};
use crate::store::{Spool, StoreError};
use crate::upstream::UpstreamError;

/// As many bytes are written to the disk at once, where as many have arrived.
const BATCH: usize = 256 << 10;

/// Writes the body into the spool as it arrives. This runs on the gateway's runtime, where a write into the page cache may
/// block for a moment without keeping a worker from its clients. After each write `came` is told.
pub(super) async fn receive(body: &mut Body, spool: &mut Spool, mut came: impl FnMut(&Spool)) -> Result<(), UpstreamError> {
    let mut batch: Vec<Bytes> = Vec::new();
    while let Some(piece) = body.next().await? {
        let mut bytes = piece.len();
        batch.push(piece);
        let mut after = None;
        while bytes < BATCH {
            match body.ready() {
                Some(Ok(Some(piece))) => {
                    bytes += piece.len();
                    batch.push(piece);
                }
                Some(end) => {
                    after = Some(end);
                    break;
                }
                None => break,
            }
        }
        if spool.written() + bytes as u64 > MAX_ZIP {
            return Err(EgressError::TooLarge { limit: MAX_ZIP }.into());
        }
        spool.append(&batch).map_err(|e| StoreError::new("write a zip to", "the cache".as_ref(), e))?;
        came(spool);
        batch.clear();
        match after {
            Some(Ok(_)) => return Ok(()),
            Some(Err(e)) => return Err(e.into()),
            None => {}
        }
    }
    Ok(())
}

/// Looks at the shape of a whole zip, and where another upstream's go.mod is known, whether this zip holds the same.
pub(super) async fn check(file: std::fs::File, version: ModuleVersion, expected: Option<Bytes>) -> Result<(), UpstreamError> {
    let looked = tokio::task::spawn_blocking(move || {
        let again = file.try_clone()?;
        zip::check(file, &version)?;
        let Some(expected) = expected else { return Ok(true) };
        // A zip without a go.mod has one made up by whoever serves it; there is nothing to compare then.
        Ok::<_, ZipError>(zip::go_mod(again, &version)?.is_none_or(|own| own == expected))
    });
    match looked.await {
        Ok(Ok(true)) => Ok(()),
        Ok(Ok(false)) => Err(other_module()),
        Ok(Err(ZipError::Io(e))) => Err(StoreError::new("read the zip in", "the cache".as_ref(), e).into()),
        Ok(Err(e)) => Err(UpstreamError::corrupt(e)),
        Err(e) => Err(UpstreamError::corrupt(format!("looking at it broke down: {e}"))),
    }
}

/// What a part is that belongs to another module than the parts before it.
pub(super) fn other_module() -> UpstreamError {
    UpstreamError::corrupt("its go.mod differs from the one that was served for this version before, from another upstream")
}
