//! What the demo shows: one line a step and one line a change of a task's state, as they happen.
//!
//! Lines only ever follow each other, so that the output reads the same in a terminal, a pipe and a CI log.

use std::io::{IsTerminal, Write, stdout};
use std::time::Instant;

/// Standard output with the demo's clock.
pub struct Screen {
    start: Instant,
    colour: bool,
}

impl Screen {
    pub fn start() -> Screen {
        let colour = stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Screen { start: Instant::now(), colour }
    }

    pub fn seconds(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    /// A heading, with room above it.
    pub fn title(&self, text: &str) {
        self.line(&format!("\n{}", self.painted("1", text)));
    }

    /// Something that is done.
    pub fn done(&self, text: &str) {
        self.line(&format!("{:7.2} s  {}", self.seconds(), self.painted("32", text)));
    }

    /// A task's state changed.
    pub fn change(&self, family: &str, task: &str, status: &str, detail: &str) {
        let colour = match status {
            "RUNNING" => "32",
            "STOPPED" => "2",
            _ => "33",
        };
        let status = self.painted(colour, &format!("{status:14}"));
        let line = format!("{:7.2} s    {family:16} {task}  {status} {detail}", self.seconds());
        self.line(line.trim_end());
    }

    /// Text as it is, set in.
    pub fn quote(&self, text: &str) {
        for line in text.lines() {
            self.line(&format!("             {line}"));
        }
    }

    fn painted(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn line(&self, text: &str) {
        // Who closed the pipe does not want to read; the demo still cleans up.
        let _ = writeln!(stdout(), "{text}");
    }
}
