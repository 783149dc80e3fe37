"""Where load balancers are found: their own addresses, the operator's pool, host names at a shared address."""

import http.client
import ipaddress

import botocore.exceptions
import pytest
from conftest import Platform, needs_root, until


@pytest.fixture(scope="module")
def platform(tmp_path_factory):
    gantry = Platform(tmp_path_factory.mktemp("balancers") / "gantry", "--lb-addresses", "127.77.0.0/29",
                      "--lb-listen", "127.0.0.1:4777").start()
    yield gantry
    gantry.sweep()


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
            until(lambda: page("127.0.0.1", 80, host) == text)
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
