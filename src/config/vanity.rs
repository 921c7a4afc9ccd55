//! `[[vanity]]`: where import paths lead whose pages modgate serves.

use super::check::required;
use super::read::{Item, Table};
use super::vcs::subdirectory;
use crate::server::vanity::{Rule, Source, SourceKind, Target};
use crate::vcs::RepoUrl;
use crate::vcs::rules::{Match, Template};

/// Reads one rule: `match`, and `repo` or `mod`.
pub(super) fn rule(mut table: Table<'_>) -> Option<Rule> {
    let pattern = required(&mut table, "match").and_then(|item| item.parsed(Match::parse));
    let template = |item: &Item<'_>, check: fn(&str) -> Result<(), String>| {
        let pattern = pattern.as_ref()?;
        item.parsed(|text| {
            let template = Template::parse(text, pattern)?;
            check(&template.sample()).map(|()| template)
        })
    };
    let subdir = table.take("subdir");
    let target = match (table.take("repo"), table.take("mod")) {
        (Some(repo), None) => {
            let subdir = subdir.map_or(Some(String::new()), |item| item.parsed(subdirectory));
            template(&repo, |url| RepoUrl::parse(url).map(|_| ()))
                .zip(subdir)
                .map(|(repo, subdir)| Target::Repository(repo, subdir))
        }
        (None, Some(proxy)) => {
            if let Some(subdir) = subdir {
                subdir.say("belongs to a repository");
            }
            template(&proxy, web_url).map(Target::Proxy)
        }
        (repo, _) => {
            match repo {
                Some(repo) => repo.say("stands beside mod; one of them is enough"),
                None => table.say("", "has no repo and no mod"),
            }
            None
        }
    };
    let kinds = [("gitlab", SourceKind::GitLab), ("github", SourceKind::GitHub), ("gitea", SourceKind::Gitea)];
    let (home, kind) = (table.take("home"), table.take("source"));
    let source = match (home, kind) {
        (None, None) => Some(None),
        (Some(home), Some(kind)) => {
            let known = |text: &str| {
                let found = kinds.iter().find(|(name, _)| *name == text).map(|(_, kind)| *kind);
                found.ok_or_else(|| "has to be one of: gitlab, github, gitea".to_owned())
            };
            template(&home, web_url).zip(kind.parsed(known)).map(|(home, kind)| Some(Source { home, kind }))
        }
        (Some(one), None) | (None, Some(one)) => {
            one.say("home (a repository's page) and source (gitlab, github or gitea) belong together");
            None
        }
    };
    table.finish();
    Some(Rule { pattern: pattern?, target: target?, source: source? })
}

fn web_url(text: &str) -> Result<(), String> {
    let url = url::Url::parse(text).map_err(|e| format!("not a URL ({e})"))?;
    let plain = matches!(url.scheme(), "http" | "https") && url.username().is_empty() && url.password().is_none();
    if plain && !text.contains(char::is_whitespace) { Ok(()) } else { Err("has to be an http or https URL, without a user".into()) }
}
