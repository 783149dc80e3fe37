//! The driver `awslogs`: sends one container's log to a stream of CloudWatch Logs.

use super::Wish;
use super::assemble::{Assembler, Batch};
use super::options::Awslogs;
use super::tail::Tail;
use crate::client::{Client, ClientError};
use gantry_api::logs;
use gantry_decide::log_cursor::Cursor;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// Between two looks for something new, and so the least between two batches of a container that writes little.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// After a failure, doubled with each.
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(30);

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

/// How far the stream is in the log, as it knows itself; absent if it has nothing of it.
async fn position(client: &Client, to: &Awslogs) -> Result<Option<u64>, ClientError> {
    let request = logs::DescribeLogStreamsRequest {
        log_group_name: Some(to.group.clone()),
        log_stream_name_prefix: Some(to.stream.clone()),
        // Of all streams that begin so, this one is the first.
        limit: Some(1),
        ..Default::default()
    };
    let found = client.logs::<logs::DescribeLogStreams>(&request).await?;
    let streams = found.log_streams.unwrap_or_default();
    let stream = streams.iter().find(|stream| stream.log_stream_name.as_ref() == Some(&to.stream));
    Ok(stream.and_then(|stream| stream.upload_sequence_token.as_ref()?.parse().ok()))
}

/// What became of a batch.
enum Sent {
    Yes,
    /// The stream is elsewhere in the log.
    Elsewhere,
    /// There is no such group or stream.
    Nowhere,
    /// It will never be taken.
    Refused(ClientError),
    Failed(ClientError),
}

/// Sends the log of one container until it has ended and all is sent.
pub async fn ship(client: Client, log: PathBuf, to: Awslogs, mut wish: watch::Receiver<Wish>) {
    let mut shipper = Shipper { client, to, log, at: None, pause: RETRY_FIRST };
    loop {
        // The wish before the look: what was written before the container ended is there to be seen.
        let finishing = *wish.borrow_and_update() == Wish::Finish;
        match shipper.round(finishing).await {
            Ok(true) => shipper.pause = RETRY_FIRST,
            Ok(false) if finishing && !wish.has_changed().unwrap_or(false) => return,
            Ok(false) => {
                let _ = timeout(LOOK_EVERY, wish.changed()).await;
                // Nobody wishes any more: the agent ends.
                if wish.has_changed().is_err() && !finishing {
                    return;
                }
            }
            Err(error) => {
                let (group, stream) = (&shipper.to.group, &shipper.to.stream);
                tracing::warn!(%error, group, stream, pause = ?shipper.pause, "a container's log cannot be sent; trying again");
                sleep(shipper.pause).await;
                shipper.pause = (shipper.pause * 2).min(RETRY_MAX);
            }
        }
    }
}

struct Shipper {
    client: Client,
    to: Awslogs,
    log: PathBuf,
    /// Unknown until the stream has said how far it is.
    at: Option<Place>,
    pause: Duration,
}

struct Place {
    tail: Tail,
    assembler: Assembler,
    /// What the stream has: everything before.
    sent: Option<u64>,
}

/// Why a round came to nothing.
#[derive(Debug, thiserror::Error)]
enum RoundError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("the log cannot be read: {0}")]
    Read(#[from] std::io::Error),
}

impl Shipper {
    /// Reads what is there and sends what is whole of it. False if there was nothing to do.
    async fn round(&mut self, finishing: bool) -> Result<bool, RoundError> {
        if self.at.is_none() {
            let sent = match position(&self.client, &self.to).await {
                Err(error) if error.code() == Some("ResourceNotFoundException") => {
                    prepare(&self.client, &self.to).await?;
                    None
                }
                other => other?,
            };
            let assembler = Assembler::new(self.to.multiline.clone());
            self.at = Some(Place { tail: Tail::new(&self.log, sent.unwrap_or(0)), assembler, sent });
        }
        let Some(place) = &mut self.at else { return Ok(false) };
        let read = if place.tail.has_more()? {
            let mut tail = std::mem::replace(&mut place.tail, Tail::new(&self.log, 0));
            let (tail, read) = tokio::task::spawn_blocking(move || {
                let read = tail.read();
                (tail, read)
            })
            .await
            .map_err(std::io::Error::other)?;
            place.tail = tail;
            read?
        } else {
            super::tail::Read::default()
        };
        if read.lost > 0 {
            let (group, stream) = (&self.to.group, &self.to.stream);
            tracing::warn!(
                bytes = read.lost,
                group,
                stream,
                "a part of a container's log is lost: it was rotated away before it could be sent"
            );
        }
        let any = !read.entries.is_empty();
        let now = crate::driver::now().as_millis();
        for entry in read.entries {
            place.assembler.push(entry, now);
        }
        place.assembler.close(now, finishing && !any);
        let mut sent_any = false;
        while let Some(batch) = self.at.as_mut().and_then(|place| place.assembler.batch()) {
            self.send(batch).await?;
            sent_any = true;
        }
        let waits = self.at.as_ref().is_none_or(|place| !place.assembler.is_empty());
        Ok(any || sent_any || (finishing && waits))
    }

    async fn send(&mut self, batch: Batch) -> Result<(), RoundError> {
        let Some(place) = &mut self.at else { return Ok(()) };
        let after = batch.after;
        if batch.events.is_empty() {
            // Only empty lines: the stream learns of it with the next event.
            return Ok(());
        }
        let cursor = Cursor { before: place.sent.map(|at| at.to_string()), after: after.to_string() };
        match put(&self.client, &self.to, batch, &cursor).await {
            Sent::Yes => place.sent = Some(after),
            Sent::Refused(error) => {
                tracing::error!(%error, group = self.to.group, stream = self.to.stream, "a part of a container's log is refused and left out");
            }
            // What was read is read again from where the stream is.
            Sent::Elsewhere => self.at = None,
            Sent::Nowhere => {
                self.at = None;
                prepare(&self.client, &self.to).await?;
            }
            Sent::Failed(error) => {
                self.at = None;
                return Err(error.into());
            }
        }
        Ok(())
    }
}

async fn put(client: &Client, to: &Awslogs, batch: Batch, cursor: &Cursor) -> Sent {
    let events = batch.events.into_iter();
    let request = logs::PutLogEventsRequest {
        log_group_name: to.group.clone(),
        log_stream_name: to.stream.clone(),
        log_events: events
            .map(|event| logs::InputLogEvent { timestamp: event.at, message: event.message })
            .collect(),
        sequence_token: Some(cursor.to_string()),
        entity: None,
    };
    match client.logs::<logs::PutLogEvents>(&request).await {
        Ok(answer) => {
            if let Some(rejected) = answer.rejected_log_events_info {
                let (group, stream) = (&to.group, &to.stream);
                tracing::warn!(
                    ?rejected,
                    group,
                    stream,
                    "lines of a container's log are too old or too new and left out"
                );
            }
            Sent::Yes
        }
        Err(error) => match error.code() {
            Some("DataAlreadyAcceptedException") => Sent::Yes,
            Some("InvalidSequenceTokenException") => Sent::Elsewhere,
            Some("ResourceNotFoundException") => Sent::Nowhere,
            Some("InvalidParameterException") => Sent::Refused(error),
            _ => Sent::Failed(error),
        },
    }
}
