//! The signal by which an image wants its containers to be ended.

use crate::images::ImageConfig;
use nix::sys::signal::Signal;

/// The first real-time signal that programs count from, `SIGRTMIN`: the C library keeps two below it for itself.
const REAL_TIME_MIN: i32 = 34;
/// `SIGRTMAX`, the kernel's last.
const REAL_TIME_MAX: i32 = 64;

/// A name or number that is no signal's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid signal: {0}")]
pub struct InvalidSignal(String);

/// The number of the image's signal, if it names one.
///
/// # Errors
/// For what is no signal.
pub fn of(image: &ImageConfig) -> Result<Option<i32>, InvalidSignal> {
    let text = image.stop_signal.as_deref().unwrap_or_default();
    if text.is_empty() {
        return Ok(None);
    }
    read(text).map(Some).ok_or_else(|| InvalidSignal(text.chars().take(64).collect()))
}

/// By its name in either case, with `SIG` or without, or its number.
fn read(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse::<i32>() {
        return (1..=REAL_TIME_MAX).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let from = |number: i32, steps: &str| match steps {
        "" => Some(number),
        steps if steps.starts_with(['+', '-']) => number.checked_add(steps.parse().ok()?),
        _ => None,
    };
    let real_time = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(steps), _) if !steps.starts_with('-') => from(REAL_TIME_MIN, steps),
        (_, Some(steps)) if !steps.starts_with('+') => from(REAL_TIME_MAX, steps),
        _ => return format!("SIG{name}").parse::<Signal>().ok().map(|signal| signal as i32),
    };
    real_time.filter(|number| (REAL_TIME_MIN..=REAL_TIME_MAX).contains(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names_and_numbers() {
        for (text, number) in [
            ("SIGTERM", Some(15)),
            ("quit", Some(3)),
            ("SigInt", Some(2)),
            ("9", Some(9)),
            ("SIGRTMIN", Some(34)),
            ("SIGRTMIN+3", Some(37)),
            ("RTMAX-2", Some(62)),
            ("RTMAX", Some(64)),
            ("64", Some(64)),
            ("0", None),
            ("65", None),
            ("RTMIN-1", None),
            ("RTMAX+1", None),
            ("RTMIN+31", None),
            ("RTMIN3", None),
            ("SIGNOTHING", None),
            ("SIG", None),
        ] {
            assert_eq!(read(text), number, "{text}");
            let image = ImageConfig { stop_signal: Some(text.to_owned()), ..ImageConfig::default() };
            assert_eq!(of(&image).is_err(), number.is_none(), "{text}");
        }
        assert_eq!(of(&ImageConfig::default()), Ok(None));
        assert_eq!(InvalidSignal("X".to_owned()).to_string(), "invalid signal: X");
    }
}
