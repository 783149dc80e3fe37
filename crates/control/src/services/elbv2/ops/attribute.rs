//! Attributes of load balancers, listeners and target groups.

use crate::call::Call;
use crate::services::elbv2::errors::{Elbv2Error, shortened};
use crate::services::elbv2::state::{
    Attributes, DRAINING_INTERVAL, ENDS_UNHEALTHY, Known, PRESERVE_CLIENT_IP, Read, Served, Values,
    of_listener, of_load_balancer, of_target_group,
};
use crate::services::elbv2::{check, views};
use crate::tx::{Tx, View};
use gantry_api::elbv2;

/// Beginnings of cookies' names that are the balancer's own.
const RESERVED_COOKIES: &[&str] = &["AWSALB", "AWSALBAPP", "AWSALBTG"];

/// Characters of a header's name: as many as a rule's condition may name.
const HEADER_NAME_MAX: usize = 40;

/// Whether names of headers and cookies may have it in them: RFC 9110, section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn fits(values: Values, value: &str) -> bool {
    let number = |from: u32, to: u32| value.parse::<u32>().is_ok_and(|number| (from..=to).contains(&number));
    match values {
        Values::Boolean => matches!(value, "true" | "false"),
        Values::Number(from, to) => number(from, to),
        Values::NumberOrOff(from, to) => value == "off" || number(from, to),
        Values::OneOf(all) => all.contains(&value),
        Values::Text => true,
        Values::HeaderName => value.len() <= HEADER_NAME_MAX && value.bytes().all(is_token),
    }
}

/// Sets attributes. `what` they are of, as messages call it.
fn set<'a>(
    what: &str,
    known: &Known,
    attributes: &mut Attributes,
    given: impl Iterator<Item = (Option<&'a String>, Option<&'a String>)>,
) -> Result<(), Elbv2Error> {
    for (key, value) in given {
        let key =
            key.ok_or_else(|| Elbv2Error::validation(format!("A {what} attribute key must be specified")))?;
        let value = value.map(String::as_str).unwrap_or_default();
        let attribute = Read::new(known.clone(), attributes).find(key).ok_or_else(|| {
            let message = format!("{what} attribute key '{}' is not recognized", shortened(key));
            Elbv2Error::InvalidConfiguration(capitalised(&message))
        })?;
        if !fits(attribute.values, value) {
            let value = shortened(value);
            return Err(Elbv2Error::validation(format!(
                "The value '{value}' of the attribute '{key}' is not valid"
            )));
        }
        if attribute.served == Served::No && value != attribute.default {
            let default = attribute.default;
            if key == PRESERVE_CLIENT_IP {
                return Err(Elbv2Error::configuration(
                    "Gantry's load balancers open connections of their own, with their own address: targets learn \
                     the client's by 'proxy_protocol_v2.enabled'.",
                ));
            }
            return Err(Elbv2Error::configuration(format!(
                "Gantry does not serve the attribute '{key}' with another value than '{default}'."
            )));
        }
        if value == attribute.default {
            attributes.remove(key);
        } else {
            attributes.insert(key.clone(), value.to_owned());
        }
    }
    Ok(())
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters).collect()
}

fn balancer_attributes(known: Known, set: &Attributes) -> Option<Vec<elbv2::LoadBalancerAttribute>> {
    let shape = |key, value| elbv2::LoadBalancerAttribute { key: Some(key), value: Some(value) };
    views::attributes(known, set, shape)
}

pub fn describe_load_balancer_attributes(
    view: View<'_>,
    _call: &Call,
    request: elbv2::DescribeLoadBalancerAttributesInput,
) -> Result<elbv2::DescribeLoadBalancerAttributesOutput, Elbv2Error> {
    let balancer = check::load_balancer(view, &request.load_balancer_arn)?;
    let attributes = balancer_attributes(of_load_balancer(balancer.id.kind), &balancer.attributes);
    Ok(elbv2::DescribeLoadBalancerAttributesOutput { attributes })
}

pub fn modify_load_balancer_attributes(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: elbv2::ModifyLoadBalancerAttributesInput,
) -> Result<elbv2::ModifyLoadBalancerAttributesOutput, Elbv2Error> {
    let mut balancer = check::load_balancer(tx.view(), &request.load_balancer_arn)?.clone();
    let known = of_load_balancer(balancer.id.kind);
    let given = request.attributes.iter().map(|given| (given.key.as_ref(), given.value.as_ref()));
    set("load balancer", &known, &mut balancer.attributes, given)?;
    let read = Read::new(known.clone(), &balancer.attributes);
    for logs in ["access_logs", "connection_logs"] {
        let bucket = read.text(&format!("{logs}.s3.bucket"));
        if read.is_on(&format!("{logs}.s3.enabled")) && !is_bucket(bucket) {
            return Err(Elbv2Error::configuration(format!(
                "'{}' is not a valid bucket name",
                shortened(bucket)
            )));
        }
        // It becomes a part of a path on the balancer's disk.
        if read.text(&format!("{logs}.s3.prefix")).split('/').any(|part| matches!(part, "." | "..")) {
            return Err(Elbv2Error::configuration("The prefix of logs cannot have '.' or '..' in it"));
        }
    }
    let attributes = balancer_attributes(known, &balancer.attributes);
    tx.state.elbv2.load_balancers.put(balancer);
    Ok(elbv2::ModifyLoadBalancerAttributesOutput { attributes })
}

