//! The security policies of TLS listeners, by AWS's names. A balancer serves of each what its TLS library holds for safe:
//! TLS 1.2 and 1.3 with forward secrecy and authenticated encryption, with post-quantum key exchange where the name has
//! it; `docs/load-balancing.md` says so. Those with FIPS in their names promise a validated library, which it is not.

use gantry_api::elbv2;

/// What a listener has that names none.
pub const DEFAULT: &str = "ELBSecurityPolicy-2016-08";

/// A policy as it is served.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    pub name: &'static str,
    pub tls12: bool,
    pub tls13: bool,
}

const fn policy(name: &'static str, tls12: bool, tls13: bool) -> Policy {
    Policy { name, tls12, tls13 }
}

pub static ALL: &[Policy] = &[
    policy("ELBSecurityPolicy-2016-08", true, false),
    policy("ELBSecurityPolicy-FS-1-1-2019-08", true, false),
    policy("ELBSecurityPolicy-FS-1-2-2019-08", true, false),
    policy("ELBSecurityPolicy-FS-1-2-Res-2019-08", true, false),
    policy("ELBSecurityPolicy-FS-1-2-Res-2020-10", true, false),
    policy("ELBSecurityPolicy-FS-2018-06", true, false),
    policy("ELBSecurityPolicy-TLS-1-1-2017-01", true, false),
    policy("ELBSecurityPolicy-TLS-1-2-2017-01", true, false),
    policy("ELBSecurityPolicy-TLS-1-2-Ext-2018-06", true, false),
    policy("ELBSecurityPolicy-TLS13-1-0-2021-06", true, true),
    policy("ELBSecurityPolicy-TLS13-1-1-2021-06", true, true),
    policy("ELBSecurityPolicy-TLS13-1-2-2021-06", true, true),
    policy("ELBSecurityPolicy-TLS13-1-2-Ext1-2021-06", true, true),
    policy("ELBSecurityPolicy-TLS13-1-2-Ext2-2021-06", true, true),
    policy("ELBSecurityPolicy-TLS13-1-2-Res-2021-06", true, true),
    policy("ELBSecurityPolicy-TLS13-1-3-2021-06", false, true),
    policy("ELBSecurityPolicy-TLS13-1-0-PQ-2025-09", true, true),
    policy("ELBSecurityPolicy-TLS13-1-2-PQ-2025-09", true, true),
    policy("ELBSecurityPolicy-TLS13-1-2-Ext1-PQ-2025-09", true, true),
    policy("ELBSecurityPolicy-TLS13-1-2-Ext2-PQ-2025-09", true, true),
    policy("ELBSecurityPolicy-TLS13-1-2-Res-PQ-2025-09", true, true),
    policy("ELBSecurityPolicy-TLS13-1-3-PQ-2025-09", false, true),
];

const CIPHERS_13: &[&str] =
    &["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"];
const CIPHERS_12: &[&str] = &[
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
];

pub fn find(name: &str) -> Option<&'static Policy> {
    ALL.iter().find(|policy| policy.name == name)
}

pub fn view(policy: &Policy) -> elbv2::SslPolicy {
    let mut protocols = Vec::new();
    let mut ciphers: Vec<&str> = Vec::new();
    if policy.tls13 {
        protocols.push("TLSv1.3".to_owned());
        ciphers.extend(CIPHERS_13);
    }
    if policy.tls12 {
        protocols.push("TLSv1.2".to_owned());
        ciphers.extend(CIPHERS_12);
    }
    let cipher = |(priority, name): (i32, &str)| elbv2::Cipher {
        name: Some(name.to_owned()),
        priority: Some(priority),
    };
    elbv2::SslPolicy {
        name: Some(policy.name.to_owned()),
        ssl_protocols: Some(protocols),
        ciphers: Some((1..).zip(ciphers).map(cipher).collect()),
        supported_load_balancer_types: Some(vec!["application".to_owned(), "network".to_owned()]),
    }
}
