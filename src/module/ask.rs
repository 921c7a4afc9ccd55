//! What a request's URL asks for (<https://go.dev/ref/mod#goproxy-protocol>).

use std::borrow::Cow;
use std::fmt;

use percent_encoding::percent_decode_str;

use super::{Malformed, ModulePath, ModuleVersion, Query, Version};

/// One question of the module proxy protocol.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Ask {
    /// `…/@v/list`
    List(ModulePath),
    /// `…/@latest`
    Latest(ModulePath),
    /// `…/@v/<version>.info` of a canonical version, whose answer never changes.
    Info(ModuleVersion),
    /// `…/@v/<query>.info` of anything that names a version: a branch, a commit, `v1`.
    Query(ModulePath, Query),
    /// `…/@v/<version>.mod`
    GoMod(ModuleVersion),
    /// `…/@v/<version>.zip`
    Zip(ModuleVersion),
}

/// Why a URL is not a question.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// The path has the wrong shape for the protocol: 404.
    #[error("not a module proxy request: {0}")]
    Unknown(&'static str),
    /// Its percent-encoding does not give UTF-8: 400.
    #[error("bad percent-encoding: {0}")]
    Encoding(&'static str),
    /// The module path or version breaks a rule: 400.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

impl Ask {
    /// Reads the path of a URL, percent-encoded as it came, without its query string.
    ///
    /// # Errors
    /// Why it is no question, as one line.
    pub fn parse(url_path: &str) -> Result<Self, AskError> {
        let decoded = decode(url_path)?;
        let path = decoded.strip_prefix('/').ok_or(AskError::Unknown("no leading slash"))?;
        if let Some(module) = path.strip_suffix("/@latest") {
            return Ok(Self::Latest(ModulePath::unescape(module)?));
        }
        let Some((module, file)) = path.rsplit_once("/@v/") else {
            return Err(if path.contains("//") || path.split('/').any(|e| e == "." || e == "..") {
                Malformed::new("path", &decoded, "double slash or dot elements").into()
            } else {
                AskError::Unknown("neither /@v/ nor /@latest in the path")
            });
        };
        let module = ModulePath::unescape(module)?;
        if file == "list" {
            return Ok(Self::List(module));
        }
        let (name, kind) = file.rsplit_once('.').ok_or(AskError::Unknown("no .info, .mod or .zip after /@v/"))?;
        if !matches!(kind, "info" | "mod" | "zip") {
            return Err(AskError::Unknown("only list, .info, .mod and .zip stand after /@v/"));
        }
        let query = Query::unescape(name)?;
        if kind == "info" {
            let exact = Version::parse(query.as_str()).ok().and_then(|v| ModuleVersion::new(module.clone(), v).ok());
            return Ok(exact.map_or_else(|| Self::Query(module, query), Self::Info));
        }
        let version = ModuleVersion::new(module, Version::parse(query.as_str())?)?;
        Ok(if kind == "mod" { Self::GoMod(version) } else { Self::Zip(version) })
    }

    /// The module that is asked about.
    pub fn module(&self) -> &ModulePath {
        match self {
            Self::List(m) | Self::Latest(m) | Self::Query(m, _) => m,
            Self::Info(v) | Self::GoMod(v) | Self::Zip(v) => &v.module,
        }
    }

    /// The kind of question, as logs and metrics name it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::List(_) => "list",
            Self::Latest(_) => "latest",
            Self::Info(_) => "info",
            Self::Query(..) => "query",
            Self::GoMod(_) => "mod",
            Self::Zip(_) => "zip",
        }
    }

    /// The path that asks this of a module proxy, below its base URL: escaped, and safe to stand in a URL or file name.
    pub fn path(&self) -> String {
        let module = self.module().escaped();
        match self {
            Self::List(_) => format!("{module}/@v/list"),
            Self::Latest(_) => format!("{module}/@latest"),
            Self::Info(v) => format!("{module}/@v/{}.info", v.version.escaped()),
            Self::Query(_, q) => format!("{module}/@v/{}.info", q.escaped()),
            Self::GoMod(v) => format!("{module}/@v/{}.mod", v.version.escaped()),
            Self::Zip(v) => format!("{module}/@v/{}.zip", v.version.escaped()),
        }
    }
}

impl fmt::Display for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::List(m) => write!(f, "{m}/@v/list"),
            Self::Latest(m) => write!(f, "{m}/@latest"),
            Self::Info(v) => write!(f, "{}/@v/{}.info", v.module, v.version),
            Self::Query(m, q) => write!(f, "{m}/@v/{q}.info"),
            Self::GoMod(v) => write!(f, "{}/@v/{}.mod", v.module, v.version),
            Self::Zip(v) => write!(f, "{}/@v/{}.zip", v.module, v.version),
        }
    }
}

