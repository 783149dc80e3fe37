"""CloudWatch Logs: its API through boto3 and the AWS CLI, and what containers write with the log driver awslogs."""

import itertools
import pathlib
import queue
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
from conftest import Platform, both_runtimes, leftovers, needs_root, until, wait
from test_containers import IMAGE, image, sh
from test_ecs import refused
from test_tasks import describe, run

GROUP = "/ecs/counter"


def now():
    return int(time.time() * 1000)


def put(logs, messages, stream="one", at=None):
    """Puts events a millisecond apart."""
    at = at or now()
    events = [{"timestamp": at + i, "message": message} for i, message in enumerate(messages)]
    return logs.put_log_events(logGroupName="app", logStreamName=stream, logEvents=events)


def messages(page):
    return [event["message"] for event in page["events"]]


@pytest.fixture
def logs(gantry):
    client = gantry.client("logs")
    client.create_log_group(logGroupName="app")
    client.create_log_stream(logGroupName="app", logStreamName="one")
    return client


def test_pages_lead_both_ways_and_end(logs):
    put(logs, [f"line {n}" for n in range(25)])

    def walk(token, **first):
        seen, arguments = [], first
        while True:
            page = logs.get_log_events(logGroupName="app", logStreamName="one", limit=10, **arguments)
            if arguments.get("nextToken") == page[token]:
                assert page["events"] == []
                return seen
            seen.append(messages(page))
            arguments = {"nextToken": page[token]}

    forward = walk("nextForwardToken", startFromHead=True)
    assert sum(forward, []) == [f"line {n}" for n in range(25)]
    backward = walk("nextBackwardToken")
    assert backward[0] == [f"line {n}" for n in range(15, 25)]
    assert sum(reversed(backward), []) == [f"line {n}" for n in range(25)]


def test_filters_find_across_streams_and_pages(logs):
    logs.create_log_stream(logGroupName="app", logStreamName="two")
    at = now()
    put(logs, [f'{{"level": "{"ERROR" if n % 10 == 0 else "INFO"}", "n": {n}}}' for n in range(200)], at=at)
    put(logs, [f"10.0.0.{n} GET /{n} {500 if n == 7 else 200}" for n in range(50)], stream="two", at=at)

    def find(pattern, **arguments):
        pages = logs.get_paginator("filter_log_events").paginate(
            logGroupName="app", filterPattern=pattern, PaginationConfig={"PageSize": 7}, **arguments)
        return [event for page in pages for event in page["events"]]

    assert len(find("")) == 250
    errors = find('{ $.level = "ERROR" }')
    assert len(errors) == 20 and len({event["eventId"] for event in errors}) == 20
    assert len(find('{ $.level = "ERROR" && $.n >= 100 }')) == 10
    assert [event["logStreamName"] for event in find("[ip, method, path, status = 5*]")] == ["two"]
    assert len(find("GET -500", logStreamNamePrefix="tw")) == 49
    assert find("GET", logStreamNames=["one"]) == []
    refused("InvalidParameterException", "Invalid filter pattern", logs.filter_log_events, logGroupName="app",
            filterPattern="{ $.level = ")


def test_what_was_acknowledged_survives_a_kill(gantry, logs):
    put(logs, [f"before {n}" for n in range(1000)])
    logs.put_retention_policy(logGroupName="app", retentionInDays=7)
    gantry.end(signal.SIGKILL)
    logs = gantry.start().client("logs")
    page = logs.get_log_events(logGroupName="app", logStreamName="one", startFromHead=True)
    assert messages(page) == [f"before {n}" for n in range(1000)]
    group, = logs.describe_log_groups()["logGroups"]
    assert group["retentionInDays"] == 7 and group["storedBytes"] > 0
    logs.delete_log_group(logGroupName="app")
    refused("ResourceNotFoundException", "The specified log group does not exist.", logs.get_log_events,
            logGroupName="app", logStreamName="one")


def test_the_aws_cli_finds_and_a_tail_follows(gantry, logs):
    put(logs, ["an old line"], at=now() - 3_600_000)
    put(logs, ["a new line"])
    start = str(now() - 600_000)
    shown = gantry.aws("logs", "filter-log-events", "--log-group-name", "app", "--start-time", start,
                       "--filter-pattern", "line").stdout
    assert "a new line" in shown and "an old line" not in shown
    tail = Following(logs, "app", now() - 600_000)
    assert tail.more() == ["a new line"]
    put(logs, ["written while it is followed"])
    put(logs, ["and more"])
    assert tail.more() == ["written while it is followed", "and more"]
    assert tail.more() == []


