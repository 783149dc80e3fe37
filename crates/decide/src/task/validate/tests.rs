//! One line per rule and per default of registration.
#![allow(clippy::unwrap_used)]

use super::*;
use serde_json::json;

/// An EC2-style definition of one container `app`, with `task` and `app` merged in (a null removes).
fn ec2(task: Value, app: Value) -> Value {
    let mut container = json!({"name": "app", "image": "app:1", "memory": 128});
    merge(&mut container, app);
    let mut definition = json!({"family": "web", "containerDefinitions": [container]});
    merge(&mut definition, task);
    definition
}

/// The same for Fargate.
fn fargate(task: Value, app: Value) -> Value {
    let mut base = json!({
        "networkMode": "awsvpc", "requiresCompatibilities": ["FARGATE"], "cpu": "256", "memory": "512",
    });
    merge(&mut base, task);
    let mut container = json!({ "memory": null });
    merge_keeping_nulls(&mut container, app);
    ec2(base, container)
}

/// An EC2-style definition of these containers; `image` and `memory` are filled in.
fn several(containers: Value) -> Value {
    let mut containers = containers;
    for container in containers.as_array_mut().unwrap() {
        let mut full = json!({"image": "app:1", "memory": 128});
        merge(&mut full, container.take());
        *container = full;
    }
    json!({"family": "web", "containerDefinitions": containers})
}

fn merge(into: &mut Value, from: Value) {
    let Value::Object(from) = from else { panic!("an object is merged") };
    for (key, value) in from {
        if value.is_null() {
            into.as_object_mut().unwrap().remove(&key);
        } else {
            into[key] = value;
        }
    }
}

fn merge_keeping_nulls(into: &mut Value, from: Value) {
    let Value::Object(from) = from else { panic!("an object is merged") };
    into.as_object_mut().unwrap().extend(from);
}

fn register(raw: Value) -> Result<Value, DefinitionError> {
    validate(raw, AccountId::DEFAULT).map(|definition| serde_json::to_value(definition).unwrap())
}

#[track_caller]
fn refused(raw: Value, message: &str) {
    match register(raw.clone()) {
        Ok(_) => panic!("accepted, but should answer {message:?}: {raw}"),
        Err(error) => {
            assert_eq!(error.to_string(), message, "{raw}");
            assert_eq!(error.code(), "ClientException");
        }
    }
}

#[track_caller]
fn accepted(raw: Value) {
    if let Err(error) = register(raw.clone()) {
        panic!("refused with {error}: {raw}");
    }
}

/// What registration shows at one place.
#[track_caller]
fn shows(raw: Value, pointer: &str, expected: Value) {
    let shown = register(raw.clone()).unwrap_or_else(|e| panic!("refused with {e}: {raw}"));
    assert_eq!(shown.pointer(pointer).cloned().unwrap_or(Value::Null), expected, "{raw} at {pointer}");
}

fn none() -> Value {
    json!({})
}

#[test]
fn names_and_images() {
    for family in [json!(""), json!("a b"), json!("x".repeat(256)), Value::Null, json!(7)] {
        refused(ec2(json!({ "family": family }), none()), "Family contains invalid characters.");
    }
    accepted(ec2(json!({"family": "x".repeat(255)}), none()));
    refused(json!({"family": "x"}), "Container list cannot be empty.");
    refused(ec2(json!({"containerDefinitions": []}), none()), "Container list cannot be empty.");
    refused(ec2(none(), json!({"name": null})), "Container.name should not be null or empty.");
    refused(ec2(none(), json!({"name": "a/b"})), "Container.name contains invalid characters.");
    refused(ec2(none(), json!({"image": null})), "Container.image should not be null or empty.");
    refused(ec2(none(), json!({"image": ""})), "Container.image should not be null or empty.");
    for image in ["a b", "a$b", "a@sha256:12", "a@md5:1", &"x".repeat(256)] {
        refused(ec2(none(), json!({ "image": image })), "Container.image contains invalid characters.");
    }
    let digest = format!("registry.local:5000/team/app@sha256:{}", "0a".repeat(32));
    for image in ["nginx", "nginx:1.27-alpine", digest.as_str(), "public.ecr.aws/x/y:latest"] {
        accepted(ec2(none(), json!({ "image": image })));
    }
    refused(
        several(json!([{"name": "a"}, {"name": "a"}])),
        "Container names must be unique within a task definition: 'a' is used more than once.",
    );
    refused(
        several(json!([{"name": "a", "essential": false}])),
        "A task definition must have at least one essential container.",
    );
    let eleven: Vec<Value> = (0..11).map(|n| json!({"name": format!("c{n}")})).collect();
    refused(several(json!(eleven)), "The task definition has 11 containers; at most 10 are allowed.");
}

