#!/usr/bin/env python3
"""Stands in for AWS's Session Manager plugin, which no package registry has: the same command line, the same messages,
in a client that shares no line with Gantry. `LOSES=1` in the environment makes it lose the first copy of everything."""

import hashlib
import json
import os
import selectors
import struct
import sys
import time
import uuid

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

HEADER = struct.Struct(">I32sIQqQ16s32sII")
OUTPUT, SIZE, REQUEST, RESPONSE, COMPLETE = 1, 3, 5, 6, 7


def encode(kind, sequence, flags, payload_type, payload, identifier=None):
    identifier = (identifier or uuid.uuid4()).bytes
    # The two halves of an id stand the other way round.
    return HEADER.pack(HEADER.size - 4, kind.encode().ljust(32), 1, int(time.time() * 1000), sequence, flags,
                       identifier[8:] + identifier[:8], hashlib.sha256(payload).digest(), payload_type,
                       len(payload)) + payload


def decode(message):
    length, kind, _, _, sequence, _, identifier, digest, payload_type, payload_length = HEADER.unpack_from(message)
    assert length == HEADER.size - 4, length
    payload = message[HEADER.size:]
    assert len(payload) == payload_length and hashlib.sha256(payload).digest() == digest
    return kind.decode().rstrip(" \0"), sequence, uuid.UUID(bytes=identifier[8:] + identifier[:8]), payload_type, payload


class Session:
    def __init__(self, response, loses=False):
        self.connect(response)
        self.sent = self.expected = 0
        self.lost = set() if loses else None
        self.unacknowledged = {}
        self.early = {}

    def connect(self, response):
        """Connects, or once more to a session that goes on: numbers are the session's, not the connection's."""
        self.socket = connect(response["streamUrl"], compression=None)
        self.socket.send(json.dumps({
            "MessageSchemaVersion": "1.0", "RequestId": str(uuid.uuid4()), "TokenValue": response["tokenValue"],
            "ClientId": str(uuid.uuid4()), "ClientVersion": "1.2.0.0"}))

    def send(self, payload_type, payload):
        message = encode("input_stream_data", self.sent, 1 if self.sent == 0 else 0, payload_type, payload)
        self.unacknowledged[self.sent] = (time.monotonic(), message)
        self.sent += 1
        self.socket.send(message)

    def receive(self, timeout=None):
        """Payloads whose turn has come; `None` once the session is over."""
        now = time.monotonic()
        for sequence, (at, message) in self.unacknowledged.items():
            if now - at > 0.5:
                self.unacknowledged[sequence] = (now, message)
                self.socket.send(message)
        try:
            message = self.socket.recv(timeout)
        except TimeoutError:
            return []
        except ConnectionClosed:
            return None
        kind, sequence, identifier, payload_type, payload = decode(message)
        if self.lost is not None and (kind, sequence, payload) not in self.lost:
            self.lost.add((kind, sequence, payload))
            if kind != "channel_closed":
                return []
        if kind == "channel_closed":
            said = json.loads(payload)["Output"]
            print(f"\n{said}" if said else "", file=sys.stderr)
            return None
        if kind == "acknowledge":
            self.unacknowledged.pop(json.loads(payload)["AcknowledgedMessageSequenceNumber"], None)
            return []
        assert kind == "output_stream_data", kind
        about = {"AcknowledgedMessageType": kind, "AcknowledgedMessageId": str(identifier),
                 "AcknowledgedMessageSequenceNumber": sequence, "IsSequentialMessage": True}
        self.socket.send(encode("acknowledge", 0, 3, 0, json.dumps(about).encode()))
        if sequence >= self.expected:
            self.early[sequence] = (payload_type, payload)
        ready = []
        while self.expected in self.early:
            ready.append(self.early.pop(self.expected))
            self.expected += 1
        return ready

    def agree(self, payload):
        wanted = json.loads(payload)["RequestedClientActions"]
        done = [{"ActionType": a["ActionType"], "ActionStatus": 1, "ActionResult": None, "Error": ""} for a in wanted]
        answer = {"ClientVersion": "1.2.0.0", "ProcessedClientActions": done, "Errors": []}
        self.send(RESPONSE, json.dumps(answer).encode())

    def until_shows(self, text, seconds=60):
        """Takes what comes until the terminal has shown a text; what it showed."""
        shown, deadline = b"", time.monotonic() + seconds
        while text.encode() not in shown:
            assert time.monotonic() < deadline, shown
            payloads = self.receive(0.1)
            assert payloads is not None, shown
            for payload_type, payload in payloads:
                if payload_type == REQUEST:
                    self.agree(payload)
                elif payload_type == OUTPUT:
                    shown += payload
        return shown.decode()

    def run(self):
        """Carries standard input and output until the session is over."""
        began = False
        selector = selectors.DefaultSelector()
        selector.register(sys.stdin, selectors.EVENT_READ)
        while True:
            payloads = self.receive(0.05)
            if payloads is None:
                return
            for payload_type, payload in payloads:
                if payload_type == REQUEST:
                    self.agree(payload)
                elif payload_type == COMPLETE:
                    began = True
                    self.send(SIZE, json.dumps({"cols": 80, "rows": 24}).encode())
                elif payload_type == OUTPUT:
                    sys.stdout.buffer.write(payload)
                    sys.stdout.buffer.flush()
            if began and selector.get_map() and selector.select(0):
                typed = os.read(sys.stdin.fileno(), 1024)
                if typed:
                    self.send(OUTPUT, typed)
                else:
                    selector.unregister(sys.stdin)


def main():
    if len(sys.argv) == 1:
        # How the AWS CLI asks whether the plugin is there.
        return
    response = json.loads(sys.argv[1])
    print(f"\nStarting session with SessionId: {response['sessionId']}", flush=True)
    Session(response, loses=os.environ.get("LOSES") == "1").run()


if __name__ == "__main__":
    main()
