//! Policy at work: what is denied is denied on every question, and lists hide it.

use std::sync::Arc;

use futures_util::{StreamExt, stream};
use jiff::Timestamp;

use super::answer::Content;
use super::policy::Denial;
use super::trail::Trail;
use super::{Aged, Gateway, GatewayError, Team};
use crate::base::Call;
use crate::module::{Ask, Info, ModulePath, ModuleVersion, Version};
use crate::route::Plan;

/// So many versions' ages are asked for at once.
const AT_ONCE: usize = 16;

/// The versions that may be shown.
pub(super) struct Visible {
    pub(super) versions: Vec<Version>,
    /// Whether nothing was left out only because its age could not be had just now.
    pub(super) complete: bool,
}

impl Gateway {
    /// Whether a version may be served. Where its age counts, its `.info` is had for it.
    pub(super) async fn permit(
        self: &Arc<Self>,
        team: &Team,
        plan: &Plan,
        version: &ModuleVersion,
        call: &Call,
    ) -> Result<(), GatewayError> {
        let policy = &team.policy;
        policy.version(version)?;
        if policy.minds_age(&version.module) {
            // One team's age is not another's.
            let name = format!("{} {} {version}", team.label(), plan.route.id);
            if self.aged.get(&name).is_none() {
                let made = self.made(plan, version, call).await?;
                policy.age(made, Timestamp::now())?;
                self.aged.put(&name, Arc::new(Aged));
            }
        }
        Ok(())
    }

    /// The same for a version that an `.info` is there of already.
    pub(super) fn permit_info(team: &Team, module: &ModulePath, info: &Info) -> Result<(), GatewayError> {
        let policy = &team.policy;
        // A version that does not suit the module is no version of it; the go command says so.
        if let Ok(version) = ModuleVersion::new(module.clone(), info.version.clone()) {
            policy.version(&version)?;
        }
        if policy.minds_age(module) {
            policy.age(info.time, Timestamp::now())?;
        }
        Ok(())
    }

    /// When a version was made, as its `.info` says.
    async fn made(self: &Arc<Self>, plan: &Plan, version: &ModuleVersion, call: &Call) -> Result<Option<Timestamp>, GatewayError> {
        let answer = Box::pin(self.immutable(plan, &Ask::Info(version.clone()), call, &mut Trail::default())).await?;
        let Content::Bytes(json) = answer.content else { return Ok(None) };
        Ok(Info::parse(json).ok().and_then(|info| info.time))
    }

    /// The versions of a module that may be served.
    pub(super) async fn visible(
        self: &Arc<Self>,
        team: &Team,
        plan: &Plan,
        module: &ModulePath,
        versions: Vec<Version>,
        call: &Call,
    ) -> Visible {
        let policy = &team.policy;
        if policy.deny.is_empty() && policy.allow.is_empty() && !policy.minds_age(module) {
            return Visible { versions, complete: true };
        }
        let judge = |version: Version| async move {
            let judged = match ModuleVersion::new(module.clone(), version.clone()) {
                Ok(whole) => self.permit(team, plan, &whole, call).await,
                Err(_) => Err(Denial::NotAllowed.into()),
            };
            (version, judged)
        };
        let judged: Vec<_> = stream::iter(versions.into_iter().map(judge)).buffered(AT_ONCE).collect().await;
        let certain = |judged: &Result<(), GatewayError>| match judged {
            Ok(()) | Err(GatewayError::Denied(_)) => true,
            // It is listed, but nobody has it.
            Err(GatewayError::Chain(verdict, _)) => *verdict == super::ChainVerdict::Absent,
            Err(_) => false,
        };
        let complete = judged.iter().all(|(_, judged)| certain(judged));
        Visible {
            versions: judged.into_iter().filter(|(_, judged)| judged.is_ok()).map(|(version, _)| version).collect(),
            complete,
        }
    }
}
