//! Signatures against AWS's published example, against our own signer, and against tampering.
#![allow(clippy::unwrap_used)]

use super::*;

const KEY: &str = "AKIDEXAMPLE";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

fn at(stamp: &str) -> EpochMillis {
    Stamp::parse(stamp).unwrap().at()
}

/// The worked example of AWS's documentation: IAM's ListUsers on 30 August 2015.
#[test]
fn the_published_example_verifies() {
    let authorization = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/iam/aws4_request, \
                         SignedHeaders=content-type;host;x-amz-date, \
                         Signature=5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7";
    let headers = [
        ("content-type", "application/x-www-form-urlencoded; charset=utf-8"),
        ("host", "iam.amazonaws.com"),
        ("x-amz-date", "20150830T123600Z"),
        ("authorization", authorization),
    ];
    let request = SignedRequest {
        method: "GET",
        path: "/",
        query: "Action=ListUsers&Version=2010-05-08",
        headers: &headers,
        body: b"",
    };
    let claim = Claim::read(&request).unwrap();
    assert_eq!(
        (claim.access_key_id.as_str(), claim.region.as_str(), claim.service.as_str()),
        (KEY, "us-east-1", "iam")
    );
    let key = claim.key(&Secret::new(SECRET));
    claim.verify(&request, &Payload::Whole(b""), &key, at("20150830T123600Z")).unwrap();
}

/// The worked example of S3's documentation: PUT of an object whose name has a dollar sign, which is encoded once.
#[test]
fn the_published_example_of_s3_verifies() {
    let authorization = "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, \
                         SignedHeaders=date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class, \
                         Signature=98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd";
    let body = b"Welcome to Amazon S3.";
    let hash = sha256_hex(body);
    let headers = [
        ("date", "Fri, 24 May 2013 00:00:00 GMT"),
        ("host", "examplebucket.s3.amazonaws.com"),
        ("x-amz-content-sha256", hash.as_str()),
        ("x-amz-date", "20130524T000000Z"),
        ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
        ("authorization", authorization),
    ];
    let path = "/test%24file.text";
    let request = SignedRequest { method: "PUT", path, query: "", headers: &headers, body };
    let claim = Claim::read(&request).unwrap();
    let key = claim.key(&Secret::new("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"));
    claim.verify(&request, &Payload::Whole(body), &key, at("20130524T000000Z")).unwrap();
}

fn signed(now: EpochMillis) -> Vec<(&'static str, String)> {
    let headers = [("host", "localhost:4566"), ("x-amz-target", "X.RunTask")];
    let request = SignedRequest { method: "POST", path: "/", query: "", headers: &headers, body: b"{}" };
    let credentials = Credentials {
        access_key_id: KEY.to_owned(),
        secret_access_key: Secret::new(SECRET),
        session_token: None,
    };
    let mut all: Vec<(&str, String)> = headers.iter().map(|(k, v)| (*k, (*v).to_owned())).collect();
    all.extend(sign(&request, &credentials, "eu-north-1", "ecs", now));
    all
}

fn verify(headers: &[(&str, String)], body: &[u8], now: EpochMillis) -> Result<(), Refusal> {
    let headers: Vec<(&str, &str)> = headers.iter().map(|(k, v)| (*k, v.as_str())).collect();
    let request = SignedRequest { method: "POST", path: "/", query: "", headers: &headers, body };
    let claim = Claim::read(&request)?;
    claim.verify(&request, &Payload::Whole(body), &claim.key(&Secret::new(SECRET)), now)
}

#[test]
fn what_is_signed_verifies_until_anything_changes() {
    let now = at("20310101T060000Z");
    let headers = signed(now);
    verify(&headers, b"{}", now).unwrap();
    assert!(verify(&headers, b"{ }", now).is_err(), "another body");
    let mut tampered = headers.clone();
    tampered[1].1 = "X.StopTask".to_owned();
    assert!(verify(&tampered, b"{}", now).is_err(), "another operation");
    let late = EpochMillis(now.0 + SKEW_MAX_MILLIS + 1000);
    assert!(verify(&headers, b"{}", late).unwrap_err().to_string().starts_with("Signature expired"));
}

#[test]
fn a_missing_part_has_its_own_error() {
    let now = at("20310101T060000Z");
    let refusal = |headers: &[(&str, String)]| verify(headers, b"{}", now).unwrap_err();
    assert_eq!(refusal(&[("host", "x".to_owned())]), Refusal::Missing);
    for broken in
        ["Basic x", "AWS4-HMAC-SHA256", "AWS4-HMAC-SHA256 Credential=a/b, SignedHeaders=host, Signature=0"]
    {
        let headers = [
            ("host", "x".to_owned()),
            ("x-amz-date", "20310101T060000Z".to_owned()),
            ("authorization", broken.to_owned()),
        ];
        assert!(matches!(refusal(&headers), Refusal::Incomplete(_)), "{broken}");
    }
}

