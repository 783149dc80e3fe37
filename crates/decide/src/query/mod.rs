//! The cluster query language: which container instances a `memberOf` constraint or a list filter means.
//!
//! [`Query::parse`] checks everything that can be checked without an instance; [`Query::matches`] then cannot fail.

mod evaluate;
mod parse;
#[cfg(test)]
mod tests;
mod values;

pub use evaluate::Candidate;
pub use values::{Instant, Pattern, Version};

use std::fmt;

/// ECS's own limit for the expression of a constraint, in characters.
pub const LENGTH_MAX: usize = 2_000;
/// Parentheses and negations inside each other. Reading and evaluating recurse this deep and no deeper.
pub const DEPTH_MAX: usize = 32;

/// A checked expression.
#[derive(Clone, Debug, PartialEq)]
pub struct Query(Expression);

#[derive(Clone, Debug, PartialEq)]
enum Expression {
    /// Two or more.
    Any(Vec<Expression>),
    /// Two or more.
    All(Vec<Expression>),
    Not(Box<Expression>),
    Test(Subject, Test),
}

/// What a predicate asks about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    AgentConnected,
    AgentVersion,
    Ec2InstanceId,
    RegisteredAt,
    RunningTasksCount,
    TaskGroup,
    Attribute(String),
}

/// An operator, whichever of its spellings was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    Equals,
    NotEquals,
    Greater,
    GreaterEqual,
    Less,
    LessEqual,
    Exists,
    NotExists,
    In,
    NotIn,
    Matches,
    NotMatches,
}

impl Operator {
    /// All spellings, the one that is shown first of its kind.
    const SPELLINGS: [(&'static str, Operator); 22] = [
        ("==", Operator::Equals),
        ("equals", Operator::Equals),
        ("!=", Operator::NotEquals),
        ("not_equals", Operator::NotEquals),
        (">=", Operator::GreaterEqual),
        ("greater_than_equal", Operator::GreaterEqual),
        (">", Operator::Greater),
        ("greater_than", Operator::Greater),
        ("<=", Operator::LessEqual),
        ("less_than_equal", Operator::LessEqual),
        ("<", Operator::Less),
        ("less_than", Operator::Less),
        ("exists", Operator::Exists),
        ("!exists", Operator::NotExists),
        ("not_exists", Operator::NotExists),
        ("in", Operator::In),
        ("!in", Operator::NotIn),
        ("not_in", Operator::NotIn),
        ("=~", Operator::Matches),
        ("matches", Operator::Matches),
        ("!~", Operator::NotMatches),
        ("not_matches", Operator::NotMatches),
    ];

    pub fn as_str(self) -> &'static str {
        Operator::SPELLINGS.iter().find(|(_, operator)| *operator == self).map_or("", |(text, _)| text)
    }
}

/// An order between an instance's value and the expression's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Equal,
    NotEqual,
    Greater,
    GreaterEqual,
    Less,
    LessEqual,
}

/// What a predicate asks, its argument read as what the subject needs.
#[derive(Clone, Debug, PartialEq)]
enum Test {
    Exists { negated: bool },
    Is { text: String, negated: bool },
    In { texts: Vec<String>, negated: bool },
    Matches { pattern: Pattern, negated: bool },
    Version(Comparison, Version),
    Instant(Comparison, Instant),
    Count(Comparison, u64),
}

/// An expression that cannot be used.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("Invalid expression: {problem} at character {position}")]
pub struct QueryError {
    /// Counted in characters from 1.
    pub position: usize,
    #[source]
    pub problem: Problem,
}

