//! Settings of load balancers on their hosts.

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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_address_is_named_or_none_is_wanted() {
        assert_eq!("off".parse::<LbListen>().unwrap().address(), None);
        assert_eq!("0.0.0.0:80".parse::<LbListen>().unwrap().address(), "0.0.0.0:80".parse().ok());
        assert!(LbListen::default().address().unwrap().ip().is_loopback());
        assert!("80".parse::<LbListen>().is_err());
    }
}
