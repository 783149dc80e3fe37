//! Amazon CloudWatch Logs: groups, streams, their events, metric filters.
//!
//! Groups, streams and filters are state; events are bulk data, kept by a store of their own. The operations on events
//! are planned here against the state and answered when the store is done; see [`crate::bulk`].

mod authorize;
mod check;
mod errors;
pub mod links;
mod ops;
pub mod state;
#[cfg(test)]
mod tests;
mod views;

use crate::service::Service;
use gantry_api::logs;

pub static SERVICE: Service = Service {
    model: logs::SERVICE,
    operations: crate::operations! { logs;
        write CreateLogGroup => authorize::create_log_group, ops::group::create_log_group;
        write DeleteLogGroup => authorize::delete_log_group, ops::group::delete_log_group;
        bulk DescribeLogGroups => authorize::describe_log_groups, ops::group::describe_log_groups;
        write PutRetentionPolicy => authorize::put_retention_policy, ops::group::put_retention_policy;
        write DeleteRetentionPolicy => authorize::delete_retention_policy, ops::group::delete_retention_policy;
        write CreateLogStream => authorize::create_log_stream, ops::stream::create_log_stream;
        write DeleteLogStream => authorize::delete_log_stream, ops::stream::delete_log_stream;
        bulk DescribeLogStreams => authorize::describe_log_streams, ops::stream::describe_log_streams;
        bulk PutLogEvents => authorize::put_log_events, ops::event::put_log_events;
        bulk GetLogEvents => authorize::get_log_events, ops::event::get_log_events;
        bulk FilterLogEvents => authorize::filter_log_events, ops::event::filter_log_events;
        follow StartLiveTail => authorize::start_live_tail, ops::live_tail::start_live_tail;
        write TagResource => authorize::tag_resource, ops::tag::tag_resource;
        write UntagResource => authorize::untag_resource, ops::tag::untag_resource;
        read ListTagsForResource => authorize::list_tags_for_resource, ops::tag::list_tags_for_resource;
        write TagLogGroup => authorize::tag_log_group, ops::tag::tag_log_group;
        write UntagLogGroup => authorize::untag_log_group, ops::tag::untag_log_group;
        read ListTagsLogGroup => authorize::list_tags_log_group, ops::tag::list_tags_log_group;
        write PutMetricFilter => authorize::put_metric_filter, ops::metric_filter::put_metric_filter;
        read DescribeMetricFilters => authorize::describe_metric_filters, ops::metric_filter::describe_metric_filters;
        write DeleteMetricFilter => authorize::delete_metric_filter, ops::metric_filter::delete_metric_filter;
        read TestMetricFilter => authorize::test_metric_filter, ops::metric_filter::test_metric_filter;
    },
    later: &[
        "AssociateKmsKey",
        "CancelExportTask",
        "CreateExportTask",
        "DeleteDestination",
        "DeleteQueryDefinition",
        "DeleteResourcePolicy",
        "DeleteSubscriptionFilter",
        "DescribeAccountPolicies",
        "DescribeDestinations",
        "DescribeExportTasks",
        "DescribeQueries",
        "DescribeQueryDefinitions",
        "DescribeResourcePolicies",
        "DescribeSubscriptionFilters",
        "DisassociateKmsKey",
        "GetLogGroupFields",
        "GetLogRecord",
        "GetQueryResults",
        "ListLogGroups",
        "PutAccountPolicy",
        "PutDestination",
        "PutDestinationPolicy",
        "PutLogGroupDeletionProtection",
        "PutQueryDefinition",
        "PutResourcePolicy",
        "PutSubscriptionFilter",
        "StartQuery",
        "StopQuery",
    ],
};
