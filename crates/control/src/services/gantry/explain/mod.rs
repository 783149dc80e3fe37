//! Why something is as it is, in plain words: a verdict, what was found, what to do next.
//!
//! Pure functions of a snapshot and the time. They ask the same judges that act (the census of the services controller,
//! the checks of placement), so what they say is what is done.

pub mod instance;
mod room;
pub mod service;
mod shift;
pub mod task;
mod words;

pub use words::{span, stop_facts};

/// Lines of detail under one finding: what a person reads; the rest is counted.
const DETAILS_MAX: usize = 10;

/// Why something is as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Explanation {
    /// One or two sentences that answer the question.
    pub verdict: String,
    pub findings: Vec<Finding>,
    pub suggestions: Vec<Suggestion>,
}

/// Something that was found, with what lies under it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// A word or two to find it by.
    pub topic: &'static str,
    pub message: String,
    pub details: Vec<String>,
}

/// What to do next, and a command that does or shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suggestion {
    pub message: String,
    pub command: Option<String>,
}

impl Explanation {
    fn find(&mut self, topic: &'static str, message: impl Into<String>) -> &mut Finding {
        self.findings.push(Finding { topic, message: message.into(), details: Vec::new() });
        self.findings.last_mut().expect("it was pushed just now")
    }

    /// Adds advice that was not given yet.
    fn suggest(&mut self, message: impl Into<String>, command: impl Into<Option<String>>) {
        let suggestion = Suggestion { message: message.into(), command: command.into() };
        if !self.suggestions.contains(&suggestion) {
            self.suggestions.push(suggestion);
        }
    }
}
