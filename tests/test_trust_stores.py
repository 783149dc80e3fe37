"""Trust stores and the listeners that verify clients by them. Bundles and revocation lists stand in a small S3 of this
test's own, which the server is told of as operators tell it; certificates are OpenSSL's."""

import gzip
import http.server
import json
import signal
import subprocess
import threading
import urllib.error
import urllib.parse
import urllib.request

import botocore.exceptions
import pytest
from conftest import Gantry, until
from test_balancers import Headers, Lb, address_of, certified, imported, secured

MTLS = "X-Amzn-Mtls-Clientcert-"


class Authority:
    """A certificate authority that issues certificates for clients, and revokes them."""

    CONFIGURATION = """
[ca]
default_ca = here
[here]
dir = {directory}
database = $dir/index.txt
new_certs_dir = $dir
serial = $dir/serial
crlnumber = $dir/crlnumber
default_md = sha256
default_days = 2
default_crl_days = 2
unique_subject = no
policy = any
[any]
commonName = supplied
[req]
distinguished_name = name
prompt = no
[name]
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
[client]
extendedKeyUsage = clientAuth
"""

    def __init__(self, directory, name):
        directory.mkdir()
        self.directory, self.file = directory, directory / "authority.pem"
        (directory / "openssl.cnf").write_text(self.CONFIGURATION.format(directory=directory))
        (directory / "index.txt").touch()
        (directory / "serial").write_text("0A11CE\n")
        (directory / "crlnumber").write_text("01\n")
        self.request("-x509", "-days", "2", "-extensions", "authority", "-subj", f"/CN={name}",
                     "-keyout", directory / "authority.key", "-out", self.file)

    def openssl(self, command, *arguments):
        configured = [command, "-config", self.directory / "openssl.cnf", *arguments]
        subprocess.run(["openssl", *configured], check=True, capture_output=True)

    def request(self, *arguments):
        self.openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", *arguments)

    def ca(self, *arguments):
        self.openssl("ca", "-batch", "-cert", self.file, "-keyfile", self.directory / "authority.key", *arguments)

    def client(self, name, *more):
        """The files of a client's certificate and key."""
        request, files = self.directory / f"{name}.csr", [self.directory / f"{name}.{kind}" for kind in ("pem", "key")]
        self.request("-subj", f"/CN={name}", "-keyout", files[1], "-out", request)
        self.ca("-in", request, "-notext", "-extensions", "client", "-out", files[0], *more)
        return files

    def revoking(self, files):
        listed = self.directory / "revoked.pem"
        self.ca("-revoke", files[0])
        self.ca("-gencrl", "-out", listed)
        return listed.read_bytes()


