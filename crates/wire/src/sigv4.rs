//! AWS Signature Version 4: verifying what clients sign, in a header or in a query string, and signing what our own
//! agent sends. Facts: AWS's public description of the algorithm. The time and the keys are arguments.

use crate::field::{EpochMillis, Secret};
use std::fmt::Write as _;
use subtle::ConstantTimeEq;

mod activation;
mod canonical;
mod checksum;
mod key;
mod payload;
mod refusal;
mod seal;
mod session;
mod stamp;

pub use activation::{activation_code, machine_key, machine_of};
pub use canonical::{UNSIGNED_PAYLOAD, sha256_hex};
pub use key::SigningKey;
pub use payload::{Chunked, Payload};
pub use refusal::Refusal;
pub use session::{ACCESS_KEY_PREFIX, SessionKey};
pub use stamp::Stamp;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
/// The header that tells a body's hash, or that the body goes without one, or that it comes in signed chunks.
const CONTENT_SHA256: &str = "x-amz-content-sha256";
/// How far a client's clock may be off: AWS's figure.
const SKEW_MAX_MILLIS: i64 = 5 * 60 * 1000;
/// Longest life of a presigned URL: AWS's figure, a week.
const EXPIRES_MAX_SECONDS: i64 = 7 * 24 * 3600;

/// A request as far as its signature is concerned.
#[derive(Clone, Copy)]
pub struct SignedRequest<'a> {
    pub method: &'a str,
    /// As it came, percent-encoded.
    pub path: &'a str,
    /// Without the question mark.
    pub query: &'a str,
    /// Lower-case names; a name may stand more than once.
    pub headers: &'a [(&'a str, &'a str)],
    pub body: &'a [u8],
}

impl<'a> SignedRequest<'a> {
    fn header(&self, name: &str) -> Option<&'a str> {
        self.headers.iter().find(|(key, _)| *key == name).map(|(_, value)| *value)
    }
}

/// What a request claims about its signer. Nothing of it is proven before [`Claim::verify`].
#[derive(Clone, Debug)]
pub struct Claim {
    pub access_key_id: String,
    pub region: String,
    pub service: String,
    pub session_token: Option<String>,
    /// The whole of what `Credential` says, which names exactly one signing key.
    pub credential: String,
    stamp: Stamp,
    signed_headers: Vec<String>,
    signature: String,
    presigned_seconds: Option<i64>,
}

fn incomplete(message: impl Into<String>) -> Refusal {
    Refusal::Incomplete(message.into())
}

impl Claim {
    /// Reads the claim of a request from its `Authorization` header or its presigned query.
    ///
    /// # Errors
    /// What is missing or malformed, in AWS's words and order of checks.
    pub fn read(request: &SignedRequest<'_>) -> Result<Claim, Refusal> {
        let presigned =
            request.query.contains("X-Amz-Algorithm=") || request.query.contains("X-Amz-Signature=");
        match request.header("authorization") {
            Some(_) if presigned => Err(Refusal::Mismatch(
                "Found both 'X-Amz-Algorithm' as a query-string param and 'Authorization' as HTTP header."
                    .to_owned(),
            )),
            Some(header) => Claim::from_header(request, header),
            None if presigned => Claim::from_query(request),
            None => Err(Refusal::Missing),
        }
    }

    fn from_header(request: &SignedRequest<'_>, header: &str) -> Result<Claim, Refusal> {
        let rest = header
            .strip_prefix(ALGORITHM)
            .ok_or_else(|| incomplete("Authorization header requires the algorithm AWS4-HMAC-SHA256."))?;
        let part = |name: &str| {
            let found = rest.split(',').find_map(|part| part.trim().strip_prefix(name)?.strip_prefix('='));
            found.ok_or_else(|| incomplete(format!("Authorization header requires '{name}' parameter.")))
        };
        let stamp = request.header("x-amz-date").and_then(Stamp::parse);
        let stamp =
            stamp.ok_or_else(|| incomplete("Authorization header requires a valid 'X-Amz-Date' header."))?;
        let token = request.header("x-amz-security-token").map(str::to_owned);
        Claim::new(part("Credential")?, part("SignedHeaders")?, part("Signature")?, stamp, token, None)
    }

