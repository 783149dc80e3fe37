//! Access logs in the format of Network Load Balancers: a line for each connection to a TLS listener.

use super::access_log::{self, Kind, Line, Sink};
use super::connection_log::Refused;
use super::http::{Client, Tls};
use super::tables::Table;
use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

/// Of the protocols that a client offers: AWS's bound.
const OFFERED_MAX: usize = 256;

/// A connection that is over.
pub struct Ended {
    pub begun: SystemTime,
    pub took: Duration,
    /// How long it took, or why there was none.
    pub handshake: Result<Duration, Refused>,
    /// The protocol that was agreed on with the client.
    pub protocol: Option<String>,
    /// What came from the client, and what went to it.
    pub received: u64,
    pub sent: u64,
}

/// Tells the logs of a connection, where its load balancer has some.
pub fn note(logs: Option<&Sink>, table: &Table, client: &Client, ended: &Ended) {
    let Some((destination, logs)) = table.attributes.access_logs.as_ref().zip(logs) else { return };
    logs.send(Line {
        kind: Kind::Access,
        balancer: table.balanced.arn.clone(),
        destination: destination.clone(),
        node: None,
        text: line(table.balanced.arn.tail(), table.arn().tail(), client, ended),
    });
}

fn line(balancer: &str, listener: &str, client: &Client, ended: &Ended) -> String {
    let dash = || "-".to_owned();
    let unknown = Tls::unknown();
    let tls = client.tls.as_ref().unwrap_or(&unknown);
    // As documented: nothing was negotiated where the handshake did not end.
    let (version, cipher) = match &ended.handshake {
        Ok(_) => (tls.version.replace("TLSv1.", "tlsv1"), tls.cipher),
        Err(_) => (dash(), "-"),
    };
    let alert = ended.handshake.as_ref().err().and_then(|refused| refused.alert);
    let fields = [
        "tls".to_owned(),
        "2.0".to_owned(),
        time(ended.begun + ended.took),
        balancer.to_owned(),
        listener.to_owned(),
        client.peer.to_string(),
        client.local.to_string(),
        ended.took.as_millis().to_string(),
        ended.handshake.as_ref().map_or_else(|_| dash(), |took| took.as_millis().to_string()),
        ended.received.to_string(),
        ended.sent.to_string(),
        alert.map_or_else(dash, |alert| alert.to_string()),
        tls.shown.as_ref().map_or_else(dash, ToString::to_string),
        dash(),
        cipher.to_owned(),
        version,
        dash(),
        tls.name.as_ref().map_or_else(dash, |name| encoded(name.as_bytes())),
        ended.protocol.clone().unwrap_or_else(dash),
        // Targets are offered none.
        dash(),
        offered(&tls.offered).unwrap_or_else(dash),
        time(ended.begun),
    ];
    fields.join(" ") + "\n"
}

/// Without a fraction and a zone, as documented.
fn time(at: SystemTime) -> String {
    let mut text = access_log::time(at);
    text.truncate("2018-12-20T02:59:40".len());
    text
}

fn offered(names: &[Vec<u8>]) -> Option<String> {
    let quoted: Vec<String> = names.iter().map(|name| format!("\"{}\"", encoded(name))).collect();
    let mut text = quoted.join(",");
    text.truncate(OFFERED_MAX);
    (!text.is_empty()).then_some(text)
}

/// URL-encoded, but for what examples show as it is.
fn encoded(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for byte in bytes {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                out.push(char::from(*byte));
            }
            _ => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::connection_log::Failure;
    use super::super::http::Trace;
    use super::*;
    use gantry_decide::routing::config::CertificateArn;

    #[test]
    fn lines_are_as_documented() {
        let tls = Tls {
            version: "TLSv1.2",
            cipher: "ECDHE-RSA-AES128-GCM-SHA256",
            name: Some("net.example".to_owned()),
            shown: Some(CertificateArn::new("arn:aws:acm:us-east-2:671290407336:certificate/2a108f19")),
            offered: vec![b"h2".to_vec(), b"http/1.1".to_vec(), b"a \"b\"".to_vec()],
            certificate: None,
        };
        let client = Client {
            peer: "72.21.218.154:51341".parse().unwrap(),
            local: "[fd00::1]:443".parse().unwrap(),
            shown: "72.21.218.154".to_owned(),
            tls: Some(tls),
            trace: Trace(1),
        };
        let shown = |handshake: Result<Duration, Refused>| {
            let ended = Ended {
                begun: SystemTime::UNIX_EPOCH + Duration::from_millis(1_545_274_775_400),
                took: Duration::from_millis(5_100),
                protocol: handshake.as_ref().ok().map(|_| "h2".to_owned()),
                handshake,
                received: 98,
                sent: 246,
            };
            line("net/my-network-loadbalancer/c6e77e28c25b2234", "g3d4b5e8bb8464cd", &client, &ended)
        };
        let begin = "tls 2.0 2018-12-20T02:59:40 net/my-network-loadbalancer/c6e77e28c25b2234 g3d4b5e8bb8464cd \
                     72.21.218.154:51341 [fd00::1]:443 5100";
        let certificate = "arn:aws:acm:us-east-2:671290407336:certificate/2a108f19 -";
        let end = "- \"h2\",\"http/1.1\",\"a%20%22b%22\" 2018-12-20T02:59:35\n";
        assert_eq!(
            shown(Ok(Duration::from_micros(2_900))),
            format!(
                "{begin} 2 98 246 - {certificate} ECDHE-RSA-AES128-GCM-SHA256 tlsv12 - net.example h2 {end}"
            )
        );
        let refused = Refused { alert: Some(48), ..Failure::Unmapped.into() };
        assert_eq!(
            shown(Err(refused)),
            format!("{begin} - 98 246 48 {certificate} - - - net.example - {end}")
        );
    }

    #[test]
    fn what_a_client_offers_is_bounded() {
        let many: Vec<_> = (0..100).map(|number: u8| vec![number; 9]).collect();
        assert_eq!(offered(&many).unwrap().len(), OFFERED_MAX);
        assert_eq!(offered(&[]), None);
    }
}
