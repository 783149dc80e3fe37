//! What a task is given, with a small server in the services' place.
#![allow(clippy::unwrap_used)]

use super::*;
use gantry_api::acs::RoleCredentials;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::convert::Infallible;
use tokio::net::TcpListener;

/// What came in: method and path, target, who signed, body.
type Log = Arc<Mutex<Vec<(String, String, String, Value)>>>;

/// A server that holds what the tests name, and its address.
async fn server() -> (StoreEndpoint, Log) {
    let log = Log::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
    let seen = Arc::clone(&log);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let seen = Arc::clone(&seen);
            tokio::spawn(async move {
                let answer = service_fn(|request| answer(request, Arc::clone(&seen)));
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), answer)
                    .await
            });
        }
    });
    (address, log)
}

async fn answer(
    request: http::Request<Incoming>,
    log: Log,
) -> Result<http::Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let body: Value = serde_json::from_slice(&body.collect().await.unwrap().to_bytes()).unwrap_or_default();
    let header =
        |name: &str| parts.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default();
    let target = header("x-amz-target");
    let (status, text) = match (target, parts.uri.path()) {
        ("AmazonSSM.GetParameters", _) => {
            let names = body["Names"].as_array().unwrap();
            assert!(names.len() <= 10 && body["WithDecryption"] == true);
            let known = names.iter().filter(|name| *name != "absent");
            let found: Vec<Value> =
                known.map(|name| json!({"Name": name, "Value": format!("of {name}")})).collect();
            (200, json!({"Parameters": found, "InvalidParameters": []}).to_string())
        }
        ("secretsmanager.GetSecretValue", _) => match body["SecretId"].as_str().unwrap().rsplit(':').next() {
            Some("db") => {
                let stage = body["VersionStage"].as_str().unwrap_or("current");
                let secret = json!({"password": format!("{stage} hunter2"), "port": 5432});
                (200, json!({"SecretString": secret.to_string()}).to_string())
            }
            Some("registry") => {
                (200, json!({"SecretString": r#"{"username": "u", "password": "p"}"#}).to_string())
            }
            _ => {
                let message = "Secrets Manager can't find the specified secret.";
                (400, json!({"__type": "ResourceNotFoundException", "message": message}).to_string())
            }
        },
        (_, "/bucket/dir%201/a.env") => (200, "A=file one\nB=file one".to_owned()),
        (_, "/bucket/b.env") => (200, "B=file two\nC=file two".to_owned()),
        _ => {
            (404, "<Error><Code>NoSuchKey</Code><Message>There is no such key.</Message></Error>".to_owned())
        }
    };
    let line = format!("{} {}", parts.method, parts.uri.path());
    log.lock().push((line, target.to_owned(), header("authorization").to_owned(), body));
    let mut response = http::Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = http::StatusCode::from_u16(status).unwrap();
    Ok(response)
}

struct World {
    secrets: Secrets,
    roles: RoleStore,
    log: Log,
    arn: TaskArn,
}

async fn world(own_key: bool) -> World {
    let (endpoint, log) = server().await;
    let named = Some(endpoint);
    let key = gantry_wire::sigv4::Credentials {
        access_key_id: "AKIAOPERATOR".to_owned(),
        secret_access_key: Secret::new("s"),
        session_token: None,
    };
    let settings = StoreSettings {
        parameter_store: named.clone(),
        secrets_manager: named.clone(),
        s3: named,
        credentials: own_key.then_some(key),
    };
    let roles = RoleStore::default();
    let arn = TaskArn("arn:aws:ecs:eu-north-1:111122223333:task/default/1".to_owned());
    let given = RoleCredentials {
        credentials_id: Some("execution".to_owned()),
        access_key_id: Some("ASIAEXECUTION".to_owned()),
        secret_access_key: Some(Secret::new("s3cr3t")),
        session_token: Some(Secret::new("token")),
        ..RoleCredentials::default()
    };
    roles.put(&arn, given);
    World { secrets: Secrets::new(settings, "http://127.0.0.1:1", "eu-north-1"), roles, log, arn }
}

impl World {
    async fn fetch(&self, container: &str) -> Outcome {
        let text = format!(
            r#"{{"executionRoleCredentials":{{"credentialsId":"execution"}},"containers":[{{"name":"app",{container}}}]}}"#
        );
        let task: acs::Task = gantry_wire::json::from_slice(text.as_bytes()).unwrap();
        self.secrets.of(&self.roles, &self.arn, &task).await
    }

    async fn refused(&self, container: &str) -> String {
        let failure = self.fetch(container).await.err().unwrap();
        self.secrets.forget(&self.arn);
        failure.reason()
    }
}

fn shown(values: &BTreeMap<String, Secret>) -> Vec<(&str, &str)> {
    values.iter().map(|(name, value)| (name.as_str(), value.expose())).collect()
}

const DB: &str = "arn:aws:secretsmanager:us-east-2:111122223333:secret:db";

#[tokio::test]
async fn everything_that_a_container_names_is_fetched_once() {
    let world = world(false).await;
    let mut secrets: Vec<Value> = (0..11)
        .map(|n| json!({"name": format!("P{n:02}"), "valueFrom": format!("p{n:02}"), "provider": "ssm", "region": "eu-north-1"}))
        .collect();
    secrets.push(json!({"name": "PATH", "valueFrom": "arn:aws:ssm:us-west-2:111122223333:parameter/a/b",
        "provider": "ssm", "region": "us-west-2"}));
    for (name, rest) in
        [("WHOLE", ""), ("KEY", ":password::"), ("OLD", ":password:AWSPREVIOUS:"), ("PORT", ":port::")]
    {
        secrets.push(json!({"name": name, "valueFrom": format!("{DB}{rest}"), "provider": "asm", "region": "us-east-2"}));
    }
    secrets.push(
        json!({"name": "splunk-token", "valueFrom": "token", "provider": "ssm", "region": "eu-north-1",
        "target": "LOG_DRIVER"}),
    );
    let container = format!(
        r#""secrets":{},"environmentFiles":[{{"type":"s3","value":"arn:aws:s3:::bucket/dir 1/a.env"}},
        {{"type":"s3","value":"arn:aws:s3:::bucket/b.env"}}],"registryAuthentication":{{"type":"asm",
        "asmAuthData":{{"credentialsParameter":"arn:aws:secretsmanager:eu-north-1:111122223333:secret:registry","region":"eu-north-1"}}}}"#,
        Value::Array(secrets)
    );
    let (first, second) = tokio::join!(world.fetch(&container), world.fetch(&container));
    let (fetched, again) = (first.unwrap(), second.unwrap());
    assert!(Arc::ptr_eq(&fetched, &again));
    let app = fetched.container("app").unwrap();
    let values = shown(&app.secrets);
    assert_eq!(values[0], ("KEY", "current hunter2"));
    assert_eq!(shown(&app.log_options), [("splunk-token", "of \"token\"")]);
    assert!(!app.secrets.contains_key("splunk-token"), "it is no variable");
    assert_eq!(values[1], ("OLD", "AWSPREVIOUS hunter2"));
    assert!(
        values.contains(&("P10", "of \"p10\"")) && values.contains(&("PATH", "of \"/a/b\"")),
        "{values:?}"
    );
    assert!(values.contains(&("PORT", "5432")));
    assert!(values.iter().any(|(name, value)| *name == "WHOLE" && value.contains("hunter2")));
    assert_eq!(shown(&app.files), [("A", "file one"), ("B", "file one"), ("C", "file two")]);
    let registry = RegistryAuth::Basic { username: "u".to_owned(), password: "p".to_owned() };
    assert_eq!(app.registry, Some(registry));

    let log = world.log.lock();
    let count = |target: &str| log.iter().filter(|(_, of, ..)| of == target).count();
    // Eleven parameters of one region in two calls, one of another; two versions of one secret, and the registry's.
    assert_eq!(
        (count("AmazonSSM.GetParameters"), count("secretsmanager.GetSecretValue"), count("")),
        (3, 3, 2)
    );
    for (_, target, signature, body) in log.iter() {
        assert!(signature.contains("Credential=ASIAEXECUTION/"), "{signature}");
        let region = match body["SecretId"].as_str() {
            Some(DB) => "/us-east-2/secretsmanager/",
            Some(_) => "/eu-north-1/secretsmanager/",
            None if target.is_empty() => "/eu-north-1/s3/",
            None if body["Names"][0] == "/a/b" => "/us-west-2/ssm/",
            None => "/eu-north-1/ssm/",
        };
        assert!(signature.contains(region), "{signature}");
        assert!(signature.contains("x-amz-security-token"), "{signature}");
    }
}

#[tokio::test]
async fn what_cannot_be_had_is_told_in_ecss_words() {
    let world = world(false).await;
    let secret = |provider: &str, from: &str| {
        format!(r#""secrets":[{{"name":"S","valueFrom":"{from}","provider":"{provider}"}}]"#)
    };
    let start = "ResourceInitializationError: unable to pull secrets or registry auth: execution resource retrieval failed: ";
    let asm = "arn:aws:secretsmanager:eu-north-1:111122223333:secret:";
    for (container, expected) in [
        (secret("ssm", "absent"), "unable to retrieve secrets from ssm: invalid parameters: absent".to_owned()),
        (
            secret("asm", &format!("{asm}gone")),
            format!(
                "unable to retrieve secret from asm: failed to fetch secret {asm}gone from secrets manager: \
                 ResourceNotFoundException: Secrets Manager can't find the specified secret."
            ),
        ),
        (
            secret("asm", &format!("{asm}db:user::")),
            "unable to retrieve secret from asm: retrieved secret from Secrets Manager did not contain json key user".to_owned(),
        ),
        (secret("asm", "db"), "invalid secret ARN: db".to_owned()),
        (
            format!(r#""registryAuthentication":{{"type":"asm","asmAuthData":{{"credentialsParameter":"{asm}db"}}}}"#),
            format!("unable to get registry auth from asm: {asm}db is no JSON object with 'username' and 'password'"),
        ),
    ] {
        assert_eq!(world.refused(&container).await, format!("{start}{expected}"));
    }
    let file = r#""environmentFiles":[{"type":"s3","value":"arn:aws:s3:::bucket/none.env"}]"#;
    assert_eq!(
        world.refused(file).await,
        "ResourceInitializationError: failed to download env files: arn:aws:s3:::bucket/none.env: \
         NoSuchKey: There is no such key."
    );
    let text = format!(r#"{{"containers":[{{"name":"app",{}}}]}}"#, secret("ssm", "p"));
    let task: acs::Task = gantry_wire::json::from_slice(text.as_bytes()).unwrap();
    let no_role = world.secrets.of(&world.roles, &world.arn, &task).await;
    assert!(no_role.err().unwrap().reason().ends_with("the task has no execution role"));
}

#[tokio::test]
async fn a_task_that_names_nothing_waits_for_nobody_and_operators_may_bring_a_key() {
    let world = world(true).await;
    world.roles.forget(&world.arn);
    assert!(world.fetch(r#""image":"i""#).await.unwrap().container("app").is_none());
    let later = async {
        tokio::task::yield_now().await;
        let given = RoleCredentials {
            credentials_id: Some("execution".to_owned()),
            access_key_id: Some("ASIAEXECUTION".to_owned()),
            secret_access_key: Some(Secret::new("s3cr3t")),
            ..RoleCredentials::default()
        };
        world.roles.put(&world.arn, given);
    };
    let secret = r#""secrets":[{"name":"S","valueFrom":"p","provider":"ssm"}]"#;
    let (fetched, ()) = tokio::join!(world.fetch(secret), later);
    assert_eq!(shown(&fetched.unwrap().container("app").unwrap().secrets), [("S", "of \"p\"")]);
    assert!(world.log.lock()[0].2.contains("Credential=AKIAOPERATOR/"));
}

#[test]
fn an_address_is_a_base_address() {
    for good in ["http://127.0.0.1:9000", "https://s3.example.net/"] {
        assert!(good.parse::<StoreEndpoint>().is_ok(), "{good}");
    }
    for bad in ["", "s3.example.net", "ftp://x", "http://x/path", "http://u:p@x", "http://x?y"] {
        assert!(bad.parse::<StoreEndpoint>().is_err(), "{bad}");
    }
}