#[test]
fn sizes() {
    refused(
        ec2(none(), json!({"memory": null})),
        "Invalid setting for container 'app'. At least one of 'memory' or 'memoryReservation' must be specified.",
    );
    accepted(ec2(none(), json!({"memory": null, "memoryReservation": 64})));
    accepted(ec2(json!({"memory": "512"}), json!({"memory": null})));
    refused(ec2(none(), json!({"memory": 3})), "Invalid 'memory' setting for container 'app'.");
    refused(ec2(none(), json!({"memory": -5})), "Invalid 'memory' setting for container 'app'.");
    refused(ec2(none(), json!({"cpu": -1})), "Invalid 'cpu' setting for container 'app'.");
    refused(
        ec2(none(), json!({"memory": 64, "memoryReservation": 128})),
        "Invalid setting for container 'app'. 'memory' must be greater than or equal to 'memoryReservation'.",
    );
    refused(
        ec2(json!({"memory": "100"}), none()),
        "The 'memory' setting for container 'app' is greater than for the task.",
    );
    refused(
        ec2(json!({"cpu": "256"}), json!({"cpu": 512})),
        "The 'cpu' setting for container 'app' is greater than for the task.",
    );
    let mut two = several(json!([{"name": "a", "cpu": 200}, {"name": "b", "cpu": 100}]));
    two["cpu"] = json!("256");
    refused(two, "The total 'cpu' setting of all containers is greater than for the task.");
    let mut two =
        several(json!([{"name": "a", "memoryReservation": 100}, {"name": "b", "memoryReservation": 100}]));
    two["memory"] = json!("150");
    refused(two, "The total 'memoryReservation' setting of all containers is greater than for the task.");

    refused(ec2(json!({"cpu": ""}), none()), "Invalid 'cpu' setting for task.");
    refused(ec2(json!({"memory": "much"}), none()), "Invalid 'memory' setting for task.");
    for (given, shown) in [("1 vCPU", "1024"), (".5 vcpu", "512"), ("256", "256")] {
        shows(ec2(json!({ "cpu": given }), none()), "/cpu", json!(shown));
    }
    shows(ec2(json!({"memory": "2GB"}), none()), "/memory", json!("2048"));
    let long = "x".repeat(70_000);
    let raw = ec2(none(), json!({"command": [long]}));
    let length = raw.to_string().len();
    refused(raw, &format!("Actual length: '{length}'. Max allowed length is '65536' bytes."));
}

#[test]
fn defaults() {
    let container = "/containerDefinitions/0";
    let at = |member: &str| format!("{container}/{member}");
    for (member, expected) in [
        ("cpu", json!(0)),
        ("essential", json!(true)),
        ("portMappings", json!([])),
        ("environment", json!([])),
        ("mountPoints", json!([])),
        ("volumesFrom", json!([])),
        ("systemControls", json!([])),
        ("links", Value::Null),
        ("command", Value::Null),
        ("memoryReservation", Value::Null),
    ] {
        shows(ec2(none(), none()), &at(member), expected);
    }
    for (member, expected) in [
        ("networkMode", Value::Null),
        ("volumes", json!([])),
        ("placementConstraints", json!([])),
        ("requiresCompatibilities", Value::Null),
        ("cpu", Value::Null),
        ("enableFaultInjection", json!(false)),
    ] {
        shows(ec2(none(), none()), &format!("/{member}"), expected);
    }
    shows(
        ec2(none(), json!({"healthCheck": {"command": ["CMD", "true"]}})),
        &at("healthCheck"),
        json!({"command": ["CMD", "true"], "interval": 30, "timeout": 5, "retries": 3}),
    );
    shows(
        ec2(json!({"taskRoleArn": "r"}), none()),
        "/taskRoleArn",
        json!("arn:aws:iam::123456789012:role/r"),
    );
    shows(ec2(json!({"executionRoleArn": ""}), none()), "/executionRoleArn", Value::Null);
    shows(ec2(json!({"volumes": [{"name": "v"}]}), none()), "/volumes", json!([{"name": "v", "host": {}}]));
    shows(
        ec2(json!({"volumes": [{"name": "v", "host": {}, "configuredAtLaunch": true}]}), none()),
        "/volumes",
        json!([{"name": "v", "configuredAtLaunch": true}]),
    );
    shows(
        ec2(json!({"volumes": [{"name": "v", "configuredAtLaunch": false}]}), none()),
        "/volumes",
        json!([{"name": "v", "host": {}}]),
    );
    // A described definition that is sent back does not bring its computed members.
    shows(
        ec2(json!({"compatibilities": ["FARGATE"]}), none()),
        "/compatibilities",
        json!(["EXTERNAL", "EC2"]),
    );
    shows(ec2(none(), json!({"hostname": ""})), &at("hostname"), Value::Null);
    shows(ec2(none(), json!({"command": []})), &at("command"), json!([]));
}