    fn from_query(request: &SignedRequest<'_>) -> Result<Claim, Refusal> {
        let pairs = crate::query::pairs(request.query.as_bytes()).map_err(|e| incomplete(e.message))?;
        let value = |name: &str| pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let need = |name: &str| {
            value(name)
                .ok_or_else(|| incomplete(format!("AWS query-string parameters must include '{name}'.")))
        };
        if need("X-Amz-Algorithm")? != ALGORITHM {
            return Err(incomplete("Unsupported AWS 'algorithm'."));
        }
        let stamp =
            Stamp::parse(need("X-Amz-Date")?).ok_or_else(|| incomplete("X-Amz-Date is not a time."))?;
        let expires = need("X-Amz-Expires")?.parse().ok().filter(|s| (1..=EXPIRES_MAX_SECONDS).contains(s));
        let expires =
            expires.ok_or_else(|| incomplete("X-Amz-Expires must be between 1 second and a week."))?;
        let token = value("X-Amz-Security-Token").map(str::to_owned);
        let (credential, headers) = (need("X-Amz-Credential")?, need("X-Amz-SignedHeaders")?);
        Claim::new(credential, headers, need("X-Amz-Signature")?, stamp, token, Some(expires))
    }

    fn new(
        credential: &str,
        signed_headers: &str,
        signature: &str,
        stamp: Stamp,
        session_token: Option<String>,
        presigned_seconds: Option<i64>,
    ) -> Result<Claim, Refusal> {
        let signed_headers: Vec<String> = signed_headers.split(';').map(str::to_owned).collect();
        if !signed_headers.iter().any(|header| header == "host") {
            return Err(Refusal::unsigned("Host"));
        }
        let scope: Vec<&str> = credential.rsplitn(5, '/').collect();
        let [terminal, service, region, date, access_key_id] = scope[..] else {
            return Err(incomplete(
                "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term.",
            ));
        };
        if terminal != "aws4_request" {
            let message = "Credential should be scoped with a valid terminator: 'aws4_request'.";
            return Err(Refusal::Mismatch(message.to_owned()));
        }
        if date != stamp.date() {
            let message =
                "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP.";
            return Err(Refusal::Mismatch(message.to_owned()));
        }
        Ok(Claim {
            access_key_id: access_key_id.to_owned(),
            region: region.to_owned(),
            service: service.to_owned(),
            session_token,
            credential: credential.to_owned(),
            stamp,
            signed_headers,
            signature: signature.to_owned(),
            presigned_seconds,
        })
    }

    /// The key that this claim's signature needs, from its holder's secret.
    pub fn key(&self, secret: &Secret) -> SigningKey {
        SigningKey::derive(secret, &self.stamp.date(), &self.region, &self.service)
    }

    /// The credential scope: date, region, service and the terminator.
    fn scope(&self) -> &str {
        self.credential.get(self.access_key_id.len() + 1..).unwrap_or_default()
    }

    /// Checks time, signed headers, signature and payload. `payload` is what was read from the request's body, and
    /// `key` what [`Claim::key`] made, now or for an earlier request with the same `credential`.
    ///
    /// # Errors
    /// In the words that AWS has for a wrong clock, an unsigned header and a wrong signature.
    pub fn verify(
        &self,
        request: &SignedRequest<'_>,
        payload: &Payload<'_>,
        key: &SigningKey,
        now: EpochMillis,
    ) -> Result<(), Refusal> {
        self.check_time(now)?;
        // AWS asks for each of these to be signed, for they steer what a request does. A body's hash needs no
        // signature of its own: it is part of what is signed.
        let loose = request.headers.iter().find(|(name, _)| {
            name.starts_with("x-amz-")
                && *name != CONTENT_SHA256
                && !self.signed_headers.iter().any(|signed| signed == name)
        });
        if let Some((name, _)) = loose {
            return Err(Refusal::unsigned(name));
        }
        let hash = match (payload, self.declared_hash(request)) {
            (Payload::Chunked(chunked), _) => chunked.form().literal().to_owned(),
            (Payload::Whole(_), Some(UNSIGNED_PAYLOAD)) => UNSIGNED_PAYLOAD.to_owned(),
            // A declared hash counts only if it is the body's.
            (Payload::Whole(body), _) => sha256_hex(body),
        };
        let canonical = canonical::request(request, &self.service, &self.signed_headers, &hash);
        let expected = key.signature(&self.stamp, self.scope(), &canonical);
        if !bool::from(expected.as_bytes().ct_eq(self.signature.as_bytes())) {
            return Err(Refusal::different());
        }
        match payload {
            Payload::Whole(_) => Ok(()),
            Payload::Chunked(chunked) => chunked.verify(key, &self.stamp, self.scope(), expected),
        }
    }

