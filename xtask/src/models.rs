//! `cargo xtask models`: makes `models/*.json` from the public botocore package (PyPI, Apache-2.0).
//!
//! Only facts are taken: names, types, constraints, enums, errors and protocol traits; none of its prose. The output
//! is deterministic, one line per shape, so that a new version of the package shows as a readable difference.

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

/// The one place that names the version of the API that Gantry speaks.
pub const BOTOCORE: &str = "1.44.5";

/// Services by botocore's name for them.
const SERVICES: &[&str] = &["acm", "autoscaling", "ec2", "ecs", "elbv2", "logs", "ssm", "sts"];

/// Services of which only some operations, and the shapes that these need, are taken: the others have nothing to do
/// with running containers, and every shape costs time in each build. The whole of EC2's model is larger than
/// everything else together.
const SELECTED: &[(&str, &[&str])] = &[
    (
        "acm",
        &[
            "AddTagsToCertificate",
            "DeleteCertificate",
            "DescribeCertificate",
            "GetCertificate",
            "ImportCertificate",
            "ListCertificates",
            "ListTagsForCertificate",
            "RemoveTagsFromCertificate",
            "RequestCertificate",
            "UpdateCertificateOptions",
        ],
    ),
    (
        "autoscaling",
        &[
            "AttachInstances",
            "CompleteLifecycleAction",
            "CreateAutoScalingGroup",
            "CreateLaunchConfiguration",
            "CreateOrUpdateTags",
            "DeleteAutoScalingGroup",
            "DeleteLaunchConfiguration",
            "DeleteLifecycleHook",
            "DeleteTags",
            "DescribeAutoScalingGroups",
            "DescribeAutoScalingInstances",
            "DescribeLaunchConfigurations",
            "DescribeLifecycleHookTypes",
            "DescribeLifecycleHooks",
            "DescribeScalingActivities",
            "DescribeScalingProcessTypes",
            "DescribeTags",
            "DescribeTerminationPolicyTypes",
            "DetachInstances",
            "PutLifecycleHook",
            "RecordLifecycleActionHeartbeat",
            "ResumeProcesses",
            "SetDesiredCapacity",
            "SetInstanceHealth",
            "SetInstanceProtection",
            "SuspendProcesses",
            "TerminateInstanceInAutoScalingGroup",
            "UpdateAutoScalingGroup",
        ],
    ),
    (
        "ec2",
        &[
            "AssociateSubnetCidrBlock",
            "AssociateVpcCidrBlock",
            "AuthorizeSecurityGroupEgress",
            "AuthorizeSecurityGroupIngress",
            "CreateLaunchTemplate",
            "CreateLaunchTemplateVersion",
            "CreateSecurityGroup",
            "CreateSubnet",
            "CreateTags",
            "CreateVpc",
            "DeleteLaunchTemplate",
            "DeleteLaunchTemplateVersions",
            "DeleteSecurityGroup",
            "DeleteSubnet",
            "DeleteTags",
            "DeleteVpc",
            "DescribeAccountAttributes",
            "DescribeAvailabilityZones",
            "DescribeInternetGateways",
            "DescribeLaunchTemplateVersions",
            "DescribeLaunchTemplates",
            "DescribeNetworkAcls",
            "DescribeNetworkInterfaces",
            "DescribeRegions",
            "DescribeRouteTables",
            "DescribeSecurityGroupRules",
            "DescribeSecurityGroups",
            "DescribeSubnets",
            "DescribeTags",
            "DescribeVpcAttribute",
            "DescribeVpcs",
            "DisassociateSubnetCidrBlock",
            "DisassociateVpcCidrBlock",
            "ModifyLaunchTemplate",
            "ModifySecurityGroupRules",
            "ModifySubnetAttribute",
            "ModifyVpcAttribute",
            "RevokeSecurityGroupEgress",
            "RevokeSecurityGroupIngress",
            "UpdateSecurityGroupRuleDescriptionsEgress",
            "UpdateSecurityGroupRuleDescriptionsIngress",
        ],
    ),
    (
        "elbv2",
        &[
            "AddListenerCertificates",
            "AddTags",
            "AddTrustStoreRevocations",
            "CreateListener",
            "CreateLoadBalancer",
            "CreateRule",
            "CreateTargetGroup",
            "CreateTrustStore",
            "DeleteListener",
            "DeleteLoadBalancer",
            "DeleteRule",
            "DeleteSharedTrustStoreAssociation",
            "DeleteTargetGroup",
            "DeleteTrustStore",
            "DeregisterTargets",
            "DescribeAccountLimits",
            "DescribeCapacityReservation",
            "DescribeListenerAttributes",
            "DescribeListenerCertificates",
            "DescribeListeners",
            "DescribeLoadBalancerAttributes",
            "DescribeLoadBalancers",
            "DescribeRules",
            "DescribeSSLPolicies",
            "DescribeTags",
            "DescribeTargetGroupAttributes",
            "DescribeTargetGroups",
            "DescribeTargetHealth",
            "DescribeTrustStoreAssociations",
            "DescribeTrustStoreRevocations",
            "DescribeTrustStores",
            "GetTrustStoreCaCertificatesBundle",
            "GetTrustStoreRevocationContent",
            "ModifyCapacityReservation",
            "ModifyListener",
            "ModifyListenerAttributes",
            "ModifyLoadBalancerAttributes",
            "ModifyRule",
            "ModifyTargetGroup",
            "ModifyTargetGroupAttributes",
            "ModifyTrustStore",
            "RegisterTargets",
            "RemoveListenerCertificates",
            "RemoveTags",
            "RemoveTrustStoreRevocations",
            "SetIpAddressType",
            "SetRulePriorities",
            "SetSecurityGroups",
            "SetSubnets",
        ],
    ),
    (
        "logs",
        &[
            "CreateLogGroup",
            "CreateLogStream",
            "DeleteLogGroup",
            "DeleteLogStream",
            "DeleteMetricFilter",
            "DeleteRetentionPolicy",
            "DescribeLogGroups",
            "DescribeLogStreams",
            "DescribeMetricFilters",
            "FilterLogEvents",
            "GetLogEvents",
            "ListTagsForResource",
            "ListTagsLogGroup",
            "PutLogEvents",
            "PutMetricFilter",
            "PutRetentionPolicy",
            "StartLiveTail",
            "TagLogGroup",
            "TagResource",
            "TestMetricFilter",
            "UntagLogGroup",
            "UntagResource",
        ],
    ),
    (
        "ssm",
        &[
            "CreateActivation",
            "DeleteActivation",
            "DeregisterManagedInstance",
            "DescribeActivations",
            "DescribeInstanceInformation",
            "ResumeSession",
        ],
    ),
];