#[test]
fn port_mappings() {
    let with =
        |mode: &str, mappings: Value| ec2(json!({"networkMode": mode}), json!({ "portMappings": mappings }));
    let place = "/containerDefinitions/0/portMappings/0";
    for (mode, given, shown) in [
        (
            "bridge",
            json!({"containerPort": 80}),
            json!({"containerPort": 80, "hostPort": 0, "protocol": "tcp"}),
        ),
        (
            "awsvpc",
            json!({"containerPort": 80}),
            json!({"containerPort": 80, "hostPort": 80, "protocol": "tcp"}),
        ),
        (
            "host",
            json!({"containerPort": 80}),
            json!({"containerPort": 80, "hostPort": 80, "protocol": "tcp"}),
        ),
        (
            "awsvpc",
            json!({"containerPort": 3000, "hostPort": 0}),
            json!({"containerPort": 3000, "hostPort": 3000, "protocol": "tcp"}),
        ),
        (
            "bridge",
            json!({"containerPort": 53, "hostPort": 5353, "protocol": "udp"}),
            json!({"containerPort": 53, "hostPort": 5353, "protocol": "udp"}),
        ),
        (
            "awsvpc",
            json!({"containerPortRange": "100-200"}),
            json!({"containerPortRange": "100-200", "protocol": "tcp"}),
        ),
    ] {
        shows(with(mode, json!([given])), place, shown);
    }
    shows(
        ec2(none(), json!({"portMappings": [{"containerPort": 80}]})),
        &format!("{place}/hostPort"),
        json!(0),
    );
    for mode in ["awsvpc", "host"] {
        refused(
            with(mode, json!([{"containerPort": 80, "hostPort": 8080}])),
            &format!(
                "When networkMode={mode}, the host ports and container ports in port mappings must match."
            ),
        );
    }
    refused(
        with("none", json!([{"containerPort": 80}])),
        "Port mappings are not supported on container when networkMode=none.",
    );
    for (setting, mapping) in [
        ("containerPort", json!({})),
        ("containerPort", json!({"hostPort": 80})),
        ("containerPort", json!({"containerPort": 0})),
        ("containerPort", json!({"containerPort": 65536})),
        ("containerPort", json!({"containerPort": -1})),
        ("hostPort", json!({"containerPort": 80, "hostPort": 70000})),
        ("containerPort", json!({"containerPort": 80, "containerPortRange": "80-90"})),
        ("hostPort", json!({"hostPort": 80, "containerPortRange": "80-90"})),
        ("containerPortRange", json!({"containerPortRange": "90-80"})),
        ("containerPortRange", json!({"containerPortRange": "80"})),
        ("containerPortRange", json!({"containerPortRange": "80-80"})),
        ("containerPortRange", json!({"containerPortRange": "1-70000"})),
        ("portMappings.name", json!({"containerPort": 80, "name": "-web"})),
        ("portMappings.name", json!({"containerPort": 80, "name": "Web"})),
        ("portMappings.name", json!({"containerPort": 80, "name": "w".repeat(65)})),
    ] {
        refused(
            with("bridge", json!([mapping])),
            &format!("Invalid '{setting}' setting for container 'app'."),
        );
    }
    refused(
        with("host", json!([{"containerPortRange": "80-90"}])),
        "Invalid 'containerPortRange' setting for container 'app'.",
    );
    refused(
        with("bridge", json!([{"containerPortRange": "80-90"}, {"containerPortRange": "90-99"}])),
        "Invalid setting for container 'app'. '90-99' is specified more than once in 'containerPortRange'.",
    );
    refused(
        with("bridge", json!([{"containerPort": 80, "hostPort": 80}, {"containerPort": 81, "hostPort": 80}])),
        "Host port 80/tcp is mapped more than once in the task definition.",
    );
    accepted(with(
        "bridge",
        json!([{"containerPort": 80, "hostPort": 80}, {"containerPort": 80, "hostPort": 81}]),
    ));
    refused(
        with("bridge", json!([{"containerPort": 53}, {"containerPort": 53, "protocol": "udp"}])),
        "Container port 53 of container 'app' cannot be exposed for multiple protocols.",
    );
    refused(
        with("bridge", json!([{"containerPort": 80, "name": "x"}, {"containerPort": 81, "name": "x"}])),
        "Port mapping name 'x' is used more than once in the task definition.",
    );
}

