//! Network interfaces, to be looked at: ECS makes and removes them.

use crate::call::Call;
use crate::services::ec2::errors::Ec2Error;
use crate::services::ec2::filter::{self, Filters};
use crate::services::ec2::interface::{self, Interface};
use crate::services::ec2::{check, views};
use crate::tx::View;
use gantry_api::ec2;
use gantry_decide::ids::EniId;

pub fn describe_network_interfaces(
    view: View<'_>,
    _call: &Call,
    request: ec2::DescribeNetworkInterfacesRequest,
) -> Result<ec2::DescribeNetworkInterfacesResult, Ec2Error> {
    let wanted = filter::wanted::<EniId>(request.network_interface_ids.as_deref())?;
    let filters = Filters::read::<Interface>(request.filters.as_deref())?;
    let page = filter::page(request.next_token.as_deref(), request.max_results, !wanted.is_empty())?;
    check::unless_dry(request.dry_run)?;
    let all = interface::all(view, &view.state.ec2.seen(view.scope));
    let show = |interface: &Interface| views::network_interface(view.scope, interface);
    let (network_interfaces, next_token) =
        filter::describe(view.scope, all.iter(), &wanted, &filters, &page, show)?;
    Ok(ec2::DescribeNetworkInterfacesResult { network_interfaces, next_token })
}
