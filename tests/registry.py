"""A small image registry: enough of the distribution protocol to be pulled from, and able to misbehave."""

import base64
import gzip
import hashlib
import http.server
import io
import json
import pathlib
import platform
import shutil
import ssl
import tarfile
import threading
import time
import urllib.parse

BUSYBOX = shutil.which("busybox")
APPLETS = ["cat", "dd", "echo", "env", "ls", "sh", "sleep", "touch", "true"]
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def digest(content):
    return "sha256:" + hashlib.sha256(content).hexdigest()


def layer(files, links=()):
    """A packed layer: `files` is path to content, `links` path to target. Its bytes and its unpacked digest."""
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        for path, target in links:
            info = tarfile.TarInfo(path)
            info.type, info.linkname = tarfile.SYMTYPE, target
            archive.addfile(info)
        for path, content in files.items():
            info = tarfile.TarInfo(path)
            info.mode, info.size = 0o755, len(content)
            archive.addfile(info, io.BytesIO(content))
    return gzip.compress(tar.getvalue(), 1, mtime=0), digest(tar.getvalue())


_tools = None


def tools():
    """The layer that all images have in common: busybox."""
    global _tools
    if _tools is None:
        _tools = layer({"bin/busybox": pathlib.Path(BUSYBOX).read_bytes()}, [(f"bin/{a}", "busybox") for a in APPLETS])
    return _tools


class Registry(http.server.ThreadingHTTPServer):
    """Serves what `push` put there, on loopback unless told otherwise, until the `with` ends."""

    daemon_threads = True

    def __init__(self, address="127.0.0.1", port=0, user=None, bearer=False, certificate=None):
        super().__init__((address, port), Handler)
        self.host = f"{address}:{self.server_address[1]}"
        self.user, self.bearer = user, bearer
        self.content, self.types, self.requests = {}, {}, []
        # Called with the handler and the blob before it is sent; answers the bytes to send, or None once it did so itself.
        self.fault = None
        self.scheme = "http"
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self.socket = context.wrap_socket(self.socket, server_side=True)
            self.scheme = "https"

    def handle_error(self, request, client_address):
        """Clients that go away are what some tests are about."""

    def __enter__(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()

    def push(self, name, files=None, command=("sleep", "1000"), architecture=None, layers=None):
        """Makes `REPOSITORY:TAG` an image of busybox and `files`; its digest."""
        repository, tag = name.split(":")
        layers = [tools(), *(layers or []), *([layer(files)] if files else [])]
        config = json.dumps({
            "architecture": architecture or ARCHITECTURES[platform.machine()], "os": "linux",
            "config": {"Cmd": list(command), "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [diff_id for _, diff_id in layers]},
        }).encode()

        def descriptor(kind, content):
            self.content[f"{repository}/blobs/{digest(content)}"] = content
            return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": digest(content), "size": len(content)}

        manifest = json.dumps({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": descriptor("config.v1+json", config),
            "layers": [descriptor("layer.v1.tar+gzip", packed) for packed, _ in layers],
        }).encode()
        for selector in tag, digest(manifest):
            self.content[f"{repository}/manifests/{selector}"] = manifest
            self.types[f"{repository}/manifests/{selector}"] = MANIFEST
        return digest(manifest)

    def asked(self, part):
        """How often something was asked for."""
        return sum(part in line for line in list(self.requests))

    def until_asked(self, part, seconds=60):
        deadline = time.monotonic() + seconds
        while not self.asked(part):
            assert time.monotonic() < deadline, f"nobody asked for {part}"
            time.sleep(0.02)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in {"Content-Length": len(body), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(body)

    def refused(self, status, code, **headers):
        body = json.dumps({"errors": [{"code": code, "message": code.lower().replace("_", " ")}]}).encode()
        self.answer(status, body, Content_Type="application/json", **headers)

    def do_GET(self):
        server, url = self.server, urllib.parse.urlsplit(self.path)
        server.requests.append(f"{self.path} {self.headers.get('Range', '')}")
        basic = server.user and "Basic " + base64.b64encode(server.user.encode()).decode()
        given = self.headers.get("Authorization")
        if url.path == "/token":
            if given == basic:
                return self.answer(200, b'{"token":"t0k"}')
            return self.refused(401, "UNAUTHORIZED")
        wanted = "Bearer t0k" if server.bearer else basic
        if wanted and given != wanted:
            realm = f'Bearer realm="{server.scheme}://{server.host}/token",service="test"' if server.bearer else 'Basic realm="x"'
            return self.refused(401, "UNAUTHORIZED", WWW_Authenticate=realm)
        key = url.path.removeprefix("/v2/")
        body = server.content.get(key)
        if body is None:
            return self.refused(404, "MANIFEST_UNKNOWN" if "/manifests/" in key else "BLOB_UNKNOWN")
        if server.fault:
            body = server.fault(self, body)
            if body is None:
                return None
        start = int(self.headers.get("Range", "bytes=0-")[6:-1])
        if start:
            return self.answer(206, body[start:], Content_Range=f"bytes {start}-{len(body) - 1}/{len(body)}")
        return self.answer(200, body, Content_Type=server.types.get(key, "application/octet-stream"))
