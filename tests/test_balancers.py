"""Where load balancers are found, and those that run apart from the control plane."""

import gzip
import http.client
import http.server
import ipaddress
import json
import os
import pathlib
import signal
import socket
import ssl
import subprocess
import threading
import urllib.parse

import botocore.exceptions
import pytest
from conftest import PATIENCE_SECONDS, Gantry, Platform, binary, needs_root, until


@pytest.fixture(scope="module")
def platform(tmp_path_factory):
    gantry = Platform(tmp_path_factory.mktemp("balancers") / "gantry", "--lb-addresses", "127.77.0.0/29",
                      "--lb-listen", "127.0.0.1:4777").start()
    yield gantry
    gantry.sweep()


def ipv6():
    """Whether this machine has an IPv6 address of its own."""
    addresses = pathlib.Path("/proc/net/if_inet6")
    return addresses.exists() and "00000000000000000000000000000001" in addresses.read_text()


def answering(elb, name, text, port=80, protocol="HTTP"):
    """A load balancer that answers with a text of its own."""
    made = elb.create_load_balancer(Name=name, Subnets=["subnet-1", "subnet-2"])["LoadBalancers"][0]
    action = {"Type": "fixed-response", "FixedResponseConfig": {"StatusCode": "200", "MessageBody": text}}
    elb.create_listener(LoadBalancerArn=made["LoadBalancerArn"], Protocol=protocol, Port=port, DefaultActions=[action])
    return made


def page(address, port, host):
    """What is answered to a request for a host; None where nothing listens yet."""
    connection = http.client.HTTPConnection(address, port, timeout=10)
    try:
        connection.request("GET", "/", headers={"Host": host})
        return connection.getresponse().read().decode()
    except OSError:
        return None
    finally:
        connection.close()


@needs_root
def test_load_balancers_are_found_by_address_and_by_name(platform):
    elb = platform.client("elbv2")
    one, two = answering(elb, "one", "first"), answering(elb, "two", "second")
    pool = ipaddress.ip_network("127.77.0.0/29")
    for made, text in (one, "first"), (two, "second"):
        name = made["DNSName"]
        assert name.startswith(made["LoadBalancerName"] + "-") and name.endswith(".elb.localhost")
        # The name alone says which is meant, at the shared port and at the listener's.
        for host in name, f"{made['LoadBalancerName']}.elb.localhost":
            until(lambda: page("127.0.0.1", 4777, f"{host}:4777") == text)
            if ipv6():
                until(lambda: page("::1", 80, host) == text)
        for zone in made["AvailabilityZones"]:
            for address in zone["LoadBalancerAddresses"]:
                assert ipaddress.ip_address(address["IpAddress"]) in pool
                until(lambda: page(address["IpAddress"], 80, "any.example") == text)
    assert "404" in page("127.0.0.1", 4777, "three.elb.localhost")

    # Seven addresses of the block can be had, and four are.
    answering(elb, "three", "third")
    with pytest.raises(botocore.exceptions.ClientError) as error:
        answering(elb, "four", "fourth")
    assert error.value.response["Error"]["Code"] == "InvalidSubnet"
    assert "127.77.0.0/29 is taken" in error.value.response["Error"]["Message"]


