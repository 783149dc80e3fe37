"""What ECS refuses of services and capacity: with its error and words, and nothing is changed by the attempt."""

import json

import pytest
from test_ecs import WEB, refused

INVALID = "InvalidParameterException"
NETWORK = {"awsvpcConfiguration": {"subnets": ["subnet-1"]}}


def item(name, weight=1, base=0):
    return {"capacityProvider": name, "weight": weight, "base": base}


@pytest.fixture
def shop(gantry, ecs):
    """A cluster `default` with a provider, a service `web` of EC2, `task` of Fargate, `watch` on each instance, and one that
    is no more."""
    group = "arn:aws:autoscaling:us-east-1:123456789012:autoScalingGroup:1:autoScalingGroupName/metal"
    ecs.create_cluster(clusterName="default")
    ecs.create_capacity_provider(name="metal", autoScalingGroupProvider={"autoScalingGroupArn": group})
    ecs.put_cluster_capacity_providers(
        cluster="default", capacityProviders=["metal", "FARGATE", "FARGATE_SPOT"], defaultCapacityProviderStrategy=[])
    ecs.register_task_definition(**WEB)
    container = {"name": "app", "image": "app:1", "memory": 64}
    ecs.register_task_definition(family="app", containerDefinitions=[container])
    ecs.create_service(serviceName="web", taskDefinition="app", desiredCount=1)
    ecs.create_service(serviceName="task", taskDefinition="web-app", desiredCount=1, launchType="FARGATE",
                       networkConfiguration=NETWORK)
    ecs.create_service(serviceName="watch", taskDefinition="app", schedulingStrategy="DAEMON")
    ecs.create_service(serviceName="gone", taskDefinition="app", desiredCount=0)
    ecs.delete_service(service="gone")
    return ecs


def seen(ecs):
    """All that a refused request could have changed, but for the events of services that go on meanwhile."""
    names = ["web", "task", "watch", "gone", "new"]
    services = ecs.describe_services(services=names)
    for service in services["services"]:
        for changing in "events", "runningCount", "pendingCount", "currentServiceRevisions":
            service.pop(changing, None)
        for deployment in service["deployments"]:
            for changing in "runningCount", "pendingCount", "failedTasks", "updatedAt":
                deployment.pop(changing, None)
    attempts = [ecs.list_service_deployments(service=name)["serviceDeployments"] for name in names[:3]]
    return [services["services"], services["failures"], [len(of) for of in attempts],
            ecs.describe_clusters()["clusters"][0]["defaultCapacityProviderStrategy"],
            ecs.describe_clusters()["clusters"][0]["capacityProviders"],
            ecs.describe_capacity_providers()["capacityProviders"],
            ecs.list_task_definitions()["taskDefinitionArns"]]


def all_refused(ecs, call, cases):
    before = seen(ecs)
    for code, message, arguments in cases:
        refused(code, message, call, **arguments)
        assert seen(ecs) == before, f"{arguments} changed something"


