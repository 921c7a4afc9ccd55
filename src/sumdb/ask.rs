//! What a request below `/sumdb/` asks for (<https://go.dev/ref/mod#checksum-database>).

use std::fmt;

use super::tile::Named;
use crate::module::ask::decode;
use crate::module::{AskError, ModulePath, ModuleVersion, Version};

/// One question to a database, without the database's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SumdbAsk {
    /// Whether it is passed on at all.
    Supported,
    /// The newest tree head.
    Latest,
    /// The record of a version.
    Lookup(ModuleVersion),
    /// A tile.
    Tile(Named),
}

impl SumdbAsk {
    /// Reads the path of a URL, percent-encoded as it came, below `/sumdb/`: the name of one of these databases, and what is asked of
    /// it.
    ///
    /// # Errors
    /// Why it is no question; [`AskError::Unknown`] where it is of another database.
    pub fn parse<'a>(path: &str, databases: impl Iterator<Item = &'a str>) -> Result<(&'a str, Self), AskError> {
        let decoded = decode(path)?;
        let below = databases.filter_map(|name| Some((name, decoded.strip_prefix(name)?.strip_prefix('/')?)));
        // The name of one may begin with another's.
        let (name, rest) =
            below.max_by_key(|(name, _)| name.len()).ok_or(AskError::Unknown("this checksum database is not passed on here"))?;
        let ask = match rest {
            "supported" => Self::Supported,
            "latest" => Self::Latest,
            rest if rest.starts_with("tile/") => {
                Self::Tile(Named::parse(rest).ok_or(AskError::Unknown("not the name of a tile of height 8"))?)
            }
            rest => {
                let of_lookup = rest.strip_prefix("lookup/").and_then(|asked| asked.split_once('@'));
                let (module, version) = of_lookup.ok_or(AskError::Unknown("not a question to a checksum database"))?;
                let version = Version::parse(&crate::module::escape::unescape(version).unwrap_or_default())?;
                Self::Lookup(ModuleVersion::new(ModulePath::unescape(module)?, version)?)
            }
        };
        Ok((name, ask))
    }
}

impl fmt::Display for SumdbAsk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Supported => f.write_str("supported"),
            Self::Latest => f.write_str("latest"),
            Self::Lookup(version) => write!(f, "lookup/{version}"),
            Self::Tile(named) => write!(f, "{named}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(path: &str) -> Result<String, AskError> {
        SumdbAsk::parse(path, ["sum.example", "sum.example/team"].into_iter()).map(|(name, ask)| format!("{name} {ask}"))
    }

    #[test]
    fn questions() {
        assert_eq!(parse("sum.example/supported").as_deref(), Ok("sum.example supported"));
        assert_eq!(parse("sum.example/lookup/github.com/!a/b@v1.0.0").as_deref(), Ok("sum.example lookup/github.com/A/b@v1.0.0"));
        assert_eq!(
            parse("sum.example/lookup/golang.org/toolchain@v0.0.1-go1.26.8.linux-amd64").as_deref(),
            Ok("sum.example lookup/golang.org/toolchain@v0.0.1-go1.26.8.linux-amd64")
        );
        assert_eq!(parse("sum.example/tile/8/0/x001/234.p/7").as_deref(), Ok("sum.example tile/8/0/x001/234.p/7"));
        for unknown in
            ["sum.other/supported", "sum.example", "sum.example/", "sum.example/tile/4/0/001", "sum.example/lookup/a.b/c"]
        {
            assert!(matches!(parse(unknown), Err(AskError::Unknown(_))), "{unknown}");
        }
        for bad in ["sum.example/lookup/a.b/../c@v1.0.0", "sum.example/lookup/a.b/c@main", "sum.example/lookup/a.b/c@v2.0.0"] {
            assert!(matches!(parse(bad), Err(AskError::Malformed(_))), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(path in "sum.example/(lookup/|tile/)?\\PC{0,40}") {
            let _ = parse(&path);
        }
    }
}
