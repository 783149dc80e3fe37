//! Patterns and what they mean: AWS's documented examples, the edges, and any text at all.
#![allow(clippy::unwrap_used)]

use super::*;
use proptest::prelude::*;

fn matching<'m>(pattern: &str, messages: &[&'m str]) -> Vec<&'m str> {
    let pattern = Pattern::parse(pattern).unwrap();
    messages.iter().copied().filter(|message| pattern.matches(message)).collect()
}

#[test]
fn nothing_means_everything() {
    for text in ["", "  "] {
        assert!(Pattern::parse(text).unwrap().is_all());
    }
    assert_eq!(matching("", &["", "x"]).len(), 2);
}

#[test]
fn terms_are_whole_words_in_their_own_case() {
    let messages = [
        "[ERROR 400] BAD REQUEST",
        "[ERROR 401] UNAUTHORIZED REQUEST",
        "[ERROR 419] MISSING ARGUMENTS",
        "[ERROR 420] INVALID ARGUMENTS",
        "[WARN] slow REQUEST",
        "ERRORS are errors",
    ];
    assert_eq!(matching("ERROR", &messages), messages[..4]);
    assert_eq!(matching("ERROR ARGUMENTS", &messages), messages[2..4]);
    assert_eq!(matching("ERROR -ARGUMENTS", &messages), messages[..2]);
    assert_eq!(matching("?ERROR ?WARN", &messages), messages[..5]);
    assert_eq!(matching(r#""ERROR 420""#, &messages), messages[3..4]);
    assert_eq!(matching(r#"-"ERROR 420" -"ERROR 419" ERROR"#, &messages), messages[..2]);
    assert_eq!(matching("REQUEST ?ERROR ?WARN", &messages), [messages[0], messages[1], messages[4]]);
    assert_eq!(matching("error", &messages), Vec::<&str>::new());
    assert_eq!(matching("slow", &["слow", "a slow one", "slowly", "_slow"]), ["a slow one"]);
    assert_eq!(matching(r#""say \"hi\"""#, &[r#"say "hi" now"#, "say hi"]), [r#"say "hi" now"#]);
}

#[test]
fn regular_expressions_are_the_documented_subset() {
    let messages = [
        "[ERROR 401] UNAUTHORIZED REQUEST",
        "[SUCCESS 200] AUTHORIZED REQUEST",
        "gray",
        "grey",
        "at 10.0.0.1",
    ];
    assert_eq!(matching("%AUTHORIZED%", &messages), messages[..2]);
    assert_eq!(matching("%gr[ae]y%", &messages), messages[2..4]);
    assert_eq!(matching(r"%\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}%", &messages), messages[4..]);
    assert_eq!(matching("?%^gray$% ?%^at%", &messages), [messages[2], messages[4]]);
    for wrong in [
        "%a(b)%",
        "%something!%",
        "%\\p{L}%",
        "%é%",
        "%%",
        "%open",
        "%[a%",
        "%a\\%",
        "%(a{1000}){1000}%",
        "%a{1000}{1000}{1000}%",
    ] {
        assert!(Pattern::parse(wrong).is_err(), "{wrong}");
    }
}

const EVENT: &str = r#"{"eventType":"UpdateTrail","sourceIPAddress":"111.111.111.111","arrayKey":["value","another value"],
 "objectList":[{"name":"a","id":1},{"name":"b","id":2}],"SomeObject":null,"cluster.name":"c","ThisFlag":true,
 "latency":1.5,"errorCode":400,"bad":"500","user":{"id":1,"email":"John.Stiles@example.com"}}"#;

#[test]
fn conditions_on_json_read_selectors_and_values() {
    let holds = [
        r#"{ $.eventType = "UpdateTrail" }"#,
        "{ $.eventType = UpdateTrail }",
        "{$.eventType=Update*}",
        r#"{ $.eventType != "*Create*" }"#,
        "{ $.sourceIPAddress != 123.123.* }",
        r#"{ $.arrayKey[0] = "value" }"#,
        "{ $.objectList[1].id = 2 }",
        "{ $.objectList[*].name = b }",
        "{ $.SomeObject IS NULL }",
        "{ $.SomeOtherObject NOT EXISTS }",
        "{ $.eventType exists }",
        "{ $.['cluster.name'] = c }",
        "{ $['cluster.name'] = c }",
        "{ $.ThisFlag IS TRUE }",
        "{ $.latency >= 15e-1 }",
        "{ $.latency < 1.6 && $.errorCode > 399 }",
        "{ $.errorCode = 400 || $.x = 1 }",
        "{ $.errorCode = 4.0e2 }",
        "{ $.errorCode = 4* }",
        "{ $.bad = 500 }",
        "{ ($.user.id = 1) && ($.user.email = %John\\.Stiles@example\\.com%) }",
        "{ ($.user.id = 2 && $.x = 1) || $.user.email = John* }",
        "{ $.user.id = 2 && $.x = 1 || $.latency > 1 }",
    ];
    for pattern in holds {
        assert!(Pattern::parse(pattern).unwrap().matches(EVENT), "{pattern}");
    }
    let fails = [
        "{ $.eventType = updatetrail }",
        "{ $.nothing != 1 }",
        "{ $.user = 1 }",
        "{ $.user != 1 }",
        "{ $.SomeOtherObject IS NULL }",
        "{ $.SomeObject NOT EXISTS }",
        "{ $.ThisFlag IS FALSE }",
        "{ $.bad > 400 }",
        "{ $.arrayKey[2] = \"value\" }",
        "{ $.user.id = 2 && ($.latency > 1 || $.errorCode = 400) }",
    ];
    for pattern in fails {
        assert!(!Pattern::parse(pattern).unwrap().matches(EVENT), "{pattern}");
    }
    let pattern = Pattern::parse("{ $.a = 1 }").unwrap();
    for message in ["", "a = 1", "{", "7", "[]", "[{\"a\":1}]"] {
        assert!(!pattern.matches(message), "{message}");
    }
}

#[test]
fn fields_between_blanks() {
    let log = r#"127.0.0.1 Prod frank [10/Oct/2000:13:25:15 -0700] "GET /index.html HTTP/1.0" 404 1534"#;
    let all = "[ip, server, username, timestamp, request, status_code, bytes]";
    assert!(Pattern::parse(all).unwrap().matches(log));
    for pattern in [
        "[ip, server, username, timestamp, request, status_code = 4*, bytes > 1000]",
        "[ip=%127\\.0\\.0\\.[1-9]%, server, username, timestamp, request =*.html*, status_code = 4*, bytes]",
        "[..., status_code=404, bytes]",
        "[ip, ..., bytes]",
        "[ip, ..., status_code = 4* && status_code != 400, bytes<=1534]",
        "[ip, ..., status_code = 500 || (status_code = 404 && ip = 127*), bytes]",
        "[...]",
    ] {
        assert!(Pattern::parse(pattern).unwrap().matches(log), "{pattern}");
    }
    for pattern in [
        "[ip, server]",
        "[a, b, c, d, e, f, g, h]",
        "[a, b, c, d, e, ..., f, g, h]",
        "[..., status_code=5*, bytes]",
        "[..., status_code != 404, bytes]",
    ] {
        assert!(!Pattern::parse(pattern).unwrap().matches(log), "{pattern}");
    }
    assert_eq!(
        matching("[w1=ERROR || w1=%WARN%, w2]", &["ERROR x", "MY_WARNING x", "INFO x", "ERROR"]),
        ["ERROR x", "MY_WARNING x"]
    );
    assert_eq!(matching("[w1!=ERROR&&w1!=%WARN%, w2]", &["ERROR x", "WARN x", "INFO x"]), ["INFO x"]);
}

#[test]
fn values_are_taken_out_by_name() {
    let log = r#"127.0.0.1 - frank [10/Oct/2000] "GET / HTTP/1.0" 404 1534"#;
    let extracted = Pattern::parse("[ip, ..., request, status = 4*, size]").unwrap().extract(log).unwrap();
    let expected =
        [("$ip", "127.0.0.1"), ("$request", "GET / HTTP/1.0"), ("$size", "1534"), ("$status", "404")];
    assert!(extracted.iter().map(|(k, v)| (k.as_str(), v.as_str())).eq(expected), "{extracted:?}");
    let extracted =
        Pattern::parse("{ $.errorCode = 400 && $.user.email = J* }").unwrap().extract(EVENT).unwrap();
    assert_eq!(extracted["$.errorCode"], "400");
    assert_eq!(extracted["$.user.email"], "John.Stiles@example.com");
    assert_eq!(Pattern::parse("{ $.errorCode = 401 }").unwrap().extract(EVENT), None);
    assert_eq!(Pattern::parse("ERROR").unwrap().extract("an ERROR"), Some(Extracted::new()));
}

#[test]
fn what_is_no_pattern_is_refused_with_its_place() {
    for (wrong, reason) in [
        ("\"open", "not closed"),
        ("-", "a term is missing"),
        ("ERROR ?", "a term is missing"),
        ("{", "selector"),
        ("{}", "selector"),
        ("{ $ }", "name is missing"),
        ("{ $.a }", "operator"),
        ("{ $.a = }", "value"),
        ("{ $.a > big }", "only numbers"),
        ("{ $.a = 1", "'}' is missing"),
        ("{ $.a = 1 } x", "nothing may follow"),
        ("{ $.a IS GREAT }", "NULL, TRUE or FALSE"),
        ("{ $.a[x] = 1 }", "number is missing"),
        ("{ ($.a = 1 }", "')' is missing"),
        ("[", "name is missing"),
        ("[a b]", "',' or ']'"),
        ("[..., a, ...]", "once"),
        ("[a = ]", "value is missing"),
    ] {
        let error = Pattern::parse(wrong).unwrap_err();
        assert!(error.to_string().starts_with("Invalid filter pattern"), "{error}");
        assert!(error.reason.contains(reason), "{wrong}: {error}");
    }
    assert!(Pattern::parse(&"x".repeat(PATTERN_MAX)).is_ok());
    assert!(Pattern::parse(&"x".repeat(PATTERN_MAX + 1)).is_err());
    assert!(Pattern::parse(&format!("{{{}$.a=1{}}}", "(".repeat(400), ")".repeat(400))).is_err());
}

/// Text that looks like patterns more often than random text would.
fn scrap() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("$."),
        Just("$"),
        Just("{"),
        Just("}"),
        Just("["),
        Just("]"),
        Just("("),
        Just(")"),
        Just("&&"),
        Just("||"),
        Just("="),
        Just("!="),
        Just(">="),
        Just("\""),
        Just("%"),
        Just("..."),
        Just(","),
        Just("*"),
        Just(" "),
        Just("\\"),
        Just("-"),
        Just("?"),
        Just("IS NULL"),
        Just("NOT EXISTS"),
        Just("a"),
        Just("ERROR"),
        Just("4e1"),
        Just("é"),
        Just("'"),
        Just("0"),
    ];
    proptest::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn no_text_panics(text in prop_oneof![scrap(), any::<String>()], message in prop_oneof![scrap(), any::<String>(), Just(EVENT.to_owned())]) {
        if let Ok(pattern) = Pattern::parse(&text) {
            prop_assert_eq!(pattern.matches(&message), pattern.extract(&message).is_some());
        }
    }

    #[test]
    fn a_quoted_message_finds_itself(message in "[ -~]{1,60}") {
        let quoted = format!("\"{}\"", message.replace('\\', "\\\\").replace('"', "\\\""));
        prop_assert!(Pattern::parse(&quoted).unwrap().matches(&message));
        let excluded = format!("-{quoted}");
        prop_assert!(!Pattern::parse(&excluded).unwrap().matches(&message));
    }

    #[test]
    fn a_wildcard_stands_for_anything(value in "[a-z]{0,8}", cut in 0..9_usize) {
        let (head, tail) = value.split_at(cut.min(value.len()));
        let event = serde_json::json!({ "v": value }).to_string();
        for pattern in [format!("{head}*{tail}"), format!("*{value}*"), format!("{value}*"), "*".to_owned()] {
            let condition = format!("{{ $.v = \"{pattern}\" }}");
            prop_assert!(Pattern::parse(&condition).unwrap().matches(&event), "{}", condition);
        }
        let other = format!("{{ $.v = \"{value}x*\" }}");
        prop_assert!(!Pattern::parse(&other).unwrap().matches(&event));
    }

    #[test]
    fn numbers_compare_as_numbers(a in -1e9..1e9_f64, b in -1e9..1e9_f64) {
        let event = serde_json::json!({ "n": a }).to_string();
        let line = format!("{a} end");
        for (sign, expected) in [("<", a < b), (">", a > b), ("<=", a <= b), (">=", a >= b)] {
            let json = Pattern::parse(&format!("{{ $.n {sign} {b} }}")).unwrap();
            prop_assert_eq!(json.matches(&event), expected);
            let fields = Pattern::parse(&format!("[n {sign} {b}, end]")).unwrap();
            prop_assert_eq!(fields.matches(&line), expected);
        }
    }
}
