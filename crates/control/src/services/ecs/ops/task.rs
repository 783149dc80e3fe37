//! Tasks: run, start, stop, describe, list.

use crate::call::Call;
use crate::page::{LIST_MAX, Page};
use crate::services::ecs::capacity;
use crate::services::ecs::capacity::PROVIDER_ATTRIBUTE;
use crate::services::ecs::compute;
use crate::services::ecs::errors::EcsError;
use crate::services::ecs::launch::{self, Launch, Launched};
use crate::services::ecs::ops::idempotency::{Repeated, Token};
use crate::services::ecs::placement::EXTERNAL_ATTRIBUTE;
use crate::services::ecs::state::{
    Compute, ContainerInstance, ContainerInstanceKey, ContainerInstanceStatus, DAEMON_GROUP,
    EffectiveDefinition, LaunchType, StartedBy, Tags, Task, TaskKey,
};
use crate::services::ecs::stop::REASON_LENGTH_MAX;
use crate::services::ecs::views::container_instance::asked_arn;
use crate::services::ecs::views::task::task as show;
use crate::services::ecs::{check, convert, tags};
use crate::tx::{Tx, View};
use gantry_api::ecs;
use gantry_decide::arn::{EcsArn, EcsResource};
use gantry_decide::ids::{ClusterName, ContainerInstanceId, TaskId};
use gantry_decide::lifecycle::{DesiredStatus, StopCode};
use gantry_decide::placement::{Refusal, Refusals};
use gantry_decide::task::{Compatibility, TaskOverride};
use gantry_store::Record;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Tasks that one RunTask may start, and instances that one StartTask may name: ECS's limits.
const TASKS_PER_CALL_MAX: usize = 10;
/// DescribeTasks takes this many.
const DESCRIBE_MAX: usize = 100;
const STARTED_BY_LENGTH_MAX: usize = 128;
const GROUP_LENGTH_MAX: usize = 255;
const STOPPED_BY_USER: &str = "Task stopped by user";

pub fn run_task(
    tx: &mut Tx<'_>,
    _call: &Call,
    mut request: ecs::RunTaskRequest,
) -> Result<ecs::RunTaskResponse, EcsError> {
    let token = request.client_token.take();
    let cluster = check::cluster(tx.view(), request.cluster.as_deref())?.clone();
    let token = Token::read(Repeated::RunTask, &cluster.name, token.as_deref(), &request)?;
    if let Some(arns) = token.as_ref().map(|token| token.first(tx)).transpose()?.flatten() {
        return replay(tx.view(), &arns);
    }
    let count = request.count.unwrap_or(1);
    let count = usize::try_from(count).ok().filter(|count| (1..=TASKS_PER_CALL_MAX).contains(count));
    let count = count
        .ok_or_else(|| EcsError::invalid(format!("Count must be between 1 and {TASKS_PER_CALL_MAX}.")))?;
    let compute = compute::choose(
        tx.view(),
        &cluster,
        request.launch_type.as_ref(),
        request.capacity_provider_strategy.as_deref(),
    )?;
    let asked = Asked {
        cluster: &cluster.name,
        task_definition: &request.task_definition,
        overrides: request.overrides.as_ref(),
        network: request.network_configuration.as_ref(),
        volumes: request.volume_configurations.as_deref(),
        group: request.group.as_deref(),
        started_by: request.started_by.as_deref(),
        tags: request.tags.as_deref(),
        propagate_tags: request.propagate_tags.as_ref(),
        managed_tags: request.enable_ecs_managed_tags.unwrap_or(false),
        execute_command: request.enable_execute_command.unwrap_or(false),
    };
    let mut launch = launch_of(tx.view(), &asked, compute.launch_type())?;
    launch.platform_version =
        compute::platform_version(launch.launch_type, request.platform_version.as_deref())?;
    launch.constraints = convert::constraints(
        request.placement_constraints.as_deref(),
        launch.definition.placement_constraints.len(),
    )?;
    launch.strategies = convert::strategies(request.placement_strategy.as_deref())?;
    check::placement(launch.launch_type, &launch.constraints, &launch.strategies)?;
    let of_instances = launch.launch_type != LaunchType::Fargate && matches!(compute, Compute::LaunchType(_));
    if of_instances && !has_instances(tx.view(), &cluster.name) {
        return Err(EcsError::invalid("No Container Instances were found in your cluster."));
    }

    let (mut tasks, mut failures) = (Vec::new(), Vec::new());
    for (provider, share) in compute.distribute(count, &BTreeMap::new()) {
        launch.capacity_provider = provider;
        let Launched { tasks: made, refusals, too_many_wait } = launch::place(tx, &launch, share);
        if too_many_wait {
            return Err(EcsError::client(
                "The tasks provisioning capacity limit was exceeded. Try again when fewer tasks wait for capacity.",
            ));
        }
        if launch.launch_type == LaunchType::Ec2 && refusals.as_ref().is_some_and(|r| r.closest.is_none()) {
            return Err(EcsError::invalid("No Container Instances were found in your capacity provider."));
        }
        let missing = share - made.len();
        tasks.extend(made);
        if let Some(refusals) = refusals {
            let failure = unplaced(tx.view(), launch.launch_type, &refusals);
            failures.extend(std::iter::repeat_n(failure, missing));
        }
    }
    if let Some(token) = token.filter(|_| !tasks.is_empty()) {
        let arns = tasks.iter().map(|task| task.arn(tx.scope).text()).collect();
        token.remember(tx, arns);
    }
    let tasks = tasks.iter().map(|task| show(tx.view(), task, true)).collect::<Result<_, _>>()?;
    Ok(ecs::RunTaskResponse { tasks: Some(tasks), failures: Some(failures) })
}

