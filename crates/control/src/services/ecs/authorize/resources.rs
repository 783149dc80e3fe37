//! What the operations on clusters, definitions, instances, tags and settings ask of IAM.

use crate::call::Demand;
use gantry_api::ecs;
use gantry_decide::arn::EcsResource;
use gantry_decide::ids::{ClusterName, Scope};

/// The ARN of what `text` names: itself, or made of a short name as `resource` says, or `*` for text that can name
/// nothing (the handler will refuse it).
pub(super) fn arn_of(scope: &Scope, text: &str, resource: impl Fn(&str) -> Option<EcsResource>) -> String {
    if text.starts_with("arn:") {
        return text.to_owned();
    }
    resource(text).map_or_else(|| "*".to_owned(), |resource| scope.ecs(resource).to_string())
}

pub(super) fn cluster_arn(scope: &Scope, text: Option<&str>) -> String {
    let name = text
        .filter(|text| !text.is_empty())
        .map_or_else(|| ClusterName::default_cluster().to_string(), str::to_owned);
    arn_of(scope, &name, |name| name.parse().ok().map(EcsResource::Cluster))
}

pub(super) fn cluster_name(text: Option<&str>) -> Option<ClusterName> {
    match text {
        None | Some("") => Some(ClusterName::default_cluster()),
        Some(text) => text.rsplit('/').next().unwrap_or(text).parse().ok(),
    }
}

pub(super) fn instance_arn(scope: &Scope, cluster: Option<&str>, text: &str) -> String {
    arn_of(scope, text, |id| Some(EcsResource::ContainerInstance(cluster_name(cluster)?, id.parse().ok()?)))
}

pub(super) fn definition_arn(scope: &Scope, text: &str) -> String {
    arn_of(scope, text, |id| id.parse().ok().map(EcsResource::TaskDefinition))
}

/// An authoriser for an operation whose action knows no resource.
macro_rules! on_all {
    ($($function:ident: $operation:ident;)*) => {$(
        pub fn $function(_: &<ecs::$operation as gantry_wire::Operation>::Request, _: &Scope) -> Demand {
            Demand::on_all(concat!("ecs:", stringify!($operation)))
        }
    )*};
}

on_all! {
    list_clusters: ListClusters;
    register_task_definition: RegisterTaskDefinition;
    describe_task_definition: DescribeTaskDefinition;
    list_task_definitions: ListTaskDefinitions;
    list_task_definition_families: ListTaskDefinitionFamilies;
    describe_capacity_providers: DescribeCapacityProviders;
    create_capacity_provider: CreateCapacityProvider;
    put_account_setting: PutAccountSetting;
    put_account_setting_default: PutAccountSettingDefault;
    delete_account_setting: DeleteAccountSetting;
    list_account_settings: ListAccountSettings;
    deregister_task_definition: DeregisterTaskDefinition;
}

/// An authoriser for an operation on the cluster in a member that may be left out.
macro_rules! on_cluster {
    ($($function:ident: $operation:ident $member:ident;)*) => {$(
        pub fn $function(request: &<ecs::$operation as gantry_wire::Operation>::Request, scope: &Scope) -> Demand {
            Demand::on(concat!("ecs:", stringify!($operation)), cluster_arn(scope, request.$member.as_deref()))
        }
    )*};
}

on_cluster! {
    create_cluster: CreateCluster cluster_name;
    register_container_instance: RegisterContainerInstance cluster;
    deregister_container_instance: DeregisterContainerInstance cluster;
    list_container_instances: ListContainerInstances cluster;
    list_attributes: ListAttributes cluster;
    discover_poll_endpoint: DiscoverPollEndpoint cluster;
}

/// An authoriser for an operation on the cluster in a member that must be there.
macro_rules! on_named_cluster {
    ($($function:ident: $operation:ident;)*) => {$(
        pub fn $function(request: &<ecs::$operation as gantry_wire::Operation>::Request, scope: &Scope) -> Demand {
            Demand::on(concat!("ecs:", stringify!($operation)), cluster_arn(scope, Some(&request.cluster)))
        }
    )*};
}

