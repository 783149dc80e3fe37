//! Services: create, update, delete, describe, list. What follows from them is the services controller's work.

use crate::call::Call;
use crate::page::{Page, SHORT_MAX};
use crate::services::ecs::balanced::ServiceLoadBalancer;
use crate::services::ecs::convert::{self, shortened};
use crate::services::ecs::errors::EcsError;
use crate::services::ecs::ops::deployment_configuration::configure;
use crate::services::ecs::ops::idempotency::{Repeated, Token};
use crate::services::ecs::ops::{code_deploy, controllers, external_service};
use crate::services::ecs::state::{
    Cluster, Compute, DeploymentConfiguration, DeploymentController, LaunchType, NetworkConfiguration,
    PropagateTags, Rebalancing, SchedulingStrategy, Service, ServiceKey, ServiceStatus, TaskDefinitionRecord,
};
use crate::services::ecs::views::service::service as show;
use crate::services::ecs::{balanced, check, compute, deployments, quotas, tags};
use crate::tx::{Tx, View};
use gantry_api::ecs;
use gantry_decide::arn::EcsResource;
use gantry_decide::ids::{ClusterName, ServiceDeploymentId, ServiceName};
use gantry_decide::task::Compatibility;
use gantry_decide::task::launch_volume::{self, VolumeConfiguration};
use gantry_store::Record;

/// DescribeServices takes this many.
const DESCRIBE_MAX: usize = 10;
/// ListServices shows this many at most.
const LIST_MAX: i32 = 100;