fn replay(view: View<'_>, arns: &[String]) -> Result<ecs::RunTaskResponse, EcsError> {
    let known = arns.iter().filter_map(|arn| match arn.parse::<EcsArn>().ok()?.resource {
        EcsResource::Task(cluster, id) => view.state.ecs.task(&TaskKey { cluster, id }),
        _ => None,
    });
    let tasks = known.map(|task| show(view, task, true)).collect::<Result<_, _>>()?;
    Ok(ecs::RunTaskResponse { tasks: Some(tasks), failures: Some(Vec::new()) })
}

fn has_instances(view: View<'_>, cluster: &ClusterName) -> bool {
    let key = |id| ContainerInstanceKey { cluster: cluster.clone(), id };
    let all = key(ContainerInstanceId::MIN)..=key(ContainerInstanceId::MAX);
    let mut instances = view.state.ecs.container_instances().range(all);
    instances.any(|(_, instance)| instance.status != ContainerInstanceStatus::Inactive)
}

/// Why a task was not placed. Fargate's instances are nobody's business but the operator's.
fn unplaced(
    view: View<'_>,
    launch_type: LaunchType,
    refusals: &Refusals<ContainerInstanceKey>,
) -> ecs::Failure {
    if launch_type == LaunchType::Fargate {
        let closest = refusals.closest.as_ref().map(|(_, refusal)| refusal.reason());
        let why = closest.unwrap_or("no agent has joined the Fargate pool of this region");
        return ecs::Failure {
            arn: None,
            reason: Some("RESOURCE:FARGATE".to_owned()),
            detail: Some(format!("{} ({why})", capacity::UNAVAILABLE)),
        };
    }
    match &refusals.closest {
        Some((instance, refusal)) => failure(instance.arn(view.scope).text(), *refusal),
        None => ecs::Failure { arn: None, reason: Some("AGENT".to_owned()), detail: None },
    }
}

fn failure(arn: String, refusal: Refusal) -> ecs::Failure {
    ecs::Failure { arn: Some(arn), reason: Some(refusal.reason().to_owned()), detail: None }
}

