//! Scripts: calls in, replies out, with events in a store in memory.
#![allow(clippy::unwrap_used)]

use super::SERVICE;
use super::links::LiveTail;
use crate::bulk::logs::Found;
use crate::bulk::memory::MemoryLogs;
use crate::bulk::{Answer, Request};
use crate::call::{Call, Caller, Principal};
use crate::service::Prepared;
use crate::services::ecs::placement::Placers;
use crate::state::ScopeState;
use crate::tx::{Tx, View};
use gantry_decide::ids::{AccountId, RequestId, Scope};
use gantry_decide::random::Seeded;
use gantry_decide::time::Timestamp;
use gantry_wire::{ApiError, json};
use serde_json::{Value, json};

const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;
/// When scripts begin, in milliseconds.
const BEGIN: i64 = 1_700_000_000_000;

struct World {
    scope: Scope,
    state: ScopeState,
    events: MemoryLogs,
    now: Timestamp,
    random: Seeded,
}

impl World {
    fn new() -> World {
        World {
            scope: Scope { account: AccountId::DEFAULT, region: "eu-north-1".parse().unwrap() },
            state: ScopeState::default(),
            events: MemoryLogs::default(),
            now: Timestamp::from_millis(BEGIN),
            random: Seeded::new(7),
        }
    }

    /// A world with the group `app` and its stream `one`.
    fn with_stream() -> World {
        let mut world = World::new();
        world.does("CreateLogGroup", json!({"logGroupName": "app"}));
        world.does("CreateLogStream", json!({"logGroupName": "app", "logStreamName": "one"}));
        world
    }

    fn prepare(&mut self, operation: &str, request: &Value) -> Result<Prepared, ApiError> {
        let caller = Caller {
            scope: self.scope.clone(),
            principal: Principal::Root,
            access_key_id: "AKIAEXAMPLE".to_owned(),
        };
        let request_id = RequestId::random(&mut self.random);
        let call = Call { caller, request_id, endpoint: String::new() };
        let body = request.to_string();
        (SERVICE.operation(operation).unwrap().prepare)(call, &mut |structure| {
            json::read(structure, body.as_bytes())
        })
    }

    fn follow(&mut self, request: Value) -> Result<LiveTail, ApiError> {
        let Prepared::Follow(follow) = self.prepare("StartLiveTail", &request)? else { panic!("it goes on") };
        follow(View { scope: &self.scope, state: &self.state, now: self.now })
    }

    fn call(&mut self, operation: &str, request: Value) -> Result<Value, ApiError> {
        let prepared = self.prepare(operation, &request)?;
        let view = View { scope: &self.scope, state: &self.state, now: self.now };
        let response = match prepared {
            Prepared::Read(read) => read(view)?,
            Prepared::Bulk(bulk) => {
                let plan = bulk(view)?;
                let Request::Logs(request) = plan.request;
                (plan.reply)(Ok(Answer::Logs(self.events.perform(request))))?
            }
            Prepared::Follow(_) => panic!("{operation} has no end"),
            Prepared::Fetch(_) => panic!("{operation} needs no objects"),
            Prepared::Write(write) => {
                let mut state = self.state.clone();
                let (scope, now) = (&self.scope, self.now);
                let (random, placers) = (&mut self.random, &mut Placers::default());
                let mut tx = Tx { scope, state: &mut state, now, random, placers };
                let response = write(&mut tx)?;
                state.logs.check_invariants();
                self.state = state;
                response
            }
        };
        Ok(serde_json::from_slice(&json::to_vec(response.as_ref())).unwrap())
    }

    #[track_caller]
    fn does(&mut self, operation: &str, request: Value) -> Value {
        self.call(operation, request).unwrap()
    }

    #[track_caller]
    fn fails(&mut self, operation: &str, request: Value, code: &str) -> String {
        let error = self.call(operation, request).unwrap_err();
        assert_eq!((error.code.as_ref(), error.status), (code, 400), "{error}");
        error.message
    }

    /// Puts events into the stream `one` of `app`.
    #[track_caller]
    fn put(&mut self, events: &[(i64, &str)]) -> Value {
        self.does("PutLogEvents", batch(events))
    }

