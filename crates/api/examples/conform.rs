//! Reads and writes shapes for a judge that speaks AWS's protocols by itself: one JSON line in, one out.
//!
//! `{"service", "operation", "request": BYTES AS TEXT}` answers the request as read, in the neutral form of awsJson;
//! `{"service", "operation", "response": NEUTRAL FORM}` answers the bytes that would be sent;
//! `{"service", "operation", "error": {"code", "message", "fields": {NAME: TEXT OR [TEXT]}}}` the bytes of an error.

use gantry_api::{acm, autoscaling, ec2, ecs, elbv2, logs, ssm, sts};
use gantry_wire::{ApiError, ErrorField, ServiceModel, json};
use serde_json::{Value, json};
use std::io::{BufRead, Write, stdin, stdout};

/// Stands for the id of every answer.
const REQUEST_ID: &str = "request-1";

fn main() {
    for line in stdin().lock().lines() {
        let answer = match line.map_err(|error| error.to_string()).and_then(|line| answer(&line)) {
            Ok(value) => json!({ "ok": value }),
            Err(error) => json!({ "error": error }),
        };
        if writeln!(stdout(), "{answer}").is_err() {
            return;
        }
    }
}

fn answer(line: &str) -> Result<Value, String> {
    let order: Value = serde_json::from_str(line).map_err(|error| error.to_string())?;
    let text = |name: &str| order[name].as_str().unwrap_or_default();
    let name = text("operation");
    macro_rules! known {
        ($($service:ident)*) => {
            match text("service") {
                $(stringify!($service) => ($service::SERVICE, $service::shapes(name)),)*
                other => return Err(format!("no service {other}")),
            }
        };
    }
    let (service, shapes): (&ServiceModel, _) = known! { acm autoscaling ec2 ecs elbv2 logs ssm sts };
    let (mut request, mut response) = shapes.ok_or_else(|| format!("no operation {name}"))?;
    let operation = service.operation(name).ok_or_else(|| format!("no operation {name}"))?;
    if let Some(body) = order["request"].as_str() {
        let read = service.protocol.read_request(request.as_mut(), body.as_bytes());
        read.map_err(|error| error.to_string())?;
        return serde_json::from_slice(&json::to_vec(request.as_ref())).map_err(|error| error.to_string());
    }
    let body = if order["error"].is_object() {
        service.protocol.error(service.xml_namespace, &error(&order["error"])?, REQUEST_ID)
    } else {
        let read = json::read(response.as_mut(), order["response"].to_string().as_bytes());
        read.map_err(|error| error.to_string())?;
        service.response(operation, response.as_ref(), REQUEST_ID)
    };
    Ok(String::from_utf8_lossy(&body).into())
}

fn error(order: &Value) -> Result<ApiError, String> {
    let text = |name: &str| order[name].as_str().unwrap_or_default().to_owned();
    let mut error = ApiError::new(text("code"), text("message"));
    for (name, values) in order["fields"].as_object().into_iter().flatten() {
        let field = match values {
            Value::String(text) => ErrorField::Text(text.clone()),
            texts => {
                ErrorField::Texts(serde_json::from_value(texts.clone()).map_err(|error| error.to_string())?)
            }
        };
        error.fields.push((name.clone().into(), field));
    }
    Ok(error)
}
