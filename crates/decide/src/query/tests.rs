//! Expressions from ECS's documentation, and what random ones must never do.
#![allow(clippy::unwrap_used)]

use super::{Candidate, DEPTH_MAX, LENGTH_MAX, Problem, Query};
use crate::time::Timestamp;
use proptest::prelude::*;

struct Instance;

impl Candidate for Instance {
    fn agent_connected(&self) -> bool {
        true
    }

    fn agent_version(&self) -> &str {
        "1.14.10"
    }

    fn ec2_instance_id(&self) -> Option<&str> {
        Some("i-abcd1234")
    }

    fn registered_at(&self) -> Timestamp {
        // 2018-06-18T22:28:28.500Z
        Timestamp::from_millis(1_529_360_908_500)
    }

    fn running_tasks_count(&self) -> u64 {
        3
    }

    fn any_task_group(&self, condition: &mut dyn FnMut(&str) -> bool) -> bool {
        ["service:web", "family:batch"].into_iter().any(condition)
    }

    fn attribute(&self, name: &str) -> Option<Option<&str>> {
        match name {
            "ecs.instance-type" => Some(Some("g2.2xlarge")),
            "ecs.availability-zone" => Some(Some("us-east-1a")),
            "com.amazonaws.ecs.capability.docker-remote-api.1.19" => Some(None),
            _ => None,
        }
    }
}

fn holds(text: &str) -> bool {
    Query::parse(text).unwrap().matches(&Instance)
}

#[test]
fn expressions_that_hold() {
    for text in [
        "attribute:ecs.instance-type =~ g2.* and attribute:ecs.availability-zone != us-east-1d",
        "attribute:ecs.availability-zone in [us-east-1a, us-east-1b]",
        "attribute:ecs.availability-zone not_in ['eu-north-1a',\"x\"]",
        "attribute:com.amazonaws.ecs.capability.docker-remote-api.1.19 exists",
        "attribute:stack !exists && attribute:stack not_exists",
        "attribute:stack != prod",
        "attribute:ecs.instance-type=~[a-h]2.{2,10}",
        "runningTasksCount == 3 and runningTasksCount >= 3 and runningTasksCount less_than_equal 3",
        "agentVersion > 1.14.5 and agentVersion < 1.15 and agentVersion == 1.14.10.0",
        "ec2InstanceId in ['i-abcd1234']",
        "agentConnected == true",
        "registeredAt == 2018-06-18T22:28:28+00:00",
        "registeredAt equals 2018-06-18T22:28:28Z and registeredAt == 2018-06-18T22:28:28",
        "registeredAt > 2018-06-18 and registeredAt < 2018-06-19",
        "registeredAt == 2018-06-19T00:28:28+02:00",
        "task:group == service:web",
        "not(task:group == service:api)",
        "task:group != service:api",
        "!(agentConnected == false)",
        "!agentConnected==false||agentConnected==false",
        "agentConnected == false and agentConnected == false or runningTasksCount greater_than 2",
        "agentConnected matches t.+e",
    ] {
        assert!(holds(text), "{text}");
    }
}

#[test]
fn expressions_that_do_not_hold() {
    for text in [
        "attribute:ecs.instance-type =~ g2",
        "attribute:ecs.instance-type !~ g2.*",
        "attribute:stack exists",
        "attribute:com.amazonaws.ecs.capability.docker-remote-api.1.19 == ''",
        "runningTasksCount < 3",
        "agentVersion < 1.14.9",
        "task:group != service:web",
        "task:group in [service:api]",
        "agentConnected == true and (agentConnected == false or ec2InstanceId == i-1)",
    ] {
        assert!(!holds(text), "{text}");
    }
}

#[test]
fn mistakes_are_told_with_their_place() {
    let told = |text: &str| Query::parse(text).unwrap_err().to_string();
    assert_eq!(told(""), "Invalid expression: expected a subject at character 1");
    assert_eq!(told("colour == red"), "Invalid expression: unknown subject 'colour' at character 1");
    assert_eq!(told("agentConnected ~ x"), "Invalid expression: expected an operator at character 16");
    assert_eq!(
        told("attribute:x > 3"),
        "Invalid expression: > cannot be used with attribute:x at character 13"
    );
    assert_eq!(
        told("agentVersion < new"),
        "Invalid expression: 'new' is not a version such as 1.14.5 at character 16"
    );
    assert_eq!(told("registeredAt > 2018-02-29").matches("2018-02-29").count(), 1);
    assert_eq!(told("attribute:x in [a, b"), "Invalid expression: expected ',' or ']' at character 21");
    assert_eq!(told("(attribute:x exists"), "Invalid expression: expected ')' at character 20");
    assert_eq!(told("attribute:é == 'a"), "Invalid expression: expected a closing quote at character 16");
    assert!(told("attribute:x exists attribute:y exists").contains("the end at character 20"));
    assert!(matches!(Query::parse("attribute:x =~ 'a)|(b'").unwrap_err().problem, Problem::Pattern(_)));
}

