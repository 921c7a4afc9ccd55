//! Answers as HTTP: headers, conditions and ranges (RFC 9110 §13, §14).

use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime};

use actix_http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue,
    IF_NONE_MATCH, IF_RANGE, RANGE, RETRY_AFTER, WWW_AUTHENTICATE,
};
use actix_http::{Response, StatusCode};
use bytes::Bytes;

use super::body::Body;
use super::connection::Slot;
use super::error::Refusal;
use crate::gateway::verify::Checked;
use crate::gateway::{Answer, CacheStatus, Content, Kind, Lifetime, Trail};
use crate::route::Plan;
use crate::store::memory::Weigh;

pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const PARTIAL: HeaderName = HeaderName::from_static("modgate-partial");
/// How long an open file is sent without being looked up again.
const OPEN_FILE: Duration = Duration::from_secs(60);
/// What one open file counts in the memory of open files.
pub(super) const OPEN_FILE_WEIGHT: usize = 4096;
/// How long an answer is sent from memory without its file being looked at, whose time of last use orders eviction.
const UNSEEN: Duration = Duration::from_secs(3600);
const NOSNIFF: HeaderName = HeaderName::from_static("x-content-type-options");

/// An answer made ready once, to be sent any number of times.
#[derive(Debug)]
pub(super) struct Prepared {
    headers: Vec<(HeaderName, HeaderValue)>,
    etag: Option<HeaderValue>,
    content: Lasting,
    /// When it stops being true, or is looked up again.
    until: Instant,
    /// How it came about, for the log.
    origin: Origin,
    /// How often it has been sent.
    sent: AtomicU32,
}

/// A file of at most so many bytes
const SMALL_FILE: u64 = 256 << 10;
/// is held in memory when it has been sent so often: what a build asks for once is not worth the copy.
const WORTH_MEMORY: u32 = 2;

/// What the log says of an answer that comes from memory.
#[derive(Debug, Clone)]
struct Origin {
    upstream: Option<Arc<str>>,
    plan: Option<Plan>,
    checked: Option<Checked>,
}

/// Content that can be sent again.
#[derive(Debug, Clone)]
enum Lasting {
    Bytes(Bytes),
    File(Arc<std::fs::File>, u64),
}

impl Weigh for Prepared {
    fn bytes(&self) -> usize {
        let content = match &self.content {
            Lasting::Bytes(bytes) => bytes.len(),
            Lasting::File(..) => return OPEN_FILE_WEIGHT / 2,
        };
        size_of::<Self>() + self.headers.len() * size_of::<(HeaderName, HeaderValue)>() + content
    }
}

impl Prepared {
    /// Makes an answer ready where it stays true for a while.
    pub(super) fn of(answer: &Answer, trail: &Trail) -> Option<Self> {
        let (content, limit) = match &answer.content {
            _ if answer.watched => return None,
            Content::Bytes(bytes) => (Lasting::Bytes(bytes.clone()), UNSEEN),
            Content::File { file, length } => (Lasting::File(Arc::clone(file), *length), OPEN_FILE),
            Content::Growing { .. } => return None,
        };
        let lifetime = match answer.lifetime {
            Lifetime::Immutable => limit,
            Lifetime::For(rest) if !rest.is_zero() => rest.min(limit),
            Lifetime::For(_) | Lifetime::Passing => return None,
        };
        let until = Instant::now() + lifetime;
        let origin = Origin { upstream: trail.upstream.clone(), plan: trail.plan.clone(), checked: trail.checked.clone() };
        Some(Self { headers: headers_of(answer), etag: etag_of(answer), content, until, origin, sent: AtomicU32::new(0) })
    }

    /// Counts that it is sent. Whether it is worth a place in memory now; that is said once.
    pub(super) fn count(&self) -> bool {
        matches!(self.content, Lasting::File(_, length) if length <= SMALL_FILE)
            && self.sent.fetch_add(1, Ordering::Relaxed) + 1 == WORTH_MEMORY
    }

    /// The same answer with its file's bytes in memory. Blocks.
    pub(super) fn in_memory(&self) -> Option<Self> {
        let Lasting::File(file, length) = &self.content else { return None };
        let mut bytes = vec![0; usize::try_from(*length).ok()?];
        // One that cannot be read goes on being sent as the file that it is, which says so.
        file.read_exact_at(&mut bytes, 0).ok()?;
        Some(Self {
            headers: self.headers.clone(),
            etag: self.etag.clone(),
            content: Lasting::Bytes(bytes.into()),
            until: Instant::now() + UNSEEN,
            origin: self.origin.clone(),
            sent: AtomicU32::new(0),
        })
    }

