//! A listener's rules, compiled: the first by priority whose conditions all hold, without walking over all of them.

use super::config::{Action, Block, Condition, Listener, RuleArn};
use super::index::{Literal, TextIndex};
use super::pattern::{Glob, InvalidPattern, Matcher};
use super::transform::Transforms;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// The parts of a request that conditions look at.
pub trait Request {
    /// Without the port.
    fn host(&self) -> &[u8];
    /// Without the query.
    fn path(&self) -> &[u8];
    /// Without the `?`; empty when there is none.
    fn query(&self) -> &[u8];
    fn method(&self) -> &[u8];
    /// The connection's peer.
    fn source(&self) -> IpAddr;
    /// Calls `found` with each value of the header (named in lower case) until it says true; whether it did.
    fn any_header(&self, name: &str, found: &mut dyn FnMut(&[u8]) -> bool) -> bool;
}

/// A rule that cannot be served: it never matches.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("rule {rule} is left out")]
pub struct BrokenRule {
    pub rule: RuleArn,
    #[source]
    pub source: InvalidPattern,
}

/// What applies to a request.
#[derive(Clone, Copy, Debug)]
pub struct Matched<'a> {
    /// None for the default action.
    pub rule: Option<&'a RuleArn>,
    /// 0 for the default action, as access logs show it.
    pub priority: u32,
    /// Of the action, within the listener: 0 is the default's.
    pub slot: usize,
    pub action: &'a Action,
    pub transforms: &'a Transforms,
}

/// The rules of one listener.
#[derive(Clone, Debug)]
pub struct Rules {
    /// By priority.
    rules: Vec<Compiled>,
    by_host: TextIndex,
    by_path: TextIndex,
    /// Rules that no literal of host or path narrows down.
    unfiled: Vec<u32>,
    default_action: Action,
    no_transforms: Transforms,
}

#[derive(Clone, Debug)]
struct Compiled {
    arn: RuleArn,
    priority: u32,
    conditions: Vec<Test>,
    action: Action,
    transforms: Transforms,
}

#[derive(Clone, Debug)]
enum Test {
    Host(Vec<Matcher>),
    Path(Vec<Matcher>),
    Header(String, Vec<Matcher>),
    Method(Vec<String>),
    Query(Vec<(Option<Glob>, Glob)>),
    Source(Vec<Block>),
}

impl Rules {
    /// Compiles a listener's rules, and tells which ones it had to leave out.
    pub fn compile(listener: &Listener) -> (Rules, Vec<BrokenRule>) {
        let (mut rules, mut broken) = (Vec::new(), Vec::new());
        for rule in &listener.rules {
            let tests = rule.conditions.iter().map(Test::compile).collect::<Result<Vec<_>, _>>();
            match tests.and_then(|tests| Ok((tests, Transforms::compile(&rule.transforms)?))) {
                Ok((conditions, transforms)) => rules.push(Compiled {
                    arn: rule.arn.clone(),
                    priority: rule.priority,
                    conditions,
                    action: rule.action.clone(),
                    transforms,
                }),
                Err(source) => broken.push(BrokenRule { rule: rule.arn.clone(), source }),
            }
        }
        rules.sort_by_key(|rule| rule.priority);
        let mut compiled = Rules {
            rules,
            by_host: TextIndex::default(),
            by_path: TextIndex::default(),
            unfiled: Vec::new(),
            default_action: listener.default_action.clone(),
            no_transforms: Transforms::default(),
        };
        compiled.file();
        (compiled, broken)
    }

    /// Files each rule under its host or its path, whichever fewer rules share.
    fn file(&mut self) {
        let filed: Vec<_> = self
            .rules
            .iter()
            .map(|rule| {
                let of = |pick: fn(&Test) -> Option<&[Matcher]>| {
                    rule.conditions.iter().find_map(pick).and_then(literals).unwrap_or_default()
                };
                (of(Test::hosts), of(Test::paths))
            })
            .collect();
        let (mut hosts, mut paths) = (BTreeMap::new(), BTreeMap::new());
        for (of_host, of_path) in &filed {
            of_host.iter().for_each(|literal| *hosts.entry(literal.clone()).or_insert(0_u32) += 1);
            of_path.iter().for_each(|literal| *paths.entry(literal.clone()).or_insert(0_u32) += 1);
        }
        let shared = |of: &[Literal], counts: &BTreeMap<Literal, u32>| {
            of.iter().filter_map(|literal| counts.get(literal)).max().copied().unwrap_or(u32::MAX)
        };
        for (number, (of_host, of_path)) in (0_u32..).zip(&filed) {
            if of_host.is_empty() && of_path.is_empty() {
                self.unfiled.push(number);
            } else if shared(of_host, &hosts) < shared(of_path, &paths) {
                of_host.iter().for_each(|literal| self.by_host.insert(literal, number));
            } else {
                of_path.iter().for_each(|literal| self.by_path.insert(literal, number));
            }
        }
    }

