//! `type = "vcs"`: repositories of version control, and module proxies that the pages of import paths name.

use bytes::Bytes;

use super::goproxy::{ABSENT, GoProxy, Settings};
use super::{Boxed, Incoming, Upstream};
use crate::base::Call;
use crate::egress::EgressHandle;
use crate::module::list::VersionList;
use crate::module::{Info, ModulePath, ModuleVersion, Query};
use crate::vcs::{Fetcher, Source, Zip};

/// The private VCS fetcher.
#[derive(Debug)]
pub struct Vcs {
    fetcher: Fetcher,
    egress: EgressHandle,
}

impl Vcs {
    /// An upstream of a fetcher and the way out that it uses.
    pub fn new(fetcher: Fetcher, egress: EgressHandle) -> Self {
        Self { fetcher, egress }
    }

    fn proxy(&self, url: url::Url) -> GoProxy {
        GoProxy::new(Settings { url, absent: ABSENT.to_vec() }, self.egress.clone())
    }
}

fn incoming(Zip { length, body }: Zip) -> Incoming {
    Incoming::Body { length, body }
}

impl Upstream for Vcs {
    fn list<'a>(&'a self, module: &'a ModulePath, call: &'a Call) -> Boxed<'a, VersionList> {
        Box::pin(async move {
            Ok(match self.fetcher.resolve(module).await? {
                Source::Git(of) => of.list().await?,
                Source::Foreign(of) => of.list().await?,
                Source::Proxy(url) => return self.proxy(url).list(module, call).await,
            })
        })
    }

    fn latest<'a>(&'a self, module: &'a ModulePath, call: &'a Call) -> Boxed<'a, Info> {
        Box::pin(async move {
            Ok(match self.fetcher.resolve(module).await? {
                Source::Git(of) => of.latest().await?,
                Source::Foreign(of) => of.latest().await?,
                Source::Proxy(url) => return self.proxy(url).latest(module, call).await,
            })
        })
    }

    fn info<'a>(&'a self, module: &'a ModulePath, query: &'a Query, call: &'a Call) -> Boxed<'a, Info> {
        Box::pin(async move {
            Ok(match self.fetcher.resolve(module).await? {
                Source::Git(of) => of.info(query).await?,
                Source::Foreign(of) => of.info(query).await?,
                Source::Proxy(url) => return self.proxy(url).info(module, query, call).await,
            })
        })
    }

    fn go_mod<'a>(&'a self, version: &'a ModuleVersion, call: &'a Call) -> Boxed<'a, Bytes> {
        Box::pin(async move {
            Ok(match self.fetcher.resolve(&version.module).await? {
                Source::Git(of) => of.go_mod(version).await?,
                Source::Foreign(of) => of.go_mod(version).await?,
                Source::Proxy(url) => return self.proxy(url).go_mod(version, call).await,
            })
        })
    }

    fn zip<'a>(&'a self, version: &'a ModuleVersion, call: &'a Call) -> Boxed<'a, Incoming> {
        Box::pin(async move {
            Ok(match self.fetcher.resolve(&version.module).await? {
                Source::Git(of) => incoming(of.zip(version).await?),
                Source::Foreign(of) => incoming(of.zip(version).await?),
                Source::Proxy(url) => return self.proxy(url).zip(version, call).await,
            })
        })
    }

    fn probe(&self) -> Boxed<'_, String> {
        Box::pin(async move { Ok(self.fetcher.probe().await?) })
    }

    fn state(&self) -> Option<String> {
        self.egress.state()
    }
}
