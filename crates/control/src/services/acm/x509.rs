//! Reading certificates: what one says of itself, whether a key is its own, and whether others vouch for it.

use aws_lc_rs::rsa;
use aws_lc_rs::signature::{self, EcdsaKeyPair, EcdsaSigningAlgorithm, KeyPair as _, VerificationAlgorithm};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gantry_decide::time::Timestamp;
use serde::{Deserialize, Serialize};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::oid_registry as oid;
use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::{SubjectPublicKeyInfo, X509Name};

/// Certificates above an imported one that are looked at: chains have one to three.
pub const CHAIN_MAX: usize = 10;

/// Why something cannot be imported, in words for its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    #[error("The certificate is not PEM-encoded or is not valid.")]
    Certificate,
    #[error(
        "The certificate field contains more than one certificate. You can specify only one certificate in this field."
    )]
    Several,
    #[error("The certificate chain is not PEM-encoded or is not valid.")]
    Chain,
    #[error("Could not validate the certificate with the certificate chain.")]
    Unrelated,
    #[error("The private key is not PEM-encoded or is not valid.")]
    Key,
    #[error("The private key must not be encrypted.")]
    Encrypted,
    #[error("The private key is not supported.")]
    Unsupported,
    #[error("The private key does not match the certificate.")]
    Mismatch,
}

/// The kinds of keys that certificates have here. Serialised as Certificate Manager names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyAlgorithm {
    #[serde(rename = "RSA_2048")]
    Rsa2048,
    #[serde(rename = "RSA_3072")]
    Rsa3072,
    #[serde(rename = "RSA_4096")]
    Rsa4096,
    #[serde(rename = "EC_prime256v1")]
    P256,
    #[serde(rename = "EC_secp384r1")]
    P384,
    #[serde(rename = "EC_secp521r1")]
    P521,
}

/// What a certificate says of itself, as far as the API shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// The name of its subject: empty when it has none.
    pub common_name: String,
    /// The names that it is for.
    pub names: Vec<String>,
    pub subject: String,
    /// The organisation that issued it, or what is known of it instead.
    pub issuer: String,
    /// In hexadecimal digits, two by two with colons.
    pub serial: String,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
    pub key_algorithm: KeyAlgorithm,
    /// `SHA256WITHRSA` and the like.
    pub signature_algorithm: String,
    /// The bits of its key usage, lowest first as X.509 numbers them. None when it does not restrict it.
    pub key_usage: Option<u16>,
    /// The object identifiers of its extended key usage. None when it does not restrict it.
    pub extended_key_usage: Option<Vec<String>>,
}

impl Facts {
    /// The name that Certificate Manager knows it by.
    pub fn domain(&self) -> &str {
        if self.common_name.is_empty() {
            self.names.first().map_or("", String::as_str)
        } else {
            &self.common_name
        }
    }
}

/// A certificate with its key that fit together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    pub facts: Facts,
    /// The certificate as PEM, and the ones above it, in the order in which they vouch.
    pub body: String,
    pub chain: Option<String>,
    /// Whether it vouches for itself alone.
    pub self_signed: bool,
}

fn pems(text: &[u8], max: usize) -> Option<Vec<Pem>> {
    let found: Vec<Pem> = Pem::iter_from_buffer(text).take(max + 1).collect::<Result<_, _>>().ok()?;
    let certificates = found.iter().all(|pem| pem.label == "CERTIFICATE");
    (certificates && !found.is_empty() && found.len() <= max).then_some(found)
}

/// DER as PEM, in lines of 64 characters.
fn armoured(pem: &Pem) -> String {
    let text = STANDARD.encode(&pem.contents);
    let mut armoured = format!("-----BEGIN {}-----\n", pem.label);
    for line in text.as_bytes().chunks(64) {
        armoured.extend(line.iter().map(|byte| char::from(*byte)));
        armoured.push('\n');
    }
    armoured + &format!("-----END {}-----\n", pem.label)
}

/// Checks that a certificate, its key and the certificates above it belong together.
///
/// # Errors
/// When they do not, or cannot be read.
pub fn check(certificate: &[u8], key: &[u8], chain: Option<&[u8]>) -> Result<Checked, Unfit> {
    let own = match pems(certificate, CHAIN_MAX).ok_or(Unfit::Certificate)?.as_slice() {
        [only] => only.clone(),
        _ => return Err(Unfit::Several),
    };
    let (rest, parsed) = X509Certificate::from_der(&own.contents).map_err(|_| Unfit::Certificate)?;
    if !rest.is_empty() {
        return Err(Unfit::Certificate);
    }
    let facts = facts(&parsed)?;
    match_key(parsed.public_key(), facts.key_algorithm, key)?;
    let above = chain.map(|chain| pems(chain, CHAIN_MAX).ok_or(Unfit::Chain)).transpose()?;
    let mut below = parsed.clone();
    for pem in above.iter().flatten() {
        let (_, parent) = X509Certificate::from_der(&pem.contents).map_err(|_| Unfit::Chain)?;
        if !vouches(&parent, &below) {
            return Err(Unfit::Unrelated);
        }
        below = parent;
    }
    Ok(Checked {
        self_signed: parsed.issuer() == parsed.subject(),
        body: armoured(&own),
        chain: above.map(|above| above.iter().map(armoured).collect()),
        facts,
    })
}

