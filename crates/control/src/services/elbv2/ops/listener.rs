//! Listeners.

use crate::call::Call;
use crate::services::elbv2::actions::{self, Place};
use crate::services::elbv2::errors::{Elbv2Error, Limit, shortened};
use crate::services::elbv2::ops::load_balancer::NO_DATAGRAMS;
use crate::services::elbv2::state::{Attributes, Listener, LoadBalancer, Tags, Tls};
use crate::services::elbv2::{check, policies, views};
use crate::tx::{Tx, View};
use gantry_api::elbv2;
use gantry_decide::ids::{BalancerKind, ListenerId, LoadBalancerId, RuleId};
use gantry_decide::routing::config::{AlpnPolicy, ClientCertificates, Protocol, TrustStoreArn, Verification};

/// Listeners of one load balancer: AWS's quota.
pub const LISTENERS_MAX: usize = 50;

/// The protocol of a listener, if its load balancer speaks it.
fn protocol(kind: BalancerKind, given: Option<elbv2::ProtocolEnum>) -> Result<Protocol, Elbv2Error> {
    let given = given.ok_or_else(|| Elbv2Error::validation("A listener protocol must be specified"))?;
    let (spoken, named): (&[Protocol], _) = match kind {
        BalancerKind::Application => (&[Protocol::Http, Protocol::Https], "HTTPS, HTTP"),
        BalancerKind::Network => {
            (&[Protocol::Tls, Protocol::Tcp, Protocol::TcpUdp, Protocol::Udp], "TLS, TCP, TCP_UDP, UDP")
        }
    };
    check::protocol(given).filter(|protocol| spoken.contains(protocol)).ok_or_else(|| {
        Elbv2Error::validation(format!("Listener protocol '{}' must be one of '{named}'", given.as_str()))
    })
}

fn port(given: Option<i32>) -> Result<u16, Elbv2Error> {
    let port = given.ok_or_else(|| Elbv2Error::validation("A listener port must be specified"))?;
    let port = u16::try_from(port).ok().filter(|port| *port > 0);
    port.ok_or_else(|| Elbv2Error::validation("Port must be between 1 and 65535"))
}

fn alpn(given: Option<&[String]>) -> Result<Option<AlpnPolicy>, Elbv2Error> {
    let [policy] = given.unwrap_or_default() else {
        return match given {
            None | Some([]) => Ok(None),
            Some(_) => Err(Elbv2Error::validation("You can specify one ALPN policy")),
        };
    };
    let all = [
        AlpnPolicy::None,
        AlpnPolicy::Http1Only,
        AlpnPolicy::Http2Only,
        AlpnPolicy::Http2Optional,
        AlpnPolicy::Http2Preferred,
    ];
    let found = all.into_iter().find(|known| views::alpn(*known) == policy);
    found.map(Some).ok_or_else(|| Elbv2Error::AlpnPolicyNotSupported(shortened(policy)))
}

/// Whether clients are asked for certificates. None when nothing was given.
fn mutual_authentication(
    view: View<'_>,
    protocol: Protocol,
    given: Option<&elbv2::MutualAuthenticationAttributes>,
) -> Result<Option<ClientCertificates>, Elbv2Error> {
    let Some(given) = given else { return Ok(None) };
    // Terraform sends an empty one for none.
    let trust_store = given.trust_store_arn.as_deref().filter(|arn| !arn.is_empty());
    let ignore_expiry = given.ignore_client_certificate_expiry == Some(true);
    let advertise_authorities =
        given.advertise_trust_store_ca_names == Some(elbv2::AdvertiseTrustStoreCaNamesEnum::On);
    let asked = match given.mode.as_deref() {
        None | Some("off") => ClientCertificates::Off,
        Some("passthrough") => ClientCertificates::Passthrough,
        Some("verify") => {
            let arn = trust_store.ok_or_else(|| {
                let message = "A trust store must be specified with the mutual authentication mode 'verify'";
                Elbv2Error::validation(message)
            })?;
            check::trust_store(view, arn)?;
            let trust_store = TrustStoreArn::new(arn);
            ClientCertificates::Verify(Verification { trust_store, ignore_expiry, advertise_authorities })
        }
        Some(mode) => {
            return Err(Elbv2Error::validation(format!(
                "Mutual authentication mode '{}' must be one of 'off, passthrough, verify'",
                shortened(mode)
            )));
        }
    };
    let verifies = matches!(asked, ClientCertificates::Verify(_));
    if !verifies && (trust_store.is_some() || ignore_expiry || advertise_authorities) {
        return Err(Elbv2Error::validation(format!(
            "A trust store, 'IgnoreClientCertificateExpiry' and 'AdvertiseTrustStoreCaNames' cannot be specified with \
             the mutual authentication mode '{}'",
            views::mode(&asked)
        )));
    }
    if protocol != Protocol::Https && asked != ClientCertificates::Off {
        return Err(Elbv2Error::validation(
            "Mutual authentication can be specified only for HTTPS listeners",
        ));
    }
    Ok(Some(asked))
}

