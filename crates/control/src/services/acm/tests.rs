//! Scripts: certificates imported, asked for, listed, used and deleted. The certificates were made by OpenSSL once and are
//! good until 2126.
#![allow(clippy::unwrap_used)]

use super::ops::{certificate, import, list, request, tag};
use super::x509::{self, Unfit};
use super::{check, links};
use crate::services::ecs::tests::world::{World, fails};
use crate::state::Installation;
use crate::tx::View;
use gantry_decide::time::Timestamp;
use gantry_wire::Secret;
use gantry_wire::sigv4::SessionKey;
use serde_json::{Value, json};
use std::sync::Arc;

const RSA: &str = include_str!("testdata/rsa.pem");
const RSA_KEY: &str = include_str!("testdata/rsa.key");
/// P-256, signed by [`ABOVE`]; its key in the form of SEC 1.
const LEAF: &str = include_str!("testdata/leaf.pem");
const LEAF_KEY: &str = include_str!("testdata/leaf.key");
const ABOVE: &str = include_str!("testdata/above.pem");
const LOCKED_KEY: &str = include_str!("testdata/locked.key");

/// 22 November 2026, after all of them began.
const NOW: Timestamp = Timestamp::from_millis(1_795_305_600_000);

pub(crate) fn world() -> World {
    let mut world = World::new();
    world.now = NOW;
    let key = Some(SessionKey::new(&[7; SessionKey::LENGTH]));
    world.state.installation = Arc::new(Installation { key, ..Installation::default() });
    world
}

fn blob(text: &str) -> Value {
    use base64::Engine as _;
    json!(base64::engine::general_purpose::STANDARD.encode(text))
}

fn imported(certificate: &str, key: &str, chain: Option<&str>) -> Value {
    let mut request = json!({ "Certificate": blob(certificate), "PrivateKey": blob(key) });
    if let Some(chain) = chain {
        request["CertificateChain"] = blob(chain);
    }
    request
}

pub(crate) fn import_rsa(world: &mut World) -> String {
    let reply = world.write(import::import_certificate, imported(RSA, RSA_KEY, None)).unwrap();
    reply["CertificateArn"].as_str().unwrap().to_owned()
}

fn described(world: &mut World, arn: &str) -> Value {
    let mut reply = world.read(certificate::describe_certificate, json!({ "CertificateArn": arn })).unwrap();
    reply["Certificate"].take()
}

fn view(world: &World) -> View<'_> {
    View { scope: &world.scope, state: &world.state, now: world.now }
}

/// What the server does for one that was asked for.
fn issue(world: &mut World) {
    let ids: Vec<_> = links::wanted(&world.state.acm, world.now).map(|(id, _)| id).collect();
    for id in ids {
        let key = Secret::new(RSA_KEY);
        world.edit(|tx| links::take_issued(tx, id, RSA, &key)).unwrap();
    }
}