    #[track_caller]
    fn get(&mut self, more: Value) -> (Vec<String>, String, String) {
        let mut request = json!({"logGroupName": "app", "logStreamName": "one"});
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let page = self.does("GetLogEvents", request);
        let token = |name: &str| page[name].as_str().unwrap().to_owned();
        (messages(&page), token("nextForwardToken"), token("nextBackwardToken"))
    }
}

fn batch(events: &[(i64, &str)]) -> Value {
    let events: Vec<Value> =
        events.iter().map(|(at, message)| json!({"timestamp": at, "message": message})).collect();
    json!({"logGroupName": "app", "logStreamName": "one", "logEvents": events})
}

fn messages(page: &Value) -> Vec<String> {
    let events = page["events"].as_array().unwrap();
    events.iter().map(|event| event["message"].as_str().unwrap().to_owned()).collect()
}

const INVALID: &str = "InvalidParameterException";
const MISSING: &str = "ResourceNotFoundException";

#[test]
fn groups_live_and_die_with_what_is_in_them() {
    let mut world = World::with_stream();
    world.fails("CreateLogGroup", json!({"logGroupName": "app"}), "ResourceAlreadyExistsException");
    world.fails("CreateLogGroup", json!({"logGroupName": "a b"}), INVALID);
    world.fails("CreateLogGroup", json!({"logGroupName": "k", "kmsKeyId": "x"}), INVALID);
    world.does("CreateLogGroup", json!({"logGroupName": "/ecs/web", "tags": {"team": "red"}}));
    world.does("PutRetentionPolicy", json!({"logGroupName": "app", "retentionInDays": 7}));
    world.fails("PutRetentionPolicy", json!({"logGroupName": "app", "retentionInDays": 8}), INVALID);

    let groups = world.does("DescribeLogGroups", json!({}));
    let names: Vec<_> =
        groups["logGroups"].as_array().unwrap().iter().map(|group| &group["logGroupName"]).collect();
    assert_eq!(names, ["/ecs/web", "app"]);
    let app = world.does("DescribeLogGroups", json!({"logGroupNamePrefix": "ap"}))["logGroups"][0].take();
    assert_eq!(app["arn"], "arn:aws:logs:eu-north-1:123456789012:log-group:app:*");
    assert_eq!(app["retentionInDays"], 7);
    assert_eq!(app["creationTime"], BEGIN);
    let found = world.does("DescribeLogGroups", json!({"logGroupNamePattern": "WEB"}));
    assert_eq!(found["logGroups"].as_array().unwrap().len(), 1);

    world.put(&[(BEGIN, "gone with its group")]);
    world.does("DeleteLogGroup", json!({"logGroupName": "app"}));
    world.fails("DeleteLogGroup", json!({"logGroupName": "app"}), MISSING);
    let message = world.fails("PutLogEvents", batch(&[(BEGIN, "x")]), MISSING);
    assert_eq!(message, "The specified log group does not exist.");
    world.does("CreateLogGroup", json!({"logGroupName": "app"}));
    world.does("CreateLogStream", json!({"logGroupName": "app", "logStreamName": "one"}));
    assert_eq!(world.get(json!({})).0, Vec::<String>::new(), "a new group of an old name is empty");
}

#[test]
fn group_pages_cover_all() {
    let mut world = World::new();
    for number in 0..7 {
        world.does("CreateLogGroup", json!({"logGroupName": format!("g{number}")}));
    }
    let mut seen = 0;
    let mut request = json!({"limit": 3});
    loop {
        let page = world.does("DescribeLogGroups", request.clone());
        seen += page["logGroups"].as_array().unwrap().len();
        match page.get("nextToken") {
            Some(token) => request["nextToken"] = token.clone(),
            None => break,
        }
    }
    assert_eq!(seen, 7);
    world.fails("DescribeLogGroups", json!({"limit": 51}), INVALID);
}

