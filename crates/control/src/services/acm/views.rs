//! Certificates as the API shows them.

use super::check;
use super::state::{Certificate, Tags, Validation, Wish};
use super::x509::KeyAlgorithm;
use crate::services::elbv2;
use crate::tx::View;
use gantry_api::acm;
use gantry_decide::ids::Scope;
use gantry_decide::time::Timestamp;
use gantry_wire::EpochMillis;
use gantry_wire::sigv4::sha256_hex;

/// Before an address's domain: whom Certificate Manager writes to.
const POSTMASTERS: [&str; 5] = ["admin", "administrator", "hostmaster", "postmaster", "webmaster"];
/// Names in a summary: the rest is only said to be there.
const NAMES_SHOWN: usize = 100;

fn millis(at: Timestamp) -> Option<EpochMillis> {
    Some(EpochMillis(at.as_millis()))
}

pub fn tags(tags: &Tags) -> Vec<acm::Tag> {
    tags.iter().map(|(key, value)| acm::Tag { key: key.clone(), value: Some(value.clone()) }).collect()
}

fn key_algorithm(algorithm: KeyAlgorithm) -> acm::KeyAlgorithm {
    match algorithm {
        KeyAlgorithm::Rsa2048 => acm::KeyAlgorithm::Rsa2048,
        KeyAlgorithm::Rsa3072 => acm::KeyAlgorithm::Rsa3072,
        KeyAlgorithm::Rsa4096 => acm::KeyAlgorithm::Rsa4096,
        KeyAlgorithm::P256 => acm::KeyAlgorithm::EcPrime256v1,
        KeyAlgorithm::P384 => acm::KeyAlgorithm::EcSecp384r1,
        KeyAlgorithm::P521 => acm::KeyAlgorithm::EcSecp521r1,
    }
}

fn status(view: View<'_>, certificate: &Certificate) -> acm::CertificateStatus {
    match &certificate.issued {
        None => acm::CertificateStatus::PendingValidation,
        Some(issued) if issued.facts.not_after <= view.now => acm::CertificateStatus::Expired,
        Some(_) => acm::CertificateStatus::Issued,
    }
}

fn certificate_type(certificate: &Certificate) -> acm::CertificateType {
    if certificate.wish.is_some() {
        acm::CertificateType::AmazonIssued
    } else {
        acm::CertificateType::Imported
    }
}

fn origin(certificate: &Certificate) -> acm::CertificateKeyPairOrigin {
    if certificate.wish.is_some() {
        acm::CertificateKeyPairOrigin::AwsManaged
    } else {
        acm::CertificateKeyPairOrigin::CustomerProvided
    }
}

/// The usages of a key, as X.509 numbers their bits.
fn key_usages(bits: Option<u16>) -> Vec<acm::KeyUsageName> {
    use acm::KeyUsageName::*;
    const NAMES: [acm::KeyUsageName; 9] = [
        DigitalSignature,
        NonRepudiation,
        KeyEncipherment,
        DataEncipherment,
        KeyAgreement,
        CertificateSigning,
        CrlSigning,
        EncipherOnly,
        DecipherOnly,
    ];
    let Some(bits) = bits else { return vec![Any] };
    NAMES.into_iter().enumerate().filter(|(bit, _)| bits & (1 << bit) != 0).map(|(_, name)| name).collect()
}

fn purpose(id: &str) -> acm::ExtendedKeyUsageName {
    use acm::ExtendedKeyUsageName::*;
    match id {
        "1.3.6.1.5.5.7.3.1" => TlsWebServerAuthentication,
        "1.3.6.1.5.5.7.3.2" => TlsWebClientAuthentication,
        "1.3.6.1.5.5.7.3.3" => CodeSigning,
        "1.3.6.1.5.5.7.3.4" => EmailProtection,
        "1.3.6.1.5.5.7.3.5" => IpsecEndSystem,
        "1.3.6.1.5.5.7.3.6" => IpsecTunnel,
        "1.3.6.1.5.5.7.3.7" => IpsecUser,
        "1.3.6.1.5.5.7.3.8" => TimeStamping,
        "1.3.6.1.5.5.7.3.9" => OcspSigning,
        "2.5.29.37.0" => Any,
        _ => Custom,
    }
}

fn extended_key_usages(ids: Option<&[String]>) -> Vec<acm::ExtendedKeyUsage> {
    let Some(ids) = ids else {
        return vec![acm::ExtendedKeyUsage { name: Some(acm::ExtendedKeyUsageName::None), oid: None }];
    };
    ids.iter().map(|id| acm::ExtendedKeyUsage { name: Some(purpose(id)), oid: Some(id.clone()) }).collect()
}

