//! Conditions as documented, and the index against a plain walk.

#![allow(clippy::unwrap_used)]
use super::super::config::{
    FixedResponse, ListenerArn, ListenerAttributes, Pattern, Protocol, QueryPattern, Rule,
};
use super::*;
use proptest::prelude::*;

struct Asks {
    host: String,
    path: String,
    query: String,
    method: &'static str,
    source: &'static str,
    headers: Vec<(&'static str, &'static str)>,
}

impl Default for Asks {
    fn default() -> Self {
        Asks {
            host: "shop.example".to_owned(),
            path: "/".to_owned(),
            query: String::new(),
            method: "GET",
            source: "10.1.2.3",
            headers: Vec::new(),
        }
    }
}

impl Request for Asks {
    fn host(&self) -> &[u8] {
        self.host.as_bytes()
    }
    fn path(&self) -> &[u8] {
        self.path.as_bytes()
    }
    fn query(&self) -> &[u8] {
        self.query.as_bytes()
    }
    fn method(&self) -> &[u8] {
        self.method.as_bytes()
    }
    fn source(&self) -> IpAddr {
        self.source.parse().unwrap()
    }
    fn any_header(&self, name: &str, found: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        self.headers.iter().any(|(have, value)| *have == name && found(value.as_bytes()))
    }
}

fn answer(status: u16) -> Action {
    Action::FixedResponse(FixedResponse { status, content_type: None, body: String::new() })
}

fn listener(rules: Vec<(u32, Vec<Condition>)>) -> Listener {
    Listener {
        arn: ListenerArn::new("l"),
        port: 80,
        protocol: Protocol::Http,
        tls: None,
        attributes: ListenerAttributes::default(),
        rules: rules
            .into_iter()
            .map(|(priority, conditions)| Rule {
                arn: RuleArn::new(&format!("r{priority}")),
                priority,
                conditions,
                transforms: Vec::new(),
                action: answer(200),
            })
            .collect(),
        default_action: answer(404),
    }
}

fn wild(values: &[&str]) -> Vec<Pattern> {
    values.iter().map(|value| Pattern::Wildcard((*value).to_owned())).collect()
}

/// Whether a rule of one condition takes a request.
fn takes(condition: Condition, asks: &Asks) -> bool {
    Rules::compile(&listener(vec![(1, vec![condition])])).0.find(asks).rule.is_some()
}

#[test]
fn each_condition_matches_as_documented() {
    let asks = |change: fn(&mut Asks)| {
        let mut asks = Asks::default();
        change(&mut asks);
        asks
    };
    assert!(takes(
        Condition::Host(wild(&["*.Example", "other"])),
        &asks(|a| a.host = "WWW.example".to_owned())
    ));
    assert!(!takes(Condition::Host(wild(&["*.example.org"])), &Asks::default()));
    assert!(takes(Condition::Path(wild(&["/Img/*"])), &asks(|a| a.path = "/Img/x/y".to_owned())));
    assert!(!takes(Condition::Path(wild(&["/Img/*"])), &asks(|a| a.path = "/img/x".to_owned())));
    assert!(takes(
        Condition::Path(vec![Pattern::Regex("^/v[0-9]+/".to_owned())]),
        &asks(|a| {
            a.path = "/v12/x".to_owned();
        })
    ));
    let header = || Condition::Header { name: "User-Agent".to_owned(), values: wild(&["*Chrome*"]) };
    assert!(takes(header(), &asks(|a| a.headers = vec![("user-agent", "x"), ("user-agent", "a chrome b")])));
    assert!(!takes(header(), &Asks::default()));
    assert!(takes(Condition::Method(vec!["PUT".to_owned(), "GET".to_owned()]), &Asks::default()));
    assert!(!takes(Condition::Method(vec!["get".to_owned()]), &Asks::default()));
    let query = |key: Option<&str>, value: &str| {
        Condition::Query(vec![QueryPattern { key: key.map(str::to_owned), value: value.to_owned() }])
    };
    let asked = asks(|a| a.query = "Version=V1&x".to_owned());
    assert!(takes(query(Some("version"), "v?"), &asked) && takes(query(None, "v1"), &asked));
    assert!(takes(query(Some("x"), ""), &asked));
    assert!(!takes(query(Some("x"), "v1"), &asked) && !takes(query(None, "*"), &Asks::default()));
    let source = |block: &str| Condition::Source(vec![Block::V4(block.parse().unwrap())]);
    assert!(takes(source("10.0.0.0/8"), &Asks::default()) && !takes(source("10.2.0.0/16"), &Asks::default()));
    assert!(takes(source("10.0.0.0/8"), &asks(|a| a.source = "::ffff:10.9.9.9")));
}

#[test]
fn the_lowest_priority_wins_and_the_default_comes_last() {
    let path = |text: &str| vec![Condition::Path(wild(&[text]))];
    let (rules, broken) = Rules::compile(&listener(vec![
        (30, path("/*")),
        (20, path("/api/*")),
        (10, vec![Condition::Host(wild(&["api.example"])), Condition::Method(vec!["POST".to_owned()])]),
    ]));
    assert!(broken.is_empty());
    let priority = |asks: Asks| rules.find(&asks).priority;
    assert_eq!(priority(Asks { path: "/api/x".to_owned(), ..Asks::default() }), 20);
    assert_eq!(priority(Asks::default()), 30);
    assert_eq!(priority(Asks { path: "*".to_owned(), ..Asks::default() }), 0);
    let posts =
        Asks { host: "api.example".to_owned(), path: "/api/x".to_owned(), method: "POST", ..Asks::default() };
    assert_eq!(priority(posts), 10);
}

#[test]
fn a_rule_that_does_not_compile_is_told_and_left_out() {
    let regex = |text: &str| vec![Condition::Path(vec![Pattern::Regex(text.to_owned())])];
    let (rules, broken) = Rules::compile(&listener(vec![(1, regex("(")), (2, regex("^/"))]));
    assert_eq!(broken.iter().map(|b| b.rule.as_str()).collect::<Vec<_>>(), ["r1"]);
    assert_eq!(rules.find(&Asks::default()).priority, 2);
}

proptest! {
    /// The index finds what a walk by priority finds.
    #[test]
    fn the_index_changes_nothing(
        rules in prop::collection::vec(
            (prop::option::of(prop::collection::vec("[ab*?]{1,3}\\.[ab]", 1..3)), prop::option::of(prop::collection::vec("/[ab*?/]{0,4}", 1..3))),
            0..30,
        ),
        asks in prop::collection::vec(("[aAbB]{1,3}\\.[ab]", "/[ab/]{0,5}"), 1..20),
    ) {
        let patterns = |values: &Vec<String>| values.iter().cloned().map(Pattern::Wildcard).collect::<Vec<_>>();
        let conditions = |(host, path): &(Option<Vec<String>>, Option<Vec<String>>)| {
            let host = host.as_ref().map(|values| Condition::Host(patterns(values)));
            host.into_iter().chain(path.as_ref().map(|values| Condition::Path(patterns(values)))).collect::<Vec<_>>()
        };
        let listener = listener((1..).zip(&rules).map(|(n, rule)| (n, conditions(rule))).collect());
        let (compiled, _) = Rules::compile(&listener);
        for (host, path) in asks {
            let asks = Asks { host, path, ..Asks::default() };
            let walked = compiled.rules.iter().find(|rule| rule.holds(&asks)).map(|rule| rule.priority);
            prop_assert_eq!(compiled.find(&asks).priority, walked.unwrap_or(0));
        }
    }
}