#[test]
fn network_features() {
    let awsvpc = || json!({"networkMode": "awsvpc"});
    refused(
        ec2(awsvpc(), json!({"extraHosts": [{"hostname": "db", "ipAddress": "10.0.0.1"}]})),
        "Extra hosts are not supported on container when networkMode=awsvpc.",
    );
    refused(
        ec2(awsvpc(), json!({"hostname": "h"})),
        "Hostnames are not supported on container when networkMode=awsvpc.",
    );
    refused(
        ec2(awsvpc(), json!({"dnsServers": ["10.0.0.2"]})),
        "DNS settings are not supported on container when networkMode=awsvpc.",
    );
    for mode in ["awsvpc", "host", "none"] {
        refused(
            ec2(json!({ "networkMode": mode }), json!({"links": ["app"]})),
            &format!("Links are not supported on container when networkMode={mode}."),
        );
    }
    accepted(ec2(
        none(),
        json!({"extraHosts": [{"hostname": "db", "ipAddress": "10.0.0.1"}], "hostname": "h"}),
    ));
    refused(
        ec2(none(), json!({"extraHosts": [{"hostname": "db", "ipAddress": "somewhere"}]})),
        "Invalid 'extraHosts' setting for container 'app'.",
    );
}

#[test]
fn references_between_containers() {
    accepted(several(json!([{"name": "a", "links": ["b:db"]}, {"name": "b"}])));
    refused(
        several(json!([{"name": "a", "links": ["c"]}, {"name": "b"}])),
        "Unknown container 'c' in 'links' of container 'a'.",
    );
    refused(
        several(json!([{"name": "a", "links": ["b"]}, {"name": "b", "links": ["a"]}])),
        "Container links should not have a cycle",
    );
    refused(
        several(json!([{"name": "a", "volumesFrom": [{"sourceContainer": "x"}]}])),
        "Unknown container 'x' in 'volumesFrom' of container 'a'.",
    );
    refused(
        several(json!([{"name": "a", "volumesFrom": [{}]}])),
        "Invalid 'volumesFrom' setting for container 'a'.",
    );
    let on = |name: &str, condition: &str| json!([{"containerName": name, "condition": condition}]);
    accepted(several(json!([{"name": "a", "dependsOn": on("b", "START")}, {"name": "b"}])));
    accepted(several(
        json!([{"name": "a", "dependsOn": on("b", "SUCCESS")}, {"name": "b", "essential": false}]),
    ));
    for condition in ["SUCCESS", "COMPLETE"] {
        refused(
            several(json!([{"name": "a", "dependsOn": on("b", condition)}, {"name": "b"}])),
            "A dependency container with SUCCESS or COMPLETE condition cannot be an essential container",
        );
    }
    refused(
        several(json!([{"name": "a", "dependsOn": on("b", "HEALTHY")}, {"name": "b"}])),
        "A dependency container with HEALTHY condition must have a health check: 'b' has none.",
    );
    accepted(several(json!([
        {"name": "a", "dependsOn": on("b", "HEALTHY")},
        {"name": "b", "healthCheck": {"command": ["CMD-SHELL", "true"]}},
    ])));
    refused(
        several(json!([{"name": "a", "dependsOn": on("x", "START")}])),
        "Unknown container 'x' in 'dependsOn' of container 'a'.",
    );
    refused(
        several(json!([{"name": "a", "dependsOn": on("x y", "START")}])),
        "Unknown container 'x y' in 'dependsOn' of container 'a'.",
    );
    refused(
        several(json!([{"name": "a", "dependsOn": on("a", "START")}])),
        "Container 'a' cannot refer to itself in 'dependsOn'.",
    );
    refused(
        several(json!([
            {"name": "a", "dependsOn": on("b", "START")},
            {"name": "b", "dependsOn": on("c", "START")},
            {"name": "c", "dependsOn": on("b", "START")},
        ])),
        "Cycle found in container dependencies: b -> c -> b.",
    );
}