#[test]
fn streams_are_listed_by_name_and_by_their_last_event() {
    let mut world = World::with_stream();
    for name in ["two", "web/app/1"] {
        world.does("CreateLogStream", json!({"logGroupName": "app", "logStreamName": name}));
    }
    world.fails(
        "CreateLogStream",
        json!({"logGroupName": "app", "logStreamName": "two"}),
        "ResourceAlreadyExistsException",
    );
    world.fails("CreateLogStream", json!({"logGroupName": "app", "logStreamName": "a:b"}), INVALID);
    world.put(&[(BEGIN + 5, "a"), (BEGIN + 9, "b")]);
    let names = |page: &Value| -> Vec<String> {
        let streams = page["logStreams"].as_array().unwrap();
        streams.iter().map(|stream| stream["logStreamName"].as_str().unwrap().to_owned()).collect()
    };
    let page = world.does("DescribeLogStreams", json!({"logGroupName": "app", "descending": true}));
    assert_eq!(names(&page), ["web/app/1", "two", "one"]);
    assert_eq!(page["logStreams"][2]["firstEventTimestamp"], BEGIN + 5);
    assert_eq!(page["logStreams"][2]["lastEventTimestamp"], BEGIN + 9);
    assert!(page["logStreams"][1].get("lastEventTimestamp").is_none());
    let request = json!({"logGroupName": "app", "orderBy": "LastEventTime", "descending": true, "limit": 1});
    assert_eq!(names(&world.does("DescribeLogStreams", request)), ["one"]);
    let request = json!({"logGroupName": "app", "logStreamNamePrefix": "web/"});
    assert_eq!(names(&world.does("DescribeLogStreams", request)), ["web/app/1"]);

    world.does("DeleteLogStream", json!({"logGroupName": "app", "logStreamName": "one"}));
    assert!(messages(&world.does("FilterLogEvents", json!({"logGroupName": "app"}))).is_empty());
    assert_eq!(
        world.fails("PutLogEvents", batch(&[(BEGIN, "x")]), MISSING),
        "The specified log stream does not exist."
    );
}

#[test]
fn batches_keep_awss_limits() {
    let mut world = World::with_stream();
    world.fails("PutLogEvents", batch(&[]), INVALID);
    world.fails("PutLogEvents", batch(&[(BEGIN, "")]), INVALID);
    world.fails("PutLogEvents", batch(&[(BEGIN, "b"), (BEGIN - 1, "a")]), INVALID);
    world.fails("PutLogEvents", batch(&[(BEGIN - DAY - 1, "a"), (BEGIN, "b")]), INVALID);
    world.put(&[(BEGIN - DAY, "a"), (BEGIN, "b")]);
    let too_much = "x".repeat(1_048_576 - 25);
    let message = world.fails("PutLogEvents", batch(&[(BEGIN, &too_much)]), INVALID);
    assert_eq!(message, "Upload too large: 1048577 bytes exceeds limit of 1048576");
    world.put(&[(BEGIN, &too_much[1..])]);
    let many = vec![(BEGIN, "x"); 10_001];
    world.fails("PutLogEvents", batch(&many), INVALID);
    world.put(&many[1..]);
}

#[test]
fn events_out_of_time_are_refused_one_by_one() {
    let mut world = World::with_stream();
    let old = BEGIN - 14 * DAY;
    let reply = world.put(&[(old - 2, "a"), (old - 1, "b"), (old, "kept")]);
    assert_eq!(reply["rejectedLogEventsInfo"], json!({"tooOldLogEventEndIndex": 2}));
    let new = BEGIN + 2 * HOUR;
    let reply = world.put(&[(new, "kept too"), (new + 1, "c")]);
    assert_eq!(reply["rejectedLogEventsInfo"], json!({"tooNewLogEventStartIndex": 1}));
    assert_eq!(world.get(json!({"startFromHead": true})).0, ["kept", "kept too"]);
    world.does("PutRetentionPolicy", json!({"logGroupName": "app", "retentionInDays": 1}));
    assert_eq!(world.get(json!({})).0, ["kept too"], "what is past its retention is not shown");
    let reply = world.put(&[(BEGIN - DAY - 1, "d"), (BEGIN - DAY, "e")]);
    assert_eq!(reply["rejectedLogEventsInfo"], json!({"expiredLogEventEndIndex": 1}));
    assert!(world.put(&[(BEGIN, "f")]).get("rejectedLogEventsInfo").is_none());
}