class Lb:
    """`gantry lb` with a directory of its own."""

    def __init__(self, server, directory, *flags):
        exported = server.gantry("env", "--balancer").stdout
        keys = dict(line.removeprefix("export ").split("=", 1) for line in exported.splitlines() if "export" in line)
        clean = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        self.variables, self.directory = {**clean, **keys}, directory
        self.command = [binary(), "lb", "--data-dir", directory, *flags]
        self.start()

    def start(self):
        with open(self.directory.with_suffix(".log"), "ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log, env=self.variables)

    def end(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        return self.process.wait(timeout=PATIENCE_SECONDS)


@pytest.fixture
def apart(tmp_path):
    """A server at an address that stays its own, and what is started for it."""
    server = Gantry(tmp_path / "server", "--lb-loopback-targets", listen="127.0.0.1:4580").start()
    started = []
    yield server, lambda name, *flags: started.append(Lb(server, tmp_path / name, *flags)) or started[-1]
    for lb in started:
        lb.end(signal.SIGKILL)
    server.end(signal.SIGKILL)


def address_of(balancer):
    return balancer["AvailabilityZones"][0]["LoadBalancerAddresses"][0]["IpAddress"]


def test_a_load_balancer_apart_serves_without_the_control_plane(apart):
    server, start = apart
    elb = server.client("elbv2")
    address = address_of(answering(elb, "web", "from afar"))
    assert page(address, 80, "any") is None, "the server alone carries no traffic"
    lb = start("lb", "--lb-listen", "127.0.0.1:4778")
    until(lambda: page(address, 80, "any") == "from afar")
    until(lambda: page("127.0.0.1", 4778, "web.elb.localhost") == "from afar")
    kept = lb.directory / "configuration.json"
    until(lambda: kept.exists() and "from afar" in kept.read_text())
    assert [kept.stat().st_mode & 0o777, lb.directory.stat().st_mode & 0o777] == [0o600, 0o700]

    server.end(signal.SIGKILL)
    assert page(address, 80, "any") == "from afar"
    assert lb.end() == 0
    assert page(address, 80, "any") is None
    lb.start()
    until(lambda: page(address, 80, "any") == "from afar")

    # Back again, the control plane is followed again.
    server.start()
    listener = server.client("elbv2").describe_listeners(
        LoadBalancerArn=server.client("elbv2").describe_load_balancers()["LoadBalancers"][0]["LoadBalancerArn"])
    action = {"Type": "fixed-response", "FixedResponseConfig": {"StatusCode": "200", "MessageBody": "changed"}}
    server.client("elbv2").modify_listener(ListenerArn=listener["Listeners"][0]["ListenerArn"], DefaultActions=[action])
    until(lambda: page(address, 80, "any") == "changed")


def test_a_load_balancers_key_opens_nothing_else(apart):
    server, start = apart
    keys = json.loads((server.directory / "keys.json").read_text())
    balancer = {"AWS_ACCESS_KEY_ID": keys["balancer"]["access_key_id"],
                "AWS_SECRET_ACCESS_KEY": keys["balancer"]["secret_access_key"]}
    for service, operation in ("ecs", "list_clusters"), ("elbv2", "describe_load_balancers"), ("ecs", "discover_poll_endpoint"):
        with pytest.raises(botocore.exceptions.ClientError) as error:
            getattr(server.client(service, environment=balancer), operation)()
        assert "AccessDenied" in error.value.response["Error"]["Code"]
    assert server.client("sts", environment=balancer).get_caller_identity()["Arn"].endswith(":user/gantry-balancer")

    # And the channel opens to no other key than that and the root's.
    lb = start("lb", "--lb-listen", "off")
    lb.end(signal.SIGKILL)
    lb.variables |= {"AWS_ACCESS_KEY_ID": keys["agent"]["access_key_id"],
                     "AWS_SECRET_ACCESS_KEY": keys["agent"]["secret_access_key"]}
    lb.start()
    until(lambda: "not authorized to perform: gantry:CarryTraffic" in lb.directory.with_suffix(".log").read_text())


def test_targets_are_what_several_load_balancers_find(apart, tmp_path):
    server, start = apart
    elb = server.client("elbv2")
    site = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
    threading.Thread(target=site.serve_forever, daemon=True).start()
    try:
        made = elb.create_load_balancer(Name="web", Subnets=["subnet-1", "subnet-2"])["LoadBalancers"][0]
        vpc = server.client("ec2").describe_vpcs()["Vpcs"][0]["VpcId"]
        group = elb.create_target_group(
            Name="web", VpcId=vpc, Protocol="HTTP", Port=80, TargetType="ip", HealthCheckIntervalSeconds=5,
            HealthCheckTimeoutSeconds=4)["TargetGroups"][0]["TargetGroupArn"]
        elb.create_listener(LoadBalancerArn=made["LoadBalancerArn"], Protocol="HTTP", Port=80,
                            DefaultActions=[{"Type": "forward", "TargetGroupArn": group}])
        target = [{"Id": "127.0.0.1", "Port": site.server_address[1]}]
        elb.register_targets(TargetGroupArn=group, Targets=target)
        states = lambda: [entry["TargetHealth"]["State"] for entry in
                          elb.describe_target_health(TargetGroupArn=group)["TargetHealthDescriptions"]]
        assert states() == ["initial"], "nobody has looked yet"
        one = start("one", "--lb-listen", "off")
        until(lambda: states() == ["healthy"])
        start("two", "--lb-listen", "off")
        one.end()
        elb.deregister_targets(TargetGroupArn=group, Targets=target)
        # Nothing is under way: gone long before its five minutes.
        until(lambda: states() == [])
    finally:
        site.shutdown()
        site.server_close()


def certified(directory, name):
    """A certificate that has its name in its subject alone, and its key: their files."""
    files = directory / f"{name}.pem", directory / f"{name}.key"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                    "-days", "2", "-subj", f"/O=Example, Inc./CN={name}", "-out", files[0], "-keyout", files[1]],
                   check=True, capture_output=True)
    return files


