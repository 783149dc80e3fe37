//! Regions, zones, and what an account may.

use crate::call::Call;
use crate::services::ec2::check;
use crate::services::ec2::errors::Ec2Error;
use crate::services::ec2::filter::Filters;
use crate::services::ec2::zones::{self, Zone};
use crate::tx::View;
use gantry_api::ec2;

/// Every region and zone is there without asking for it.
const OPT_IN: &str = "opt-in-not-required";

pub fn describe_regions(
    view: View<'_>,
    _call: &Call,
    request: ec2::DescribeRegionsRequest,
) -> Result<ec2::DescribeRegionsResult, Ec2Error> {
    let known = ["endpoint", "opt-in-status", "region-name"];
    let filters = Filters::read_known(request.filters.as_deref(), &known, false)?;
    check::unless_dry(request.dry_run)?;
    let all = zones::regions(&view.scope.region);
    let wanted = request.region_names.unwrap_or_default();
    if let Some(unknown) = wanted.iter().find(|name| !all.contains(name)) {
        return Err(Ec2Error::value(unknown, "region", "There is no such region."));
    }
    let endpoint = |name: &str| format!("ec2.{name}.amazonaws.com");
    let passes = |name: &String| {
        let listed = wanted.is_empty() || wanted.contains(name);
        listed
            && filters.pass_by(|filter| match filter {
                "endpoint" => vec![endpoint(name)],
                "opt-in-status" => vec![OPT_IN.to_owned()],
                _ => vec![name.clone()],
            })
    };
    let show = |name: String| ec2::Region {
        endpoint: Some(endpoint(&name)),
        opt_in_status: Some(OPT_IN.to_owned()),
        region_name: Some(name),
        ..Default::default()
    };
    let regions = all.into_iter().filter(passes).map(show).collect();
    Ok(ec2::DescribeRegionsResult { regions: Some(regions) })
}

pub fn describe_availability_zones(
    view: View<'_>,
    _call: &Call,
    request: ec2::DescribeAvailabilityZonesRequest,
) -> Result<ec2::DescribeAvailabilityZonesResult, Ec2Error> {
    let known = ["group-name", "opt-in-status", "region-name", "state", "zone-id", "zone-name", "zone-type"];
    let filters = Filters::read_known(request.filters.as_deref(), &known, false)?;
    check::unless_dry(request.dry_run)?;
    let region = view.scope.region.to_string();
    let all = zones::of(&view.scope.region);
    let (names, ids) = (request.zone_names.unwrap_or_default(), request.zone_ids.unwrap_or_default());
    let unknown_name = names.iter().find(|name| !all.iter().any(|zone| zone.name == **name));
    let unknown_id = ids.iter().find(|id| !all.iter().any(|zone| zone.id == **id));
    if let Some(unknown) = unknown_name.or(unknown_id) {
        let unknown: String = unknown.chars().take(100).collect();
        return Err(Ec2Error::invalid(format!("Invalid availability zone: [{unknown}]")));
    }
    let passes = |zone: &Zone| {
        let listed =
            (names.is_empty() || names.contains(&zone.name)) && (ids.is_empty() || ids.contains(&zone.id));
        listed
            && filters.pass_by(|filter| {
                vec![match filter {
                    "opt-in-status" => OPT_IN.to_owned(),
                    "state" => "available".to_owned(),
                    "zone-id" => zone.id.clone(),
                    "zone-name" => zone.name.clone(),
                    "zone-type" => "availability-zone".to_owned(),
                    // A zone's group is its region.
                    _ => region.clone(),
                }]
            })
    };
    let show = |zone: Zone| ec2::AvailabilityZone {
        zone_name: Some(zone.name),
        zone_id: Some(zone.id),
        region_name: Some(region.clone()),
        group_name: Some(region.clone()),
        network_border_group: Some(region.clone()),
        zone_type: Some("availability-zone".to_owned()),
        state: Some(ec2::AvailabilityZoneState::Available),
        opt_in_status: Some(ec2::AvailabilityZoneOptInStatus::OptInNotRequired),
        messages: Some(Vec::new()),
        ..Default::default()
    };
    let shown = all.into_iter().filter(|zone| passes(zone)).map(show).collect();
    Ok(ec2::DescribeAvailabilityZonesResult { availability_zones: Some(shown) })
}

pub fn describe_account_attributes(
    view: View<'_>,
    _call: &Call,
    request: ec2::DescribeAccountAttributesRequest,
) -> Result<ec2::DescribeAccountAttributesResult, Ec2Error> {
    check::unless_dry(request.dry_run)?;
    let ec2 = view.state.ec2.seen(view.scope);
    let default_vpc = ec2.default_vpc().map_or("none".to_owned(), |vpc| vpc.id.to_string());
    let all = [
        (ec2::AccountAttributeName::SupportedPlatforms, "VPC".to_owned()),
        (ec2::AccountAttributeName::DefaultVpc, default_vpc),
    ];
    let wanted = request.attribute_names.unwrap_or_default();
    let shown = all.into_iter().filter(|(name, _)| wanted.is_empty() || wanted.contains(name));
    let shown = shown.map(|(name, value)| ec2::AccountAttribute {
        attribute_name: Some(name.as_str().to_owned()),
        attribute_values: Some(vec![ec2::AccountAttributeValue { attribute_value: Some(value) }]),
    });
    Ok(ec2::DescribeAccountAttributesResult { account_attributes: Some(shown.collect()) })
}