#[test]
fn tokens_lead_both_ways_and_stay_at_the_ends() {
    let mut world = World::with_stream();
    let (none, forward, backward) = world.get(json!({}));
    assert!(none.is_empty());
    assert_eq!(world.get(json!({"nextToken": forward})).1, forward, "the same token at the end");
    world.put(&[(BEGIN, "1"), (BEGIN, "2"), (BEGIN + 1, "3"), (BEGIN + 2, "4"), (BEGIN + 3, "5")]);
    assert_eq!(world.get(json!({"nextToken": forward})).0.len(), 5, "a token from before goes on");
    assert!(world.get(json!({"nextToken": backward})).0.is_empty());

    let (newest, forward, backward) = world.get(json!({"limit": 2}));
    assert_eq!(newest, ["4", "5"]);
    let (older, _, backward) = world.get(json!({"limit": 2, "nextToken": backward}));
    assert_eq!(older, ["2", "3"]);
    let (oldest, again, backward) = world.get(json!({"limit": 2, "nextToken": backward}));
    assert_eq!(oldest, ["1"]);
    assert_eq!(world.get(json!({"nextToken": backward})).2, backward);
    assert_eq!(world.get(json!({"limit": 2, "nextToken": again})).0, ["2", "3"], "and back again");

    let (end, same, _) = world.get(json!({"nextToken": forward}));
    assert_eq!((end.len(), &same), (0, &forward));
    world.put(&[(BEGIN + 3, "6")]);
    let (new, next, _) = world.get(json!({"nextToken": forward}));
    assert_eq!(new, ["6"]);
    assert_ne!(next, forward);

    let (from_head, _, _) = world.get(json!({"startFromHead": true, "limit": 2}));
    assert_eq!(from_head, ["1", "2"]);
    let (bounded, _, _) = world.get(json!({"startTime": BEGIN + 1, "endTime": BEGIN + 3}));
    assert_eq!(bounded, ["3", "4"], "the end is exclusive");
    for token in ["", "x", "f/1/s", "g/00000000000000000000000000000000000000000000000000000000/s"] {
        let request = json!({"logGroupName": "app", "logStreamName": "one", "nextToken": token});
        world.fails("GetLogEvents", request, INVALID);
    }
}

