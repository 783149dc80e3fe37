"""Clients that mean harm, at the balancer of the built binary with a container behind it: what two servers could read
differently, what is too large, who is slow, floods of HTTP/2 frames, handshakes that are none. Each gets its answer or its
end in time, others are served meanwhile, and nothing of it is kept."""

import contextlib
import pathlib
import socket
import ssl
import subprocess
import threading
import time
import urllib.request

import pytest
from conftest import PATIENCE_SECONDS, ROOT, Platform, leftovers, needs_root, until, wait
from test_certificates import WEB, WEB_KEY
from test_containers import BUSYBOX, IMAGE, Host, image
from test_load_balancing import WEB_GROUP, address_of, balancer, forward, group, states
from test_tasks import address, describe

pytestmark = [needs_root, pytest.mark.skipif(not BUSYBOX, reason="needs a static busybox (Debian: busybox-static)")]

# A server that keeps connections, believes what it reads, and says which requests it has seen.
SERVER = r"""
cr=$(printf '\r')
line() { IFS= read -r line && line=${line%"$cr"}; }
skip() { busybox dd bs=1 count=$1 of=/dev/null 2>/dev/null; }
while line; do
  request=$line length=0 chunked=
  while line && [ -n "$line" ]; do
    case $line in
      [Cc]ontent-[Ll]ength:*) length=${line#*: } ;;
      [Tt]ransfer-[Ee]ncoding:*) chunked=yes ;;
    esac
  done
  if [ $chunked ]; then
    while line && length=$((0x${line%%;*})) && [ $length -gt 0 ]; do skip $length; line; done
    line
  else
    skip $length
  fi
  echo "$request" >&2
  case $request in
    *" /large "*) printf 'HTTP/1.1 200 OK\r\nContent-Length: 67108864\r\n\r\n'; busybox dd if=/dev/zero bs=64k count=1024 2>/dev/null ;;
    *) printf 'HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n' ;;
  esac
done
"""
LARGE = 64 << 20
# Of connections that wait, and of handshakes (10 s in the balancer).
IDLE_SECONDS = 3
ENDED_SECONDS = 25
# What the process may grow by under any of these floods: far below what they send or ask for.
GROWTH = 32 << 20
REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