/// How it would be shown that the names are the caller's. What is to be found under a name follows from account and name,
/// as with Certificate Manager, so that an answer that was published once is good for the next certificate.
fn validations(scope: &Scope, wish: &Wish, issued: bool) -> Vec<acm::DomainValidation> {
    let status = if issued { acm::DomainStatus::Success } else { acm::DomainStatus::PendingValidation };
    let validation = |name: &String| {
        let base = name.strip_prefix("*.").unwrap_or(name);
        let mail_domain = wish.mail_domains.get(name).map_or(base, String::as_str);
        let digest = sha256_hex(format!("{}/{base}", scope.account).as_bytes());
        let (one, other) = (&digest[..32], &digest[32..]);
        let mut shown = acm::DomainValidation {
            domain_name: name.clone(),
            validation_domain: Some(mail_domain.to_owned()),
            validation_status: Some(status),
            ..Default::default()
        };
        match wish.validation {
            Validation::Dns => {
                shown.validation_method = Some(acm::ValidationMethod::Dns);
                shown.resource_record = Some(acm::ResourceRecord {
                    name: format!("_{one}.{base}."),
                    type_: acm::RecordType::Cname,
                    value: format!("_{other}.acm-validations.aws."),
                });
            }
            Validation::Email => {
                shown.validation_method = Some(acm::ValidationMethod::Email);
                let mails = POSTMASTERS.iter().map(|who| format!("{who}@{mail_domain}"));
                shown.validation_emails = Some(mails.collect());
            }
            Validation::Http => {
                shown.validation_method = Some(acm::ValidationMethod::Http);
                shown.http_redirect = Some(acm::HttpRedirect {
                    redirect_from: Some(format!("http://{base}/.well-known/pki-validation/{one}.txt")),
                    redirect_to: Some(format!("https://validation.elb.localhost/{other}.txt")),
                });
            }
        }
        shown
    };
    wish.names.iter().map(validation).collect()
}

fn options(wish: &Wish) -> acm::CertificateOptions {
    use acm::CertificateTransparencyLoggingPreference::{Disabled, Enabled};
    acm::CertificateOptions {
        certificate_transparency_logging_preference: Some(if wish.logged { Enabled } else { Disabled }),
        export: Some(acm::CertificateExport::Disabled),
        ..Default::default()
    }
}

fn renewal(certificate: &Certificate, in_use: bool) -> acm::RenewalEligibility {
    // One that nobody uses is issued anew all the same; Certificate Manager calls only the others eligible.
    if certificate.wish.is_some() && in_use {
        acm::RenewalEligibility::Eligible
    } else {
        acm::RenewalEligibility::Ineligible
    }
}

pub fn detail(view: View<'_>, certificate: &Certificate) -> acm::CertificateDetail {
    let arn = check::arn(view.scope, certificate.id);
    let users = elbv2::links::users_of_certificate(view, &arn);
    let issued = certificate.issued.as_ref();
    let mut shown = acm::CertificateDetail {
        domain_name: Some(certificate.domain().to_owned()),
        subject_alternative_names: Some(certificate.names().to_vec()),
        status: Some(status(view, certificate)),
        type_: Some(certificate_type(certificate)),
        certificate_key_pair_origin: Some(origin(certificate)),
        key_algorithm: certificate.key_algorithm().map(key_algorithm),
        created_at: millis(certificate.created_at),
        renewal_eligibility: Some(renewal(certificate, !users.is_empty())),
        in_use_by: Some(users),
        certificate_arn: Some(arn),
        ..Default::default()
    };
    if let Some(wish) = &certificate.wish {
        shown.domain_validation_options = Some(validations(view.scope, wish, issued.is_some()));
        shown.options = Some(options(wish));
        shown.issued_at = issued.and_then(|issued| millis(issued.at));
    } else {
        shown.imported_at = issued.and_then(|issued| millis(issued.at));
    }
    if let Some(issued) = issued {
        let facts = &issued.facts;
        shown.serial = Some(facts.serial.clone());
        shown.subject = Some(facts.subject.clone());
        shown.issuer = Some(facts.issuer.clone());
        shown.not_before = millis(facts.not_before);
        shown.not_after = millis(facts.not_after);
        shown.signature_algorithm = Some(facts.signature_algorithm.clone());
        let usage = |name| acm::KeyUsage { name: Some(name) };
        shown.key_usages = Some(key_usages(facts.key_usage).into_iter().map(usage).collect());
        shown.extended_key_usages = Some(extended_key_usages(facts.extended_key_usage.as_deref()));
    }
    shown
}

pub fn summary(view: View<'_>, certificate: &Certificate) -> acm::CertificateSummary {
    let arn = check::arn(view.scope, certificate.id);
    let in_use = !elbv2::links::users_of_certificate(view, &arn).is_empty();
    let issued = certificate.issued.as_ref();
    let facts = issued.map(|issued| &issued.facts);
    let at = issued.and_then(|issued| millis(issued.at));
    let (imported_at, issued_at) = if certificate.wish.is_some() { (None, at) } else { (at, None) };
    let names = certificate.names();
    let purposes = facts.map(|facts| extended_key_usages(facts.extended_key_usage.as_deref()));
    acm::CertificateSummary {
        certificate_arn: Some(arn),
        domain_name: Some(certificate.domain().to_owned()),
        subject_alternative_name_summaries: Some(names.iter().take(NAMES_SHOWN).cloned().collect()),
        has_additional_subject_alternative_names: Some(names.len() > NAMES_SHOWN),
        status: Some(status(view, certificate)),
        type_: Some(certificate_type(certificate)),
        certificate_key_pair_origin: Some(origin(certificate)),
        key_algorithm: certificate.key_algorithm().map(key_algorithm),
        key_usages: facts.map(|facts| key_usages(facts.key_usage)),
        extended_key_usages: purposes.map(|all| all.into_iter().filter_map(|one| one.name).collect()),
        in_use: Some(in_use),
        exported: Some(false),
        export_option: certificate.wish.as_ref().map(|_| acm::CertificateExport::Disabled),
        renewal_eligibility: Some(renewal(certificate, in_use)),
        created_at: millis(certificate.created_at),
        imported_at,
        issued_at,
        not_before: facts.and_then(|facts| millis(facts.not_before)),
        not_after: facts.and_then(|facts| millis(facts.not_after)),
        ..Default::default()
    }
}