pub fn start_task(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: ecs::StartTaskRequest,
) -> Result<ecs::StartTaskResponse, EcsError> {
    let cluster = check::cluster(tx.view(), request.cluster.as_deref())?.name.clone();
    if request.container_instances.is_empty() {
        return Err(EcsError::invalid("Container instances cannot be empty."));
    }
    if request.container_instances.len() > TASKS_PER_CALL_MAX {
        return Err(EcsError::invalid(format!(
            "At most {TASKS_PER_CALL_MAX} container instances can be given."
        )));
    }
    let asked = Asked {
        cluster: &cluster,
        task_definition: &request.task_definition,
        overrides: request.overrides.as_ref(),
        network: request.network_configuration.as_ref(),
        volumes: request.volume_configurations.as_deref(),
        group: request.group.as_deref(),
        started_by: request.started_by.as_deref(),
        tags: request.tags.as_deref(),
        propagate_tags: request.propagate_tags.as_ref(),
        managed_tags: request.enable_ecs_managed_tags.unwrap_or(false),
        execute_command: request.enable_execute_command.unwrap_or(false),
    };
    // What is wrong with the request is told whatever the instances are; on most calls they are of one kind.
    let mut kind = LaunchType::Ec2;
    let mut launch = None;
    let (mut tasks, mut failures) = (Vec::new(), Vec::new());
    for text in &request.container_instances {
        let arn = asked_arn(tx.view(), &cluster, text);
        let key = check::container_instance(tx.view(), &cluster, text)?;
        let known = key.and_then(|key| tx.state.ecs.container_instance(&key));
        let Some((key, its_kind)) = known.map(|instance| (instance.key(), kind_of(instance))) else {
            failures.push(ecs::Failure { arn: Some(arn), reason: Some("MISSING".to_owned()), detail: None });
            continue;
        };
        let launch = match launch.take().filter(|_| kind == its_kind) {
            Some(same) => launch.insert(same),
            None => launch.insert(launch_of(tx.view(), &asked, its_kind)?),
        };
        kind = its_kind;
        match launch::start_if_it_fits(tx, launch, key) {
            Ok(task) => tasks.push(show(tx.view(), &task, true)?),
            Err(refusal) => failures.push(failure(arn, refusal)),
        }
    }
    if launch.is_none() {
        launch_of(tx.view(), &asked, kind)?;
    }
    Ok(ecs::StartTaskResponse { tasks: Some(tasks), failures: Some(failures) })
}

/// The launch type of tasks that are started on an instance by its name.
fn kind_of(instance: &ContainerInstance) -> LaunchType {
    if instance.attributes.contains_key(EXTERNAL_ATTRIBUTE) {
        LaunchType::External
    } else if instance.attributes.contains_key(PROVIDER_ATTRIBUTE) {
        LaunchType::ManagedInstances
    } else {
        LaunchType::Ec2
    }
}

/// What RunTask and StartTask have in common.
struct Asked<'a> {
    cluster: &'a ClusterName,
    task_definition: &'a str,
    overrides: Option<&'a ecs::TaskOverride>,
    network: Option<&'a ecs::NetworkConfiguration>,
    volumes: Option<&'a [ecs::TaskVolumeConfiguration]>,
    group: Option<&'a str>,
    started_by: Option<&'a str>,
    tags: Option<&'a [ecs::Tag]>,
    propagate_tags: Option<&'a ecs::PropagateTags>,
    managed_tags: bool,
    execute_command: bool,
}

/// Checks what was asked and makes a launch of it, without placement.
fn launch_of(view: View<'_>, asked: &Asked<'_>, launch_type: LaunchType) -> Result<Launch, EcsError> {
    let record = check::runnable_task_definition(view, asked.task_definition)?;
    let compatibility = match launch_type {
        LaunchType::Ec2 => Compatibility::Ec2,
        LaunchType::Fargate => Compatibility::Fargate,
        LaunchType::External => Compatibility::External,
        LaunchType::ManagedInstances => Compatibility::ManagedInstances,
    };
    if !record.definition.is_compatible_with(compatibility) {
        return Err(EcsError::invalid(format!(
            "Task definition does not support launch_type {}.",
            launch_type.as_str()
        )));
    }
    let overrides = convert::overrides(asked.overrides)?;
    let definition = if overrides == TaskOverride::default() {
        EffectiveDefinition::registered(Arc::clone(&record.definition))
    } else {
        let applied = overrides.apply(&record.definition, view.scope.account, compatibility);
        EffectiveDefinition::own(Arc::new(applied.map_err(convert::override_error)?))
    };
    if asked.execute_command && definition.task_role_arn.is_none() {
        return Err(EcsError::invalid(
            "The service couldn't be created because a valid taskRoleArn is not being used. Specify a valid task role \
             in your task definition and try again.",
        ));
    }
    let network = convert::network(view, asked.network, definition.effective_network_mode())?;
    let volume = convert::volume(asked.volumes, &definition)?;
    Ok(Launch {
        cluster: asked.cluster.clone(),
        definition_id: record.id.clone(),
        definition,
        overrides,
        launch_type,
        capacity_provider: None,
        platform_version: compute::platform_version(launch_type, None)?,
        network,
        volume,
        constraints: Vec::new(),
        strategies: Vec::new(),
        group: group(asked.group, record.id.family.as_str())?,
        started_by: started_by(asked.started_by)?,
        tags: task_tags(asked, &record.tags)?,
        enable_execute_command: asked.execute_command,
        balanced: None,
        image_digests: Default::default(),
    })
}

