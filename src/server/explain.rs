//! Why modgate answers as it does: the decision records of the questions that the go command asks about a module, or about
//! one version of it, with the status that a client would get.
//!
//! The questions are really asked, so an explanation may fetch, and what it fetches is kept like any other answer.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use super::error::status;
use crate::base::Call;
use crate::base::units::show_elapsed;
use crate::gateway::{Content, Gateway, Outcome, Team};
use crate::module::{Ask, Malformed, ModulePath, ModuleVersion, Query, Version};
use crate::route::{Plan, Unplanned, Verify};

/// An explanation.
#[derive(Debug, Clone, Serialize)]
pub struct Explanation {
    /// The module, with the version or query where one was given.
    pub asked: String,
    /// The team that it is explained for; none is everybody.
    pub team: Option<String>,
    /// The rule that matched, or why there is none.
    pub route: String,
    /// What zips and go.mod files have to prove there.
    pub verify: Option<String>,
    /// The upstreams of that rule, in order.
    pub chain: Vec<Link>,
    /// One entry a question.
    pub questions: Vec<Question>,
}

/// One upstream of a chain.
#[derive(Debug, Clone, Serialize)]
pub struct Link {
    /// Its name.
    pub upstream: String,
    /// What stood in the way of asking it when the explanation began: a pause that it asked for, an open circuit breaker.
    pub state: Option<String>,
}

/// What came of one question.
#[derive(Debug, Clone, Serialize)]
pub struct Question {
    /// The question, decoded.
    pub question: String,
    /// What the cache had: hit, stale or miss.
    pub cache: &'static str,
    /// The upstream whose answer it is.
    pub upstream: Option<String>,
    /// Each upstream that was considered.
    pub attempts: Vec<Tried>,
    /// The status that a client gets.
    pub status: u16,
    /// What went wrong, or what was found.
    pub outcome: String,
    /// The sum of a zip or go.mod, and what it rests on.
    pub sum: Option<String>,
}

/// One upstream that was considered.
#[derive(Debug, Clone, Serialize)]
pub struct Tried {
    /// Its name.
    pub upstream: String,
    /// What it said.
    pub verdict: String,
    /// How long it took.
    pub took: String,
}

/// Explains to a team `MODULE` or `MODULE@VERSION`, where the version may be a query.
///
/// # Errors
/// A module path or version that is malformed.
pub async fn explain(gateway: &Arc<Gateway>, team: &Team, asked: &str) -> Result<Explanation, Malformed> {
    let asks = questions(asked)?;
    let call = Call::new();
    let plan = asks.first().map(|ask| team.routes.plan(ask.module()));
    let members = plan.iter().flatten().flat_map(|p| &p.route.steps).map(|s| &gateway.members()[s.upstream]);
    let chain = members.map(|m| Link { upstream: m.name.to_string(), state: m.upstream.state() }).collect();
    let mut questions = Vec::new();
    for ask in &asks {
        let outcome = gateway.answer(team, ask, &call).await;
        questions.push(question(ask, outcome).await);
    }
    let planned = plan.as_ref().and_then(|plan| plan.as_ref().ok());
    let verify = planned.zip(asks.first()).map(|(plan, ask)| verify(gateway, plan, ask.module()));
    let route = match plan {
        Some(Ok(plan)) => plan.rule(),
        Some(Err(Unplanned::Fenced)) => {
            "fenced off: it is private to a team, and the route here leads to a public upstream".to_owned()
        }
        Some(Err(Unplanned::NoRoute)) | None => "no route matches".to_owned(),
    };
    let team = team.name.as_ref().map(ToString::to_string);
    Ok(Explanation { asked: asked.to_owned(), team, route, verify, chain, questions })
}

