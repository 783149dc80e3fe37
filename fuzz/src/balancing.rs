//! What load balancers read: clients' requests, and rules with what they are held against.

use crate::targets::{Reader, all};
use gantry_decide::random::{Random, Seeded};
use gantry_decide::routing::config::{
    Action, Condition, FixedResponse, Listener, ListenerArn, ListenerAttributes, Pattern, Protocol,
    QueryPattern, Redirect, Rewrite, Rule, RuleArn, Transform,
};
use gantry_decide::routing::{Asked, Request, Rules, Ticket};
use gantry_decide::time::Timestamp;
use gantry_edge::balancer::understood;
use std::net::{IpAddr, Ipv4Addr};

pub fn request_samples() -> Vec<Vec<u8>> {
    all(&[
        "GET /a/b?x=1 HTTP/1.1\r\nHost: shop.example:80\r\nCookie: AWSALB=x; b=c\r\nConnection: keep-alive\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhelloGET /next HTTP/1.1\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\nTrailer: z\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked, gzip\r\nTransfer-Encoding : chunked\r\n\r\n",
        "GET http://a.example/x HTTP/1.1\r\nHost: b\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
        "OPTIONS * HTTP/1.0\r\nX: 1\r\n folded\r\n\r\n",
    ])
}

pub fn request_reader() -> Reader {
    Box::new(|input| {
        if let Some((head, body)) = understood(input) {
            assert!(head + body.len() <= input.len(), "a request is longer than what was sent");
        }
    })
}

/// A pattern, and below it what it is held against.
pub fn rule_samples() -> Vec<Vec<u8>> {
    all(&[
        "/api/*/v?.json\n/api/x/v1.json",
        "*.example.com\nwww.example.com",
        "^/a/(b|c)+/?$\n/a/bcb/",
        "a\\*b?*\na*bcd",
        "https://#{host}:#{port}/x/#{path}?#{query}\n/a?b=c",
        "***************x\naaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    ])
}

struct Asking<'a>(&'a str);

impl Request for Asking<'_> {
    fn host(&self) -> &[u8] {
        self.0.as_bytes()
    }

    fn path(&self) -> &[u8] {
        self.0.as_bytes()
    }

    fn query(&self) -> &[u8] {
        self.0.as_bytes()
    }

    fn method(&self) -> &[u8] {
        b"GET"
    }

    fn source(&self) -> IpAddr {
        IpAddr::V4(Ipv4Addr::LOCALHOST)
    }

    fn any_header(&self, _: &str, found: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        found(self.0.as_bytes())
    }
}

pub fn rule_reader() -> Reader {
    Box::new(|input| {
        let text = String::from_utf8_lossy(input);
        let (pattern, subject) = text.split_once('\n').unwrap_or((&text, ""));
        let (wildcard, regex) = (Pattern::Wildcard(pattern.to_owned()), Pattern::Regex(pattern.to_owned()));
        let rewrite = || vec![Rewrite { regex: pattern.to_owned(), replace: subject.to_owned() }];
        let header =
            |value: &Pattern| Condition::Header { name: "x".to_owned(), values: vec![value.clone()] };
        let of = |conditions: Vec<Condition>| {
            listener(conditions, vec![Transform::Host(rewrite()), Transform::Url(rewrite())])
        };
        let query = QueryPattern { key: Some(pattern.to_owned()), value: pattern.to_owned() };
        let sets = [
            vec![Condition::Host(vec![wildcard.clone()])],
            vec![Condition::Path(vec![wildcard.clone()])],
            vec![Condition::Path(vec![regex.clone()]), header(&regex)],
            vec![Condition::Query(vec![query])],
        ];
        for conditions in sets {
            let (rules, _) = Rules::compile(&of(conditions));
            let found = rules.find(&Asking(subject));
            let _ = (found.transforms.host(subject.as_bytes()), found.transforms.url(subject.as_bytes()));
        }
        // An index leads to the rules of hosts and paths; a header's value is only compared.
        let matches = |conditions| Rules::compile(&of(conditions)).0.find(&Asking(subject)).rule.is_some();
        let by_host = matches(vec![Condition::Host(vec![wildcard.clone()])]);
        assert_eq!(by_host, matches(vec![header(&wildcard)]), "an index loses a rule");
        let redirect =
            Redirect { path: pattern.to_owned(), query: pattern.to_owned(), ..Redirect::default() };
        let asked = Asked { protocol: "http", host: subject, port: 80, path: subject, query: subject };
        let _ = redirect.location(asked);
        let _ = Ticket::read(
            subject,
            Timestamp::EPOCH + std::time::Duration::from_millis(Seeded::new(1).next_u64() >> 20),
        );
    })
}

/// A listener with one rule.
fn listener(conditions: Vec<Condition>, transforms: Vec<Transform>) -> Listener {
    let answer =
        Action::FixedResponse(FixedResponse { status: 404, content_type: None, body: String::new() });
    Listener {
        arn: ListenerArn::new("listener"),
        port: 80,
        protocol: Protocol::Http,
        tls: None,
        attributes: ListenerAttributes::default(),
        rules: vec![Rule {
            arn: RuleArn::new("rule"),
            priority: 1,
            conditions,
            transforms,
            action: answer.clone(),
        }],
        default_action: answer,
    }
}