/// What a request says of TLS: the same members in two operations.
struct Asked<'a> {
    certificates: Option<&'a [elbv2::Certificate]>,
    policy: Option<&'a str>,
    alpn: Option<AlpnPolicy>,
    client_certificates: Option<ClientCertificates>,
}

/// How a listener of a protocol is to speak TLS, from what is given and what it had.
fn tls(
    view: View<'_>,
    protocol: Protocol,
    asked: &Asked<'_>,
    had: Option<&Tls>,
) -> Result<Option<Tls>, Elbv2Error> {
    let Asked { certificates, policy, alpn, ref client_certificates } = *asked;
    let shown = views::protocol(protocol).as_str();
    if alpn.is_some() && protocol != Protocol::Tls {
        return Err(Elbv2Error::validation("ALPN policies can be specified only for TLS listeners"));
    }
    if !matches!(protocol, Protocol::Https | Protocol::Tls) {
        if certificates.is_some_and(|certificates| !certificates.is_empty()) {
            let message = format!("A certificate cannot be specified for {shown} listeners");
            return Err(Elbv2Error::validation(message));
        }
        if policy.is_some() {
            let message = format!("An SSL policy cannot be specified for {shown} listeners");
            return Err(Elbv2Error::validation(message));
        }
        return Ok(None);
    }
    let certificate = match (certificates.unwrap_or_default(), had) {
        ([], Some(had)) => had.certificate.clone(),
        ([], None) => {
            let message = format!("A certificate must be specified for {shown} listeners");
            return Err(Elbv2Error::validation(message));
        }
        ([only], _) => super::certificate::named(view, only)?,
        _ => return Err(Elbv2Error::TooMany(Limit::Certificates)),
    };
    let policy = policy.or(had.map(|had| had.policy.as_str())).unwrap_or(policies::DEFAULT);
    if policies::find(policy).is_none() {
        return Err(Elbv2Error::SslPolicyNotFound(shortened(policy)));
    }
    Ok(Some(Tls {
        policy: policy.to_owned(),
        certificate,
        more_certificates: had.map(|had| had.more_certificates.clone()).unwrap_or_default(),
        alpn: alpn.or(had.and_then(|had| had.alpn)),
        client_certificates: client_certificates
            .as_ref()
            .or(had.filter(|_| protocol == Protocol::Https).map(|had| &had.client_certificates))
            .cloned()
            .unwrap_or_default(),
    }))
}

fn taken(
    view: View<'_>,
    balancer: &LoadBalancerId,
    port: u16,
    but: Option<&ListenerId>,
) -> Result<(), Elbv2Error> {
    let mut others = view.state.elbv2.listeners_of(balancer).filter(|listener| Some(&listener.id) != but);
    if others.any(|listener| listener.port == port) {
        return Err(Elbv2Error::DuplicateListener(view.scope.balancing(balancer.clone()).to_string()));
    }
    Ok(())
}

/// Whether a load balancer may have a listener of a protocol.
fn datagrams(view: View<'_>, balancer: &LoadBalancerId, protocol: Protocol) -> Result<(), Elbv2Error> {
    let needs = |known: &LoadBalancer| known.address_type.has_ipv6() && !known.source_nat;
    if protocol.has_datagrams() && view.state.elbv2.load_balancer(balancer).is_some_and(needs) {
        return Err(Elbv2Error::configuration(NO_DATAGRAMS));
    }
    Ok(())
}

