//! Ending on SIGTERM and SIGINT. A container's first process gets only the signals that it asks for.

use std::sync::OnceLock;

/// Interrupt, quit, terminate: the same numbers on every platform of ours.
const STOP_SIGNALS: [i32; 3] = [2, 3, 15];
const STDOUT: i32 = 1;

// Of the C library, which the standard library is linked with.
unsafe extern "C" {
    fn signal(number: i32, handler: extern "C" fn(i32)) -> usize;
    fn write(descriptor: i32, bytes: *const u8, count: usize) -> isize;
    fn _exit(code: i32) -> !;
}

/// The exit code, and the last line.
static END: OnceLock<(i32, &'static str)> = OnceLock::new();

/// Has the stop signals end the process with `code`, after `farewell`, a line. No thread waits for them: that would be
/// much of what so small a program costs.
pub fn exit_on_stop(code: i32, farewell: &'static str) {
    END.get_or_init(|| (code, farewell));
    for number in STOP_SIGNALS {
        // SAFETY: the handler makes only calls that handlers may make. Each of these signals may have one.
        unsafe { signal(number, end) };
    }
}

extern "C" fn end(_: i32) {
    let (code, farewell) = END.get().copied().unwrap_or_default();
    // SAFETY: the text is as long as said and lives for ever; neither call takes a lock.
    unsafe {
        write(STDOUT, farewell.as_ptr(), farewell.len());
        _exit(code)
    }
}
