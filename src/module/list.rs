//! The answer to `@v/list`: one version a line.

use super::{ModulePath, ModuleVersion, Version};

/// The versions that one upstream, or a chain of them, lists. Sorted in semver order, without duplicates.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VersionList {
    /// Releases and pre-releases, `+incompatible` ones as sent.
    pub tagged: Vec<Version>,
    /// Pseudo-versions. They do not belong into a list, but some proxies send them; they help to find the latest.
    pub pseudo: Vec<Version>,
}

impl VersionList {
    /// Reads a list as the go command does: the first field of each line counts; what is no version is passed over, and so
    /// is a version whose major does not suit the module's path.
    pub fn parse(module: &ModulePath, text: &str) -> Self {
        Self::from_versions(text.lines().filter_map(|line| line.split_whitespace().next()).filter_map(|field| {
            let version = Version::parse(field).ok()?;
            ModuleVersion::new(module.clone(), version).ok().map(|v| v.version)
        }))
    }

    /// Sorts versions into a list.
    pub fn from_versions(versions: impl IntoIterator<Item = Version>) -> Self {
        let (mut pseudo, mut tagged): (Vec<_>, Vec<_>) = versions.into_iter().partition(Version::is_pseudo);
        for part in [&mut pseudo, &mut tagged] {
            part.sort_unstable();
            part.dedup();
        }
        Self { tagged, pseudo }
    }

    /// The body of a `@v/list` answer: the tagged versions.
    pub fn render(&self) -> String {
        lines(&self.tagged)
    }

    /// All of it, pseudo-versions too, as a copy of an upstream's list is kept.
    pub fn render_all(&self) -> String {
        lines(self.tagged.iter().chain(&self.pseudo))
    }
}

fn lines<'a>(versions: impl IntoIterator<Item = &'a Version>) -> String {
    versions.into_iter().fold(String::new(), |mut out, v| {
        out.push_str(v.as_str());
        out.push('\n');
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_leniently_and_written_strictly() {
        let module = ModulePath::parse("example.com/m").expect("path");
        let text = "v1.10.0\nv1.9.0 2020-01-01T00:00:00Z\n\nnonsense\nv2.0.0\nv2.0.0+incompatible\nv1.9.0\n\
                    v0.0.0-20191109021931-daa7c04131f5\nv1.0.0-rc.1\r\nv1.0\n";
        let list = VersionList::parse(&module, text);
        assert_eq!(list.render(), "v1.0.0-rc.1\nv1.9.0\nv1.10.0\nv2.0.0+incompatible\n");
        assert_eq!(list.pseudo.len(), 1);
    }
}
