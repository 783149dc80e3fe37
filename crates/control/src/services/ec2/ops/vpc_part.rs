//! What a VPC comes with, to be looked at: its main route table, its default access list, its door to the internet.

use crate::call::Call;
use crate::services::ec2::errors::Ec2Error;
use crate::services::ec2::facts::{InternetGateway, NetworkAcl, RouteTable};
use crate::services::ec2::filter::{self, Filters};
use crate::services::ec2::state::{Ec2State, Vpc};
use crate::services::ec2::{check, views};
use crate::tx::View;
use gantry_api::ec2;
use gantry_decide::ids::{InternetGatewayId, NetworkAclId, RouteTableId};

fn vpcs(ec2: &Ec2State) -> impl Iterator<Item = Vpc> {
    ec2.vpcs.values().map(|vpc| vpc.as_ref().clone())
}

pub fn describe_route_tables(
    view: View<'_>,
    _call: &Call,
    request: ec2::DescribeRouteTablesRequest,
) -> Result<ec2::DescribeRouteTablesResult, Ec2Error> {
    let wanted = filter::wanted::<RouteTableId>(request.route_table_ids.as_deref())?;
    let filters = Filters::read::<RouteTable>(request.filters.as_deref())?;
    let page = filter::page(request.next_token.as_deref(), request.max_results, !wanted.is_empty())?;
    check::unless_dry(request.dry_run)?;
    let all: Vec<RouteTable> = vpcs(&view.state.ec2.seen(view.scope)).map(RouteTable).collect();
    let show = |table: &RouteTable| views::route_table(view.scope, &table.0);
    let (route_tables, next_token) =
        filter::describe(view.scope, all.iter(), &wanted, &filters, &page, show)?;
    Ok(ec2::DescribeRouteTablesResult { route_tables, next_token })
}

pub fn describe_network_acls(
    view: View<'_>,
    _call: &Call,
    request: ec2::DescribeNetworkAclsRequest,
) -> Result<ec2::DescribeNetworkAclsResult, Ec2Error> {
    let wanted = filter::wanted::<NetworkAclId>(request.network_acl_ids.as_deref())?;
    let filters = Filters::read::<NetworkAcl>(request.filters.as_deref())?;
    let page = filter::page(request.next_token.as_deref(), request.max_results, !wanted.is_empty())?;
    check::unless_dry(request.dry_run)?;
    let ec2 = view.state.ec2.seen(view.scope);
    let all: Vec<NetworkAcl> = vpcs(&ec2).map(NetworkAcl).collect();
    let show = |acl: &NetworkAcl| views::network_acl(view.scope, &ec2, &acl.0);
    let (network_acls, next_token) =
        filter::describe(view.scope, all.iter(), &wanted, &filters, &page, show)?;
    Ok(ec2::DescribeNetworkAclsResult { network_acls, next_token })
}

pub fn describe_internet_gateways(
    view: View<'_>,
    _call: &Call,
    request: ec2::DescribeInternetGatewaysRequest,
) -> Result<ec2::DescribeInternetGatewaysResult, Ec2Error> {
    let wanted = filter::wanted::<InternetGatewayId>(request.internet_gateway_ids.as_deref())?;
    let filters = Filters::read::<InternetGateway>(request.filters.as_deref())?;
    let page = filter::page(request.next_token.as_deref(), request.max_results, !wanted.is_empty())?;
    check::unless_dry(request.dry_run)?;
    let ec2 = view.state.ec2.seen(view.scope);
    let with_gateway = vpcs(&ec2).filter(|vpc| vpc.internet_gateway.is_some());
    let all: Vec<InternetGateway> = with_gateway.map(InternetGateway).collect();
    let show = |gateway: &InternetGateway| views::internet_gateway(view.scope, &gateway.0);
    let (shown, next_token) = filter::describe(view.scope, all.iter(), &wanted, &filters, &page, show)?;
    let internet_gateways = shown.map(|gateways| gateways.into_iter().flatten().collect());
    Ok(ec2::DescribeInternetGatewaysResult { internet_gateways, next_token })
}
