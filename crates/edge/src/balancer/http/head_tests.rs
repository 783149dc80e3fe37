//! Heads as clients send them, and the corpus of those that two servers could read differently.

#![allow(clippy::unwrap_used)]
use super::*;
use proptest::prelude::*;

fn with<T>(text: &str, look: impl FnOnce(Result<Option<Head<'_, '_>>, Refusal>) -> T) -> T {
    let mut space = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    look(read(text.as_bytes(), &mut space, IpAddr::from([10, 0, 0, 1])))
}

/// How a request with these header lines is judged.
fn judged(method: &str, lines: &str) -> Result<(Class, &'static str, Body), Refusal> {
    let text = format!("{method} / HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
    with(&text, |head| head.map(|head| head.map(|head| (head.class, head.reason, head.body)).unwrap()))
}

#[test]
fn a_plain_request_is_understood() {
    let text = "GET /a/b?x=1 HTTP/1.1\r\nHost: Shop.example:8080\r\nCookie: a=1; AWSALB=xyz\r\ncookie: b=2\r\n\r\nrest";
    with(text, |head| {
        let head = head.unwrap().unwrap();
        assert_eq!((head.method, head.path, head.query), ("GET", "/a/b", Some("x=1")));
        assert_eq!((head.host, head.host_name()), (Some("Shop.example:8080"), "Shop.example"));
        assert_eq!(
            (head.cookie("AWSALB"), head.cookie("b"), head.cookie("c")),
            (Some("xyz"), Some("2"), None)
        );
        assert_eq!((head.length, head.keep, head.class), (text.len() - 4, true, Class::Compliant));
    });
    with("GET http://a.example/x HTTP/1.1\r\nHost: b\r\n\r\n", |head| {
        let head = head.unwrap().unwrap();
        assert_eq!((head.host, head.path, head.host_header), (Some("a.example"), "/x", Some("b")));
    });
    assert!(with("GET / HTTP/1.1\r\nHost: a\r\n", |head| head.unwrap().is_none()));
    with("GET / HTTP/1.0\r\n\r\n", |head| assert!(!head.unwrap().unwrap().keep));
}

#[test]
fn the_end_of_a_head_is_found_wherever_it_is_cut() {
    let text = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    for cut in 0..text.len() {
        assert!(!find_end(&text[..cut], 0), "{cut}");
        assert!(find_end(text, cut), "{cut}");
    }
    assert!(find_end(b"GET / HTTP/1.1\n\n", 0));
}

#[test]
fn refusals_have_their_statuses() {
    let status = |text: &str| with(text, |head| head.err().map(Refusal::status));
    assert_eq!(status("GET / HTTP/1.1\r\n\r\n"), Some(400));
    assert_eq!(status("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"), Some(400));
    assert_eq!(status("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"), Some(400));
    assert_eq!(status("GET x HTTP/1.1\r\nHost: a\r\n\r\n"), Some(400));
    assert_eq!(status("GET http://a@b/ HTTP/1.1\r\nHost: a\r\n\r\n"), Some(400));
    assert_eq!(status("GET / HTTP/2.0\r\nHost: a\r\n\r\n"), Some(505));
    assert_eq!(status("\r\nGET / HTTP/2.0\r\nHost: a\r\n\r\n"), Some(505));
    assert_eq!(status("GET /a b HTTP/1.1\r\nHost: a\r\n\r\n"), Some(400));
    assert_eq!(status("GET /\r\nHost: a\r\n\r\n"), Some(400));
    assert_eq!(status("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n"), Some(405));
    assert_eq!(status("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"), Some(501));
    let long = "x".repeat(MAX_REQUEST_LINE);
    assert_eq!(status(&format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n")), Some(414));
    assert_eq!(status(&format!("GET / HTTP/1.1\r\nHost: a\r\nX: {long}\r\n\r\n")), Some(400));
    let large = format!("X: {}\r\n", "x".repeat(16_000)).repeat(5);
    assert_eq!(status(&format!("GET / HTTP/1.1\r\nHost: a\r\n{large}\r\n")), Some(400));
    assert_eq!(status(&format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", &large[..64_020])), None);
    let many = "X: y\r\n".repeat(MAX_HEADERS);
    assert_eq!(status(&format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n")), Some(400));
}

/// What of request smuggling a head can show.
#[test]
fn smuggling_is_judged() {
    for (method, lines, class) in [
        ("POST", "Content-Length: 3\r\n", Class::Compliant),
        ("POST", "Transfer-Encoding: chunked\r\n", Class::Compliant),
        ("POST", "Transfer-Encoding: Chunked\r\n", Class::Compliant),
        ("GET", "Content-Length: 3\r\n", Class::Acceptable),
        ("GET", "Content-Length: 0\r\n", Class::Acceptable),
        ("GET", "Transfer-Encoding: chunked\r\n", Class::Ambiguous),
        ("POST", "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", Class::Ambiguous),
        ("POST", "Content-Length: 3\r\nContent-Length: 3\r\n", Class::Ambiguous),
        ("POST", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", Class::Ambiguous),
        ("POST", "Transfer_Encoding: chunked\r\nContent-Length: 3\r\n", Class::Ambiguous),
        ("POST", "Content_Length: 3\r\n", Class::Ambiguous),
        ("POST", "Content-Length: 3\r\nContent-Length: 4\r\n", Class::Severe),
        ("POST", "Content-Length: 3, 3\r\n", Class::Severe),
        ("POST", "Content-Length: +3\r\n", Class::Severe),
        ("POST", "Content-Length: -3\r\n", Class::Severe),
        ("POST", "Content-Length: 0x3\r\n", Class::Severe),
        ("POST", "Content-Length: \r\n", Class::Severe),
        ("POST", "Content-Length: 99999999999999999999\r\n", Class::Severe),
        ("POST", "Transfer-Encoding: \"chunked\"\r\n", Class::Severe),
        ("POST", "Transfer-Encoding: chunked;q=1\r\n", Class::Severe),
    ] {
        assert_eq!(judged(method, lines).map(|judged| judged.0), Ok(class), "{method} {lines:?}");
    }
    for lines in [
        "Content-Length : 3\r\n",
        "Transfer-Encoding\t: chunked\r\n",
        " Transfer-Encoding: chunked\r\n",
        "X: y\r\n Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding: \x0bchunked\r\n",
        "Transfer-Encoding: chunked\0\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "X: y\rTransfer-Encoding: chunked\r\n",
        ": chunked\r\n",
        "Transfer-Encoding\r\n",
    ] {
        let text = format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
        assert!(with(&text, |head| head.is_err()), "{lines:?}");
    }
    // Chunks win over a length, as RFC 9112 has it, and an HTTP/1.0 request has none.
    let both = judged("POST", "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n").unwrap();
    assert_eq!(both.2, Body::Chunked(Chunks::default()));
    let old = "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n";
    assert_eq!(with(old, |head| head.unwrap().unwrap().class), Class::Severe);
}

#[test]
fn modes_refuse_and_close_as_documented() {
    use DesyncMode::{Defensive, Monitor, Strictest};
    for (class, refused, closes) in [
        (Class::Compliant, [false, false, false], [false, false, false]),
        (Class::Acceptable, [false, false, true], [false, false, false]),
        (Class::Ambiguous, [false, false, true], [false, true, true]),
        (Class::Severe, [true, true, true], [false, false, false]),
    ] {
        let modes = [Monitor, Defensive, Strictest];
        assert_eq!(modes.map(|mode| class.refused(mode)), refused);
        assert_eq!(modes.map(|mode| class.closes(mode)), closes);
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(text in "(GET|POST|X) [ -~]{0,20}( HTTP/1.[019])?\r?\n([ -~]{0,30}\r?\n){0,6}\r?\n") {
        with(&text, |head| {
            if let Ok(Some(head)) = head {
                assert!(head.length <= text.len());
            }
        });
    }
}
