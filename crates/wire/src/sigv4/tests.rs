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
    claim.verify(&request, &Secret::new(SECRET), at("20150830T123600Z")).unwrap();
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

fn verify(headers: &[(&str, String)], body: &[u8], now: EpochMillis) -> Result<(), ApiError> {
    let headers: Vec<(&str, &str)> = headers.iter().map(|(k, v)| (*k, v.as_str())).collect();
    let request = SignedRequest { method: "POST", path: "/", query: "", headers: &headers, body };
    Claim::read(&request)?.verify(&request, &Secret::new(SECRET), now)
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
    assert!(verify(&headers, b"{}", late).unwrap_err().message.starts_with("Signature expired"));
}

#[test]
fn a_missing_part_has_its_own_error() {
    let now = at("20310101T060000Z");
    let code = |headers: &[(&str, String)]| verify(headers, b"{}", now).unwrap_err().code.into_owned();
    assert_eq!(code(&[("host", "x".to_owned())]), "MissingAuthenticationTokenException");
    for broken in
        ["Basic x", "AWS4-HMAC-SHA256", "AWS4-HMAC-SHA256 Credential=a/b, SignedHeaders=host, Signature=0"]
    {
        let headers = [
            ("host", "x".to_owned()),
            ("x-amz-date", "20310101T060000Z".to_owned()),
            ("authorization", broken.to_owned()),
        ];
        assert_eq!(code(&headers), "IncompleteSignatureException", "{broken}");
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
