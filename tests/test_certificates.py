"""AWS Certificate Manager: its API by boto3, the AWS CLI and Terraform; listeners that serve what it keeps."""

import json
import shutil
import socket
import ssl

import pytest
from conftest import ROOT, needs_root, until
from test_load_balancing import address_of, balancer, refused
from test_terraform import PROVIDER, Terraform

DATA = ROOT / "crates/control/src/services/acm/testdata"
WEB, WEB_KEY, LEAF, LEAF_KEY, ABOVE = (
    (DATA / name).read_bytes() for name in ("rsa.pem", "rsa.key", "leaf.pem", "leaf.key", "above.pem"))


def issued(acm, arn):
    acm.get_waiter("certificate_validated").wait(CertificateArn=arn, WaiterConfig={"Delay": 1, "MaxAttempts": 60})
    return acm.describe_certificate(CertificateArn=arn)["Certificate"]


def test_the_api_by_boto3(gantry):
    acm = gantry.client("acm")
    web = acm.import_certificate(Certificate=WEB, PrivateKey=WEB_KEY, Tags=[{"Key": "team", "Value": "blue"}])
    arn = web["CertificateArn"]
    shown = acm.describe_certificate(CertificateArn=arn)["Certificate"]
    assert (shown["Type"], shown["Status"], shown["KeyAlgorithm"]) == ("IMPORTED", "ISSUED", "RSA_2048")
    assert shown["SubjectAlternativeNames"] == ["web.example.com", "*.web.example.com"]
    message = refused("ValidationException", acm.import_certificate, Certificate=WEB, PrivateKey=LEAF_KEY)
    assert message == "The private key does not match the certificate."
    asked = acm.request_certificate(DomainName="shop.example.com", SubjectAlternativeNames=["*.shop.example.com"],
                                    ValidationMethod="DNS", KeyAlgorithm="EC_prime256v1")["CertificateArn"]
    made = issued(acm, asked)
    assert made["DomainValidationOptions"][0]["ResourceRecord"]["Type"] == "CNAME"
    assert acm.get_certificate(CertificateArn=asked)["Certificate"].startswith("-----BEGIN CERTIFICATE-----")
    listed = acm.list_certificates(Includes={"keyTypes": ["RSA_2048", "EC_prime256v1"]})["CertificateSummaryList"]
    assert {entry["CertificateArn"] for entry in listed} == {arn, asked}
    assert acm.list_tags_for_certificate(CertificateArn=arn)["Tags"] == [{"Key": "team", "Value": "blue"}]

    # All of it outlives the server, and no key is on its disk as it came.
    gantry.end()
    for file in gantry.directory.glob("*.db*"):
        assert WEB_KEY.splitlines()[2] not in file.read_bytes()
    gantry.start()
    acm = gantry.client("acm")
    assert acm.describe_certificate(CertificateArn=arn)["Certificate"] == shown
    acm.delete_certificate(CertificateArn=asked)
    refused("ResourceNotFoundException", acm.describe_certificate, CertificateArn=asked)


def test_the_api_by_the_cli(gantry):
    arn = json.loads(gantry.aws("acm", "import-certificate", "--certificate", f"fileb://{DATA}/leaf.pem", "--private-key",
                                f"fileb://{DATA}/leaf.key", "--certificate-chain", f"fileb://{DATA}/above.pem").stdout)
    arn = arn["CertificateArn"]
    chain = gantry.aws("acm", "get-certificate", "--certificate-arn", arn, "--query", "CertificateChain", "--output", "text")
    assert chain.stdout.strip() == ABOVE.decode().strip()
    failed = gantry.aws("acm", "delete-certificate", "--certificate-arn", arn.replace(arn[-4:], "0000"), check=False)
    assert "(ResourceNotFoundException)" in failed.stderr