fn facts(parsed: &X509Certificate<'_>) -> Result<Facts, Unfit> {
    let text = |name: &X509Name<'_>| name.to_string();
    let first = |name: &X509Name<'_>| {
        let found = name.iter_organization().chain(name.iter_common_name()).next();
        found.and_then(|attribute| attribute.as_str().ok()).map(str::to_owned)
    };
    let common_name = parsed.subject().iter_common_name().next();
    let common_name =
        common_name.and_then(|name| name.as_str().ok()).unwrap_or_default().to_ascii_lowercase();
    let mut names = Vec::new();
    let alternative = parsed.subject_alternative_name().map_err(|_| Unfit::Certificate)?;
    for name in alternative.iter().flat_map(|extension| &extension.value.general_names) {
        if let GeneralName::DNSName(name) = name {
            names.push(name.to_ascii_lowercase());
        }
    }
    if names.is_empty() && !common_name.is_empty() {
        names.push(common_name.clone());
    }
    let at =
        |time: x509_parser::time::ASN1Time| Timestamp::from_millis(time.timestamp().saturating_mul(1000));
    let mut key_usage = None;
    let mut extended_key_usage = None;
    for extension in parsed.extensions() {
        match extension.parsed_extension() {
            ParsedExtension::KeyUsage(usage) => key_usage = Some(usage.flags),
            ParsedExtension::ExtendedKeyUsage(_) => {
                extended_key_usage = Some(purposes(extension.value).ok_or(Unfit::Certificate)?);
            }
            _ => {}
        }
    }
    let algorithm = &parsed.signature_algorithm.algorithm;
    let named = SIGNATURES.iter().find(|(id, _)| id == algorithm);
    Ok(Facts {
        common_name,
        names,
        subject: text(parsed.subject()),
        issuer: first(parsed.issuer()).unwrap_or_else(|| text(parsed.issuer())),
        serial: parsed.raw_serial_as_string(),
        not_before: at(parsed.validity().not_before),
        not_after: at(parsed.validity().not_after),
        key_algorithm: key_algorithm(parsed.public_key()).ok_or(Unfit::Unsupported)?,
        signature_algorithm: named.map_or_else(|| algorithm.to_id_string(), |(_, name)| (*name).to_owned()),
        key_usage,
        extended_key_usage,
    })
}

/// The identifiers in an extended key usage, in their order.
fn purposes(value: &[u8]) -> Option<Vec<String>> {
    use x509_parser::der_parser::asn1_rs::{Oid, SequenceOf};
    let (_, all) = SequenceOf::<Oid<'_>>::from_der(value).ok()?;
    Some(all.iter().map(Oid::to_id_string).collect())
}

