//! Tells API clients from browser pages that were tricked, or trick their user, into calling a server on localhost.
//!
//! A page of another site shows itself by `Origin`. A page whose name was made to resolve to our address (DNS
//! rebinding) shows itself by `Host`: it must use its own name there, never an address.

use super::Refusal;
use http::header::{HOST, ORIGIN};
use http::request::Parts;
use http::uri::Authority;
use std::net::IpAddr;

/// Checks `Host` and `Origin`.
///
/// # Errors
/// What is foreign about the request.
pub(super) fn check(parts: &Parts, host_names: &[String]) -> Result<(), Refusal> {
    let mut hosts = parts.headers.get_all(HOST).iter();
    // HTTP/1.1 demands exactly one.
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return Err(Refusal::ForeignHost) };
    let host = host.to_str().map_err(|_| Refusal::ForeignHost)?;
    let authority: Authority = host.parse().map_err(|_| Refusal::ForeignHost)?;
    let name = authority.host();
    let configured = host_names.iter().any(|known| known == "*" || known.eq_ignore_ascii_case(name));
    if !configured && !is_local(name) {
        return Err(Refusal::ForeignHost);
    }
    for origin in parts.headers.get_all(ORIGIN) {
        // `null` is what sandboxed frames send. The console is served from here, so its origin is our own host.
        let site = origin.to_str().ok().and_then(|text| text.split_once("://")).map(|(_, site)| site);
        if !site.is_some_and(|site| site.eq_ignore_ascii_case(host)) {
            return Err(Refusal::ForeignOrigin);
        }
    }
    Ok(())
}

/// Addresses, and names that no stranger's DNS can point here: `localhost` and below it, and names without a dot or
/// under `.internal`, as container networks give.
fn is_local(name: &str) -> bool {
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    let lower = name.to_ascii_lowercase();
    bare.parse::<IpAddr>().is_ok()
        || !lower.is_empty() && !lower.contains(['.', ':'])
        || lower.ends_with(".localhost")
        || lower.ends_with(".internal")
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
            "ecs.LocalHost",
            "ECS.example.net:443",
        ] {
            assert_eq!(checked(&[host], None), Ok(()), "{host}");
        }
        assert_eq!(checked(&["localhost:4566"], Some("http://localhost:4566")), Ok(()), "our own console");
        assert_eq!(checked(&["ecs.example.net"], Some("https://ecs.example.net")), Ok(()));
    }

    #[test]
    fn tricked_browsers_do_not() {
        for host in ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:4566", ""] {
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
