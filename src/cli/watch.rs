//! Files whose change means another configuration. They are looked at every second: that works for links that are turned over (as
//! container platforms mount secrets), for network mounts, and without a watch a folder.

use std::time::Duration;

use crate::config::read::{Mark, Watch};

/// How often files are looked at.
const EVERY: Duration = Duration::from_secs(1);
/// So often they are waited for that go on changing.
const RESTLESS: u32 = 5;

/// Waits until one of these is not what it was when it was read, and then until none has changed for a moment, so that a file is not
/// read half written. Afterwards they are what they are.
pub(super) async fn changed(files: &mut [Watch]) {
    let mut last: Option<Vec<Option<Mark>>> = None;
    let mut waited = 0;
    loop {
        tokio::time::sleep(EVERY).await;
        let paths: Vec<_> = files.iter().map(|file| file.path.clone()).collect();
        // A mount that hangs keeps one thread, and no reload.
        let looked = tokio::task::spawn_blocking(move || paths.iter().map(|path| Mark::of(path)).collect::<Vec<_>>());
        let Ok(now) = looked.await else { continue };
        let differ = files.iter().zip(&now).any(|(file, now)| file.mark != *now);
        waited = if differ { waited + 1 } else { 0 };
        if differ && (last.as_ref() == Some(&now) || waited > RESTLESS) {
            for (file, now) in files.iter_mut().zip(now) {
                file.mark = now;
            }
            return;
        }
        last = Some(now);
    }
}
