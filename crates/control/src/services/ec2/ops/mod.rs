//! Handlers by resource.

pub mod cidr_block;
pub mod launch_template;
pub mod network_interface;
pub mod place;
pub mod rule;
pub mod rule_change;
pub mod security_group;
pub mod subnet;
pub mod tag;
pub mod vpc;
pub mod vpc_part;
