//! `modgate connect`: standard input and output, connected to a server through a proxy. The VCS fetcher gives it to ssh, and a
//! user can.

use std::fmt::Display;
use std::path::Path;
use std::time::Duration;

use tokio::io::AsyncWriteExt;

use super::CliError;
use crate::egress::proxy::{Proxy, ProxyRule};
use crate::egress::tls::read_certificates;

/// How long a connection may take to come about, proxy and all.
const LIMIT: Duration = Duration::from_secs(30);

pub(super) fn run(host: &str, port: u16, proxy: Option<&str>, ca_file: Option<&Path>) -> Result<(), CliError> {
    let proxy = if let Some(url) = proxy {
        Some(Proxy::parse(url).map_err(CliError::Said)?)
    } else {
        let rule = ProxyRule::from_env(&|name| std::env::var(name).ok(), &[]);
        let rule = rule.map_err(|(name, problem)| CliError::Said(format!("environment variable {name}: {problem}")))?;
        rule.choose(true, host, port).map(|proxy| (**proxy).clone())
    };
    let authorities = match ca_file {
        None => Vec::new(),
        Some(file) => {
            let said = |e: &dyn Display| CliError::Said(format!("{}: {e}", file.display()));
            let text = std::fs::read(file).map_err(|e| said(&e))?;
            read_certificates(&text).map_err(|e| said(&e))?
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let done = runtime.block_on(async {
        let server =
            crate::egress::open_tunnel(proxy, authorities, (host, port), LIMIT).await.map_err(|e| CliError::Said(e.to_string()))?;
        let (mut from, mut to) = tokio::io::split(server);
        let (mut input, mut output) = (tokio::io::stdin(), tokio::io::stdout());
        let sending = async {
            // Whoever ends its input still wants the answer.
            let _ = tokio::io::copy(&mut input, &mut to).await;
            let _ = to.shutdown().await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            received = tokio::io::copy(&mut from, &mut output) => { received?; }
            () = sending => {}
        }
        output.flush().await?;
        Ok(())
    });
    // A read from standard input cannot be called off.
    runtime.shutdown_background();
    done
}