class Bucket(http.server.BaseHTTPRequestHandler):
    """An S3 with one bucket, whose objects have versions."""

    objects, signed = {}, []

    def do_GET(self):
        self.signed.append(self.headers["Authorization"])
        parts = urllib.parse.urlsplit(self.path)
        version = dict(urllib.parse.parse_qsl(parts.query)).get("versionId")
        found = self.objects.get((urllib.parse.unquote(parts.path).removeprefix("/bucket/"), version))
        body = found or b"<Error><Code>NoSuchKey</Code><Message>The specified key does not exist.</Message></Error>"
        self.send_response(200 if found else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def serving(handler):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


@pytest.fixture
def world(tmp_path):
    """A server with that S3, the objects in it, and what starts a load balancer apart."""
    bucket = type("Bucket", (Bucket,), {"objects": {}, "signed": []})
    s3, started = serving(bucket), []
    server = Gantry(tmp_path / "server", "--s3", f"http://127.0.0.1:{s3.server_port}", "--stores-access-key-id", "AKIAOPERATOR",
                    "--lb-loopback-targets",
                    variables={"GANTRY_STORES_SECRET_ACCESS_KEY": "operators"}, listen="127.0.0.1:4580").start()
    yield server, bucket, lambda: started.append(Lb(server, tmp_path / "lb", "--lb-listen", "off")) or started[-1]
    for lb in started:
        lb.end(signal.SIGKILL)
    server.end(signal.SIGKILL)
    s3.shutdown()
    s3.server_close()


def refused(call, **request):
    with pytest.raises(botocore.exceptions.ClientError) as error:
        call(**request)
    return error.value.response["Error"]["Code"]


def test_clients_are_verified_by_a_trust_store(world, tmp_path):
    server, bucket, start = world
    elb, acm = server.client("elbv2"), server.client("acm")
    ours, other = Authority(tmp_path / "ours", "ours"), Authority(tmp_path / "other", "other")
    known, lost, stranger = ours.client("a client"), ours.client("lost"), other.client("stranger")
    ended = ours.client("ended", "-startdate", "20200101000000Z", "-enddate", "20210101000000Z")
    bucket.objects[("clients/ca bundle.pem", None)] = ours.file.read_bytes()
    site = serving(Headers)
    try:
        created = json.loads(server.aws(
            "elbv2", "create-trust-store", "--name", "clients", "--ca-certificates-bundle-s3-bucket", "bucket",
            "--ca-certificates-bundle-s3-key", "clients/ca bundle.pem").stdout)["TrustStores"][0]
        assert (created["Status"], created["NumberOfCaCertificates"]) == ("ACTIVE", 1)
        assert "Credential=AKIAOPERATOR/" in bucket.signed[-1] and "/s3/" in bucket.signed[-1]
        store = created["TrustStoreArn"]

        made = elb.create_load_balancer(Name="web", Subnets=["subnet-1", "subnet-2"])["LoadBalancers"][0]
        vpc = server.client("ec2").describe_vpcs()["Vpcs"][0]["VpcId"]
        group = elb.create_target_group(Name="web", VpcId=vpc, Protocol="HTTP", Port=80,
                                        TargetType="ip")["TargetGroups"][0]["TargetGroupArn"]
        elb.register_targets(TargetGroupArn=group, Targets=[{"Id": "127.0.0.1", "Port": site.server_port}])
        create = dict(LoadBalancerArn=made["LoadBalancerArn"], Protocol="HTTPS", Port=443,
                      Certificates=[{"CertificateArn": imported(acm, certified(tmp_path, "one.example.com"))}],
                      DefaultActions=[{"Type": "forward", "TargetGroupArn": group}])
        verify = {"Mode": "verify", "TrustStoreArn": store}
        assert refused(elb.create_listener, MutualAuthentication={"Mode": "verify"}, **create) == "ValidationError"
        missing = {**verify, "TrustStoreArn": store[:-16] + "0" * 16}
        assert refused(elb.create_listener, MutualAuthentication=missing, **create) == "TrustStoreNotFound"
        listener = elb.create_listener(MutualAuthentication=verify, **create)["Listeners"][0]
        assert listener["MutualAuthentication"] == {
            **verify, "IgnoreClientCertificateExpiry": False, "TrustStoreAssociationStatus": "active",
            "AdvertiseTrustStoreCaNames": "off"}
        elb.modify_load_balancer_attributes(LoadBalancerArn=made["LoadBalancerArn"], Attributes=[
            {"Key": "connection_logs.s3.enabled", "Value": "true"}, {"Key": "connection_logs.s3.bucket", "Value": "logs"}])
        name = "routing.http.request.x_amzn_mtls_clientcert_issuer.header_name"
        elb.modify_listener_attributes(ListenerArn=listener["ListenerArn"], Attributes=[{"Key": name, "Value": "X-Issuer"}])

        lb, address = start(), address_of(made)
        served = lambda shown: "200 OK" in secured(address, "x", shown)[1]
        until(lambda: served(known))
        text = secured(address, "x", known)[1].partition("\r\n\r\n")[2]
        headers = dict(line.split(": ", 1) for line in text.split("\n") if line)
        assert headers[MTLS + "Serial-Number"] == "0A11CE" and headers[MTLS + "Subject"] == "CN=a client"
        assert headers["X-Issuer"] == "CN=ours" and MTLS + "Issuer" not in headers
        assert headers[MTLS + "Validity"].startswith("NotBefore=20")
        assert urllib.parse.unquote(headers[MTLS + "Leaf"]).split() == known[0].read_text().split()
        assert served(lost)
        assert not any(served(shown) for shown in (None, stranger, ended))

        # One certificate is revoked, and the others are not.
        bucket.objects[("revoked.pem", "v1")] = ours.revoking(lost)
        file = {"S3Bucket": "bucket", "S3Key": "revoked.pem"}
        add = lambda **file: elb.add_trust_store_revocations(TrustStoreArn=store, RevocationContents=[file])
        assert refused(add, **file) == "RevocationContentNotFound"
        (added,) = add(**file, S3ObjectVersion="v1")["TrustStoreRevocations"]
        assert added["NumberOfRevokedEntries"] == 1
        until(lambda: not served(lost))
        assert served(known)
        assert elb.describe_trust_stores(Names=["clients"])["TrustStores"][0]["TotalRevokedEntries"] == 1
        both = [elb.get_trust_store_ca_certificates_bundle(TrustStoreArn=store),
                elb.get_trust_store_revocation_content(TrustStoreArn=store, RevocationId=added["RevocationId"])]
        contents = [urllib.request.urlopen(answer["Location"]).read() for answer in both]
        assert contents == [ours.file.read_bytes(), bucket.objects[("revoked.pem", "v1")]]
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(both[0]["Location"].replace("/ca/", "/1/"))

        # All of it outlives the server's absence and a start of the load balancer.
        kept = lb.directory / "configuration.json"
        until(lambda: kept.exists() and "BEGIN X509 CRL" in kept.read_text())
        server.end(signal.SIGKILL)
        assert lb.end() == 0
        files = list(lb.directory.glob("access-logs/logs/AWSLogs/*/elasticloadbalancing/*/*/*/*/conn_log.*_app.web.*.log.gz"))
        lines = [line for file in files for line in gzip.open(file, "rt")]
        for subject, status in (("CN=a client", "Success"), ("CN=lost", "Failed:ClientCertCrlHit"), ("CN=lost", "Success"),
                                ("CN=stranger", "Failed:ClientCertUntrusted"), ("CN=ended", "Failed:ClientCertExpired"),
                                ("-", "Failed:UnmappedConnectionError")):
            assert any(f'"{subject}" ' in line and f" {status} TID_" in line for line in lines), (subject, status, lines)
        lb.start()
        until(lambda: served(known))
        assert not served(lost) and not served(stranger)

        # Another bundle, and certificates that may have ended.
        server.start()
        elb = server.client("elbv2")
        bucket.objects[("both.pem", None)] = ours.file.read_bytes() + other.file.read_bytes()
        changed = elb.modify_trust_store(TrustStoreArn=store, CaCertificatesBundleS3Bucket="bucket",
                                         CaCertificatesBundleS3Key="both.pem")["TrustStores"][0]
        assert changed["NumberOfCaCertificates"] == 2
        until(lambda: served(stranger))
        elb.modify_listener(ListenerArn=listener["ListenerArn"],
                            MutualAuthentication={**verify, "IgnoreClientCertificateExpiry": True})
        until(lambda: served(ended))
        assert not served(lost) and not served(None)

        (user,) = elb.describe_trust_store_associations(TrustStoreArn=store)["TrustStoreAssociations"]
        assert user["ResourceArn"] == made["LoadBalancerArn"]
        assert refused(elb.delete_shared_trust_store_association, TrustStoreArn=store, **user) == "DeleteAssociationSameAccount"
        assert refused(elb.delete_trust_store, TrustStoreArn=store) == "TrustStoreInUse"
        elb.remove_trust_store_revocations(TrustStoreArn=store, RevocationIds=[added["RevocationId"]])
        until(lambda: served(lost))
        elb.delete_listener(ListenerArn=listener["ListenerArn"])
        elb.delete_trust_store(TrustStoreArn=store)
        assert refused(elb.describe_trust_stores, TrustStoreArns=[store]) == "TrustStoreNotFound"
    finally:
        site.shutdown()
        site.server_close()


def test_what_is_no_bundle_makes_no_trust_store(world):
    server, bucket, _ = world
    elb = server.client("elbv2")
    bucket.objects[("text.pem", None)] = b"no certificate"
    bucket.objects[("large.pem", None)] = b"#" * (2 << 20)
    create = lambda key, name="clients", of="bucket": elb.create_trust_store(
        Name=name, CaCertificatesBundleS3Bucket=of, CaCertificatesBundleS3Key=key)
    assert refused(create, key="none.pem") == "CaCertificatesBundleNotFound"
    assert refused(create, key="text.pem") == "InvalidCaCertificatesBundle"
    assert refused(create, key="large.pem") == "InvalidCaCertificatesBundle"
    assert refused(create, key="text.pem", of="../bucket") == "CaCertificatesBundleNotFound"
    assert refused(create, key="text.pem", name="no_name") == "ValidationError"
    assert elb.describe_trust_stores()["TrustStores"] == []


def test_a_server_without_s3_says_so(tmp_path):
    server = Gantry(tmp_path / "server").start()
    try:
        with pytest.raises(botocore.exceptions.ClientError, match="CaCertificatesBundleNotFound.*start it with --s3"):
            server.client("elbv2").create_trust_store(
                Name="clients", CaCertificatesBundleS3Bucket="bucket", CaCertificatesBundleS3Key="ca.pem")
    finally:
        server.end(signal.SIGKILL)