def test_deployment_settings_that_contradict_each_other(shop):
    settings = [
        ("maximumPercent must be between 100 and", {"maximumPercent": 99}),
        ("minimumHealthyPercent must be between 0 and 100.", {"minimumHealthyPercent": 101}),
        ("linearConfiguration is only valid for the LINEAR", {"linearConfiguration": {"stepPercent": 10.0}}),
        ("canaryConfiguration is only valid for the CANARY",
         {"strategy": "BLUE_GREEN", "bakeTimeInMinutes": 1, "canaryConfiguration": {"canaryPercent": 10.0}}),
        ("bakeTimeInMinutes must be specified for the BLUE_GREEN", {"strategy": "BLUE_GREEN"}),
        ("stepPercent must be", {"strategy": "LINEAR", "linearConfiguration": {"stepPercent": 2.9}}),
        ("bakeTimeInMinutes is not supported with the ROLLING", {"bakeTimeInMinutes": 1}),
        ("alarmNames must be specified", {"alarms": {"alarmNames": [], "enable": True, "rollback": True}}),
        ("Lifecycle hooks are not supported with the ROLLING",
         {"lifecycleHooks": [{"targetType": "PAUSE", "lifecycleStages": ["POST_SCALE_UP"]}]}),
        ("earlySuccessCriteria is not supported with the BLUE_GREEN",
         {"strategy": "BLUE_GREEN", "bakeTimeInMinutes": 1,
          "earlySuccessCriteria": {"enable": True, "healthyPercent": 100}}),
        ("healthyPercent must be between 50 and 100.",
         {"minimumHealthyPercent": 50, "earlySuccessCriteria": {"enable": True, "healthyPercent": 40}}),
        ("A threshold in percent must be between 1 and 100.", {"deploymentCircuitBreaker": {
            "enable": True, "rollback": True, "thresholdConfiguration": {"type": "BOUNDED_PERCENT", "value": 101}}}),
    ]
    made = [(INVALID, message, {"serviceName": "new", "taskDefinition": "app", "desiredCount": 1,
                                "deploymentConfiguration": given}) for message, given in settings]
    all_refused(shop, shop.create_service, made)
    changed = [(INVALID, message, {"service": "web", "deploymentConfiguration": given}) for message, given in settings]
    all_refused(shop, shop.update_service, changed)
    one = {"serviceName": "new", "taskDefinition": "app"}
    all_refused(shop, shop.create_service, [
        (INVALID, "The daemon scheduling strategy does not support a desired count for services. Remove the desired count "
         "value and try again.", {**one, "schedulingStrategy": "DAEMON", "desiredCount": 1}),
        (INVALID, "maximumPercent must be 100", {**one, "schedulingStrategy": "DAEMON",
                                                 "deploymentConfiguration": {"maximumPercent": 200}}),
        (INVALID, "DAEMON", {**one, "schedulingStrategy": "DAEMON", "placementStrategy": [{"type": "random"}]}),
        (INVALID, "The DAEMON scheduling strategy is not supported with the EXTERNAL deployment controller.",
         {"serviceName": "new", "schedulingStrategy": "DAEMON", "deploymentController": {"type": "EXTERNAL"}}),
        (INVALID, "The BLUE_GREEN deployment strategy is not supported with the DAEMON scheduling strategy.",
         {**one, "schedulingStrategy": "DAEMON",
          "deploymentConfiguration": {"strategy": "BLUE_GREEN", "bakeTimeInMinutes": 0}}),
        (INVALID, "Availability Zone rebalancing is not supported", {
            **one, "desiredCount": 1, "availabilityZoneRebalancing": "ENABLED",
            "deploymentConfiguration": {"maximumPercent": 100, "minimumHealthyPercent": 0}}),
        (INVALID, "Health check grace period is only valid for services configured to use load balancers",
         {**one, "desiredCount": 1, "healthCheckGracePeriodSeconds": 5}),
        (INVALID, "a valid taskRoleArn is not being used", {**one, "desiredCount": 1, "enableExecuteCommand": True}),
        (INVALID, "The desired count must be between 0 and", {**one, "desiredCount": -1}),
    ])
    all_refused(shop, shop.update_service, [
        (INVALID, "does not support a desired count", {"service": "watch", "desiredCount": 1}),
        (INVALID, "Availability Zone rebalancing is not supported",
         {"service": "watch", "availabilityZoneRebalancing": "ENABLED"}),
        (INVALID, "a valid taskRoleArn is not being used", {"service": "web", "enableExecuteCommand": True}),
        (INVALID, "Health check grace period is only valid", {"service": "web", "healthCheckGracePeriodSeconds": 5}),
    ])


