//! The readers of outside input, each with samples that it takes.

use crate::balancing;
use gantry_agent::images::{FileContent, ImageBuilder, ImageStore, load};
use gantry_agent::protocol::payload;
use gantry_api::{acs, ec2, ecs, sts, tcs};
use gantry_decide::ids::AccountId;
use gantry_decide::log_filter::Pattern;
use gantry_decide::query::Query;
use gantry_decide::task::validate::validate;
use gantry_wire::data_channel::stream::Stream;
use gantry_wire::data_channel::{Kind, Message};
use gantry_wire::envelope::Frame;
use gantry_wire::sigv4::{Claim, Payload, SignedRequest};
use gantry_wire::{EpochMillis, Secret, json, query};
use std::time::Duration;

pub type Reader = Box<dyn Fn(&[u8])>;

pub struct Target {
    pub name: &'static str,
    pub samples: fn() -> Vec<Vec<u8>>,
    pub reader: fn() -> Reader,
}

pub const TARGETS: &[Target] = &[
    Target { name: "json", samples: json_samples, reader: json_reader },
    Target { name: "query", samples: query_samples, reader: query_reader },
    Target { name: "sigv4", samples: sigv4_samples, reader: sigv4_reader },
    Target { name: "chunked", samples: chunked_samples, reader: chunked_reader },
    Target { name: "channel", samples: channel_samples, reader: channel_reader },
    Target { name: "log-filter", samples: log_filter_samples, reader: log_filter_reader },
    Target { name: "expression", samples: expression_samples, reader: expression_reader },
    Target { name: "agent", samples: agent_samples, reader: agent_reader },
    Target { name: "definition", samples: definition_samples, reader: definition_reader },
    Target { name: "request", samples: balancing::request_samples, reader: balancing::request_reader },
    Target { name: "rule", samples: balancing::rule_samples, reader: balancing::rule_reader },
    Target { name: "archive", samples: archive_samples, reader: archive_reader },
];

pub fn all(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

const DEFINITION: &str = r#"{"family":"web","networkMode":"awsvpc","requiresCompatibilities":["FARGATE"],"cpu":"256","memory":"512",
    "containerDefinitions":[{"name":"web","image":"nginx:latest","portMappings":[{"containerPort":80,"protocol":"tcp"}],
    "environment":[{"name":"A","value":"b"}],"dependsOn":[{"containerName":"web","condition":"START"}],
    "healthCheck":{"command":["CMD","true"],"interval":5},"ulimits":[{"name":"nofile","softLimit":1,"hardLimit":2}]}],
    "volumes":[{"name":"v","host":{"sourcePath":"/x"}}]}"#;

fn json_samples() -> Vec<Vec<u8>> {
    all(&[
        DEFINITION,
        r#"{"cluster":"c","taskDefinition":"a:1","count":3,"overrides":{"containerOverrides":[{"name":"web","command":["x"]}]},"tags":[{"key":"k","value":"v"}]}"#,
        r#"{"serviceName":"s","desiredCount":2,"deploymentConfiguration":{"maximumPercent":200,"deploymentCircuitBreaker":{"enable":true,"rollback":false}}}"#,
        r#"{"task":"arn:aws:ecs:r:1:task/c/1","status":"RUNNING","pullStartedAt":1.5e9,"containers":[{"containerName":"c","exitCode":-1}]}"#,
    ])
}

fn json_reader() -> Reader {
    Box::new(|input| {
        for operation in ["RegisterTaskDefinition", "RunTask", "CreateService", "SubmitTaskStateChange"] {
            let (mut request, _) = ecs::shapes(operation).expect("an operation of ECS");
            // An error is an answer.
            let _ = json::read_request(request.as_mut(), input);
        }
    })
}

fn query_samples() -> Vec<Vec<u8>> {
    all(&[
        "Action=GetCallerIdentity&Version=2011-06-15",
        "Action=AssumeRole&RoleArn=arn%3Aaws&RoleSessionName=x&DurationSeconds=900&Tags.member.1.Key=a&Tags.member.1.Value=b",
        "Action=AuthorizeSecurityGroupIngress&GroupId=sg-1&IpPermissions.1.IpProtocol=tcp&IpPermissions.1.FromPort=80&IpPermissions.1.IpRanges.2.CidrIp=10.0.0.0%2F8&DryRun=false&Filter.1.Name=x&Filter.1.Value.1=y&MaxResults=5",
        "PolicyArns.member.1.arn=x&PolicyArns.member.99999999.arn=y&TransitiveTagKeys.member.2=z",
    ])
}

