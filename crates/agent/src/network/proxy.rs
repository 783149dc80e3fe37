//! A task's proxy, in the task's own namespace: what ECS's `aws-appmesh` plug-in sets up there.
//!
//! ```text
//! table inet gantry-proxy {
//!     chain ingress { type nat hook prerouting priority dstnat;
//!         fib saddr type local accept; tcp dport PORT redirect to :INGRESS }
//!     chain egress { type nat hook output priority dstnat;
//!         fib daddr type local accept; meta skuid UID accept; meta skgid GID accept; tcp dport PORT accept
//!         ip daddr BLOCK accept; ip6 daddr BLOCK accept; meta l4proto tcp redirect to :EGRESS }
//! }
//! ```

use super::filter;
use super::netlink::Message;
use super::nft::{
    self, Batch, Is, Line, Meta, OUTPUT, PREROUTING, PRIORITY_DESTINATION, REGISTER_A, TableFamily, Verdict,
    compare,
};
use gantry_decide::network::firewall::{Match, Rule, Side, Verdict as Decision};
use gantry_decide::task::proxy::ProxyRules;
use std::io;

const TABLE: &str = "gantry-proxy";

/// Sets it up in the namespace of the calling thread.
pub fn install(proxy: &ProxyRules) -> io::Result<()> {
    let mut batch = Batch::anew(TableFamily::Inet, TABLE)?;
    batch.base_chain("ingress", "nat", PREROUTING, PRIORITY_DESTINATION);
    pass(&mut batch, "ingress", nft::from_this_host);
    for port in &proxy.app_ports {
        batch.rule("ingress", |rule| {
            to_port(rule, *port);
            nft::redirect(rule, proxy.ingress_port);
        });
    }
    batch.base_chain("egress", "nat", OUTPUT, PRIORITY_DESTINATION);
    pass(&mut batch, "egress", nft::to_this_host);
    for (meta, id) in [(Meta::User, proxy.ignored_uid), (Meta::Group, proxy.ignored_gid)] {
        let Some(id) = id else { continue };
        pass(&mut batch, "egress", |rule| {
            nft::meta(rule, meta, REGISTER_A);
            compare(rule, REGISTER_A, Is::Equal, &id.to_ne_bytes());
        });
    }
    for port in &proxy.ignored_ports {
        pass(&mut batch, "egress", |rule| to_port(rule, *port));
    }
    let v4 = proxy.ignored_v4.iter().map(|block| Match::Peer4(Side::Out, *block));
    let v6 = proxy.ignored_v6.iter().map(|block| Match::Peer6(Side::Out, *block));
    for target in v4.chain(v6) {
        let rule = Rule { matches: vec![target], verdict: Decision::Accept };
        batch.rule("egress", |message| filter::add_rule(message, &rule));
    }
    batch.rule("egress", |rule| {
        tcp(rule);
        nft::redirect(rule, proxy.egress_port);
    });
    batch.commit(&Line::default())
}

/// What `matches` is left as it is.
fn pass(batch: &mut Batch, chain: &str, matches: impl FnOnce(&mut Message)) {
    batch.rule(chain, |rule| {
        matches(rule);
        nft::decide(rule, Verdict::Accept);
    });
}

fn tcp(rule: &mut Message) {
    nft::meta(rule, Meta::Protocol, REGISTER_A);
    compare(rule, REGISTER_A, Is::Equal, &[libc::IPPROTO_TCP as u8]);
}

fn to_port(rule: &mut Message, port: u16) {
    tcp(rule);
    nft::target_port(rule, REGISTER_A);
    compare(rule, REGISTER_A, Is::Equal, &port.to_be_bytes());
}