def test_a_live_tail_shows_what_is_taken(gantry, logs):
    put(logs, ["before it began"])
    arn, = [g["logGroupArn"] for g in logs.describe_log_groups()["logGroups"] if g["logGroupName"] == "app"]
    live = gantry.client("logs", inject_host_prefix=False, read_timeout=60)
    stream = live.start_live_tail(logGroupIdentifiers=[arn], logEventFilterPattern="line")["responseStream"]
    events = iter(stream)
    start = next(events)["sessionStart"]
    assert start["logGroupIdentifiers"] == [arn] and start["logEventFilterPattern"] == "line" and start["sessionId"]
    put(logs, ["a line", "something else", "another line"])
    shown = []
    while len(shown) < 2:
        update = next(events)["sessionUpdate"]
        assert update["sessionMetadata"] == {"sampled": False}
        shown += update["sessionResults"]
    assert [event["message"] for event in shown] == ["a line", "another line"]
    assert {event["logStreamName"] for event in shown} == {"one"} and shown[0]["logGroupIdentifier"].endswith(":app")
    refused("ResourceNotFoundException", "The specified log group does not exist.", live.start_live_tail,
            logGroupIdentifiers=[arn.replace(":app", ":none")])
    # A server that ends tells who listens, in order: nothing is cut off.
    assert gantry.end() == 0
    assert all("sessionUpdate" in event for event in events)


