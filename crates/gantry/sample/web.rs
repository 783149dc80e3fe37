//! The web sample: a page that says which task answered, `/health`, and (beside a key-value server) a visit counter.

use super::{clients, signals};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::time::Duration;

/// A request's head; browsers send less than 4 KiB.
const MAX_HEAD: u64 = 16 << 10;
const MAX_CLIENTS: usize = 256;
/// For a client to send its request and take its answer.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(10);
/// For the task's metadata and the visit counter: they are next door or not there.
const NEIGHBOUR_TIMEOUT: Duration = Duration::from_millis(300);
/// The task metadata document grows with the task's containers.
const MAX_METADATA: u64 = 256 << 10;

pub fn main(port: u16) -> io::Result<()> {
    signals::exit_on_stop(0, "stopped\n");
    let listener = TcpListener::bind(("0.0.0.0", port))?;
    println!("serving on port {port}");
    serve(&listener)
}

/// Asks one that serves here whether it is well: a health check.
pub fn check(port: u16) -> io::Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(NEIGHBOUR_TIMEOUT))?;
    stream.write_all(b"GET /health HTTP/1.1\r\n\r\n")?;
    let mut status = String::new();
    BufReader::new(stream.take(64)).read_line(&mut status)?;
    if status.starts_with("HTTP/1.1 200 ") { Ok(()) } else { Err(io::Error::other(status)) }
}

fn serve(listener: &TcpListener) -> io::Result<()> {
    clients::serve(listener, MAX_CLIENTS, answer)
}

fn answer(mut stream: &TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(CLIENT_TIMEOUT))?;
    stream.set_write_timeout(Some(CLIENT_TIMEOUT))?;
    let mut head = BufReader::new(stream.take(MAX_HEAD));
    let mut line = String::new();
    head.read_line(&mut line)?;
    let mut rest = String::new();
    while head.read_line(&mut rest)? > 2 {
        rest.clear();
    }
    let mut words = line.split_whitespace();
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let path = target.split('?').next().unwrap_or_default();
    let (status, kind, body) = match (method, path) {
        ("GET" | "HEAD", "/") => ("200 OK", "text/html; charset=utf-8", page()),
        ("GET" | "HEAD", "/health") => ("200 OK", "text/plain", "ok\n".to_owned()),
        ("GET" | "HEAD", _) => ("404 Not Found", "text/plain", "not found\n".to_owned()),
        (_, "") => ("400 Bad Request", "text/plain", "bad request\n".to_owned()),
        _ => ("405 Method Not Allowed", "text/plain", "only GET and HEAD\n".to_owned()),
    };
    println!("{method} {path} {status}");
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes())?;
    if method != "HEAD" {
        stream.write_all(body.as_bytes())?;
    }
    Ok(())
}

fn page() -> String {
    let mut facts = vec![("host", hostname())];
    let task = metadata().unwrap_or_default();
    for (label, name) in
        [("cluster", "Cluster"), ("task", "TaskARN"), ("family", "Family"), ("revision", "Revision")]
    {
        if let Some(value) = field(&task, name) {
            facts.push((label, value.to_owned()));
        }
    }
    if let Some(visits) = count_visit() {
        facts.push(("visits", visits.to_string()));
    }
    let rows: String = facts
        .iter()
        .map(|(label, value)| format!("<tr><th>{label}</th><td>{}</td></tr>\n", escape(value)))
        .collect();
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Hello from Gantry</title>\n\
         <style>body{{font:16px/1.5 system-ui,sans-serif;margin:4rem auto;max-width:44rem;padding:0 1rem}}\
         th{{text-align:left;padding-right:2rem}}</style></head>\n\
         <body><h1>Hello from Gantry</h1>\n<p>This page comes from a container that Gantry runs as an ECS task.</p>\n\
         <table>\n{rows}</table></body></html>\n"
    )
}

fn hostname() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname");
    name.map_or_else(|_| "unknown".to_owned(), |name| name.trim_end().to_owned())
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// The task's own description, from the endpoint that ECS gives every container.
fn metadata() -> Option<String> {
    let uri = std::env::var("ECS_CONTAINER_METADATA_URI_V4").ok()?;
    let (host, path) = uri.strip_prefix("http://")?.split_once('/')?;
    let host_port = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
    let mut stream = connect(&host_port)?;
    write!(stream, "GET /{path}/task HTTP/1.0\r\nHost: {host}\r\n\r\n").ok()?;
    let mut reply = String::new();
    stream.take(MAX_METADATA).read_to_string(&mut reply).ok()?;
    Some(reply.split_once("\r\n\r\n")?.1.to_owned())
}

/// The first text of this name in a JSON document. Those of the task come before those of its containers, and none of
/// those that are shown holds a quotation mark.
fn field<'a>(document: &'a str, name: &str) -> Option<&'a str> {
    let (_, value) = document.split_once(&format!("\"{name}\":"))?;
    value.trim_start().strip_prefix('"')?.split('"').next()
}

/// Counts this visit in the key-value server next door, where there is one: containers of a task share localhost.
fn count_visit() -> Option<u64> {
    let mut stream = connect("127.0.0.1:6379")?;
    stream.write_all(b"INCR visits\r\n").ok()?;
    let mut line = String::new();
    BufReader::new(stream.take(64)).read_line(&mut line).ok()?;
    line.strip_prefix(':')?.trim_end().parse().ok()
}

fn connect(address: &str) -> Option<TcpStream> {
    let address = address.to_socket_addrs().ok()?.next()?;
    let stream = TcpStream::connect_timeout(&address, NEIGHBOUR_TIMEOUT).ok()?;
    stream.set_read_timeout(Some(NEIGHBOUR_TIMEOUT)).ok()?;
    Some(stream)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn ask(request: &str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || serve(&listener));
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        reply
    }

    #[test]
    fn the_page_says_who_answers() {
        let reply = ask("GET /?x=1 HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(reply.starts_with("HTTP/1.1 200 OK\r\n"), "{reply}");
        assert!(reply.contains(&format!("<th>host</th><td>{}</td>", escape(&hostname()))), "{reply}");
        let (head, body) = reply.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}", body.len())), "{reply}");
    }

    #[test]
    fn fields_are_found() {
        let document = r#"{"Cluster":"a","Revision": "7","Containers":[{"Cluster":"b","Image":3}]}"#;
        assert_eq!((field(document, "Cluster"), field(document, "Revision")), (Some("a"), Some("7")));
        assert_eq!((field(document, "Image"), field(document, "Family")), (None, None));
    }

    #[test]
    fn health_and_wrong_requests_are_answered() {
        assert!(ask("GET /health HTTP/1.1\r\n\r\n").ends_with("\r\n\r\nok\n"));
        assert!(ask("HEAD /health HTTP/1.1\r\n\r\n").ends_with("\r\n\r\n"));
        assert!(ask("GET /../etc HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404"));
        assert!(ask("POST / HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 405"));
        assert!(ask("\r\n\r\n").starts_with("HTTP/1.1 400"));
    }
}