fn questions(asked: &str) -> Result<Vec<Ask>, Malformed> {
    let Some((module, version)) = asked.split_once('@') else {
        let module = ModulePath::parse(asked)?;
        return Ok(vec![Ask::List(module.clone()), Ask::Latest(module)]);
    };
    let module = ModulePath::parse(module)?;
    let exact = Version::parse(version).ok().and_then(|v| ModuleVersion::new(module.clone(), v).ok());
    Ok(match exact {
        Some(v) => vec![Ask::Info(v.clone()), Ask::GoMod(v.clone()), Ask::Zip(v)],
        None if version == "latest" => vec![Ask::Latest(module)],
        None => vec![Ask::Query(module, Query::parse(version)?)],
    })
}

/// How a module is verified on a route, in a few words.
fn verify(gateway: &Gateway, plan: &Plan, module: &ModulePath) -> String {
    let mode = gateway.mode(plan, module).name();
    match gateway.databases().next() {
        Some(database) if mode != Verify::Off.name() => format!("{mode} ({database})"),
        _ => mode.to_owned(),
    }
}

async fn question(ask: &Ask, outcome: Outcome) -> Question {
    let Outcome { result, trail } = outcome;
    let mut sum = trail.checked.as_ref().map(ToString::to_string);
    let (status, text) = match result {
        Ok(answer) => {
            let arriving = match &answer.content {
                Content::Growing { reader, .. } => Some(Arc::clone(&reader.word)),
                Content::Bytes(_) | Content::File { .. } => None,
            };
            let text = found(answer.content).await;
            sum = sum.or_else(|| Some(arriving?.get()?.to_string()));
            (200, text)
        }
        Err(e) => (status(&e).as_u16(), e.to_string()),
    };
    let attempts = trail.attempts.iter().map(|a| Tried {
        upstream: a.upstream.to_string(),
        verdict: a.verdict.to_string(),
        took: show_elapsed(a.elapsed),
    });
    Question {
        question: ask.to_string(),
        cache: trail.cache.name(),
        upstream: trail.upstream.as_ref().map(ToString::to_string),
        attempts: attempts.collect(),
        status,
        outcome: text,
        sum,
    }
}

/// What was found, in a line; a zip that is still arriving is waited for.
async fn found(content: Content) -> String {
    match content {
        Content::Bytes(bytes) => match std::str::from_utf8(&bytes) {
            Ok(text) if text.len() <= 200 && !text.trim().is_empty() => text.split_whitespace().collect::<Vec<_>>().join(" "),
            _ => format!("{} bytes", bytes.len()),
        },
        Content::File { length, .. } => format!("{length} bytes"),
        Content::Growing { mut reader, .. } => match reader.ended().await {
            Ok(length) => format!("{length} bytes"),
            Err(reason) => format!("broken off: {reason}"),
        },
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let team = self.team.as_ref().map(|team| format!(" (team {team})")).unwrap_or_default();
        writeln!(f, "{}{team}", self.asked)?;
        writeln!(f, "  route  {}", self.route)?;
        let names: Vec<&str> = self.chain.iter().map(|l| l.upstream.as_str()).collect();
        writeln!(f, "  chain  {}", if names.is_empty() { "(nobody)".to_owned() } else { names.join(" -> ") })?;
        if let Some(verify) = &self.verify {
            writeln!(f, "  verify {verify}")?;
        }
        for Link { upstream, state } in &self.chain {
            if let Some(state) = state {
                writeln!(f, "  state  {upstream}: {state}")?;
            }
        }
        for q in &self.questions {
            writeln!(f, "\n  {}", q.question)?;
            let from = q.upstream.as_ref().map(|u| format!(", from {u}")).unwrap_or_default();
            writeln!(f, "    cache   {}{from}", q.cache)?;
            for a in &q.attempts {
                writeln!(f, "    asked   {}: {} ({})", a.upstream, a.verdict, a.took)?;
            }
            writeln!(f, "    status  {}  {}", q.status, q.outcome)?;
            if let Some(sum) = &q.sum {
                writeln!(f, "    sum     {sum}")?;
            }
        }
        Ok(())
    }
}