pub fn create_service(
    tx: &mut Tx<'_>,
    call: &Call,
    mut request: ecs::CreateServiceRequest,
) -> Result<ecs::CreateServiceResponse, EcsError> {
    let token = request.client_token.take();
    let cluster = check::cluster(tx.view(), request.cluster.as_deref())?.clone();
    let name: ServiceName = request.service_name.parse().map_err(|_| {
        EcsError::invalid("The service name must be up to 255 letters, numbers, hyphens and underscores.")
    })?;
    let key = ServiceKey { cluster: cluster.name.clone(), name };
    let token = Token::read(Repeated::CreateService, &cluster.name, token.as_deref(), &request)?;
    match tx.state.ecs.service(&key) {
        Some(known) if known.status == ServiceStatus::Active => {
            let same = match &token {
                Some(token) => token.first(tx)?.is_some(),
                None => false,
            };
            if same {
                let service = show(tx.view(), known, true);
                return Ok(ecs::CreateServiceResponse { service: Some(service) });
            }
            return Err(EcsError::invalid("Creation of service was not idempotent."));
        }
        Some(known) if known.status == ServiceStatus::Draining => {
            return Err(EcsError::invalid("Unable to Start a service that is still Draining."));
        }
        _ => {}
    }
    // One of the same name that is gone leaves nothing to the new one.
    tx.state.ecs.remove_service(&key);
    check_quota(tx.view(), &cluster.name)?;
    refuse_what_comes_later(&request)?;
    if request
        .deployment_controller
        .as_ref()
        .is_some_and(|controller| controller.type_.as_str() == "EXTERNAL")
    {
        let service = external_service::create(tx, call, key, &request)?;
        if let Some(token) = token {
            let arn = service.arn(tx.scope).to_string();
            token.remember(tx, vec![arn]);
        }
        return Ok(ecs::CreateServiceResponse { service: Some(show(tx.view(), &service, true)) });
    }
    let controller = code_deploy::controller(request.deployment_controller.as_ref());
    let scheduling_strategy = match &request.scheduling_strategy {
        Some(ecs::SchedulingStrategy::Daemon) => SchedulingStrategy::Daemon,
        _ => SchedulingStrategy::Replica,
    };
    let desired_count = match (scheduling_strategy, request.desired_count) {
        (SchedulingStrategy::Replica, Some(count)) => desired_count(tx.view(), count)?,
        (SchedulingStrategy::Replica, None) => {
            return Err(EcsError::invalid(
                "The desired count must be specified for services of the REPLICA scheduling strategy.",
            ));
        }
        (SchedulingStrategy::Daemon, None) => 0,
        (SchedulingStrategy::Daemon, Some(_)) => return Err(EcsError::invalid(NO_DESIRED_COUNT)),
    };
    let definition = request.task_definition.as_deref().filter(|text| !text.is_empty());
    let definition = definition.ok_or_else(|| EcsError::invalid("The task definition must be specified."))?;
    let record = check::runnable_task_definition(tx.view(), definition)?.clone();
    let compute = compute::choose(
        tx.view(),
        &cluster,
        request.launch_type.as_ref(),
        request.capacity_provider_strategy.as_deref(),
    )?;
    let wanted = Wanted { compute, record: &record, platform: request.platform_version.as_deref() };
    wanted.check()?;
    let mode = record.definition.effective_network_mode();
    let network = convert::network(tx.view(), request.network_configuration.as_ref(), mode)?;
    let load_balancers = balanced::read(tx.view(), request.load_balancers.as_deref(), &record.definition)?;
    let placement_constraints = convert::constraints(
        request.placement_constraints.as_deref(),
        record.definition.placement_constraints.len(),
    )?;
    let placement_strategy = convert::strategies(request.placement_strategy.as_deref())?;
    check::placement(wanted.compute.launch_type(), &placement_constraints, &placement_strategy)?;
    if scheduling_strategy == SchedulingStrategy::Daemon {
        check_daemon(&request, &wanted, !placement_strategy.is_empty())?;
    }
    if request.enable_execute_command == Some(true) && record.definition.task_role_arn.is_none() {
        return Err(EcsError::invalid(
            "The service couldn't be created because a valid taskRoleArn is not being used. Specify a valid task role \
             in your task definition and try again.",
        ));
    }
    let grace = request.health_check_grace_period_seconds;
    let mut service = Service {
        scheduling_strategy,
        desired_count,
        configuration: DeploymentConfiguration::of(scheduling_strategy),
        placement_constraints,
        placement_strategy,
        health_check_grace_period_seconds: balanced::grace_period(grace, !load_balancers.is_empty())?,
        load_balancers: load_balancers.clone(),
        availability_zone_rebalancing: rebalancing(request.availability_zone_rebalancing.as_ref()).unwrap_or(
            scheduling_strategy == SchedulingStrategy::Replica && controller == DeploymentController::Ecs,
        ),
        ..draft(tx, call, (key, controller), &request)?
    };
    configure(&mut service, request.deployment_configuration.as_ref())?;
    if controller == DeploymentController::CodeDeploy {
        code_deploy::check(&service)?;
    }
    if rebalancing(request.availability_zone_rebalancing.as_ref()) == Some(true) {
        check::rebalancing(&service, wanted.compute.launch_type())?;
    }
    let volume = convert::volume(request.volume_configurations.as_deref(), &record.definition)?;
    balanced::check_strategy(&service)?;
    let wanted = wanted.with(network, volume, load_balancers);
    match controller {
        DeploymentController::CodeDeploy => code_deploy::create(tx, &mut service, wanted)?,
        _ => deployments::begin(tx, &mut service, wanted),
    }
    tx.state.ecs.put_service(service.clone());
    if let Some(token) = token {
        let arn = service.arn(tx.scope).to_string();
        token.remember(tx, vec![arn]);
    }
    Ok(ecs::CreateServiceResponse { service: Some(show(tx.view(), &service, true)) })
}

