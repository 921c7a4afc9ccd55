//! `/-/…`: is it alive, is it ready, why does it answer as it does.
//!
//! On a listener of its own this is for administrators, who may see every team's side. Where it shares the listener of the
//! modules, explanations are of what the caller's own team is answered, and of nothing else.

use actix_http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use actix_http::{Response, StatusCode};

use super::body::Body;
use super::error::Refusal;
use super::explain::explain;
use super::{Shared, Site};

/// What a path below `/-/` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Page {
    /// Whether it is alive.
    Health,
    /// Whether it is ready.
    Readiness,
    /// Why it answers as it does.
    Explanation,
}

impl Page {
    pub(super) fn of(path: &str) -> Option<Self> {
        match path {
            "/-/healthz" => Some(Self::Health),
            "/-/readyz" => Some(Self::Readiness),
            "/-/explain" => Some(Self::Explanation),
            _ => None,
        }
    }
}

/// What a query asks for.
#[derive(Debug, Default)]
pub(super) struct Asked {
    module: Option<String>,
    /// The name of a team, where one is given.
    pub(super) team: Option<String>,
}

impl Asked {
    pub(super) fn of(query: &str) -> Self {
        let value = |name: &str| {
            let pair = url::form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == name);
            pair.map(|(_, value)| value.into_owned()).filter(|value| !value.is_empty())
        };
        Self { module: value("module"), team: value("team") }
    }
}

/// Says no to a name that is no team's.
pub(super) fn no_such_team() -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, "there is no such team")
}

/// Answers an admin request. `team` is the place of the one team that may be explained, where not all may.
pub(super) async fn answer(
    shared: &Shared,
    site: &Site,
    page: Option<Page>,
    asked: &Asked,
    team: Option<usize>,
) -> Result<Response<Body>, Refusal> {
    match page {
        Some(Page::Health) => Ok(text(StatusCode::OK, "ok\n")),
        Some(Page::Readiness) if shared.is_stopping() => Ok(text(StatusCode::SERVICE_UNAVAILABLE, "stopping\n")),
        Some(Page::Readiness) => Ok(text(StatusCode::OK, "ready\n")),
        Some(Page::Explanation) => {
            let bad = |what: &str| Refusal::new(StatusCode::BAD_REQUEST, what);
            let Some(module) = &asked.module else {
                return Err(bad("ask as /-/explain?module=PATH or PATH@VERSION, for a team with &team=NAME"));
            };
            let gateway = site.gateway();
            let team = match team {
                Some(own) => gateway.teams().get(own),
                None => gateway.team(asked.team.as_deref()),
            };
            let team = team.ok_or_else(no_such_team)?;
            let explained = explain(gateway, team, module).await.map_err(|e| bad(&e.to_string()))?;
            let json = serde_json::to_vec_pretty(&explained)
                .map_err(|e| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, &e.to_string()))?;
            let mut response = Response::with_body(StatusCode::OK, Body::bytes(json.into()));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
            Ok(response)
        }
        None => Err(Refusal::new(StatusCode::NOT_FOUND, "there are /-/healthz, /-/readyz and /-/explain?module=PATH[@VERSION]")),
    }
}

fn text(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::with_body(status, Body::bytes(bytes::Bytes::from_static(text.as_bytes())));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
