//! Amazon Elastic Container Service: clusters, task definitions, container instances and what belongs to them.
//!
//! The heart of Gantry. Handlers are in `ops`, what they ask of IAM in `authorize`, response shapes in `views`. Records
//! and indexes are in `state`, what a request may name in `check`, the words of every refusal in `errors`.

pub(crate) mod advanced;
mod authorize;
pub(crate) mod balanced;
mod bridge;
pub mod capacity;
pub mod check;
pub mod compute;
mod convert;
pub mod daemons;
pub mod deployments;
pub mod errors;
pub mod launch;
pub mod links;
pub(crate) mod ops;
pub mod placement;
pub mod quotas;
pub mod state;
pub mod stop;
pub mod tags;
#[cfg(test)]
pub(crate) mod tests;
mod views;

use crate::service::Service;
use gantry_api::ecs;

pub use ops::container_instance::{ACS_PATH, TCS_PATH};

pub static SERVICE: Service = Service {
    model: ecs::SERVICE,
    operations: crate::operations! { ecs;
        write CreateCluster => authorize::resources::create_cluster, ops::cluster::create_cluster;
        read DescribeClusters => authorize::resources::describe_clusters, ops::cluster::describe_clusters;
        read ListClusters => authorize::resources::list_clusters, ops::cluster::list_clusters;
        write DeleteCluster => authorize::resources::delete_cluster, ops::cluster::delete_cluster;
        write UpdateCluster => authorize::resources::update_cluster, ops::cluster::update_cluster;
        write UpdateClusterSettings => authorize::resources::update_cluster_settings, ops::cluster::update_cluster_settings;
        write PutClusterCapacityProviders => authorize::resources::put_cluster_capacity_providers, ops::cluster::put_cluster_capacity_providers;
        read DescribeCapacityProviders => authorize::resources::describe_capacity_providers, ops::capacity_provider::describe_capacity_providers;
        write CreateCapacityProvider => authorize::resources::create_capacity_provider, ops::capacity_provider::create_capacity_provider;
        write UpdateCapacityProvider => authorize::resources::update_capacity_provider, ops::capacity_provider::update_capacity_provider;
        write DeleteCapacityProvider => authorize::resources::delete_capacity_provider, ops::capacity_provider::delete_capacity_provider;
        write RegisterTaskDefinition => authorize::resources::register_task_definition, ops::task_definition::register_task_definition;
        write DeregisterTaskDefinition => authorize::resources::deregister_task_definition, ops::task_definition::deregister_task_definition;
        read DescribeTaskDefinition => authorize::resources::describe_task_definition, ops::task_definition::describe_task_definition;
        write DeleteTaskDefinitions => authorize::resources::delete_task_definitions, ops::task_definition::delete_task_definitions;
        read ListTaskDefinitions => authorize::resources::list_task_definitions, ops::task_definition::list_task_definitions;
        read ListTaskDefinitionFamilies => authorize::resources::list_task_definition_families, ops::task_definition::list_task_definition_families;
        write RegisterContainerInstance => authorize::resources::register_container_instance, ops::container_instance::register_container_instance;
        write DeregisterContainerInstance => authorize::resources::deregister_container_instance, ops::container_instance::deregister_container_instance;
        read DescribeContainerInstances => authorize::resources::describe_container_instances, ops::container_instance::describe_container_instances;
        read ListContainerInstances => authorize::resources::list_container_instances, ops::container_instance::list_container_instances;
        read DiscoverPollEndpoint => authorize::resources::discover_poll_endpoint, ops::container_instance::discover_poll_endpoint;
        write UpdateContainerInstancesState => authorize::resources::update_container_instances_state, ops::container_instance::update_container_instances_state;
        write UpdateContainerAgent => authorize::resources::update_container_agent, ops::container_instance::update_container_agent;
        write RunTask => authorize::tasks::run_task, ops::task::run_task;
        write StartTask => authorize::tasks::start_task, ops::task::start_task;
        write StopTask => authorize::tasks::stop_task, ops::task::stop_task;
        read DescribeTasks => authorize::tasks::describe_tasks, ops::task::describe_tasks;
        read ListTasks => authorize::tasks::list_tasks, ops::task::list_tasks;
        write UpdateTaskProtection => authorize::tasks::update_task_protection, ops::protection::update_task_protection;
        read GetTaskProtection => authorize::tasks::get_task_protection, ops::protection::get_task_protection;
        write CreateService => authorize::services::create_service, ops::service::create_service;
        write UpdateService => authorize::services::update_service, ops::service::update_service;
        write DeleteService => authorize::services::delete_service, ops::service::delete_service;
        read DescribeServices => authorize::services::describe_services, ops::service::describe_services;
        read ListServices => authorize::services::list_services, ops::service::list_services;
        read DescribeServiceDeployments => authorize::services::describe_service_deployments, ops::service_deployment::describe_service_deployments;
        read DescribeServiceRevisions => authorize::services::describe_service_revisions, ops::service_deployment::describe_service_revisions;
        read ListServiceDeployments => authorize::services::list_service_deployments, ops::service_deployment::list_service_deployments;
        write StopServiceDeployment => authorize::services::stop_service_deployment, ops::service_deployment::stop_service_deployment;
        write ContinueServiceDeployment => authorize::services::continue_service_deployment, ops::service_deployment::continue_service_deployment;
        write CreateTaskSet => authorize::services::create_task_set, ops::task_set::create_task_set;
        write UpdateTaskSet => authorize::services::update_task_set, ops::task_set::update_task_set;
        write DeleteTaskSet => authorize::services::delete_task_set, ops::task_set::delete_task_set;
        read DescribeTaskSets => authorize::services::describe_task_sets, ops::task_set::describe_task_sets;
        write UpdateServicePrimaryTaskSet => authorize::services::update_service_primary_task_set, ops::task_set::update_service_primary_task_set;
        write RegisterDaemonTaskDefinition => authorize::daemons::register_daemon_task_definition, ops::daemon_task_definition::register_daemon_task_definition;
        read DescribeDaemonTaskDefinition => authorize::daemons::describe_daemon_task_definition, ops::daemon_task_definition::describe_daemon_task_definition;
        write DeleteDaemonTaskDefinition => authorize::daemons::delete_daemon_task_definition, ops::daemon_task_definition::delete_daemon_task_definition;
        read ListDaemonTaskDefinitions => authorize::daemons::list_daemon_task_definitions, ops::daemon_task_definition::list_daemon_task_definitions;
        write CreateDaemon => authorize::daemons::create_daemon, ops::daemon::create_daemon;
        write UpdateDaemon => authorize::daemons::update_daemon, ops::daemon::update_daemon;
        write DeleteDaemon => authorize::daemons::delete_daemon, ops::daemon::delete_daemon;
        read DescribeDaemon => authorize::daemons::describe_daemon, ops::daemon::describe_daemon;
        read ListDaemons => authorize::daemons::list_daemons, ops::daemon::list_daemons;
        read DescribeDaemonDeployments => authorize::daemons::describe_daemon_deployments, ops::daemon::describe_daemon_deployments;
        read DescribeDaemonRevisions => authorize::daemons::describe_daemon_revisions, ops::daemon::describe_daemon_revisions;
        read ListDaemonDeployments => authorize::daemons::list_daemon_deployments, ops::daemon::list_daemon_deployments;
        write ExecuteCommand => authorize::tasks::execute_command, ops::execute_command::execute_command;
        write SubmitTaskStateChange => authorize::tasks::submit_task_state_change, ops::submit::submit_task_state_change;
        write SubmitContainerStateChange => authorize::tasks::submit_container_state_change, ops::submit::submit_container_state_change;
        write SubmitAttachmentStateChanges => authorize::tasks::submit_attachment_state_changes, ops::submit::submit_attachment_state_changes;
        write PutAttributes => authorize::resources::put_attributes, ops::attribute::put_attributes;
        write DeleteAttributes => authorize::resources::delete_attributes, ops::attribute::delete_attributes;
        read ListAttributes => authorize::resources::list_attributes, ops::attribute::list_attributes;
        write TagResource => authorize::resources::tag_resource, ops::tag::tag_resource;
        write UntagResource => authorize::resources::untag_resource, ops::tag::untag_resource;
        read ListTagsForResource => authorize::resources::list_tags_for_resource, ops::tag::list_tags_for_resource;
        write PutAccountSetting => authorize::resources::put_account_setting, ops::account_setting::put_account_setting;
        write PutAccountSettingDefault => authorize::resources::put_account_setting_default, ops::account_setting::put_account_setting_default;
        write DeleteAccountSetting => authorize::resources::delete_account_setting, ops::account_setting::delete_account_setting;
        read ListAccountSettings => authorize::resources::list_account_settings, ops::account_setting::list_account_settings;
    },
    later: &[
        "AssociateGatewayWithCluster",
        "CreateExpressGatewayService",
        "CreateGateway",
        "DeleteExpressGatewayService",
        "DeleteGateway",
        "DescribeExpressGatewayService",
        "DescribeGateway",
        "DescribeGatewayResources",
        "DescribeGatewayRoute",
        "DisassociateGatewayFromCluster",
        "ListGatewayClusterAssociations",
        "ListGatewayRoutes",
        "ListGateways",
        "ListServicesByNamespace",
        "UpdateExpressGatewayService",
        "UpdateGateway",
    ],
};
