//! Reading certificates: the names that one is for, and what targets and logs are told of a client's.

use super::http::civil;
use rustls::pki_types::{CertificateDer, UnixTime};
use std::fmt::Write as _;
use std::time::Duration;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::objects::{oid_registry, oid2abbrev};
use x509_parser::prelude::FromDer as _;
use x509_parser::time::ASN1Time;
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

/// A client's certificate, in the forms in which application load balancers tell of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// As RFC 2253 writes names.
    pub subject: String,
    /// As above: who signed it.
    pub issuer: String,
    /// `NotBefore=2023-09-21T22:43:21Z;NotAfter=…`.
    pub validity: String,
    /// In hexadecimal digits.
    pub serial: String,
    /// It and the ones above it that the client sent, as URL-encoded PEM.
    pub chain: String,
    /// Bytes of the chain that are its own.
    own: usize,
}

impl ClientCertificate {
    /// It alone, as URL-encoded PEM.
    pub fn leaf(&self) -> &str {
        self.chain.get(..self.own).unwrap_or_default()
    }

    /// What there is to tell of a chain, the client's own certificate first. None when that is not X.509.
    pub fn read(chain: &[CertificateDer<'_>]) -> Option<ClientCertificate> {
        let own = chain.first()?;
        let (_, parsed) = X509Certificate::from_der(own).ok()?;
        let validity = parsed.validity();
        let serial = parsed.raw_serial();
        // A positive number's first byte may be there for its sign alone.
        let digits = serial.strip_prefix(&[0]).filter(|rest| !rest.is_empty()).unwrap_or(serial);
        let leaf = url_encoded_pem(own);
        Some(ClientCertificate {
            subject: name(parsed.subject()),
            issuer: name(parsed.issuer()),
            validity: format!(
                "NotBefore={};NotAfter={}",
                time(validity.not_before),
                time(validity.not_after)
            ),
            serial: hex(digits),
            own: leaf.len(),
            chain: chain.iter().skip(1).fold(leaf, |all, certificate| all + &url_encoded_pem(certificate)),
        })
    }
}

/// When a certificate ends. None for what is not X.509.
pub fn end(certificate: &CertificateDer<'_>) -> Option<UnixTime> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let seconds = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0);
    Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
}

/// The names that a certificate is for, in lower case: its alternative names, or its subject's common name where it has
/// none of them, as Certificate Manager counts them.
pub fn dns_names(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { return Vec::new() };
    let alternative = parsed.subject_alternative_name().ok().flatten();
    let names = alternative.iter().flat_map(|extension| &extension.value.general_names);
    let names = names.filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    });
    let names: Vec<String> = names.collect();
    if !names.is_empty() {
        return names;
    }
    let common = parsed.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
    common.map(str::to_ascii_lowercase).into_iter().collect()
}

/// A distinguished name as RFC 2253 writes it: the last part first. What is not plain ASCII is escaped.
fn name(name: &X509Name<'_>) -> String {
    let parts: Vec<&_> = name.iter_rdn().collect();
    let part = |part: &x509_parser::x509::RelativeDistinguishedName<'_>| {
        part.iter().map(attribute).collect::<Vec<_>>().join("+")
    };
    parts.into_iter().rev().map(part).collect::<Vec<_>>().join(",")
}

fn attribute(attribute: &AttributeTypeAndValue<'_>) -> String {
    let key = match oid2abbrev(attribute.attr_type(), oid_registry()) {
        Ok(known) => known.to_owned(),
        Err(_) => attribute.attr_type().to_id_string(),
    };
    match attribute.as_str() {
        Ok(text) => format!("{key}={}", escaped(text)),
        // A string of a kind that nobody uses any more, or none.
        Err(_) => format!("{key}=#{}", hex(attribute.attr_value().data)),
    }
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let last = text.len().saturating_sub(1);
    for (at, byte) in text.bytes().enumerate() {
        let at_an_end = (byte == b' ' && (at == 0 || at == last)) || (byte == b'#' && at == 0);
        if b",+\"\\<>;".contains(&byte) || at_an_end {
            out.push('\\');
            out.push(char::from(byte));
        } else if (b' '..=b'~').contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "\\{byte:02X}");
        }
    }
    out
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02X}");
        out
    })
}

/// `2023-09-21T22:43:21Z`.
fn time(at: ASN1Time) -> String {
    let seconds = at.timestamp();
    let (year, month, day) = civil(seconds.div_euclid(86_400));
    let second = seconds.rem_euclid(86_400);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60)
}

/// A certificate as PEM, URL-encoded with `+`, `=` and `/` left as they are, as documented.
fn url_encoded_pem(certificate: &[u8]) -> String {
    let mut out = "-----BEGIN%20CERTIFICATE-----%0A".to_owned();
    let text = base64(certificate);
    for line in text.as_bytes().chunks(64) {
        out.extend(line.iter().copied().map(char::from));
        out.push_str("%0A");
    }
    out + "-----END%20CERTIFICATE-----%0A"
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn values_of_names_are_escaped() {
        for (text, expected) in [
            ("plain name", "plain name"),
            ("a, b+c", "a\\, b\\+c"),
            (" #x ", "\\ #x\\ "),
            ("#1", "\\#1"),
            ("caf\u{e9}\r\nX-Evil: 1", "caf\\C3\\A9\\0D\\0AX-Evil: 1"),
        ] {
            assert_eq!(escaped(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_certificate_has_no_names() {
        assert!(dns_names(&CertificateDer::from(b"\x30\x03abc".to_vec())).is_empty());
        assert_eq!(ClientCertificate::read(&[CertificateDer::from(Vec::new())]), None);
        assert_eq!(ClientCertificate::read(&[]), None);
    }

    #[test]
    fn certificates_are_url_encoded_in_lines() {
        let encoded = url_encoded_pem(&[0xfb; 49]);
        let text = "+/v7".repeat(16);
        assert_eq!(
            encoded,
            format!("-----BEGIN%20CERTIFICATE-----%0A{text}%0A+w==%0A-----END%20CERTIFICATE-----%0A")
        );
    }
}
