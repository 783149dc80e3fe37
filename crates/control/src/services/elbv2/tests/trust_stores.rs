//! Trust stores, and the listeners that verify clients by them.

use super::{VALIDATION, balancer, forward, group, text};
use crate::fetch::{Found, ObjectError, ObjectName};
use crate::services::acm::tests::{import_rsa, world};
use crate::services::ecs::tests::world::{World, fails};
use crate::services::elbv2::links;
use crate::services::elbv2::ops::{listener, tag, trust_store};
use crate::state::State;
use serde_json::{Value, json};
use std::time::Duration;

const AUTHORITY: &str = include_str!("../testdata/ca.pem");
const REVOKED: &str = include_str!("../testdata/revoked.pem");

/// What stands in the bucket.
fn stored(name: &ObjectName) -> Found {
    assert_eq!(name.bucket, "bucket");
    let text = match name.key.as_str() {
        "ca.pem" => AUTHORITY.to_owned(),
        "commented.pem" => format!("# ours\n{AUTHORITY}# theirs\n{AUTHORITY}"),
        "spaced.pem" => format!("{AUTHORITY}\n{AUTHORITY}"),
        "explained.pem" => format!("Certificate:\n    Data:\n{AUTHORITY}"),
        "many.pem" => AUTHORITY.repeat(26),
        "broken.pem" => AUTHORITY.replace("MII", "AAA"),
        "revoked.pem" => REVOKED.to_owned(),
        "large.pem" => return Err(ObjectError::TooLarge(1 << 20)),
        "versions.pem" if name.version.as_deref() == Some("v1") => AUTHORITY.repeat(3),
        _ => return Err(ObjectError::Missing("NoSuchKey: The specified key does not exist.".to_owned())),
    };
    Ok(text.into_bytes())
}

fn bundle(key: &str) -> Value {
    json!({ "CaCertificatesBundleS3Bucket": "bucket", "CaCertificatesBundleS3Key": key })
}

fn with(mut request: Value, more: Value) -> Value {
    request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    request
}

/// A trust store as it is shown.
fn made(world: &mut World, name: &str) -> Value {
    let request = with(bundle("ca.pem"), json!({ "Name": name }));
    world.fetch(trust_store::create_trust_store, request, stored).unwrap()["TrustStores"][0].take()
}

/// An HTTPS listener with this mutual authentication.
fn verifying(world: &mut World, mutual: Value) -> Result<Value, gantry_wire::ApiError> {
    let balancer = balancer(world, "web");
    let made = world.state.elbv2.target_group_named("web").map(|group| group.id.clone());
    let group = match made {
        Some(id) => world.scope.balancing(id).to_string(),
        None => group(world, "web", json!({})),
    };
    let certificate = import_rsa(world);
    let request = json!({
        "LoadBalancerArn": balancer["LoadBalancerArn"], "Protocol": "HTTPS", "Port": 443,
        "Certificates": [{ "CertificateArn": certificate }], "DefaultActions": forward(&group),
        "MutualAuthentication": mutual,
    });
    world.write(listener::create_listener, request).map(|mut made| made["Listeners"][0].take())
}

