//! The machine's Go settings as a configuration, where no layer names upstreams or routes.

use url::Url;

use super::check::{Chains, NO_BREAKER, check_server_url};
use super::egress::{Defaults, user_netrc};
use super::go_env::{GoSettings, Target};
use super::read::{Finding, Reading};
use super::trust::Sumdb;
use super::{Origin, Upstream, UpstreamKind, vcs};
use crate::base::Secret;
use crate::egress::credentials::{self, Credentials};
use crate::module::Pattern;
use crate::route::{Fallback, GoesOn, ListMode, PartialRule, Route, Step, Verify};
use crate::upstream::{goproxy, guard};

/// The machine's Go settings as upstreams and routes.
pub(super) fn go_chains<'r>(
    reading: &'r Reading,
    sumdb: Sumdb<'r>,
    egress: &Defaults,
    warnings: &mut Vec<Finding>,
) -> Result<Option<Chains<'r>>, String> {
    let settings = GoSettings::of_machine()?;
    let sumdb = sumdb.of_go_settings(&settings)?;
    let mut upstreams: Vec<Upstream> = Vec::new();
    let mut steps = Vec::new();
    for entry in settings.proxies.clone() {
        let (base, kind) = match entry.target {
            Target::Server(mut url) => {
                let credentials = go_credentials(&mut url)?;
                check_server_url(&url).map_err(|e| format!("an item of GOPROXY cannot be used: {e}"))?;
                let base = url.host_str().unwrap_or("proxy").to_ascii_lowercase();
                let settings = goproxy::Settings { url, absent: goproxy::ABSENT.to_vec() };
                let Some(policy) = egress.plain(reading, credentials, warnings) else { return Ok(None) };
                (base, UpstreamKind::GoProxy(settings, Box::new(policy)))
            }
            Target::Folder(path) => ("file".to_owned(), UpstreamKind::Directory(path, egress.limits().idle)),
            Target::Direct => {
                let Some(kind) = direct(reading, egress, &settings, warnings) else { return Ok(None) };
                ("direct".to_owned(), kind)
            }
            Target::Off => continue,
        };
        let name = free_name(&base, &upstreams);
        let goes_on = Some(if entry.any_error { GoesOn::AnyError } else { GoesOn::NotFound });
        steps.push(Step { upstream: upstreams.len(), goes_on });
        let breaker = if is_vcs(&kind) { NO_BREAKER } else { guard::Settings::default() };
        upstreams.push(Upstream { name, private: false, kind, breaker });
    }
    if steps.is_empty() {
        return Err("GOPROXY names no proxy to stand in front of; set GOPROXY, or give a configuration by --config".into());
    }
    // As the go command goes on to version control only when no proxy has a module, so do lists.
    let list = if upstreams.iter().any(|u| is_vcs(&u.kind)) { ListMode::First } else { ListMode::Merge };
    let verify = |steps: &[Step], upstreams: &[Upstream]| sumdb.default_for(steps, upstreams);
    let route = |id, patterns, steps: Vec<Step>, verify| Route {
        id,
        key: format!("routes[{id}]").into(),
        public: true,
        patterns,
        steps,
        verify,
        fallback: Fallback::NotFound,
        list,
        partial: PartialRule::Serve,
        hedge_after: None,
    };
    let mut routes = Vec::new();
    let fenced = Pattern::parse_list(&settings.no_proxy).map_err(|e| format!("GONOPROXY or GOPRIVATE: {e}"))?;
    if !fenced.is_empty() {
        // What is not to be asked of a proxy comes from version control, whatever GOPROXY says.
        let at = upstreams.iter().position(|u| is_vcs(&u.kind));
        if at.is_none() {
            let Some(kind) = direct(reading, egress, &settings, warnings) else { return Ok(None) };
            upstreams.push(Upstream { name: "direct".into(), private: false, kind, breaker: NO_BREAKER });
        }
        let at = at.unwrap_or(upstreams.len() - 1);
        // The go command asks a checksum database about these too, unless GONOSUMDB or GOPRIVATE says otherwise.
        let steps = vec![Step { upstream: at, goes_on: None }];
        let verify = if settings.no_sumdb == settings.no_proxy { Verify::Off } else { verify(&steps, &upstreams) };
        routes.push(route(0, fenced, steps, verify));
    }
    let everything = Pattern::parse_list("*").map_err(|e| e.to_string())?;
    let verify = verify(&steps, &upstreams);
    routes.push(route(routes.len(), everything, steps, verify));
    Ok(Some(Chains { upstreams, routes: Some(routes), origin: Origin::GoSettings, sumdb }))
}

fn is_vcs(kind: &UpstreamKind) -> bool {
    matches!(kind, UpstreamKind::Vcs(..))
}

/// A name for an upstream, made of its host's, that no other has.
fn free_name(base: &str, upstreams: &[Upstream]) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '.' || c == '-' { c } else { '_' };
    let base: String = base.chars().map(plain).take(60).collect();
    let base = if base.starts_with(|c: char| c.is_ascii_alphanumeric()) { base } else { format!("host{base}") };
    let taken = |name: &str| upstreams.iter().any(|u| u.name == name);
    let mut names = (1..=upstreams.len() + 1).map(|n| if n == 1 { base.clone() } else { format!("{base}-{n}") });
    names.find(|n| !taken(n)).unwrap_or_default()
}

/// What `direct` stands for in GOPROXY.
fn direct(reading: &Reading, egress: &Defaults, settings: &GoSettings, warnings: &mut Vec<Finding>) -> Option<UpstreamKind> {
    let policy = egress.plain(reading, None, warnings)?;
    Some(vcs::of_go_settings(settings, policy))
}

/// The credentials that the go command would send to this proxy: those that stand in its URL, from which they are taken, else those
/// of the user's netrc. Like the go command, none go over plain http.
fn go_credentials(url: &mut Url) -> Result<Option<Credentials>, String> {
    let decoded = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
    let inline = (!url.username().is_empty() || url.password().is_some())
        .then(|| (decoded(url.username()), Secret::new(decoded(url.password().unwrap_or_default()))));
    if url.scheme() != "https" {
        return if inline.is_none() { Ok(None) } else { Err("GOPROXY holds a password for a server of plain http".into()) };
    }
    // It is an https URL with a host, so both can be taken out.
    let _ = (url.set_username(""), url.set_password(None));
    let login = inline.or_else(|| credentials::netrc_login(&user_netrc()?, url));
    Ok(login.map(|(user, password)| {
        Credentials::new(url, vec![("authorization".to_owned(), credentials::basic(&user, password.expose()))])
    }))
}
