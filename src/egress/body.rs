//! What comes back: the head of an answer, and its body by a bounded channel.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use url::Url;

use super::EgressError;

/// The head of an answer, and its body to come.
#[derive(Debug)]
pub struct Response {
    /// The status code, after redirects.
    pub status: u16,
    /// `Content-Length`, where given.
    pub length: Option<u64>,
    /// `Content-Type`, where given.
    pub content_type: Option<String>,
    /// `Retry-After`, where given.
    pub retry_after: Option<Duration>,
    /// The URL that it came from, after redirects.
    pub url: Url,
    /// The proxy that it came through, where that could have answered in the server's stead.
    pub via: Option<String>,
    /// The body.
    pub body: Body,
}

/// A body as it arrives. Dropping it cancels the rest.
#[derive(Debug)]
pub struct Body {
    pieces: mpsc::Receiver<Result<Bytes, EgressError>>,
}

impl Body {
    /// A body that comes piece by piece; an empty piece is its end.
    pub fn new(pieces: mpsc::Receiver<Result<Bytes, EgressError>>) -> Self {
        Self { pieces }
    }

    /// The next piece; `None` at the end of a whole body.
    ///
    /// # Errors
    /// Why there is no more, although the body is not whole.
    pub async fn next(&mut self) -> Result<Option<Bytes>, EgressError> {
        // The egress thread sends an empty piece as the end; a closed channel without it means the thread died.
        match self.pieces.recv().await {
            Some(Ok(piece)) if piece.is_empty() => Ok(None),
            Some(Ok(piece)) => Ok(Some(piece)),
            Some(Err(e)) => Err(e),
            None => Err(EgressError::Stopped),
        }
    }

    /// A further piece, where one has arrived already.
    pub fn ready(&mut self) -> Option<Result<Option<Bytes>, EgressError>> {
        match self.pieces.try_recv() {
            Ok(Ok(piece)) if piece.is_empty() => Some(Ok(None)),
            Ok(Ok(piece)) => Some(Ok(Some(piece))),
            Ok(Err(e)) => Some(Err(e)),
            Err(_) => None,
        }
    }

    /// The beginning of a body that may be longer: of about `limit` bytes, or what there is.
    ///
    /// # Errors
    /// Why there is no more of it.
    pub async fn beginning(&mut self, limit: usize) -> Result<Vec<u8>, EgressError> {
        let mut read = Vec::new();
        while let Some(piece) = self.next().await? {
            read.extend_from_slice(&piece);
            if read.len() >= limit {
                break;
            }
        }
        Ok(read)
    }

    /// The whole body, of at most `limit` bytes.
    ///
    /// # Errors
    /// Why it is not whole, and [`EgressError::TooLarge`].
    pub async fn collect(&mut self, limit: u64) -> Result<Bytes, EgressError> {
        let Some(first) = self.next().await? else { return Ok(Bytes::new()) };
        let mut whole = Vec::new();
        let mut piece = Some(first);
        while let Some(bytes) = piece {
            if whole.len() as u64 + bytes.len() as u64 > limit {
                return Err(EgressError::TooLarge { limit });
            }
            piece = self.next().await?;
            if piece.is_none() && whole.is_empty() {
                return Ok(bytes);
            }
            whole.extend_from_slice(&bytes);
        }
        Ok(whole.into())
    }
}