    /// The rule for a request, or the default action.
    pub fn find(&self, request: &impl Request) -> Matched<'_> {
        let mut best = u32::MAX;
        let mut consider = |number: u32| {
            if number < best && self.rules[number as usize].holds(request) {
                best = number;
            }
        };
        self.unfiled.iter().for_each(|number| consider(*number));
        self.by_path.candidates(request.path(), &mut consider);
        let host = request.host();
        // Names are at most 255 bytes; longer ones match no rule by their host, as filed rules have host names.
        let mut lower = [0_u8; 256];
        if let Some(lower) = lower.get_mut(..host.len()) {
            lower.copy_from_slice(host);
            lower.make_ascii_lowercase();
            self.by_host.candidates(lower, &mut consider);
        }
        match self.rules.get(best as usize) {
            Some(rule) => Matched {
                rule: Some(&rule.arn),
                priority: rule.priority,
                slot: best as usize + 1,
                action: &rule.action,
                transforms: &rule.transforms,
            },
            None => Matched {
                rule: None,
                priority: 0,
                slot: 0,
                action: &self.default_action,
                transforms: &self.no_transforms,
            },
        }
    }

    /// Every action by its slot, the default's first.
    pub fn actions(&self) -> impl Iterator<Item = &Action> {
        std::iter::once(&self.default_action).chain(self.rules.iter().map(|rule| &rule.action))
    }
}

/// None when a pattern has no literal: then the condition narrows nothing down.
fn literals(matchers: &[Matcher]) -> Option<Vec<Literal>> {
    let mut all = matchers.iter().map(Literal::of).collect::<Option<Vec<_>>>()?;
    all.sort();
    all.dedup();
    Some(all)
}

impl Compiled {
    fn holds(&self, request: &impl Request) -> bool {
        self.conditions.iter().all(|test| test.holds(request))
    }
}

impl Test {
    fn compile(condition: &Condition) -> Result<Test, InvalidPattern> {
        let all = |patterns: &[super::config::Pattern], fold| {
            patterns.iter().map(|pattern| Matcher::new(pattern, fold)).collect::<Result<Vec<_>, _>>()
        };
        Ok(match condition {
            Condition::Host(values) => Test::Host(all(values, true)?),
            Condition::Path(values) => Test::Path(all(values, false)?),
            Condition::Header { name, values } => Test::Header(name.to_ascii_lowercase(), all(values, true)?),
            Condition::Method(values) => Test::Method(values.clone()),
            Condition::Query(values) => Test::Query(
                values
                    .iter()
                    .map(|pattern| {
                        let glob = |text: &str| Glob::new(text, true, true);
                        (pattern.key.as_deref().map(glob), glob(&pattern.value))
                    })
                    .collect(),
            ),
            Condition::Source(blocks) => Test::Source(blocks.clone()),
        })
    }

    fn hosts(&self) -> Option<&[Matcher]> {
        if let Test::Host(matchers) = self { Some(matchers) } else { None }
    }

    fn paths(&self) -> Option<&[Matcher]> {
        if let Test::Path(matchers) = self { Some(matchers) } else { None }
    }

    fn holds(&self, request: &impl Request) -> bool {
        let any = |matchers: &[Matcher], text: &[u8]| matchers.iter().any(|matcher| matcher.matches(text));
        match self {
            Test::Host(matchers) => any(matchers, request.host()),
            Test::Path(matchers) => any(matchers, request.path()),
            Test::Header(name, matchers) => request.any_header(name, &mut |value| any(matchers, value)),
            Test::Method(methods) => methods.iter().any(|method| method.as_bytes() == request.method()),
            Test::Query(patterns) => request.query().split(|byte| *byte == b'&').any(|pair| {
                let mut halves = pair.splitn(2, |byte| *byte == b'=');
                let key = halves.next().unwrap_or_default();
                let value = halves.next().unwrap_or_default();
                !pair.is_empty()
                    && patterns.iter().any(|(want_key, want_value)| {
                        want_key.as_ref().is_none_or(|glob| glob.matches(key)) && want_value.matches(value)
                    })
            }),
            Test::Source(blocks) => {
                let source = request.source().to_canonical();
                blocks.iter().any(|block| match (block, source) {
                    (Block::V4(block), IpAddr::V4(ip)) => block.contains(ip),
                    (Block::V6(block), IpAddr::V6(ip)) => block.contains(ip),
                    _ => false,
                })
            }
        }
    }
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
