//! How a service treats tasks that keep failing to start: patience that grows.

use std::time::Duration;

/// Failures in a row that cost nothing.
const FREE_FAILURES: u32 = 2;

/// Minutes to wait after the third, fourth, … failure in a row. ECS documents that the delay grows up to 27 minutes;
/// the steps are ours.
const MINUTES: [u64; 6] = [1, 2, 4, 8, 16, 27];

/// How long to wait before the next launch, after so many tasks in a row that never reached RUNNING. A new
/// deployment starts counting from zero.
pub fn delay(failures: u32) -> Option<Duration> {
    let step = failures.checked_sub(FREE_FAILURES + 1)?;
    let minutes =
        MINUTES[usize::try_from(step).map_or(MINUTES.len() - 1, |step| step.min(MINUTES.len() - 1))];
    Some(Duration::from_secs(minutes * 60))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_27_minutes_from_the_third_failure() {
        let minutes = |failures| delay(failures).map(|delay| delay.as_secs() / 60);
        let told: Vec<_> = (0..=9).map(minutes).collect();
        let grown = [1, 2, 4, 8, 16, 27, 27].map(Some);
        assert_eq!(told[..3], [None, None, None]);
        assert_eq!(told[3..], grown);
        assert_eq!(minutes(u32::MAX), Some(27));
    }
}
