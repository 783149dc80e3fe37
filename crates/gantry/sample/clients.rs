//! Clients of a server by TCP: each has a thread, up to a number of them.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Has every client that comes served. Beyond `most` at a time they are hung up on.
pub fn serve(
    listener: &TcpListener,
    most: usize,
    converse: impl Fn(&TcpStream) -> io::Result<()> + Clone + Send + 'static,
) -> io::Result<()> {
    let clients = Arc::new(AtomicUsize::new(0));
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        if clients.fetch_add(1, Ordering::Relaxed) >= most {
            clients.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        let (converse, clients) = (converse.clone(), clients.clone());
        std::thread::spawn(move || {
            // A client that goes away ends its thread and nothing else.
            let _ = converse(&stream);
            clients.fetch_sub(1, Ordering::Relaxed);
        });
    }
    Ok(())
}
