//! What other services may know of EC2's networks.

use crate::tx::View;
use gantry_decide::ids::SubnetId;

/// The security group of an interface for which none was named: the default one of its subnet's VPC. `None` for a
/// subnet that is not EC2's.
pub fn default_group(view: View<'_>, subnet: &str) -> Option<String> {
    let subnet: SubnetId = subnet.parse().ok()?;
    let ec2 = view.state.ec2.seen(view.scope);
    let vpc = ec2.subnet(&subnet)?.vpc;
    ec2.security_groups_of(vpc).find(|group| group.is_default()).map(|group| group.id.to_string())
}