#[test]
fn an_imported_certificate_is_shown_and_its_key_is_sealed() {
    let world = &mut world();
    let arn = import_rsa(world);
    assert!(arn.starts_with("arn:aws:acm:eu-north-1:") && arn.contains(":certificate/"), "{arn}");
    let shown = described(world, &arn);
    assert_eq!(shown["DomainName"], "web.example.com");
    assert_eq!(shown["SubjectAlternativeNames"], json!(["web.example.com", "*.web.example.com"]));
    assert_eq!((&shown["Type"], &shown["Status"]), (&json!("IMPORTED"), &json!("ISSUED")));
    assert_eq!(
        (&shown["KeyAlgorithm"], &shown["SignatureAlgorithm"]),
        (&json!("RSA_2048"), &json!("SHA256WITHRSA"))
    );
    assert_eq!(shown["KeyUsages"], json!([{ "Name": "DIGITAL_SIGNATURE" }, { "Name": "KEY_ENCIPHERMENT" }]));
    let purposes = json!([
        { "Name": "TLS_WEB_SERVER_AUTHENTICATION", "OID": "1.3.6.1.5.5.7.3.1" },
        { "Name": "TLS_WEB_CLIENT_AUTHENTICATION", "OID": "1.3.6.1.5.5.7.3.2" },
    ]);
    assert_eq!(shown["ExtendedKeyUsages"], purposes);
    assert_eq!((&shown["Issuer"], &shown["InUseBy"]), (&json!("Example"), &json!([])));
    assert_eq!(shown["RenewalEligibility"], "INELIGIBLE");
    let got = world.read(certificate::get_certificate, json!({ "CertificateArn": arn })).unwrap();
    assert_eq!(got["Certificate"].as_str().unwrap(), RSA);
    assert!(got.get("CertificateChain").is_none());

    let secret_line = RSA_KEY.lines().nth(2).unwrap();
    let stored = world.rows().values().map(|row| String::from_utf8_lossy(row).into_owned());
    let stored: String = stored.collect();
    assert!(!stored.contains(secret_line) && !stored.contains("PRIVATE KEY"));
    let held = format!("{:?}", world.state.acm.certificates.values().next().unwrap());
    assert!(held.contains("[sealed]"), "{held}");
    world.restart_with_installation();
    let pem = links::pem(view(world), &arn).unwrap();
    assert_eq!((pem.chain.as_str(), pem.key.as_str()), (RSA, RSA_KEY));
    assert!(!format!("{pem:?}").contains(secret_line));
}

#[test]
fn a_chain_is_kept_and_handed_on_behind_the_certificate() {
    let world = &mut world();
    let reply = world.write(import::import_certificate, imported(LEAF, LEAF_KEY, Some(ABOVE))).unwrap();
    let arn = reply["CertificateArn"].as_str().unwrap().to_owned();
    let shown = described(world, &arn);
    assert_eq!(
        (&shown["KeyAlgorithm"], &shown["Issuer"]),
        (&json!("EC_prime256v1"), &json!("Example Authority"))
    );
    assert_eq!(shown["SubjectAlternativeNames"], json!(["leaf.example.com"]));
    assert_eq!(shown["ExtendedKeyUsages"][0]["Name"], "NONE");
    let got = world.read(certificate::get_certificate, json!({ "CertificateArn": arn })).unwrap();
    assert_eq!(got["CertificateChain"].as_str().unwrap(), ABOVE);
    assert_eq!(links::pem(view(world), &arn).unwrap().chain, format!("{LEAF}{ABOVE}"));
}

#[test]
fn what_does_not_fit_together_is_not_imported() {
    let check = |certificate: &str, key: &str, chain: Option<&str>| {
        x509::check(certificate.as_bytes(), key.as_bytes(), chain.map(str::as_bytes)).unwrap_err()
    };
    assert_eq!(check(RSA, LEAF_KEY, None), Unfit::Mismatch);
    assert_eq!(check(LEAF, RSA_KEY, None), Unfit::Mismatch);
    assert_eq!(check(RSA, LOCKED_KEY, None), Unfit::Encrypted);
    assert_eq!(check(RSA, "secret", None), Unfit::Key);
    assert_eq!(check(RSA, RSA, None), Unfit::Key);
    assert_eq!(
        check("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", RSA_KEY, None),
        Unfit::Certificate
    );
    assert_eq!(check(&format!("{LEAF}{ABOVE}"), LEAF_KEY, None), Unfit::Several);
    assert_eq!(check(LEAF, LEAF_KEY, Some(RSA)), Unfit::Unrelated);
    assert_eq!(check(RSA, RSA_KEY, Some(ABOVE)), Unfit::Unrelated);
    assert_eq!(check(LEAF, LEAF_KEY, Some("nothing")), Unfit::Chain);

    let world = &mut world();
    let request = imported(RSA, LEAF_KEY, None);
    let message = "The private key does not match the certificate.";
    fails(world.write(import::import_certificate, request), "ValidationException", message);
    world.now = Timestamp::from_millis(1_000_000);
    let early = world.write(import::import_certificate, imported(RSA, RSA_KEY, None));
    fails(early, "ValidationException", "The certificate is not valid yet.");
    world.now = Timestamp::from_millis(10_000_000_000_000);
    let late = world.write(import::import_certificate, imported(RSA, RSA_KEY, None));
    fails(late, "ValidationException", "The certificate has expired.");
    world.now = NOW;
    world.state.installation = Arc::default();
    let keyless = world.write(import::import_certificate, imported(RSA, RSA_KEY, None)).unwrap_err();
    assert_eq!(keyless.code, "UnsupportedFeatureException");
    assert!(world.state.acm.certificates.is_empty());
}

