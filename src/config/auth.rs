//! `[auth]`: who people are. Each team adds its members to it.

use std::time::Duration;

use super::check::{all, check_server_url, required};
use super::egress::{Defaults, file, policy};
use super::read::{Finding, Item, Reading, Table};
use crate::access::jwt::{self, Claim, Issuer, Keys};
use crate::access::{self, certificate, htpasswd, token};
use crate::base::units;

/// How often an issuer's server is asked for its keys, where nothing else is said.
const REFRESH: Duration = Duration::from_secs(3600);

/// What is read of `[auth]` and of the teams' members.
pub(super) struct Auth<'r> {
    reading: &'r Reading,
    settings: access::Settings,
    anonymous: Option<bool>,
    /// So many users and tokens, at the beginning, are those of `[auth]`, whom teams may name.
    shared: (usize, usize),
    broken: bool,
}

impl<'r> Auth<'r> {
    pub(super) fn read(reading: &'r Reading, mut table: Table<'r>, egress: &Defaults, warnings: &mut Vec<Finding>) -> Self {
        // A default that is built in is an empty text: nobody has said.
        let anonymous = table.take("anonymous").filter(|item| !item.is_empty());
        let said = anonymous.map(|item| item.parsed(|text| text.parse().map_err(|_| "has to be true or false".to_owned())));
        let remember = table.duration("remember");
        let (users, tokens) = (table.take("users_file"), table.take("tokens_file"));
        let issuers = table.tables("issuers").into_iter().map(|(name, table)| issuer(reading, &name, table, egress, warnings));
        let issuers = all(issuers);
        table.finish();
        let broken = remember.is_none() || issuers.is_none() || said == Some(None);
        let settings = access::Settings {
            issuers: issuers.unwrap_or_default(),
            remember: remember.unwrap_or_default(),
            ..access::Settings::default()
        };
        let mut auth = Self { reading, settings, anonymous: said.flatten(), shared: (0, 0), broken };
        auth.users_file(users, None);
        auth.tokens_file(tokens, None);
        auth.shared = (auth.settings.users.len(), auth.settings.tokens.len());
        auth
    }

    /// Reads a team's members. Whether it has any, so that it is for them alone.
    pub(super) fn members(&mut self, table: &mut Table<'r>, team: usize) -> bool {
        let keys = ["users_file", "tokens_file", "users", "tokens", "jwt", "certificates"];
        let has_any = keys.into_iter().any(|key| table.has(key));
        self.users_file(table.take("users_file"), Some(team));
        self.tokens_file(table.take("tokens_file"), Some(team));
        for item in table.items("users").unwrap_or_default() {
            let users = &mut self.settings.users[..self.shared.0];
            self.broken |= join(
                &item,
                "auth.users_file",
                |name| users.iter_mut().find(|user| user.name == name).map(|user| &mut user.teams),
                team,
            )
            .is_none();
        }
        for item in table.items("tokens").unwrap_or_default() {
            let tokens = &mut self.settings.tokens[..self.shared.1];
            self.broken |= join(
                &item,
                "auth.tokens_file",
                |name| tokens.iter_mut().find(|token| token.name == name).map(|token| &mut token.teams),
                team,
            )
            .is_none();
        }
        for item in table.items("jwt").unwrap_or_default() {
            self.broken |= self.jwt(item, team).is_none();
        }
        for item in table.items("certificates").unwrap_or_default() {
            let rule = item.parsed(|text| certificate::Rule::parse(text, team));
            self.broken |= rule.is_none();
            self.settings.certificates.extend(rule);
        }
        has_any
    }

    /// `{ issuer = …, claims = { … } }`
    fn jwt(&mut self, item: Item<'r>, team: usize) -> Option<()> {
        let mut table = item.table()?;
        let named = required(&mut table, "issuer").and_then(|item| {
            let known: Vec<&str> = self.settings.issuers.iter().map(|issuer| issuer.name.as_str()).collect();
            item.parsed(|name| {
                let unknown = || format!("there is no [auth.issuers.{name}] (there are: {})", known.join(", "));
                known.iter().position(|issuer| *issuer == name).ok_or_else(unknown)
            })
        });
        let claims = required(&mut table, "claims").and_then(|item| {
            let claims = claims(item.clone())?;
            if claims.is_empty() {
                item.say("names no claim; an issuer's tokens alone make nobody a member");
                return None;
            }
            Some(claims)
        });
        table.finish();
        self.settings.issuers[named?].teams.push((claims?, team));
        Some(())
    }

    fn users_file(&mut self, item: Option<Item<'r>>, team: Option<usize>) {
        let Some(item) = item.filter(|item| !item.is_empty()) else { return };
        let read = self.entries(&item, htpasswd::parse);
        for (name, hash) in read.unwrap_or_default() {
            if self.settings.users.iter().any(|user| user.name == name) {
                item.say(format!(
                    "the user {name:?} stands in another file too; who is of several teams stands in auth.users_file, and in the \
                     teams' users"
                ));
                self.broken = true;
                continue;
            }
            self.settings.users.push(htpasswd::User { name, hash, teams: team.into_iter().collect() });
        }
    }