    /// The record of an answer that comes from memory.
    pub(super) fn trail(&self) -> Trail {
        let Origin { upstream, plan, checked } = self.origin.clone();
        Trail { cache: CacheStatus::Memory, upstream, plan, checked, ..Trail::default() }
    }

    /// Whether it is still true.
    pub(super) fn is_fresh(&self, now: Instant) -> bool {
        now < self.until
    }

    /// Whether it holds an open file.
    pub(super) fn is_file(&self) -> bool {
        matches!(self.content, Lasting::File(..))
    }

    /// The response, for a request that came with these headers over the slot's connection.
    pub(super) fn respond(&self, request: &HeaderMap, slot: &Slot) -> Response<Body> {
        let source = match &self.content {
            Lasting::Bytes(bytes) => Source::Bytes(bytes.clone()),
            Lasting::File(file, length) => Source::File(slot.clone(), Arc::clone(file), *length),
        };
        respond(&self.headers, self.etag.as_ref(), source, request)
    }
}

/// The response of an answer, for a request that came with these headers.
pub(super) fn of_answer(answer: Answer, request: &HeaderMap, slot: Slot) -> Response<Body> {
    let (headers, etag) = (headers_of(&answer), etag_of(&answer));
    let source = match answer.content {
        Content::Bytes(bytes) => Source::Bytes(bytes),
        Content::File { file, length } => Source::File(slot, file, length),
        Content::Growing { reader, length } => Source::Growing(Body::growing(&slot, reader, length)),
    };
    respond(&headers, etag.as_ref(), source, request)
}

/// The response of a refusal.
pub(super) fn of_refusal(refusal: Refusal) -> Response<Body> {
    let mut response = Response::with_body(refusal.status, Body::bytes(refusal.text.into()));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(NOSNIFF, HeaderValue::from_static("nosniff"));
    if let Some(seconds) = refusal.retry_after {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if refusal.status == StatusCode::UNAUTHORIZED {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"modgate\", charset=\"UTF-8\""));
    }
    if refusal.status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(actix_http::header::ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    response
}

enum Source {
    Bytes(Bytes),
    File(Slot, Arc<std::fs::File>, u64),
    Growing(Body),
}

impl Source {
    fn length(&self) -> Option<u64> {
        match self {
            Self::Bytes(bytes) => Some(bytes.len() as u64),
            Self::File(_, _, length) => Some(*length),
            Self::Growing(_) => None,
        }
    }

    fn part(self, from: u64, length: u64) -> Body {
        let index = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        match self {
            Self::Bytes(bytes) => Body::bytes(bytes.slice(index(from)..index(from + length))),
            Self::File(slot, file, _) => Body::file(slot, file, from, length),
            Self::Growing(body) => body,
        }
    }
}

