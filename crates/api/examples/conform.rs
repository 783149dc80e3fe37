//! Reads and writes shapes for a judge that speaks AWS's protocols by itself: one JSON line in, one out.
//!
//! `{"service", "operation", "request": BYTES AS TEXT}` answers the request as read, in the neutral form of awsJson;
//! `{"service", "operation", "response": NEUTRAL FORM}` answers the bytes that would be sent;
//! `{"service", "operation", "error": [CODE, MESSAGE]}` the bytes of an error.

use gantry_api::{ecs, sts};
use gantry_wire::{ApiError, Protocol, ServiceModel, json, query, xml};
use serde_json::{Value, json};
use std::io::{BufRead, Write, stdin, stdout};

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
    let (service, shapes): (&ServiceModel, _) = match text("service") {
        "ecs" => (ecs::SERVICE, ecs::shapes(name)),
        "sts" => (sts::SERVICE, sts::shapes(name)),
        other => return Err(format!("no service {other}")),
    };
    let (mut request, mut response) = shapes.ok_or_else(|| format!("no operation {name}"))?;
    let operation = service.operation(name).ok_or_else(|| format!("no operation {name}"))?;
    let readable = |error: ApiError| format!("{}: {}", error.code, error.message);
    if let Some(body) = order["request"].as_str() {
        match service.protocol {
            Protocol::AwsJson(_) => json::read(request.as_mut(), body.as_bytes()),
            Protocol::AwsQuery => query::read(request.as_mut(), body.as_bytes()),
        }
        .map_err(readable)?;
        return serde_json::from_slice(&json::to_vec(request.as_ref())).map_err(|error| error.to_string());
    }
    if let Some([code, message]) = order["error"].as_array().map(Vec::as_slice) {
        let error =
            ApiError::new(code.as_str().unwrap_or_default().to_owned(), message.as_str().unwrap_or_default());
        let body = match service.protocol {
            Protocol::AwsJson(_) => json::error(&error),
            Protocol::AwsQuery => xml::error(service.xml_namespace, &error, "request-1"),
        };
        return Ok(String::from_utf8_lossy(&body).into());
    }
    json::read(response.as_mut(), order["response"].to_string().as_bytes()).map_err(readable)?;
    let body = match service.protocol {
        Protocol::AwsJson(_) => json::to_vec(response.as_ref()),
        Protocol::AwsQuery => xml::response(service, operation, response.as_ref(), "request-1"),
    };
    Ok(String::from_utf8_lossy(&body).into())
}
