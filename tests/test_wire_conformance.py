"""Every operation of every model against botocore's own serialiser and parser, with generated values: what botocore
sends we read, what we write botocore reads, member for member, errors included."""

import datetime
import json
import os
import pathlib
import random
import subprocess

import botocore.loaders
import botocore.model
import botocore.parsers
import botocore.serialize
import pytest

SERVICES = ["ecs", "sts"]


def program():
    return pathlib.Path(os.environ.get("GANTRY", "target/debug/gantry")).parent / "examples" / "conform"


@pytest.fixture(scope="module")
def gantry_side():
    if not program().exists():
        pytest.skip(f"{program()} is not built: cargo build -p gantry-api --examples")
    with subprocess.Popen([program()], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        def ask(**order):
            process.stdin.write(json.dumps(order) + "\n")
            process.stdin.flush()
            answer = json.loads(process.stdout.readline())
            assert "error" not in answer, answer
            return answer["ok"]

        yield ask
        process.stdin.close()


def model(service):
    loader = botocore.loaders.Loader()
    return botocore.model.ServiceModel(loader.load_service_model(service, "service-2"), service)


def operations():
    for service in SERVICES:
        ours = json.loads(pathlib.Path(f"models/{service}.json").read_text())["operations"]
        for name in model(service).operation_names:
            if name in ours:
                yield service, name


class Values:
    """Values for shapes: every member, odd characters, numbers at their ends; recursive shapes end at some depth."""

    def __init__(self, seed):
        self.random = random.Random(seed)

    def of(self, shape, depth=0):
        kind = shape.type_name
        if kind == "structure":
            required = set(shape.required_members)
            members = {name: inner for name, inner in shape.members.items() if depth < 6 or name in required}
            return {name: self.of(inner, depth + 1) for name, inner in members.items()}
        if kind == "list":
            return [self.of(shape.member, depth + 1) for _ in range(self.random.randint(1, 2))]
        if kind == "map":
            return {self.of(shape.key, depth + 1): self.of(shape.value, depth + 1) for _ in range(2)}
        if kind == "string":
            if shape.enum:
                return self.random.choice(shape.enum)
            return self.random.choice(["web", "a \"b\" \\ <c>&d", "\u00e9\u4e16\U0001f600", "x+y=z%20", "0"])
        if kind == "integer":
            return self.random.choice([0, 1, -1, 2**31 - 1, -(2**31)])
        if kind == "long":
            return self.random.choice([0, 2**53, -(2**53)])
        if kind in ("float", "double"):
            return self.random.choice([0.5, -1.25, 1e9])
        if kind == "boolean":
            return self.random.random() < 0.5
        if kind == "timestamp":
            return datetime.datetime.fromtimestamp(self.random.randint(0, 2**31), datetime.timezone.utc)
        raise AssertionError(f"{shape.name} is a {kind}")


def neutral(value):
    """Python's values as awsJson writes them."""
    if isinstance(value, datetime.datetime):
        return value.timestamp()
    if isinstance(value, dict):
        return {key: neutral(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [neutral(inner) for inner in value]
    return value


def same(left, right):
    """Equal, whatever kind of number it is."""
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    return left == right


@pytest.mark.parametrize("service, name", list(operations()))
def test_what_botocore_sends_is_read_and_what_we_write_is_read_by_it(gantry_side, service, name):
    of = model(service)
    operation = of.operation_model(name)
    protocol = of.metadata["protocol"]
    serializer = botocore.serialize.create_serializer(protocol, include_validation=False)
    parser = botocore.parsers.create_parser(protocol)
    for seed in range(3):
        values = Values(f"{name}/{seed}")
        given = values.of(operation.input_shape) if operation.input_shape else {}
        body = serializer.serialize_to_request(given, operation)["body"]
        if isinstance(body, dict):
            import urllib.parse
            body = urllib.parse.urlencode(body)
        text = body.decode() if isinstance(body, bytes) else body
        read = gantry_side(service=service, operation=name, request=text)
        assert same(read, neutral(given)), f"{name}: {read} is not {given}"

        wanted = values.of(operation.output_shape) if operation.output_shape else {}
        written = gantry_side(service=service, operation=name, response=neutral(wanted))
        answer = {"status_code": 200, "headers": {}, "body": written.encode()}
        parsed = parser.parse(answer, operation.output_shape) if operation.output_shape else {}
        parsed.pop("ResponseMetadata", None)
        assert same(neutral(parsed), neutral(wanted)), f"{name}: {parsed} is not {wanted}"

    for shape in operation.error_shapes:
        code = shape.metadata.get("error", {}).get("code", shape.name)
        written = gantry_side(service=service, operation=name, error=[code, "why <&> \"not\""])
        parsed = parser.parse({"status_code": 400, "headers": {}, "body": written.encode()}, operation.output_shape)
        assert parsed["Error"]["Code"] == code
        assert parsed["Error"]["Message"] == "why <&> \"not\""