/// What is wrong with an expression.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Problem {
    #[error("it is longer than {LENGTH_MAX} characters")]
    TooLong,
    #[error("parentheses or negations are nested deeper than {DEPTH_MAX}")]
    TooDeep,
    #[error("expected {0}")]
    Expected(&'static str),
    #[error("unknown subject '{0}'")]
    UnknownSubject(String),
    #[error("{} cannot be used with {subject}", operator.as_str())]
    WrongOperator { subject: Subject, operator: Operator },
    #[error("'{text}' is not {expected}")]
    WrongValue { text: String, expected: &'static str },
    #[error("the pattern is not a regular expression that can be used")]
    Pattern(#[source] regex::Error),
}

impl Query {
    /// Reads an expression.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn parse(text: &str) -> Result<Query, QueryError> {
        parse::query(text).map(Query)
    }

    /// Whether an instance is meant.
    pub fn matches(&self, candidate: &dyn Candidate) -> bool {
        evaluate::holds(&self.0, candidate)
    }

    /// Whether the answer can change with the tasks that run on an instance.
    pub fn depends_on_tasks(&self) -> bool {
        fn any(expression: &Expression) -> bool {
            match expression {
                Expression::Any(parts) | Expression::All(parts) => parts.iter().any(any),
                Expression::Not(part) => any(part),
                Expression::Test(subject, _) => {
                    matches!(subject, Subject::RunningTasksCount | Subject::TaskGroup)
                }
            }
        }
        any(&self.0)
    }
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, parts: &[Expression], word: &str| {
            for (index, part) in parts.iter().enumerate() {
                if index > 0 {
                    write!(f, " {word} ")?;
                }
                match part {
                    Expression::Any(_) | Expression::All(_) => write!(f, "({part})")?,
                    _ => part.fmt(f)?,
                }
            }
            Ok(())
        };
        match self {
            Expression::Any(parts) => list(f, parts, "or"),
            Expression::All(parts) => list(f, parts, "and"),
            Expression::Not(part) => match **part {
                Expression::Any(_) | Expression::All(_) => write!(f, "not({part})"),
                // Without parentheses, so that what is shown nests no deeper than what was read.
                Expression::Not(_) | Expression::Test(..) => write!(f, "not {part}"),
            },
            Expression::Test(subject, test) => write!(f, "{subject} {test}"),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::AgentConnected => f.write_str("agentConnected"),
            Subject::AgentVersion => f.write_str("agentVersion"),
            Subject::Ec2InstanceId => f.write_str("ec2InstanceId"),
            Subject::RegisteredAt => f.write_str("registeredAt"),
            Subject::RunningTasksCount => f.write_str("runningTasksCount"),
            Subject::TaskGroup => f.write_str("task:group"),
            Subject::Attribute(name) => write!(f, "attribute:{name}"),
        }
    }
}

/// A literal in the quotes that it does not contain itself; none that was read contains both kinds.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quote = if self.0.contains('\'') { '"' } else { '\'' };
        write!(f, "{quote}{}{quote}", self.0)
    }
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let either = |negated: bool, no: Operator, yes: Operator| if negated { no } else { yes }.as_str();
        match self {
            Test::Exists { negated } => f.write_str(either(*negated, Operator::NotExists, Operator::Exists)),
            Test::Is { text, negated } => {
                write!(f, "{} {}", either(*negated, Operator::NotEquals, Operator::Equals), Quoted(text))
            }
            Test::In { texts, negated } => {
                write!(f, "{} [", either(*negated, Operator::NotIn, Operator::In))?;
                for (index, text) in texts.iter().enumerate() {
                    write!(f, "{}{}", if index > 0 { ", " } else { "" }, Quoted(text))?;
                }
                f.write_str("]")
            }
            Test::Matches { pattern, negated } => {
                let operator = either(*negated, Operator::NotMatches, Operator::Matches);
                write!(f, "{operator} {}", Quoted(pattern.as_str()))
            }
            Test::Version(comparison, version) => write!(f, "{comparison} {version}"),
            Test::Instant(comparison, instant) => write!(f, "{comparison} {instant}"),
            Test::Count(comparison, count) => write!(f, "{comparison} {count}"),
        }
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Comparison::Equal => "==",
            Comparison::NotEqual => "!=",
            Comparison::Greater => ">",
            Comparison::GreaterEqual => ">=",
            Comparison::Less => "<",
            Comparison::LessEqual => "<=",
        })
    }
}
