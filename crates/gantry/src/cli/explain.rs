//! `gantry explain`: why a service, a task or an instance is as it is, in plain words.

use super::events;
use crate::api::{Api, ApiArgs};
use anyhow::{Result, anyhow, bail};
use clap::Args;
use gantry_agent::client::ClientError;
use gantry_api::gantry::{Explain, ExplainRequest, ExplainResponse};
use gantry_wire::json;
use std::io::Write;

/// Pages of the feed that are looked through for what happened, each of some ten thousand events.
const PAGES_MAX: usize = 200;

/// Say why a service, a task or an instance is as it is, and what to do about it
///
/// What has been forgotten by the APIs is explained from what happened to it, for as long as the feed goes back.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// Name of a service; id of a task or an instance, or its first characters; or an ARN
    subject: String,
    /// Look only in this cluster
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    api: ApiArgs,
}

pub fn run(arguments: &ExplainArgs, out: &mut impl Write) -> Result<()> {
    let api = arguments.api.connect()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answer = runtime.block_on(ask(&api, arguments))?;
    if arguments.json {
        out.write_all(&json::to_vec(&answer))?;
        writeln!(out)?;
        return Ok(());
    }
    show(&answer, out)
}

/// The explanation, with the newest of what happened: the feed is looked through until something is found.
async fn ask(api: &Api, arguments: &ExplainArgs) -> Result<ExplainResponse> {
    let mut request = ExplainRequest {
        cluster: arguments.cluster.clone(),
        subject: arguments.subject.clone(),
        next_token: None,
    };
    for _ in 0..PAGES_MAX {
        let answer = api.gantry::<Explain>(&request).await.map_err(|error| match error {
            // It is about the subject, and says so.
            ClientError::Api { error, .. } => anyhow!(error.message),
            error => error.into(),
        })?;
        let found = answer.history.as_ref().is_some_and(|history| !history.is_empty());
        if found || answer.next_token.is_none() {
            return Ok(answer);
        }
        request.next_token = answer.next_token;
    }
    bail!("nothing of {} was found in the newest part of the feed", arguments.subject)
}

fn show(answer: &ExplainResponse, out: &mut impl Write) -> Result<()> {
    writeln!(out, "{}", answer.verdict.as_deref().unwrap_or_default())?;
    for finding in answer.findings.iter().flatten() {
        writeln!(out, "\n{}: {}", finding.topic, finding.message)?;
        for detail in finding.details.iter().flatten() {
            writeln!(out, "  - {detail}")?;
        }
    }
    let suggestions = answer.suggestions.iter().flatten();
    for (index, suggestion) in suggestions.enumerate() {
        if index == 0 {
            writeln!(out, "\nwhat to do next:")?;
        }
        writeln!(out, "  - {}", suggestion.message)?;
        if let Some(command) = &suggestion.command {
            writeln!(out, "      {command}")?;
        }
    }
    for (index, event) in answer.history.iter().flatten().enumerate() {
        if index == 0 {
            writeln!(out, "\nwhat happened:")?;
        }
        write!(out, "  ")?;
        events::show(event, out)?;
    }
    Ok(())
}
