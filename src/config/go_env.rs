//! The Go settings of the machine, read as the go command reads them: the environment, then the file that GOENV names, then
//! `$GOROOT/go.env`, then Go's defaults (<https://go.dev/ref/mod#environment-variables>).

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use url::Url;

/// Go's own default, where nothing else is set.
pub const DEFAULT_GOPROXY: &str = "https://proxy.golang.org,direct";

/// The same for GOSUMDB.
pub const DEFAULT_GOSUMDB: &str = "sum.golang.org";

/// The largest settings file that is read, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// The settings that bear on modgate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GoSettings {
    /// The proxies, in order, as GOPROXY has them.
    pub proxies: Vec<GoProxyEntry>,
    /// GONOPROXY, for which GOPRIVATE stands in; empty for `none`.
    pub no_proxy: String,
    /// GOINSECURE.
    pub insecure: String,
    /// GOSUMDB: a checksum database, or `off`.
    pub sumdb: String,
    /// GONOSUMDB, for which GOPRIVATE stands in; empty for `none`.
    pub no_sumdb: String,
}

/// One item of GOPROXY.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GoProxyEntry {
    /// What is asked.
    pub target: Target,
    /// Whether a bar follows: the next is asked after any error.
    pub any_error: bool,
}

/// What an item of GOPROXY names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// An http or https server.
    Server(Url),
    /// A `file://` tree.
    Folder(PathBuf),
    /// `direct`: version control.
    Direct,
    /// `off`: nothing further.
    Off,
}

/// Where settings come from; tests put their own in.
pub struct Sources<'a> {
    /// Looks an environment variable up.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
}

impl GoSettings {
    /// Reads the machine's settings.
    ///
    /// # Errors
    /// An item of GOPROXY that cannot be understood; the text holds no password.
    pub fn of_machine() -> Result<Self, String> {
        Self::from(&Sources { variable: &|name| std::env::var(name).ok() })
    }

    /// Reads settings from given sources.
    ///
    /// # Errors
    /// An item of GOPROXY that cannot be understood; the text holds no password.
    pub fn from(sources: &Sources<'_>) -> Result<Self, String> {
        let files = [user_file(sources), goroot_file(sources)].map(|path| path.map(|p| read_env_file(&p)).unwrap_or_default());
        // As the go command has it, an empty variable counts as none.
        let get = |name: &str| {
            let set = |text: &String| !text.is_empty();
            (sources.variable)(name).filter(set).or_else(|| files.iter().find_map(|f| f.get(name).filter(|t| set(t)).cloned()))
        };
        let proxies = parse_goproxy(&get("GOPROXY").unwrap_or_else(|| DEFAULT_GOPROXY.to_owned()))?;
        let patterns = |name: &str| get(name).or_else(|| get("GOPRIVATE")).filter(|text| text != "none").unwrap_or_default();
        Ok(Self {
            proxies,
            no_proxy: patterns("GONOPROXY"),
            insecure: get("GOINSECURE").unwrap_or_default(),
            sumdb: get("GOSUMDB").unwrap_or_else(|| DEFAULT_GOSUMDB.to_owned()),
            no_sumdb: patterns("GONOSUMDB"),
        })
    }
}

/// The file that GOENV names; by default `go/env` in the user's configuration directory.
fn user_file(sources: &Sources<'_>) -> Option<PathBuf> {
    let var = |name: &str| (sources.variable)(name).filter(|v| !v.is_empty());
    match var("GOENV") {
        Some(off) if off == "off" => None,
        Some(path) => Some(path.into()),
        None if cfg!(target_os = "macos") => Some(PathBuf::from(var("HOME")?).join("Library/Application Support/go/env")),
        None => {
            let config = var("XDG_CONFIG_HOME").map(PathBuf::from).or_else(|| Some(PathBuf::from(var("HOME")?).join(".config")))?;
            Some(config.join("go/env"))
        }
    }
}

/// `$GOROOT/go.env`, where GOROOT is set or the go command is on the PATH.
fn goroot_file(sources: &Sources<'_>) -> Option<PathBuf> {
    let set = (sources.variable)("GOROOT").filter(|v| !v.is_empty()).map(PathBuf::from);
    let root = set.or_else(|| {
        let path = (sources.variable)("PATH")?;
        let go = std::env::split_paths(&path).map(|dir| dir.join("go")).find(|go| go.is_file())?;
        Some(go.canonicalize().ok()?.parent()?.parent()?.to_owned())
    })?;
    Some(root.join("go.env"))
}