fn query_reader() -> Reader {
    Box::new(|input| {
        for operation in sts::SERVICE.operations {
            let (mut request, _) = sts::shapes(operation.name).expect("an operation of STS");
            let _ = query::read(request.as_mut(), input);
        }
        for operation in ec2::SERVICE.operations {
            let (mut request, _) = ec2::shapes(operation.name).expect("an operation of EC2");
            let _ = query::read_ec2(request.as_mut(), input);
        }
    })
}

fn sigv4_samples() -> Vec<Vec<u8>> {
    all(&[
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20260101/us-east-1/ecs/aws4_request, SignedHeaders=host;x-amz-date, Signature=0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
        "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKID%2F20260101%2Fus-east-1%2Fecs%2Faws4_request&X-Amz-Date=20260101T000000Z&X-Amz-Expires=300&X-Amz-SignedHeaders=host&X-Amz-Signature=00",
    ])
}

/// The input as the header and as the query string of a request.
fn sigv4_reader() -> Reader {
    Box::new(|input| {
        let text = String::from_utf8_lossy(input);
        let headers =
            [("host", "localhost"), ("x-amz-date", "20260101T000000Z"), ("authorization", text.as_ref())];
        let in_header =
            SignedRequest { method: "POST", path: "/", query: "", headers: &headers, body: b"{}" };
        let in_query =
            SignedRequest { method: "GET", path: "/", query: &text, headers: &headers[..1], body: b"" };
        for request in [in_header, in_query] {
            if let Ok(claim) = Claim::read(&request) {
                let key = claim.key(&Secret::new("secret"));
                let payload = Payload::Whole(request.body);
                let _ = claim.verify(&request, &payload, &key, EpochMillis(1_767_225_600_000));
            }
        }
    })
}

fn chunked_samples() -> Vec<Vec<u8>> {
    all(&[
        "9\r\n123456789\r\n0\r\nx-amz-checksum-crc32:y/Q5Jg==\r\n\r\n",
        "1;chunk-signature=00\r\na\r\n0;chunk-signature=11\r\nx-amz-checksum-crc32:6Le+Qw==\r\nx-amz-trailer-signature:22\r\n\r\n",
    ])
}

/// The input as a body in each form of chunks. Frames are never data.
fn chunked_reader() -> Reader {
    Box::new(|input| {
        for form in [
            "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
            "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER",
            "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
        ] {
            for length in ["1", "9"] {
                let headers = [
                    ("x-amz-content-sha256", form),
                    ("x-amz-decoded-content-length", length),
                    ("x-amz-trailer", "x-amz-checksum-crc32"),
                ];
                if let Ok(payload) = Payload::read(&headers, input) {
                    assert!(payload.data().len() < input.len(), "frames take room");
                }
            }
        }
    })
}

fn channel_message(kind: Kind, sequence: i64, payload: &[u8]) -> Message {
    Message { kind, sequence, id: [7; 16], created: 1, payload_type: 1, payload: payload.to_vec() }
}

fn channel_samples() -> Vec<Vec<u8>> {
    let acknowledged = br#"{"AcknowledgedMessageType":"input_stream_data","AcknowledgedMessageId":"i","AcknowledgedMessageSequenceNumber":0,"IsSequentialMessage":true}"#;
    let closed = br#"{"MessageId":"m","CreatedDate":"d","DestinationId":"","SessionId":"s","MessageType":"channel_closed","SchemaVersion":1,"Output":"gone"}"#;
    vec![channel_message(Kind::Input, 0, b"ls\r").encode(), acknowledged.to_vec(), closed.to_vec()]
}

/// A message as it came, and one whose sums are right but whose payload is not.
fn channel_reader() -> Reader {
    Box::new(|input| {
        let mut stream = Stream::new(Kind::Output);
        let receive = |stream: &mut Stream, bytes: &[u8]| drop(stream.receive(1, || [1; 16], bytes));
        stream.send(Duration::ZERO, 1, [2; 16], 1, b"$ ".to_vec());
        receive(&mut stream, input);
        for kind in [Kind::Input, Kind::Acknowledge, Kind::ChannelClosed] {
            receive(&mut stream, &channel_message(kind, 0, input).encode());
        }
    })
}

fn log_filter_samples() -> Vec<Vec<u8>> {
    all(&[
        "ERROR -\"exact phrase\" ?this ?that %4[0-9]{2}%",
        "{ ($.a.b[0] = \"x*\" || $.n > 1.5e3) && $.c IS NULL || $['d'].* NOT EXISTS }",
        "[ip, user != root*, ..., status = 4* || status = %5.%, bytes > 1000]",
    ])
}