fn group(given: Option<&str>, family: &str) -> Result<String, EcsError> {
    match given.filter(|group| !group.is_empty()) {
        None => Ok(format!("family:{family}")),
        Some(group) if group.chars().count() > GROUP_LENGTH_MAX => {
            Err(EcsError::invalid(format!("The group is longer than {GROUP_LENGTH_MAX} characters.")))
        }
        Some(group) if group.starts_with(DAEMON_GROUP) => {
            Err(EcsError::invalid("Invalid namespace for group: 'daemon:' belongs to the tasks of daemons."))
        }
        Some(group) if group.starts_with("service:") => Err(EcsError::invalid(
            "Invalid namespace for group: 'service:' belongs to the tasks of services.",
        )),
        Some(group) => Ok(group.to_owned()),
    }
}

fn started_by(given: Option<&str>) -> Result<Option<StartedBy>, EcsError> {
    let Some(text) = given.filter(|text| !text.is_empty()) else { return Ok(None) };
    let allowed = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '/');
    if text.chars().count() > STARTED_BY_LENGTH_MAX || !text.chars().all(allowed) {
        return Err(EcsError::invalid(format!(
            "startedBy takes up to {STARTED_BY_LENGTH_MAX} letters, numbers, hyphens, underscores and slashes."
        )));
    }
    Ok(Some(StartedBy::from(text.to_owned())))
}

fn task_tags(asked: &Asked<'_>, of_definition: &Tags) -> Result<Tags, EcsError> {
    let mut all = match asked.propagate_tags.map(|propagate| propagate.as_str()) {
        None | Some("NONE") => Tags::new(),
        Some("TASK_DEFINITION") => of_definition.clone(),
        Some(_) => {
            return Err(EcsError::invalid(
                "propagateTags can be TASK_DEFINITION or NONE for tasks of no service.",
            ));
        }
    };
    tags::merge(&mut all, tags::read(asked.tags)?)?;
    if asked.managed_tags {
        all.insert("aws:ecs:clusterName".to_owned(), asked.cluster.to_string());
    }
    Ok(all)
}

pub fn stop_task(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: ecs::StopTaskRequest,
) -> Result<ecs::StopTaskResponse, EcsError> {
    let reason = request.reason.as_deref().filter(|reason| !reason.is_empty()).unwrap_or(STOPPED_BY_USER);
    if reason.chars().count() > REASON_LENGTH_MAX {
        return Err(EcsError::invalid(format!("The reason is longer than {REASON_LENGTH_MAX} characters.")));
    }
    let cluster = check::cluster(tx.view(), request.cluster.as_deref())?.name.clone();
    let key = check::task(tx.view(), &cluster, &request.task)?;
    let task = key.and_then(|key| tx.state.ecs.task(&key));
    let mut task = task.ok_or_else(|| EcsError::invalid("The referenced task was not found."))?.clone();
    if task.request_stop(StopCode::UserInitiated, reason, tx.now) {
        tx.state.ecs.put_task(task.clone());
    }
    Ok(ecs::StopTaskResponse { task: Some(show(tx.view(), &task, true)?) })
}