#[test]
fn volumes_and_mounts() {
    let volumes = |v: Value| ec2(json!({ "volumes": v }), none());
    refused(volumes(json!([{}])), "Volume.name contains invalid characters.");
    refused(volumes(json!([{"name": "a b"}])), "Volume.name contains invalid characters.");
    refused(
        volumes(json!([{"name": "a"}, {"name": "a"}])),
        "Volume names must be unique within a task definition: 'a' is used more than once.",
    );
    refused(
        volumes(
            json!([{"name": "a", "host": {"sourcePath": "/x"}, "efsVolumeConfiguration": {"fileSystemId": "fs-1"}}]),
        ),
        "Volume 'a' must have exactly one kind of configuration.",
    );
    refused(
        volumes(
            json!([{"name": "a", "configuredAtLaunch": true}, {"name": "b", "configuredAtLaunch": true}]),
        ),
        "Only one volume of a task definition can be configured at launch.",
    );
    refused(
        volumes(
            json!([{"name": "a", "dockerVolumeConfiguration": {"scope": "task", "autoprovision": true}}]),
        ),
        "Invalid 'dockerVolumeConfiguration.autoprovision' setting for volume 'a'.",
    );
    let efs = |extra: Value| {
        let mut config = json!({"fileSystemId": "fs-0123"});
        merge(&mut config, extra);
        volumes(json!([{"name": "a", "efsVolumeConfiguration": config}]))
    };
    accepted(efs(json!({"rootDirectory": "/data"})));
    refused(
        efs(json!({"authorizationConfig": {"accessPointId": "fsap-1"}})),
        "When an access point is used for volume 'a', transit encryption must be ENABLED.",
    );
    refused(
        efs(json!({"authorizationConfig": {"iam": "ENABLED"}, "transitEncryption": "DISABLED"})),
        "When IAM authorization is used for volume 'a', transit encryption must be ENABLED.",
    );
    refused(
        efs(json!({
            "authorizationConfig": {"accessPointId": "fsap-1"}, "transitEncryption": "ENABLED", "rootDirectory": "/x",
        })),
        "When an access point is specified for volume 'a', the root directory must be omitted or set to '/'.",
    );
    let mounts = |m: Value| ec2(json!({"volumes": [{"name": "v"}]}), json!({ "mountPoints": m }));
    accepted(mounts(json!([{"sourceVolume": "v", "containerPath": "/data", "readOnly": true}])));
    refused(mounts(json!([{"sourceVolume": "w", "containerPath": "/data"}])), "Unknown volume 'w'.");
    refused(mounts(json!([{"sourceVolume": "v"}])), "Invalid 'mountPoints' setting for container 'app'.");
    refused(
        mounts(
            json!([{"sourceVolume": "v", "containerPath": "/d"}, {"sourceVolume": "v", "containerPath": "/d"}]),
        ),
        "Invalid setting for container 'app'. '/d' is specified more than once in 'mountPoints'.",
    );
}

#[test]
fn container_settings() {
    for (setting, app) in [
        ("environmentFiles", json!({"environmentFiles": [{"type": "s3", "value": "arn:aws:s3:::b/f.txt"}]})),
        ("environment", json!({"environment": [{"value": "x"}]})),
        ("ulimits", json!({"ulimits": [{"name": "nofile", "softLimit": 20, "hardLimit": 10}]})),
        ("healthCheck", json!({"healthCheck": {"command": []}})),
        ("healthCheck", json!({"healthCheck": {"command": ["CMD"]}})),
        ("healthCheck", json!({"healthCheck": {"command": ["curl", "x"]}})),
        ("capabilities", json!({"linuxParameters": {"capabilities": {"add": ["FLY"]}}})),
        ("tmpfs", json!({"linuxParameters": {"tmpfs": [{"containerPath": "/t", "size": 0}]}})),
        (
            "tmpfs",
            json!({"linuxParameters": {"tmpfs": [{"containerPath": "/t", "size": 1, "mountOptions": ["odd"]}]}}),
        ),
        ("devices", json!({"linuxParameters": {"devices": [{"hostPath": "dev"}]}})),
        ("resourceRequirements", json!({"resourceRequirements": [{"type": "GPU", "value": "0"}]})),
        (
            "resourceRequirements",
            json!({"resourceRequirements": [{"type": "InferenceAccelerator", "value": "d"}]}),
        ),
        ("systemControls", json!({"systemControls": [{"namespace": "net.core.somaxconn"}]})),
        ("startTimeout", json!({"startTimeout": -1})),
        ("stopTimeout", json!({"stopTimeout": -1})),
    ] {
        refused(ec2(none(), app), &format!("Invalid '{setting}' setting for container 'app'."));
    }
    let check = |extra: Value| {
        let mut check = json!({"command": ["CMD", "true"]});
        merge(&mut check, extra);
        json!({ "healthCheck": check })
    };
    for (setting, low, high, app) in [
        ("interval", 5, 300, check(json!({"interval": 4}))),
        ("timeout", 2, 60, check(json!({"timeout": 61}))),
        ("retries", 1, 10, check(json!({"retries": 0}))),
        ("startPeriod", 0, 300, check(json!({"startPeriod": 301}))),
        (
            "restartAttemptPeriod",
            60,
            1800,
            json!({"restartPolicy": {"enabled": true, "restartAttemptPeriod": 59}}),
        ),
        ("swappiness", 0, 100, json!({"linuxParameters": {"swappiness": 101}})),
    ] {
        refused(
            ec2(none(), app),
            &format!("Invalid setting for container 'app'. '{setting}' must be between {low} and {high}."),
        );
    }
    let files: Vec<Value> =
        (0..11).map(|n| json!({"type": "s3", "value": format!("arn:aws:s3:::b/{n}.env")})).collect();
    refused(
        ec2(none(), json!({ "environmentFiles": files })),
        "Invalid setting for container 'app'. At most 10 'environmentFiles' are allowed.",
    );
    let codes: Vec<i32> = (0..51).collect();
    refused(
        ec2(none(), json!({"restartPolicy": {"enabled": true, "ignoredExitCodes": codes}})),
        "Invalid setting for container 'app'. At most 50 'ignoredExitCodes' are allowed.",
    );
    refused(
        ec2(none(), json!({"credentialSpecs": ["a", "b"]})),
        "Invalid setting for container 'app'. At most 1 'credentialSpecs' are allowed.",
    );
    refused(
        ec2(
            none(),
            json!({"ulimits": [{"name": "core", "softLimit": 1, "hardLimit": 1}, {"name": "core", "softLimit": 1, "hardLimit": 1}]}),
        ),
        "Invalid setting for container 'app'. 'core' is specified more than once in 'ulimits'.",
    );
    accepted(ec2(none(), json!({"ulimits": [{"name": "memlock", "softLimit": -1, "hardLimit": -1}]})));
    accepted(ec2(none(), json!({"healthCheck": {"command": ["NONE"]}})));
    refused(
        ec2(
            json!({"networkMode": "host"}),
            json!({"systemControls": [{"namespace": "net.core.somaxconn", "value": "1"}]}),
        ),
        "Network system controls are not supported on container when networkMode=host.",
    );
}