#[test]
fn an_import_takes_an_earlier_one_s_place() {
    let world = &mut world();
    let arn = import_rsa(world);
    let before = links::issued_at(view(world), &arn).unwrap();
    let mut again = imported(RSA, RSA_KEY, None);
    again["CertificateArn"] = json!(arn);
    let reply = world.write(import::import_certificate, again.clone()).unwrap();
    assert_eq!(reply["CertificateArn"], arn.as_str());
    assert!(links::issued_at(view(world), &arn).unwrap() > before, "balancers are not told");
    assert_eq!(world.state.acm.certificates.len(), 1);

    again["Tags"] = json!([{ "Key": "a" }]);
    let tagged = world.write(import::import_certificate, again);
    fails(tagged, "ValidationException", "Tagging is not permitted on re-import.");
    let mut other = imported(LEAF, LEAF_KEY, None);
    other["CertificateArn"] = json!(arn);
    let message = "The key type of a certificate that is imported again must be what it was.";
    fails(world.write(import::import_certificate, other), "ValidationException", message);
    let mut nothing = imported(RSA, RSA_KEY, None);
    let missing = format!("{}0", &arn[..arn.len() - 1]);
    nothing["CertificateArn"] = json!(missing);
    let message = format!("Could not find certificate {missing}.");
    fails(world.write(import::import_certificate, nothing), "ResourceNotFoundException", &message);
}

#[test]
fn one_that_is_asked_for_is_issued_and_issued_anew_before_it_ends() {
    let world = &mut world();
    let wish = json!({
        "DomainName": "Shop.example.com", "SubjectAlternativeNames": ["*.shop.example.com", "shop.example.com"],
        "ValidationMethod": "DNS", "IdempotencyToken": "once",
    });
    let reply = world.write(request::request_certificate, wish.clone()).unwrap();
    let arn = reply["CertificateArn"].as_str().unwrap().to_owned();
    assert_eq!(world.write(request::request_certificate, wish).unwrap()["CertificateArn"], arn.as_str());
    let shown = described(world, &arn);
    assert_eq!(shown["Status"], "PENDING_VALIDATION");
    assert_eq!(shown["SubjectAlternativeNames"], json!(["shop.example.com", "*.shop.example.com"]));
    let validations = shown["DomainValidationOptions"].as_array().unwrap();
    assert_eq!(validations.len(), 2);
    assert_eq!(validations[0]["ValidationStatus"], "PENDING_VALIDATION");
    // A name and the wildcard below it are shown to be the caller's by the same record.
    assert_eq!(validations[0]["ResourceRecord"], validations[1]["ResourceRecord"]);
    assert!(validations[0]["ResourceRecord"]["Name"].as_str().unwrap().ends_with(".shop.example.com."));
    let early = world.read(certificate::get_certificate, json!({ "CertificateArn": arn })).unwrap_err();
    assert_eq!(early.code, "RequestInProgressException");
    assert!(!links::is_issued(view(world), &arn));

    issue(world);
    let shown = described(world, &arn);
    assert_eq!((&shown["Status"], &shown["Type"]), (&json!("ISSUED"), &json!("AMAZON_ISSUED")));
    assert_eq!(shown["DomainValidationOptions"][0]["ValidationStatus"], "SUCCESS");
    assert!(links::is_issued(view(world), &arn));
    let end = world.state.acm.certificates.values().next().unwrap().issued.as_ref().unwrap().facts.not_after;
    assert_eq!(links::wanted(&world.state.acm, world.now).count(), 0);
    assert_eq!(links::wanted(&world.state.acm, end).count(), 1);
    world.now = end;
    assert_eq!(described(world, &arn)["Status"], "EXPIRED");

    let missing = json!({ "DomainName": "a.example.com", "KeyAlgorithm": "RSA_1024" });
    let message = "The key algorithm RSA_1024 cannot be requested.";
    fails(world.write(request::request_certificate, missing), "InvalidParameterException", message);
}

