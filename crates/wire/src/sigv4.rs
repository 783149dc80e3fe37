//! AWS Signature Version 4: verifying what clients sign, in a header or in a query string, and signing what our own
//! agent sends. Facts: AWS's public description of the algorithm. The time and the keys are arguments.

use crate::error::ApiError;
use crate::field::{EpochMillis, Secret};
use aws_lc_rs::{digest, hmac};
use std::fmt::Write as _;
use subtle::ConstantTimeEq;

mod canonical;
mod stamp;

pub use canonical::{UNSIGNED_PAYLOAD, sha256_hex};
pub use stamp::Stamp;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
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

impl SignedRequest<'_> {
    fn header(&self, name: &str) -> Option<&str> {
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
    date: String,
    stamp: Stamp,
    signed_headers: Vec<String>,
    signature: String,
    presigned_seconds: Option<i64>,
}

fn incomplete(message: &str) -> ApiError {
    ApiError::new("IncompleteSignatureException", message)
}

impl Claim {
    /// Reads the claim of a request from its `Authorization` header or its presigned query.
    ///
    /// # Errors
    /// `MissingAuthenticationTokenException` without any, `IncompleteSignatureException` for one with parts missing.
    pub fn read(request: &SignedRequest<'_>) -> Result<Claim, ApiError> {
        match request.header("authorization") {
            Some(header) => Claim::from_header(request, header),
            None if request.query.contains("X-Amz-Signature=") => Claim::from_query(request),
            None => Err(ApiError::new("MissingAuthenticationTokenException", "Missing Authentication Token")),
        }
    }

    fn from_header(request: &SignedRequest<'_>, header: &str) -> Result<Claim, ApiError> {
        let rest = header
            .strip_prefix(ALGORITHM)
            .ok_or_else(|| incomplete("Authorization header requires the algorithm AWS4-HMAC-SHA256."))?;
        let part = |name: &str| {
            let found = rest.split(',').find_map(|part| part.trim().strip_prefix(name)?.strip_prefix('='));
            found.ok_or_else(|| incomplete(&format!("Authorization header requires '{name}' parameter.")))
        };
        let stamp = request.header("x-amz-date").and_then(Stamp::parse);
        let stamp =
            stamp.ok_or_else(|| incomplete("Authorization header requires a valid 'X-Amz-Date' header."))?;
        let token = request.header("x-amz-security-token").map(str::to_owned);
        Claim::new(part("Credential")?, part("SignedHeaders")?, part("Signature")?, stamp, token, None)
    }

    fn from_query(request: &SignedRequest<'_>) -> Result<Claim, ApiError> {
        let pairs = crate::query::pairs(request.query.as_bytes())?;
        let value = |name: &str| pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let need = |name: &str| {
            value(name)
                .ok_or_else(|| incomplete(&format!("AWS query-string parameters must include '{name}'.")))
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
    ) -> Result<Claim, ApiError> {
        let scope: Vec<&str> = credential.rsplitn(5, '/').collect();
        let [terminal, service, region, date, access_key_id] = scope[..] else {
            return Err(incomplete("Credential must have 5 parts: key/date/region/service/aws4_request."));
        };
        if terminal != "aws4_request" || date != stamp.date() {
            return Err(incomplete(
                "Credential must be scoped to the request's date and end in 'aws4_request'.",
            ));
        }
        let signed_headers: Vec<String> = signed_headers.split(';').map(str::to_owned).collect();
        if !signed_headers.iter().any(|header| header == "host") {
            return Err(incomplete("'Host' must be a signed header."));
        }
        Ok(Claim {
            access_key_id: access_key_id.to_owned(),
            region: region.to_owned(),
            service: service.to_owned(),
            session_token,
            date: date.to_owned(),
            stamp,
            signed_headers,
            signature: signature.to_owned(),
            presigned_seconds,
        })
    }

    /// Checks time and signature against the key's secret.
    ///
    /// # Errors
    /// `InvalidSignatureException`, in the words AWS has for a wrong clock and for a wrong signature.
    pub fn verify(
        &self,
        request: &SignedRequest<'_>,
        secret: &Secret,
        now: EpochMillis,
    ) -> Result<(), ApiError> {
        let age = now.0.saturating_sub(self.stamp.at().0);
        let expired = match self.presigned_seconds {
            Some(seconds) => age > seconds * 1000 || age < -SKEW_MAX_MILLIS,
            None => age.abs() > SKEW_MAX_MILLIS,
        };
        if expired {
            let message = format!(
                "Signature expired or not yet current: {} is too far from the server's time",
                self.stamp
            );
            return Err(ApiError::new("InvalidSignatureException", message));
        }
        let payload = if self.presigned_seconds.is_some() {
            request.header("x-amz-content-sha256").unwrap_or(UNSIGNED_PAYLOAD).to_owned()
        } else {
            match request.header("x-amz-content-sha256") {
                Some(UNSIGNED_PAYLOAD) => UNSIGNED_PAYLOAD.to_owned(),
                // A declared hash counts only if it is the body's.
                _ => sha256_hex(request.body),
            }
        };
        let expected = self.signature_for(request, secret, &payload);
        if bool::from(expected.as_bytes().ct_eq(self.signature.as_bytes())) {
            return Ok(());
        }
        // A presigned URL for an operation with a body may have been signed over the hash of an empty one.
        if self.presigned_seconds.is_some() {
            let expected = self.signature_for(request, secret, &sha256_hex(request.body));
            if bool::from(expected.as_bytes().ct_eq(self.signature.as_bytes())) {
                return Ok(());
            }
        }
        let message = "The request signature we calculated does not match the signature you provided. Check your AWS \
                       Secret Access Key and signing method. Consult the service documentation for details.";
        Err(ApiError::new("InvalidSignatureException", message))
    }

    fn signature_for(&self, request: &SignedRequest<'_>, secret: &Secret, payload: &str) -> String {
        let canonical = canonical::request(request, &self.signed_headers, payload);
        let scope = format!("{}/{}/{}/aws4_request", self.date, self.region, self.service);
        let key = signing_key(secret, &self.date, &self.region, &self.service);
        signature(&key, &self.stamp, &scope, &canonical)
    }
}

fn mac(key: &[u8], data: &[u8]) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), data)
}

fn signing_key(secret: &Secret, date: &str, region: &str, service: &str) -> hmac::Tag {
    let secret = format!("AWS4{}", secret.expose());
    let key = mac(secret.as_bytes(), date.as_bytes());
    let key = mac(key.as_ref(), region.as_bytes());
    let key = mac(key.as_ref(), service.as_bytes());
    mac(key.as_ref(), b"aws4_request")
}

fn signature(key: &hmac::Tag, stamp: &Stamp, scope: &str, canonical: &str) -> String {
    let hash = digest::digest(&digest::SHA256, canonical.as_bytes());
    let mut text = format!("{ALGORITHM}\n{stamp}\n{scope}\n");
    canonical::push_hex(&mut text, hash.as_ref());
    let mut signature = String::with_capacity(64);
    canonical::push_hex(&mut signature, mac(key.as_ref(), text.as_bytes()).as_ref());
    signature
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
    let canonical = canonical::request(&all, &names, &sha256_hex(request.body));
    let scope = format!("{}/{region}/{service}/aws4_request", stamp.date());
    let key = signing_key(&credentials.secret_access_key, &stamp.date(), region, service);
    let signature = signature(&key, &stamp, &scope, &canonical);
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