pub fn create_listener(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: elbv2::CreateListenerInput,
) -> Result<elbv2::CreateListenerOutput, Elbv2Error> {
    let view = tx.view();
    let balancer = check::load_balancer(view, &request.load_balancer_arn)?.id.clone();
    let (protocol, port) = (protocol(balancer.kind, request.protocol)?, port(request.port)?);
    let asked = Asked {
        certificates: request.certificates.as_deref(),
        policy: request.ssl_policy.as_deref(),
        alpn: alpn(request.alpn_policy.as_deref())?,
        client_certificates: mutual_authentication(view, protocol, request.mutual_authentication.as_ref())?,
    };
    let tls = tls(view, protocol, &asked, None)?;
    let tags = check::tags(request.tags.as_deref())?;
    taken(view, &balancer, port, None)?;
    datagrams(view, &balancer, protocol)?;
    if view.state.elbv2.listeners_of(&balancer).count() >= LISTENERS_MAX {
        return Err(Elbv2Error::TooMany(Limit::Listeners));
    }
    let default_action =
        actions::read(view, Place { balancer: &balancer, protocol }, &request.default_actions)?;
    let id = ListenerId::random(balancer, tx.random);
    let listener = Listener {
        default_rule: RuleId::random(id.clone(), tx.random),
        id,
        port,
        protocol,
        tls,
        default_action,
        attributes: Attributes::new(),
        tags,
        rule_tags: Tags::new(),
    };
    let listeners = Some(vec![views::listener(tx.scope, &listener)]);
    tx.state.elbv2.listeners.put(listener);
    Ok(elbv2::CreateListenerOutput { listeners })
}

pub fn describe_listeners(
    view: View<'_>,
    _call: &Call,
    request: elbv2::DescribeListenersInput,
) -> Result<elbv2::DescribeListenersOutput, Elbv2Error> {
    let arns = request.listener_arns.unwrap_or_default();
    let page = check::page(request.marker.as_deref(), request.page_size)?;
    let mut found: Vec<&Listener> = Vec::new();
    match (&request.load_balancer_arn, arns.as_slice()) {
        (Some(balancer), []) => {
            let balancer = check::load_balancer(view, balancer)?;
            found.extend(view.state.elbv2.listeners_of(&balancer.id));
        }
        (None, arns) if !arns.is_empty() => {
            for arn in arns {
                found.push(check::listener(view, arn)?);
            }
        }
        _ => {
            let message = "You must specify either listener ARNs or a load balancer ARN";
            return Err(Elbv2Error::validation(message));
        }
    }
    found.sort_by_cached_key(|listener| listener.id.to_string());
    found.dedup_by(|one, other| one.id == other.id);
    let show = |listener: &Listener| views::listener(view.scope, listener);
    let (shown, next_marker) = page.cut(found.into_iter(), |listener| listener.id.to_string(), show);
    Ok(elbv2::DescribeListenersOutput { listeners: Some(shown), next_marker })
}

/// What is not given stays as it is.
pub fn modify_listener(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: elbv2::ModifyListenerInput,
) -> Result<elbv2::ModifyListenerOutput, Elbv2Error> {
    let view = tx.view();
    let mut listener = check::listener(view, &request.listener_arn)?.clone();
    let balancer = listener.id.balancer.clone();
    if request.protocol.is_some() {
        listener.protocol = protocol(balancer.kind, request.protocol)?;
        datagrams(view, &balancer, listener.protocol)?;
    }
    if request.port.is_some() {
        listener.port = port(request.port)?;
        taken(view, &balancer, listener.port, Some(&listener.id))?;
    }
    let mutual = request.mutual_authentication.as_ref();
    let asked = Asked {
        certificates: request.certificates.as_deref(),
        policy: request.ssl_policy.as_deref(),
        alpn: alpn(request.alpn_policy.as_deref())?,
        client_certificates: mutual_authentication(view, listener.protocol, mutual)?,
    };
    listener.tls = tls(view, listener.protocol, &asked, listener.tls.as_ref())?;
    let place = Place { balancer: &balancer, protocol: listener.protocol };
    match request.default_actions.as_deref() {
        Some(given) => listener.default_action = actions::read(view, place, given)?,
        // Its actions must fit the new protocol too.
        None => drop(actions::read(view, place, &[actions::view(&listener.default_action)])?),
    }
    for rule in view.state.elbv2.rules_of(&listener.id) {
        actions::read(view, place, &[actions::view(&rule.action)])?;
    }
    let listeners = Some(vec![views::listener(tx.scope, &listener)]);
    tx.state.elbv2.listeners.put(listener);
    Ok(elbv2::ModifyListenerOutput { listeners })
}

/// Takes a listener and its rules away.
pub fn remove(tx: &mut Tx<'_>, id: &ListenerId) {
    let rules: Vec<RuleId> = tx.state.elbv2.rules_of(id).map(|rule| rule.id.clone()).collect();
    for rule in &rules {
        tx.state.elbv2.rules.remove(rule);
    }
    tx.state.elbv2.listeners.remove(id);
}

pub fn delete_listener(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: elbv2::DeleteListenerInput,
) -> Result<elbv2::DeleteListenerOutput, Elbv2Error> {
    let id = check::listener(tx.view(), &request.listener_arn)?.id.clone();
    remove(tx, &id);
    Ok(elbv2::DeleteListenerOutput::default())
}