/// Undoes the percent-encoding of a URL's path.
pub(crate) fn decode(url_path: &str) -> Result<Cow<'_, str>, AskError> {
    check_percent(url_path)?;
    percent_decode_str(url_path).decode_utf8().map_err(|_| AskError::Encoding("not UTF-8 when decoded"))
}

/// Every `%` has to be followed by two hexadecimal digits, and none may hide a zero byte.
fn check_percent(text: &str) -> Result<(), AskError> {
    let bytes = text.as_bytes();
    for (at, _) in bytes.iter().enumerate().filter(|(_, b)| **b == b'%') {
        match bytes.get(at + 1..at + 3) {
            Some(b"00") => return Err(AskError::Encoding("a zero byte")),
            Some(hex) if hex.iter().all(u8::is_ascii_hexdigit) => {}
            _ => return Err(AskError::Encoding("a % without two hexadecimal digits after it")),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_protocol() {
        let ask = |p: &str| Ask::parse(p).map(|a| (a.kind(), a.to_string()));
        let ok = |kind, text: &str| Ok((kind, text.to_owned()));
        assert_eq!(ask("/github.com/!burnt!sushi/toml/@v/list"), ok("list", "github.com/BurntSushi/toml/@v/list"));
        assert_eq!(ask("/github.com/%21burnt%21sushi/toml/@v/v1.0.0.zip"), ok("zip", "github.com/BurntSushi/toml/@v/v1.0.0.zip"));
        assert_eq!(ask("/example.com/m/@latest"), ok("latest", "example.com/m/@latest"));
        assert_eq!(ask("/example.com/m/@v/v1.0.0.info"), ok("info", "example.com/m/@v/v1.0.0.info"));
        assert_eq!(ask("/example.com/m/@v/v2.0.0.info"), ok("query", "example.com/m/@v/v2.0.0.info"));
        assert_eq!(ask("/example.com/m/@v/master.info"), ok("query", "example.com/m/@v/master.info"));
        assert_eq!(ask("/example.com/m/@v/v1.info"), ok("query", "example.com/m/@v/v1.info"));
        assert_eq!(ask("/gopkg.in/yaml.v2/@v/v2.4.0.mod"), ok("mod", "gopkg.in/yaml.v2/@v/v2.4.0.mod"));
    }

    #[test]
    fn what_is_refused_and_how() {
        for path in ["/", "/favicon.ico", "/@v/list", "/example.com/m", "/example.com/m/@v/v1.0.0.tar", "/example.com/m/@v/x"] {
            assert!(matches!(Ask::parse(path), Err(AskError::Unknown(_))), "{path}");
        }
        for path in
            ["/example.com/%ff/@v/list", "/example.com/m%00/@v/list", "/example.com/%zz/@v/list", "/example.com/%c0%ae/@v/list"]
        {
            assert!(matches!(Ask::parse(path), Err(AskError::Encoding(_))), "{path}");
        }
        for path in [
            "/example.com/../m/@v/list",
            "/example.com/%2e%2e/m/@v/list",
            "/%2e%2e/%2e%2e/etc/passwd",
            "//example.com/m/@v/list",
            "/example.com//m/@v/list",
            "/example.com/M/@v/list",
            "/m/@v/list",
            "/example.com/m/@v/.info",
            "/example.com/m/@v/../v1.0.0.info",
            "/example.com/m/@v/master.mod",
            "/example.com/m/@v/v2.0.0.zip",
            "/example.com/m/@v/v1.0.zip",
        ] {
            assert!(matches!(Ask::parse(path), Err(AskError::Malformed(_))), "{path}: {:?}", Ask::parse(path));
        }
    }

    proptest! {
        #[test]
        fn a_parsed_path_is_safe_and_is_parsed_again(path in "/[a-z!%.0-9A-F~/-]{1,30}(/@v/[a-zA-Z!%.0-9/+-]{1,16}|/@latest|/@v/list)") {
            if let Ok(ask) = Ask::parse(&path) {
                let own = ask.path();
                prop_assert!(!own.starts_with('/') && own.split('/').all(|e| !e.is_empty() && e != "." && e != ".."));
                let encoded = own.replace('%', "%25");
                prop_assert_eq!(Ask::parse(&format!("/{encoded}")), Ok(ask));
            }
        }

        #[test]
        fn nothing_panics(path in "\\PC{0,60}") {
            let _ = Ask::parse(&path);
        }
    }
}
