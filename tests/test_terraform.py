"""Terraform with its AWS provider: apply, an empty second plan, a clean destroy. Where it is installed."""

import json
import os
import pathlib
import shutil
import subprocess

import pytest
from conftest import needs_root, wait


def mirror():
    """Where a machine without the public registry may keep providers: a folder with HOST/hashicorp/aws in it."""
    named = os.environ.get("TERRAFORM_PLUGINS")
    likely = [pathlib.Path(named)] if named else []
    likely += [*pathlib.Path("/opt").glob("*"), pathlib.Path("/usr/local/share/terraform/plugins")]
    return next((folder for folder in likely if any(folder.glob("*/hashicorp/aws"))), None)


PROVIDER = """
terraform {
  required_providers {
    aws = { source = "hashicorp/aws" }
  }
}

variable "url" {}

provider "aws" {
  region                      = "us-east-1"
  skip_credentials_validation = true
  skip_metadata_api_check     = true
  skip_region_validation      = true
  endpoints {
    ec2 = var.url
    ecs = var.url
    sts = var.url
  }
}
"""

MAIN = PROVIDER + """
resource "aws_ecs_cluster" "this" {
  name = "tf"
  setting {
    name  = "containerInsights"
    value = "enabled"
  }
  tags = { team = "blue" }
}

resource "aws_ecs_cluster_capacity_providers" "this" {
  cluster_name       = aws_ecs_cluster.this.name
  capacity_providers = ["FARGATE", "FARGATE_SPOT"]
  default_capacity_provider_strategy {
    capacity_provider = "FARGATE"
    weight            = 1
    base              = 1
  }
}

resource "aws_ecs_task_definition" "web" {
  family                   = "web"
  network_mode             = "awsvpc"
  requires_compatibilities = ["FARGATE"]
  cpu                      = 256
  memory                   = 512
  container_definitions = jsonencode([{
    name         = "web"
    image        = "nginx:latest"
    essential    = true
    portMappings = [{ containerPort = 80 }]
    environment  = [{ name = "MODE", value = "blue" }]
  }])
  tags = { team = "blue" }
}
"""


SERVICE = """
resource "aws_ecs_service" "web" {
  name            = "web"
  cluster         = aws_ecs_cluster.this.id
  task_definition = aws_ecs_task_definition.web.arn
  desired_count   = 2
  launch_type     = "FARGATE"
  network_configuration {
    subnets         = ["subnet-1"]
    security_groups = ["sg-1"]
  }
  deployment_circuit_breaker {
    enable   = true
    rollback = true
  }
  tags = { team = "blue" }
}
"""


@pytest.mark.skipif(shutil.which("terraform") is None, reason="terraform is not installed")
def test_terraform_applies_and_destroys(gantry, tmp_path):
    run(gantry, tmp_path, MAIN)


@needs_root
@pytest.mark.skipif(shutil.which("terraform") is None, reason="terraform is not installed")
def test_terraform_runs_a_fargate_service(platform, tmp_path):
    def runs(ecs):
        wait(ecs, "services_stable", cluster="tf", services=["web"])
        service = ecs.describe_services(cluster="tf", services=["web"])["services"][0]
        assert (service["runningCount"], service["launchType"]) == (2, "FARGATE")

    run(platform, tmp_path, MAIN + SERVICE, runs)


class Terraform:
    """A configuration that is applied, found unchanged by a second plan, and destroyed again. Skips the test where the
    provider cannot be had."""

    def __init__(self, gantry, tmp_path, configuration):
        self.directory = tmp_path / "terraform"
        self.directory.mkdir()
        (self.directory / "main.tf").write_text(configuration)
        # The provider's schemas are hundreds of megabytes: collected less often, a command takes half the time.
        self.environment = {**gantry.environment, "TF_CLI_CONFIG_FILE": os.devnull, "TF_VAR_url": gantry.url,
                            "TF_IN_AUTOMATION": "1", "CHECKPOINT_DISABLE": "1", "GOGC": "400"}

    def run(self, *arguments, wanted=(0,)):
        done = subprocess.run(["terraform", *arguments], cwd=self.directory, env=self.environment, capture_output=True,
                              text=True, timeout=240)
        assert done.returncode in wanted, done.stdout + done.stderr
        return done

    def __enter__(self):
        folder = mirror()
        found = self.run("init", "-input=false", *([f"-plugin-dir={folder}"] if folder else []), wanted=(0, 1))
        if found.returncode:
            pytest.skip("the AWS provider cannot be had here")
        self.run("apply", "-auto-approve", "-input=false")
        return self

    def __exit__(self, error, *_):
        if error is None:
            # Exit code 2 would mean that the provider sees something else than it wrote.
            self.run("plan", "-detailed-exitcode", "-input=false")
            self.run("destroy", "-auto-approve", "-input=false")
            assert json.loads((self.directory / "terraform.tfstate").read_text())["resources"] == []


def run(gantry, tmp_path, configuration, meanwhile=lambda ecs: None):
    with Terraform(gantry, tmp_path, configuration):
        ecs = gantry.client("ecs")
        assert ecs.describe_clusters(clusters=["tf"])["clusters"][0]["status"] == "ACTIVE"
        meanwhile(ecs)
    assert ecs.describe_clusters(clusters=["tf"])["clusters"][0]["status"] == "INACTIVE"
    assert ecs.list_task_definitions()["taskDefinitionArns"] == []