    fn check_time(&self, now: EpochMillis) -> Result<(), Refusal> {
        let age = now.0.saturating_sub(self.stamp.at().0);
        let life = self.presigned_seconds.map_or(SKEW_MAX_MILLIS, |seconds| seconds * 1000);
        let (signed, at) = (self.stamp, Stamp::of(now));
        if age > life {
            let limit = Stamp::of(EpochMillis(now.0 - life));
            let seconds = life / 1000;
            return Err(Refusal::Expired(format!(
                "Signature expired: {signed} is now earlier than {limit} ({at} - {seconds} s.)"
            )));
        }
        if age < -SKEW_MAX_MILLIS {
            let limit = Stamp::of(EpochMillis(now.0 + SKEW_MAX_MILLIS));
            return Err(Refusal::Expired(format!(
                "Signature not yet current: {signed} is still later than {limit} ({at} + {} min.)",
                SKEW_MAX_MILLIS / 60_000
            )));
        }
        Ok(())
    }

    /// What the signer said of the body's hash: in a header, or for a presigned request also in the query.
    fn declared_hash<'a>(&self, request: &SignedRequest<'a>) -> Option<&'a str> {
        let in_query = || {
            let mut pairs = request.query.split('&').filter_map(|pair| pair.split_once('='));
            pairs.find(|(name, _)| *name == "X-Amz-Content-Sha256").map(|(_, value)| value)
        };
        let presigned = self.presigned_seconds.is_some();
        request.header(CONTENT_SHA256).or_else(|| in_query().filter(|_| presigned))
    }
}

/// The keys to sign with.
#[derive(Clone, Debug)]
pub struct Credentials {
    pub access_key_id: String,
    pub secret_access_key: Secret,
    pub session_token: Option<Secret>,
}

/// Signs a request in the header form. Returns the headers to add: `x-amz-date`, with a session token
/// `x-amz-security-token`, and `authorization`. All of `request.headers` are signed; `host` must be among them.
pub fn sign(
    request: &SignedRequest<'_>,
    credentials: &Credentials,
    region: &str,
    service: &str,
    now: EpochMillis,
) -> Vec<(&'static str, String)> {
    let stamp = Stamp::of(now);
    let mut added = vec![("x-amz-date", stamp.to_string())];
    if let Some(token) = &credentials.session_token {
        added.push(("x-amz-security-token", token.expose().to_owned()));
    }
    let mut headers: Vec<(&str, &str)> = request.headers.to_vec();
    headers.extend(added.iter().map(|(name, value)| (*name, value.as_str())));
    let mut names: Vec<String> = headers.iter().map(|(name, _)| (*name).to_owned()).collect();
    names.sort();
    names.dedup();
    let all = SignedRequest { headers: &headers, ..*request };
    let canonical = canonical::request(&all, service, &names, &sha256_hex(request.body));
    let scope = format!("{}/{region}/{service}/aws4_request", stamp.date());
    let key = SigningKey::derive(&credentials.secret_access_key, &stamp.date(), region, service);
    let signature = key.signature(&stamp, &scope, &canonical);
    let mut authorization = String::new();
    let _ = write!(
        authorization,
        "{ALGORITHM} Credential={}/{scope}, SignedHeaders={}, Signature={signature}",
        credentials.access_key_id,
        names.join(";"),
    );
    added.push(("authorization", authorization));
    added
}

#[cfg(test)]
mod tests;