class Site:
    """A load balancer with HTTP and HTTPS before one container, and another for clients that mean no harm: there the
    container has as long to answer as a busy machine may need."""

    def __init__(self, platform):
        self.platform = platform
        self.host = Host(platform)
        ecs, elb, acm = (platform.client(name) for name in ("ecs", "elbv2", "acm"))
        self.task = self.host.start(
            {"entryPoint": ["sh", "-c"], "command": ["exec nc -ll -p 80 -e sh -c \"$SERVER\""], "memory": 256,
             "environment": [{"name": "SERVER", "value": SERVER}]}, task={"networkMode": "awsvpc"})
        wait(ecs, "tasks_running", tasks=[self.task])
        target = address(describe(ecs, self.task))
        certificate = acm.import_certificate(Certificate=WEB, PrivateKey=WEB_KEY)["CertificateArn"]

        def serving(name, idle):
            made, targets = balancer(elb, name), group(platform, elb, name, **WEB_GROUP)
            elb.modify_load_balancer_attributes(LoadBalancerArn=made["LoadBalancerArn"], Attributes=[
                {"Key": "idle_timeout.timeout_seconds", "Value": str(idle)}])
            for port, more in (80, {"Protocol": "HTTP"}), (443, {
                    "Protocol": "HTTPS", "Certificates": [{"CertificateArn": certificate}],
                    "SslPolicy": "ELBSecurityPolicy-TLS13-1-2-2021-06"}):
                elb.create_listener(LoadBalancerArn=made["LoadBalancerArn"], Port=port, DefaultActions=forward(targets),
                                    **more)
            elb.register_targets(TargetGroupArn=targets, Targets=[{"Id": target}])
            until(lambda: states(elb, targets) == {target: "healthy"})
            return address_of(made)

        self.address, self.others = serving("web", IDLE_SECONDS), serving("others", ENDED_SECONDS)
        until(lambda: self.secure().close() is None)

    def connect(self, port=80):
        stream = socket.create_connection((self.address, port), timeout=PATIENCE_SECONDS)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return stream

    def secure(self, *protocols, most=None):
        context = ssl._create_unverified_context()
        context.set_alpn_protocols(protocols)
        if most:
            context.maximum_version = most
        return context.wrap_socket(self.connect(443), server_hostname="web.example.com")

    def send(self, text, port=80):
        """What is answered until the balancer closes."""
        with self.connect(port) as stream:
            return sent(stream, text)

    def serves(self):
        for port in "http", "https":
            with urllib.request.urlopen(f"{port}://{self.others}/", timeout=ENDED_SECONDS,
                                        context=ssl._create_unverified_context()) as answer:
                assert answer.read() == b"ok\n"
        return True

    def seen(self):
        """The requests that the container took for some."""
        return self.host.lines(self.task)

    def memory(self):
        """Resident, in bytes."""
        status = pathlib.Path(f"/proc/{self.platform.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) << 10

    def open_files(self):
        return len(list(pathlib.Path(f"/proc/{self.platform.process.pid}/fd").iterdir()))


def sent(stream, text):
    """Sends, and reads until the other side closes, however it does."""
    with contextlib.suppress(OSError):
        stream.sendall(text)
    return rest(stream)


def rest(stream):
    answer = b""
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        while piece := stream.recv(65536):
            answer += piece
    return answer


def status(answer):
    return int(answer.split(b" ")[1]) if answer.startswith(b"HTTP/1.1 ") else None


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    directory = tmp_path_factory.mktemp("hostile")
    platform = Platform(directory / "gantry")
    platform.image("load", image(directory))
    try:
        yield Site(platform.start())
    finally:
        platform.sweep()
    assert leftovers(platform.directory) == []


@pytest.fixture
def site(installed):
    """The site, which serves on whatever a test does to it, meanwhile and afterwards, and keeps nothing of it."""
    installed.serves()
    memory, files, failures, over = installed.memory(), installed.open_files(), [], threading.Event()
    most = memory

    def watch():
        nonlocal most
        while not over.wait(0.1):
            most = max(most, installed.memory())
            try:
                installed.serves()
            except OSError as error:
                failures.append(error)

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield installed
    finally:
        over.set()
        watching.join()
    assert failures == []
    assert most - memory < GROWTH, f"{(most - memory) >> 20} MiB"
    # Connections of all kinds are ended.
    until(lambda: installed.open_files() <= files + 20)
    assert installed.platform.process.poll() is None
    assert "panicked" not in installed.platform.log.read_text()


def corpus():
    lines = (ROOT / "crates/edge/tests/common/smuggling.txt").read_text().splitlines()
    for line in lines:
        if line and not line.startswith("#"):
            expected, method, text = line.split(" ", 2)
            yield int(expected), method, text.encode().decode("unicode_escape").encode()


def test_no_container_sees_a_request_that_nobody_sent(site):
    smuggled = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
    for expected, method, text in corpus():
        answer = site.send(f"{method} /meant HTTP/1.1\r\nHost: a\r\nConnection: close\r\n".encode()
                           + text.replace(b"SMUGGLED", smuggled))
        assert (status(answer), answer.count(b"HTTP/1.1 ")) == (expected, 1), (text, answer)
    # Nothing of it waits on a connection to the container for the next client.
    for _ in range(20):
        site.serves()
    seen = site.seen()
    assert any("/meant" in line for line in seen) and not any("smuggled" in line for line in seen), seen


def test_heads_that_are_none_or_too_large(site):
    head = lambda line, *headers: b"\r\n".join([line, b"Host: a", b"Connection: close", *headers, b"", b""])
    chunked = b"Transfer-Encoding: chunked"
    for expected, request in [
        (200, head(b"GET / HTTP/1.1")),
        (200, head(b"GET /" + b"x" * (15 << 10) + b" HTTP/1.1", b"X: " + b"y" * (15 << 10))),
        (414, head(b"GET /" + b"x" * (16 << 10) + b" HTTP/1.1")),
        (414, b"GET /" + b"x" * (1 << 20)),
        (400, head(b"GET / HTTP/1.1", b"X: " + b"y" * (16 << 10))),
        (400, head(b"GET / HTTP/1.1", *[b"X: " + b"y" * (10 << 10)] * 8)),
        (400, head(b"GET / HTTP/1.1", *[b"X: y"] * 200)),
        (400, head(b"GET / HTTP/1.1", *[b"X: y"] * 20000)),
        (400, head(b"GET http://user@a/ HTTP/1.1")),
        (400, head(b"GET http://user:word@a/ HTTP/1.1")),
        (400, head(b"GET /\0 HTTP/1.1")),
        (400, head(b"GET / HTTP/1.1", b"X: \0")),
        (400, head(b"GET / HTTP/1.1", b"X : y")),
        (400, head(b"GET / HTTP/1.1", b"X: y", b" folded")),
        (400, head(b"POST / HTTP/1.1", chunked) + b"5;" + b"x" * (1 << 20)),
        (400, head(b"POST / HTTP/1.1", chunked) + b"0\r\n" + b"X: y\r\n" * 20000),
        (400, bytes(range(256)) * 100 + b"\r\n\r\n"),
    ]:
        for _ in range(50):
            answer = site.send(request)
            assert status(answer) == expected, (request[:100], answer[:200])


def test_slow_and_half_closed_clients(site):
    parts = [b"", b"G", b"GET / HTTP/1.1\r\nHost: a\r\nX: ", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9999\r\n\r\nx",
             b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nffff\r\nx"]
    # Those who never say the rest, and those who do, a byte at a time: a head has its time as a whole.
    held = [(part, site.connect()) for part in parts * 200]
    for part, stream in held:
        stream.sendall(part)
    drips = [site.connect() for _ in range(20)]
    begun = time.monotonic()
    for stream in drips:
        stream.sendall(parts[2])
    while drips and time.monotonic() - begun < ENDED_SECONDS:
        time.sleep(0.2)
        drips = [stream for stream in drips if drip(stream)]
    assert drips == []
    for part, stream in held:
        with stream:
            assert status(rest(stream)) == (408 if part else None), part
    assert time.monotonic() - begun < ENDED_SECONDS
    # Who will say no more is not answered while a request is not whole, and otherwise has gone.
    for part in parts * 100:
        with site.connect() as stream:
            stream.sendall(part)
            stream.shutdown(socket.SHUT_WR)
            assert rest(stream) == b"", part


def drip(stream):
    """Sends a byte; false once the connection has ended."""
    try:
        stream.send(b"x")
        stream.settimeout(0.001)
        return stream.recv(1) != b"" and drip(stream)
    except TimeoutError:
        return True
    except OSError:
        return False


def test_answers_that_nobody_takes(site):
    for _ in range(20):
        streams = [site.connect() for _ in range(20)]
        for stream in streams:
            stream.sendall(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
        time.sleep(0.1)
        for stream in streams[10:]:
            stream.close()
    # On a busy machine the container may take some seconds to begin.
    time.sleep(4 * IDLE_SECONDS)
    for stream in streams[:10]:
        with stream:
            assert len(rest(stream)) < LARGE


# HTTP/2, by hand.

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RESET, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, END_HEADERS = 1, 4


def frame(kind, payload=b"", flags=0, stream=0):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def get(path, stream, flags=END_HEADERS | END_STREAM):
    """`GET https://a/path`, mostly from the static table."""
    return frame(HEADERS, b"\x82\x87\x44" + bytes([len(path)]) + path + b"\x41\x01a", flags, stream)


def frames(text):
    """Kinds, streams and payloads."""
    while len(text) >= 9:
        length = int.from_bytes(text[:3], "big")
        yield text[3], int.from_bytes(text[5:9], "big"), text[9:9 + length]
        text = text[9 + length:]


def flooded(stream, first, endless, most=64 << 20):
    """How much is taken of what has no end by who never reads an answer; all of it means that it is not noticed."""
    stream.settimeout(2)
    piece, taken = endless * (65536 // len(endless) + 1), 0
    with contextlib.suppress(OSError):
        stream.sendall(first)
        while taken < most:
            taken += stream.send(piece)
    return taken


def test_floods_of_frames(site):
    begun = PREFACE + frame(SETTINGS)
    part = get(b"/flooded", 1, flags=0)
    # `x: y`, a thousand times.
    fields = b"\0\x01x\x01y" * 1000
    for what, first, endless in [
        ("PING", b"", frame(PING, b"12345678")),
        ("SETTINGS", b"", frame(SETTINGS, b"\0\x04\0\0\xff\xff")),
        ("CONTINUATION", part, frame(CONTINUATION, fields, stream=1)),
        ("empty CONTINUATION", part, frame(CONTINUATION, stream=1)),
        ("WINDOW_UPDATE", get(b"/large", 1), frame(WINDOW_UPDATE, b"\0\0\xff\xff", stream=1)),
        ("empty DATA", get(b"/flooded", 1, flags=END_HEADERS), frame(DATA, stream=1)),
    ]:
        for _ in range(2):
            with site.secure("h2") as stream:
                taken = flooded(stream, begun + first, endless)
            assert taken < 64 << 20, f"{what} without end was taken"


def test_streams_that_are_reset_at_once(site):
    for _ in range(20):
        with site.secure("h2") as stream:
            flood = b"".join(get(b"/reset", n) + frame(RESET, b"\0\0\0\x08", stream=n) for n in range(1, 20000, 2))
            answer = sent(stream, PREFACE + frame(SETTINGS) + flood)
        # What was said at the end may be lost when more came in behind it.
        assert not answer or any(kind == GOAWAY for kind, *_ in frames(answer)), "the connection goes on"
    assert sum("/reset" in line for line in site.seen()) < 20 * 1000


def test_windows_that_never_open(site):
    # SETTINGS_INITIAL_WINDOW_SIZE is zero: nothing may be sent.
    streams = [site.secure("h2") for _ in range(5)]
    for stream in streams:
        stream.sendall(PREFACE + frame(SETTINGS, b"\0\x04\0\0\0\0") + b"".join(get(b"/large", n) for n in range(1, 20, 2)))
    begun = time.monotonic()
    for stream in streams:
        with stream:
            got = rest(stream)
        assert not any(kind == DATA and payload for kind, _, payload in frames(got))
    assert time.monotonic() - begun < ENDED_SECONDS


# TLS.


def greeting(name):
    """A ClientHello that asks for a name, whatever that is."""
    field = lambda size, content: len(content).to_bytes(size, "big") + content
    extension = lambda number, content: number.to_bytes(2, "big") + field(2, content)
    extensions = (extension(0, field(2, b"\0" + field(2, name))) + extension(43, field(1, b"\x03\x04\x03\x03"))
                  + extension(10, field(2, b"\0\x1d\0\x17")) + extension(13, field(2, b"\x04\x03\x08\x04\x04\x01"))
                  + extension(51, field(2, b"\0\x1d" + field(2, bytes(range(32))))))
    hello = b"\x03\x03" + bytes(32) + field(1, b"") + field(2, b"\x13\x01\xc0\x2f") + field(1, b"\0") + field(2, extensions)
    return b"\x16\x03\x01" + field(2, b"\x01" + field(3, hello))


ALERT, HANDSHAKE = 21, 22


def test_handshakes_that_are_none(site):
    good = greeting(b"web.example.com")
    for text in [
        REQUEST, bytes(range(256)), b"\x16\x03\x01\xff\xff", b"\x16\x03\x01\0\0", b"\x17\x03\x03\0\x05hello",
        b"\x16\x03\x01\0\x04\x01\xff\xff\xff", good[:len(good) // 2], good[:5], good[:3] + b"\0\x01" + good[5:6],
    ]:
        for _ in range(100):
            with site.connect(443) as stream:
                with contextlib.suppress(OSError):
                    stream.sendall(text)
                    stream.shutdown(socket.SHUT_WR)
                answer = rest(stream)
            assert len(answer) < 100 and answer[:1] in (b"", bytes([ALERT])), (text, answer)
    for name in b"x" * 300, b"x" * 65000, b"", b"\0", b"a..b", b"\xff" * 20:
        for _ in range(20):
            with site.connect(443) as stream:
                with contextlib.suppress(OSError):
                    stream.sendall(greeting(name))
                    stream.shutdown(socket.SHUT_WR)
                answer = rest(stream)
            assert len(answer) < 8192 and answer[:1] in (b"", bytes([ALERT]), bytes([HANDSHAKE])), (name, answer)
    # Held open, wherever they are: each has its time.
    held = [site.connect(443) for _ in range(400)]
    begun = time.monotonic()
    for n, stream in enumerate(held):
        stream.sendall([b"", good[:1], good[:len(good) // 2], good][n % 4])
    for stream in held:
        with stream:
            rest(stream)
    assert time.monotonic() - begun < ENDED_SECONDS


def test_keys_are_not_negotiated_again(site):
    command = ["openssl", "s_client", "-connect", f"{site.address}:443", "-tls1_2", "-servername", "web.example.com"]
    for _ in range(2):
        said = subprocess.run(command, input=b"R\n", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
                              timeout=PATIENCE_SECONDS).stdout
        # It is told no, or left.
        before, after = said.split(b"RENEGOTIATING")
        assert b"TLSv1.2" in before and b":error:" in after and b"verify" not in after, after