def imported(acm, files, **more):
    certificate, key = (file.read_bytes() for file in files)
    return acm.import_certificate(Certificate=certificate, PrivateKey=key, **more)["CertificateArn"]


def secured(address, name, shown=None):
    """The certificate that is served for a name, as PEM, and what is answered; nothing where nobody listens yet.
    `shown`: the files of the client's own certificate and key."""
    context = ssl._create_unverified_context()
    if shown:
        context.load_cert_chain(*shown)
    try:
        with socket.create_connection((address, 443), timeout=10) as plain, \
                context.wrap_socket(plain, server_hostname=name) as stream:
            certificate = ssl.DER_cert_to_PEM_cert(stream.getpeercert(binary_form=True))
            stream.sendall(b"GET / HTTP/1.1\r\nHost: any\r\nX-Amzn-Mtls-Clientcert: forged\r\nConnection: close\r\n\r\n")
            return certificate.split(), b"".join(iter(lambda: stream.recv(65536), b"")).decode()
    except OSError:
        return [], ""


def test_certificates_reach_a_load_balancer_apart(apart, tmp_path):
    server, start = apart
    elb, acm = server.client("elbv2"), server.client("acm")
    one, two, again = (certified(tmp_path, name) for name in ("one.example.com", "two.example.com", "again.example.com"))
    words = lambda files: files[0].read_text().split()
    arns = [imported(acm, files) for files in (one, two)]
    made = elb.create_load_balancer(Name="web", Subnets=["subnet-1", "subnet-2"])["LoadBalancers"][0]
    action = {"Type": "fixed-response", "FixedResponseConfig": {"StatusCode": "200", "MessageBody": "in secret"}}
    listener = elb.create_listener(
        LoadBalancerArn=made["LoadBalancerArn"], Protocol="HTTPS", Port=443, DefaultActions=[action],
        Certificates=[{"CertificateArn": arns[0]}], SslPolicy="ELBSecurityPolicy-TLS13-1-2-PQ-2025-09")["Listeners"][0]
    elb.add_listener_certificates(ListenerArn=listener["ListenerArn"], Certificates=[{"CertificateArn": arns[1]}])
    lb, address = start("lb", "--lb-listen", "off"), address_of(made)
    until(lambda: secured(address, "two.example.com")[0] == words(two))
    assert secured(address, "other.example.com")[0] == words(one)
    # Another one takes its place at once, and outlives the server's absence.
    imported(acm, again, CertificateArn=arns[1])
    until(lambda: secured(address, "again.example.com")[0] == words(again))
    assert secured(address, "two.example.com")[0] == words(one)
    kept = lb.directory / "configuration.json"
    until(lambda: kept.exists() and again[0].read_text().splitlines()[1] in kept.read_text())
    server.end(signal.SIGKILL)
    lb.end()
    lb.start()
    until(lambda: secured(address, "again.example.com")[0] == words(again))


class Headers(http.server.BaseHTTPRequestHandler):
    """Answers with the headers that it gets."""

    def do_GET(self):
        text = str(self.headers).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


