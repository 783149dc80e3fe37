//! Metric filters: kept and tried; what they count joins with CloudWatch's metrics.

use crate::call::Call;
use crate::page::Page;
use crate::services::logs::errors::LogsError;
use crate::services::logs::state::{MetricFilter, MetricFilterKey, MetricTransformation};
use crate::services::logs::{check, views};
use crate::tx::{Tx, View};
use gantry_api::logs;
use gantry_decide::ids::MetricFilterName;
use gantry_decide::log_filter::Pattern;
use gantry_store::Record;

/// Filters of one group: AWS's quota.
const FILTERS_MAX: usize = 100;
/// Filters of one page, at most and by default: AWS's.
const PAGE_MAX: i32 = 50;
/// Dimensions of one metric: AWS's limit for metric filters.
const DIMENSIONS_MAX: usize = 3;
/// Characters of a dimension's name and value: AWS's limit.
const DIMENSION_LENGTH_MAX: usize = 255;
/// Characters of a metric's name and namespace: AWS's limit.
const METRIC_NAME_MAX: usize = 255;
/// Characters of a metric's value: AWS's limit.
const METRIC_VALUE_MAX: usize = 100;
/// Messages of one trial: AWS's limit.
const MESSAGES_MAX: usize = 50;

pub fn put_metric_filter(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: logs::PutMetricFilterRequest,
) -> Result<logs::PutMetricFilterResponse, LogsError> {
    let group = check::group(tx.view(), &request.log_group_name)?;
    let name: MetricFilterName = request.filter_name.parse()?;
    Pattern::parse(&request.filter_pattern)?;
    if request.field_selection_criteria.is_some_and(|text| !text.is_empty())
        || request.emit_system_field_dimensions.is_some_and(|fields| !fields.is_empty())
        || request.apply_on_transformed_logs == Some(true)
    {
        return Err(LogsError::invalid(
            "fieldSelectionCriteria, emitSystemFieldDimensions and applyOnTransformedLogs are not supported.",
        ));
    }
    let [transformation] = request.metric_transformations.as_slice() else {
        return Err(LogsError::invalid("A metric filter has exactly one metric transformation."));
    };
    let transformations = vec![read(transformation)?];
    let filter = MetricFilter {
        group: group.name.clone(),
        name,
        pattern: request.filter_pattern,
        transformations,
        created_at: tx.now,
    };
    let state = &mut tx.state.logs;
    let exists = state.metric_filters.contains_key(&filter.key());
    if !exists && state.metric_filters_of(&group.name).count() >= FILTERS_MAX {
        return Err(LogsError::LimitExceeded);
    }
    state.metric_filters.put(filter);
    Ok(logs::PutMetricFilterResponse::default())
}

fn read(given: &logs::MetricTransformation) -> Result<MetricTransformation, LogsError> {
    let named =
        |text: &str| (1..=METRIC_NAME_MAX).contains(&text.chars().count()) && !text.contains([':', '*', '$']);
    if !named(&given.metric_name) || !named(&given.metric_namespace) {
        return Err(LogsError::invalid(
            "metricName and metricNamespace must have 1 to 255 characters other than : * and $.",
        ));
    }
    let value = &given.metric_value;
    let is_value = value.starts_with('$') || value.parse::<f64>().is_ok_and(f64::is_finite);
    if !is_value || value.chars().count() > METRIC_VALUE_MAX {
        return Err(LogsError::invalid(
            "metricValue must be a number or a field of the pattern, like $.bytes.",
        ));
    }
    let dimensions = given.dimensions.clone().unwrap_or_default();
    if dimensions.len() > DIMENSIONS_MAX {
        return Err(LogsError::invalid(format!("At most {DIMENSIONS_MAX} dimensions are allowed.")));
    }
    if dimensions.iter().any(|(name, value)| {
        let too_long = |text: &str| text.chars().count() > DIMENSION_LENGTH_MAX;
        name.is_empty() || too_long(name) || too_long(value) || !value.starts_with('$')
    }) {
        return Err(LogsError::invalid("A dimension's value must be a field of the pattern, like $.path."));
    }
    if given.default_value.is_some() && !dimensions.is_empty() {
        return Err(LogsError::invalid("A metric with dimensions cannot have a default value."));
    }
    Ok(MetricTransformation {
        namespace: given.metric_namespace.clone(),
        name: given.metric_name.clone(),
        value: value.clone(),
        default_value: given.default_value,
        dimensions,
        unit: given.unit.map(|unit| unit.as_str().to_owned()),
    })
}

pub fn describe_metric_filters(
    view: View<'_>,
    _call: &Call,
    request: logs::DescribeMetricFiltersRequest,
) -> Result<logs::DescribeMetricFiltersResponse, LogsError> {
    let page = Page::read(request.next_token.as_deref(), request.limit, PAGE_MAX, PAGE_MAX)?;
    if request.metric_name.is_some() != request.metric_namespace.is_some() {
        return Err(LogsError::invalid("metricName and metricNamespace must be given together."));
    }
    let group = request.log_group_name.as_deref().map(|name| check::group(view, name)).transpose()?;
    let wanted = |filter: &&MetricFilter| {
        let prefix = request.filter_name_prefix.as_deref().unwrap_or_default();
        let of_metric = |to: &MetricTransformation| {
            request.metric_name.as_ref().is_none_or(|name| to.name == *name)
                && request.metric_namespace.as_ref().is_none_or(|namespace| to.namespace == *namespace)
        };
        group.as_ref().is_none_or(|group| filter.group == group.name)
            && filter.name.as_str().starts_with(prefix)
            && filter.transformations.iter().any(of_metric)
    };
    let filters = view.state.logs.metric_filters.values().map(AsRef::as_ref).filter(wanted);
    let mut filters: Vec<&MetricFilter> = filters.collect();
    // A token holds a key as text, whose order is not quite the table's.
    filters.sort_by_cached_key(|filter| MetricFilter::path(&filter.key()));
    let (shown, next_token) =
        page.cut(filters.into_iter(), |filter| MetricFilter::path(&filter.key()), views::metric_filter);
    Ok(logs::DescribeMetricFiltersResponse { metric_filters: Some(shown), next_token })
}

pub fn delete_metric_filter(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: logs::DeleteMetricFilterRequest,
) -> Result<logs::DeleteMetricFilterResponse, LogsError> {
    let group = check::group(tx.view(), &request.log_group_name)?;
    let key = MetricFilterKey { group: group.name.clone(), name: request.filter_name.parse()? };
    tx.state.logs.metric_filters.remove(&key).ok_or(LogsError::FilterNotFound)?;
    Ok(logs::DeleteMetricFilterResponse::default())
}

pub fn test_metric_filter(
    _view: View<'_>,
    _call: &Call,
    request: logs::TestMetricFilterRequest,
) -> Result<logs::TestMetricFilterResponse, LogsError> {
    let pattern = Pattern::parse(&request.filter_pattern)?;
    let messages = request.log_event_messages;
    if messages.is_empty() || messages.len() > MESSAGES_MAX || messages.iter().any(String::is_empty) {
        return Err(LogsError::invalid(format!("1 to {MESSAGES_MAX} messages, none empty, can be tried.")));
    }
    let matches = (1..).zip(messages).filter_map(|(number, message)| {
        let extracted = pattern.extract(&message)?;
        Some(logs::MetricFilterMatchRecord {
            event_number: Some(number),
            event_message: Some(message),
            extracted_values: Some(extracted),
        })
    });
    Ok(logs::TestMetricFilterResponse { matches: Some(matches.collect()) })
}