def test_strategies_that_mix_and_providers_that_nobody_knows(shop):
    mix = "A capacity provider strategy cannot contain a mix of capacity providers using Auto Scaling groups and Fargate"
    unknown = "The specified capacity provider was not found."
    both = "Specifying both a launch type and capacity provider strategy is not supported. Remove one and try again."
    strategies = [
        (mix, [item("metal"), item("FARGATE")]),
        (unknown, [item("metal"), item("nobody")]),
        ("twice", [item("FARGATE"), item("FARGATE")]),
        ("Only one capacity provider of a strategy can have a base.",
         [item("FARGATE", base=1), item("FARGATE_SPOT", base=1)]),
        ("needs a weight above 0", [item("FARGATE", 0), item("FARGATE_SPOT", 0)]),
        ("Member must have value less than or equal to 1000", [item("FARGATE", 1001)]),
    ]
    task = {"taskDefinition": "web-app", "networkConfiguration": NETWORK}
    with_type = {"launchType": "FARGATE", "capacityProviderStrategy": [item("FARGATE")]}
    made = [(INVALID, message, {**task, "serviceName": "new", "desiredCount": 1, "capacityProviderStrategy": strategy})
            for message, strategy in strategies]
    all_refused(shop, shop.create_service,
                [*made, (INVALID, both, {**task, "serviceName": "new", "desiredCount": 1, **with_type})])
    all_refused(shop, shop.update_service, [
        (INVALID, message, {"service": "task", "capacityProviderStrategy": strategy}) for message, strategy in strategies])
    run = [(INVALID, message, {**task, "capacityProviderStrategy": strategy}) for message, strategy in strategies]
    all_refused(shop, shop.run_task, [*run, (INVALID, both, {**task, **with_type})])
    cluster = {"cluster": "default", "capacityProviders": ["metal", "FARGATE", "FARGATE_SPOT"]}
    all_refused(shop, shop.put_cluster_capacity_providers, [
        *[(INVALID, message, {**cluster, "defaultCapacityProviderStrategy": strategy}) for message, strategy in strategies],
        (INVALID, unknown, {"cluster": "default", "capacityProviders": ["nobody"], "defaultCapacityProviderStrategy": []}),
    ])
    # The definition runs on EC2 alone.
    all_refused(shop, shop.update_service, [
        (INVALID, "FARGATE", {"service": "web", "capacityProviderStrategy": [item("FARGATE")]})])
    refused(INVALID, unknown, shop.delete_capacity_provider, capacityProvider="nobody")


def test_what_is_in_use_is_not_deleted(shop):
    all_refused(shop, shop.delete_service, [
        (INVALID, "The service cannot be stopped while it is scaled above 0.", {"service": "web"}),
        ("ServiceNotFoundException", "Service not found.", {"service": "nobody"}),
    ])
    all_refused(shop, shop.delete_cluster, [
        ("ClusterContainsServicesException", "The Cluster cannot be deleted while Services are active.",
         {"cluster": "default"}),
        ("ClusterNotFoundException", "Cluster not found.", {"cluster": "nowhere"}),
    ])
    shop.update_service(service="task", capacityProviderStrategy=[item("FARGATE")], forceNewDeployment=True)
    all_refused(shop, shop.put_cluster_capacity_providers, [
        ("ResourceInUseException", "The specified capacity provider is in use and cannot be removed.",
         {"cluster": "default", "capacityProviders": ["metal"], "defaultCapacityProviderStrategy": []})])
    all_refused(shop, shop.delete_capacity_provider, [
        (INVALID, "FARGATE", {"capacityProvider": "FARGATE"})])
    # Of definitions each has its own answer.
    failure = shop.delete_task_definitions(taskDefinitions=["app:1"])["failures"][0]
    assert "must be INACTIVE" in f"{failure['reason']} {failure.get('detail')}" or "ACTIVE" in failure["reason"]


def test_services_that_are_no_more(shop):
    gone = ("ServiceNotActiveException", "Service was not ACTIVE.")
    none = ("ServiceNotFoundException", "Service not found.")
    for call, arguments in [
            (shop.update_service, {"desiredCount": 1}),
            (shop.update_service, {"taskDefinition": "nowhere"})]:
        all_refused(shop, call, [(*gone, {"service": "gone", **arguments}), (*none, {"service": "nobody", **arguments})])
    shop.create_cluster(clusterName="old")
    shop.delete_cluster(cluster="old")
    all_refused(shop, shop.update_service, [
        ("ClusterNotFoundException", "The referenced cluster was inactive.",
         {"cluster": "old", "service": "web", "desiredCount": 2})])
    all_refused(shop, shop.create_service, [
        ("ClusterNotFoundException", "The referenced cluster was inactive.",
         {"cluster": "old", "serviceName": "new", "taskDefinition": "app", "desiredCount": 1}),
        (INVALID, "Creation of service was not idempotent.",
         {"serviceName": "web", "taskDefinition": "app", "desiredCount": 9}),
        ("ClientException", "TaskDefinition not found.",
         {"serviceName": "new", "taskDefinition": "nowhere", "desiredCount": 1}),
    ])