#[test]
fn lists_are_filtered_and_come_in_pages() {
    let world = &mut world();
    let first = import_rsa(world);
    let leaf = world.write(import::import_certificate, imported(LEAF, LEAF_KEY, Some(ABOVE))).unwrap();
    let leaf = leaf["CertificateArn"].as_str().unwrap().to_owned();
    let wish = json!({ "DomainName": "shop.example.com", "ValidationMethod": "DNS" });
    let asked = world.write(request::request_certificate, wish).unwrap();
    let asked = asked["CertificateArn"].as_str().unwrap().to_owned();
    let mut list = |request: Value| {
        let reply = world.read(list::list_certificates, request).unwrap();
        let arns = reply["CertificateSummaryList"].as_array().unwrap().iter();
        let arns = arns.map(|shown| shown["CertificateArn"].as_str().unwrap().to_owned());
        (arns.collect::<Vec<_>>(), reply["NextToken"].as_str().map(str::to_owned))
    };
    // As documented, without a filter only RSA keys of up to 2048 bits are shown.
    assert_eq!(list(json!({})).0, [first.clone(), asked.clone()]);
    assert_eq!(list(json!({ "Includes": { "keyTypes": ["EC_prime256v1"] } })).0, [leaf]);
    let first_alone = std::slice::from_ref(&first);
    assert_eq!(list(json!({ "CertificateStatuses": ["ISSUED"] })).0, first_alone);
    let used = json!({ "Includes": { "keyUsage": ["KEY_ENCIPHERMENT"], "extendedKeyUsage": ["TLS_WEB_SERVER_AUTHENTICATION"] } });
    assert_eq!(list(used).0, first_alone);
    let newest = json!({ "SortBy": "CREATED_AT", "SortOrder": "DESCENDING", "MaxItems": 1 });
    let (page, token) = list(newest.clone());
    assert_eq!(page, [asked]);
    let mut next = newest;
    next["NextToken"] = json!(token.unwrap());
    assert_eq!(list(next), (vec![first], None));
    let unsorted = world.read(list::list_certificates, json!({ "SortBy": "CREATED_AT" })).unwrap_err();
    assert_eq!(unsorted.code, "ValidationException");
}

#[test]
fn tags_come_and_go() {
    let world = &mut world();
    let arn = import_rsa(world);
    let tags = json!({ "CertificateArn": arn, "Tags": [{ "Key": "a", "Value": "1" }, { "Key": "b" }] });
    world.write(tag::add_tags_to_certificate, tags).unwrap();
    // With a value, only that value goes.
    let some = json!({ "CertificateArn": arn, "Tags": [{ "Key": "a", "Value": "2" }, { "Key": "b" }] });
    world.write(tag::remove_tags_from_certificate, some).unwrap();
    let left = world.read(tag::list_tags_for_certificate, json!({ "CertificateArn": arn })).unwrap();
    assert_eq!(left["Tags"], json!([{ "Key": "a", "Value": "1" }]));
    let reserved = json!({ "CertificateArn": arn, "Tags": [{ "Key": "aws:x" }] });
    assert_eq!(world.write(tag::add_tags_to_certificate, reserved).unwrap_err().code, "InvalidTagException");
}

#[test]
fn what_names_nothing_is_not_found() {
    let world = &mut world();
    let arn = import_rsa(world);
    assert_eq!(check::id(&world.scope, &arn.replace("eu-north-1", "eu-west-1")), None);
    world.write(certificate::delete_certificate, json!({ "CertificateArn": arn })).unwrap();
    let gone = world.write(certificate::delete_certificate, json!({ "CertificateArn": arn })).unwrap_err();
    assert_eq!(gone.code, "ResourceNotFoundException");
    let other = json!({ "CertificateArn": "arn:aws:acm:eu-north-1:123456789012:account/x" });
    assert_eq!(world.read(certificate::describe_certificate, other).unwrap_err().code, "InvalidArnException");
}
