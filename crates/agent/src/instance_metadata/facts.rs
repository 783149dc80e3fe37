//! What is told of an instance, by its path. Directories follow from the paths of what is in them.

use crate::config::AgentConfig;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, UdpSocket};

/// See the module.
pub struct Facts(BTreeMap<String, String>);

/// The machine's own link to others.
struct Uplink {
    address: Ipv4Addr,
    /// As EC2 writes hardware addresses.
    mac: Option<String>,
}

impl Facts {
    /// Of the instance of this id, in this zone, as it was registered.
    pub fn new(config: &AgentConfig, account: &str, instance_id: &str, zone: Option<&str>) -> Facts {
        let kind = config.machine.as_ref().and_then(|machine| machine.instance_type.as_deref());
        let host_name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
        Facts::of(&config.region, (account, instance_id, kind, zone), host_name, uplink(config))
    }

    fn of(
        region: &str,
        (account, instance_id, kind, zone): (&str, &str, Option<&str>, Option<&str>),
        host_name: Option<String>,
        uplink: Option<Uplink>,
    ) -> Facts {
        let address = uplink.as_ref().map(|uplink| uplink.address.to_string());
        let mut facts = Facts(BTreeMap::new());
        let mut tell = |path: &str, value: Option<&str>| {
            if let Some(value) = value {
                facts.0.insert(format!("meta-data/{path}"), value.to_owned());
            }
        };
        tell("instance-id", Some(instance_id));
        tell("instance-type", kind);
        tell("instance-life-cycle", Some("on-demand"));
        tell("hostname", host_name.as_deref());
        tell("local-hostname", host_name.as_deref());
        tell("local-ipv4", address.as_deref());
        tell("placement/availability-zone", zone);
        tell("placement/region", Some(region));
        tell("services/domain", Some("amazonaws.com"));
        tell("services/partition", Some("aws"));
        if let Some(mac) = uplink.as_ref().and_then(|uplink| uplink.mac.as_deref()) {
            tell("mac", Some(mac));
            let own = format!("network/interfaces/macs/{mac}");
            tell(&format!("{own}/mac"), Some(mac));
            tell(&format!("{own}/device-number"), Some("0"));
            tell(&format!("{own}/local-ipv4s"), address.as_deref());
        }
        let document = json!({
            "accountId": account,
            "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "x86_64" },
            "availabilityZone": zone,
            "instanceId": instance_id,
            "instanceType": kind,
            "privateIp": address,
            "region": region,
            // Of the document's form, which has not changed since.
            "version": "2017-09-30",
        });
        facts.0.insert("dynamic/instance-identity/document".to_owned(), format!("{document:#}"));
        facts
    }

    /// The text at a path, such as `/latest/meta-data/instance-id`, or what a directory has, one below the other.
    pub fn look_up(&self, path: &str) -> Option<String> {
        let mut parts = path.split('/').filter(|part| !part.is_empty());
        let Some(version) = parts.next() else { return Some("latest".to_owned()) };
        if !is_version(version) {
            return None;
        }
        let path = parts.collect::<Vec<_>>().join("/");
        if let Some(value) = self.0.get(&path) {
            return Some(value.clone());
        }
        let prefix = if path.is_empty() { path } else { format!("{path}/") };
        let below = self.0.range(prefix.clone()..).map_while(|(path, _)| path.strip_prefix(prefix.as_str()));
        // A directory is listed with the slash behind it.
        let names: BTreeSet<&str> =
            below.map(|rest| rest.find('/').map_or(rest, |slash| &rest[..=slash])).collect();
        (!names.is_empty()).then(|| names.into_iter().collect::<Vec<_>>().join("\n"))
    }
}

/// `latest`, or one of EC2's by their date: what is told is in all of them.
fn is_version(text: &str) -> bool {
    let is_date = text.len() == 10
        && text.bytes().enumerate().all(|(at, byte)| match at {
            4 | 7 => byte == b'-',
            _ => byte.is_ascii_digit(),
        });
    text == "latest" || is_date
}

/// By which address the machine speaks to others, and by which hardware.
fn uplink(config: &AgentConfig) -> Option<Uplink> {
    /// For documentation (RFC 5737). Nothing is sent: the kernel only looks for the way.
    const ELSEWHERE: (Ipv4Addr, u16) = (Ipv4Addr::new(192, 0, 2, 1), 9);
    let by_route = || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
        socket.connect(ELSEWHERE).ok()?;
        match socket.local_addr().ok()?.ip() {
            std::net::IpAddr::V4(address) => Some(address),
            std::net::IpAddr::V6(_) => None,
        }
    };
    let address = config.host_address.or_else(by_route)?;
    let all: Vec<_> = nix::ifaddrs::getifaddrs().ok()?.collect();
    let of =
        |one: &nix::ifaddrs::InterfaceAddress| one.address.and_then(|own| Some(own.as_sockaddr_in()?.ip()));
    let name = all.iter().find(|one| of(one) == Some(address)).map(|one| one.interface_name.as_str());
    let links = all.iter().filter(|one| Some(one.interface_name.as_str()) == name);
    let mac = links.filter_map(|one| one.address.as_ref()?.as_link_addr()?.addr()).next();
    let mac = mac.map(|mac| mac.map(|byte| format!("{byte:02x}")).join(":"));
    Some(Uplink { address, mac })
}

#[cfg(test)]
pub mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    pub fn sample() -> Facts {
        let uplink =
            Uplink { address: Ipv4Addr::new(10, 0, 0, 5), mac: Some("0a:00:00:00:00:05".to_owned()) };
        let of = ("123456789012", "i-0123456789abcdef0", None, Some("eu-north-1b"));
        Facts::of("eu-north-1", of, Some("ip-10-0-0-5".to_owned()), Some(uplink))
    }

    #[test]
    fn paths_lead_to_values_and_directories() {
        let facts = sample();
        let at = |path: &str| facts.look_up(path);
        for (path, value) in [
            ("/latest/meta-data/instance-id", "i-0123456789abcdef0"),
            ("/2021-07-15/meta-data/placement/region", "eu-north-1"),
            ("/latest/meta-data/placement/availability-zone/", "eu-north-1b"),
            ("/latest/meta-data/network/interfaces/macs/0a:00:00:00:00:05/local-ipv4s", "10.0.0.5"),
            ("/latest/meta-data/network/interfaces/macs/", "0a:00:00:00:00:05/"),
            ("/latest/meta-data/placement", "availability-zone\nregion"),
            ("/latest", "dynamic/\nmeta-data/"),
            ("/", "latest"),
        ] {
            assert_eq!(at(path).as_deref(), Some(value), "{path}");
        }
        for path in [
            "/newest/meta-data/mac",
            "/latest/user-data",
            "/latest/meta-data/place",
            "/latest/meta-data/iam/",
        ] {
            assert_eq!(at(path), None, "{path}");
        }
        let document = at("/latest/dynamic/instance-identity/document").unwrap();
        let document: serde_json::Value = serde_json::from_str(&document).unwrap();
        assert_eq!((&document["privateIp"], &document["instanceType"]), (&json!("10.0.0.5"), &json!(null)));
    }
}
