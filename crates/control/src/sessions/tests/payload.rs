//! What agents are sent of a definition, member for member.

use super::script::{Script, messages};
use crate::services::ecs::state::FARGATE_POOL;
use serde_json::{Value, json};

/// Runs a definition on an agent that announces what the definition asks for; the payload's task, with the JSON texts
/// in it read, and what names nothing but this one task taken out.
fn sent(cluster: &str, definition: Value, run: Value) -> Value {
    let mut script = Script::with_cluster();
    let registered = script.call("RegisterTaskDefinition", definition).unwrap();
    let mut attributes: Vec<Value> =
        registered["taskDefinition"]["requiresAttributes"].as_array().unwrap().clone();
    attributes.push(json!({"name": "gantry.inline-eni"}));
    let instance = script.register_in(cluster, &attributes);
    let session = script.connect(&instance);
    script.heard(session);
    let ran = script.call("RunTask", run).unwrap();
    assert_eq!(ran["failures"], json!([]));
    let mut task = messages(&script.heard(session)).remove(0)["tasks"][0].take();
    let arn = ran["tasks"][0]["taskArn"].as_str().unwrap();
    let (id, container) = (&arn[arn.len() - 32..], &ran["tasks"][0]["containers"][0]["containerArn"]);
    assert_eq!((&task["arn"], &task["containers"][0]["containerArn"]), (&json!(arn), container));
    for container in task["containers"].as_array_mut().unwrap() {
        container.as_object_mut().unwrap().remove("containerArn");
        for part in ["config", "hostConfig"] {
            let text = container["dockerConfig"][part].as_str().unwrap().replace(id, "TASK");
            container["dockerConfig"][part] = serde_json::from_str(&text).unwrap();
        }
    }
    task.as_object_mut().unwrap().remove("arn");
    task
}

