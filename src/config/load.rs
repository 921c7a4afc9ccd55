//! The layers of a configuration, by figment: built-in defaults, a TOML file, `MODGATE_…` variables.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

use figment::providers::{Env, Format, Toml};
use figment::value::{Dict, Uncased};
use figment::{Figment, Metadata, Profile, Provider};

use super::read::{Finding, Layer, Place, Reading, Watch, key_lines, line_of};
use super::{ConfigError, DEFAULTS};

/// The largest configuration file that is read, in bytes.
const MAX_FILE: u64 = 4 << 20;

/// What the parser says of a key that stands twice.
const DUPLICATE_KEY: &str = "duplicate key";

/// The variable that names the configuration file; it is no key itself.
pub const CONFIG_VARIABLE: &str = "MODGATE_CONFIG";

/// A layer under a name of its own, by which its values are told apart from the others'.
struct Named<P>(&'static str, P);

const DEFAULT_LAYER: &str = "defaults";
const ENVIRONMENT_LAYER: &str = "environment";

impl<P: Provider> Provider for Named<P> {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.0)
    }

    fn data(&self) -> Result<figment::value::Map<Profile, Dict>, figment::Error> {
        self.1.data()
    }
}

/// Reads the layers into one table.
pub(super) fn layers(file: Option<&Path>) -> Result<(Reading, Dict), ConfigError> {
    let mut lines = HashMap::new();
    let files = RefCell::new(file.map(Watch::new).into_iter().collect());
    let mut figment = Figment::from(Named(DEFAULT_LAYER, Toml::string(DEFAULTS)));
    if let Some(path) = file {
        let text = read_file(path)?;
        let document = toml_edit::Document::parse(text.clone()).map_err(|e| {
            let mut problem = e.message().lines().collect::<Vec<_>>().join(", ");
            // The name of a key, which is nothing that has to be kept to oneself.
            if problem == DUPLICATE_KEY
                && let Some(key) = e.span().and_then(|span| text.get(span))
            {
                problem = format!("{problem} {key}");
            }
            let line = e.span().map(|span| line_of(text.as_bytes(), span.start));
            one(Place::File(path.to_owned(), line), problem)
        })?;
        // Half of an editor's or a copier's work: to take it for "no configuration" would open what the real one closes.
        if document.as_table().is_empty() && path.is_file() {
            let problem = "holds no keys at all; for the machine's Go settings leave the file away";
            return Err(one(Place::File(path.to_owned(), None), problem.to_owned()));
        }
        lines = key_lines(&document);
        // The two parsers do not agree on every novelty of TOML; what either refuses is refused.
        Toml::string(&text).data().map_err(|e| one(Place::File(path.to_owned(), None), without_source(&e.to_string())))?;
        figment = figment.merge(Named("file", Toml::string(&text)));
    }
    figment = figment.merge(Named(ENVIRONMENT_LAYER, Env::prefixed("MODGATE_").filter(is_key).split("__")));
    let data = figment.data().map_err(|e| one(Place::Default, e.to_string()))?;
    let dict = data.get(&Profile::Default).cloned().unwrap_or_default();
    let layer_of = Box::new(move |tag| match figment.get_metadata(tag).map(|meta| meta.name.as_ref()) {
        Some(ENVIRONMENT_LAYER) => Layer::Environment,
        Some(DEFAULT_LAYER) => Layer::Default,
        _ => Layer::File,
    });
    Ok((Reading { file: file.map(Path::to_path_buf), lines, layer_of, findings: RefCell::default(), files }, dict))
}

/// Reads the file whole, and says so where it cannot be.
fn read_file(path: &Path) -> Result<String, ConfigError> {
    let fail = |why: String| one(Place::File(path.to_owned(), None), why);
    let meta = std::fs::metadata(path).map_err(|e| fail(format!("cannot be read: {e}")))?;
    if meta.len() > MAX_FILE {
        return Err(fail(format!("larger than {MAX_FILE} bytes")));
    }
    let bytes = std::fs::read(path).map_err(|e| fail(format!("cannot be read: {e}")))?;
    String::from_utf8(bytes).map_err(|e| {
        let line = line_of(e.as_bytes(), e.utf8_error().valid_up_to());
        one(Place::File(path.to_owned(), Some(line)), "is no text in UTF-8".to_owned())
    })
}

/// A parser's message without the line of the file that it shows, in which a secret may stand.
fn without_source(message: &str) -> String {
    let shows = |line: &&str| line.trim_start().trim_start_matches(|c: char| c.is_ascii_digit()).trim_start().starts_with('|');
    message.lines().filter(|line| !shows(line)).collect::<Vec<_>>().join(", ")
}

fn one(place: Place, problem: String) -> ConfigError {
    let files = match &place {
        Place::File(path, _) => vec![Watch::new(path)],
        Place::Environment(_) | Place::Default | Place::GoSettings => Vec::new(),
    };
    ConfigError { findings: vec![Finding { place, key: String::new(), problem }], files }
}

/// Which `MODGATE_…` variables are keys. Kubernetes sets some for a service of the name "modgate", which are none.
fn is_key(name: &figment::value::UncasedStr) -> bool {
    let name = Uncased::from(name.as_str()).as_str().to_ascii_uppercase();
    let service_link =
        name == "PORT" || name.starts_with("PORT_") || name.starts_with("SERVICE_HOST") || name.starts_with("SERVICE_PORT");
    // `modgate connect` has its own.
    name != "CONFIG" && !name.starts_with("CONNECT_") && !service_link
}

/// The user's cache directory, as Go's `os.UserCacheDir` has it on this system.
pub(super) fn user_cache_dir() -> Option<PathBuf> {
    let var = |name| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    if cfg!(target_os = "macos") {
        return var("HOME").map(|home| home.join("Library/Caches"));
    }
    var("XDG_CACHE_HOME").or_else(|| var("HOME").map(|home| home.join(".cache")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parsers_message_shows_no_line_of_the_file() {
        let error = Toml::string("a = 1\ntoken = \"S3CRET\\e\"\n").data().expect_err("an escape that TOML 1.0 does not know");
        let (whole, shown) = (error.to_string(), without_source(&error.to_string()));
        assert!(whole.contains("S3CRET") && !shown.contains("S3CRET") && shown.contains("line 2"), "{shown}");
    }

    #[test]
    fn service_links_are_no_keys() {
        let key = |name: &str| is_key(name.into());
        assert!(key("server__listen") && key("UPSTREAMS__PUBLIC__URL"));
        for link in ["config", "connect_proxy", "PORT", "PORT_8080_TCP_ADDR", "SERVICE_HOST", "SERVICE_PORT_HTTP"] {
            assert!(!key(link), "{link}");
        }
    }
}
