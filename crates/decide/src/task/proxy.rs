//! What `proxyConfiguration` says: which of a task's TCP connections lead to its proxy. The names of the properties are
//! ECS's; lists in them are separated by commas.

use crate::network::{Ipv4Block, Ipv6Block};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Addresses that no proxy stands before, as the stock agent adds them: the task's own endpoints and the instance's.
const NEVER_V4: [Ipv4Addr; 2] = [Ipv4Addr::new(169, 254, 170, 2), Ipv4Addr::new(169, 254, 169, 254)];
const NEVER_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyRules {
    /// Where what comes in for one of `app_ports` is led.
    pub ingress_port: u16,
    pub app_ports: Vec<u16>,
    /// Where what goes out is led, but for what follows.
    pub egress_port: u16,
    /// Of processes, those of the proxy itself.
    pub ignored_uid: Option<u32>,
    pub ignored_gid: Option<u32>,
    /// Target ports.
    pub ignored_ports: Vec<u16>,
    /// Targets.
    pub ignored_v4: Vec<Ipv4Block>,
    pub ignored_v6: Vec<Ipv6Block>,
}

/// A property that is missing or says nothing that there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidProxy {
    #[error("the property {0} is required")]
    Missing(&'static str),
    #[error("the property {0} is invalid")]
    Invalid(&'static str),
}

impl ProxyRules {
    /// Reads the properties, by a look-up of their names. Empty ones count as missing; names that ECS does not know are
    /// passed over, as by the stock agent.
    ///
    /// # Errors
    /// For the first property that is missing or invalid.
    pub fn read<'a>(property: impl Fn(&str) -> Option<&'a str>) -> Result<ProxyRules, InvalidProxy> {
        let given = |name| property(name).map(str::trim).filter(|text| !text.is_empty());
        let number =
            |name| given(name).map(|text| text.parse().map_err(|_| InvalidProxy::Invalid(name))).transpose();
        let port = |name| match given(name) {
            Some(text) => one_port(text).ok_or(InvalidProxy::Invalid(name)),
            None => Err(InvalidProxy::Missing(name)),
        };
        let ports = |name| list(given(name), one_port).ok_or(InvalidProxy::Invalid(name));
        let (ignored_uid, ignored_gid) = (number("IgnoredUID")?, number("IgnoredGID")?);
        if ignored_uid.is_none() && ignored_gid.is_none() {
            // Without, what the proxy sends would come back to it for ever.
            return Err(InvalidProxy::Missing("IgnoredUID"));
        }
        let (ingress_port, egress_port) = (port("ProxyIngressPort")?, port("ProxyEgressPort")?);
        let app_ports = ports("AppPorts")?;
        if app_ports.is_empty() {
            return Err(InvalidProxy::Missing("AppPorts"));
        }
        let ignored_ports = ports("EgressIgnoredPorts")?;
        let ignored = list(given("EgressIgnoredIPs"), |text| {
            block::<Ipv4Block>(text, 32).map(Ok).or_else(|| block::<Ipv6Block>(text, 128).map(Err))
        });
        let ignored = ignored.ok_or(InvalidProxy::Invalid("EgressIgnoredIPs"))?;
        let mut ignored_v4: Vec<_> =
            ignored.iter().filter_map(|block| block.as_ref().ok().copied()).collect();
        let mut ignored_v6: Vec<_> =
            ignored.iter().filter_map(|block| block.as_ref().err().copied()).collect();
        ignored_v4.extend(NEVER_V4.iter().filter_map(|address| Ipv4Block::around(*address, 32)));
        ignored_v6.extend(Ipv6Block::around(NEVER_V6, 128));
        Ok(ProxyRules {
            ingress_port,
            app_ports,
            egress_port,
            ignored_uid,
            ignored_gid,
            ignored_ports,
            ignored_v4,
            ignored_v6,
        })
    }
}

fn one_port(text: &str) -> Option<u16> {
    text.parse().ok().filter(|port| *port > 0)
}

/// All parts of a list, each once; `None` when one of them is none.
fn list<T: PartialEq>(text: Option<&str>, read: impl Fn(&str) -> Option<T>) -> Option<Vec<T>> {
    let mut all = Vec::new();
    for part in text.unwrap_or_default().split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let one = read(part)?;
        if !all.contains(&one) {
            all.push(one);
        }
    }
    Some(all)
}

/// A block, or an address as a block of its own.
fn block<T: FromStr>(text: &str, bits: u8) -> Option<T> {
    if text.contains('/') { text.parse().ok() } else { format!("{text}/{bits}").parse().ok() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const FULL: &[(&str, &str)] = &[
        ("IgnoredUID", "1337"),
        ("ProxyIngressPort", "15000"),
        ("ProxyEgressPort", "15001"),
        ("AppPorts", "9080, 9081,9080"),
        ("EgressIgnoredIPs", "169.254.170.2,10.0.0.0/8,fd00::1"),
        ("EgressIgnoredPorts", "22"),
    ];

    fn read(changes: &[(&str, &str)]) -> Result<ProxyRules, InvalidProxy> {
        let property =
            |name: &str| changes.iter().chain(FULL).find(|(key, _)| *key == name).map(|(_, value)| *value);
        ProxyRules::read(property)
    }

    #[test]
    fn properties_are_read_as_ecs_writes_them() {
        let rules = read(&[]).unwrap();
        assert_eq!((rules.ignored_uid, rules.ignored_gid), (Some(1337), None));
        assert_eq!((rules.ingress_port, rules.egress_port), (15000, 15001));
        assert_eq!((rules.app_ports, rules.ignored_ports), (vec![9080, 9081], vec![22]));
        let shown: Vec<String> = rules.ignored_v4.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["169.254.170.2/32", "10.0.0.0/8", "169.254.170.2/32", "169.254.169.254/32"]);
        assert_eq!(rules.ignored_v6.len(), 2);
        assert!(read(&[("EgressIgnoredIPs", ""), ("EgressIgnoredPorts", "")]).is_ok());
        assert!(read(&[("IgnoredUID", ""), ("IgnoredGID", "7")]).is_ok());
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        use InvalidProxy::{Invalid, Missing};
        for (name, value, error) in [
            ("IgnoredUID", "", Missing("IgnoredUID")),
            ("IgnoredUID", "root", Invalid("IgnoredUID")),
            ("ProxyIngressPort", " ", Missing("ProxyIngressPort")),
            ("ProxyIngressPort", "0", Invalid("ProxyIngressPort")),
            ("ProxyEgressPort", "65536", Invalid("ProxyEgressPort")),
            ("AppPorts", ",", Missing("AppPorts")),
            ("AppPorts", "80,x", Invalid("AppPorts")),
            ("EgressIgnoredPorts", "-1", Invalid("EgressIgnoredPorts")),
            ("EgressIgnoredIPs", "localhost", Invalid("EgressIgnoredIPs")),
            ("EgressIgnoredIPs", "10.0.0.0/33", Invalid("EgressIgnoredIPs")),
        ] {
            assert_eq!(read(&[(name, value)]), Err(error), "{name}={value}");
        }
    }
}