#[test]
fn trust_stores_are_made_of_bundles() {
    let mut world = world();
    let one = made(&mut world, "clients");
    let arn = text(&one["TrustStoreArn"]);
    assert!(
        arn.starts_with("arn:aws:elasticloadbalancing:eu-north-1:123456789012:truststore/clients/"),
        "{arn}"
    );
    assert_eq!((&one["Status"], &one["NumberOfCaCertificates"]), (&json!("ACTIVE"), &json!(1)));
    assert_eq!(one["TotalRevokedEntries"], 0);
    world.restart();
    let shown = world.read(trust_store::describe_trust_stores, json!({ "Names": ["clients"] })).unwrap();
    assert_eq!(shown["TrustStores"][0], one);

    for (key, count) in [("commented.pem", 2), ("ca.pem", 1)] {
        let request = with(bundle(key), json!({ "TrustStoreArn": arn }));
        let changed = world.fetch(trust_store::modify_trust_store, request, stored).unwrap();
        assert_eq!(changed["TrustStores"][0]["NumberOfCaCertificates"], count, "{key}");
    }
    let version = json!({ "TrustStoreArn": arn, "CaCertificatesBundleS3ObjectVersion": "v1" });
    let changed =
        world.fetch(trust_store::modify_trust_store, with(bundle("versions.pem"), version), stored).unwrap();
    assert_eq!(changed["TrustStores"][0]["NumberOfCaCertificates"], 3);

    let tags = json!({ "ResourceArns": [arn], "Tags": [{ "Key": "team", "Value": "edge" }] });
    world.write(tag::add_tags, tags).unwrap();
    let tags = world.read(tag::describe_tags, json!({ "ResourceArns": [arn] })).unwrap();
    assert_eq!(tags["TagDescriptions"][0]["Tags"], json!([{ "Key": "team", "Value": "edge" }]));

    world.write(trust_store::delete_trust_store, json!({ "TrustStoreArn": arn })).unwrap();
    let gone = world.read(trust_store::describe_trust_stores, json!({ "TrustStoreArns": [arn] }));
    fails(gone, "TrustStoreNotFound", "One or more trust stores not found");
    assert_eq!(world.read(trust_store::describe_trust_stores, json!({})).unwrap()["TrustStores"], json!([]));
}

#[test]
fn bundles_that_cannot_be_are_refused() {
    let mut world = world();
    made(&mut world, "clients");
    let before = world.rows().clone();
    let create = |bundle: Value, name: &str| with(bundle, json!({ "Name": name }));
    for (request, code) in [
        (create(bundle("ca.pem"), "clients"), "DuplicateTrustStoreName"),
        (create(bundle("none.pem"), "new"), "CaCertificatesBundleNotFound"),
        (create(bundle(""), "new"), "CaCertificatesBundleNotFound"),
        (create(bundle("spaced.pem"), "new"), "InvalidCaCertificatesBundle"),
        (create(bundle("explained.pem"), "new"), "InvalidCaCertificatesBundle"),
        (create(bundle("many.pem"), "new"), "InvalidCaCertificatesBundle"),
        (create(bundle("broken.pem"), "new"), "InvalidCaCertificatesBundle"),
        (create(bundle("revoked.pem"), "new"), "InvalidCaCertificatesBundle"),
        (create(bundle("large.pem"), "new"), "InvalidCaCertificatesBundle"),
        (create(bundle("ca.pem"), "-new"), VALIDATION),
        (
            with(create(bundle("ca.pem"), "new"), json!({ "CaCertificatesBundleS3Bucket": "a/../b" })),
            "CaCertificatesBundleNotFound",
        ),
        (
            with(create(bundle("ca.pem"), "new"), json!({ "Tags": [{ "Key": "a" }, { "Key": "a" }] })),
            "DuplicateTagKeys",
        ),
    ] {
        let error = world.fetch(trust_store::create_trust_store, request.clone(), stored).unwrap_err();
        assert_eq!(error.code, code, "{request}: {error}");
    }
    assert_eq!(*world.rows(), before, "nothing of it was kept");
    for number in 1..trust_store::TRUST_STORES_MAX {
        made(&mut world, &format!("more-{number}"));
    }
    let one_more = create(bundle("ca.pem"), "new");
    let error = world.fetch(trust_store::create_trust_store, one_more, stored).unwrap_err();
    assert_eq!(error.code, "TooManyTrustStores");
}

