//! Whether an instance is one that an expression means.

use super::{Comparison, Expression, Instant, Subject, Test, Version};
use crate::time::Timestamp;

/// A container instance, as far as expressions can ask about it.
pub trait Candidate {
    fn agent_connected(&self) -> bool;
    /// Empty while the agent has told none.
    fn agent_version(&self) -> &str;
    fn ec2_instance_id(&self) -> Option<&str>;
    fn registered_at(&self) -> Timestamp;
    fn running_tasks_count(&self) -> u64;
    /// Whether a task runs here whose group satisfies the condition.
    fn any_task_group(&self, condition: &mut dyn FnMut(&str) -> bool) -> bool;
    /// Whether a task of this group runs here.
    fn has_task_group(&self, name: &str) -> bool {
        self.any_task_group(&mut |group| group == name)
    }
    /// Outer: whether the attribute is there. Inner: its value; capabilities have none.
    fn attribute(&self, name: &str) -> Option<Option<&str>>;
}

pub(super) fn holds(expression: &Expression, candidate: &dyn Candidate) -> bool {
    match expression {
        Expression::Any(parts) => parts.iter().any(|part| holds(part, candidate)),
        Expression::All(parts) => parts.iter().all(|part| holds(part, candidate)),
        Expression::Not(part) => !holds(part, candidate),
        Expression::Test(subject, test) => satisfies(subject, test, candidate),
    }
}

/// Negated operators are the exact opposites of theirs: `attribute:x != y` holds where the attribute is missing.
fn satisfies(subject: &Subject, test: &Test, candidate: &dyn Candidate) -> bool {
    match test {
        Test::Exists { negated } => negated ^ any_text(subject, candidate, true, &mut |_| true),
        // Few groups are named, and an instance may have tasks of hundreds.
        Test::Is { text, negated } if *subject == Subject::TaskGroup => {
            negated ^ candidate.has_task_group(text)
        }
        Test::In { texts, negated } if *subject == Subject::TaskGroup => {
            negated ^ texts.iter().any(|text| candidate.has_task_group(text))
        }
        Test::Is { text, negated } => {
            negated ^ any_text(subject, candidate, false, &mut |value| value == text)
        }
        Test::In { texts, negated } => {
            negated ^ any_text(subject, candidate, false, &mut |value| texts.iter().any(|text| value == text))
        }
        Test::Matches { pattern, negated } => {
            negated ^ any_text(subject, candidate, false, &mut |value| pattern.matches(value))
        }
        Test::Version(comparison, version) => match Version::parse(candidate.agent_version()) {
            Some(actual) => comparison.holds(&actual, version),
            // A version that is not known is neither before nor after nor the same.
            None => *comparison == Comparison::NotEqual,
        },
        Test::Instant(comparison, instant) => {
            comparison.holds(&Instant::from(candidate.registered_at()), instant)
        }
        Test::Count(comparison, count) => comparison.holds(&candidate.running_tasks_count(), count),
    }
}

/// Whether one of the texts that a subject has satisfies the condition. An attribute without a value counts as the
/// empty text only where its presence is asked for.
fn any_text(
    subject: &Subject,
    candidate: &dyn Candidate,
    presence: bool,
    condition: &mut dyn FnMut(&str) -> bool,
) -> bool {
    match subject {
        Subject::AgentConnected => condition(if candidate.agent_connected() { "true" } else { "false" }),
        Subject::Ec2InstanceId => candidate.ec2_instance_id().is_some_and(condition),
        Subject::TaskGroup => candidate.any_task_group(condition),
        Subject::Attribute(name) => match candidate.attribute(name) {
            Some(Some(value)) => condition(value),
            Some(None) => presence && condition(""),
            None => false,
        },
        // The reader gives these subjects comparisons only.
        Subject::AgentVersion | Subject::RegisteredAt | Subject::RunningTasksCount => false,
    }
}

impl Comparison {
    fn holds<T: Ord>(self, actual: &T, asked: &T) -> bool {
        match self {
            Comparison::Equal => actual == asked,
            Comparison::NotEqual => actual != asked,
            Comparison::Greater => actual > asked,
            Comparison::GreaterEqual => actual >= asked,
            Comparison::Less => actual < asked,
            Comparison::LessEqual => actual <= asked,
        }
    }
}
