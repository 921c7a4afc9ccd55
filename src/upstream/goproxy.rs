//! `type = "goproxy"`: any server of the module proxy protocol over HTTP (<https://go.dev/ref/mod#goproxy-protocol>).

use bytes::Bytes;
use url::Url;

use super::{Boxed, Busy, Failure, Incoming, MAX_INFO, MAX_LIST, Outage, Upstream, UpstreamError, check_go_mod, read_list};
use crate::base::Call;
use crate::egress::{EgressHandle, Response};
use crate::module::list::VersionList;
use crate::module::zip::{MAX_GO_MOD, MAX_ZIP};
use crate::module::{Ask, Info, ModulePath, ModuleVersion, Query};

/// What a GOPROXY server's statuses mean when nothing else is configured.
pub const ABSENT: [u16; 2] = [404, 410];

/// One GOPROXY server's settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Its base URL, http or https.
    pub url: Url,
    /// The statuses by which it says that it does not have something.
    pub absent: Vec<u16>,
}

/// A GOPROXY server.
#[derive(Debug)]
pub struct GoProxy {
    settings: Settings,
    egress: EgressHandle,
}

impl GoProxy {
    /// A server reached by its own way out.
    pub fn new(settings: Settings, egress: EgressHandle) -> Self {
        Self { settings, egress }
    }

    fn url(&self, path: &str) -> Result<Url, UpstreamError> {
        let mut url = self.settings.url.clone();
        match url.path_segments_mut() {
            // The segments are escaped module paths and versions; what a URL cannot hold is percent-encoded here.
            Ok(mut segments) => drop(segments.pop_if_empty().extend(path.split('/'))),
            Err(()) => return Err(UpstreamError::corrupt("its URL cannot be a base")),
        }
        Ok(url)
    }

    /// Sorts the server's statuses into classes; what comes back is a 200.
    fn sorted(&self, response: Response) -> Result<Response, UpstreamError> {
        let status = response.status;
        let failure = match status {
            200 => {
                let html =
                    response.content_type.as_deref().is_some_and(|t| t.trim_start().to_ascii_lowercase().starts_with("text/html"));
                if !html {
                    return Ok(response);
                }
                Failure::Corrupt("it answered with an HTML page".into())
            }
            s if self.settings.absent.contains(&s) => Failure::Absent(Some(s)),
            401 | 403 => Failure::Denied(status),
            429 => Failure::Busy(Busy::Said { status, retry_after: response.retry_after }),
            503 if response.retry_after.is_some() => Failure::Busy(Busy::Said { status, retry_after: response.retry_after }),
            _ => Failure::Outage(Outage::Status(status)),
        };
        Err(UpstreamError { failure, via: response.via })
    }

    async fn get(&self, path: &str) -> Result<Response, UpstreamError> {
        self.sorted(self.egress.get(self.url(path)?).await?)
    }

    /// Asks, and asks again where the failure may pass, nobody else is asked instead, and the upstream's settings allow it.
    async fn persistently<T, F>(&self, call: &Call, ask: impl Fn() -> F) -> Result<T, UpstreamError>
    where
        F: Future<Output = Result<T, UpstreamError>>,
    {
        let mut repeated = 0;
        loop {
            let error = match ask().await {
                Err(e) if e.failure.may_pass() && (!call.others || call.waits) => e,
                result => return result,
            };
            let Some(wait) = self.egress.again(repeated) else { return Err(error) };
            tracing::debug!(upstream = %self.settings.url, %error, ?wait, "asked again");
            repeated += 1;
            tokio::time::sleep(wait).await;
        }
    }

    async fn get_small(&self, ask: &Ask, limit: u64, call: &Call) -> Result<Bytes, UpstreamError> {
        let path = ask.path();
        let whole = || async {
            let mut response = self.get(&path).await?;
            Ok(response.body.collect(limit).await?)
        };
        self.persistently(call, whole).await
    }

    async fn get_info(&self, ask: &Ask, call: &Call) -> Result<Info, UpstreamError> {
        let json = self.get_small(ask, MAX_INFO, call).await?;
        Info::parse(json).map_err(UpstreamError::corrupt)
    }
}

impl Upstream for GoProxy {
    fn list<'a>(&'a self, module: &'a ModulePath, call: &'a Call) -> Boxed<'a, VersionList> {
        Box::pin(async move {
            let bytes = self.get_small(&Ask::List(module.clone()), MAX_LIST, call).await?;
            read_list(module, &bytes).map_err(UpstreamError::corrupt)
        })
    }

    fn latest<'a>(&'a self, module: &'a ModulePath, call: &'a Call) -> Boxed<'a, Info> {
        Box::pin(async move { self.get_info(&Ask::Latest(module.clone()), call).await })
    }

    fn info<'a>(&'a self, module: &'a ModulePath, query: &'a Query, call: &'a Call) -> Boxed<'a, Info> {
        Box::pin(async move { self.get_info(&Ask::Query(module.clone(), query.clone()), call).await })
    }

    fn go_mod<'a>(&'a self, version: &'a ModuleVersion, call: &'a Call) -> Boxed<'a, Bytes> {
        Box::pin(async move {
            let bytes = self.get_small(&Ask::GoMod(version.clone()), MAX_GO_MOD, call).await?;
            check_go_mod(&bytes).map_err(UpstreamError::corrupt)?;
            Ok(bytes)
        })
    }

    fn zip<'a>(&'a self, version: &'a ModuleVersion, call: &'a Call) -> Boxed<'a, Incoming> {
        Box::pin(async move {
            let path = Ask::Zip(version.clone()).path();
            let head = || async { self.sorted(self.egress.get_long(self.url(&path)?).await?) };
            let response = self.persistently(call, head).await?;
            match response.length {
                Some(n) if n > MAX_ZIP => {
                    Err(UpstreamError::corrupt(format!("a zip of {n} bytes, more than the go command accepts")))
                }
                length => Ok(Incoming::Body { length, body: response.body }),
            }
        })
    }

    fn probe(&self) -> Boxed<'_, String> {
        Box::pin(async move {
            // A public name, so that a probe tells nobody anything.
            match self.get("golang.org/x/mod/@v/list").await {
                Ok(_) => Ok("200 OK".into()),
                Err(e) => match e.failure {
                    // It wants a login, or another one: nothing can be had.
                    Failure::Denied(401) => Err(e),
                    // Any word from the server shows that it can be reached.
                    Failure::Absent(_) | Failure::Denied(_) | Failure::Busy(_) => Ok(e.to_string()),
                    _ => Err(e),
                },
            }
        })
    }

    fn state(&self) -> Option<String> {
        self.egress.state()
    }
}
