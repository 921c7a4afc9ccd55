//! Where a request's head ends, and whether the parser behind should see it at all.
//!
//! actix's parser answers what it cannot read with a status and an empty body, and its dispatcher mixes up requests that are sent
//! ahead of their turn (the HEAD of a later one changes the framing of an earlier one's answer). So the connection hands
//! it one head at a time, whole, and puts a request of its own in the place of one that is refused.

/// The longest head, as actix's parser has it too.
pub(super) const MAX_HEAD: usize = 64 << 10;
/// The longest request line; the path alone is bounded further on.
const MAX_LINE: usize = 8 << 10;
/// The most header fields: the parser behind takes 96.
const MAX_FIELDS: usize = 90;
/// Below this path the connection's own requests lie, by the status that they are to get.
pub(super) const REFUSED: &str = "/-/refused/";

/// Finds the end of a head in bytes that come piece by piece.
#[derive(Debug, Default)]
pub(super) struct EndOfHead {
    /// There was something other than empty lines.
    begun: bool,
    /// There was something in this line.
    in_line: bool,
}

impl EndOfHead {
    /// Where in these bytes the head ends, if it does: after its empty line. Afterwards the next head begins.
    pub(super) fn find(&mut self, bytes: &[u8]) -> Option<usize> {
        for (at, byte) in bytes.iter().enumerate() {
            match byte {
                b'\r' => {}
                b'\n' if self.begun && !self.in_line => {
                    *self = Self::default();
                    return Some(at + 1);
                }
                b'\n' => self.in_line = false,
                _ => (self.begun, self.in_line) = (true, true),
            }
        }
        None
    }
}

/// The status by which a whole head is refused; `None` where the parser may have it.
pub(super) fn refused(head: &[u8]) -> Option<u16> {
    let head = head.trim_ascii_start();
    let line_end = head.iter().position(|b| *b == b'\n').unwrap_or(head.len());
    let line = head[..line_end].trim_ascii_end();
    if line.len() > MAX_LINE {
        return Some(414);
    }
    let parts: Vec<&[u8]> = line.split(|b| *b == b' ').collect();
    let printable = parts.iter().all(|part| !part.is_empty() && part.iter().all(u8::is_ascii_graphic));
    let [_, target, version @ (b"HTTP/1.1" | b"HTTP/1.0")] = parts[..] else { return Some(400) };
    if !printable || !(target.starts_with(b"/") || target == b"*" || target.contains(&b':')) {
        return Some(400);
    }
    match fields(&head[line_end..], version == b"HTTP/1.1") {
        Some(count) => (head.len() > MAX_HEAD || count > MAX_FIELDS).then_some(431),
        None => Some(400),
    }
}

/// How many fields there are; `None` where they are not as they have to be, or leave open for whom the request is or where it ends
/// (RFC 9112 §3.2, §5, §6.3).
fn fields(lines: &[u8], host_wanted: bool) -> Option<usize> {
    let (mut count, mut hosts, mut lengths, mut coded) = (0, 0, 0, false);
    for line in lines.split(|b| *b == b'\n').map(<[u8]>::trim_ascii_end).filter(|line| !line.is_empty()) {
        let colon = line.iter().position(|b| *b == b':')?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii_start());
        if name.is_empty() || !name.iter().all(u8::is_ascii_graphic) {
            return None;
        }
        count += 1;
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => hosts += 1,
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                lengths += 1;
                if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
                    return None;
                }
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => coded = true,
            _ => {}
        }
    }
    let for_one = hosts == 1 || hosts == 0 && !host_wanted;
    (for_one && lengths <= 1 && !(coded && lengths > 0)).then_some(count)
}

/// The request that takes a refused one's place.
pub(super) fn stand_in(status: u16) -> Vec<u8> {
    format!("GET {REFUSED}{status} HTTP/1.1\r\nhost: modgate\r\nconnection: close\r\n\r\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ends_are_found_across_pieces() {
        let mut end = EndOfHead::default();
        assert_eq!(end.find(b"\r\nGET / HTTP/1.1\r\nHost: x\r\n"), None);
        assert_eq!(end.find(b"\r"), None);
        assert_eq!(end.find(b"\nGET /next"), Some(1));
        assert_eq!(end.find(b"GET / HTTP/1.1\n\nrest"), Some(16));
    }

    #[test]
    fn what_the_parser_would_answer_without_a_word_is_refused() {
        let refused = |text: &[u8]| refused(text);
        assert_eq!(refused(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n"), None);
        assert_eq!(refused(b"GET /x HTTP/1.0\r\n\r\n"), None);
        assert_eq!(refused(b"OPTIONS * HTTP/1.1\nhost: x\n\n"), None);
        assert_eq!(refused(b"GET http://x/y HTTP/1.1\r\nHost: x\r\nEmpty:\r\nContent-Length: 0\r\n\r\n"), None);
        for fields in [
            "",
            "Host: x\r\nHost: x\r\n",
            "Host: x\r\nA: b\r\n c\r\n",
            "Host: x\r\nA : b\r\n",
            "Host: x\r\nnothing\r\n",
            "Host: x\r\n: b\r\n",
            "Host: x\r\nContent-Length: 1\r\nContent-Length: 1\r\n",
            "Host: x\r\nContent-Length: -1\r\n",
            "Host: x\r\nContent-Length: +1\r\n",
            "Host: x\r\nContent-Length: 1\r\ntransfer-encoding: chunked\r\n",
        ] {
            assert_eq!(refused(format!("GET / HTTP/1.1\r\n{fields}\r\n").as_bytes()), Some(400), "{fields:?}");
        }
        for line in ["GET x HTTP/1.1", "GET / HTTP/1.2", "GET / HTTP/1.1x", "GET / http/1.1"] {
            assert_eq!(refused(format!("{line}\r\nHost: x\r\n\r\n").as_bytes()), Some(400), "{line}");
        }
        assert_eq!(refused(b"GET /\xff HTTP/1.1\r\n\r\n"), Some(400));
        assert_eq!(refused(b"GET /a b HTTP/1.1\r\n\r\n"), Some(400));
        assert_eq!(refused(b"\x16\x03\x01\r\n\r\n"), Some(400));
        assert_eq!(refused(b"PRI * HTTP/2.0\r\n\r\n"), Some(400));
        assert_eq!(refused(format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(9000)).as_bytes()), Some(414));
        assert_eq!(refused(format!("GET / HTTP/1.1\r\nhost: x\r\n{}\r\n", "a: b\r\n".repeat(100)).as_bytes()), Some(431));
        assert_eq!(refused(&stand_in(431)), None);
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(head in "(GET|x|\r|\n|\r\n|: ){0,20}", cut in 0_usize..40) {
            let bytes = head.as_bytes();
            let cut = cut.min(bytes.len());
            let whole = EndOfHead::default().find(bytes);
            let mut pieces = EndOfHead::default();
            let found = pieces.find(&bytes[..cut]).or_else(|| pieces.find(&bytes[cut..]).map(|at| at + cut));
            prop_assert_eq!(whole, found);
        }
    }
}
