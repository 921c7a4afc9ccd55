//! An upstream of type `vcs`: where repositories are, and who modgate is to their hosts.

use std::net::IpAddr;
use std::path::PathBuf;

use url::Url;

use super::UpstreamKind;
use super::check::{all, required};
use super::egress::{file, login, secret, user_netrc};
use super::go_env::GoSettings;
use super::read::{Item, Reading, Table, globs};
use crate::base::{Secret, units};
use crate::egress::credentials::{Credentials, basic};
use crate::egress::proxy::{NoProxy, bare};
use crate::egress::{Policy, Reach};
use crate::module::Pattern;
use crate::vcs::resolve::Rule;
use crate::vcs::rules::{Match, Template};
use crate::vcs::{HostAccess, RepoUrl, Settings};

/// Programs at work at the same time for one upstream, where nothing else is said.
const PROGRAMS: usize = 16;
/// The largest history of a repository, packed, where nothing else is said.
const MAX_PACK: u64 = 8 << 30;
/// The user that stands beside a token where none is named: GitLab and GitHub take any, and some want this.
const TOKEN_USER: &str = "oauth2";

/// Reads what such an upstream has besides its way out, and what completes that: whom pages may lead to.
pub(super) fn settings(reading: &Reading, table: &mut Table<'_>) -> Option<(Settings, Reach)> {
    let rules = table.items("repositories").map_or(Some(Vec::new()), |items| all(items.into_iter().map(rule)));
    let hosts = hosts(reading, table);
    let netrc = match table.take("netrc_file") {
        None => Some(None),
        Some(item) => file(reading, &item).map(|(_, bytes)| Some(Secret::new(String::from_utf8_lossy(&bytes).into_owned()))),
    };
    let git_config = match table.take("git_config_file") {
        None => Some(None),
        Some(item) => existing(reading, &item).map(Some),
    };
    let insecure = patterns(table, "insecure");
    let internal: Option<Vec<String>> = match table.items("internal_hosts") {
        None => Some(Vec::new()),
        Some(items) => all(items.iter().map(Item::text)),
    };
    let discover = table.flag("discover").unwrap_or(true);
    let programs = table.number("max_programs", 1, 1000).unwrap_or(PROGRAMS);
    let max_pack = if table.has("max_pack") { table.parsed("max_pack", units::parse_size) } else { Some(MAX_PACK) };
    let (rules, hosts, netrc, internal) = (rules?, hosts?, netrc?, internal?);
    // Who has credentials for a host means to reach it, wherever it lies.
    let named =
        internal.iter().cloned().chain(hosts.iter().map(|h| h.port.map_or_else(|| h.host.clone(), |p| format!("{}:{p}", h.host))));
    let named: Vec<String> = named.collect();
    let reach = Reach { internal: NoProxy::parse(named.iter().map(String::as_str)) };
    Some((
        Settings { rules, discover, insecure: insecure?, hosts, netrc, git_config: git_config?, programs, max_pack: max_pack? },
        reach,
    ))
}

/// An upstream of these settings, whose way out is completed by them.
pub(super) fn upstream(settings: Settings, reach: Reach, policy: Policy) -> UpstreamKind {
    let credentials = credentials(&settings.hosts, settings.netrc.clone());
    UpstreamKind::Vcs(Box::new(settings), Box::new(Policy { reach: Some(reach), credentials: Some(credentials), ..policy }))
}

/// The settings of `direct` in the machine's Go settings: what the go command would use of this user. The hosts of GOPRIVATE may lie
/// in the own network.
pub(super) fn of_go_settings(go: &GoSettings, policy: Policy) -> UpstreamKind {
    let netrc = user_netrc().map(Secret::new);
    let home = |name: &str| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(name)).filter(|path| path.is_file());
    let own = go.no_proxy.split(',').filter_map(|pattern| pattern.split('/').next()).filter(|host| *host != "*");
    let reach = Reach { internal: NoProxy::parse(own) };
    let insecure = Pattern::parse_list(&go.insecure).unwrap_or_default();
    let git_config = home(".gitconfig");
    let settings =
        Settings { discover: true, insecure, netrc, git_config, programs: PROGRAMS, max_pack: MAX_PACK, ..Settings::default() };
    upstream(settings, reach, policy)
}

/// What requests for pages carry.
fn credentials(hosts: &[HostAccess], netrc: Option<Secret>) -> Credentials {
    let own = hosts.iter().filter_map(|host| {
        let (user, password) = host.login.as_ref()?;
        let port = host.port.map(|port| format!(":{port}")).unwrap_or_default();
        let name = if host.host.contains(':') { format!("[{}]", host.host) } else { host.host.clone() };
        let url = Url::parse(&format!("https://{name}{port}/")).ok()?;
        Some((url, vec![("authorization".to_owned(), basic(user, password.expose()))]))
    });
    Credentials::of_many(own, netrc)
}

