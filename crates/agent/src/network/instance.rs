//! Where the instance's own metadata is asked for on this host, and that tasks do not get there: neither to ours, nor to
//! that of the cloud which the host itself may be a machine of.
//!
//! ```text
//! table ip gantry-NAME-instance {
//!     chain output { type nat hook output priority dstnat; ip daddr ADDRESS tcp dport 80 dnat to ADDRESS:PORT }
//!     chain input { type filter hook input priority 0; iifname != "lo" ip daddr ADDRESS drop }
//! }
//! ```

use super::nat;
use super::netlink::Message;
use super::nft::{
    self, Batch, Header, INPUT, Is, Line, Meta, OUTPUT, PRIORITY_DESTINATION, PRIORITY_FILTER, REGISTER_A,
    TableFamily, Verdict, compare,
};
use std::io;
use std::net::Ipv4Addr;

/// EC2's, for all instances.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
/// Where it is really listened for: port 80 of all addresses stays free to use. ECS reserves this one on every host.
pub const PORT: u16 = 51_680;

/// The table of an agent that answers.
pub fn table(agent: &str) -> String {
    format!("gantry-{agent}-instance")
}

/// Leads the host's own questions to where they are answered.
pub fn install(agent: &str) -> io::Result<()> {
    let mut batch = Batch::anew(TableFamily::Ipv4, &table(agent))?;
    batch.base_chain("output", "nat", OUTPUT, PRIORITY_DESTINATION);
    batch.rule("output", |rule| nat::lead(rule, ADDRESS, PORT));
    batch.base_chain("input", "filter", INPUT, PRIORITY_FILTER);
    batch.rule("input", |rule| {
        nft::meta(rule, Meta::InputName, REGISTER_A);
        compare(rule, REGISTER_A, Is::Other, &nft::link_name("lo"));
        for_instance(rule);
        nft::decide(rule, Verdict::Drop);
    });
    batch.commit(&Line::default())
}

/// Goes on with what is meant for an instance's metadata.
pub fn for_instance(rule: &mut Message) {
    const TARGET_ADDRESS: u32 = 16;
    nft::payload(rule, Header::Network, TARGET_ADDRESS, 4, REGISTER_A);
    compare(rule, REGISTER_A, Is::Equal, &ADDRESS.octets());
}