#[test]
fn secrets_and_credentials() {
    let secret = json!([{"name": "PASSWORD", "valueFrom": "arn:aws:secretsmanager:eu-north-1:111122223333:secret:db"}]);
    let role = || json!({"executionRoleArn": "exec"});
    refused(
        ec2(none(), json!({ "secrets": secret })),
        "When you are specifying container secrets, you must also specify a value for 'executionRoleArn'.",
    );
    accepted(ec2(role(), json!({ "secrets": secret })));
    refused(
        ec2(role(), json!({"secrets": secret, "environment": [{"name": "PASSWORD", "value": "x"}]})),
        "Environment variable and secret names must be unique in a container: 'PASSWORD' in container 'app'.",
    );
    let credentials =
        json!({"repositoryCredentials": {"credentialsParameter": "arn:aws:secretsmanager:r:a:secret:x"}});
    refused(
        ec2(none(), credentials.clone()),
        "When you are specifying repository credentials, you must also specify a value for 'executionRoleArn'.",
    );
    accepted(ec2(role(), credentials));
}

#[test]
fn options_of_a_router_are_checked() {
    let with = |options: Value| {
        let router =
            json!({"name": "router", "firelensConfiguration": {"type": "fluentbit", "options": options}});
        let app = json!({"name": "app", "logConfiguration": {"logDriver": "awsfirelens"}});
        several(json!([router, app]))
    };
    accepted(with(json!({})));
    accepted(with(json!({"enable-ecs-log-metadata": "false"})));
    accepted(with(json!({"config-file-type": "file", "config-file-value": "/x.conf"})));
    for options in [
        json!({"enable-ecs-log-metadata": "maybe"}),
        json!({"config-file-type": "ftp", "config-file-value": "/x.conf"}),
        json!({"config-file-type": "s3"}),
    ] {
        refused(with(options), "Invalid 'firelensConfiguration' setting for container 'router'.");
    }
}

#[test]
fn firelens_and_proxy() {
    let routed = json!({"name": "app", "logConfiguration": {"logDriver": "awsfirelens"}});
    let router = json!({"name": "router", "firelensConfiguration": {"type": "fluentbit"}});
    accepted(several(json!([routed, router])));
    refused(
        several(json!([routed])),
        "When the awsfirelens log driver is specified, one container must have a firelensConfiguration object.",
    );
    refused(
        several(json!([router])),
        "When a firelensConfiguration object is specified, at least one container has to be configured with the awsfirelens log driver.",
    );
    let with = |mode: &str, container: &str, properties: &[(&str, &str)]| {
        let properties: Vec<_> =
            properties.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
        let proxy = json!({"containerName": container, "type": "APPMESH", "properties": properties});
        ec2(json!({"networkMode": mode, "proxyConfiguration": proxy}), none())
    };
    let full = [
        ("IgnoredUID", "1337"),
        ("ProxyIngressPort", "15000"),
        ("ProxyEgressPort", "15001"),
        ("AppPorts", "80"),
    ];
    let proxy = |mode: &str, container: &str| with(mode, container, &full);
    accepted(proxy("awsvpc", "app"));
    refused(
        with("awsvpc", "app", &full[..3]),
        "Invalid 'properties' setting for proxyConfiguration: the property AppPorts is required.",
    );
    refused(proxy("awsvpc", "envoy"), "Invalid 'containerName' setting for proxyConfiguration.");
    refused(proxy("bridge", "app"), "proxyConfiguration requires networkMode=awsvpc.");
}