def served(at, name, trusted=None):
    """What a listener answers who asks for a name: its certificate as PEM, if `trusted` vouches for it, and the page."""
    context = ssl.create_default_context() if trusted else ssl._create_unverified_context()
    if trusted:
        context.load_verify_locations(cadata=trusted.decode())
    with socket.create_connection(at, timeout=10) as plain, context.wrap_socket(plain, server_hostname=name) as secure:
        certificate = ssl.DER_cert_to_PEM_cert(secure.getpeercert(binary_form=True))
        secure.sendall(f"GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: secure.recv(65536), b""))
    return certificate, answer.decode()


@needs_root
def test_listeners_serve_certificates_by_name(platform):
    acm, elb = platform.client("acm"), platform.client("elbv2")
    web = acm.import_certificate(Certificate=WEB, PrivateKey=WEB_KEY)["CertificateArn"]
    leaf = acm.import_certificate(Certificate=LEAF, PrivateKey=LEAF_KEY, CertificateChain=ABOVE)["CertificateArn"]
    made = balancer(elb)
    speaks = [{"Type": "fixed-response", "FixedResponseConfig": {"StatusCode": "200", "MessageBody": "in secret"}}]
    create = dict(LoadBalancerArn=made["LoadBalancerArn"], Protocol="HTTPS", Port=443, DefaultActions=speaks)
    refused("CertificateNotFound", elb.create_listener, Certificates=[{"CertificateArn": web[:-4] + "0000"}], **create)
    refused("SSLPolicyNotFound", elb.create_listener, Certificates=[{"CertificateArn": web}], SslPolicy="none", **create)
    listener = elb.create_listener(Certificates=[{"CertificateArn": web}],
                                   SslPolicy="ELBSecurityPolicy-TLS13-1-2-2021-06", **create)["Listeners"][0]["ListenerArn"]
    elb.add_listener_certificates(ListenerArn=listener, Certificates=[{"CertificateArn": leaf}])
    shown = elb.describe_listener_certificates(ListenerArn=listener)["Certificates"]
    assert shown == [{"CertificateArn": web, "IsDefault": True}, {"CertificateArn": leaf, "IsDefault": False}]
    assert acm.describe_certificate(CertificateArn=leaf)["Certificate"]["InUseBy"] == [made["LoadBalancerArn"]]
    at = (address_of(made), 443)
    until(lambda: _answers(at))

    # Each by its name, trusted as it should be; whoever asks for another name gets the default one.
    for name, trusted, certificate in (("web.example.com", WEB, WEB), ("a.web.example.com", WEB, WEB),
                                       ("leaf.example.com", ABOVE, LEAF)):
        found, answer = served(at, name, trusted)
        assert found.split() == certificate.decode().split() and answer.endswith("in secret"), name
    assert served(at, "other.example.com")[0].split() == WEB.decode().split()
    refused("ResourceInUseException", acm.delete_certificate, CertificateArn=leaf)

    # One that is asked for is served as soon as it is issued; another takes a certificate's place at once.
    asked = acm.request_certificate(DomainName="shop.example.com", ValidationMethod="DNS")["CertificateArn"]
    issued(acm, asked)
    elb.modify_listener(ListenerArn=listener, Certificates=[{"CertificateArn": asked}])
    body = acm.get_certificate(CertificateArn=asked)["Certificate"].encode()
    until(lambda: served(at, "shop.example.com")[0].split() == body.decode().split())
    served(at, "shop.example.com", body)
    acm.delete_certificate(CertificateArn=web)

    # After a restart of everything the keys are still there.
    platform.end()
    platform.start()
    until(lambda: _answers(at))
    assert served(at, "leaf.example.com")[0].split() == LEAF.decode().split()
    elb = platform.client("elbv2")
    elb.remove_listener_certificates(ListenerArn=listener, Certificates=[{"CertificateArn": leaf}])
    until(lambda: served(at, "leaf.example.com")[0].split() == body.decode().split())
    platform.client("acm").delete_certificate(CertificateArn=leaf)
    elb.delete_load_balancer(LoadBalancerArn=made["LoadBalancerArn"])


def _answers(at):
    try:
        return served(at, "web.example.com")
    except OSError:
        return None


CERTIFICATES = """
data "aws_subnets" "default" {}

resource "aws_acm_certificate" "web" {
  certificate_body = file("DATA/rsa.pem")
  private_key      = file("DATA/rsa.key")
  tags             = { team = "blue" }
}

resource "aws_acm_certificate" "leaf" {
  certificate_body  = file("DATA/leaf.pem")
  private_key       = file("DATA/leaf.key")
  certificate_chain = file("DATA/above.pem")
}

resource "aws_acm_certificate" "shop" {
  domain_name               = "shop.example.com"
  subject_alternative_names = ["*.shop.example.com"]
  validation_method         = "DNS"
  key_algorithm             = "EC_prime256v1"
  lifecycle { create_before_destroy = true }
}

resource "aws_acm_certificate_validation" "shop" {
  certificate_arn = aws_acm_certificate.shop.arn
}

resource "aws_lb" "web" {
  name    = "web"
  subnets = slice(sort(data.aws_subnets.default.ids), 0, 2)
}

resource "aws_lb_listener" "https" {
  load_balancer_arn = aws_lb.web.arn
  port              = 443
  protocol          = "HTTPS"
  ssl_policy        = "ELBSecurityPolicy-TLS13-1-2-2021-06"
  certificate_arn   = aws_acm_certificate_validation.shop.certificate_arn
  default_action {
    type = "fixed-response"
    fixed_response {
      content_type = "text/plain"
      status_code  = "404"
    }
  }
}

resource "aws_lb_listener_certificate" "more" {
  for_each        = { web = aws_acm_certificate.web.arn, leaf = aws_acm_certificate.leaf.arn }
  listener_arn    = aws_lb_listener.https.arn
  certificate_arn = each.value
}
"""


@pytest.mark.skipif(shutil.which("terraform") is None, reason="terraform is not installed")
def test_terraform_makes_certificates_and_listeners(gantry, tmp_path):
    provider = PROVIDER.replace("ecs = var.url", "ecs = var.url\n    acm = var.url\n    elbv2 = var.url")
    with Terraform(gantry, tmp_path, provider + CERTIFICATES.replace("DATA", str(DATA))):
        acm = gantry.client("acm")
        listed = acm.list_certificates(Includes={"keyTypes": ["RSA_2048", "EC_prime256v1"]})["CertificateSummaryList"]
        assert {entry["DomainName"] for entry in listed} == {"web.example.com", "leaf.example.com", "shop.example.com"}
        assert all(entry["InUse"] for entry in listed)
    assert gantry.client("acm").list_certificates()["CertificateSummaryList"] == []
