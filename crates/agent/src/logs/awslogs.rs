//! The driver `awslogs`: sends one container's log to a stream of CloudWatch Logs.

use super::assemble::Event;
use super::options::Awslogs;
use super::ship::{Outcome, Sink};
use crate::client::{Client, ClientError};
use gantry_api::logs;
use gantry_decide::log_cursor::Cursor;

/// Makes the stream, and the group if it is wanted. That they are there is no error.
///
/// `client` is one of the stream's region, here and below.
pub async fn prepare(client: &Client, to: &Awslogs) -> Result<(), ClientError> {
    match create_stream(client, to).await {
        Err(error) if error.code() == Some("ResourceNotFoundException") && to.create_group => {
            let group =
                logs::CreateLogGroupRequest { log_group_name: to.group.clone(), ..Default::default() };
            there_is_enough(client.logs::<logs::CreateLogGroup>(&group).await)?;
            create_stream(client, to).await
        }
        other => other,
    }
}

async fn create_stream(client: &Client, to: &Awslogs) -> Result<(), ClientError> {
    let stream =
        logs::CreateLogStreamRequest { log_group_name: to.group.clone(), log_stream_name: to.stream.clone() };
    there_is_enough(client.logs::<logs::CreateLogStream>(&stream).await)
}

fn there_is_enough<T>(result: Result<T, ClientError>) -> Result<(), ClientError> {
    match result {
        Err(error) if error.code() == Some("ResourceAlreadyExistsException") => Ok(()),
        other => other.map(drop),
    }
}

/// A stream of CloudWatch Logs.
pub struct AwslogsSink {
    /// Of the stream's region.
    client: Client,
    to: Awslogs,
    name: String,
}

impl AwslogsSink {
    pub fn new(client: Client, to: Awslogs) -> AwslogsSink {
        let name = format!("{}:{}", to.group, to.stream);
        AwslogsSink { client, to, name }
    }
}

impl Sink for AwslogsSink {
    type Error = ClientError;

    async fn position(&mut self) -> Result<Option<u64>, ClientError> {
        let request = logs::DescribeLogStreamsRequest {
            log_group_name: Some(self.to.group.clone()),
            log_stream_name_prefix: Some(self.to.stream.clone()),
            // Of all streams that begin so, this one is the first.
            limit: Some(1),
            ..Default::default()
        };
        let found = match self.client.logs::<logs::DescribeLogStreams>(&request).await {
            Err(error) if error.code() == Some("ResourceNotFoundException") => {
                prepare(&self.client, &self.to).await?;
                return Ok(None);
            }
            other => other?,
        };
        let streams = found.log_streams.unwrap_or_default();
        let stream = streams.iter().find(|stream| stream.log_stream_name.as_ref() == Some(&self.to.stream));
        Ok(stream.and_then(|stream| stream.upload_sequence_token.as_ref()?.parse().ok()))
    }

    async fn send(
        &mut self,
        before: Option<u64>,
        after: u64,
        events: Vec<Event>,
    ) -> Result<Outcome, ClientError> {
        let cursor = Cursor { before: before.map(|at| at.to_string()), after: after.to_string() };
        let events = events.into_iter();
        let request = logs::PutLogEventsRequest {
            log_group_name: self.to.group.clone(),
            log_stream_name: self.to.stream.clone(),
            log_events: events
                .map(|event| logs::InputLogEvent { timestamp: event.at, message: event.message })
                .collect(),
            sequence_token: Some(cursor.to_string()),
            entity: None,
        };
        match self.client.logs::<logs::PutLogEvents>(&request).await {
            Ok(answer) => {
                if let Some(rejected) = answer.rejected_log_events_info {
                    let to = &self.name;
                    tracing::warn!(
                        ?rejected,
                        to,
                        "lines of a container's log are too old or too new and left out"
                    );
                }
                Ok(Outcome::Sent)
            }
            Err(error) => match error.code() {
                Some("DataAlreadyAcceptedException") => Ok(Outcome::Sent),
                Some("InvalidSequenceTokenException") => Ok(Outcome::Elsewhere),
                Some("ResourceNotFoundException") => {
                    prepare(&self.client, &self.to).await?;
                    Ok(Outcome::Elsewhere)
                }
                Some("InvalidParameterException") => Ok(Outcome::Refused { reason: error.to_string() }),
                _ => Err(error),
            },
        }
    }

    fn name(&self) -> &str {
        &self.name
    }
}