#[test]
fn task_settings() {
    let constraint = |expression: &str| json!({"type": "memberOf", "expression": expression});
    accepted(ec2(json!({"placementConstraints": [constraint("attribute:rack == a")]}), none()));
    for expression in ["", "attribute:rack ==", "rack == a", "attribute:rack == a and"] {
        refused(
            ec2(json!({"placementConstraints": [constraint(expression)]}), none()),
            "Invalid placement constraint expression.",
        );
    }
    refused(
        ec2(json!({"placementConstraints": [{"type": "memberOf"}]}), none()),
        "Invalid placement constraint expression.",
    );
    let eleven = vec![constraint("attribute:a exists"); 11];
    refused(
        ec2(json!({ "placementConstraints": eleven }), none()),
        "At most 10 placement constraints are allowed.",
    );
    for size in [20, 201] {
        refused(
            fargate(json!({"ephemeralStorage": {"sizeInGiB": size}}), none()),
            "Ephemeral storage size must be between 21 and 200 GiB.",
        );
    }
    accepted(fargate(json!({"ephemeralStorage": {"sizeInGiB": 21}}), none()));
}

#[test]
fn fargate_rules() {
    accepted(fargate(none(), none()));
    refused(
        fargate(json!({"cpu": null}), none()),
        "Fargate requires that 'cpu' be defined at the task level.",
    );
    refused(
        fargate(json!({"memory": null}), json!({"memory": 64})),
        "Fargate requires that 'memory' be defined at the task level.",
    );
    refused(
        fargate(json!({"cpu": "256", "memory": "4096"}), none()),
        "No Fargate configuration exists for given values: 256 CPU, 4096 memory.",
    );
    for mode in [Value::Null, json!("bridge"), json!("host"), json!("none")] {
        refused(
            fargate(json!({ "networkMode": mode }), none()),
            "Fargate only supports network mode ‘awsvpc’.",
        );
    }
    for (what, task, app) in [
        ("privileged", none(), json!({"privileged": true})),
        ("dockerSecurityOptions", none(), json!({"dockerSecurityOptions": ["no-new-privileges"]})),
        ("devices", none(), json!({"linuxParameters": {"devices": [{"hostPath": "/dev/fuse"}]}})),
        ("sharedMemorySize", none(), json!({"linuxParameters": {"sharedMemorySize": 64}})),
        ("maxSwap", none(), json!({"linuxParameters": {"maxSwap": 64}})),
        ("swappiness", none(), json!({"linuxParameters": {"swappiness": 60}})),
        ("resourceRequirements", none(), json!({"resourceRequirements": [{"type": "GPU", "value": "1"}]})),
        ("disableNetworking", none(), json!({"disableNetworking": true})),
        ("sourcePath", json!({"volumes": [{"name": "v", "host": {"sourcePath": "/x"}}]}), none()),
        (
            "dockerVolumeConfiguration",
            json!({"volumes": [{"name": "v", "dockerVolumeConfiguration": {}}]}),
            none(),
        ),
        (
            "placementConstraints",
            json!({"placementConstraints": [{"type": "memberOf", "expression": "attribute:a exists"}]}),
            none(),
        ),
        (
            "adding Linux capabilities other than SYS_PTRACE",
            none(),
            json!({"linuxParameters": {"capabilities": {"add": ["NET_ADMIN"]}}}),
        ),
        (
            "log drivers other than awslogs, splunk and awsfirelens",
            none(),
            json!({"logConfiguration": {"logDriver": "json-file"}}),
        ),
    ] {
        refused(fargate(task, app), &format!("Fargate compatible task definitions do not support {what}"));
    }
    accepted(fargate(
        none(),
        json!({"linuxParameters": {"capabilities": {"add": ["SYS_PTRACE"], "drop": ["ALL"]}}}),
    ));
    refused(
        fargate(json!({"ipcMode": "task"}), none()),
        "Tasks using the Fargate launch type do not support ipcMode.",
    );
    refused(
        fargate(json!({"pidMode": "host"}), none()),
        "Tasks using the Fargate launch type do not support pidMode host.",
    );
    accepted(fargate(json!({"pidMode": "task"}), none()));
    refused(
        fargate(none(), json!({"stopTimeout": 121})),
        "Invalid setting for container 'app'. 'stopTimeout' must be between 0 and 120.",
    );
    refused(
        fargate(none(), json!({"startTimeout": 1})),
        "Invalid setting for container 'app'. 'startTimeout' must be between 2 and 120.",
    );
    let ecr = || json!({"image": "111122223333.dkr.ecr.eu-north-1.amazonaws.com/app:1"});
    refused(
        fargate(none(), ecr()),
        "Fargate requires task definition to have execution role ARN to support ECR images.",
    );
    accepted(fargate(json!({"executionRoleArn": "exec"}), ecr()));
    accepted(fargate(none(), json!({"logConfiguration": {"logDriver": "awslogs"}})));
    refused(
        fargate(
            json!({"cpu": "512", "memory": "1024", "runtimePlatform": {"operatingSystemFamily": "WINDOWS_SERVER_2022_CORE"}}),
            none(),
        ),
        "No Fargate configuration exists for given values: 512 CPU, 1024 memory.",
    );
}

