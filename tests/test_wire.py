"""Bytes that no well-meaning client sends: always an answer, never a 5xx, and the server goes on."""

import hashlib
import io
import json
import socket
import urllib.error
import urllib.parse
import urllib.request

import botocore.auth
import botocore.awsrequest
import botocore.credentials
import botocore.exceptions
import botocore.httpchecksum
import pytest


def exchange(gantry, payload, hang_up=False):
    """What the server answers until it closes the connection."""
    address = urllib.parse.urlsplit(gantry.url)
    with socket.create_connection((address.hostname, address.port), timeout=10) as connection:
        answer = b""
        try:
            connection.sendall(payload)
            if hang_up:
                connection.shutdown(socket.SHUT_WR)
            while chunk := connection.recv(65536):
                answer += chunk
        except (ConnectionResetError, BrokenPipeError):
            pass
        return answer


TARGET = b"Connection: close\r\nX-Amz-Target: AmazonEC2ContainerServiceV20141113.ListClusters\r\n"


@pytest.mark.parametrize("payload, status, code", [
    (b"POST / HTTP/1.1\r\nHost: localhost\r\n" + TARGET + b"Content-Length: 2\r\n\r\n{}", b"400",
     b"MissingAuthenticationTokenException"),
    (b"POST / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX-Amz-Target: Nobody.Knows\r\nContent-Length: 0\r\n\r\n", b"400",
     b"UnknownOperationException"),
    (b"POST / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/x-www-form-urlencoded\r\n"
     b"Content-Length: 11\r\n\r\nAction=Nope", b"400", b"<Code>InvalidAction</Code>"),
    (b"POST / HTTP/1.1\r\nHost: localhost\r\n" + TARGET + b"Authorization: AWS4-HMAC-SHA256 x\r\n"
     b"Content-Length: 0\r\n\r\n", b"400", b"IncompleteSignatureException"),
    (b"POST / HTTP/1.1\r\nHost: localhost\r\n" + TARGET + b"Content-Length: 99999999\r\n\r\n", b"413", b"too large"),
    (b"POST / HTTP/1.1\r\nHost: evil.example\r\n" + TARGET + b"Content-Length: 0\r\n\r\n", b"403", b"AccessDenied"),
    (b"POST / HTTP/1.1\r\nHost: localhost\r\nOrigin: https://evil.example\r\n" + TARGET
     + b"Content-Length: 0\r\n\r\n", b"403", b"AccessDenied"),
])
def test_bad_requests_get_typed_answers(gantry, payload, status, code):
    answer = exchange(gantry, payload)
    assert answer.split(b" ", 2)[1] == status, answer
    assert code in answer
    assert gantry.health() == 200


def test_garbage_does_not_hurt(gantry):
    for payload in [b"", b"\x00" * 1000, b"GET", b"\x16\x03\x01\x02\x00\x01\x00", b"POST / HTTP/1.1\r\n" + b"A: b\r\n" * 5000]:
        answer = exchange(gantry, payload, hang_up=True)
        assert not answer or answer.split(b" ", 2)[1].startswith(b"4"), payload[:20]
    assert gantry.health() == 200


def credentials(gantry):
    environment = gantry.environment
    return botocore.credentials.Credentials(
        environment["AWS_ACCESS_KEY_ID"], environment["AWS_SECRET_ACCESS_KEY"]), environment["AWS_DEFAULT_REGION"]


def send(request, data):
    """Status and body of what is answered."""
    headers = {name: value for name, value in request.headers.items()}
    try:
        prepared = urllib.request.Request(request.url, data=data, headers=headers, method="POST")
        with urllib.request.urlopen(prepared, timeout=10) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def list_clusters(gantry, body):
    return botocore.awsrequest.AWSRequest("POST", gantry.url + "/", data=body, headers={
        "X-Amz-Target": "AmazonEC2ContainerServiceV20141113.ListClusters", "Content-Type": "application/x-amz-json-1.1"})


def test_a_body_in_chunks_as_botocore_signs_it(gantry):
    for content, spoilt, status in [(b'{"maxResults": 1}', False, 200), (b'{"maxResults": 1}', True, 400)]:
        request = list_clusters(gantry, None)
        wrapper = botocore.httpchecksum.AwsChunkedWrapper(
            io.BytesIO(content), checksum_cls=botocore.httpchecksum.Crc32Checksum, checksum_name="x-amz-checksum-crc32")
        body = wrapper.read()
        request.headers["Content-Encoding"] = "aws-chunked"
        request.headers["X-Amz-Trailer"] = "x-amz-checksum-crc32"
        request.headers["X-Amz-Decoded-Content-Length"] = str(len(content))
        request.context["checksum"] = {"request_algorithm": {"in": "trailer"}}
        request.headers["X-Amz-Content-SHA256"] = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
        keys, region = credentials(gantry)
        signer = botocore.auth.SigV4Auth(keys, "ecs", region)
        signer.payload = lambda _: "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
        signer.add_auth(request)
        answer = send(request, body.replace(b": 1", b": 2") if spoilt else body)
        assert answer[0] == status, answer
        assert (b"clusterArns" if status == 200 else b"BadDigest") in answer[1]


def test_all_that_the_model_does_not_allow_is_told(ecs):
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        ecs.create_cluster(clusterName="web", tags=[{"key": "a<b", "value": "y" * 257}])
    error = caught.value.response["Error"]
    assert error["Code"] == "InvalidParameterException"
    assert error["Message"].startswith("2 validation errors detected: Value 'a<b' at 'tags.1.member.key' failed to ")
    assert error["Message"].endswith("' at 'tags.1.member.value' failed to satisfy constraint: Member must have length "
                                     "less than or equal to 256")
    assert ecs.list_clusters()["clusterArns"] == []


def test_presigned_requests_are_bound_to_their_body(gantry):
    keys, region = credentials(gantry)
    body = b'{"maxResults":1}'
    # botocore would move a body into the query string; here it stays, and its hash is signed.
    request = list_clusters(gantry, None)
    signer = botocore.auth.SigV4QueryAuth(keys, "ecs", region, expires=60)
    signer.payload = lambda _: hashlib.sha256(body).hexdigest()
    signer.add_auth(request)
    assert send(request, body)[0] == 200
    status, answer = send(request, b"{}")
    assert (status, json.loads(answer)["__type"]) == (400, "InvalidSignatureException")
    request.headers["X-Amz-Content-SHA256"] = "UNSIGNED-PAYLOAD"
    assert send(request, b"{}")[0] == 400
    del request.headers["X-Amz-Content-SHA256"]
    request.headers["X-Amz-Meta"] = "1"
    status, answer = send(request, body)
    assert (status, "'x-amz-meta' must be a 'SignedHeader'" in json.loads(answer)["message"]) == (400, True)


def test_a_presigned_identity_is_answered_as_xml(gantry):
    url = gantry.client("sts").generate_presigned_url("get_caller_identity", ExpiresIn=60, HttpMethod="GET")
    with urllib.request.urlopen(url, timeout=10) as answer:
        assert b"<Arn>arn:aws:iam::" in answer.read()
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(url.replace("X-Amz-Expires=60", "X-Amz-Expires=600"), timeout=10)
    assert refused.value.code == 403
    assert b"<Code>SignatureDoesNotMatch</Code>" in refused.value.read()
