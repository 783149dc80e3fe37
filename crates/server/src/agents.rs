//! Agents' connections between the sockets and the engine: who may open one, which messages go where, and what becomes
//! of them when the server stops.

use crate::endpoint::{Caller, base_url};
use crate::sockets::{self, Mailbox, Outgoing};
use crate::transport::Response;
use crate::writer::Inbox;
use gantry_control::call::{self, Demand};
use gantry_control::engine::Input;
use gantry_control::services::ecs::state::AgentVersion;
use gantry_control::services::ecs::{ACS_PATH, TCS_PATH};
use gantry_control::sessions::{self, Channel, Opening, SessionId, SessionInput, SessionOutput};
use gantry_control::tx::View;
use gantry_wire::ApiError;
use http::request::Parts;
use hyper::upgrade::OnUpgrade;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Connections that may be open at once: two for each of the thousands of agents that a server is built for. Each
/// holds some kilobytes.
const CONNECTIONS_MAX: usize = 20_000;
/// Characters of a version that an agent tells of itself.
const VERSION_LENGTH_MAX: usize = 64;

/// The channel that a path of an upgrade means.
pub fn channel(path: &str) -> Option<Channel> {
    match path.strip_suffix("/ws")? {
        ACS_PATH => Some(Channel::Acs),
        TCS_PATH => Some(Channel::Tcs),
        _ => None,
    }
}

/// The open connections.
#[derive(Default)]
pub struct Agents {
    mailboxes: Mutex<HashMap<SessionId, Mailbox>>,
    last_id: AtomicU64,
    /// Set while the server stops: connections that end then say nothing about their agents.
    stopping: AtomicBool,
}

impl Agents {
    /// Puts a message into a connection's mailbox. Never waits.
    pub fn perform(&self, id: SessionId, output: SessionOutput) {
        let outgoing = match output {
            SessionOutput::Send(text) => Outgoing::Text(text),
            SessionOutput::Close(code, reason) => Outgoing::Close(code, reason),
        };
        // A connection that is gone has told the engine so, or is about to.
        if let Some(mailbox) = self.mailboxes.lock().get(&id) {
            mailbox.send(outgoing);
        }
    }

    /// Closes all connections, telling agents that the server goes away.
    pub fn close_all(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.mailboxes.lock().clear();
    }

    /// Answers an upgrade and carries the connection's messages from then on.
    ///
    /// # Errors
    /// In the exceptions that agents know.
    pub fn accept(
        self: &Arc<Self>,
        view: View<'_>,
        inbox: &Inbox<Input>,
        caller: &Caller,
        channel: Channel,
        parts: &Parts,
        upgrade: OnUpgrade,
    ) -> Result<Response, ApiError> {
        let asked = Asked::read(parts.uri.query().unwrap_or_default());
        let instance_arn = asked.instance_arn.unwrap_or_default();
        permit(caller, channel, &instance_arn)?;
        let instance = sessions::admit(view, &instance_arn)?;
        let response = sockets::accept(parts)
            .map_err(|error| ApiError::new("BadRequestException", error.to_string()))?;
        let id = SessionId(self.last_id.fetch_add(1, Ordering::Relaxed) + 1);
        let (mailbox, outbox) = sockets::mailbox();
        {
            let mut mailboxes = self.mailboxes.lock();
            if mailboxes.len() >= CONNECTIONS_MAX || self.stopping.load(Ordering::Relaxed) {
                let message = "The server takes no more agents' connections.";
                return Err(ApiError::new("ServerException", message).with_status(503));
            }
            mailboxes.insert(id, mailbox);
        }
        let (scope, endpoint) = (caller.scope.clone(), base_url(parts));
        let opening = Opening { scope, instance, channel, agent: asked.agent, endpoint };
        let (agents, inbox) = (Arc::clone(self), inbox.clone());
        tokio::spawn(async move {
            let say = |input| inbox.hand_over(Input::Session { id, input });
            // An error means that the server has stopped: the connection ends with its mailbox then.
            if say(SessionInput::Opened(opening)).await.is_ok() {
                let end = sockets::run(upgrade, outbox, async |text| {
                    let calm = sessions::is_calm(&text);
                    let input = Input::Session { id, input: SessionInput::Text(text) };
                    let _ =
                        if calm { inbox.hand_over_calmly(input).await } else { inbox.hand_over(input).await };
                })
                .await;
                tracing::info!(session = id.0, instance = %instance_arn, ?channel, ?end, "an agent's connection ended");
            }
            agents.mailboxes.lock().remove(&id);
            if !agents.stopping.load(Ordering::Relaxed) {
                let _ = say(SessionInput::Closed).await;
            }
        });
        Ok(response)
    }
}

fn permit(caller: &Caller, channel: Channel, instance_arn: &str) -> Result<(), ApiError> {
    let action = match channel {
        Channel::Acs => "ecs:Poll",
        Channel::Tcs => "ecs:StartTelemetrySession",
    };
    call::permit(caller, &Demand::on(action, instance_arn))
}

/// What the query string of an upgrade tells. The two channels name their parameters differently.
#[derive(Default)]
struct Asked {
    instance_arn: Option<String>,
    agent: AgentVersion,
}

impl Asked {
    fn read(query: &str) -> Asked {
        let mut asked = Asked::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let short = || value.chars().take(VERSION_LENGTH_MAX).collect::<String>();
            match name.as_ref() {
                "containerInstanceArn" | "containerInstance" => asked.instance_arn = Some(value.into_owned()),
                "agentVersion" => asked.agent.version = short(),
                "agentHash" => asked.agent.hash = short(),
                "dockerVersion" => asked.agent.docker = short(),
                _ => {}
            }
        }
        asked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_queries_are_the_agents() {
        assert_eq!(channel("/acs/ws"), Some(Channel::Acs));
        assert_eq!(channel("/tcs/ws"), Some(Channel::Tcs));
        assert_eq!((channel("/ws"), channel("/acs"), channel("/acs/ws/")), (None, None, None));
        let asked =
            Asked::read("agentVersion=1.2&dockerVersion=DockerVersion%3A+20&containerInstanceArn=arn%3Ax");
        assert_eq!(asked.instance_arn.as_deref(), Some("arn:x"));
        assert_eq!((asked.agent.version.as_str(), asked.agent.docker.as_str()), ("1.2", "DockerVersion: 20"));
    }
}