fn respond(
    headers: &[(HeaderName, HeaderValue)],
    etag: Option<&HeaderValue>,
    source: Source,
    request: &HeaderMap,
) -> Response<Body> {
    // Only what has a validator and a known length is worth a condition or a range.
    let (status, body, content_range) = match (etag, source.length()) {
        (Some(etag), Some(_)) if matches_etag(request, etag) => (StatusCode::NOT_MODIFIED, Body::bytes(Bytes::new()), None),
        (Some(etag), Some(total)) => match range_of(request, etag, total) {
            Range::Whole => (StatusCode::OK, source.part(0, total), None),
            Range::Part(from, length) => {
                let range = format!("bytes {from}-{}/{total}", from + length - 1);
                (StatusCode::PARTIAL_CONTENT, source.part(from, length), Some(range))
            }
            Range::Unsatisfiable => {
                (StatusCode::RANGE_NOT_SATISFIABLE, Body::bytes(Bytes::new()), Some(format!("bytes */{total}")))
            }
        },
        (None, total) => (StatusCode::OK, source.part(0, total.unwrap_or(0)), None),
        (Some(_), None) => (StatusCode::OK, source.part(0, 0), None),
    };
    let of_file = body.file_length();
    let mut response = Response::with_body(status, body);
    if let Some(length) = of_file {
        // The dispatcher is not to count these bytes, so the head has to say how many they are.
        response.head_mut().no_chunking(true);
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    let into = response.headers_mut();
    for (name, value) in headers {
        into.insert(name.clone(), value.clone());
    }
    if let Some(value) = content_range.and_then(|text| HeaderValue::from_str(&text).ok()) {
        into.insert(CONTENT_RANGE, value);
    }
    response
}

fn headers_of(answer: &Answer) -> Vec<(HeaderName, HeaderValue)> {
    let kind = match answer.kind {
        Kind::Text => "text/plain; charset=utf-8",
        Kind::Json => "application/json",
        Kind::Zip => "application/zip",
        Kind::Octets => "application/octet-stream",
    };
    let lifetime = match answer.lifetime {
        Lifetime::Immutable => "max-age=31536000, immutable",
        Lifetime::For(_) | Lifetime::Passing => "no-cache",
    };
    let mut headers = vec![(CONTENT_TYPE, HeaderValue::from_static(kind)), (CACHE_CONTROL, HeaderValue::from_static(lifetime))];
    if let Some(etag) = etag_of(answer) {
        headers.push((ACCEPT_RANGES, HeaderValue::from_static("bytes")));
        headers.push((ETAG, etag));
    }
    if !answer.partial.is_empty()
        && let Ok(names) = HeaderValue::from_str(&answer.partial.join(", "))
    {
        headers.push((PARTIAL, names));
    }
    headers
}

/// The validator of a stored zip: its length and the time it was written. A refetched zip gets another.
fn etag_of(answer: &Answer) -> Option<HeaderValue> {
    let length = match (&answer.content, answer.kind) {
        (Content::Bytes(bytes), Kind::Zip) => bytes.len() as u64,
        (Content::File { length, .. }, Kind::Zip) => *length,
        _ => return None,
    };
    let written = answer.modified?.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    HeaderValue::from_str(&format!("\"{length:x}-{:x}\"", written.as_nanos())).ok()
}

/// Whether `If-None-Match` names the validator (weak comparison).
fn matches_etag(request: &HeaderMap, etag: &HeaderValue) -> bool {
    let named = |value: &HeaderValue| {
        let own = etag.as_bytes();
        value.as_bytes() == b"*"
            || value.as_bytes().split(|b| *b == b',').any(|tag| {
                let tag = tag.trim_ascii();
                tag.strip_prefix(b"W/").unwrap_or(tag) == own
            })
    };
    request.get_all(IF_NONE_MATCH).any(named)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Range {
    Whole,
    /// From this byte, so many.
    Part(u64, u64),
    Unsatisfiable,
}

/// What `Range` asks for. One range is served; several, another unit, or an `If-Range` that does not hold get the whole.
fn range_of(request: &HeaderMap, etag: &HeaderValue, total: u64) -> Range {
    let Some(range) = request.get(RANGE).and_then(|v| v.to_str().ok()) else { return Range::Whole };
    if request.get(IF_RANGE).is_some_and(|tag| tag != etag) {
        return Range::Whole;
    }
    parse_range(range, total)
}

fn parse_range(range: &str, total: u64) -> Range {
    let Some((from, to)) = range.trim().strip_prefix("bytes=").and_then(|r| r.trim().split_once('-')) else { return Range::Whole };
    let number = |text: &str| -> Option<u64> {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        // A number past all files is as good as the largest.
        digits.then(|| text.parse().unwrap_or(u64::MAX))
    };
    match (number(from.trim()), number(to.trim())) {
        (Some(from), _) if from >= total && (to.trim().is_empty() || number(to.trim()).is_some_and(|to| to >= from)) => {
            Range::Unsatisfiable
        }
        (Some(from), None) if to.trim().is_empty() => Range::Part(from, total - from),
        (Some(from), Some(to)) if to >= from => Range::Part(from, to.min(total - 1) - from + 1),
        (None, Some(0)) if from.trim().is_empty() => Range::Unsatisfiable,
        (None, Some(_)) if from.trim().is_empty() && total == 0 => Range::Unsatisfiable,
        (None, Some(last)) if from.trim().is_empty() => Range::Part(total - last.min(total), last.min(total)),
        _ => Range::Whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ranges() {
        let table = [
            ("bytes=0-9", Range::Part(0, 10)),
            ("bytes=90-", Range::Part(90, 10)),
            ("bytes=90-1000", Range::Part(90, 10)),
            ("bytes=-10", Range::Part(90, 10)),
            ("bytes=-1000", Range::Part(0, 100)),
            ("bytes=100-", Range::Unsatisfiable),
            ("bytes=99999999999999999999-", Range::Unsatisfiable),
            ("bytes=-0", Range::Unsatisfiable),
            ("bytes=9-3", Range::Whole),
            ("bytes=0-1,4-5", Range::Whole),
            ("lines=0-1", Range::Whole),
            ("bytes=+1-2", Range::Whole),
        ];
        for (text, wanted) in table {
            assert_eq!(parse_range(text, 100), wanted, "{text}");
        }
        assert_eq!(parse_range("bytes=0-0", 0), Range::Unsatisfiable);
    }

    proptest! {
        #[test]
        fn a_part_lies_within(text in "bytes=[0-9]{0,21}-[0-9]{0,21}", total in 0_u64..1000) {
            if let Range::Part(from, length) = parse_range(&text, total) {
                prop_assert!(length > 0 && from + length <= total);
            }
        }
    }
}