#[test]
fn stamps_that_do_not_exist_are_refused() {
    for text in [
        "",
        "20310101T060000",
        "20310230T060000Z",
        "20311301T000000Z",
        "20310101T246000Z",
        "2031010aT000000Z",
    ] {
        assert!(Stamp::parse(text).is_none(), "{text}");
    }
    assert_eq!(Stamp::parse("19700101T000001Z").unwrap().at(), EpochMillis(1000));
}

/// The same request with its signature in the query string, over `payload` as the hash of the body.
fn presigned(payload: &str, extra: &str) -> String {
    let scope = "20310101/eu-north-1/ecs/aws4_request";
    let query = format!(
        "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={KEY}%2F{}&X-Amz-Date=20310101T060000Z\
         &X-Amz-Expires=60&X-Amz-SignedHeaders=host{extra}",
        scope.replace('/', "%2F")
    );
    let headers = [("host", "localhost")];
    let request = SignedRequest { method: "POST", path: "/", query: &query, headers: &headers, body: b"" };
    let canonical = canonical::request(&request, "ecs", &["host".to_owned()], payload);
    let key = SigningKey::derive(&Secret::new(SECRET), "20310101", "eu-north-1", "ecs");
    let stamp = Stamp::parse("20310101T060000Z").unwrap();
    format!("{query}&X-Amz-Signature={}", key.signature(&stamp, scope, &canonical))
}

fn verify_presigned(query: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<(), Refusal> {
    let all: Vec<(&str, &str)> = [("host", "localhost")].iter().chain(headers).copied().collect();
    let request = SignedRequest { method: "POST", path: "/", query, headers: &all, body };
    let claim = Claim::read(&request)?;
    claim.verify(&request, &Payload::Whole(body), &claim.key(&Secret::new(SECRET)), at("20310101T060010Z"))
}

#[test]
fn a_presigned_request_is_bound_to_its_body() {
    let body = br#"{"cluster":"c"}"#;
    let over_body = presigned(&sha256_hex(body), "");
    verify_presigned(&over_body, &[], body).unwrap();
    verify_presigned(&over_body, &[], b"{}").unwrap_err();
    verify_presigned(&over_body, &[("x-amz-content-sha256", UNSIGNED_PAYLOAD)], b"{}").unwrap_err();

    // Signed over no body, or over a hash that the header repeats: no other body may come with it.
    verify_presigned(&presigned(&sha256_hex(b""), ""), &[], body).unwrap_err();
    let declared = sha256_hex(b"{}");
    verify_presigned(&presigned(&declared, ""), &[("x-amz-content-sha256", &declared)], body).unwrap_err();
    verify_presigned(&presigned(&declared, ""), &[("x-amz-content-sha256", &declared)], b"{}").unwrap();

    // Only a signer who said so left the body open.
    verify_presigned(&presigned(UNSIGNED_PAYLOAD, ""), &[], body).unwrap_err();
    let open = presigned(UNSIGNED_PAYLOAD, "&X-Amz-Content-Sha256=UNSIGNED-PAYLOAD");
    verify_presigned(&open, &[], body).unwrap();
}

#[test]
fn amz_headers_beside_the_signature_are_refused() {
    let now = at("20310101T060000Z");
    let mut headers = signed(now);
    headers.push(("x-amz-target", "X.StopTask".to_owned()));
    assert!(verify(&headers, b"{}", now).is_err(), "a signed header has another value");
    let mut headers = signed(now);
    headers.push(("x-amz-meta", "1".to_owned()));
    let error = verify(&headers, b"{}", now).unwrap_err();
    let text = "'x-amz-meta' must be a 'SignedHeader' in the AWS Authorization.";
    assert_eq!(error.to_string(), text);
    let query = presigned(&sha256_hex(b""), "");
    assert_eq!(verify_presigned(&query, &[("x-amz-meta", "1")], b"").unwrap_err().to_string(), text);

    // What proxies add on the way, and a hash that only repeats what the signature covers.
    let mut headers = signed(now);
    headers.push(("x-amzn-trace-id", "Root=1".to_owned()));
    headers.push(("x-amz-content-sha256", sha256_hex(b"{}")));
    verify(&headers, b"{}", now).unwrap();
}

#[test]
fn refusals_have_the_protocol_s_codes() {
    let refusal = Refusal::Unknown;
    let codes = |refusal: &Refusal| {
        let json = refusal.in_protocol(crate::Protocol::AwsJson("1.1"));
        let query = refusal.in_protocol(crate::Protocol::AwsQuery);
        ((json.code.into_owned(), json.status), (query.code.into_owned(), query.status))
    };
    let (json, query) = codes(&refusal);
    assert_eq!(json, ("UnrecognizedClientException".to_owned(), 400));
    assert_eq!(query, ("InvalidClientTokenId".to_owned(), 403));
    let (json, query) = codes(&Refusal::Mismatch("x".to_owned()));
    assert_eq!(json, ("InvalidSignatureException".to_owned(), 400));
    assert_eq!(query, ("SignatureDoesNotMatch".to_owned(), 403));
}