/// A REPLICA service without tasks, and what a request says of it whatever its controller.
pub(super) fn draft(
    tx: &Tx<'_>,
    call: &Call,
    (key, controller): (ServiceKey, DeploymentController),
    request: &ecs::CreateServiceRequest,
) -> Result<Service, EcsError> {
    Ok(Service {
        cluster: key.cluster,
        name: key.name,
        status: ServiceStatus::Active,
        scheduling_strategy: SchedulingStrategy::Replica,
        controller,
        desired_count: 0,
        deployments: Vec::new(),
        attempt: ServiceDeploymentId::MIN,
        configuration: DeploymentConfiguration::of(SchedulingStrategy::Replica),
        placement_constraints: Vec::new(),
        placement_strategy: Vec::new(),
        health_check_grace_period_seconds: 0,
        load_balancers: Vec::new(),
        former_groups: Vec::new(),
        enable_ecs_managed_tags: request.enable_ecs_managed_tags.unwrap_or(false),
        propagate_tags: propagate(request.propagate_tags.as_ref()),
        enable_execute_command: request.enable_execute_command.unwrap_or(false),
        availability_zone_rebalancing: false,
        tags: tags::read(request.tags.as_deref())?,
        created_at: tx.now,
        created_by: call.caller.arn(),
        events: Vec::new(),
        client_token: None,
        inactive_since: None,
        last_deployment: None,
        steady_at: None,
        rebalancing: Rebalancing::default(),
    })
}

const NO_DESIRED_COUNT: &str = "The daemon scheduling strategy does not support a desired count for services. Remove the \
                                desired count value and try again.";
const NO_FARGATE: &str = "The DAEMON scheduling strategy is not supported with FARGATE.";
const NO_STRATEGY: &str = "Placement strategies are not supported with the DAEMON scheduling strategy.";

/// What a DAEMON service cannot be.
fn check_daemon(
    request: &ecs::CreateServiceRequest,
    wanted: &Wanted<'_>,
    has_strategy: bool,
) -> Result<(), EcsError> {
    let message = if has_strategy {
        NO_STRATEGY
    } else if wanted.compute.launch_type() == LaunchType::Fargate {
        NO_FARGATE
    } else if request.availability_zone_rebalancing == Some(ecs::AvailabilityZoneRebalancing::Enabled) {
        "Availability Zone rebalancing is not supported with the DAEMON scheduling strategy."
    } else {
        return Ok(());
    };
    Err(EcsError::invalid(message))
}

/// What a deployment shall run, and on what.
pub struct Wanted<'a> {
    pub compute: Compute,
    pub record: &'a TaskDefinitionRecord,
    pub platform: Option<&'a str>,
}

impl Wanted<'_> {
    /// What the definition cannot run on is refused.
    pub fn check(&self) -> Result<(), EcsError> {
        let launch_type = self.compute.launch_type();
        let compatibility = match launch_type {
            LaunchType::Ec2 => Compatibility::Ec2,
            LaunchType::Fargate => Compatibility::Fargate,
            LaunchType::External => Compatibility::External,
            LaunchType::ManagedInstances => Compatibility::ManagedInstances,
        };
        if !self.record.definition.is_compatible_with(compatibility) {
            return Err(EcsError::invalid(format!(
                "Task definition does not support launch_type {}.",
                launch_type.as_str()
            )));
        }
        compute::platform_version(launch_type, self.platform).map(drop)
    }

    pub fn with(
        &self,
        network: Option<NetworkConfiguration>,
        volume: Option<VolumeConfiguration>,
        load_balancers: Vec<ServiceLoadBalancer>,
    ) -> deployments::Wanted {
        deployments::Wanted {
            task_definition: self.record.id.clone(),
            compute: self.compute.clone(),
            platform_version: self.platform.filter(|text| !text.is_empty()).map(str::to_owned),
            network,
            volume,
            load_balancers,
        }
    }
}

/// Refuses one more service where the cluster has as many as it may.
fn check_quota(view: View<'_>, cluster: &ClusterName) -> Result<(), EcsError> {
    let ecs = &view.state.ecs;
    let kept =
        || ecs.services_of(cluster).filter(|service| service.status != ServiceStatus::Inactive).count();
    let quota = view.state.installation.quotas.services;
    quotas::check("services of a cluster", quota, ecs.services().len(), kept)
}