fn patterns(table: &mut Table<'_>, key: &'static str) -> Option<Vec<Pattern>> {
    let Some(items) = table.items(key) else { return Some(Vec::new()) };
    let parse = |item: &Item<'_>| item.parsed(globs);
    Some(all(items.iter().map(parse))?.concat())
}

/// `{ match = …, repo = …, subdir = … }`
fn rule(item: Item<'_>) -> Option<Rule> {
    let mut table = item.table()?;
    let pattern = required(&mut table, "match").and_then(|item| item.parsed(Match::parse));
    let repo = required(&mut table, "repo").and_then(|item| {
        let pattern = pattern.as_ref()?;
        item.parsed(|text| {
            let template = Template::parse(text, pattern)?;
            RepoUrl::parse(&template.sample()).map(|_| template)
        })
    });
    let subdir = table.take("subdir").map_or(Some(String::new()), |item| item.parsed(subdirectory));
    table.finish();
    Some(Rule { pattern: pattern?, repo: repo?, subdir: subdir? })
}

pub(super) fn subdirectory(text: &str) -> Result<String, String> {
    let plain = text.split('/').all(|e| !matches!(e, "" | "." | "..") && !e.starts_with('-') && !e.contains(['\\', '\n']));
    if plain { Ok(text.to_owned()) } else { Err("is a directory of the repository, as \"go/src\"".into()) }
}

/// `credentials`: by host, or host and port.
fn hosts(reading: &Reading, table: &mut Table<'_>) -> Option<Vec<HostAccess>> {
    let Some(inner) = table.take("credentials") else { return Some(Vec::new()) };
    all(inner.table()?.items_by_name().into_iter().map(|(name, item)| host(reading, &name, &item)))
}

fn host(reading: &Reading, name: &str, item: &Item<'_>) -> Option<HostAccess> {
    let url = Url::parse(&format!("ssh://{name}")).ok().filter(|u| u.path().is_empty() && u.username().is_empty());
    let named = url.as_ref().and_then(|u| Some((bare(u.host_str()?).to_ascii_lowercase(), u.port())));
    let good =
        |host: &str| host.parse::<IpAddr>().is_ok() || host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    let Some((host, port)) = named.filter(|(host, _)| good(host) && !host.is_empty()) else {
        item.say("has to be a host, as \"git.corp.example\", or with a port, as \"git.corp.example:2222\"");
        return None;
    };
    let mut table = item.clone().table()?;
    let by_token = ["token", "token_file", "token_env"].into_iter().any(|key| table.has(key));
    let by_password = ["password", "password_file", "password_env"].into_iter().any(|key| table.has(key));
    let login = if by_token && by_password {
        item.say("has a password and a token; one of them is enough");
        None
    } else if by_token {
        let user = table.take("username").map_or(Some(TOKEN_USER.to_owned()), |item| item.text());
        let token = secret(reading, &mut table, "token", "token_file", "token_env");
        user.zip(token).map(Some)
    } else if by_password || table.has("username") {
        login(reading, &mut table).map(Some)
    } else {
        Some(None)
    };
    let mut path = |key: &'static str| table.take(key).map_or(Some(None), |item| existing(reading, &item).map(Some));
    let (ssh_key, known_hosts) = (path("ssh_key_file"), path("known_hosts_file"));
    table.finish();
    let access = HostAccess { host, port, login: login?, ssh_key: ssh_key?, known_hosts: known_hosts? };
    if access.login.is_none() && access.ssh_key.is_none() && access.known_hosts.is_none() {
        item.say("names no credentials (username with password_file, token_file, ssh_key_file, known_hosts_file)");
        return None;
    }
    Some(access)
}

/// A file that is there, for a program that reads it itself.
fn existing(reading: &Reading, item: &Item<'_>) -> Option<PathBuf> {
    let path = item.path()?;
    let path = item.judge(std::path::absolute(&path).map_err(|e| e.to_string()))?;
    reading.read_from(&path);
    let problem = match std::fs::File::open(&path) {
        Err(e) => format!("{} cannot be read: {e}", path.display()),
        Ok(_) if path.to_string_lossy().contains(['"', '%', '\n', '$', '~', '\'']) => {
            format!("{}: ssh and git do not take a path with such characters", path.display())
        }
        Ok(_) => return Some(path),
    };
    item.say(problem);
    None
}
