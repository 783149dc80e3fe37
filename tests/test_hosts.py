"""A server and agents on hosts of their own: network namespaces that are wired together."""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess

import pytest
from conftest import binary, needs_root, until
from test_networks import serving
from test_tasks import on_ec2

pytestmark = needs_root


def run(*command, check=True):
    return subprocess.run(command, check=check, capture_output=True, text=True, timeout=30)


def inside(host):
    """In the network of a host, and nothing else of it: `ip netns exec` would hide the control groups too."""
    return ["nsenter", f"--net=/run/netns/{host}", "--"]


class Hosts:
    """Namespaces named after this process, on one bridge in a namespace of its own."""

    def __init__(self, names):
        self.mark = f"gt{os.getpid() % 100000}"
        self.names = {name: f"{self.mark}-{name}" for name in names}
        self.address = {name: f"10.99.7.{index + 1}" for index, name in enumerate(names)}

    def __enter__(self):
        self.switch = f"{self.mark}-switch"
        run("ip", "netns", "add", self.switch)
        run("ip", "-n", self.switch, "link", "add", "br0", "type", "bridge")
        run("ip", "-n", self.switch, "link", "set", "br0", "up")
        for index, (name, host) in enumerate(self.names.items()):
            run("ip", "netns", "add", host)
            run("ip", "-n", host, "link", "set", "lo", "up")
            run("ip", "-n", host, "link", "add", "uplink", "type", "veth", "peer", "name", f"p{index}", "netns", self.switch)
            run("ip", "-n", self.switch, "link", "set", f"p{index}", "master", "br0", "up")
            run("ip", "-n", host, "address", "add", f"{self.address[name]}/24", "dev", "uplink")
            run("ip", "-n", host, "link", "set", "uplink", "up")
        return self

    def __exit__(self, *_):
        for host in [*self.names.values(), self.switch]:
            pids = run("ip", "netns", "pids", host, check=False).stdout.split()
            for pid in pids:
                try:
                    os.kill(int(pid), signal.SIGKILL)
                except ProcessLookupError:
                    pass
            run("ip", "netns", "delete", host, check=False)

    def start(self, name, *command, environment=None, log):
        with open(log, "ab") as output:
            return subprocess.Popen([*inside(self.names[name]), *map(str, command)], stdout=output,
                                    stderr=output, env=environment)



@pytest.mark.skipif(not any(pathlib.Path(d, "ip").exists() for d in os.environ["PATH"].split(":")),
                    reason="iproute2 is not installed")