#[test]
fn searches_go_over_streams_by_pattern_and_page() {
    let mut world = World::with_stream();
    world.does("CreateLogStream", json!({"logGroupName": "app", "logStreamName": "web/2"}));
    world.put(&[(BEGIN, "ERROR one"), (BEGIN + 2, "fine"), (BEGIN + 4, r#"{"code": 503}"#)]);
    let mut other = batch(&[(BEGIN + 1, "ERROR two"), (BEGIN + 3, "ERROR three")]);
    other["logStreamName"] = json!("web/2");
    world.does("PutLogEvents", other);

    let mut find = |more: Value| {
        let mut request = json!({"logGroupName": "app"});
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        world.does("FilterLogEvents", request)
    };
    let all = find(json!({}));
    assert_eq!(messages(&all), ["ERROR one", "ERROR two", "fine", "ERROR three", r#"{"code": 503}"#]);
    assert_eq!(all["events"][1]["logStreamName"], "web/2");
    assert_eq!(all["events"][1]["eventId"].as_str().unwrap().len(), 56);
    assert_eq!(messages(&find(json!({"filterPattern": "ERROR"}))), ["ERROR one", "ERROR two", "ERROR three"]);
    assert_eq!(messages(&find(json!({"filterPattern": "{ $.code >= 500 }"}))), [r#"{"code": 503}"#]);
    assert_eq!(messages(&find(json!({"logStreamNamePrefix": "web/"}))), ["ERROR two", "ERROR three"]);
    assert_eq!(messages(&find(json!({"logStreamNames": ["one"], "endTime": BEGIN + 2}))).len(), 2);
    let first = find(json!({"filterPattern": "ERROR", "limit": 2}));
    let second = find(json!({"filterPattern": "ERROR", "limit": 2, "nextToken": first["nextToken"]}));
    assert_eq!(messages(&second), ["ERROR three"]);
    assert!(second.get("nextToken").is_none());

    world.fails("FilterLogEvents", json!({"logGroupName": "app", "filterPattern": "{ $.a = "}), INVALID);
    world.fails("FilterLogEvents", json!({"logGroupName": "app", "logStreamNames": ["three"]}), MISSING);
    world.fails("FilterLogEvents", json!({}), INVALID);
    let by_arn = json!({"logGroupIdentifier": "arn:aws:logs:eu-north-1:123456789012:log-group:app"});
    assert_eq!(messages(&world.does("FilterLogEvents", by_arn)).len(), 5);
}

#[test]
fn a_writer_with_a_cursor_neither_loses_nor_repeats() {
    let mut world = World::with_stream();
    let put = |world: &mut World, token: &str, message: &str| {
        let mut request = batch(&[(BEGIN, message)]);
        request["sequenceToken"] = json!(token);
        world.call("PutLogEvents", request)
    };
    let reply = put(&mut world, "cursor//1.10", "a").unwrap();
    assert_eq!(reply["nextSequenceToken"], "1.10");
    assert_eq!(put(&mut world, "cursor//1.10", "a").unwrap_err().code, "DataAlreadyAcceptedException");
    let error = put(&mut world, "cursor/1.5/1.20", "b").unwrap_err();
    assert_eq!(error.code, "InvalidSequenceTokenException");
    assert!(error.message.ends_with("is: 1.10"), "{error}");
    put(&mut world, "cursor/1.10/1.20", "b").unwrap();
    put(&mut world, "49590302938475", "another client's token is taken and ignored").unwrap();
    assert_eq!(world.get(json!({})).0.len(), 3);
    let streams = world.does("DescribeLogStreams", json!({"logGroupName": "app"}));
    assert_eq!(streams["logStreams"][0]["uploadSequenceToken"], "1.20");
}

#[test]
fn tags_are_kept_by_both_kinds_of_operations() {
    let mut world = World::with_stream();
    let arn = "arn:aws:logs:eu-north-1:123456789012:log-group:app";
    world.does("TagResource", json!({"resourceArn": arn, "tags": {"a": "1", "b": "2"}}));
    world.does("TagLogGroup", json!({"logGroupName": "app", "tags": {"b": "3"}}));
    world.does("UntagResource", json!({"resourceArn": format!("{arn}:*"), "tagKeys": ["a"]}));
    let tags = world.does("ListTagsForResource", json!({"resourceArn": arn}));
    assert_eq!(tags["tags"], json!({"b": "3"}));
    world.does("UntagLogGroup", json!({"logGroupName": "app", "tags": ["b"]}));
    assert_eq!(world.does("ListTagsLogGroup", json!({"logGroupName": "app"}))["tags"], json!({}));
    let many: serde_json::Map<String, Value> = (0..51).map(|n| (n.to_string(), json!("x"))).collect();
    world.fails("TagResource", json!({"resourceArn": arn, "tags": many}), "TooManyTagsException");
    world.fails("TagResource", json!({"resourceArn": arn, "tags": {"aws:x": "1"}}), INVALID);
    let elsewhere = "arn:aws:logs:eu-west-1:123456789012:log-group:app";
    world.fails("ListTagsForResource", json!({"resourceArn": elsewhere}), MISSING);
}

#[test]
fn metric_filters_are_kept_and_can_be_tried() {
    let mut world = World::with_stream();
    let transformation = json!({"metricName": "Errors", "metricNamespace": "App", "metricValue": "1"});
    let filter = |pattern: &str, to: &Value| {
        json!({"logGroupName": "app", "filterName": "errors", "filterPattern": pattern,
               "metricTransformations": [to]})
    };
    world.does("PutMetricFilter", filter("ERROR", &transformation));
    world.fails("PutMetricFilter", filter("{", &transformation), INVALID);
    let wrong = json!({"metricName": "a:b", "metricNamespace": "App", "metricValue": "1"});
    world.fails("PutMetricFilter", filter("ERROR", &wrong), INVALID);
    let found =
        world.does("DescribeMetricFilters", json!({"metricName": "Errors", "metricNamespace": "App"}));
    assert_eq!(found["metricFilters"][0]["filterPattern"], "ERROR");
    assert_eq!(found["metricFilters"][0]["metricTransformations"][0], transformation);
    assert_eq!(world.does("DescribeLogGroups", json!({}))["logGroups"][0]["metricFilterCount"], 1);

    let tried = world.does(
        "TestMetricFilter",
        json!({"filterPattern": "[ip, code = 5*]", "logEventMessages": ["::1 200", "::2 503"]}),
    );
    let matches = tried["matches"].as_array().unwrap();
    assert_eq!(matches.len(), 1);
    assert_eq!(
        (&matches[0]["eventNumber"], &matches[0]["extractedValues"]["$ip"]),
        (&json!(2), &json!("::2"))
    );
    world.does("DeleteMetricFilter", json!({"logGroupName": "app", "filterName": "errors"}));
    world.fails("DeleteMetricFilter", json!({"logGroupName": "app", "filterName": "errors"}), MISSING);
}

#[test]
fn an_agent_may_write_and_not_read() {
    let mut world = World::with_stream();
    let caller = Caller {
        scope: world.scope.clone(),
        principal: Principal::Agent,
        access_key_id: "AKIAEXAMPLE".to_owned(),
    };
    let request_id = RequestId::random(&mut world.random);
    let call = Call { caller, request_id, endpoint: String::new() };
    let prepare = |operation: &str| {
        let operation = SERVICE.operation(operation).unwrap();
        (operation.prepare)(call.clone(), &mut |_| Ok(())).map(drop)
    };
    prepare("PutLogEvents").unwrap();
    assert_eq!(prepare("GetLogEvents").unwrap_err().code, "AccessDeniedException");
}

#[test]
fn a_live_tail_shows_what_was_asked_for_and_a_sample_of_too_much() {
    let mut world = World::with_stream();
    let arn = format!("arn:aws:logs:eu-north-1:{}:log-group:app", world.scope.account);
    let mut tail = world
        .follow(json!({"logGroupIdentifiers": [arn], "logStreamNamePrefixes": ["o"], "logEventFilterPattern": "error"}))
        .unwrap();
    assert_eq!(tail.start().1.log_group_identifiers, Some(vec![arn.clone()]));
    // Streams that came to be later are known by then.
    for name in ["other", "elsewhere"] {
        world.does("CreateLogStream", json!({"logGroupName": "app", "logStreamName": name}));
    }
    let group = *tail.groups().first().unwrap();
    let stream = |name: &str| world.state.logs.streams.values().find(|s| s.name.as_str() == name).unwrap().id;
    let event = |name: &str, number: u64, message: &str| {
        let (at, message) = (world.now, message.to_owned());
        (group, Found { stream: stream(name), at, number, ingested_at: at, message })
    };
    let view = View { scope: &world.scope, state: &world.state, now: world.now };
    let shown = |tail: &mut LiveTail| {
        let update = tail.update().1;
        let messages = update.session_results.unwrap().into_iter();
        let shown: Vec<_> = messages
            .map(|e| (e.log_stream_name.unwrap(), e.log_group_identifier.unwrap(), e.message.unwrap()))
            .collect();
        (update.session_metadata.unwrap().sampled.unwrap(), shown)
    };
    assert_eq!(shown(&mut tail), (false, vec![]));
    let came = vec![
        event("one", 0, "error 1"),
        event("one", 1, "fine"),
        event("elsewhere", 2, "error 2"),
        event("other", 3, "error 3"),
    ];
    tail.take(view, came, false);
    let (sampled, seen) = shown(&mut tail);
    let name = format!("{}:app", world.scope.account);
    let one = |stream: &str, text: &str| (stream.to_owned(), name.clone(), text.to_owned());
    assert_eq!((sampled, seen), (false, vec![one("one", "error 1"), one("other", "error 3")]));
    for many in 0..4 {
        let came = (0..400).map(|n| event("one", n, &format!("error {}", many * 400 + n)));
        tail.take(view, came.collect(), false);
    }
    let (sampled, seen) = shown(&mut tail);
    assert!(sampled && (250..=500).contains(&seen.len()), "{}", seen.len());
    let numbers: Vec<usize> = seen.iter().map(|(.., text)| text[6..].parse().unwrap()).collect();
    assert!(numbers.windows(2).all(|two| two[1] - two[0] == 4) && numbers[0] == 0, "{numbers:?}");
    assert_eq!(shown(&mut tail), (false, vec![]));
    tail.take(view, vec![event("one", 9, "error")], true);
    assert!(shown(&mut tail).0, "some were missed");

    for (wrong, code) in [
        (json!({"logGroupIdentifiers": ["app"]}), "InvalidParameterException"),
        (json!({"logGroupIdentifiers": [format!("{arn}:*")]}), "InvalidParameterException"),
        (json!({"logGroupIdentifiers": [arn.replace(":app", ":none")]}), "ResourceNotFoundException"),
        (
            json!({"logGroupIdentifiers": [arn], "logStreamNames": ["a"], "logStreamNamePrefixes": ["b"]}),
            "InvalidParameterException",
        ),
    ] {
        assert_eq!(world.follow(wrong).unwrap_err().code, code);
    }
}