/// Members that the public model leaves out although the container agent's own client sends them: service, shape,
/// member and the shape of its value.
const UNPUBLISHED: &[(&str, &str, &str, &str)] =
    &[("ecs", "RegisterContainerInstanceRequest", "clientToken", "String")];

/// Patterns that look ahead, which Gantry's engine (linear in the text) does not: service, shape, and one that takes the
/// same texts.
const REWORDED: &[(&str, &str, &str)] = &[(
    "acm",
    "DomainNameString",
    r"(\*\.)?([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z0-9][A-Za-z0-9-]{0,61}[A-Za-z0-9]",
)];

/// Secrets that the public model does not mark as such: service and shape.
const SECRETS: &[(&str, &str)] = &[("ssm", "TokenValue")];

pub fn run(root: &Path) -> Result<()> {
    let python = crate::venv::python(root, &[&format!("botocore=={BOTOCORE}")])?;
    std::fs::create_dir_all(root.join("models"))?;
    for service in SERVICES {
        let mut model = load(&python, service)?;
        for (_, shape, member, of) in UNPUBLISHED.iter().filter(|(of, ..)| of == service) {
            model["shapes"][shape]["members"][member] = json!({ "shape": of });
        }
        for (_, shape, pattern) in REWORDED.iter().filter(|(of, ..)| of == service) {
            model["shapes"][shape]["pattern"] = json!(pattern);
        }
        for (_, shape) in SECRETS.iter().filter(|(of, _)| of == service) {
            model["shapes"][shape]["sensitive"] = json!(true);
        }
        if let Some((_, operations)) = SELECTED.iter().find(|(of, _)| of == service) {
            select(&mut model, operations)?;
        }
        let path = root.join("models").join(format!("{service}.json"));
        std::fs::write(&path, compact(service, &model)?)
            .with_context(|| format!("writing {}", path.display()))?;
        println!("models/{service}.json");
    }
    Ok(())
}