/// A desired count within its quota.
pub fn desired_count(view: View<'_>, count: i32) -> Result<u32, EcsError> {
    let most = view.state.installation.quotas.tasks;
    let fits = u32::try_from(count).ok().filter(|count| *count <= most);
    fits.ok_or_else(|| EcsError::invalid(format!("The desired count must be between 0 and {most}.")))
}

pub fn propagate(given: Option<&ecs::PropagateTags>) -> PropagateTags {
    match given.map(|propagate| propagate.as_str()) {
        Some("TASK_DEFINITION") => PropagateTags::TaskDefinition,
        Some("SERVICE") => PropagateTags::Service,
        _ => PropagateTags::None,
    }
}

pub fn rebalancing(given: Option<&ecs::AvailabilityZoneRebalancing>) -> Option<bool> {
    given.map(|rebalancing| rebalancing.as_str() == "ENABLED")
}

pub fn later(member: &str) -> EcsError {
    EcsError::UnsupportedFeature(format!("Gantry does not serve {member} of services yet."))
}

fn given<T>(list: Option<&Vec<T>>) -> bool {
    list.is_some_and(|list| !list.is_empty())
}

fn refuse_what_comes_later(request: &ecs::CreateServiceRequest) -> Result<(), EcsError> {
    let members = [
        (given(request.service_registries.as_ref()), "serviceRegistries"),
        (given(request.vpc_lattice_configurations.as_ref()), "vpcLatticeConfigurations"),
        (given(request.gateway_connectors.as_ref()), "gatewayConnectors"),
        (request.monitoring.is_some(), "monitoring"),
        (
            request.service_connect_configuration.as_ref().is_some_and(|c| c.enabled),
            "serviceConnectConfiguration",
        ),
    ];
    refuse(members)
}

fn refuse<const N: usize>(members: [(bool, &str); N]) -> Result<(), EcsError> {
    match members.into_iter().find(|(given, _)| *given) {
        Some((_, member)) => Err(later(member)),
        None => Ok(()),
    }
}