#[test]
fn a_definition_becomes_what_dockers_api_takes() {
    let definition: Value = serde_json::from_str(
        r#"{
        "family": "full", "networkMode": "bridge", "pidMode": "task", "ipcMode": "none",
        "volumes": [
            {"name": "data", "host": {"sourcePath": "/srv/data"}},
            {"name": "scratch"},
            {"name": "shared", "dockerVolumeConfiguration": {"scope": "shared", "autoprovision": true,
                "driver": "local", "driverOpts": {"type": "tmpfs"}, "labels": {"a": "b"}}}
        ],
        "containerDefinitions": [
            {
                "name": "app", "image": "app:1", "cpu": 128, "memory": 256, "memoryReservation": 128,
                "command": ["serve", "--fast"], "entryPoint": ["/bin/app"], "user": "1000:1000",
                "workingDirectory": "/srv", "hostname": "blue", "privileged": true, "readonlyRootFilesystem": true,
                "interactive": true, "pseudoTerminal": true, "disableNetworking": false,
                "environment": [{"name": "MODE", "value": "plain"}],
                "portMappings": [{"containerPort": 80, "hostPort": 8080}, {"containerPort": 53, "protocol": "udp"}],
                "mountPoints": [{"sourceVolume": "data", "containerPath": "/data", "readOnly": true}],
                "volumesFrom": [{"sourceContainer": "db"}],
                "links": ["db:database"], "dependsOn": [{"containerName": "db", "condition": "START"}],
                "startTimeout": 30, "stopTimeout": 7, "dockerLabels": {"team": "red"},
                "dnsServers": ["10.0.0.2"], "dnsSearchDomains": ["corp"],
                "extraHosts": [{"hostname": "cache", "ipAddress": "10.0.0.9"}],
                "dockerSecurityOptions": ["no-new-privileges"],
                "ulimits": [{"name": "nofile", "softLimit": 1024, "hardLimit": 4096}],
                "systemControls": [{"namespace": "net.core.somaxconn", "value": "1024"}],
                "healthCheck": {"command": ["CMD-SHELL", "true"], "interval": 10, "startPeriod": 20},
                "restartPolicy": {"enabled": true, "ignoredExitCodes": [0], "restartAttemptPeriod": 60},
                "linuxParameters": {
                    "capabilities": {"add": ["NET_ADMIN"], "drop": ["MKNOD"]},
                    "devices": [{"hostPath": "/dev/fuse", "permissions": ["read", "write"]}],
                    "initProcessEnabled": true, "sharedMemorySize": 64, "maxSwap": 512, "swappiness": 10,
                    "tmpfs": [{"containerPath": "/run", "size": 16, "mountOptions": ["noexec"]}]
                },
                "logConfiguration": {"logDriver": "awslogs",
                    "options": {"awslogs-group": "app", "awslogs-stream-prefix": "web"}}
            },
            {"name": "db", "image": "db:1", "memory": 64, "essential": false, "logConfiguration": {"logDriver": "awslogs"}}
        ]
    }"#,
    )
    .unwrap();
    let overrides = json!({"containerOverrides": [{"name": "app", "command": ["once"], "cpu": 64,
        "environment": [{"name": "MODE", "value": "changed"}]}]});
    let task = sent("default", definition, json!({"taskDefinition": "full", "overrides": overrides}));
    let expected: Value = serde_json::from_str(
        r#"{
        "family": "full", "version": "1", "desiredStatus": "RUNNING", "networkMode": "bridge", "pidMode": "task",
        "ipcMode": "none", "launchType": "EC2", "group": "family:full",
        "taskClusterArn": "arn:aws:ecs:eu-north-1:CLUSTER",
        "volumes": [
            {"name": "data", "type": "host", "host": {"sourcePath": "/srv/data"}},
            {"name": "scratch", "type": "host", "host": {}},
            {"name": "shared", "type": "docker", "dockerVolumeConfiguration": {"scope": "shared",
                "autoprovision": true, "driver": "local", "driverOpts": {"type": "tmpfs"}, "labels": {"a": "b"}}}
        ],
        "containers": [
            {
                "name": "app", "image": "app:1", "essential": true, "cpu": 64, "memory": 256,
                "command": ["once"], "entryPoint": ["/bin/app"],
                "environment": {"AWS_EXECUTION_ENV": "AWS_ECS_EC2", "MODE": "changed"},
                "portMappings": [{"containerPort": 80, "hostPort": 8080, "protocol": "tcp"},
                    {"containerPort": 53, "hostPort": 0, "protocol": "udp"}],
                "mountPoints": [{"sourceVolume": "data", "containerPath": "/data", "readOnly": true}],
                "volumesFrom": [{"sourceContainer": "db", "readOnly": false}],
                "links": ["db:database"], "dependsOn": [{"containerName": "db", "condition": "START"}],
                "startTimeout": 30, "stopTimeout": 7, "healthCheckType": "docker",
                "restartPolicy": {"enabled": true, "ignoredExitCodes": [0], "restartAttemptPeriod": 60},
                "dockerConfig": {"version": "1.25",
                    "config": {"User": "1000:1000", "WorkingDir": "/srv", "Hostname": "blue",
                        "Labels": {"team": "red"}, "OpenStdin": true, "Tty": true, "NetworkDisabled": false,
                        "Healthcheck": {"Test": ["CMD-SHELL", "true"], "Interval": 10000000000,
                            "Timeout": 5000000000, "Retries": 3, "StartPeriod": 20000000000}},
                    "hostConfig": {"NetworkMode": "bridge", "Privileged": true, "ReadonlyRootfs": true,
                        "Dns": ["10.0.0.2"], "DnsSearch": ["corp"], "ExtraHosts": ["cache:10.0.0.9"],
                        "SecurityOpt": ["no-new-privileges"],
                        "Ulimits": [{"Name": "nofile", "Soft": 1024, "Hard": 4096}],
                        "CapAdd": ["NET_ADMIN"], "CapDrop": ["MKNOD"],
                        "Devices": [{"PathOnHost": "/dev/fuse", "PathInContainer": "/dev/fuse", "CgroupPermissions": "rw"}],
                        "Init": true, "ShmSize": 67108864, "Tmpfs": {"/run": "noexec,size=16m"},
                        "MemoryReservation": 134217728, "MemorySwap": 805306368, "MemorySwappiness": 10,
                        "Sysctls": {"net.core.somaxconn": "1024"},
                        "LogConfig": {"Type": "awslogs", "Config": {"awslogs-group": "app",
                            "awslogs-endpoint": "http://127.0.0.1:4580",
                            "awslogs-region": "eu-north-1", "awslogs-stream": "web/app/TASK"}}}}
            },
            {
                "name": "db", "image": "db:1", "essential": false, "cpu": 0, "memory": 64,
                "environment": {"AWS_EXECUTION_ENV": "AWS_ECS_EC2"}, "portMappings": [], "mountPoints": [],
                "volumesFrom": [],
                "dockerConfig": {"version": "1.25", "config": {}, "hostConfig": {"NetworkMode": "bridge",
                    "LogConfig": {"Type": "awslogs", "Config": {"awslogs-group": "/ecs/full",
                        "awslogs-endpoint": "http://127.0.0.1:4580", "awslogs-region": "eu-north-1"}}}}
            }
        ]
    }"#,
    )
    .unwrap();
    assert_same(&task, &expected);
}