#[test]
fn revocations_come_and_go_under_numbers_of_their_own() {
    let mut world = world();
    let arn = text(&made(&mut world, "clients")["TrustStoreArn"]);
    let add = |keys: &[&str]| {
        let files =
            keys.iter().map(|key| json!({ "S3Bucket": "bucket", "S3Key": key, "RevocationType": "CRL" }));
        json!({ "TrustStoreArn": arn, "RevocationContents": files.collect::<Vec<_>>() })
    };
    let operation = trust_store::add_trust_store_revocations;
    let added = world.fetch(operation, add(&["revoked.pem", "revoked.pem"]), stored).unwrap();
    let shown = |id: u64| json!({ "TrustStoreArn": arn, "RevocationId": id, "RevocationType": "CRL", "NumberOfRevokedEntries": 2 });
    assert_eq!(added["TrustStoreRevocations"], json!([shown(1), shown(2)]));
    let remove = json!({ "TrustStoreArn": arn, "RevocationIds": [2] });
    world.write(trust_store::remove_trust_store_revocations, remove.clone()).unwrap();
    let again = world.write(trust_store::remove_trust_store_revocations, remove);
    fails(again, "RevocationIdNotFound", "Revocation ID '2' not found");
    world.restart();
    world.fetch(operation, add(&["revoked.pem"]), stored).unwrap();
    let all = json!({ "TrustStoreArn": arn });
    let described = world.read(trust_store::describe_trust_store_revocations, all.clone()).unwrap();
    assert_eq!(described["TrustStoreRevocations"], json!([shown(1), shown(3)]), "2 is not given again");
    let stores = world.read(trust_store::describe_trust_stores, json!({})).unwrap();
    assert_eq!(stores["TrustStores"][0]["TotalRevokedEntries"], 4);
    let missing = world.read(
        trust_store::describe_trust_store_revocations,
        with(all.clone(), json!({ "RevocationIds": [2] })),
    );
    assert_eq!(missing.unwrap_err().code, "RevocationIdNotFound");

    let many = vec!["revoked.pem"; 29];
    for (request, code) in [
        (add(&["none.pem"]), "RevocationContentNotFound"),
        (add(&["revoked.pem", "ca.pem"]), "InvalidRevocationContent"),
        (add(&["large.pem"]), "TooManyTrustStoreRevocationEntries"),
        (add(&many), "TooManyTrustStoreRevocationEntries"),
        (all, VALIDATION),
    ] {
        let error = world.fetch(operation, request.clone(), stored).unwrap_err();
        assert_eq!(error.code, code, "{request}: {error}");
    }
    let stores = world.read(trust_store::describe_trust_stores, json!({})).unwrap();
    assert_eq!(stores["TrustStores"][0]["TotalRevokedEntries"], 4, "all files of a request, or none");
}