def test_the_aws_cli_follows_live(gantry, logs):
    arn, = [g["logGroupArn"] for g in logs.describe_log_groups()["logGroups"] if g["logGroupName"] == "app"]
    aws = pathlib.Path(sys.executable).parent / "aws"
    command = [sys.executable, aws, "logs", "start-live-tail", "--log-group-identifiers", arn]
    with subprocess.Popen(command, env=gantry.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as tail:
        try:
            lines = itertools.count()
            shown = queue.Queue()
            threading.Thread(target=lambda: [shown.put(line) for line in tail.stdout], daemon=True).start()

            def seen():
                put(logs, [f"live line {next(lines)}"])
                try:
                    return "live line" in shown.get(timeout=1)
                except queue.Empty:
                    assert tail.poll() is None, tail.stderr.read()
                    return False
            until(seen)
        finally:
            tail.kill()


class Following:
    """What `aws logs tail --follow` of the AWS CLI's version 2 does between its pauses: it asks again from the last
    event's time on, and tells what it has shown by the events' ids."""

    def __init__(self, logs, group, since):
        self.pages = logs.get_paginator("filter_log_events")
        self.group, self.since, self.shown = group, since, set()

    def more(self):
        new = []
        for page in self.pages.paginate(logGroupName=self.group, startTime=self.since, interleaved=True):
            for event in page["events"]:
                if event["timestamp"] > self.since:
                    self.since, self.shown = event["timestamp"], set()
                if event["eventId"] not in self.shown:
                    self.shown.add(event["eventId"])
                    new.append(event["message"])
        return new


# What containers write.

@pytest.fixture
def tools(tmp_path, engine):
    """`gantry up` with an image that has a shell."""
    installation = Platform(tmp_path / "gantry", docker=engine)
    installation.image("load", image(tmp_path))
    installation.start()
    try:
        yield installation
    finally:
        installation.sweep()
    assert leftovers(installation.directory) == []


def logging(script, driver, **options):
    app = {"name": "app", "image": IMAGE, "memory": 32, "essential": True, **sh(script),
           "logConfiguration": {"logDriver": driver, "options": options}}
    return {"family": "counter", "networkMode": "bridge", "containerDefinitions": [app]}


def counter(script, **options):
    return logging(script, "awslogs", **{"awslogs-group": GROUP, "awslogs-stream-prefix": "test", **options})


def written(platform, **arguments):
    """All events of the group, in order."""
    client = platform.client("logs")
    try:
        pages = client.get_paginator("filter_log_events").paginate(logGroupName=GROUP, **arguments)
        return [event for page in pages for event in page["events"]]
    except client.exceptions.ResourceNotFoundException:
        return []


@needs_root
@both_runtimes
def test_lines_of_a_container_are_there_within_two_seconds(tools):
    script = "while true; do echo at $(busybox date +%s); echo bad >&2; sleep 1; done"
    arn = run(tools.client("ecs"), counter(script, **{"awslogs-create-group": "true"}))
    events = until(lambda: [e for e in written(tools) if e["message"].startswith("at ")][3:])
    for event in events:
        assert 0 <= event["timestamp"] / 1000 - int(event["message"].split()[1]) < 1.5
        assert event["ingestionTime"] - event["timestamp"] < 2000
    assert events[0]["logStreamName"] == f"test/app/{arn.split('/')[-1]}"
    assert any(event["message"] == "bad" for event in written(tools))
    # Without a prefix a stream is called by its container's id.
    definition = logging("echo nameless", "awslogs", **{"awslogs-group": GROUP})
    nameless = run(tools.client("ecs"), {**definition, "family": "nameless"})
    event = until(lambda: next((e for e in written(tools) if e["message"] == "nameless"), None))
    assert event["logStreamName"] == describe(tools.client("ecs"), nameless)["containers"][0]["runtimeId"]
    tail = Following(tools.client("logs"), GROUP, now())
    assert until(tail.more) and until(tail.more)


@needs_root
@both_runtimes
def test_nothing_is_lost_or_repeated_when_everything_is_killed(tools):
    script = "i=0; while [ $i -lt 3000 ]; do i=$((i+1)); echo line $i; [ $((i % 100)) = 0 ] && sleep 0.2; done; sleep 1000"
    arn = run(tools.client("ecs"), counter(script))
    for _ in range(3):
        until(lambda: len(written(tools)) > 100)
        tools.end(signal.SIGKILL)
        time.sleep(0.7)
        tools.start()
    until(lambda: any(event["message"] == "line 3000" for event in written(tools)))
    events = written(tools)
    assert [event["message"] for event in events] == [f"line {n}" for n in range(1, 3001)]
    ecs = tools.client("ecs")
    assert describe(ecs, arn)["lastStatus"] == "RUNNING"
    ecs.stop_task(task=arn)


@needs_root
@both_runtimes
def test_the_last_words_of_a_container_and_its_joined_lines_arrive(tools):
    script = "echo '[1] first'; echo '  more'; echo '[2] second'; exit 3"
    ecs = tools.client("ecs")
    arn = run(ecs, counter(script, **{"awslogs-multiline-pattern": r"^\[\d+\]"}))
    wait(ecs, "tasks_stopped", tasks=[arn])
    events = until(lambda: written(tools)[1:] and written(tools))
    assert [event["message"] for event in events] == ["[1] first\n  more", "[2] second"]


@needs_root
def test_a_group_that_must_not_be_made_has_to_be_there(tools):
    ecs = tools.client("ecs")
    arn = run(ecs, counter("true", **{"awslogs-create-group": "false"}))
    wait(ecs, "tasks_stopped", tasks=[arn])
    container, = describe(ecs, arn)["containers"]
    assert container["reason"].startswith("CannotStartContainerError: failed to initialize logging driver"), container
    assert "The specified log group does not exist." in container["reason"]


@needs_root
@both_runtimes
def test_syslog_and_fluentd_get_the_lines(tools):
    ecs = tools.client("ecs")
    syslog = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    syslog.bind(("127.0.0.1", 0))
    syslog.settimeout(20)
    address = f"udp://127.0.0.1:{syslog.getsockname()[1]}"
    run(ecs, logging("echo to syslog; echo oops >&2", "syslog",
                     **{"syslog-address": address, "syslog-facility": "local1", "syslog-format": "rfc5424", "tag": "t"}))
    lines = sorted(syslog.recv(65536).decode() for _ in range(2))
    assert lines[0].startswith("<139>1 20") and lines[0].endswith(" t - oops")
    assert lines[1].startswith("<142>1 20") and lines[1].endswith(" t - to syslog")

    fluentd = socket.create_server(("127.0.0.1", 0))
    fluentd.settimeout(20)
    address = f"127.0.0.1:{fluentd.getsockname()[1]}"
    run(ecs, logging("echo to fluentd", "fluentd", **{"fluentd-address": address, "tag": "of.{{.Name}}"}))
    connection, _ = fluentd.accept()
    connection.settimeout(20)
    batch = connection.recv(65536)
    assert batch.startswith(b"\x92\xa6of.app\xdd\0\0\0\x01") and batch.endswith(b"\xa3log\xaato fluentd")
