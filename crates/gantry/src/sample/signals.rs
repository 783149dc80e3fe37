//! Ending on SIGTERM and SIGINT. A container's first process gets only the signals that it asks for.

use nix::sys::signal::{SigSet, Signal};

/// Lets a thread wait for the stop signals and end the process with `code`, after `farewell`. To be called before any
/// other thread is started.
pub fn exit_on_stop(code: i32, farewell: &'static str) -> std::io::Result<()> {
    let mut stop = SigSet::empty();
    stop.add(Signal::SIGTERM);
    stop.add(Signal::SIGINT);
    stop.add(Signal::SIGQUIT);
    stop.thread_block()?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        if stop.wait().is_ok() {
            println!("{farewell}");
            std::process::exit(code);
        }
    })?;
    Ok(())
}