on_named_cluster! {
    delete_cluster: DeleteCluster;
    update_cluster: UpdateCluster;
    update_cluster_settings: UpdateClusterSettings;
    put_cluster_capacity_providers: PutClusterCapacityProviders;
}

/// An authoriser for an operation on a resource whose ARN the request carries.
macro_rules! on_arn {
    ($($function:ident: $operation:ident;)*) => {$(
        pub fn $function(request: &<ecs::$operation as gantry_wire::Operation>::Request, _: &Scope) -> Demand {
            Demand::on(concat!("ecs:", stringify!($operation)), &request.resource_arn)
        }
    )*};
}

on_arn! {
    tag_resource: TagResource;
    untag_resource: UntagResource;
    list_tags_for_resource: ListTagsForResource;
}

fn capacity_provider_arn(scope: &Scope, text: &str) -> String {
    arn_of(scope, text, |name| name.parse().ok().map(EcsResource::CapacityProvider))
}

pub fn update_capacity_provider(request: &ecs::UpdateCapacityProviderRequest, scope: &Scope) -> Demand {
    Demand::on("ecs:UpdateCapacityProvider", capacity_provider_arn(scope, &request.name))
}

pub fn delete_capacity_provider(request: &ecs::DeleteCapacityProviderRequest, scope: &Scope) -> Demand {
    Demand::on("ecs:DeleteCapacityProvider", capacity_provider_arn(scope, &request.capacity_provider))
}

pub fn describe_clusters(request: &ecs::DescribeClustersRequest, scope: &Scope) -> Demand {
    let names = request.clusters.as_deref().unwrap_or_default();
    let mut resources: Vec<String> = names.iter().map(|name| cluster_arn(scope, Some(name))).collect();
    if resources.is_empty() {
        resources.push(cluster_arn(scope, None));
    }
    Demand { action: "ecs:DescribeClusters", resources }
}

pub fn delete_task_definitions(request: &ecs::DeleteTaskDefinitionsRequest, scope: &Scope) -> Demand {
    let resources = request.task_definitions.iter().map(|text| definition_arn(scope, text)).collect();
    Demand { action: "ecs:DeleteTaskDefinitions", resources }
}

pub fn describe_container_instances(
    request: &ecs::DescribeContainerInstancesRequest,
    scope: &Scope,
) -> Demand {
    let cluster = request.cluster.as_deref();
    let resources =
        request.container_instances.iter().map(|text| instance_arn(scope, cluster, text)).collect();
    Demand { action: "ecs:DescribeContainerInstances", resources }
}

pub fn update_container_instances_state(
    request: &ecs::UpdateContainerInstancesStateRequest,
    scope: &Scope,
) -> Demand {
    let cluster = request.cluster.as_deref();
    let resources =
        request.container_instances.iter().map(|text| instance_arn(scope, cluster, text)).collect();
    Demand { action: "ecs:UpdateContainerInstancesState", resources }
}

pub fn update_container_agent(request: &ecs::UpdateContainerAgentRequest, scope: &Scope) -> Demand {
    let arn = instance_arn(scope, request.cluster.as_deref(), &request.container_instance);
    Demand::on("ecs:UpdateContainerAgent", arn)
}

fn targets(cluster: Option<&str>, attributes: &[ecs::Attribute], scope: &Scope) -> Vec<String> {
    let ids = attributes.iter().map(|attribute| attribute.target_id.as_deref().unwrap_or_default());
    ids.map(|id| instance_arn(scope, cluster, id)).collect()
}

pub fn put_attributes(request: &ecs::PutAttributesRequest, scope: &Scope) -> Demand {
    let resources = targets(request.cluster.as_deref(), &request.attributes, scope);
    Demand { action: "ecs:PutAttributes", resources }
}

pub fn delete_attributes(request: &ecs::DeleteAttributesRequest, scope: &Scope) -> Demand {
    let resources = targets(request.cluster.as_deref(), &request.attributes, scope);
    Demand { action: "ecs:DeleteAttributes", resources }
}
