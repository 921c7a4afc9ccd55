//! Records: what the database says of one version, and the answers that carry them.

use super::tree::number;
use crate::module::{ModuleVersion, Sum};

/// The sums of one version, as its record has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sums {
    /// That of the zip.
    pub zip: Option<Sum>,
    /// That of the go.mod.
    pub go_mod: Option<Sum>,
}

/// A record in an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record<'a> {
    /// Its place in the tree.
    pub number: u64,
    /// Its lines, as in a go.sum.
    pub text: &'a str,
    /// What follows it.
    pub rest: &'a [u8],
}

impl<'a> Record<'a> {
    /// Takes a record off the front of an answer (`tlog.ParseRecord`); `None` where there is none.
    pub fn parse(answer: &'a [u8]) -> Option<Self> {
        let end = answer.iter().position(|b| *b == b'\n')?;
        let record = number(std::str::from_utf8(&answer[..end]).ok()?)?;
        let (text, rest) = take_text(&answer[end + 1..])?;
        Some(Self { number: record, text, rest })
    }

    /// The sums of a version that its lines hold. Kinds of sums that are not known are passed over.
    pub fn sums(&self, version: &ModuleVersion) -> Sums {
        let (module, zip) = (version.module.as_str(), version.version.as_str());
        let go_mod = format!("{zip}/go.mod");
        let of = |wanted: &str| {
            self.text.lines().find_map(|line| {
                let mut fields = line.split(' ');
                let here = fields.next() == Some(module) && fields.next() == Some(wanted);
                let sum = fields.next().filter(|_| here).and_then(Sum::parse)?;
                fields.next().is_none().then_some(sum)
            })
        };
        Sums { zip: of(zip), go_mod: of(&go_mod) }
    }
}

/// Takes the text of a record off the front of an answer, and the blank line that ends it.
pub fn take_text(answer: &[u8]) -> Option<(&str, &[u8])> {
    let end = answer.windows(2).position(|two| two == b"\n\n")?;
    let text = std::str::from_utf8(&answer[..=end]).ok()?;
    let plain = !text.bytes().any(|b| b < 0x20 && b != b'\n');
    plain.then_some((text, &answer[end + 2..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::module::{ModulePath, Version};

    #[test]
    fn a_published_record() {
        let answer = b"1\ngolang.org/x/text v0.3.0 h1:g61tztE5qeGQ89tm6NTjjM9VPIm088od1l6aSorWRWg=\n\
            golang.org/x/text v0.3.0/go.mod h1:NqM8EUOU14njkJ3fqMW+pc6Ldnwhi/IjpwHt7yyuwOQ=\n\ngo.sum database tree\n";
        let record = Record::parse(answer).expect("record");
        assert_eq!((record.number, record.rest), (1, &b"go.sum database tree\n"[..]));
        let version = |text: &str| {
            let (module, version) = (ModulePath::parse("golang.org/x/text").expect("path"), Version::parse(text).expect("version"));
            ModuleVersion::new(module, version).expect("fits")
        };
        let sums = record.sums(&version("v0.3.0"));
        assert_eq!(sums.zip.map(|s| s.to_string()).as_deref(), Some("h1:g61tztE5qeGQ89tm6NTjjM9VPIm088od1l6aSorWRWg="));
        assert_eq!(sums.go_mod.map(|s| s.to_string()).as_deref(), Some("h1:NqM8EUOU14njkJ3fqMW+pc6Ldnwhi/IjpwHt7yyuwOQ="));
        assert_eq!(record.sums(&version("v0.3.1")), Sums { zip: None, go_mod: None });
    }

    #[test]
    fn what_is_no_record() {
        for bad in ["", "1", "1\n", "1\na", "1\na\n", "01\na\n\n", "-1\na\n\n", "1\na\tb\n\n", "x\na\n\n"] {
            assert_eq!(Record::parse(bad.as_bytes()), None, "{bad:?}");
        }
        assert_eq!(Record::parse(b"1\na\n\n").map(|r| r.text), Some("a\n"));
    }
}
