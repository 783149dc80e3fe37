//! Spot draining: asks the machine's own metadata service whether the machine is about to be taken away, and if so sets
//! the container instance DRAINING, as the stock agent does with ECS_ENABLE_SPOT_INSTANCE_DRAINING. The rest is the
//! control plane's: services start their tasks elsewhere.

use crate::client::Client;
use gantry_api::ecs;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// How often the stock agent asks.
const PERIOD: Duration = Duration::from_secs(1);
/// For an answer of a service on this machine's own link.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// Bytes of an answer: a notice has some dozens.
const BODY_MAX: usize = 4096;
/// Seconds for which a token is asked: the longest that the service gives.
const TOKEN_LIFETIME: &str = "21600";
const TOKEN_PATH: &str = "/latest/api/token";
const NOTICE_PATH: &str = "/latest/meta-data/spot/instance-action";

/// What is about to happen to the machine.
#[derive(Debug, Deserialize)]
struct Notice {
    action: String,
}

impl Notice {
    /// Whether tasks have to leave for it.
    fn ends_tasks(&self) -> bool {
        ["hibernate", "stop", "terminate"].contains(&self.action.as_str())
    }
}

/// The metadata service at an address, `http://169.254.169.254` on EC2.
struct Metadata {
    http: HttpClient<HttpConnector, Full<Bytes>>,
    endpoint: String,
    token: Option<String>,
}

impl Metadata {
    fn new(endpoint: &str) -> Metadata {
        let http = HttpClient::builder(TokioExecutor::new()).build(HttpConnector::new());
        Metadata { http, endpoint: endpoint.trim_end_matches('/').to_owned(), token: None }
    }

    /// Status and body of an answer; `None` where there is none worth reading.
    async fn ask(&self, method: &str, path: &str, header: (&str, &str)) -> Option<(StatusCode, Bytes)> {
        let request = Request::builder().method(method).uri(format!("{}{path}", self.endpoint));
        let request = request.header(header.0, header.1).body(Full::default()).ok()?;
        let answer = async {
            let (parts, body) = self.http.request(request).await.ok()?.into_parts();
            let body = Limited::new(body, BODY_MAX).collect().await.ok()?;
            Some((parts.status, body.to_bytes()))
        };
        timeout(ANSWER_MAX, answer).await.ok()?
    }

    /// Whether the machine is about to be taken away.
    async fn has_notice(&mut self) -> bool {
        if self.token.is_none() {
            let header = ("x-aws-ec2-metadata-token-ttl-seconds", TOKEN_LIFETIME);
            if let Some((StatusCode::OK, token)) = self.ask("PUT", TOKEN_PATH, header).await {
                self.token = String::from_utf8(token.into()).ok();
            }
        }
        // A service of the first version knows no tokens, and asks for none.
        let token = self.token.clone().unwrap_or_default();
        match self.ask("GET", NOTICE_PATH, ("x-aws-ec2-metadata-token", &token)).await {
            Some((StatusCode::OK, body)) => {
                serde_json::from_slice(&body).is_ok_and(|notice: Notice| notice.ends_tasks())
            }
            Some((StatusCode::UNAUTHORIZED, _)) => {
                self.token = None;
                false
            }
            // Without a notice there is nothing at that path.
            _ => false,
        }
    }
}

/// Waits for a notice, sets the instance DRAINING, and ends.
pub async fn watch(endpoint: String, client: Client, cluster: String, instance: String) {
    let mut metadata = Metadata::new(&endpoint);
    while !metadata.has_notice().await {
        sleep(PERIOD).await;
    }
    tracing::warn!("this machine is about to be taken away: its container instance drains");
    let request = ecs::UpdateContainerInstancesStateRequest {
        cluster: Some(cluster),
        container_instances: vec![instance],
        status: ecs::ContainerInstanceStatus::Draining,
    };
    while let Err(error) = client.ecs::<ecs::UpdateContainerInstancesState>(&request).await {
        tracing::warn!(%error, "the container instance cannot be set to drain; trying again");
        sleep(PERIOD).await;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// A metadata service with one answer to everything asked by GET; says what was asked.
    async fn asked(answer: &'static str) -> (bool, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let serve = async {
            let mut asked = String::new();
            while !asked.contains("GET ") {
                let (mut socket, _) = listener.accept().await.unwrap();
                let mut bytes = [0; 4096];
                let count = socket.read(&mut bytes).await.unwrap();
                asked.push_str(std::str::from_utf8(&bytes[..count]).unwrap());
                let body =
                    if asked.contains("GET ") { answer } else { "200 OK\r\ncontent-length: 2\r\n\r\nt1" };
                let text = format!("HTTP/1.1 {body}").replacen("\r\n", "\r\nconnection: close\r\n", 1);
                socket.write_all(text.as_bytes()).await.unwrap();
            }
            asked
        };
        let mut metadata = Metadata::new(&endpoint);
        let (noticed, asked) = tokio::join!(metadata.has_notice(), serve);
        (noticed, asked)
    }

    #[tokio::test]
    async fn a_notice_is_read_with_a_token() {
        let body = "200 OK\r\ncontent-length: 24\r\n\r\n{\"action\": \"terminate\"}  ";
        let (noticed, asked) = asked(body).await;
        assert!(noticed);
        assert!(asked.contains(NOTICE_PATH) && asked.contains("x-aws-ec2-metadata-token: t1"), "{asked}");
    }

    #[tokio::test]
    async fn no_notice_is_no_notice() {
        for answer in [
            "404 Not Found\r\ncontent-length: 0\r\n\r\n",
            "200 OK\r\ncontent-length: 3\r\n\r\nabc",
            "200 OK\r\ncontent-length: 19\r\n\r\n{\"action\": \"rebal\"}",
        ] {
            assert!(!asked(answer).await.0, "{answer}");
        }
    }
}
