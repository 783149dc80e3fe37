//! Ending on SIGTERM and SIGINT. A container's first process gets only the signals that it asks for.

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use std::sync::OnceLock;

/// The exit code, and the last line.
static END: OnceLock<(i32, &'static str)> = OnceLock::new();

/// Has the stop signals end the process with `code`, after `farewell`, a line. No thread waits for them: that would be
/// half of what a small program costs.
pub fn exit_on_stop(code: i32, farewell: &'static str) -> std::io::Result<()> {
    END.get_or_init(|| (code, farewell));
    let action = SigAction::new(SigHandler::Handler(end), SaFlags::empty(), SigSet::all());
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT] {
        // SAFETY: the function makes only calls that handlers of signals may make.
        unsafe { sigaction(signal, &action) }?;
    }
    Ok(())
}

extern "C" fn end(_: libc::c_int) {
    let (code, farewell) = END.get().copied().unwrap_or_default();
    // SAFETY: the text is as long as said and lives for ever; neither call takes a lock.
    unsafe {
        libc::write(libc::STDOUT_FILENO, farewell.as_ptr().cast(), farewell.len());
        libc::_exit(code)
    }
}