#[test]
fn other_platforms() {
    for (mode, compatibilities) in [
        (Value::Null, json!(["EXTERNAL", "EC2"])),
        (json!("bridge"), json!(["EXTERNAL", "EC2"])),
        (json!("host"), json!(["EXTERNAL", "EC2", "MANAGED_INSTANCES"])),
        (json!("none"), json!(["EXTERNAL", "EC2", "MANAGED_INSTANCES"])),
        (json!("awsvpc"), json!(["EC2", "MANAGED_INSTANCES"])),
    ] {
        shows(ec2(json!({ "networkMode": mode }), none()), "/compatibilities", compatibilities);
    }
    shows(fargate(none(), none()), "/compatibilities", json!(["EC2", "FARGATE", "MANAGED_INSTANCES"]));
    refused(
        ec2(json!({"requiresCompatibilities": ["EXTERNAL"], "networkMode": "awsvpc"}), none()),
        "EXTERNAL compatible task definitions do not support network mode awsvpc.",
    );
    refused(
        ec2(json!({"requiresCompatibilities": ["MANAGED_INSTANCES"]}), none()),
        "MANAGED_INSTANCES compatible task definitions do not support network mode bridge.",
    );
    refused(
        ec2(json!({"requiresCompatibilities": ["EC2", "FARGATE"]}), none()),
        "Fargate only supports network mode ‘awsvpc’.",
    );
}

#[test]
fn required_attributes_follow_from_what_is_used() {
    #[track_caller]
    fn needs(raw: Value, expected: &[&str]) {
        let shown = register(raw).unwrap();
        let names: Vec<&str> = shown["requiresAttributes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|a| a["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, expected);
    }
    const API: &str = "com.amazonaws.ecs.capability.docker-remote-api.1.18";
    needs(ec2(none(), none()), &[API]);
    needs(
        ec2(json!({"networkMode": "awsvpc", "taskRoleArn": "r", "cpu": "256"}), none()),
        &[
            API,
            "com.amazonaws.ecs.capability.task-iam-role",
            "ecs.capability.task-cpu-mem-limit",
            "ecs.capability.task-eni",
        ],
    );
    needs(
        ec2(json!({"networkMode": "host", "taskRoleArn": "r"}), json!({"privileged": true})),
        &[
            API,
            "com.amazonaws.ecs.capability.privileged-container",
            "com.amazonaws.ecs.capability.task-iam-role-network-host",
        ],
    );
    needs(
        ec2(
            json!({"executionRoleArn": "e"}),
            json!({
                "image": "111122223333.dkr.ecr.eu-north-1.amazonaws.com/app:1",
                "logConfiguration": {"logDriver": "awslogs"},
                "secrets": [
                    {"name": "A", "valueFrom": "arn:aws:secretsmanager:r:a:secret:x"},
                    {"name": "B", "valueFrom": "/app/parameter"},
                ],
                "healthCheck": {"command": ["CMD", "true"]},
            }),
        ),
        &[
            API,
            "com.amazonaws.ecs.capability.docker-remote-api.1.19",
            "com.amazonaws.ecs.capability.docker-remote-api.1.21",
            "com.amazonaws.ecs.capability.docker-remote-api.1.24",
            "com.amazonaws.ecs.capability.ecr-auth",
            "com.amazonaws.ecs.capability.logging-driver.awslogs",
            "ecs.capability.container-health-check",
            "ecs.capability.execution-role-awslogs",
            "ecs.capability.execution-role-ecr-pull",
            "ecs.capability.secrets.asm.environment-variables",
            "ecs.capability.secrets.ssm.environment-variables",
        ],
    );
}

#[test]
fn text_that_is_no_definition_is_refused_without_panic() {
    for raw in [
        json!(null),
        json!([]),
        json!("x"),
        json!({"family": "x", "containerDefinitions": "y"}),
        json!({"family": "x", "containerDefinitions": [7]}),
        ec2(json!({"networkMode": "tunnel"}), none()),
        ec2(json!({"volumes": [7]}), none()),
        ec2(none(), json!({"portMappings": [7]})),
        ec2(none(), json!({"essential": "yes"})),
        ec2(none(), json!({"memory": 1e300})),
        ec2(none(), json!({"healthCheck": {"interval": 10}})),
    ] {
        assert!(register(raw.clone()).is_err(), "{raw}");
    }
}

#[test]
fn a_registered_definition_reads_back_from_its_stored_form() {
    let definition =
        validate(fargate(none(), json!({"portMappings": [{"containerPort": 80}]})), AccountId::DEFAULT);
    let definition = definition.unwrap();
    let stored = serde_json::to_string(&definition).unwrap();
    assert_eq!(serde_json::from_str::<TaskDefinition>(&stored).unwrap(), definition);
}
