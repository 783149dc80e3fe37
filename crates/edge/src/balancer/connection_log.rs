//! Connection logs in the format of Application Load Balancers: a line for each connection that a client opened.

use super::access_log::{self, Kind, Line, Sink};
use super::certificate::ClientCertificate;
use super::http::Client;
use super::tables::Table;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Why a client's handshake came to nothing, by the documented names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    #[error("ClientCertMaxChainDepthExceeded")]
    ChainDepth,
    #[error("ClientCertMaxSizeExceeded")]
    ChainSize,
    #[error("ClientCertCrlHit")]
    Revoked,
    #[error("ClientCertCrlProcessingError")]
    RevocationList,
    #[error("ClientCertUntrusted")]
    Untrusted,
    #[error("ClientCertNotYetValid")]
    NotYetValid,
    #[error("ClientCertExpired")]
    Expired,
    #[error("ClientCertTypeUnsupported")]
    TypeUnsupported,
    #[error("ClientCertPurposeInvalid")]
    Purpose,
    #[error("ClientCertInvalid")]
    Invalid,
    /// Everything that has no name of its own: versions and ciphers that do not meet, silence, what is no TLS.
    #[error("UnmappedConnectionError")]
    Unmapped,
}

/// A handshake that came to nothing.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{failure}")]
pub struct Refused {
    pub failure: Failure,
    /// What the client showed, where that was why.
    pub certificate: Option<Arc<ClientCertificate>>,
    /// By which alert the client ended it.
    pub alert: Option<u8>,
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Refused {
        Refused { failure, certificate: None, alert: None }
    }
}

/// How long a handshake took, or why there was none.
pub type Handshake<'a> = Result<Duration, &'a Refused>;

/// Tells the logs of a connection, where its load balancer has some. `handshake`: none at a listener without TLS.
pub fn note(logs: Option<&Sink>, table: &Table, client: &Client, handshake: Option<Handshake<'_>>) {
    let Some((destination, logs)) = table.attributes.connection_logs.as_ref().zip(logs) else { return };
    logs.send(Line {
        kind: Kind::Connection,
        balancer: table.balanced.arn.clone(),
        destination: destination.clone(),
        node: Some(client.local.ip()),
        text: line(table.port, client, handshake, SystemTime::now()),
    });
}

fn line(port: u16, client: &Client, handshake: Option<Handshake<'_>>, at: SystemTime) -> String {
    let tls = client.tls.as_ref();
    let refused = handshake.and_then(Result::err);
    let shown = tls.and_then(|tls| tls.certificate.as_deref());
    let shown = shown.or(refused.and_then(|refused| refused.certificate.as_deref()));
    let dash = || "-".to_owned();
    let latency = handshake.and_then(Result::ok).map(|took| format!("{:.3}", took.as_secs_f64()));
    let status = handshake.map(|handshake| match handshake {
        Ok(_) => "Success".to_owned(),
        Err(refused) => format!("Failed:{refused}"),
    });
    let fields = [
        access_log::time(at),
        client.shown.clone(),
        client.peer.port().to_string(),
        port.to_string(),
        tls.map_or("-", |tls| tls.version).to_owned(),
        tls.map_or("-", |tls| tls.cipher).to_owned(),
        latency.unwrap_or_else(dash),
        format!("\"{}\"", access_log::escape(shown.map_or("-", |shown| &shown.subject))),
        shown.map_or("-", |shown| &shown.validity).to_owned(),
        shown.map_or("-", |shown| &shown.serial).to_owned(),
        status.unwrap_or_else(dash),
        client.trace.to_string(),
    ];
    fields.join(" ") + "\n"
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::http::{Tls, Trace};
    use super::*;

    #[test]
    fn lines_are_as_documented() {
        let client = |tls| Client {
            peer: "203.0.113.1:36280".parse().unwrap(),
            local: "127.0.0.1:443".parse().unwrap(),
            shown: "203.0.113.1".to_owned(),
            tls,
            trace: Trace(0x1234_abcd_5678_ef90),
        };
        let tls = Tls { version: "TLSv1.2", cipher: "ECDHE-RSA-AES128-GCM-SHA256", ..Tls::unknown() };
        let at = SystemTime::UNIX_EPOCH + Duration::from_micros(1_696_439_115_514_108);
        let begin = "2023-10-04T17:05:15.514108Z 203.0.113.1 36280 443";
        let took = Some(Ok(Duration::from_micros(4_036_400)));
        assert_eq!(
            line(443, &client(Some(tls)), took, at),
            format!(
                "{begin} TLSv1.2 ECDHE-RSA-AES128-GCM-SHA256 4.036 \"-\" - - Success TID_1234abcd5678ef90\n"
            )
        );
        assert_eq!(
            line(443, &client(Some(Tls::unknown())), Some(Err(&Failure::Unmapped.into())), at),
            format!("{begin} - - - \"-\" - - Failed:UnmappedConnectionError TID_1234abcd5678ef90\n")
        );
        assert!(line(443, &client(None), None, at).ends_with("- - - \"-\" - - - TID_1234abcd5678ef90\n"));
    }
}
