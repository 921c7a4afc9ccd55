//! Where a version came from, for those who check later whether it is still so (`Origin` in `.info`).

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use jiff::Timestamp;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::git::Refs;
use crate::module::pseudo::is_pseudo;
use crate::module::semver::canonical;

/// The go command's `codehost.Origin`; what is empty is left out.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Origin<'t> {
    #[serde(rename = "VCS")]
    pub(super) vcs: &'t str,
    #[serde(rename = "URL")]
    pub(super) url: &'t str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(super) subdir: &'t str,
    pub(super) hash: &'t str,
    #[serde(rename = "TagPrefix", skip_serializing_if = "String::is_empty")]
    pub(super) tag_prefix: String,
    #[serde(rename = "TagSum", skip_serializing_if = "String::is_empty")]
    pub(super) tag_sum: String,
    #[serde(rename = "Ref", skip_serializing_if = "Option::is_none")]
    pub(super) reference: Option<&'t str>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Written<'t> {
    version: &'t str,
    time: String,
    origin: &'t Origin<'t>,
}

impl Origin<'_> {
    /// Adds the tags that a pseudo-version depends on.
    pub(super) fn add_tags(&mut self, prefix: String, refs: &Refs) {
        let folder = prefix.rfind('/').map_or(0, |at| at + 1);
        let mut sum = Sha256::new();
        for (tag, hash) in refs.tags(&prefix) {
            let name = &tag[folder..];
            if canonical(name).is_some_and(|c| name.starts_with(&c)) && !is_pseudo(name) {
                // A tag's name that is such a version is plain ASCII after its directory; quotes need no more care than this.
                sum.update(format!("{tag:?} {hash}\n"));
            }
        }
        self.tag_sum = format!("t1:{}", BASE64_STANDARD.encode(sum.finalize()));
        self.tag_prefix = prefix;
    }

    /// The `.info`.
    pub(super) fn info(&self, version: &str, time: Timestamp) -> Result<Bytes, String> {
        let written = Written { version, time: time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(), origin: self };
        serde_json::to_vec(&written).map(Bytes::from).map_err(|e| e.to_string())
    }
}