CONSTRAINTS = [
    ("The memberOf placement constraint needs an expression.", {"type": "memberOf"}),
    ("The distinctInstance placement constraint takes no expression.", {"type": "distinctInstance", "expression": "a"}),
    *[("Invalid expression: ", {"type": "memberOf", "expression": text}) for text in [
        "attribute:rack ==", "attribute:rack == (b7", "not", "colour == red", "attribute:rack =~ (", "agentVersion > one",
        "attribute:rack in b7", "runningTasksCount > many", "attribute:rack == b7 and", "((((attribute:rack exists"]],
    ("Expressions are at most 2000 characters long.", {"type": "memberOf", "expression": "x" * 2001}),
]
STRATEGIES = [
    ("is not a field of the placement strategy binpack.", {"type": "binpack", "field": "disk"}),
    ("is not a field of the placement strategy spread.", {"type": "spread", "field": "colour"}),
]


def test_constraints_and_strategies_that_are_wrong(shop):
    placement = [(INVALID, message, {"placementConstraints": [given]}) for message, given in CONSTRAINTS]
    placement += [(INVALID, message, {"placementStrategy": [given]}) for message, given in STRATEGIES]
    placement += [
        (INVALID, "At most 10 placement constraints are allowed.",
         {"placementConstraints": [{"type": "distinctInstance"}] * 11}),
        (INVALID, "At most 5 placement strategies are allowed.", {"placementStrategy": [{"type": "random"}] * 6}),
    ]
    with_more = lambda more: [(code, message, {**given, **more}) for code, message, given in placement]
    all_refused(shop, shop.create_service, with_more({"serviceName": "new", "taskDefinition": "app", "desiredCount": 1}))
    all_refused(shop, shop.update_service, with_more({"service": "web"}))
    all_refused(shop, shop.run_task, with_more({"taskDefinition": "app"}))
    for what, given in [("constraints", {"placementConstraints": [{"type": "distinctInstance"}]}),
                        ("strategies", {"placementStrategy": [{"type": "random"}]})]:
        on_fargate = f"Placement {what} are not supported with FARGATE launch type."
        task = {"taskDefinition": "web-app", "launchType": "FARGATE", "networkConfiguration": NETWORK, **given}
        all_refused(shop, shop.create_service, [(INVALID, on_fargate, {**task, "serviceName": "new", "desiredCount": 1})])
        all_refused(shop, shop.update_service, [(INVALID, on_fargate, {"service": "task", **given})])
        all_refused(shop, shop.run_task, [(INVALID, on_fargate, task)])


def test_the_aws_cli_shows_the_same(gantry, shop):
    """One of each kind, as it reaches who types it."""
    for expected, words in [
            ("(InvalidParameterException) when calling the CreateService operation: maximumPercent must be between",
             ["create-service", "--service-name", "new", "--task-definition", "app", "--desired-count", "1",
              "--deployment-configuration", "maximumPercent=50"]),
            ("(InvalidParameterException) when calling the RunTask operation: A capacity provider strategy cannot contain",
             ["run-task", "--task-definition", "app", "--capacity-provider-strategy", "capacityProvider=metal,weight=1",
              "capacityProvider=FARGATE,weight=1"]),
            ("(InvalidParameterException) when calling the PutClusterCapacityProviders operation: The specified capacity",
             ["put-cluster-capacity-providers", "--cluster", "default", "--capacity-providers", "nobody",
              "--default-capacity-provider-strategy", "[]"]),
            ("(ClusterContainsServicesException) when calling the DeleteCluster operation: The Cluster cannot be deleted",
             ["delete-cluster", "--cluster", "default"]),
            ("(ServiceNotActiveException) when calling the UpdateService operation: Service was not ACTIVE.",
             ["update-service", "--service", "gone", "--desired-count", "1"]),
            ("(InvalidParameterException) when calling the UpdateService operation: Invalid expression: ",
             ["update-service", "--service", "web", "--placement-constraints",
              json.dumps([{"type": "memberOf", "expression": "attribute:rack =="}])])]:
        before = seen(shop)
        failed = gantry.aws("ecs", *words, check=False)
        assert failed.returncode != 0 and expected in failed.stderr, failed.stderr
        assert seen(shop) == before