#[test]
fn a_fargate_task_brings_its_size_and_its_interface() {
    let definition = json!({"family": "web", "networkMode": "awsvpc", "requiresCompatibilities": ["FARGATE"],
        "cpu": "512", "memory": "1024",
        "containerDefinitions": [{"name": "web", "image": "web:1", "portMappings": [{"containerPort": 80}]}]});
    let network = json!({"awsvpcConfiguration": {"subnets": ["subnet-1"]}});
    let run = json!({"taskDefinition": "web", "launchType": "FARGATE", "networkConfiguration": network,
        "group": "night"});
    let mut task = sent(FARGATE_POOL, definition, run);
    let interface = task["elasticNetworkInterfaces"][0].take();
    let address = interface["ipv4Addresses"][0]["privateAddress"].as_str().unwrap();
    assert!(address.starts_with("172.31."), "{address}");
    assert_eq!(interface["subnetGatewayIpv4Address"], "172.31.0.1/20");
    assert_eq!(interface["ipv4Addresses"][0]["primary"], true);
    assert!(interface["macAddress"].as_str().unwrap().starts_with("0a:58:ac:1f:"));
    for member in ["attachmentArn", "ec2Id", "privateDnsName"] {
        assert!(interface[member].is_string(), "{member}");
    }
    assert!(task.as_object_mut().unwrap().remove("elasticNetworkInterfaces").is_some());
    let expected = json!({
        "family": "web", "version": "1", "desiredStatus": "RUNNING", "networkMode": "awsvpc", "cpu": 0.5,
        "memory": 1024, "launchType": "FARGATE", "group": "night",
        "taskClusterArn": "arn:aws:ecs:eu-north-1:CLUSTER", "volumes": [],
        "containers": [{
            "name": "web", "image": "web:1", "essential": true, "cpu": 0,
            "environment": {"AWS_EXECUTION_ENV": "AWS_ECS_FARGATE"},
            "portMappings": [{"containerPort": 80, "hostPort": 80, "protocol": "tcp"}], "mountPoints": [],
            "volumesFrom": [],
            "dockerConfig": {"version": "1.25", "config": {}, "hostConfig": {}},
        }],
    });
    assert_same(&task, &expected);
}

#[test]
fn an_agent_makes_as_much_ephemeral_storage_as_a_task_asks_for() {
    let definition = json!({"family": "big", "networkMode": "awsvpc", "requiresCompatibilities": ["FARGATE"],
        "cpu": "256", "memory": "512", "ephemeralStorage": {"sizeInGiB": 30},
        "containerDefinitions": [{"name": "app", "image": "app:1"}]});
    let network = json!({"awsvpcConfiguration": {"subnets": ["subnet-1"]}});
    let run = |overrides: Value| json!({"taskDefinition": "big", "launchType": "FARGATE", "networkConfiguration": network, "overrides": overrides});
    let task = sent(FARGATE_POOL, definition.clone(), run(json!({})));
    assert_eq!(task["ephemeralStorageGib"], 30);
    let task = sent(FARGATE_POOL, definition, run(json!({"ephemeralStorage": {"sizeInGiB": 40}})));
    assert_eq!(task["ephemeralStorageGib"], 40);
}

