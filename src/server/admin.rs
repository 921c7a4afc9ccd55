//! `/-/…`: is it alive, is it ready, why does it answer as it does.

use actix_http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use actix_http::{Response, StatusCode};

use super::Shared;
use super::body::Body;
use super::error::Refusal;
use super::explain::explain;

/// Answers an admin request.
pub(super) async fn answer(shared: &Shared, path: &str, query: &str) -> Result<Response<Body>, Refusal> {
    match path {
        "/-/healthz" => Ok(text(StatusCode::OK, "ok\n")),
        "/-/readyz" if shared.is_stopping() => Ok(text(StatusCode::SERVICE_UNAVAILABLE, "stopping\n")),
        "/-/readyz" => Ok(text(StatusCode::OK, "ready\n")),
        "/-/explain" => {
            let asked = url::form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == "module");
            let Some((_, asked)) = asked else {
                return Err(Refusal::new(StatusCode::BAD_REQUEST, "ask as /-/explain?module=PATH or PATH@VERSION"));
            };
            let site = shared.site();
            let explained =
                explain(site.gateway(), &asked).await.map_err(|e| Refusal::new(StatusCode::BAD_REQUEST, &e.to_string()))?;
            let json = serde_json::to_vec_pretty(&explained)
                .map_err(|e| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, &e.to_string()))?;
            let mut response = Response::with_body(StatusCode::OK, Body::bytes(json.into()));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
            Ok(response)
        }
        _ => Err(Refusal::new(StatusCode::NOT_FOUND, "there are /-/healthz, /-/readyz and /-/explain?module=PATH[@VERSION]")),
    }
}

fn text(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::with_body(status, Body::bytes(bytes::Bytes::from_static(text.as_bytes())));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
