//! Durations and sizes as people write them in a configuration: `"30s"`, `"1m 30s"`, `"200GiB"`.

use std::time::Duration;

/// No duration in a configuration is longer; sums of them stay within what the clock can hold.
const LONGEST: Duration = Duration::from_secs(3650 * 86_400);

/// Reads a duration such as `30s`, `1h 30m`, `7d` or `250ms`. A bare `0` is allowed and means no time at all.
///
/// # Errors
/// A sentence that says what is wrong and gives an example.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    match humantime::parse_duration(text) {
        Ok(duration) if duration <= LONGEST => Ok(duration),
        Ok(_) => Err(format!("{text:?} is longer than ten years")),
        Err(e) => Err(format!("{text:?} is not a duration such as \"30s\" or \"5m\" ({e})")),
    }
}

/// Reads a duration of which none makes no sense.
///
/// # Errors
/// A sentence that says what is wrong.
pub fn parse_limit(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        Duration::ZERO => Err("has to be more than nothing".into()),
        limit => Ok(limit),
    }
}

/// Reads a size in bytes such as `64MiB`, `10GB` or `4096`.
///
/// # Errors
/// A sentence that says what is wrong and gives an example.
pub fn parse_size(text: &str) -> Result<u64, String> {
    text.trim()
        .parse::<bytesize::ByteSize>()
        .map(|s| s.as_u64())
        .map_err(|_| format!("{text:?} is not a size such as \"64MiB\" or \"200GiB\""))
}

/// A size for a person to read, in binary units.
pub fn show_size(bytes: u64) -> String {
    bytesize::ByteSize::b(bytes).to_string()
}

/// A time span for a log line or an error body: milliseconds up to ten seconds, then seconds.
pub fn show_elapsed(elapsed: Duration) -> String {
    if elapsed < Duration::from_secs(10) {
        format!("{} ms", elapsed.as_millis())
    } else {
        format!("{:.1} s", elapsed.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_are_read_as_people_write_them() {
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("1m 30s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("7d"), Ok(Duration::from_secs(7 * 86_400)));
        assert_eq!(parse_duration("0"), Ok(Duration::ZERO));
        assert!(parse_duration("30").is_err());
        assert!(parse_duration("-1s").is_err());
        assert!(parse_duration("400000000years").is_err());
        assert_eq!(parse_size("64MiB"), Ok(64 << 20));
        assert_eq!(parse_size("10GB"), Ok(10_000_000_000));
        assert!(parse_size("much").is_err());
    }
}
