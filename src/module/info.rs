//! The answer to `.info` and `@latest`: Version, Time and, where the upstream gave one, Origin.

use bytes::Bytes;
use jiff::Timestamp;
use serde::Deserialize;

use super::{Malformed, Version};

/// A checked `.info`. Its bytes are kept as they came, so that clients see what the upstream wrote, Origin included.
#[derive(Debug, Clone)]
pub struct Info {
    /// The version that the answer names.
    pub version: Version,
    /// When it was made, where the answer says so.
    pub time: Option<Timestamp>,
    /// The JSON as it came.
    pub json: Bytes,
}

#[derive(Deserialize)]
struct Raw {
    #[serde(rename = "Version")]
    version: String,
    #[serde(rename = "Time", default)]
    time: Option<String>,
}

impl Info {
    /// Checks the bytes of an `.info` answer.
    ///
    /// # Errors
    /// What is not as it has to be: not JSON, no canonical Version, a Time that is none.
    pub fn parse(json: Bytes) -> Result<Self, Malformed> {
        let text = || String::from_utf8_lossy(&json).into_owned();
        // The go command takes an object; serde would take a list of its values as well.
        if json.trim_ascii_start().first() != Some(&b'{') {
            return Err(Malformed::new("info", &text(), "not a JSON object"));
        }
        let raw: Raw = serde_json::from_slice(&json).map_err(|e| Malformed::new("info", &text(), e.to_string()))?;
        let version = Version::parse(&raw.version)?;
        let time = match raw.time {
            None => None,
            Some(t) => Some(t.parse::<Timestamp>().map_err(|e| Malformed::new("info time", &t, e.to_string()))?),
        };
        Ok(Self { version, time, json })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_info_is_checked_and_kept_as_it_came() {
        let json = Bytes::from_static(br#"{"Version":"v1.2.3","Time":"2024-02-03T04:05:06Z","Origin":{"VCS":"git"}}"#);
        let info = Info::parse(json.clone()).expect("valid");
        assert_eq!(info.version.as_str(), "v1.2.3");
        assert_eq!(info.time.map(|t| t.to_string()).as_deref(), Some("2024-02-03T04:05:06Z"));
        assert_eq!(info.json, json);
        assert!(Info::parse(Bytes::from_static(b"<html>")).is_err());
        assert!(Info::parse(Bytes::from_static(br#"["v1.0.0"]"#)).is_err());
        assert!(Info::parse(Bytes::from_static(br#"{"Version":"master"}"#)).is_err());
        assert!(Info::parse(Bytes::from_static(br#"{"Version":"v1.0.0","Time":"soon"}"#)).is_err());
    }
}