pub fn update_service(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: ecs::UpdateServiceRequest,
) -> Result<ecs::UpdateServiceResponse, EcsError> {
    let cluster = check::cluster(tx.view(), request.cluster.as_deref())?.clone();
    let mut service = named(tx.view(), &cluster.name, &request.service)?.clone();
    if service.status != ServiceStatus::Active {
        return Err(EcsError::ServiceNotActive);
    }
    refuse([
        (given(request.service_registries.as_ref()), "serviceRegistries"),
        (given(request.vpc_lattice_configurations.as_ref()), "vpcLatticeConfigurations"),
        (given(request.gateway_connectors.as_ref()), "gatewayConnectors"),
        (request.monitoring.is_some(), "monitoring"),
        (
            request.service_connect_configuration.as_ref().is_some_and(|c| c.enabled),
            "serviceConnectConfiguration",
        ),
    ])?;
    let before = service.controller;
    if let Some(controller) = &request.deployment_controller {
        controllers::change(tx, &mut service, code_deploy::controller(Some(controller)))?;
    }
    match service.controller {
        DeploymentController::Ecs => {}
        DeploymentController::External => external_service::check_update(&request)?,
        DeploymentController::CodeDeploy => code_deploy::check_update(&request)?,
    }
    if let Some(count) = request.desired_count {
        if service.is_daemon() {
            return Err(EcsError::invalid(NO_DESIRED_COUNT));
        }
        service.desired_count = desired_count(tx.view(), count)?;
    }
    if service.is_daemon() && given(request.placement_strategy.as_ref()) {
        return Err(EcsError::invalid(NO_STRATEGY));
    }
    configure(&mut service, request.deployment_configuration.as_ref())?;
    if service.controller == DeploymentController::CodeDeploy {
        code_deploy::check(&service)?;
    }
    if let Some(managed) = request.enable_ecs_managed_tags {
        service.enable_ecs_managed_tags = managed;
    }
    if let Some(enable) = request.enable_execute_command {
        // That what it runs has a role, is asked of a change alone.
        let definition = request.task_definition.as_deref().filter(|text| !text.is_empty());
        let record = match (definition, service.primary()) {
            (Some(text), _) => Some(check::runnable_task_definition(tx.view(), text)?),
            (None, Some(primary)) => {
                tx.state.ecs.task_definitions.get(&primary.task_definition).map(AsRef::as_ref)
            }
            (None, None) => None,
        };
        if enable && record.is_some_and(|record| record.definition.task_role_arn.is_none()) {
            return Err(EcsError::invalid(
                "The service couldn't be updated because a valid taskRoleArn is not being used. Specify a valid task role \
                 in your task definition and try again.",
            ));
        }
        service.enable_execute_command = enable;
    }
    if request.propagate_tags.is_some() {
        service.propagate_tags = propagate(request.propagate_tags.as_ref());
    }
    if let Some(enabled) = rebalancing(request.availability_zone_rebalancing.as_ref()) {
        service.availability_zone_rebalancing = enabled;
    }
    if request.placement_strategy.is_some() {
        service.placement_strategy = convert::strategies(request.placement_strategy.as_deref())?;
    }
    if request.placement_constraints.is_some() {
        service.placement_constraints = convert::constraints(request.placement_constraints.as_deref(), 0)?;
    }
    if service.has_task_sets() {
        let launch_type = service.launch_type();
        check_placement(&service, &request, launch_type, launch_type)?;
        if let Some(given) = request.health_check_grace_period_seconds {
            // Those of the EXTERNAL controller have their load balancers by their task sets.
            let balanced =
                service.controller == DeploymentController::External || !service.load_balancers.is_empty();
            service.health_check_grace_period_seconds = balanced::grace_period(Some(given), balanced)?;
        }
    } else {
        // What ECS takes over it deploys anew, so that there is a record of it.
        let taken_over = before != DeploymentController::Ecs;
        redeploy(tx, &cluster, &mut service, &request, taken_over)?;
    }
    // Whatever changed, it is to be told when it is steady again.
    service.steady_at = None;
    tx.state.ecs.put_service(service.clone());
    Ok(ecs::UpdateServiceResponse { service: Some(show(tx.view(), &service, true)) })
}

/// What cannot be where the service's tasks go, of what an update asks for. What an earlier one left does not stand in its
/// way, unless it moves the service.
fn check_placement(
    service: &Service,
    request: &ecs::UpdateServiceRequest,
    from: LaunchType,
    to: LaunchType,
) -> Result<(), EcsError> {
    if service.is_daemon() && to == LaunchType::Fargate {
        return Err(EcsError::invalid(NO_FARGATE));
    }
    if rebalancing(request.availability_zone_rebalancing.as_ref()) == Some(true) {
        check::rebalancing(service, to)?;
    }
    let asked = |given: bool| given || from != to;
    let constraints =
        asked(request.placement_constraints.is_some()).then_some(&*service.placement_constraints);
    let strategies = asked(request.placement_strategy.is_some()).then_some(&*service.placement_strategy);
    check::placement(to, constraints.unwrap_or_default(), strategies.unwrap_or_default())
}

