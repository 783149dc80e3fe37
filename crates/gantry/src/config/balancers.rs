//! Settings of load balancers on their hosts.

use gantry_decide::network::{Ipv4Block, Ipv6Block};
use gantry_server::server::BalancerAddresses;
use serde::Deserialize;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// Where load balancers are found by host name, unless told otherwise: loopback, beside the API's port.
const SHARED: &str = "127.0.0.1:4581";

/// Where load balancers are found by the host name that a client asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum LbListen {
    /// At the usual address, where that is free.
    #[default]
    Usual,
    Off,
    /// There, or not at all: who names an address relies on it.
    At(SocketAddr),
}

impl LbListen {
    /// The address to take.
    pub fn address(self) -> Option<SocketAddr> {
        match self {
            LbListen::Usual => Some(SHARED.parse().expect("the usual address is one")),
            LbListen::Off => None,
            LbListen::At(address) => Some(address),
        }
    }

    /// Where load balancers are found by name on their listeners' own ports. Clients that find names below `localhost` by
    /// themselves look there first; the ports of 127.0.0.1 stay containers'.
    pub fn names(self) -> Option<IpAddr> {
        (self != LbListen::Off).then_some(IpAddr::V6(Ipv6Addr::LOCALHOST))
    }
}

impl FromStr for LbListen {
    type Err = String;

    fn from_str(text: &str) -> Result<LbListen, String> {
        match text {
            "off" => Ok(LbListen::Off),
            text => text
                .parse()
                .map(LbListen::At)
                .map_err(|_| format!("'{text}' is neither ADDRESS:PORT nor off")),
        }
    }
}

impl TryFrom<String> for LbListen {
    type Error = String;

    fn try_from(text: String) -> Result<LbListen, String> {
        text.parse()
    }
}

/// The pools that load balancers have their addresses from: `CIDR` of either family, or one of each and a comma.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct LbAddresses(pub BalancerAddresses);

impl FromStr for LbAddresses {
    type Err = String;

    fn from_str(text: &str) -> Result<LbAddresses, String> {
        let (mut ipv4, mut ipv6) = (None, None);
        for part in text.split(',') {
            let second = match (part.parse::<Ipv4Block>(), part.parse::<Ipv6Block>()) {
                (Ok(block), _) => ipv4.replace(block).is_some(),
                (_, Ok(block)) => ipv6.replace(block).is_some(),
                (_, Err(error)) => return Err(error.to_string()),
            };
            if second {
                return Err(format!("'{text}' has two blocks of one family: there is one pool of each"));
            }
        }
        let usual = BalancerAddresses::default();
        Ok(LbAddresses(BalancerAddresses { ipv4: ipv4.unwrap_or(usual.ipv4), ipv6 }))
    }
}

impl TryFrom<String> for LbAddresses {
    type Error = String;

    fn try_from(text: String) -> Result<LbAddresses, String> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn there_is_a_pool_of_each_family() {
        let usual = LbAddresses::default().0;
        let of = |text: &str| text.parse::<LbAddresses>().map(|pools| (pools.0.ipv4, pools.0.ipv6));
        let (ipv4, ipv6) = ("10.1.0.0/24".parse().unwrap(), "2001:db8::/64".parse().ok());
        assert_eq!(of("10.1.0.0/24"), Ok((ipv4, None)));
        assert_eq!(of("2001:db8::/64"), Ok((usual.ipv4, ipv6)));
        assert_eq!(of("2001:db8::/64,10.1.0.0/24"), Ok((ipv4, ipv6)));
        assert!(of("10.1.0.0/24,10.2.0.0/24").is_err() && of("10.1.0.0/24,").is_err() && of("x").is_err());
    }

    #[test]
    fn an_address_is_named_or_none_is_wanted() {
        assert_eq!("off".parse::<LbListen>().unwrap().address(), None);
        assert_eq!("0.0.0.0:80".parse::<LbListen>().unwrap().address(), "0.0.0.0:80".parse().ok());
        assert!(LbListen::default().address().unwrap().ip().is_loopback());
        assert!("80".parse::<LbListen>().is_err());
    }
}