def test_agents_on_other_hosts_join_and_run_tasks(tmp_path):
    log = tmp_path / "hosts.log"
    with Hosts(["server", "one", "two"]) as hosts:
        data = tmp_path / "server"
        address = f"{hosts.address['server']}:4580"
        # An agent that is started again finds its tasks, as long as it takes.
        hosts.start("server", binary(), "server", "--data-dir", data, "--listen", address, "--agent-lease", "60s", log=log)
        until((data / "endpoint").exists)
        lines = run(binary(), "env", "--agent", "--data-dir", str(data)).stdout
        exported = dict(re.findall(r"^export (\w+)=(\S+)$", lines, re.M))
        environment = {**os.environ, **exported, "GANTRY_LOG": "info"}
        agents = {}
        try:
            for number, name in enumerate(["one", "two"]):
                directory = tmp_path / name
                run(binary(), "image", "samples", "--data-dir", str(directory))
                agents[name] = hosts.start(
                    name, binary(), "agent", "--data-dir", directory, "--name", f"t{name}",
                    "--address-block", f"10.98.{number * 64}.0/18", "--attribute", f"host={name}",
                    environment=environment, log=log)
            root = dict(re.findall(r"^export (\w+)=(\S+)$", run(binary(), "env", "--data-dir", str(data)).stdout, re.M))

            def aws(*arguments, service="ecs"):
                python = pathlib.Path(os.sys.executable)
                done = subprocess.run(
                    [*inside(hosts.names["server"]), str(python), str(python.parent / "aws"), service, *arguments],
                    env={**os.environ, **root, "AWS_PAGER": "", "AWS_EC2_METADATA_DISABLED": "true"},
                    capture_output=True, text=True, timeout=60)
                assert done.returncode == 0, done.stderr + log.read_text()
                return json.loads(done.stdout or "null")

            def connected():
                arns = aws("list-container-instances", "--filter", "agentConnected == true")["containerInstanceArns"]
                return len(arns) == 2

            until(lambda: (tmp_path / "two").exists() and b"registered" in log.read_bytes())
            until(connected)
            definition = tmp_path / "web.json"
            definition.write_text(json.dumps(on_ec2("bridge", portMappings=[{"containerPort": 80, "hostPort": 8080}])))
            aws("register-task-definition", "--cli-input-json", definition.as_uri())
            # The same port twice: one on each host, and no third.
            ran = aws("run-task", "--task-definition", "web-bridge", "--count", "3")
            assert len(ran["tasks"]) == 2 and [f["reason"] for f in ran["failures"]] == ["RESOURCE:PORTS"]
            arns = [task["taskArn"] for task in ran["tasks"]]
            until(lambda: {t["lastStatus"] for t in aws("describe-tasks", "--tasks", *arns)["tasks"]} == {"RUNNING"})
            for name in "one", "two":
                url = f"http://{hosts.address[name]}:8080/"
                page = run(*inside(hosts.names["server"]), os.sys.executable, "-c",
                           f"import urllib.request; print(urllib.request.urlopen('{url}', timeout=5).read().decode())")
                assert "Hello from Gantry" in page.stdout

            # Tasks with interfaces of their own reach each other from host to host, as their security groups allow.
            def ec2(*arguments):
                return aws(*arguments, service="ec2")

            definition.write_text(json.dumps(on_ec2("awsvpc")))
            aws("register-task-definition", "--cli-input-json", definition.as_uri())
            vpc = ec2("create-vpc", "--cidr-block", "10.97.0.0/24", "--amazon-provided-ipv6-cidr-block")["Vpc"]
            block = vpc["Ipv6CidrBlockAssociationSet"][0]["Ipv6CidrBlock"].replace("/56", "/64")
            subnet = ec2("create-subnet", "--vpc-id", vpc["VpcId"], "--cidr-block", "10.97.0.0/24",
                         "--ipv6-cidr-block", block)["Subnet"]["SubnetId"]
            web = ec2("create-security-group", "--group-name", "web", "--description", "web",
                      "--vpc-id", vpc["VpcId"])["GroupId"]
            placed = {}
            for name, groups in ("one", f"[{web}]"), ("two", "[]"):
                ran = aws("run-task", "--task-definition", "web-awsvpc", "--placement-constraints",
                          f"type=memberOf,expression=attribute:host=={name}", "--network-configuration",
                          f"awsvpcConfiguration={{subnets=[{subnet}],securityGroups={groups}}}")
                assert ran["failures"] == []
                placed[name] = ran["tasks"][0]["taskArn"]
                arns.append(placed[name])
            until(lambda: {t["lastStatus"] for t in aws("describe-tasks", "--tasks", *arns)["tasks"]} == {"RUNNING"})
            shown = aws("describe-tasks", "--tasks", placed["one"])["tasks"][0]
            interface = shown["containers"][0]["networkInterfaces"][0]
            target, second = interface["privateIpv4Address"], interface["ipv6Address"]

            def within(name):
                return inside(f"gantry-t{name}-{placed[name].rsplit('/', 1)[1]}")

            def reaches(target):
                code = f"import socket; socket.create_connection(('{target}', 81), timeout=0.5)"
                return run(*within("two"), os.sys.executable, "-c", code, check=False).returncode == 0

            def reached(targets):
                with serving(within("one"), 81):
                    return all(reaches(target) for target in targets)

            assert not reached([target]) and not reached([second])
            default = ec2("describe-security-groups", "--filters", "Name=group-name,Values=default",
                          f"Name=vpc-id,Values={vpc['VpcId']}")
            ec2("authorize-security-group-ingress", "--group-id", web, "--protocol", "tcp", "--port", "81",
                "--source-group", default["SecurityGroups"][0]["GroupId"])
            until(lambda: reached([target, second]))
            # Nobody but the hosts brings packets to tasks.
            if shutil.which("nft"):
                known = run(*inside(hosts.names["one"]), "nft", "list", "set", "inet", "gantry-tone", "hosts4").stdout
                assert hosts.address["two"] in known and hosts.address["server"] not in known

            # A host that goes away is seen to be gone, and its tasks are found again when it comes back.
            agents["one"].kill()
            agents["one"].wait()
            until(lambda: not connected())
            directory = tmp_path / "one"
            agents["one"] = hosts.start("one", binary(), "agent", "--data-dir", directory, "--name", "tone",
                                        "--address-block", "10.98.0.0/18", environment=environment, log=log)
            until(connected)
            assert {t["lastStatus"] for t in aws("describe-tasks", "--tasks", *arns)["tasks"]} == {"RUNNING"}
            for arn in arns:
                aws("stop-task", "--task", arn)
            until(lambda: {t["lastStatus"] for t in aws("describe-tasks", "--tasks", *arns)["tasks"]} == {"STOPPED"})
        finally:
            for name, agent in agents.items():
                agent.kill()
                agent.wait()
                run(*inside(hosts.names[name]), binary(), "sweep", "--data-dir", str(tmp_path / name),
                    "--agent", f"t{name}")