/// Begins a new deployment, if the update asks for one.
fn redeploy(
    tx: &mut Tx<'_>,
    cluster: &Cluster,
    service: &mut Service,
    request: &ecs::UpdateServiceRequest,
    forced: bool,
) -> Result<(), EcsError> {
    let primary = service.primary().cloned().ok_or(EcsError::ServiceNotActive)?;
    let record = match request.task_definition.as_deref().filter(|text| !text.is_empty()) {
        Some(text) => check::runnable_task_definition(tx.view(), text)?.clone(),
        // The one in use may have been deregistered since: services go on with it.
        None => match tx.state.ecs.task_definitions.get(&primary.task_definition) {
            Some(record) => record.as_ref().clone(),
            None => return Err(EcsError::client("TaskDefinition is inactive")),
        },
    };
    let compute = match request.capacity_provider_strategy.as_deref() {
        None => primary.compute.clone(),
        // The launch type that it was made with is gone with the strategy that replaced it: EC2 is ECS's default.
        Some([]) if primary.compute.launch_type() == LaunchType::ManagedInstances => {
            Compute::LaunchType(LaunchType::Ec2)
        }
        Some([]) => Compute::LaunchType(primary.compute.launch_type()),
        Some(items) => compute::choose(tx.view(), cluster, None, Some(items))?,
    };
    check_placement(service, request, primary.compute.launch_type(), compute.launch_type())?;
    let platform = request.platform_version.as_deref().or(primary.platform_version.as_deref());
    let wanted = Wanted { compute, record: &record, platform };
    wanted.check()?;
    let mode = record.definition.effective_network_mode();
    let network = match &request.network_configuration {
        Some(network) => convert::network(tx.view(), Some(network), mode)?,
        None => primary.network.clone().filter(|_| mode == gantry_decide::task::NetworkMode::Awsvpc),
    };
    if mode == gantry_decide::task::NetworkMode::Awsvpc && network.is_none() {
        convert::network(tx.view(), None, mode)?;
    }
    let volume = match request.volume_configurations.as_deref() {
        // What was configured before stays, where the definition still has such a volume.
        None => {
            let name = record.definition.volume_configured_at_launch().map(|volume| volume.name.as_str());
            let known = primary.volume.clone().filter(|known| Some(known.name.as_str()) == name);
            launch_volume::choose(known.into_iter().collect(), &record.definition)
                .map_err(|error| EcsError::invalid(error.to_string()))?
        }
        given => convert::volume(given, &record.definition)?,
    };
    let load_balancers = match request.load_balancers.as_deref() {
        None => {
            balanced::fit(tx.view(), &service.load_balancers, &record.definition)?;
            service.load_balancers.clone()
        }
        given => balanced::read(tx.view(), given, &record.definition)?,
    };
    let rebalanced = load_balancers != service.load_balancers;
    service.load_balancers = load_balancers.clone();
    balanced::check_strategy(service)?;
    if request.health_check_grace_period_seconds.is_some() {
        let given = request.health_check_grace_period_seconds;
        service.health_check_grace_period_seconds =
            balanced::grace_period(given, !load_balancers.is_empty())?;
    }
    let differs = record.id != primary.task_definition
        || rebalanced
        || network != primary.network
        || volume != primary.volume
        || platform.map(str::to_owned) != primary.platform_version;
    if !differs && !forced && request.force_new_deployment != Some(true) {
        // Tasks launched from now on follow it.
        if let Some(primary) = service.deployments.first_mut() {
            primary.compute = wanted.compute;
        }
        return Ok(());
    }
    deployments::begin(tx, service, wanted.with(network, volume, load_balancers));
    Ok(())
}

pub fn named<'a>(view: View<'a>, cluster: &ClusterName, text: &str) -> Result<&'a Service, EcsError> {
    let key = check::service(view, cluster, text)?.ok_or(EcsError::ServiceNotFound)?;
    view.state.ecs.service(&key).ok_or(EcsError::ServiceNotFound)
}

