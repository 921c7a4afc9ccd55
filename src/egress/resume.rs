//! Continuing a body that broke off: `Range` with `If-Range` (RFC 9110 §13.1.5, §14.2), so that what comes is the rest of the same
//! bytes or nothing.

use std::time::Duration;

use awc::http::StatusCode;
use awc::http::header::{ACCEPT_RANGES, CONTENT_RANGE, DATE, ETAG, HeaderMap, HeaderName, LAST_MODIFIED};

/// A date proves as much as an entity tag only if the server has had time to see a second change (RFC 9110 §8.8.2.2).
const STRONG_AFTER: Duration = Duration::from_secs(60);

/// Where a body can be continued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Resume {
    /// The value of `If-Range`.
    pub(super) validator: String,
    /// The whole body's length.
    pub(super) length: u64,
    /// The first byte that is missing.
    pub(super) from: u64,
}

impl Resume {
    /// How a body can be continued by what the head of its answer says; `None` where it cannot.
    pub(super) fn of(headers: &HeaderMap, length: Option<u64>) -> Option<Self> {
        let text = |name: HeaderName| headers.get(name).and_then(|v| v.to_str().ok()).map(str::trim);
        if text(ACCEPT_RANGES).is_some_and(|units| units.eq_ignore_ascii_case("none")) {
            return None;
        }
        let tag = text(ETAG).filter(|tag| tag.starts_with('"'));
        let date = || {
            let modified = text(LAST_MODIFIED)?;
            let age = http_date(text(DATE)?)?.duration_since(http_date(modified)?).ok()?;
            (age >= STRONG_AFTER).then_some(modified)
        };
        let validator = tag.or_else(date)?.to_owned();
        Some(Self { validator, length: length?, from: 0 })
    }

    /// Whether an answer is the rest that was asked for; else what it is.
    pub(super) fn fits(&self, status: StatusCode, headers: &HeaderMap, length: Option<u64>) -> Result<(), String> {
        match status {
            StatusCode::PARTIAL_CONTENT => {}
            StatusCode::OK => return Err("it has other bytes now, or sends whole bodies only".into()),
            other => return Err(format!("it answered {}", other.as_u16())),
        }
        // A server that heeds If-Range says of which bytes this is a part (RFC 9110 §15.3.7); one that does not heed it must not be
        // believed to send the rest of the same.
        let text = |name: HeaderName| headers.get(name).and_then(|v| v.to_str().ok()).map(str::trim);
        let same = match text(ETAG) {
            Some(tag) if self.validator.starts_with('"') => tag == self.validator,
            None if self.validator.starts_with('"') => false,
            _ => text(LAST_MODIFIED).is_none_or(|modified| modified == self.validator),
        };
        if !same {
            return Err("it has other bytes now".into());
        }
        let range = headers.get(CONTENT_RANGE).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let wanted = format!("bytes {}-{}/{}", self.from, self.length.saturating_sub(1), self.length);
        if range.trim() != wanted {
            return Err("it sent another part than was asked for".into());
        }
        if length.is_some_and(|n| n != self.length - self.from) {
            return Err("it announced a part of another length than was asked for".into());
        }
        Ok(())
    }
}

/// A date of HTTP (RFC 9110 §5.6.7).
pub(super) fn http_date(text: &str) -> Option<std::time::SystemTime> {
    httpdate::parse_http_date(text.trim()).ok()
}

/// The value of `Retry-After` (RFC 9110 §10.2.3): seconds, or a date.
pub(super) fn retry_after(text: &str) -> Option<Duration> {
    let text = text.trim();
    let until = || Some(http_date(text)?.duration_since(std::time::SystemTime::now()).unwrap_or_default());
    text.parse().ok().map(Duration::from_secs).or_else(until)
}

#[cfg(test)]
mod tests {
    use super::*;
    use awc::http::header::HeaderValue;
    use proptest::prelude::*;

    fn headers(lines: &[(HeaderName, &'static str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn only_strong_validators_will_do() {
        let of = |lines: &[(HeaderName, &'static str)]| Resume::of(&headers(lines), Some(9)).map(|r| r.validator);
        let (old, day) = ("Sat, 21 Nov 2026 12:00:00 GMT", "Sat, 21 Nov 2026 13:00:00 GMT");
        assert_eq!(of(&[(ETAG, "\"a\"")]).as_deref(), Some("\"a\""));
        assert_eq!(of(&[(ETAG, "W/\"a\""), (LAST_MODIFIED, old), (DATE, day)]).as_deref(), Some(old));
        assert_eq!(of(&[(LAST_MODIFIED, day), (DATE, day)]), None);
        assert_eq!(of(&[(LAST_MODIFIED, old)]), None);
        assert_eq!(of(&[(ETAG, "\"a\""), (ACCEPT_RANGES, "none")]), None);
        assert_eq!(Resume::of(&headers(&[(ETAG, "\"a\"")]), None), None);
    }

    #[test]
    fn the_rest_is_the_rest_and_nothing_else() {
        let resume = Resume { validator: "\"a\"".into(), length: 100, from: 40 };
        let fits = |status, range, length| resume.fits(status, &headers(&[(CONTENT_RANGE, range), (ETAG, "\"a\"")]), length);
        assert_eq!(fits(StatusCode::PARTIAL_CONTENT, "bytes 40-99/100", Some(60)), Ok(()));
        assert_eq!(fits(StatusCode::PARTIAL_CONTENT, "bytes 40-99/100", None), Ok(()));
        assert!(fits(StatusCode::PARTIAL_CONTENT, "bytes 40-99/100", Some(59)).is_err());
        for other in ["bytes 39-99/100", "bytes 40-98/100", "bytes 40-99/101", "bytes 40-99/*", ""] {
            assert!(fits(StatusCode::PARTIAL_CONTENT, other, None).is_err(), "{other}");
        }
        let part = (CONTENT_RANGE, "bytes 40-99/100");
        let tagged = |lines: &[(HeaderName, &'static str)]| resume.fits(StatusCode::PARTIAL_CONTENT, &headers(lines), None);
        assert!(tagged(&[part.clone(), (ETAG, "\"b\"")]).is_err() && tagged(std::slice::from_ref(&part)).is_err());
        let day = "Sat, 21 Nov 2026 12:00:00 GMT";
        let dated = Resume { validator: day.into(), ..resume.clone() };
        let dated = |lines: &[(HeaderName, &'static str)]| dated.fits(StatusCode::PARTIAL_CONTENT, &headers(lines), None);
        assert!(dated(std::slice::from_ref(&part)).is_ok() && dated(&[part.clone(), (LAST_MODIFIED, day)]).is_ok());
        assert!(dated(&[part, (LAST_MODIFIED, "Sat, 21 Nov 2026 12:00:01 GMT")]).is_err());
        assert!(fits(StatusCode::OK, "bytes 40-99/100", None).is_err());
        assert!(fits(StatusCode::RANGE_NOT_SATISFIABLE, "bytes */100", None).is_err());
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        assert_eq!(retry_after(" 120 "), Some(Duration::from_secs(120)));
        assert_eq!(retry_after("Fri, 31 Dec 1999 23:59:59 GMT"), Some(Duration::ZERO));
        let soon = httpdate::fmt_http_date(std::time::SystemTime::now() + Duration::from_secs(90));
        assert!(retry_after(&soon).is_some_and(|d| d > Duration::from_secs(85) && d <= Duration::from_secs(90)));
        assert_eq!(retry_after("soon"), None);
    }

    proptest! {
        #[test]
        fn no_date_breaks_it(text in ".{0,60}") {
            let _ = (http_date(&text), retry_after(&text));
        }
    }
}
