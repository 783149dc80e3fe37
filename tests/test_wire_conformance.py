"""Every operation of every model against botocore's own serialiser and parser, with generated values: what botocore
sends we read, what we write botocore reads, member for member, errors included."""

import base64
import datetime
import functools
import json
import os
import pathlib
import random
import re
import subprocess
import urllib.parse

import botocore.loaders
import botocore.model
import botocore.parsers
import botocore.serialize
import pytest

MODELS = {path.stem: json.loads(path.read_text()) for path in sorted(pathlib.Path("models").glob("*.json"))}
# The agents' channels have messages, no operations; botocore does not know them, nor the service of our own.
SERVICES = [name for name, model in MODELS.items() if model["service"]["protocol"] != "message" and name != "gantry"]
FORMS = {"query", "ec2"}


def program():
    return pathlib.Path(os.environ.get("GANTRY", "target/debug/gantry")).parent / "examples" / "conform"


@pytest.fixture(scope="module")
def gantry_side():
    assert program().exists(), f"{program()} is not built: cargo build -p gantry-api --examples"
    with subprocess.Popen([program()], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        def ask(**order):
            process.stdin.write(json.dumps(order) + "\n")
            process.stdin.flush()
            answer = json.loads(process.stdout.readline())
            assert "error" not in answer, answer
            return answer["ok"]

        yield ask
        process.stdin.close()


@functools.cache
def model(service):
    loader = botocore.loaders.Loader()
    return botocore.model.ServiceModel(loader.load_service_model(service, "service-2"), service)


def operations():
    return [(service, name) for service in SERVICES for name in MODELS[service]["operations"]]


@pytest.mark.parametrize("service", SERVICES)
def test_the_models_name_the_operations_that_botocore_names(service):
    ours, theirs = set(MODELS[service]["operations"]), set(model(service).operation_names)
    assert ours
    if MODELS[service]["service"].get("selection"):
        assert ours <= theirs
    else:
        assert ours == theirs


class Values:
    """Values for shapes that the model's constraints allow: odd characters, numbers at their ends. `kind` says of
    which members: `full` all of them (recursive shapes end at some depth), `required` only those that must be there,
    `empty` all, but lists and maps without items. `sent` drops what a protocol cannot say."""

    # For patterns that allow none of the others.
    PLAIN = [
        "arn:aws:acm:us-east-1:123456789012:certificate/a", "arn:aws:acm-pca:us-east-1:123456789012:certificate-authority/a",
        "*.example.com", "ami-0123456789abcdef0", "HTTPS", "404", "ipv4pool-coip-0a1b", "ipam-pool-0a1b",
        "01234567-89ab-cdef-0123-456789abcdef", "mi-0123456789abcdef0", "3.2.1.0",
        f"-----BEGIN CERTIFICATE-----\n{'Z0FOVFJZ' * 8}\nZw==\n-----END CERTIFICATE-----\n",
    ]
    TEXTS = ["web", "a \"b\" \\ <c>&d", "\u00e9\u4e16\U0001f600", "x+y=z%20", "0", "arn:aws:iam::123456789012:role/x"]

    def __init__(self, seed, kind, sent=lambda value: value):
        self.random = random.Random(seed)
        self.kind = kind
        self.sent = sent

    def of(self, shape, depth=0):
        return getattr(self, f"of_{shape.type_name}", self.unknown)(shape, depth)

    def unknown(self, shape, _):
        raise AssertionError(f"{shape.name} is a {shape.type_name}")

    def of_structure(self, shape, depth):
        required = set(shape.required_members)
        members = {name: inner for name, inner in shape.members.items()
                   if name in required or (depth < 6 and self.kind != "required")}
        if shape.is_tagged_union:
            one = self.random.choice(list(shape.members))
            members = {one: shape.members[one]}
        values = {name: self.of(inner, depth + 1) for name, inner in members.items()}
        for name in required:
            # What is required must be seen.
            if self.sent(values[name]) is None:
                values[name] = Values(self.random.random(), "full").of(shape.members[name], depth + 1)
        return values

    def of_list(self, shape, depth):
        low, high = (shape.metadata.get(key, other) for key, other in (("min", 0), ("max", 2)))
        count = low if self.kind == "empty" else self.random.randint(max(low, 1), max(min(high, 2), low, 1))
        return [self.of(shape.member, depth + 1) for _ in range(count)]

    def of_map(self, shape, depth):
        low = shape.metadata.get("min", 0)
        count = low if self.kind == "empty" else max(low, 2)
        entries = {}
        while len(entries) < count:
            entries[self.of(shape.key, depth + 1)] = self.of(shape.value, depth + 1)
        return entries

    def of_string(self, shape, _):
        if shape.enum:
            return self.random.choice(shape.enum)
        low, high = shape.metadata.get("min", 0), shape.metadata.get("max", 1 << 20)
        pattern = shape.metadata.get("pattern", "[^\0]*")
        # Of the classes of letters that Python does not know, ASCII's.
        pattern = re.sub(r"\\p\{L\}\\p\{Z\}\\p\{N\}", r"\\w ", pattern).replace(r"\u10000-\u10FFFF", "")
        # Pairs of halves of characters, which it does not know either.
        pattern = pattern.replace(r"\uD800\uDC00-\uDBFF\uDFFF", "")
        texts = [(text * (low // len(text) + 1) if len(text) < low else text)[:high] for text in self.TEXTS]
        fitting = [text for text in texts if re.fullmatch(pattern, text)]
        return self.random.choice(fitting or [text for text in self.PLAIN if re.fullmatch(pattern, text)])

    def of_blob(self, shape, depth):
        return self.random.randbytes(max(shape.metadata.get("min", 0), 20))

    def number(self, shape, *values):
        low, high = shape.metadata.get("min", min(values)), shape.metadata.get("max", max(values))
        return self.random.choice([low, high] + [value for value in values if low <= value <= high])

    def of_integer(self, shape, _):
        return self.number(shape, 0, 1, -1, 2**31 - 1, -(2**31))

    def of_long(self, shape, _):
        return self.number(shape, 0, 2**53, -(2**53))

    def of_double(self, shape, _):
        return self.number(shape, 0.5, -1.25, 1e9)

    of_float = of_double

    def of_boolean(self, *_):
        return self.random.random() < 0.5

    def of_timestamp(self, *_):
        return datetime.datetime.fromtimestamp(self.random.randint(0, 2**31), datetime.timezone.utc)


def in_form(protocol):
    """What of a value a form can say: nothing of empty structures and maps, and only awsQuery has a way to say that a
    list is empty."""

    def said(value):
        if isinstance(value, dict):
            kept = {key: said(inner) for key, inner in value.items()}
            return {key: inner for key, inner in kept.items() if inner is not None} or None
        if isinstance(value, list):
            kept = [inner for inner in map(said, value) if inner is not None]
            return [] if not value and protocol == "query" else kept or None
        return value

    return said


def neutral(value):
    """Python's values as awsJson writes them."""
    if isinstance(value, datetime.datetime):
        return value.timestamp()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
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


@pytest.mark.parametrize("service, name", operations())
@pytest.mark.parametrize("kind", ["full", "required", "empty"])
def test_what_botocore_sends_is_read(gantry_side, service, name, kind):
    of = model(service)
    operation = of.operation_model(name)
    protocol = of.metadata["protocol"]
    serializer = botocore.serialize.create_serializer(protocol, include_validation=False)
    sent = in_form(protocol) if protocol in FORMS else lambda value: value
    for seed in range(3):
        values = Values(f"{name}/{seed}", kind, sent)
        given = values.of(operation.input_shape) if operation.input_shape else {}
        body = serializer.serialize_to_request(given, operation)["body"]
        if isinstance(body, dict):
            body = urllib.parse.urlencode(body)
        text = body.decode() if isinstance(body, bytes) else body
        read = gantry_side(service=service, operation=name, request=text)
        wanted = sent(neutral(given)) or {}
        assert same(read, wanted), f"{name}: {read} is not {wanted}"


def answered_whole():
    """But for those that are answered by a stream of events, which `test_logs.py` follows."""
    return [(service, name) for service, name in operations()
            if not model(service).operation_model(name).has_event_stream_output]


@pytest.mark.parametrize("service, name", answered_whole())
@pytest.mark.parametrize("kind", ["full", "required", "empty"])
def test_botocore_reads_what_we_write(gantry_side, service, name, kind):
    of = model(service)
    operation = of.operation_model(name)
    parser = botocore.parsers.create_parser(of.metadata["protocol"])
    for seed in range(3):
        wanted = Values(f"{name}/{seed}", kind).of(operation.output_shape) if operation.output_shape else {}
        written = gantry_side(service=service, operation=name, response=neutral(wanted))
        answer = {"status_code": 200, "headers": {}, "body": written.encode()}
        parsed = parser.parse(answer, operation.output_shape)
        metadata = parsed.pop("ResponseMetadata")
        if of.metadata["protocol"] in FORMS:
            assert metadata["RequestId"] == "request-1"
        assert same(neutral(parsed), neutral(wanted)), f"{name}: {parsed} is not {wanted}"


@pytest.mark.parametrize("service, name", operations())
def test_botocore_reads_our_errors(gantry_side, service, name):
    of = model(service)
    operation = of.operation_model(name)
    parser = botocore.parsers.create_parser(of.metadata["protocol"])
    message = "why <&> \"not\""

    def written(code, fields):
        body = gantry_side(service=service, operation=name,
                           error={"code": code, "message": message, "fields": fields})
        return {"status_code": 400, "headers": {}, "body": body.encode()}

    # EC2's model has no error shapes; its codes are open.
    for code, shape in [("Unmodelled.Code", None)] + [(shape.error_code, shape) for shape in operation.error_shapes]:
        members = {} if shape is None else shape.members
        # Errors of ours tell texts and lists of texts; what throttles tells more, and nothing here does.
        told = {name: inner for name, inner in members.items()
                if name.lower() != "message" and (inner.member if inner.type_name == "list" else inner).type_name != "structure"}
        fields = {name: Values(name, "full").of(inner) for name, inner in told.items()}
        answer = written(code, fields)
        parsed = parser.parse(answer, operation.output_shape)
        assert (parsed["Error"]["Code"], parsed["Error"]["Message"]) == (code, message)
        if of.metadata["protocol"] in FORMS:
            assert parsed["ResponseMetadata"]["RequestId"] == "request-1"
        if fields:
            modelled = parser.parse(answer, shape)
            assert {name: modelled[name] for name in fields} == fields