pub fn delete_service(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: ecs::DeleteServiceRequest,
) -> Result<ecs::DeleteServiceResponse, EcsError> {
    let cluster = check::cluster(tx.view(), request.cluster.as_deref())?.name.clone();
    let mut service = named(tx.view(), &cluster, &request.service)?.clone();
    match service.status {
        ServiceStatus::Inactive | ServiceStatus::Draining => {}
        ServiceStatus::Active => {
            // Nobody can scale a daemon to nothing first.
            let force = service.is_daemon() || request.force == Some(true);
            if service.desired_count > 0 && !force {
                return Err(EcsError::invalid("The service cannot be stopped while it is scaled above 0."));
            }
            // The primary one of CodeDeploy is there as long as its service.
            let others = if service.controller == DeploymentController::CodeDeploy { 1 } else { 0 };
            let mut sets = service.deployments.iter().skip(others);
            if sets.any(|deployment| deployment.task_set.is_some()) && !force {
                return Err(EcsError::invalid("The service cannot be stopped while deployments are active."));
            }
            service.status = ServiceStatus::Draining;
            service.desired_count = 0;
            tx.state.ecs.put_service(service.clone());
        }
    }
    Ok(ecs::DeleteServiceResponse { service: Some(show(tx.view(), &service, true)) })
}

pub fn describe_services(
    view: View<'_>,
    _call: &Call,
    request: ecs::DescribeServicesRequest,
) -> Result<ecs::DescribeServicesResponse, EcsError> {
    let cluster = &check::cluster(view, request.cluster.as_deref())?.name;
    if request.services.is_empty() {
        return Err(EcsError::invalid("Services cannot be empty."));
    }
    if request.services.len() > DESCRIBE_MAX {
        return Err(EcsError::invalid(format!(
            "At most {DESCRIBE_MAX} services can be described in one call."
        )));
    }
    let with_tags = request.include.iter().flatten().any(|field| field.as_str() == "TAGS");
    let (mut services, mut failures) = (Vec::new(), Vec::new());
    for text in &request.services {
        let key = check::service(view, cluster, text)?;
        match key.as_ref().and_then(|key| view.state.ecs.service(key)) {
            Some(service) => services.push(show(view, service, with_tags)),
            None => failures.push(ecs::Failure {
                arn: Some(asked_arn(view, cluster, text)),
                reason: Some("MISSING".to_owned()),
                detail: None,
            }),
        }
    }
    Ok(ecs::DescribeServicesResponse { services: Some(services), failures: Some(failures) })
}

/// The full ARN of a service that was asked for by name or ARN.
fn asked_arn(view: View<'_>, cluster: &ClusterName, text: &str) -> String {
    if text.starts_with("arn:") {
        return text.to_owned();
    }
    match text.parse::<ServiceName>() {
        Ok(name) => view.scope.ecs(EcsResource::Service(cluster.clone(), name)).to_string(),
        Err(_) => {
            let (region, account) = (&view.scope.region, view.scope.account);
            format!("arn:aws:ecs:{region}:{account}:service/{cluster}/{}", shortened(text))
        }
    }
}

pub fn list_services(
    view: View<'_>,
    _call: &Call,
    request: ecs::ListServicesRequest,
) -> Result<ecs::ListServicesResponse, EcsError> {
    let cluster = &check::cluster(view, request.cluster.as_deref())?.name;
    let page = Page::read(request.next_token.as_deref(), request.max_results, LIST_MAX, SHORT_MAX)?;
    let wanted = |service: &Service| {
        let launch_type = service.primary().map(|primary| &primary.compute);
        // ECS manages the resources of none for its user.
        request.resource_management_type != Some(ecs::ResourceManagementType::Ecs)
            && service.status == ServiceStatus::Active
            && request.launch_type.as_ref().is_none_or(
                |kind| matches!(launch_type, Some(Compute::LaunchType(own)) if own.as_str() == kind.as_str()),
            )
            && request
                .scheduling_strategy
                .as_ref()
                .is_none_or(|strategy| strategy.as_str() == service.scheduling_strategy.as_str())
    };
    let services = view.state.ecs.services_of(cluster);
    let (service_arns, next_token) = page.cut(
        services.filter(|service| wanted(service)),
        |service| service.key().name.to_string(),
        |service| service.arn(view.scope).to_string(),
    );
    Ok(ecs::ListServicesResponse { service_arns: Some(service_arns), next_token })
}
