//! What the gateway answers with.

use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::{GatewayError, Trail};
use crate::store::SpoolReader;

/// The bytes of an answer, wherever they are.
#[derive(Debug, Clone)]
pub enum Content {
    /// In memory.
    Bytes(Bytes),
    /// In a file that does not change.
    File {
        /// Open for reading by offset.
        file: Arc<File>,
        /// Its length in bytes.
        length: u64,
    },
    /// In a file that grows while the upstream sends.
    Growing {
        /// Follows the file.
        reader: SpoolReader,
        /// Its length to come, where the upstream announced it.
        length: Option<u64>,
    },
}

impl Content {
    /// The same content with a length: where none was announced, once it is known. For clients who could not tell a whole
    /// body from a broken one otherwise.
    pub async fn with_length(self) -> Self {
        match self {
            Self::Growing { mut reader, length: None } => {
                // Of one that failed the reader says so.
                let length = reader.ended().await.ok();
                Self::Growing { reader, length }
            }
            known => known,
        }
    }
}

/// How long an answer stays true.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    /// For ever: the parts of a canonical version.
    Immutable,
    /// For so long.
    For(Duration),
    /// It is not to be kept: stale or incomplete.
    Passing,
}

/// What kind of text or file it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Plain text: lists and go.mod files.
    Text,
    /// JSON: `.info` and `@latest`.
    Json,
    /// A zip.
    Zip,
    /// Bytes of another kind: tiles of a checksum database.
    Octets,
}

/// A good answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its bytes.
    pub content: Content,
    /// What they are.
    pub kind: Kind,
    /// How long they stay true.
    pub lifetime: Lifetime,
    /// When a stored file was written; makes its validator.
    pub modified: Option<SystemTime>,
    /// Upstreams whose part is missing in a merged list, and `ages` where some of them could not be had.
    pub partial: Vec<Arc<str>>,
    /// Whether its file may be changed by other hands, so that it is looked at before each use.
    pub watched: bool,
}

impl Answer {
    /// A part of a canonical version.
    pub(super) fn new(content: Content, kind: Kind) -> Self {
        Self { content, kind, lifetime: Lifetime::Immutable, modified: None, partial: Vec::new(), watched: false }
    }

    pub(super) fn bytes(bytes: Bytes, kind: Kind, lifetime: Lifetime) -> Self {
        Self { lifetime, ..Self::new(Content::Bytes(bytes), kind) }
    }
}

/// An answer or a refusal, and how it came about.
#[derive(Debug)]
pub struct Outcome {
    /// What the client gets.
    pub result: Result<Answer, GatewayError>,
    /// How that was decided.
    pub trail: Trail,
}
