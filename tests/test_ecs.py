"""What an ECS user does with boto3 and the AWS CLI, against the real server."""

import json
import signal

import botocore.exceptions
import pytest

WEB = {
    "family": "web-app",
    "networkMode": "awsvpc",
    "requiresCompatibilities": ["FARGATE"],
    "cpu": "256",
    "memory": "512",
    "executionRoleArn": "ecsTaskExecutionRole",
    "containerDefinitions": [{
        "name": "web-server",
        "image": "nginx:latest",
        "portMappings": [{"containerPort": 80, "protocol": "tcp"}],
        "essential": True,
        "logConfiguration": {"logDriver": "awslogs", "options": {
            "awslogs-group": "/ecs/web-app", "awslogs-region": "us-east-1", "awslogs-stream-prefix": "web"}},
    }],
}


def refused(code, message, call, **arguments):
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        call(**arguments)
    error = caught.value.response["Error"]
    assert error["Code"] == code
    assert message in error["Message"]
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] < 500


def test_clusters_live_and_die(ecs):
    created = ecs.create_cluster(clusterName="workshop", tags=[{"key": "team", "value": "blue"}])["cluster"]
    assert created["status"] == "ACTIVE"
    assert created["clusterArn"].endswith(":cluster/workshop")
    assert ecs.create_cluster(clusterName="workshop")["cluster"]["clusterArn"] == created["clusterArn"]
    ecs.create_cluster()
    assert len(ecs.list_clusters()["clusterArns"]) == 2
    described = ecs.describe_clusters(clusters=["workshop", "nowhere"], include=["TAGS"])
    assert described["clusters"][0]["tags"] == [{"key": "team", "value": "blue"}]
    assert described["failures"][0]["reason"] == "MISSING"
    assert ecs.delete_cluster(cluster="workshop")["cluster"]["status"] == "INACTIVE"
    assert len(ecs.list_clusters()["clusterArns"]) == 1
    refused("ClusterNotFoundException", "Cluster not found.", ecs.delete_cluster, cluster="nowhere")


def test_lists_come_in_pages(ecs):
    names = {f"c{n:02}" for n in range(25)}
    for name in names:
        ecs.create_cluster(clusterName=name)
    pages = list(ecs.get_paginator("list_clusters").paginate(PaginationConfig={"PageSize": 10}))
    assert [len(page["clusterArns"]) for page in pages] == [10, 10, 5]
    assert {arn.split("/")[1] for page in pages for arn in page["clusterArns"]} == names
    refused("InvalidParameterException", "token", ecs.list_clusters, nextToken="nonsense")


def test_task_definitions_are_registered_and_described(ecs):
    first = ecs.register_task_definition(**WEB)["taskDefinition"]
    assert (first["family"], first["revision"], first["status"]) == ("web-app", 1, "ACTIVE")
    assert ecs.register_task_definition(**WEB)["taskDefinition"]["revision"] == 2
    described = ecs.describe_task_definition(taskDefinition="web-app")["taskDefinition"]
    assert described["revision"] == 2
    container = described["containerDefinitions"][0]
    assert container["portMappings"] == [{"containerPort": 80, "hostPort": 80, "protocol": "tcp"}]
    assert (container["cpu"], container["environment"], container["mountPoints"]) == (0, [], [])
    assert "FARGATE" in described["compatibilities"]

    ecs.deregister_task_definition(taskDefinition="web-app:1")
    listed = ecs.list_task_definitions(familyPrefix="web-app")["taskDefinitionArns"]
    assert [arn.rsplit(":", 1)[1] for arn in listed] == ["2"]
    assert ecs.delete_task_definitions(taskDefinitions=["web-app:1", "web-app:2"])["failures"][0]["arn"] == listed[0]
    refused("ClientException", "Unable to describe task definition.", ecs.describe_task_definition,
            taskDefinition="nowhere")
    refused("ClientException", "Fargate", ecs.register_task_definition, **{**WEB, "networkMode": "bridge"})


def test_what_is_not_served_yet_says_so(ecs):
    arn = "arn:aws:ecs:us-east-1:123456789012:service/default/web"
    refused("UnsupportedFeatureException", "DescribeExpressGatewayService", ecs.describe_express_gateway_service,
            serviceArn=arn)


def test_tags_settings_and_identity(gantry, ecs):
    arn = ecs.create_cluster(clusterName="workshop")["cluster"]["clusterArn"]
    ecs.tag_resource(resourceArn=arn, tags=[{"key": "a", "value": "1"}, {"key": "b", "value": "2"}])
    ecs.untag_resource(resourceArn=arn, tagKeys=["a"])
    assert ecs.list_tags_for_resource(resourceArn=arn)["tags"] == [{"key": "b", "value": "2"}]
    ecs.put_account_setting(name="containerInsights", value="enabled")
    settings = ecs.list_account_settings(name="containerInsights", effectiveSettings=True)["settings"]
    assert settings[0]["value"] == "enabled"
    identity = gantry.client("sts").get_caller_identity()
    assert identity["Account"] == "123456789012"
    assert identity["Arn"].endswith(":root")


def test_what_was_acknowledged_survives_a_kill(gantry):
    ecs = gantry.client("ecs")
    acknowledged = [ecs.create_cluster(clusterName=f"k{n}")["cluster"]["clusterArn"] for n in range(20)]
    gantry.end(signal.SIGKILL)
    gantry.start()
    assert sorted(gantry.client("ecs").list_clusters()["clusterArns"]) == sorted(acknowledged)
    assert gantry.end() == 0


def test_strangers_are_refused(gantry):
    call = gantry.client("ecs", environment={"AWS_SECRET_ACCESS_KEY": "wrong"}).list_clusters
    refused("InvalidSignatureException", "does not match", call)
    call = gantry.client("ecs", environment={"AWS_ACCESS_KEY_ID": "AKIAUNKNOWN"}).list_clusters
    refused("UnrecognizedClientException", "invalid", call)


def test_regions_are_apart(gantry, ecs):
    ecs.create_cluster(clusterName="north")
    elsewhere = gantry.client("ecs", environment={"AWS_DEFAULT_REGION": "us-west-2"})
    assert elsewhere.list_clusters()["clusterArns"] == []


def test_the_aws_cli_works_unchanged(gantry):
    gantry.aws("ecs", "create-cluster", "--cluster-name", "cli")
    listed = json.loads(gantry.aws("ecs", "list-clusters").stdout)
    assert listed["clusterArns"][0].endswith(":cluster/cli")
    gantry.aws("ecs", "register-task-definition", "--cli-input-json", json.dumps(WEB))
    described = json.loads(gantry.aws("ecs", "describe-task-definition", "--task-definition", "web-app:1").stdout)
    assert described["taskDefinition"]["taskRoleArn" if "taskRoleArn" in WEB else "family"] == "web-app"
    failed = gantry.aws("ecs", "delete-cluster", "--cluster", "nowhere", check=False)
    assert failed.returncode != 0 and "ClusterNotFoundException" in failed.stderr
    assert json.loads(gantry.aws("sts", "get-caller-identity").stdout)["Account"] == "123456789012"