def test_certificates_of_clients_are_passed_through(apart, tmp_path):
    server, start = apart
    elb, acm = server.client("elbv2"), server.client("acm")
    own, client = certified(tmp_path, "one.example.com"), certified(tmp_path, "a client")
    site = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Headers)
    threading.Thread(target=site.serve_forever, daemon=True).start()
    try:
        made = elb.create_load_balancer(Name="web", Subnets=["subnet-1", "subnet-2"])["LoadBalancers"][0]
        vpc = server.client("ec2").describe_vpcs()["Vpcs"][0]["VpcId"]
        group = elb.create_target_group(Name="web", VpcId=vpc, Protocol="HTTP", Port=80,
                                        TargetType="ip")["TargetGroups"][0]["TargetGroupArn"]
        elb.register_targets(TargetGroupArn=group, Targets=[{"Id": "127.0.0.1", "Port": site.server_address[1]}])
        create = dict(LoadBalancerArn=made["LoadBalancerArn"], Protocol="HTTPS", Port=443,
                      Certificates=[{"CertificateArn": imported(acm, own)}],
                      DefaultActions=[{"Type": "forward", "TargetGroupArn": group}])
        listener = elb.create_listener(MutualAuthentication={"Mode": "passthrough"}, **create)["Listeners"][0]
        assert listener["MutualAuthentication"]["Mode"] == "passthrough"
        elb.modify_load_balancer_attributes(LoadBalancerArn=made["LoadBalancerArn"], Attributes=[
            {"Key": "connection_logs.s3.enabled", "Value": "true"}, {"Key": "connection_logs.s3.bucket", "Value": "logs"}])
        name = "routing.http.request.x_amzn_mtls_clientcert.header_name"
        elb.modify_listener_attributes(ListenerArn=listener["ListenerArn"], Attributes=[{"Key": name, "Value": "X-Client"}])
        lb, address = start("lb", "--lb-listen", "off"), address_of(made)
        until(lambda: "200 OK" in secured(address, "x", client)[1])
        header = lambda text: dict(line.split(": ", 1) for line in text.partition("\r\n\r\n")[2].split("\n") if line)
        passed = header(secured(address, "x", client)[1])
        assert urllib.parse.unquote(passed["X-Client"]).split() == client[0].read_text().split()
        assert passed["X-Amzn-Mtls-Clientcert"] == "forged", "that name means nothing here"
        assert "X-Client" not in header(secured(address, "x")[1]), "who shows nothing is served without"

        elb.modify_listener(ListenerArn=listener["ListenerArn"], MutualAuthentication={"Mode": "off"})
        until(lambda: (got := header(secured(address, "x", client)[1])) and "X-Client" not in got)
        # Logs are complete when their five minutes are over, and when the load balancer ends.
        assert lb.end() == 0
        files = list(lb.directory.glob("access-logs/logs/AWSLogs/*/elasticloadbalancing/*/*/*/*/conn_log.*_app.web.*.log.gz"))
        lines = [line for file in files for line in gzip.open(file, "rt")]
        shown = [line for line in lines if "\"CN=a client,O=Example\\x5c, Inc.\" NotBefore=20" in line]
        assert shown and all(" 443 TLSv1.2 ECDHE-ECDSA-" in line and " Success TID_" in line for line in shown), lines
        assert any(" \"-\" - - Success TID_" in line for line in lines), lines
    finally:
        site.shutdown()
        site.server_close()


def test_targets_have_ipv6_addresses(apart):
    if not ipv6():
        pytest.skip("this machine has no IPv6")
    server, start = apart
    elb = server.client("elbv2")

    class Six(http.server.ThreadingHTTPServer):
        address_family = socket.AF_INET6

    site = Six(("::1", 0), Headers)
    threading.Thread(target=site.serve_forever, daemon=True).start()
    try:
        made = elb.create_load_balancer(Name="web", Subnets=["subnet-1", "subnet-2"])["LoadBalancers"][0]
        vpc = server.client("ec2").describe_vpcs()["Vpcs"][0]["VpcId"]
        group = elb.create_target_group(Name="six", VpcId=vpc, Protocol="HTTP", Port=80, TargetType="ip", IpAddressType="ipv6",
                                        HealthCheckIntervalSeconds=5, HealthCheckTimeoutSeconds=4)["TargetGroups"][0]
        assert group["IpAddressType"] == "ipv6"
        arn = group["TargetGroupArn"]
        elb.create_listener(LoadBalancerArn=made["LoadBalancerArn"], Protocol="HTTP", Port=80,
                            DefaultActions=[{"Type": "forward", "TargetGroupArn": arn}])
        elb.register_targets(TargetGroupArn=arn, Targets=[{"Id": "::1", "Port": site.server_address[1]}])
        start("lb", "--lb-listen", "off")
        until(lambda: "X-Forwarded-For: 127.0.0.1" in (page(address_of(made), 80, "any") or ""))
        (target,) = elb.describe_target_health(TargetGroupArn=arn)["TargetHealthDescriptions"]
        until(lambda: elb.describe_target_health(TargetGroupArn=arn)["TargetHealthDescriptions"][0]["TargetHealth"]["State"]
              == "healthy")
        assert target["Target"]["Id"] == "::1"
    finally:
        site.shutdown()
        site.server_close()