#[test]
fn listeners_verify_by_trust_stores_that_stay_as_long() {
    let mut world = world();
    let arn = text(&made(&mut world, "clients")["TrustStoreArn"]);
    let missing = arn.replace("/clients/", "/others/");
    for (mutual, code) in [
        (json!({ "Mode": "verify" }), VALIDATION),
        (json!({ "Mode": "verify", "TrustStoreArn": "arn:aws:x" }), VALIDATION),
        (json!({ "Mode": "verify", "TrustStoreArn": missing }), "TrustStoreNotFound"),
        (json!({ "Mode": "off", "TrustStoreArn": arn }), VALIDATION),
        (json!({ "Mode": "passthrough", "AdvertiseTrustStoreCaNames": "on" }), VALIDATION),
        (json!({ "Mode": "demand" }), VALIDATION),
    ] {
        let error = verifying(&mut world, mutual.clone()).unwrap_err();
        assert_eq!(error.code, code, "{mutual}: {error}");
    }
    let mutual = json!({ "Mode": "verify", "TrustStoreArn": arn, "AdvertiseTrustStoreCaNames": "on" });
    let made = verifying(&mut world, mutual).unwrap();
    let shown = json!({
        "Mode": "verify", "TrustStoreArn": arn, "IgnoreClientCertificateExpiry": false,
        "TrustStoreAssociationStatus": "active", "AdvertiseTrustStoreCaNames": "on",
    });
    assert_eq!(made["MutualAuthentication"], shown);

    let named = json!({ "TrustStoreArn": arn });
    let used = world.read(trust_store::describe_trust_store_associations, named.clone()).unwrap();
    let user = json!([{ "ResourceArn": made["LoadBalancerArn"] }]);
    assert_eq!(used["TrustStoreAssociations"], user);
    let message = format!("Trust store '{arn}' is currently in use by a listener");
    fails(world.write(trust_store::delete_trust_store, named.clone()), "TrustStoreInUse", &message);
    for (resource, code) in [
        (made["LoadBalancerArn"].clone(), "DeleteAssociationSameAccount"),
        (json!(arn), "AssociationNotFound"),
    ] {
        let end = with(named.clone(), json!({ "ResourceArn": resource }));
        let error = world.write(trust_store::delete_shared_trust_store_association, end).unwrap_err();
        assert_eq!(error.code, code);
    }

    // Balancers are told of each change, and what the store is.
    let told = |world: &World| {
        let mut state = State::default();
        state.replace(&world.scope, world.state.clone());
        let stamps = crate::routing::compile(&state, 1).trust_stores;
        let (arn, at) = stamps.into_iter().next().unwrap();
        (at, crate::routing::trust_store(&state, &arn).unwrap())
    };
    let (before, store) = told(&world);
    assert_eq!((store.authorities.as_str(), store.revocation_lists.len()), (AUTHORITY, 0));
    let files = json!([{ "S3Bucket": "bucket", "S3Key": "revoked.pem" }]);
    let add = with(named.clone(), json!({ "RevocationContents": files }));
    world.fetch(trust_store::add_trust_store_revocations, add, stored).unwrap();
    let (after, store) = told(&world);
    assert!(after > before);
    assert_eq!(store.revocation_lists, [REVOKED]);

    let off = json!({ "ListenerArn": made["ListenerArn"], "MutualAuthentication": { "Mode": "off" } });
    world.write(listener::modify_listener, off).unwrap();
    world.write(trust_store::delete_trust_store, named).unwrap();
}

#[test]
fn files_are_read_at_locations_that_end() {
    let mut world = world();
    let arn = text(&made(&mut world, "clients")["TrustStoreArn"]);
    let files = json!([{ "S3Bucket": "bucket", "S3Key": "revoked.pem" }]);
    let add = json!({ "TrustStoreArn": arn, "RevocationContents": files });
    world.fetch(trust_store::add_trust_store_revocations, add, stored).unwrap();
    let named = json!({ "TrustStoreArn": arn });
    let bundle = world.read(trust_store::get_trust_store_ca_certificates_bundle, named.clone()).unwrap();
    let content = |id: u64| with(named.clone(), json!({ "RevocationId": id }));
    let revoked = world.read(trust_store::get_trust_store_revocation_content, content(1)).unwrap();
    let missing = world.read(trust_store::get_trust_store_revocation_content, content(2));
    assert_eq!(missing.unwrap_err().code, "RevocationIdNotFound");

    let mut state = State::default();
    state.replace(&world.scope, world.state.clone());
    let at = |answer: &Value| text(&answer["Location"]).strip_prefix(links::FILES_PATH).unwrap().to_owned();
    let now = world.now;
    let read = |location: &str, after: u64| links::file(&state, location, now + Duration::from_secs(after));
    assert_eq!(read(&at(&bundle), 0).as_deref(), Some(AUTHORITY));
    assert_eq!(read(&at(&revoked), 590).as_deref(), Some(REVOKED));
    assert_eq!(read(&at(&revoked), 602), None, "not for ever");
    let forged = at(&bundle).replace("/ca/", "/1/");
    for other in [forged.as_str(), "", "1/2/3", &at(&bundle)[..at(&bundle).len() - 1], &(at(&bundle) + "/x")]
    {
        assert_eq!(read(other, 0), None, "{other}");
    }
}