/// Compares member by member, so that a difference can be seen. The account in ARNs does not matter.
#[track_caller]
fn assert_same(task: &Value, expected: &Value) {
    let mut task = task.clone();
    let cluster = task["taskClusterArn"].as_str().unwrap().to_owned();
    assert!(cluster.ends_with(":cluster/default"), "{cluster}: the user's, also for Fargate");
    task["taskClusterArn"] = json!("arn:aws:ecs:eu-north-1:CLUSTER");
    let containers = |task: &Value| task["containers"].as_array().unwrap().clone();
    for (got, wanted) in containers(&task).iter().zip(containers(expected)) {
        for (member, wanted) in wanted.as_object().unwrap() {
            assert_eq!(&got[member], wanted, "{member}");
        }
    }
    assert_eq!(&task, expected);
}

#[test]
fn what_agents_fetch_is_named_with_its_store_and_region() {
    let secret = "arn:aws:secretsmanager:us-east-2:111122223333:secret:db-AbCdEf:password::";
    let definition = json!({"family": "secretive", "networkMode": "bridge", "executionRoleArn": "porter",
        "containerDefinitions": [{"name": "app", "image": "registry.example.net/app:1", "memory": 64,
            "secrets": [{"name": "PASSWORD", "valueFrom": secret}, {"name": "COLOUR", "valueFrom": "/app/colour"}],
            "logConfiguration": {"logDriver": "awslogs", "secretOptions": [{"name": "awslogs-group", "valueFrom": "g"}]},
            "environmentFiles": [{"type": "s3", "value": "arn:aws:s3:::bucket/app.env"}],
            "repositoryCredentials": {"credentialsParameter": "arn:aws:secretsmanager:eu-west-1:111122223333:secret:r"}}]});
    let task = sent("default", definition, json!({"taskDefinition": "secretive"}));
    let app = &task["containers"][0];
    let variable = json!({"type": "ENVIRONMENT_VARIABLE", "target": "CONTAINER"});
    let mut expected = [
        json!({"name": "PASSWORD", "valueFrom": secret, "region": "us-east-2", "provider": "asm"}),
        json!({"name": "COLOUR", "valueFrom": "/app/colour", "region": "eu-north-1", "provider": "ssm"}),
    ];
    for one in &mut expected {
        one.as_object_mut().unwrap().extend(variable.as_object().unwrap().clone());
    }
    // The stock agent makes no variable of what has no type.
    let option = json!({"name": "awslogs-group", "valueFrom": "g", "region": "eu-north-1", "provider": "ssm", "target": "LOG_DRIVER"});
    assert_eq!(app["secrets"], json!([expected[0], expected[1], option]));
    assert_eq!(app["logsAuthStrategy"], "ExecutionRole");
    assert_eq!(app["environmentFiles"], json!([{"type": "s3", "value": "arn:aws:s3:::bucket/app.env"}]));
    assert_eq!(
        app["registryAuthentication"],
        json!({"type": "asm", "asmAuthData": {"region": "eu-west-1",
            "credentialsParameter": "arn:aws:secretsmanager:eu-west-1:111122223333:secret:r"}})
    );
}

#[test]
fn a_task_that_needs_what_payloads_do_not_carry_goes_nowhere() {
    let mut script = Script::with_cluster();
    let options = json!({"config-file-type": "s3", "config-file-value": "arn:aws:s3:::bucket/router.conf"});
    let router = json!({"type": "fluentbit", "options": options});
    let definition = json!({"family": "secretive", "executionRoleArn": "arn:aws:iam::111122223333:role/r",
        "containerDefinitions": [
            {"name": "app", "image": "app:1", "memory": 64, "logConfiguration": {"logDriver": "awsfirelens"}},
            {"name": "router", "image": "router:1", "memory": 64, "firelensConfiguration": router}]});
    let registered = script.call("RegisterTaskDefinition", definition).unwrap();
    let announced = registered["taskDefinition"]["requiresAttributes"].as_array().unwrap().clone();
    assert!(announced.len() > 1);
    let instance = script.register_in("default", &announced);
    script.connect(&instance);
    let ran = script.call("RunTask", json!({"taskDefinition": "secretive"})).unwrap();
    assert_eq!((&ran["tasks"], &ran["failures"][0]["reason"]), (&json!([]), &json!("ATTRIBUTE")));
}