fn log_filter_reader() -> Reader {
    Box::new(|input| {
        let text = String::from_utf8_lossy(input);
        if let Ok(pattern) = Pattern::parse(&text) {
            for event in [&text, r#"{"a":{"b":["xy"]},"n":2000,"c":null}"#, "127.0.0.1 me [now] 404 1234"] {
                let _ = (pattern.matches(event), pattern.extract(event));
            }
        }
    })
}

fn expression_samples() -> Vec<Vec<u8>> {
    all(&[
        "attribute:ecs.instance-type =~ g2.* and attribute:ecs.availability-zone != us-east-1d",
        "not(task:group == service:web) or (runningTasksCount < 5 && agentVersion >= 1.2.3)",
        "attribute:stack in ['a', b, c] || registeredAt > 2018-06-18T22:28:28+00:00 and attribute:x !exists",
    ])
}

fn expression_reader() -> Reader {
    Box::new(|input| {
        let _ = Query::parse(&String::from_utf8_lossy(input));
    })
}

fn agent_samples() -> Vec<Vec<u8>> {
    all(&[
        r#"{"type":"PayloadMessage","message":{"messageId":"m","clusterArn":"c","containerInstanceArn":"i","seqNum":1,"tasks":[{"arn":"t","desiredStatus":"RUNNING","cpu":0.5,"containers":[{"name":"a","essential":true,"cpu":1,"memory":64,"portMappings":[{"containerPort":80,"hostPort":0,"protocol":"tcp"}],"dockerConfig":{"config":"{\"User\":\"1\"}","hostConfig":"{\"CapDrop\":[\"ALL\"]}"}}]}]}}"#,
        r#"{"type":"TaskManifestMessage","message":{"messageId":"m","timeline":3,"tasks":[{"taskArn":"t","desiredStatus":"RUNNING"}]}}"#,
        "Authorization: x\r\nHost: h\r\n\r\n{\"type\":\"PublishHealthRequest\",\"message\":{\"tasks\":[{\"taskArn\":\"t\",\"containers\":[{\"containerName\":\"c\",\"healthStatus\":\"HEALTHY\"}]}],\"timestamp\":1.5}}",
    ])
}

fn agent_reader() -> Reader {
    Box::new(|input| {
        let text = String::from_utf8_lossy(input);
        let Some(frame) = Frame::open_signed(&text) else { return };
        if let Ok(message) = frame.message::<acs::PayloadMessage>() {
            for task in message.tasks.iter().flatten() {
                let _ = payload::compile(task).map_err(|error| error.failure().reason());
            }
        }
        let _ = frame.message::<acs::TaskManifestMessage>();
        let _ = frame.message::<tcs::PublishHealthRequest>();
    })
}

fn definition_samples() -> Vec<Vec<u8>> {
    all(&[DEFINITION])
}

/// ECS's rules for task definitions, on whatever reads as JSON.
fn definition_reader() -> Reader {
    Box::new(|input| {
        let mut request = ecs::RegisterTaskDefinitionRequest::default();
        if json::read(&mut request, input).is_ok()
            && let Ok(value) = serde_json::from_slice(&json::to_vec(&request))
        {
            let _ = validate(value, AccountId::DEFAULT);
        }
    })
}

/// Archives as `docker save` makes them, whole and small.
fn archive_samples() -> Vec<Vec<u8>> {
    let directory = tempfile::tempdir().expect("a scratch directory");
    let store = ImageStore::open(directory.path().join("images")).expect("an image store");
    let image = ImageBuilder::new()
        .file("/etc/hello", 0o644, FileContent::Bytes(b"hello".to_vec()))
        .file("/link", 0o777, FileContent::Symlink("../../etc/passwd".to_owned()))
        .file("/dir", 0o755, FileContent::Directory);
    let mut archive = Vec::new();
    let name = "sample:1".parse().expect("a reference");
    image.write_archive(&store, &name, &mut archive).expect("an archive");
    vec![archive]
}

fn archive_reader() -> Reader {
    let directory = tempfile::tempdir().expect("a scratch directory");
    let store = ImageStore::open(directory.path().join("images")).expect("an image store");
    Box::new(move |input| {
        let _ = load(&store, input);
        // Nothing of a hostile archive lies beside the store.
        let outside = std::fs::read_dir(directory.path()).expect("the scratch directory").count();
        assert_eq!(outside, 1, "an archive wrote outside of the store");
    })
}
