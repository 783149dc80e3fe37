//! Host and URL as a target gets them: as the client sent them, or as a rule's transforms make them.

use super::super::tables::Table;
use super::exchange::Client;
use super::head::{Head, MAX_REQUEST_LINE, host_name, is_authority};
use super::text::push_decimal;
use gantry_decide::routing::Transforms;
use gantry_decide::routing::config::Protocol;
use std::io::Write as _;

/// What a transform came to, as access logs have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Success,
    BufferTooSmall,
    InvalidHost,
    InvalidPath,
}

impl Outcome {
    pub const fn as_str(self) -> &'static str {
        match self {
            Outcome::Success => "TransformSuccess",
            Outcome::BufferTooSmall => "TransformBufferTooSmall",
            Outcome::InvalidHost => "TransformInvalidHost",
            Outcome::InvalidPath => "TransformInvalidPath",
        }
    }
}

/// What transforms made of a request; nothing where none matched.
#[derive(Debug, Default)]
pub struct Rewritten {
    pub host: Option<String>,
    /// Path and query.
    pub url: Option<Vec<u8>>,
    pub outcome: Option<Outcome>,
}

impl Rewritten {
    /// Applies a rule's transforms.
    ///
    /// # Errors
    /// With the status to answer, when one matches and makes nothing that could be sent.
    pub fn take(&mut self, head: &Head<'_, '_>, transforms: &Transforms) -> Result<(), u16> {
        if transforms.is_empty() {
            return Ok(());
        }
        match rewritten(head, transforms) {
            Ok(rewritten) => *self = rewritten,
            Err(outcome) => {
                self.outcome = Some(outcome);
                return Err(500);
            }
        }
        Ok(())
    }

    pub fn write_url(&self, head: &Head<'_, '_>, out: &mut Vec<u8>) {
        match &self.url {
            Some(url) => out.extend_from_slice(url),
            None => push_url(head, out),
        }
    }

    pub fn write_host(&self, head: &Head<'_, '_>, table: &Table, client: &Client, out: &mut Vec<u8>) {
        if let Some(rewritten) = &self.host {
            out.extend_from_slice(rewritten.as_bytes());
            return;
        }
        let Some(host) = head.host else {
            let _ = write!(out, "{}", client.local);
            return;
        };
        if table.attributes.preserve_host {
            out.extend_from_slice(head.host_header.unwrap_or(host).as_bytes());
            return;
        }
        let own = matches!((table.protocol, table.port), (Protocol::Http, 80) | (Protocol::Https, 443));
        push_host(host, (!own).then_some(table.port), out);
    }
}

/// A host that is not left alone. On its protocol's own port (None) a listener takes the port away, on others it adds its
/// own where there is none.
fn push_host(host: &str, port: Option<u16>, out: &mut Vec<u8>) {
    let name = host_name(host);
    out.extend_from_slice(name.as_bytes());
    let Some(port) = port else { return };
    out.extend_from_slice(&host.as_bytes()[name.len()..]);
    if name.len() == host.len() && !host.is_empty() {
        out.push(b':');
        push_decimal(out, port.into());
    }
}

fn push_url(head: &Head<'_, '_>, out: &mut Vec<u8>) {
    out.extend_from_slice(head.path.as_bytes());
    if let Some(query) = head.query {
        out.push(b'?');
        out.extend_from_slice(query.as_bytes());
    }
}

fn rewritten(head: &Head<'_, '_>, transforms: &Transforms) -> Result<Rewritten, Outcome> {
    let mut url = Vec::with_capacity(head.path.len() + head.query.map_or(0, |query| query.len() + 1));
    push_url(head, &mut url);
    let url = transforms.url(&url);
    // As long as a client's may be; an expression cannot break a request line.
    if url.as_ref().is_some_and(|url| url.len() > MAX_REQUEST_LINE) {
        return Err(Outcome::BufferTooSmall);
    }
    let is_url =
        |url: &Vec<u8>| url.first() == Some(&b'/') && url.iter().all(|byte| *byte > b' ' && *byte != 0x7f);
    if !url.as_ref().is_none_or(is_url) {
        return Err(Outcome::InvalidPath);
    }
    let host = transforms.host(head.host_name().as_bytes());
    let host = host.map(|host| String::from_utf8(host).map_err(|_| Outcome::InvalidHost)).transpose()?;
    if host.as_ref().is_some_and(|host| host.is_empty() || !is_authority(host)) {
        return Err(Outcome::InvalidHost);
    }
    let outcome = (url.is_some() || host.is_some()).then_some(Outcome::Success);
    Ok(Rewritten { host, url, outcome })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn hosts_are_changed_as_documented() {
        for (host, port, expected) in [
            ("a.example", None, "a.example"),
            ("a.example:80", None, "a.example"),
            ("[::1]:80", None, "[::1]"),
            ("[::1]", None, "[::1]"),
            ("a.example", Some(8080), "a.example:8080"),
            ("a.example:80", Some(8080), "a.example:80"),
            ("", Some(8080), ""),
        ] {
            let mut out = Vec::new();
            push_host(host, port, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), expected, "{host} {port:?}");
        }
    }
}
