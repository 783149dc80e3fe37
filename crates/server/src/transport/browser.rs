//! Tells API clients from browser pages that were tricked, or trick their user, into calling a server on localhost.
//!
//! A page of another site shows itself by `Origin`. A page whose name was made to resolve to our address (DNS
//! rebinding) shows itself by `Host`: it must use its own name there, never an address.

use super::Refusal;
use http::header::{HOST, ORIGIN};
use http::request::Parts;
use http::uri::Authority;
use std::net::{Ipv4Addr, Ipv6Addr};

/// Checks `Host` and `Origin`.
///
/// # Errors
/// What is foreign about the request.
pub(super) fn check(parts: &Parts, host_names: &[String]) -> Result<(), Refusal> {
    let mut hosts = parts.headers.get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return Err(Refusal::ForeignHost) };
    let host: Authority =
        host.to_str().ok().and_then(|text| text.parse().ok()).ok_or(Refusal::ForeignHost)?;
    if !is_ours(host.host(), host_names) {
        return Err(Refusal::ForeignHost);
    }
    for origin in parts.headers.get_all(ORIGIN) {
        // `null` is what sandboxed frames send. The console is served from here, so its origin is our own host.
        let same = origin
            .to_str()
            .ok()
            .and_then(|text| text.split_once("://"))
            .and_then(|(_, authority)| authority.parse::<Authority>().ok())
            .is_some_and(|origin| origin == host);
        if !same {
            return Err(Refusal::ForeignOrigin);
        }
    }
    Ok(())
}

fn is_ours(host: &str, host_names: &[String]) -> bool {
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    let address = bare.parse::<Ipv4Addr>().is_ok() || bare.parse::<Ipv6Addr>().is_ok();
    let lower = host.to_ascii_lowercase();
    // Browsers and resolvers keep `*.localhost` on loopback, so no other site can own such a name.
    let local = lower == "localhost" || lower.ends_with(".localhost");
    address || local || host_names.iter().any(|name| name == "*" || name.eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn checked(host: &[&str], origin: Option<&str>) -> Result<(), Refusal> {
        let mut request = http::Request::builder().uri("/");
        for host in host {
            request = request.header(HOST, *host);
        }
        if let Some(origin) = origin {
            request = request.header(ORIGIN, origin);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        check(&parts, &["ecs.example.net".to_owned()])
    }

    #[test]
    fn clients_pass() {
        for host in [
            "127.0.0.1:4566",
            "[::1]:4566",
            "192.0.2.7",
            "localhost:4566",
            "ecs.eu-north-1.LocalHost",
            "ECS.example.net:443",
        ] {
            assert_eq!(checked(&[host], None), Ok(()), "{host}");
        }
        assert_eq!(checked(&["localhost:4566"], Some("http://localhost:4566")), Ok(()), "our own console");
    }

    #[test]
    fn tricked_browsers_do_not() {
        for host in
            ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:4566", "notlocalhost", ""]
        {
            assert_eq!(checked(&[host], None), Err(Refusal::ForeignHost), "{host}");
        }
        assert_eq!(checked(&[], None), Err(Refusal::ForeignHost));
        assert_eq!(checked(&["localhost", "evil.example"], None), Err(Refusal::ForeignHost));
        for origin in
            ["http://evil.example", "null", "http://localhost:8080", "http://localhost:4566.evil.example"]
        {
            assert_eq!(checked(&["localhost:4566"], Some(origin)), Err(Refusal::ForeignOrigin), "{origin}");
        }
    }
}
