//! Interim answers (1xx), which a server may send before the one that counts (RFC 9110 §15.2), and which every client has to
//! read past.
//!
//! awc takes the first head that comes for the answer, and gives the connection back; then the answer that follows it would be
//! taken for that of the next request, which is for another module. So they are taken out before awc sees them.

use std::io;

use tokio::io::ReadBuf;

/// The most interim answers before an answer.
const MOST: usize = 8;
/// The longest head of an interim answer, in bytes.
const LONGEST: usize = 16 << 10;
/// How the head of an interim answer begins; `?` is any digit.
const BEGIN: &[u8] = b"HTTP/1.? 1";

/// What a server sends, from which interim answers are taken out.
#[derive(Debug, Default)]
pub(super) struct Interim {
    /// A request was sent, and its answer has not begun yet.
    waiting: bool,
    /// What came and was not handed on yet.
    held: Vec<u8>,
    seen: usize,
}

impl Interim {
    /// A request is being sent: what comes next is a head.
    pub(super) fn expect_head(&mut self) {
        if !self.waiting && self.held.is_empty() {
            (self.waiting, self.seen) = (true, 0);
        }
    }

    /// Hands on what was held back and is no interim answer; whether there was any.
    pub(super) fn hand_on(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        if self.waiting || self.held.is_empty() {
            return false;
        }
        let bytes = self.held.len().min(buf.remaining());
        buf.put_slice(&self.held[..bytes]);
        self.held.drain(..bytes);
        true
    }

    /// Looks at what came into a buffer after its first `before` bytes. What is not known to be the answer's goes out of it again.
    ///
    /// # Errors
    /// What it sent is no answer to a request of ours.
    pub(super) fn look(&mut self, buf: &mut ReadBuf<'_>, before: usize) -> io::Result<()> {
        if !self.waiting {
            return Ok(());
        }
        let came = &buf.filled()[before..];
        if self.held.is_empty() && matches!(Begins::of(came), Begins::Final) {
            self.waiting = false;
            return Ok(());
        }
        self.held.extend_from_slice(came);
        buf.set_filled(before);
        while self.waiting {
            match Begins::of(&self.held) {
                Begins::Unknown => break,
                Begins::Final => self.waiting = false,
                Begins::Interim => match end_of_head(&self.held) {
                    Some(_) if self.seen == MOST => return Err(invalid("it sends interim answers (1xx) and no other")),
                    // Nothing was asked for that it could switch to.
                    Some(_) if self.held[begin(&self.held)..].starts_with(b"HTTP/1.1 101") => {
                        return Err(invalid("it switches to a protocol that was not asked for"));
                    }
                    Some(end) => {
                        self.held.drain(..end);
                        self.seen += 1;
                    }
                    None if self.held.len() > LONGEST => return Err(invalid("the head of its interim answer (1xx) has no end")),
                    None => break,
                },
            }
        }
        Ok(())
    }
}

/// What a head begins like.
enum Begins {
    /// It has not come far enough to say.
    Unknown,
    Interim,
    Final,
}

impl Begins {
    fn of(bytes: &[u8]) -> Self {
        let head = &bytes[begin(bytes)..];
        let fits = |(is, wanted): (&u8, &u8)| is == wanted || *wanted == b'?' && is.is_ascii_digit();
        if !head.iter().zip(BEGIN).all(fits) {
            // A reader of heads skips no more than a few empty lines either.
            Self::Final
        } else if head.len() < BEGIN.len() && bytes.len() <= LONGEST {
            Self::Unknown
        } else if head.len() < BEGIN.len() {
            Self::Final
        } else {
            Self::Interim
        }
    }
}

/// Where a head begins: empty lines before it are skipped, as awc's parser does.
fn begin(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count()
}

/// Where a head ends: after the first empty line in it.
fn end_of_head(bytes: &[u8]) -> Option<usize> {
    let start = begin(bytes);
    let mut line = start;
    for (at, _) in bytes.iter().enumerate().skip(start).filter(|(_, byte)| **byte == b'\n') {
        if matches!(&bytes[line..at], b"" | b"\r") {
            return Some(at + 1);
        }
        line = at + 1;
    }
    None
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What is left of bytes that come in pieces of so many.
    fn filtered(sent: &[u8], pieces: usize) -> io::Result<Vec<u8>> {
        let (mut interim, mut out) = (Interim::default(), Vec::new());
        interim.expect_head();
        for piece in sent.chunks(pieces) {
            let mut room = vec![0; piece.len() + 7];
            let mut buf = ReadBuf::new(&mut room);
            buf.put_slice(b"before!");
            buf.put_slice(piece);
            interim.look(&mut buf, 7)?;
            out.extend_from_slice(&buf.filled()[7..]);
            loop {
                let mut small = [0; 3];
                let mut buf = ReadBuf::new(&mut small);
                if !interim.hand_on(&mut buf) {
                    break;
                }
                out.extend_from_slice(buf.filled());
            }
        }
        Ok(out)
    }

    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 17\r\n\r\nHTTP/1.1 100 Yes\n";

    #[test]
    fn interim_answers_are_taken_out_however_they_come() {
        let hints: &[u8] = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n";
        for before in [b"".as_slice(), hints, b"HTTP/1.0 100 Continue\n\n", b"\r\nHTTP/1.1 102 \r\n\r\n", &[hints, hints].concat()]
        {
            let sent = [before, ANSWER].concat();
            for pieces in 1..=sent.len() {
                assert_eq!(filtered(&sent, pieces).expect("an answer"), ANSWER, "{pieces}");
            }
        }
    }

    #[test]
    fn what_never_becomes_an_answer_is_an_error() {
        let many = b"HTTP/1.1 100 Continue\r\n\r\n".repeat(MOST + 1);
        let long = [b"HTTP/1.1 103 Early Hints\r\nX: ".as_slice(), &b"x".repeat(LONGEST)].concat();
        for sent in [many.as_slice(), &long, b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n"] {
            for pieces in [1, 100, sent.len()] {
                assert!(filtered(sent, pieces).is_err());
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_no_interim_answer_comes_through_as_it_is(begin in "(HTTP/1\\.[01] [2-5][0-9]{2} |HTTP/|[a-z]|\r\n){0,4}", pieces in 1_usize..50) {
            let sent = format!("{begin}z and the rest");
            prop_assert_eq!(filtered(sent.as_bytes(), pieces).expect("no error"), sent.as_bytes());
        }
    }
}
