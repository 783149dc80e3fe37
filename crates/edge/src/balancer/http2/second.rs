//! Exchanges with HTTP/2 targets, over connections that all requests share.

use super::super::clock::TimedOut;
use super::super::http::{Forwarding, reach, translate};
use super::super::tables::Target;
use super::body::Out;
use super::convert::{request_of, response_of, text_of};
use super::exchange::{Ending, answered};
use super::sessions::{Joined, Unanswered};
use super::upload::Upload;
use gantry_decide::routing::config::ProtocolVersion;
use http::Response;
use hyper::body::Incoming;
use std::rc::Rc;
use std::sync::Arc;
use tokio::time::Instant;

/// How often a request is sent in all: targets that shut down say so once, and each may do so at the same time.
const ATTEMPTS: u32 = 3;

/// Sends a request to an HTTP/2 target and gives its answer, the body of which is still to come.
///
/// # Errors
/// With the status to answer.
pub async fn to_second(
    mut forwarding: Forwarding,
    text: Vec<u8>,
    incoming: Incoming,
    ending: &Rc<Ending>,
) -> Result<Response<Out>, u16> {
    let (worker, limit) = (&ending.shared.worker, ending.table.attributes.idle_timeout);
    let secure = forwarding.service.to_secure();
    let grpc = forwarding.service.version == ProtocolVersion::Grpc;
    let upload = Rc::new(Upload::new(incoming, ending.shared.clone(), limit));
    *ending.upload.borrow_mut() = Some(upload.clone());
    let mut attempts = 0;
    loop {
        let get =
            async |target: &Arc<Target>| worker.sessions.get(target, secure.as_ref(), &worker.pool).await;
        let (joined, outstanding) = reach(&mut forwarding, worker, get).await?;
        let Joined { mut sender, place, reused } = joined;
        *ending.under_way.borrow_mut() = Some(outstanding);
        ending.report.borrow_mut().target = Some(forwarding.target.address);
        *ending.place.borrow_mut() = Some(place.clone());
        let request = request_of(&text, secure.is_some(), grpc).ok_or(502_u16)?;
        let upwards = upload.attempt().ok_or(502_u16)?;
        let sent = Instant::now();
        let asked = async {
            sender.ready().await?;
            sender.send_request(request.map(|()| upwards)).await
        };
        let error = match upload.watch.guard(limit, asked).await {
            Ok(Ok(response)) => {
                upload.settle();
                return bring(response, &forwarding, ending, sent);
            }
            Ok(Err(error)) => error,
            Err(TimedOut) => return Err(if upload.is_whole() { 504 } else { 408 }),
        };
        tracing::debug!(target = %forwarding.target, %error, "no answer");
        attempts += 1;
        let again = match Unanswered::from(&error) {
            Unanswered::Unprocessed => true,
            // As with kept connections of HTTP/1.1.
            Unanswered::Broken => reused && forwarding.replayable,
            Unanswered::Refused => false,
        };
        if !again || attempts == ATTEMPTS {
            return Err(502);
        }
        worker.sessions.forget(&forwarding.target, &place);
    }
}

/// Hands an answer on.
///
/// # Errors
/// With the status to answer instead.
fn bring(
    response: Response<Incoming>,
    forwarding: &Forwarding,
    ending: &Rc<Ending>,
    sent: Instant,
) -> Result<Response<Out>, u16> {
    let mut head = Vec::with_capacity(1024);
    let (table, client) = (&ending.table, &ending.shared.client);
    let translated = translate(&text_of(&response), forwarding, table, client, true, &mut head);
    let translated = translated.ok().flatten().ok_or(502_u16)?;
    let mut out: Response<Out> = response_of(&head).ok_or(502_u16)?;
    answered(ending, forwarding, translated.status, sent);
    *out.body_mut() = Out::Second(response.into_body(), Box::new(ending.clone()));
    Ok(out)
}
