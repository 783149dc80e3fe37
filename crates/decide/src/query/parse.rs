//! Reads expressions: a recursive descent whose depth and input are bounded.

use super::{
    Comparison, DEPTH_MAX, Expression, Instant, LENGTH_MAX, Operator, Pattern, Problem, QueryError, Subject,
    Test, Version,
};

type Read<T> = Result<T, QueryError>;

pub(super) fn query(text: &str) -> Read<Expression> {
    if text.chars().nth(LENGTH_MAX).is_some() {
        return Err(QueryError { position: LENGTH_MAX + 1, problem: Problem::TooLong });
    }
    let mut reader = Reader { text, at: 0, depth: 0 };
    let expression = reader.any()?;
    reader.space();
    if reader.rest().is_empty() {
        Ok(expression)
    } else {
        Err(reader.problem(Problem::Expected("'and', 'or' or the end")))
    }
}

struct Reader<'a> {
    text: &'a str,
    /// Byte offset, always between characters.
    at: usize,
    depth: usize,
}

/// Where an unquoted word ends.
#[derive(Clone, Copy)]
enum Word {
    Subject,
    Literal,
    /// Square brackets and commas belong to it.
    Pattern,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn space(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    fn problem_at(&self, at: usize, problem: Problem) -> QueryError {
        QueryError { position: self.text[..at].chars().count() + 1, problem }
    }

    fn problem(&self, problem: Problem) -> QueryError {
        self.problem_at(self.at, problem)
    }

    /// Takes `token` after white space if it comes next.
    fn symbol(&mut self, token: &str) -> bool {
        self.space();
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    /// Takes a word after white space if it comes next and ends there.
    fn keyword(&mut self, word: &str) -> bool {
        self.space();
        let Some(after) = self.rest().strip_prefix(word) else { return false };
        let ends = !after.starts_with(|c: char| c.is_alphanumeric() || matches!(c, '_' | ':' | '.' | '-'));
        if ends {
            self.at += word.len();
        }
        ends
    }

    fn any(&mut self) -> Read<Expression> {
        let mut parts = vec![self.all()?];
        while self.symbol("||") || self.keyword("or") {
            parts.push(self.all()?);
        }
        Ok(one_or(parts, Expression::Any))
    }

    fn all(&mut self) -> Read<Expression> {
        let mut parts = vec![self.not()?];
        while self.symbol("&&") || self.keyword("and") {
            parts.push(self.not()?);
        }
        Ok(one_or(parts, Expression::All))
    }

    fn not(&mut self) -> Read<Expression> {
        if self.depth == DEPTH_MAX {
            return Err(self.problem(Problem::TooDeep));
        }
        self.depth += 1;
        let expression = if self.symbol("!") || self.keyword("not") {
            Expression::Not(Box::new(self.not()?))
        } else if self.symbol("(") {
            let inner = self.any()?;
            if !self.symbol(")") {
                return Err(self.problem(Problem::Expected("')'")));
            }
            inner
        } else {
            self.predicate()?
        };
        self.depth -= 1;
        Ok(expression)
    }

    fn predicate(&mut self) -> Read<Expression> {
        let subject = self.subject()?;
        self.space();
        let operator_at = self.at;
        let operator = self.operator()?;
        let test = self.test(&subject, operator, operator_at)?;
        Ok(Expression::Test(subject, test))
    }

    fn subject(&mut self) -> Read<Subject> {
        self.space();
        let at = self.at;
        let word = self.word(Word::Subject);
        if let Some(name) = word.strip_prefix("attribute:") {
            if name.is_empty() {
                return Err(self.problem(Problem::Expected("the name of an attribute")));
            }
            return Ok(Subject::Attribute(name.to_owned()));
        }
        match word {
            "agentConnected" => Ok(Subject::AgentConnected),
            "agentVersion" => Ok(Subject::AgentVersion),
            "ec2InstanceId" => Ok(Subject::Ec2InstanceId),
            "registeredAt" => Ok(Subject::RegisteredAt),
            "runningTasksCount" => Ok(Subject::RunningTasksCount),
            "task:group" => Ok(Subject::TaskGroup),
            "" => Err(self.problem_at(at, Problem::Expected("a subject"))),
            other => Err(self.problem_at(at, Problem::UnknownSubject(shorten(other)))),
        }
    }

    fn operator(&mut self) -> Read<Operator> {
        for (spelling, operator) in Operator::SPELLINGS {
            // A symbol needs nothing after it; a word must end.
            let is_word = spelling.ends_with(|c: char| c.is_ascii_alphabetic());
            if if is_word { self.keyword(spelling) } else { self.symbol(spelling) } {
                return Ok(operator);
            }
        }
        Err(self.problem(Problem::Expected("an operator")))
    }

    /// Reads the argument as what subject and operator need.
    fn test(&mut self, subject: &Subject, operator: Operator, operator_at: usize) -> Read<Test> {
        let wrong = |reader: &Reader<'_>| {
            reader.problem_at(operator_at, Problem::WrongOperator { subject: subject.clone(), operator })
        };
        match subject {
            Subject::AgentVersion | Subject::RegisteredAt | Subject::RunningTasksCount => {
                let comparison = Comparison::of(operator).ok_or_else(|| wrong(self))?;
                self.comparison(subject, comparison)
            }
            _ => {
                let presence = matches!(subject, Subject::TaskGroup | Subject::Attribute(_));
                match operator {
                    Operator::Exists | Operator::NotExists if presence => {
                        Ok(Test::Exists { negated: operator == Operator::NotExists })
                    }
                    Operator::Equals | Operator::NotEquals => {
                        let text = self.literal(Word::Literal)?;
                        Ok(Test::Is { text, negated: operator == Operator::NotEquals })
                    }
                    Operator::In | Operator::NotIn => {
                        Ok(Test::In { texts: self.list()?, negated: operator == Operator::NotIn })
                    }
                    Operator::Matches | Operator::NotMatches => {
                        self.space();
                        let at = self.at;
                        let text = self.literal(Word::Pattern)?;
                        let pattern =
                            Pattern::parse(&text).map_err(|e| self.problem_at(at, Problem::Pattern(e)))?;
                        Ok(Test::Matches { pattern, negated: operator == Operator::NotMatches })
                    }
                    _ => Err(wrong(self)),
                }
            }
        }
    }

    fn comparison(&mut self, subject: &Subject, comparison: Comparison) -> Read<Test> {
        self.space();
        let at = self.at;
        let text = self.literal(Word::Literal)?;
        let (test, expected) = match subject {
            Subject::AgentVersion => {
                (Version::parse(&text).map(|v| Test::Version(comparison, v)), "a version such as 1.14.5")
            }
            Subject::RegisteredAt => (
                Instant::parse(&text).map(|i| Test::Instant(comparison, i)),
                "a time such as 2018-06-18T22:28:28+00:00",
            ),
            _ => (text.parse().ok().map(|n| Test::Count(comparison, n)), "a number"),
        };
        test.ok_or_else(|| self.problem_at(at, Problem::WrongValue { text: shorten(&text), expected }))
    }

    fn list(&mut self) -> Read<Vec<String>> {
        if !self.symbol("[") {
            return Err(self.problem(Problem::Expected("'['")));
        }
        let mut texts = vec![self.literal(Word::Literal)?];
        while self.symbol(",") {
            texts.push(self.literal(Word::Literal)?);
        }
        if self.symbol("]") { Ok(texts) } else { Err(self.problem(Problem::Expected("',' or ']'"))) }
    }

    fn literal(&mut self, word: Word) -> Read<String> {
        self.space();
        if let Some(quote) = self.rest().chars().next().filter(|c| matches!(c, '\'' | '"')) {
            let inside = &self.rest()[1..];
            let end = inside.find(quote).ok_or_else(|| self.problem(Problem::Expected("a closing quote")))?;
            self.at += end + 2;
            return Ok(inside[..end].to_owned());
        }
        match self.word(word) {
            "" => Err(self.problem(Problem::Expected("a value"))),
            text => Ok(text.to_owned()),
        }
    }

    /// The unquoted word that starts here; may be empty.
    fn word(&mut self, word: Word) -> &'a str {
        let rest = self.rest();
        let ends = |at: usize, c: char| {
            let always = c.is_whitespace() || matches!(c, '(' | ')' | '\'' | '"');
            let joins = rest[at..].starts_with("&&") || rest[at..].starts_with("||");
            always
                || joins
                || match word {
                    Word::Subject => matches!(c, '=' | '!' | '<' | '>' | '[' | ']' | ','),
                    Word::Literal => matches!(c, '[' | ']' | ','),
                    Word::Pattern => false,
                }
        };
        let end = rest.char_indices().find(|(at, c)| ends(*at, *c)).map_or(rest.len(), |(at, _)| at);
        self.at += end;
        &rest[..end]
    }
}

impl Comparison {
    fn of(operator: Operator) -> Option<Comparison> {
        match operator {
            Operator::Equals => Some(Comparison::Equal),
            Operator::NotEquals => Some(Comparison::NotEqual),
            Operator::Greater => Some(Comparison::Greater),
            Operator::GreaterEqual => Some(Comparison::GreaterEqual),
            Operator::Less => Some(Comparison::Less),
            Operator::LessEqual => Some(Comparison::LessEqual),
            _ => None,
        }
    }
}

fn one_or(mut parts: Vec<Expression>, join: fn(Vec<Expression>) -> Expression) -> Expression {
    match parts.pop() {
        Some(only) if parts.is_empty() => only,
        Some(last) => {
            parts.push(last);
            join(parts)
        }
        None => join(parts),
    }
}

/// As much of a wrong word as an error shows.
fn shorten(text: &str) -> String {
    text.chars().take(64).collect()
}
