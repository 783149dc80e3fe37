//! What CloudWatch Logs' operations ask of IAM: an action on a group, or on one of its streams.

use super::state::group_arn;
use crate::call::Demand;
use gantry_api::logs;
use gantry_decide::ids::Scope;

/// As policies name a group: with everything in it.
fn of_group(scope: &Scope, name: &str) -> String {
    format!("{}:*", group_arn(scope, name))
}

fn of_stream(scope: &Scope, group: &str, stream: &str) -> String {
    format!("{}:log-stream:{stream}", group_arn(scope, group))
}

fn of_identified(scope: &Scope, name: Option<&str>, identifier: Option<&str>) -> String {
    match identifier {
        Some(arn) if arn.starts_with("arn:") => arn.to_owned(),
        identifier => of_group(scope, name.or(identifier).unwrap_or("*")),
    }
}

/// Authorisers for operations on the group that a request names.
macro_rules! on_group {
    ($($function:ident: $operation:ident;)*) => {$(
        pub fn $function(request: &<logs::$operation as gantry_wire::Operation>::Request, scope: &Scope) -> Demand {
            Demand::on(concat!("logs:", stringify!($operation)), of_group(scope, &request.log_group_name))
        }
    )*};
}

on_group! {
    create_log_group: CreateLogGroup;
    delete_log_group: DeleteLogGroup;
    put_retention_policy: PutRetentionPolicy;
    delete_retention_policy: DeleteRetentionPolicy;
    create_log_stream: CreateLogStream;
    tag_log_group: TagLogGroup;
    untag_log_group: UntagLogGroup;
    list_tags_log_group: ListTagsLogGroup;
    put_metric_filter: PutMetricFilter;
    delete_metric_filter: DeleteMetricFilter;
}

/// Authorisers for operations on the stream that a request names.
macro_rules! on_stream {
    ($($function:ident: $operation:ident;)*) => {$(
        pub fn $function(request: &<logs::$operation as gantry_wire::Operation>::Request, scope: &Scope) -> Demand {
            let resource = of_stream(scope, &request.log_group_name, &request.log_stream_name);
            Demand::on(concat!("logs:", stringify!($operation)), resource)
        }
    )*};
}

on_stream! {
    delete_log_stream: DeleteLogStream;
    put_log_events: PutLogEvents;
}

/// Authorisers for operations on the resource whose ARN a request carries.
macro_rules! on_arn {
    ($($function:ident: $operation:ident;)*) => {$(
        pub fn $function(request: &<logs::$operation as gantry_wire::Operation>::Request, _: &Scope) -> Demand {
            Demand::on(concat!("logs:", stringify!($operation)), &request.resource_arn)
        }
    )*};
}

on_arn! {
    tag_resource: TagResource;
    untag_resource: UntagResource;
    list_tags_for_resource: ListTagsForResource;
}

pub fn describe_log_groups(_: &logs::DescribeLogGroupsRequest, _: &Scope) -> Demand {
    Demand::on_all("logs:DescribeLogGroups")
}

pub fn describe_log_streams(request: &logs::DescribeLogStreamsRequest, scope: &Scope) -> Demand {
    let group =
        of_identified(scope, request.log_group_name.as_deref(), request.log_group_identifier.as_deref());
    Demand::on("logs:DescribeLogStreams", group)
}

pub fn get_log_events(request: &logs::GetLogEventsRequest, scope: &Scope) -> Demand {
    let resource = match (&request.log_group_name, &request.log_group_identifier) {
        (Some(group), _) => of_stream(scope, group, &request.log_stream_name),
        (None, identifier) => of_identified(scope, None, identifier.as_deref()),
    };
    Demand::on("logs:GetLogEvents", resource)
}

pub fn filter_log_events(request: &logs::FilterLogEventsRequest, scope: &Scope) -> Demand {
    let group =
        of_identified(scope, request.log_group_name.as_deref(), request.log_group_identifier.as_deref());
    Demand::on("logs:FilterLogEvents", group)
}

pub fn start_live_tail(request: &logs::StartLiveTailRequest, _: &Scope) -> Demand {
    Demand { action: "logs:StartLiveTail", resources: request.log_group_identifiers.clone() }
}

pub fn describe_metric_filters(request: &logs::DescribeMetricFiltersRequest, scope: &Scope) -> Demand {
    Demand::on("logs:DescribeMetricFilters", of_identified(scope, request.log_group_name.as_deref(), None))
}

pub fn test_metric_filter(_: &logs::TestMetricFilterRequest, _: &Scope) -> Demand {
    Demand::on_all("logs:TestMetricFilter")
}