/// Lets botocore find and unpack its own data.
fn load(python: &Path, service: &str) -> Result<Value> {
    let script = "import sys, json, botocore.loaders as l; \
                  json.dump(l.Loader().load_service_model(sys.argv[1], 'service-2'), sys.stdout)";
    let output = Command::new(python).args(["-c", script, service]).output().context("running python")?;
    if !output.status.success() {
        bail!("botocore has no model of {service}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Leaves of a model the named operations and what they reach.
fn select(model: &mut Value, names: &[&str]) -> Result<()> {
    let operations = model["operations"].as_object_mut().context("a model has operations")?;
    operations.retain(|name, _| names.contains(&name.as_str()));
    if let Some(missing) = names.iter().find(|name| !operations.contains_key(**name)) {
        bail!("the model has no operation {missing}");
    }
    let mut reached = BTreeSet::new();
    let mut next: Vec<String> = operations.values().flat_map(shapes_named).collect();
    while let Some(name) = next.pop() {
        if reached.insert(name.clone()) {
            next.extend(shapes_named(&model["shapes"][&name]));
        }
    }
    let shapes = model["shapes"].as_object_mut().context("a model has shapes")?;
    shapes.retain(|name, _| reached.contains(name));
    Ok(())
}

/// The shapes that an operation or a shape names.
fn shapes_named(from: &Value) -> Vec<String> {
    match from {
        Value::Object(map) => match &map.get("shape") {
            Some(Value::String(name)) => vec![name.clone()],
            _ => map.values().flat_map(shapes_named).collect(),
        },
        Value::Array(items) => items.iter().flat_map(shapes_named).collect(),
        _ => Vec::new(),
    }
}

fn compact(service: &str, model: &Value) -> Result<String> {
    let metadata = &model["metadata"];
    let mut out = String::from("{\n");
    let head = json!({
        "protocol": metadata["protocol"],
        "jsonVersion": metadata["jsonVersion"],
        "apiVersion": metadata["apiVersion"],
        "targetPrefix": metadata["targetPrefix"],
        "signingName": metadata["signingName"].as_str().or(metadata["endpointPrefix"].as_str()),
        "xmlNamespace": metadata["xmlNamespace"],
        "selection": SELECTED.iter().any(|(of, _)| *of == service).then_some(true),
    });
    writeln!(out, "\"service\": {},", without_nulls(head))?;
    let operations = model["operations"].as_object().context("a model has operations")?;
    let shapes = model["shapes"].as_object().context("a model has shapes")?;
    lines(&mut out, "operations", operations, |operation| {
        let shape_of = |key: &str| operation[key]["shape"].clone();
        let errors: Vec<&Value> =
            operation["errors"].as_array().into_iter().flatten().map(|e| &e["shape"]).collect();
        let wrapper = &operation["output"]["resultWrapper"];
        json!({ "input": shape_of("input"), "output": shape_of("output"), "errors": errors, "resultWrapper": wrapper })
    })?;
    out.push_str(",\n");
    lines(&mut out, "shapes", shapes, shape)?;
    out.push_str("\n}\n");
    Ok(out)
}

fn lines(
    out: &mut String,
    name: &str,
    from: &Map<String, Value>,
    facts: impl Fn(&Value) -> Value,
) -> Result<()> {
    writeln!(out, "\"{name}\": {{")?;
    for (index, (key, value)) in from.iter().enumerate() {
        let comma = if index + 1 < from.len() { "," } else { "" };
        writeln!(out, "{}: {}{comma}", Value::from(key.as_str()), without_nulls(facts(value)))?;
    }
    out.push('}');
    Ok(())
}

/// Of a shape, what code can use.
fn shape(shape: &Value) -> Value {
    const FACTS: &[&str] = &[
        "type",
        "required",
        "enum",
        "min",
        "max",
        "pattern",
        "sensitive",
        "exception",
        "fault",
        "flattened",
        "error",
    ];
    const MEMBER_FACTS: &[&str] =
        &["shape", "locationName", "queryName", "location", "flattened", "idempotencyToken"];
    let pick = |from: &Value, keys: &[&str]| {
        let kept = keys
            .iter()
            .filter(|key| !from[**key].is_null())
            .map(|key| ((*key).to_owned(), from[*key].clone()));
        kept.collect::<Map<String, Value>>()
    };
    let mut kept = pick(shape, FACTS);
    if let Some(members) = shape["members"].as_object() {
        let members =
            members.iter().map(|(name, member)| (name.clone(), Value::Object(pick(member, MEMBER_FACTS))));
        kept.insert("members".to_owned(), Value::Object(members.collect()));
    }
    for part in ["member", "key", "value"] {
        if shape[part].is_object() {
            kept.insert(part.to_owned(), Value::Object(pick(&shape[part], MEMBER_FACTS)));
        }
    }
    Value::Object(kept)
}

fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.into_iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k, without_nulls(v))).collect(),
        ),
        other => other,
    }
}
