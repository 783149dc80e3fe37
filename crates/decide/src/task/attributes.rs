//! Attributes that an instance must announce to be able to run a definition.
//!
//! The names are those that the stock agent registers as its capabilities.

use crate::task::definition::{ContainerDefinition, RequiredAttribute, TaskDefinition};
use crate::task::kinds::{EfsSwitch, FirelensType, LogDriver, NetworkMode};
use crate::task::validate::is_ecr_image;
use crate::task::volume::VolumeSource;
use std::collections::BTreeSet;

const REMOTE_API: &str = "com.amazonaws.ecs.capability.docker-remote-api.1.";
const OLD: &str = "com.amazonaws.ecs.capability.";

/// The attributes of a definition, sorted by name, each once.
pub fn required_attributes(task: &TaskDefinition) -> Vec<RequiredAttribute> {
    let mut names = BTreeSet::new();
    of_task(task, &mut names);
    for container in &task.container_definitions {
        of_container(task, container, &mut names);
    }
    names.into_iter().map(|name| RequiredAttribute { name, value: None }).collect()
}

fn of_task(task: &TaskDefinition, names: &mut BTreeSet<String>) {
    let mut add = |found: bool, name: &str| {
        if found {
            names.insert(name.to_owned());
        }
    };
    add(true, &format!("{REMOTE_API}18"));
    add(task.network_mode == Some(NetworkMode::Awsvpc), "ecs.capability.task-eni");
    let has_role = task.task_role_arn.is_some();
    let on_host = task.network_mode == Some(NetworkMode::Host);
    add(has_role && !on_host, "com.amazonaws.ecs.capability.task-iam-role");
    add(has_role && on_host, "com.amazonaws.ecs.capability.task-iam-role-network-host");
    add(task.cpu.is_some() || task.memory.is_some(), "ecs.capability.task-cpu-mem-limit");
    // Above ten vCPUs.
    add(task.cpu.is_some_and(|cpu| cpu.0 > 10 * 1024), "ecs.capability.increased-task-cpu-limit");
    add(task.pid_mode.is_some() || task.ipc_mode.is_some(), "ecs.capability.pid-ipc-namespace-sharing");
    add(task.proxy_configuration.is_some(), "ecs.capability.aws-appmesh");
    add(task.enable_fault_injection, "ecs.capability.fault-injection");
    for volume in &task.volumes {
        match &volume.source {
            VolumeSource::Docker(docker) => {
                let driver = docker.driver.as_deref().unwrap_or("local").replace(':', ".");
                add(true, &format!("ecs.capability.docker-plugin.{driver}"));
            }
            VolumeSource::Efs(efs) => {
                add(true, "ecs.capability.efs");
                let authorized = efs.authorization_config.is_some();
                add(
                    authorized || efs.transit_encryption == Some(EfsSwitch::Enabled),
                    "ecs.capability.efsAuth",
                );
            }
            VolumeSource::S3Files(_) => add(true, "ecs.capability.storage.s3-files"),
            VolumeSource::ConfiguredAtLaunch(_) => add(true, "ecs.capability.storage.ebs-task-volume-attach"),
            VolumeSource::Host(_) | VolumeSource::FsxWindows(_) => {}
        }
    }
}

fn of_container(task: &TaskDefinition, container: &ContainerDefinition, names: &mut BTreeSet<String>) {
    let has_role = task.execution_role_arn.is_some();
    let mut add = |found: bool, name: &str| {
        if found {
            names.insert(name.to_owned());
        }
    };
    if is_ecr_image(&container.image) {
        add(true, &format!("{OLD}ecr-auth"));
        add(true, &format!("{REMOTE_API}19"));
        add(has_role, "ecs.capability.execution-role-ecr-pull");
    }
    add(container.is_privileged(), &format!("{OLD}privileged-container"));
    if container.health_check.is_some() {
        add(true, "ecs.capability.container-health-check");
        add(true, &format!("{REMOTE_API}24"));
    }
    add(container.depends_on.as_ref().is_some_and(|d| !d.is_empty()), "ecs.capability.container-ordering");
    add(
        container.restart_policy.as_ref().is_some_and(|policy| policy.enabled),
        "ecs.capability.container-restart-policy",
    );
    add(container.environment_files.as_ref().is_some_and(|f| !f.is_empty()), "ecs.capability.env-files.s3");
    add(
        container.repository_credentials.is_some(),
        "ecs.capability.private-registry-authentication.secretsmanager",
    );
    for secret in container.secrets.iter().flatten() {
        let source = secret_source(&secret.value_from);
        add(true, &format!("ecs.capability.secrets.{source}.environment-variables"));
    }
    add(
        container.port_mappings.iter().any(|m| m.container_port_range.is_some()),
        "ecs.capability.network.container-port-range",
    );
    add(
        container.credential_specs.as_ref().is_some_and(|s| !s.is_empty()),
        if container.credential_specs.iter().flatten().any(|s| s.starts_with("credentialspecdomainless:")) {
            "ecs.capability.gmsa-domainless"
        } else {
            "ecs.capability.gmsa"
        },
    );
    for option in container.docker_security_options.iter().flatten() {
        add(option.starts_with("label:"), &format!("{OLD}selinux"));
        add(option.starts_with("apparmor:"), &format!("{OLD}apparmor"));
    }
    if let Some(firelens) = &container.firelens_configuration {
        add(firelens.kind == FirelensType::Fluentd, "ecs.capability.firelens.fluentd");
        add(firelens.kind == FirelensType::Fluentbit, "ecs.capability.firelens.fluentbit");
        let file_type = firelens.options.as_ref().and_then(|o| o.get("config-file-type")).map(String::as_str);
        add(file_type == Some("file"), "ecs.capability.firelens.options.config.file");
        add(file_type == Some("s3"), "ecs.capability.firelens.options.config.s3");
    }
    if let Some(log) = &container.log_configuration {
        add(true, &format!("{OLD}logging-driver.{}", log.log_driver));
        // The Docker API version that brought the driver.
        let version = match log.log_driver {
            LogDriver::JsonFile | LogDriver::Syslog => "18",
            LogDriver::Journald => "19",
            LogDriver::Gelf | LogDriver::Fluentd => "20",
            LogDriver::Awslogs => "21",
            LogDriver::Splunk => "22",
            LogDriver::Awsfirelens => "18",
        };
        add(true, &format!("{REMOTE_API}{version}"));
        add(log.log_driver == LogDriver::Awslogs && has_role, "ecs.capability.execution-role-awslogs");
        add(
            log.log_driver == LogDriver::Awsfirelens
                && log.options.as_ref().is_some_and(|o| o.contains_key("log-driver-buffer-limit")),
            "ecs.capability.logging-driver.awsfirelens.log-driver-buffer-limit",
        );
        for secret in log.secret_options.iter().flatten() {
            let source = secret_source(&secret.value_from);
            add(true, &format!("ecs.capability.secrets.{source}.bootstrap.log-driver"));
        }
    }
    if let Some(linux) = &container.linux_parameters {
        let has_tmpfs = linux.tmpfs.as_ref().is_some_and(|t| !t.is_empty());
        add(has_tmpfs || linux.shared_memory_size.is_some(), &format!("{REMOTE_API}22"));
        add(linux.init_process_enabled == Some(true), &format!("{REMOTE_API}25"));
    }
}

/// Which store a `valueFrom` names, in the words of agents: Secrets Manager (`asm`) by its ARN, else Parameter Store
/// (`ssm`).
pub fn secret_source(value_from: &str) -> &'static str {
    if value_from.split(':').nth(2) == Some("secretsmanager") { "asm" } else { "ssm" }
}