#[test]
fn length_depth_and_patterns_are_bounded() {
    let long = "x".repeat(LENGTH_MAX + 1);
    assert_eq!(Query::parse(&long).unwrap_err().problem, Problem::TooLong);
    let nested = |depth: usize| format!("{}agentConnected == true{}", "(".repeat(depth), ")".repeat(depth));
    assert!(Query::parse(&nested(DEPTH_MAX - 1)).is_ok());
    assert_eq!(Query::parse(&nested(DEPTH_MAX)).unwrap_err().problem, Problem::TooDeep);
    assert_eq!(Query::parse(&"!".repeat(LENGTH_MAX)).unwrap_err().problem, Problem::TooDeep);
    let negated = Query::parse(&format!("{}agentConnected == true", "!".repeat(DEPTH_MAX - 1))).unwrap();
    assert_eq!(Query::parse(&negated.to_string()).unwrap(), negated);
    let huge = Query::parse(r"attribute:x =~ \w{1000}").unwrap_err();
    assert!(matches!(huge.problem, Problem::Pattern(_)));
}

#[test]
fn only_counts_and_groups_depend_on_tasks() {
    assert!(!Query::parse("attribute:x exists and agentConnected == true").unwrap().depends_on_tasks());
    assert!(Query::parse("attribute:x exists or not(task:group == g)").unwrap().depends_on_tasks());
}

/// Texts that are mostly expressions.
fn expressions() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        "attribute:[a-z.]{1,8} (==|!=|equals|not_equals) ([a-z0-9.-]{1,6}|'[a-z \"]{0,6}'|\"[a-z ']{0,6}\")",
        "(attribute:[a-z]{1,4}|task:group) (exists|!exists|not_exists)",
        "(task:group|ec2InstanceId|agentConnected) (in|!in|not_in) \\[[a-z]{1,4}(, '[a-z]{0,4}'){0,3}\\]",
        "ec2InstanceId (=~|!~|matches|not_matches) [a-z.*]{1,6}",
        "agentVersion (<|<=|>|>=|==|!=) [0-9]{1,3}(\\.[0-9]{1,3}){0,3}",
        "registeredAt (<|<=|>|>=|==|!=) [0-9]{4}-0[1-9]-[01][1-9](T[01][0-9]:[0-5][0-9]:[0-5][0-9](Z|[+-]0[0-9]:30)?)?",
        "runningTasksCount (<|<=|>|>=|==|!=) [0-9]{1,6}",
    ];
    leaf.prop_recursive(4, 12, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(|a| format!("not({a})")),
            inner.clone().prop_map(|a| format!("!{a}")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a}) or {b}")),
            (inner.clone(), inner).prop_map(|(a, b)| format!("{a} && ({b})")),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_shown_reads_back_the_same(text in expressions()) {
        if let Ok(query) = Query::parse(&text) {
            let shown = query.to_string();
            let again = Query::parse(&shown);
            prop_assert_eq!(again.as_ref(), Ok(&query), "{} shown as {}", text, shown);
            prop_assert_eq!(query.matches(&Instance), again.unwrap().matches(&Instance));
        }
    }

    #[test]
    fn no_text_is_too_strange(text in "[\\PC\\s]{0,60}") {
        let _ = Query::parse(&text);
    }

    #[test]
    fn no_shuffle_of_tokens_is_too_strange(tokens in prop::collection::vec(
        prop::sample::select(vec!["(", ")", "!", "not", "and", "&&", "attribute:x", "==", "in", "[", "]", ",", "'", "a",
            "exists", "=~", "*", "agentVersion", "registeredAt", "1.2", " "]), 0..40)
    ) {
        let _ = Query::parse(&tokens.concat());
        let _ = Query::parse(&tokens.join(" "));
    }
}