/// What Certificate Manager calls signatures.
static SIGNATURES: &[(oid::Oid<'static>, &str)] = &[
    (oid::OID_PKCS1_SHA256WITHRSA, "SHA256WITHRSA"),
    (oid::OID_PKCS1_SHA384WITHRSA, "SHA384WITHRSA"),
    (oid::OID_PKCS1_SHA512WITHRSA, "SHA512WITHRSA"),
    (oid::OID_SIG_ECDSA_WITH_SHA256, "SHA256WITHECDSA"),
    (oid::OID_SIG_ECDSA_WITH_SHA384, "SHA384WITHECDSA"),
    (oid::OID_SIG_ECDSA_WITH_SHA512, "SHA512WITHECDSA"),
];

/// None for kinds that balancers cannot serve.
fn key_algorithm(key: &SubjectPublicKeyInfo<'_>) -> Option<KeyAlgorithm> {
    match key.parsed().ok()? {
        // Key sizes are those of the modulus, whose leading zero does not count.
        PublicKey::RSA(rsa) => match rsa.key_size() {
            2048 => Some(KeyAlgorithm::Rsa2048),
            3072 => Some(KeyAlgorithm::Rsa3072),
            4096 => Some(KeyAlgorithm::Rsa4096),
            _ => None,
        },
        PublicKey::EC(_) => {
            let curve = key.algorithm.parameters.as_ref()?.as_oid().ok()?;
            [
                (oid::OID_EC_P256, KeyAlgorithm::P256),
                (oid::OID_NIST_EC_P384, KeyAlgorithm::P384),
                (oid::OID_NIST_EC_P521, KeyAlgorithm::P521),
            ]
            .into_iter()
            .find_map(|(id, algorithm)| (id == curve).then_some(algorithm))
        }
        _ => None,
    }
}

/// Whether a private key, as PEM, is that of a public one.
fn match_key(public: &SubjectPublicKeyInfo<'_>, algorithm: KeyAlgorithm, key: &[u8]) -> Result<(), Unfit> {
    // OpenSSL puts the parameters of a curve before its key: they are passed over.
    let mut found =
        Pem::iter_from_buffer(key).filter(|pem| !matches!(pem, Ok(pem) if pem.label == "EC PARAMETERS"));
    let pem = found.next().and_then(Result::ok);
    if String::from_utf8_lossy(key).contains("ENCRYPTED") {
        return Err(Unfit::Encrypted);
    }
    let pem = pem.filter(|pem| pem.label.ends_with("PRIVATE KEY")).ok_or(Unfit::Key)?;
    let der = pem.contents.as_slice();
    let ec = |with: &'static EcdsaSigningAlgorithm| {
        let pair =
            EcdsaKeyPair::from_private_key_der(with, der).or_else(|_| EcdsaKeyPair::from_pkcs8(with, der));
        pair.map(|pair| pair.public_key().as_ref().to_vec())
    };
    let derived = match algorithm {
        KeyAlgorithm::Rsa2048 | KeyAlgorithm::Rsa3072 | KeyAlgorithm::Rsa4096 => {
            let pair = rsa::KeyPair::from_pkcs8(der).or_else(|_| rsa::KeyPair::from_der(der));
            pair.map(|pair| pair.public_key().as_ref().to_vec())
        }
        KeyAlgorithm::P256 => ec(&signature::ECDSA_P256_SHA256_ASN1_SIGNING),
        KeyAlgorithm::P384 => ec(&signature::ECDSA_P384_SHA384_ASN1_SIGNING),
        KeyAlgorithm::P521 => ec(&signature::ECDSA_P521_SHA512_ASN1_SIGNING),
    };
    // A key of another kind does not match either.
    let derived = derived.map_err(|_| Unfit::Mismatch)?;
    if derived == public.subject_public_key.data.as_ref() { Ok(()) } else { Err(Unfit::Mismatch) }
}

/// Whether `parent` issued `child`: by name and by signature.
fn vouches(parent: &X509Certificate<'_>, child: &X509Certificate<'_>) -> bool {
    let public = parent.public_key();
    let Some(algorithm) = verification(&child.signature_algorithm.algorithm, public) else { return false };
    let key = signature::UnparsedPublicKey::new(algorithm, public.subject_public_key.data.as_ref());
    parent.subject() == child.issuer()
        && key.verify(child.tbs_certificate.as_ref(), &child.signature_value.data).is_ok()
}

/// How a signature of some kind is verified with a key. None for kinds that nobody should trust any more.
fn verification(
    kind: &oid::Oid<'_>,
    key: &SubjectPublicKeyInfo<'_>,
) -> Option<&'static dyn VerificationAlgorithm> {
    let curve = key_algorithm(key);
    let rsa: [(oid::Oid<'static>, &'static dyn VerificationAlgorithm); 3] = [
        (oid::OID_PKCS1_SHA256WITHRSA, &signature::RSA_PKCS1_2048_8192_SHA256),
        (oid::OID_PKCS1_SHA384WITHRSA, &signature::RSA_PKCS1_2048_8192_SHA384),
        (oid::OID_PKCS1_SHA512WITHRSA, &signature::RSA_PKCS1_2048_8192_SHA512),
    ];
    let ec: [(oid::Oid<'static>, KeyAlgorithm, &'static dyn VerificationAlgorithm); 6] = [
        (oid::OID_SIG_ECDSA_WITH_SHA256, KeyAlgorithm::P256, &signature::ECDSA_P256_SHA256_ASN1),
        (oid::OID_SIG_ECDSA_WITH_SHA384, KeyAlgorithm::P256, &signature::ECDSA_P256_SHA384_ASN1),
        (oid::OID_SIG_ECDSA_WITH_SHA256, KeyAlgorithm::P384, &signature::ECDSA_P384_SHA256_ASN1),
        (oid::OID_SIG_ECDSA_WITH_SHA384, KeyAlgorithm::P384, &signature::ECDSA_P384_SHA384_ASN1),
        (oid::OID_SIG_ECDSA_WITH_SHA256, KeyAlgorithm::P521, &signature::ECDSA_P521_SHA256_ASN1),
        (oid::OID_SIG_ECDSA_WITH_SHA512, KeyAlgorithm::P521, &signature::ECDSA_P521_SHA512_ASN1),
    ];
    let by_rsa = rsa.into_iter().find_map(|(id, algorithm)| (id == *kind).then_some(algorithm));
    by_rsa.or_else(|| {
        let fits = |(id, on, with): (oid::Oid<'static>, KeyAlgorithm, &'static dyn VerificationAlgorithm)| {
            (id == *kind && Some(on) == curve).then_some(with)
        };
        ec.into_iter().find_map(fits)
    })
}
