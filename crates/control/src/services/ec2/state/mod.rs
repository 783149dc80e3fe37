//! EC2's tables: the networks and launch templates of one scope, and what must always hold between them.
//!
//! A scope has a default VPC before anybody made one. Nothing is stored for it until something of EC2's is written:
//! until then readers see what [`defaults`] derives from the scope's name, the same each time.

mod defaults;
mod launch_template;
mod load;
mod security_group;
mod subnet;
mod vpc;

pub use defaults::{DefaultVpcBlock, Defaults};
pub use launch_template::*;
pub use load::Row;
pub use security_group::*;
pub use subnet::*;
pub use vpc::*;

use gantry_decide::ids::{LaunchTemplateId, Scope, SecurityGroupId, SubnetId, VpcId};
use gantry_decide::network::Peer;
use gantry_store::{Table, Write};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// A tag list as stored: sorted by key, each key once.
pub type Tags = BTreeMap<String, String>;

/// All of EC2 in one scope.
#[derive(Clone, Default)]
pub struct Ec2State {
    pub vpcs: Table<Vpc>,
    pub subnets: Table<Subnet>,
    pub security_groups: Table<SecurityGroup>,
    pub launch_templates: Table<LaunchTemplate>,
    pub launch_template_versions: Table<LaunchTemplateVersion>,
    /// Holds one record once the default VPC is in the tables.
    defaults: Table<Defaults>,
    /// What the default VPC is made of until then; of the installation.
    default_block: DefaultVpcBlock,
}

impl Ec2State {
    /// The state as callers see it, the default VPC included.
    pub fn seen(&self, scope: &Scope) -> Cow<'_, Ec2State> {
        if self.has_defaults() {
            return Cow::Borrowed(self);
        }
        let mut seen = self.clone();
        seen.make_defaults(scope);
        Cow::Owned(seen)
    }

    /// The state to be written, with the default VPC among what is stored.
    pub fn seen_mut(&mut self, scope: &Scope) -> &mut Ec2State {
        if !self.has_defaults() {
            self.make_defaults(scope);
        }
        self
    }

    /// Says which block the default VPC has, where none is stored yet.
    pub(crate) fn install(&mut self, default_block: DefaultVpcBlock) {
        self.default_block = default_block;
    }

    fn has_defaults(&self) -> bool {
        !self.defaults.is_empty()
    }

    fn make_defaults(&mut self, scope: &Scope) {
        let made = defaults::of(scope, self.default_block);
        self.vpcs.put(made.vpc);
        for subnet in made.subnets {
            self.subnets.put(subnet);
        }
        self.security_groups.put(made.security_group);
        self.defaults.put(Defaults {});
    }

    pub fn vpc(&self, id: &VpcId) -> Option<&Vpc> {
        self.vpcs.get(id).map(AsRef::as_ref)
    }

    pub fn default_vpc(&self) -> Option<&Vpc> {
        self.vpcs.values().find(|vpc| vpc.is_default).map(AsRef::as_ref)
    }

    pub fn subnet(&self, id: &SubnetId) -> Option<&Subnet> {
        self.subnets.get(id).map(AsRef::as_ref)
    }

    pub fn subnets_of(&self, vpc: VpcId) -> impl Iterator<Item = &Subnet> {
        self.subnets.values().filter(move |subnet| subnet.vpc == vpc).map(AsRef::as_ref)
    }

    pub fn security_group(&self, id: &SecurityGroupId) -> Option<&SecurityGroup> {
        self.security_groups.get(id).map(AsRef::as_ref)
    }

    pub fn security_groups_of(&self, vpc: VpcId) -> impl Iterator<Item = &SecurityGroup> {
        self.security_groups.values().filter(move |group| group.vpc == vpc).map(AsRef::as_ref)
    }

    /// The VPC's group of that name: names are unique in a VPC.
    pub fn security_group_named(&self, vpc: VpcId, name: &str) -> Option<&SecurityGroup> {
        self.security_groups_of(vpc).find(|group| group.name == name)
    }

    /// Names are unique in a scope.
    pub fn launch_template_named(&self, name: &str) -> Option<&LaunchTemplate> {
        self.launch_templates.values().find(|template| template.name == name).map(AsRef::as_ref)
    }

    /// A template's versions, the oldest first.
    pub fn versions_of(&self, template: LaunchTemplateId) -> impl Iterator<Item = &LaunchTemplateVersion> {
        let all = self.launch_template_versions.range((template, 0)..=(template, u64::MAX));
        all.map(|(_, version)| version.as_ref())
    }

    /// The security groups that changed since the last call: agents enforce them.
    pub(crate) fn drain_changes(&mut self) -> Vec<SecurityGroupId> {
        self.security_groups.drain_changes()
    }

    /// See [`crate::state::State::drain_writes`].
    pub(crate) fn drain_writes(&mut self, prefix: &str, out: &mut Vec<Write>) {
        self.defaults.drain_writes(prefix, out);
        self.vpcs.drain_writes(prefix, out);
        self.subnets.drain_writes(prefix, out);
        self.security_groups.drain_writes(prefix, out);
        self.launch_templates.drain_writes(prefix, out);
        self.launch_template_versions.drain_writes(prefix, out);
    }

    /// Panics where the tables contradict each other. Called by tests and by the simulator after every step.
    pub fn check_invariants(&self) {
        for subnet in self.subnets.values() {
            let vpc = self.vpc(&subnet.vpc).expect("a subnet lies in a VPC");
            assert!(vpc.block.covers(subnet.block), "{} lies outside of its VPC", subnet.id);
            let meets = |other: &&Subnet| other.id != subnet.id && other.block.overlaps(subnet.block);
            assert_eq!(self.subnets_of(vpc.id).find(meets).map(|other| other.id), None, "of {}", subnet.id);
            if let Some(block) = subnet.ipv6 {
                assert!(
                    vpc.ipv6.is_some_and(|whole| whole.covers(block)),
                    "{block} lies outside of {}",
                    vpc.id
                );
                let meets = |other: &&Subnet| {
                    other.id != subnet.id && other.ipv6.is_some_and(|it| it.overlaps(block))
                };
                assert_eq!(self.subnets_of(vpc.id).find(meets).map(|other| other.id), None, "of {block}");
            }
        }
        for group in self.security_groups.values() {
            assert!(self.vpcs.contains_key(&group.vpc), "{} belongs to no VPC", group.id);
            for rule in group.rules.values() {
                if let Peer::Group(peer) = &rule.peer {
                    assert!(self.security_groups.contains_key(peer), "{} names {peer}", group.id);
                }
            }
        }
        for template in self.launch_templates.values() {
            let default = (template.id, template.default_version);
            assert!(
                self.launch_template_versions.contains_key(&default),
                "{} has a default version",
                template.id
            );
        }
        for version in self.launch_template_versions.values() {
            let template =
                self.launch_templates.get(&version.template).expect("a version is one of a template");
            assert!(version.number <= template.latest_version, "versions are counted");
        }
        for vpc in self.vpcs.values() {
            let defaults = self.security_groups_of(vpc.id).filter(|group| group.is_default()).count();
            assert_eq!(defaults, 1, "{} has one default security group", vpc.id);
        }
        assert!(self.vpcs.values().filter(|vpc| vpc.is_default).count() <= 1, "there is one default VPC");
    }
}