pub fn describe_tasks(
    view: View<'_>,
    _call: &Call,
    request: ecs::DescribeTasksRequest,
) -> Result<ecs::DescribeTasksResponse, EcsError> {
    let cluster = &check::cluster(view, request.cluster.as_deref())?.name;
    if request.tasks.is_empty() {
        return Err(EcsError::invalid("Tasks cannot be empty."));
    }
    if request.tasks.len() > DESCRIBE_MAX {
        return Err(EcsError::invalid(format!("At most {DESCRIBE_MAX} tasks can be described in one call.")));
    }
    let with_tags = request.include.iter().flatten().any(|field| field.as_str() == "TAGS");
    let (mut tasks, mut failures) = (Vec::new(), Vec::new());
    for text in &request.tasks {
        let key = check::task(view, cluster, text)?;
        match key.as_ref().and_then(|key| view.state.ecs.task(key)) {
            Some(task) => tasks.push(show(view, task, with_tags)?),
            None => failures.push(ecs::Failure {
                arn: Some(asked_task_arn(view, cluster, text)),
                reason: Some("MISSING".to_owned()),
                detail: None,
            }),
        }
    }
    Ok(ecs::DescribeTasksResponse { tasks: Some(tasks), failures: Some(failures) })
}

/// The full ARN of a task that was asked for by id or ARN.
pub fn asked_task_arn(view: View<'_>, cluster: &ClusterName, text: &str) -> String {
    if text.starts_with("arn:") {
        return text.to_owned();
    }
    match text.parse::<TaskId>() {
        Ok(id) => view.scope.ecs(EcsResource::Task(cluster.clone(), id)).text(),
        Err(_) => format!("arn:aws:ecs:{}:{}:task/{cluster}/{text}", view.scope.region, view.scope.account),
    }
}

pub fn list_tasks(
    view: View<'_>,
    _call: &Call,
    request: ecs::ListTasksRequest,
) -> Result<ecs::ListTasksResponse, EcsError> {
    let cluster = &check::cluster(view, request.cluster.as_deref())?.name;
    let page = Page::read(request.next_token.as_deref(), request.max_results, LIST_MAX, LIST_MAX)?;
    if request.started_by.is_some() && (request.family.is_some() || request.service_name.is_some()) {
        return Err(EcsError::invalid("cannot specify startedBy together with family or serviceName."));
    }
    let desired = match request.desired_status.as_ref().map(|status| status.as_str()) {
        None | Some("RUNNING") => DesiredStatus::Running,
        Some("STOPPED") => DesiredStatus::Stopped,
        // Legal, and nothing ever is.
        Some(_) => return Ok(ecs::ListTasksResponse { task_arns: Some(Vec::new()), next_token: None }),
    };
    let instance = match request.container_instance.as_deref() {
        None => None,
        Some(text) => {
            let key = check::container_instance(view, cluster, text)?;
            let known = key.filter(|key| view.state.ecs.container_instance(key).is_some());
            Some(known.ok_or_else(|| EcsError::invalid("The referenced container instance was not found."))?)
        }
    };
    let group = match request.service_name.as_deref() {
        None => None,
        Some(text) => {
            let key = check::service(view, cluster, text)?;
            let key = key.filter(|key| view.state.ecs.service(key).is_some());
            let key = key.ok_or(EcsError::ServiceNotFound)?;
            Some(format!("service:{}", key.name))
        }
    };
    let daemon = request.daemon_name.as_ref().map(|name| format!("{DAEMON_GROUP}{name}"));
    let started_by = request.started_by.clone().map(StartedBy::from);
    let wanted = |task: &Task| {
        task.desired_status == desired
            && daemon.as_ref().is_none_or(|group| &task.group == group)
            && instance.as_ref().is_none_or(|key| task.instance.as_ref() == Some(key))
            && group.as_ref().is_none_or(|group| &task.group == group)
            && request.family.as_deref().is_none_or(|family| task.definition_id.family.as_str() == family)
            && started_by.as_ref().is_none_or(|by| task.started_by.as_ref() == Some(by))
            && request.launch_type.as_ref().is_none_or(|kind| task.launch_type.as_str() == kind.as_str())
    };
    let first = TaskKey { cluster: cluster.clone(), id: TaskId::MIN };
    let last = TaskKey { cluster: cluster.clone(), id: TaskId::MAX };
    let tasks = view.state.ecs.tasks().range(first..=last).map(|(_, task)| task.as_ref());
    let (task_arns, next_token) = page.cut(
        tasks.filter(|task| wanted(task)),
        |task| task.id.to_string(),
        |task| task.arn(view.scope).text(),
    );
    Ok(ecs::ListTasksResponse { task_arns: Some(task_arns), next_token })
}
