//! `gantry events`: the feed of what happened in the clusters, to search and to follow.

use crate::api::{Api, ApiArgs};
use crate::config::period::Period;
use anyhow::Result;
use clap::Args;
use gantry_api::gantry::{Event, ListEvents, ListEventsRequest};
use gantry_server::os::now;
use gantry_wire::xml::iso8601;
use gantry_wire::{EpochMillis, json};
use std::collections::BTreeSet;
use std::io::Write;
use std::time::Duration;

/// Between two looks for new events.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How far behind what was seen last an event may come in, as times are those of what happened. In milliseconds.
const LATE_MAX: i64 = 30_000;

/// Show what happened in the clusters
///
/// One line an event: when, what kind, what it happened to, what happened.
#[derive(Debug, Args)]
pub struct EventsArgs {
    /// Only events of this cluster
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
    /// Only events with these words, in kind, names or message; all that filter patterns of CloudWatch Logs can do
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// How far back to begin
    #[arg(long, value_name = "TIME", default_value = "1h")]
    since: Period,
    /// Go on as more happens, until Ctrl-C
    #[arg(short, long)]
    follow: bool,
    /// Print each event as a line of JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    api: ApiArgs,
}

pub fn run(arguments: &EventsArgs, out: &mut impl Write) -> Result<()> {
    let api = arguments.api.connect()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(list(&api, arguments, out))
}

async fn list(api: &Api, arguments: &EventsArgs, out: &mut impl Write) -> Result<()> {
    let mut from = (now() - arguments.since.0).as_millis();
    // Ids of what was shown, from `from` on.
    let mut shown: BTreeSet<String> = BTreeSet::new();
    let mut following = false;
    loop {
        match page_by_page(api, arguments, from, &mut shown, out).await {
            Ok(newest) => from = from.max(newest.saturating_sub(LATE_MAX)),
            // A server that restarts comes back.
            Err(error) if following && is_transient(&error) => {}
            Err(error) => return Err(error),
        }
        out.flush()?;
        if !arguments.follow {
            return Ok(());
        }
        following = true;
        // Ids begin with the time in twenty digits.
        shown = shown.split_off(&format!("{:020}", from.max(0)));
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Shows the events from `from` on that were not shown yet; returns the time of the newest.
async fn page_by_page(
    api: &Api,
    arguments: &EventsArgs,
    from: i64,
    shown: &mut BTreeSet<String>,
    out: &mut impl Write,
) -> Result<i64> {
    let mut newest = from;
    let mut next_token = None;
    loop {
        let request = ListEventsRequest {
            cluster: arguments.cluster.clone(),
            filter_pattern: arguments.filter.clone(),
            start_time: Some(EpochMillis(from)),
            next_token,
            ..Default::default()
        };
        let page = api.gantry::<ListEvents>(&request).await?;
        for event in page.events.unwrap_or_default() {
            newest = newest.max(event.created_at.0);
            if arguments.follow && !shown.insert(event.event_id.clone()) {
                continue;
            }
            if arguments.json {
                out.write_all(&json::to_vec(&event))?;
                writeln!(out)?;
            } else {
                show(&event, out)?;
            }
        }
        next_token = page.next_token;
        if next_token.is_none() {
            return Ok(newest);
        }
    }
}

fn is_transient(error: &anyhow::Error) -> bool {
    error.downcast_ref::<gantry_agent::client::ClientError>().is_some_and(|error| error.is_transient())
}

/// One line of an event: the resource without what all of them have in common.
pub fn show(event: &Event, out: &mut impl Write) -> Result<()> {
    let resource = event.resource_arn.as_deref().unwrap_or_default();
    let resource = resource.splitn(6, ':').nth(5).unwrap_or(resource);
    writeln!(out, "{}  {:21} {resource}  {}", iso8601(event.created_at), event.type_, event.message)?;
    Ok(())
}
