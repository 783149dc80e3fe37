"""Bytes that no well-meaning client sends: always an answer, never a 5xx, and the server goes on."""

import socket
import urllib.parse

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