/// Reads `KEY=value` lines; comments and anything else are passed over, as the go command does.
fn read_env_file(path: &Path) -> HashMap<String, String> {
    let small = std::fs::metadata(path).is_ok_and(|m| m.is_file() && m.len() <= MAX_FILE);
    let text = if small { std::fs::read_to_string(path).unwrap_or_default() } else { String::new() };
    let mut found = HashMap::new();
    for line in text.lines() {
        if let Some((key, value)) = line.split_once('=')
            && key.starts_with(|c: char| c.is_ascii_uppercase())
        {
            found.entry(key.to_owned()).or_insert_with(|| value.trim_end_matches('\r').to_owned());
        }
    }
    found
}

/// Splits GOPROXY. `off` and `direct` end the list.
fn parse_goproxy(text: &str) -> Result<Vec<GoProxyEntry>, String> {
    let mut entries = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find([',', '|']).unwrap_or(rest.len());
        let any_error = rest[end..].starts_with('|');
        let item = rest[..end].trim();
        rest = rest.get(end + 1..).unwrap_or_default();
        let target = match item {
            "" => continue,
            "off" => Target::Off,
            "direct" => Target::Direct,
            item => parse_target(item)?,
        };
        let last = matches!(target, Target::Off | Target::Direct);
        entries.push(GoProxyEntry { target, any_error });
        if last {
            break;
        }
    }
    Ok(entries)
}

fn parse_target(item: &str) -> Result<Target, String> {
    // The go command takes "proxy.example" for "https://proxy.example".
    let with_scheme = if item.contains(['.', ':', '/']) && !item.contains(":/") && !item.starts_with('/') {
        format!("https://{item}")
    } else {
        item.to_owned()
    };
    let url = Url::parse(&with_scheme).map_err(|e| format!("GOPROXY holds an item that is no URL ({e})"))?;
    match url.scheme() {
        "http" | "https" => Ok(Target::Server(url)),
        "file" => url.to_file_path().map(Target::Folder).map_err(|()| "GOPROXY holds a file URL without a path".to_owned()),
        other => Err(format!("GOPROXY holds a URL with the scheme {other:?}; http, https and file are known")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(vars: &[(&str, &str)]) -> Result<GoSettings, String> {
        let map: HashMap<String, String> = vars.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        GoSettings::from(&Sources { variable: &|name| map.get(name).cloned() })
    }

    fn shown(settings: &GoSettings) -> String {
        let item = |e: &GoProxyEntry| {
            let target = match &e.target {
                Target::Server(url) => url.to_string(),
                Target::Folder(path) => path.display().to_string(),
                Target::Direct => "direct".into(),
                Target::Off => "off".into(),
            };
            format!("{target}{}", if e.any_error { "|" } else { "," })
        };
        settings.proxies.iter().map(item).collect()
    }

    #[test]
    fn goproxy_is_split_as_go_splits_it() {
        let split = |text: &str| settings(&[("GOPROXY", text)]).map(|s| shown(&s));
        assert_eq!(split("https://a.example,https://b.example|direct"), Ok("https://a.example/,https://b.example/|direct,".into()));
        assert_eq!(split("a.example, ,off,https://never.example"), Ok("https://a.example/,off,".into()));
        assert_eq!(split("file:///srv/mod,direct"), Ok("/srv/mod,direct,".into()));
        assert!(split("ftp://a.example").is_err());
        let default = settings(&[("GOPROXY", DEFAULT_GOPROXY)]);
        assert_eq!((settings(&[]), default.map(|s| s.proxies.len())), (settings(&[("GOPROXY", DEFAULT_GOPROXY)]), Ok(2)));
    }

    #[test]
    fn the_sources_stand_in_order() {
        let dir = tempfile::tempdir().expect("dir");
        let env = dir.path().join("env");
        std::fs::write(&env, "# mine\nGOPROXY=https://user.example\nGOPRIVATE=corp.example\nbad line\n").expect("write");
        std::fs::write(dir.path().join("go.env"), "GOPROXY=https://root.example\nGONOPROXY=root.example\n").expect("write");
        let (env, root) = (env.to_string_lossy().into_owned(), dir.path().to_string_lossy().into_owned());
        let both = settings(&[("GOENV", &env), ("GOROOT", &root)]).expect("settings");
        assert_eq!((shown(&both).as_str(), both.no_proxy.as_str()), ("https://user.example/,", "root.example"));
        let off = settings(&[("GOENV", "off"), ("GOROOT", &root), ("GONOPROXY", "none")]).expect("settings");
        assert_eq!((shown(&off).as_str(), off.no_proxy.as_str()), ("https://root.example/,", ""));
        let var = settings(&[("GOENV", &env), ("GOPROXY", "https://var.example"), ("GOPRIVATE", "")]).expect("settings");
        assert_eq!((shown(&var).as_str(), var.no_proxy.as_str()), ("https://var.example/,", "corp.example"));
    }
}