    fn tokens_file(&mut self, item: Option<Item<'r>>, team: Option<usize>) {
        let Some(item) = item.filter(|item| !item.is_empty()) else { return };
        let read = self.entries(&item, token::parse);
        for (name, digest) in read.unwrap_or_default() {
            if self.settings.tokens.iter().any(|token| token.name == name || token.digest == digest) {
                item.say(format!(
                    "the token {name:?} stands in another file too; one that is of several teams stands in auth.tokens_file, and in \
                     the teams' tokens"
                ));
                self.broken = true;
                continue;
            }
            self.settings.tokens.push(token::Token { name, digest, teams: team.into_iter().collect() });
        }
    }

    /// Reads a file of entries a line; everything that is wrong with it is said.
    fn entries<T>(&mut self, item: &Item<'r>, parse: fn(&str) -> htpasswd::Parsed<T>) -> Option<Vec<T>> {
        let read = file(self.reading, item).and_then(|(path, bytes)| {
            let text = item.judge(String::from_utf8(bytes).map_err(|_| format!("{} is not UTF-8", path.display())))?;
            let parsed = parse(&text);
            parsed.map_err(|wrong| wrong.iter().for_each(|(line, why)| item.say(format!("{}:{line}: {why}", path.display())))).ok()
        });
        self.broken |= read.is_none();
        read
    }

    /// What it all came to, and whether those come in who do not say who they are: where nobody can say so, they have to.
    pub(super) fn settle(self, asks_for_certificates: bool) -> Option<(access::Settings, bool)> {
        let anonymous = self.anonymous.unwrap_or(!self.settings.has_credentials() && !asks_for_certificates);
        (!self.broken).then_some((self.settings, anonymous))
    }

    /// Whether certificates say who somebody is.
    pub(super) fn reads_certificates(&self) -> bool {
        !self.settings.certificates.is_empty()
    }
}

/// Makes somebody a member who stands in the shared file.
fn join<'a>(item: &Item<'_>, place: &str, find: impl FnOnce(&str) -> Option<&'a mut Vec<usize>>, team: usize) -> Option<()> {
    let name = item.text()?;
    let Some(teams) = find(&name) else {
        item.say(format!("{name:?} does not stand in {place}"));
        return None;
    };
    if !teams.contains(&team) {
        teams.push(team);
    }
    Some(())
}

fn issuer(reading: &Reading, name: &str, mut table: Table<'_>, egress: &Defaults, warnings: &mut Vec<Finding>) -> Option<Issuer> {
    let issuer = required(&mut table, "issuer").and_then(|item| item.parsed(not_empty));
    let audiences = required(&mut table, "audience").and_then(|item| all(item.list().iter().map(|item| item.parsed(not_empty))));
    let claims = table.take("claims").map_or(Some(Vec::new()), claims);
    let refresh = table.take("refresh");
    let keys = match (table.take("jwks_file"), table.take("jwks_url")) {
        (Some(item), None) => {
            if let Some(refresh) = refresh {
                refresh.say("belongs to jwks_url; a file is read with the configuration");
            }
            file(reading, &item).and_then(|(_, set)| {
                item.judge(jwt::check_set(&set))?;
                item.judge(String::from_utf8(set).map_err(|_| "is not UTF-8".to_owned())).map(Keys::Set)
            })
        }
        (None, Some(item)) => {
            let url = item.parsed(|text| {
                let url = url::Url::parse(text).map_err(|e| format!("not a URL ({e})"))?;
                check_server_url(&url).map(|()| url)
            });
            let refresh = refresh.map_or(Some(REFRESH), |item| item.parsed(units::parse_limit));
            let way = policy(reading, &mut table, url.as_ref(), egress, warnings);
            if let Some(url) = url.as_ref().filter(|url| url.scheme() == "http") {
                let problem = format!("whoever stands between here and {url} can make tokens: the keys come by plain http");
                warnings.push(reading.warning(&format!("{}.jwks_url", table.key), problem));
            }
            url.zip(way).zip(refresh).map(|((url, way), refresh)| Keys::Server(url, Box::new(way), refresh))
        }
        (file, _) => {
            match file {
                Some(file) => file.say("stands beside jwks_url; one of them is enough"),
                None => table.say("", "has no jwks_url and no jwks_file"),
            }
            None
        }
    };
    table.finish();
    Some(Issuer { name: name.to_owned(), issuer: issuer?, audiences: audiences?, keys: keys?, claims: claims?, teams: Vec::new() })
}

fn not_empty(text: &str) -> Result<String, String> {
    if text.trim().is_empty() { Err("is empty".into()) } else { Ok(text.to_owned()) }
}

/// `{ claim = "text", other = ["one", "or another"] }`
fn claims(item: Item<'_>) -> Option<Vec<Claim>> {
    all(item.table()?.items_by_name().into_iter().map(|(name, item)| {
        let values = all(item.list().iter().map(Item::text))?;
        Some(Claim::new(&name, &values))
    }))
}