/// S3's rules for names of buckets, as far as characters go.
pub(super) fn is_bucket(name: &str) -> bool {
    (3..=63).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.'))
        && !name.starts_with(['-', '.'])
        && !name.ends_with(['-', '.'])
        && !name.contains("..")
}

fn listener_attributes(known: Known, set: &Attributes) -> Option<Vec<elbv2::ListenerAttribute>> {
    let shape = |key, value| elbv2::ListenerAttribute { key: Some(key), value: Some(value) };
    views::attributes(known, set, shape)
}

pub fn describe_listener_attributes(
    view: View<'_>,
    _call: &Call,
    request: elbv2::DescribeListenerAttributesInput,
) -> Result<elbv2::DescribeListenerAttributesOutput, Elbv2Error> {
    let listener = check::listener(view, &request.listener_arn)?;
    let attributes = listener_attributes(of_listener(listener.protocol), &listener.attributes);
    Ok(elbv2::DescribeListenerAttributesOutput { attributes })
}

pub fn modify_listener_attributes(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: elbv2::ModifyListenerAttributesInput,
) -> Result<elbv2::ModifyListenerAttributesOutput, Elbv2Error> {
    let mut listener = check::listener(tx.view(), &request.listener_arn)?.clone();
    let known = of_listener(listener.protocol);
    let given = request.attributes.iter().map(|given| (given.key.as_ref(), given.value.as_ref()));
    set("listener", &known, &mut listener.attributes, given)?;
    let bad = |(_, value): &(&String, &String)| !value.bytes().all(|b| (b' '..=b'~').contains(&b));
    if let Some((key, _)) = listener.attributes.iter().find(bad) {
        return Err(Elbv2Error::validation(format!("The value of the attribute '{key}' is not a header's")));
    }
    let attributes = listener_attributes(known, &listener.attributes);
    tx.state.elbv2.listeners.put(listener);
    Ok(elbv2::ModifyListenerAttributesOutput { attributes })
}

fn group_attributes(known: Known, set: &Attributes) -> Option<Vec<elbv2::TargetGroupAttribute>> {
    let shape = |key, value| elbv2::TargetGroupAttribute { key: Some(key), value: Some(value) };
    views::attributes(known, set, shape)
}

pub fn describe_target_group_attributes(
    view: View<'_>,
    _call: &Call,
    request: elbv2::DescribeTargetGroupAttributesInput,
) -> Result<elbv2::DescribeTargetGroupAttributesOutput, Elbv2Error> {
    let group = check::target_group(view, &request.target_group_arn)?;
    let attributes = group_attributes(of_target_group(group), &group.attributes);
    Ok(elbv2::DescribeTargetGroupAttributesOutput { attributes })
}

pub fn modify_target_group_attributes(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: elbv2::ModifyTargetGroupAttributesInput,
) -> Result<elbv2::ModifyTargetGroupAttributesOutput, Elbv2Error> {
    let mut group = check::target_group(tx.view(), &request.target_group_arn)?.clone();
    let known = of_target_group(&group);
    let given = request.attributes.iter().map(|given| (given.key.as_ref(), given.value.as_ref()));
    set("target group", &known, &mut group.attributes, given)?;
    let read = Read::new(known.clone(), &group.attributes);
    let slow_start = read.number("slow_start.duration_seconds").unwrap_or_default();
    if (1..30).contains(&slow_start) {
        return Err(Elbv2Error::validation(
            "The slow start duration must be 0 or between 30 and 900 seconds",
        ));
    }
    if read.number(DRAINING_INTERVAL).is_some_and(|seconds| seconds > 0) && read.is_on(ENDS_UNHEALTHY) {
        return Err(Elbv2Error::configuration(format!(
            "'{DRAINING_INTERVAL}' can be set only where '{ENDS_UNHEALTHY}' is 'false'"
        )));
    }
    let algorithm = read.text("load_balancing.algorithm.type");
    if slow_start > 0 && algorithm != "round_robin" {
        return Err(Elbv2Error::configuration(format!(
            "Slow start is not supported with the algorithm '{algorithm}'"
        )));
    }
    if read.text("load_balancing.algorithm.anomaly_mitigation") == "on" && algorithm != "weighted_random" {
        return Err(Elbv2Error::configuration(
            "Anomaly mitigation is supported only with the algorithm 'weighted_random'",
        ));
    }
    if read.is_on("stickiness.enabled") && read.text("stickiness.type") == "app_cookie" {
        let name = read.text("stickiness.app_cookie.cookie_name");
        let reserved = RESERVED_COOKIES.iter().any(|reserved| name.starts_with(reserved));
        if name.is_empty() || reserved || !name.bytes().all(is_token) {
            let message = format!("The application cookie name '{}' is not valid", shortened(name));
            return Err(Elbv2Error::configuration(message));
        }
    }
    let attributes = group_attributes(known, &group.attributes);
    tx.state.elbv2.target_groups.put(group);
    Ok(elbv2::ModifyTargetGroupAttributesOutput { attributes })
}
