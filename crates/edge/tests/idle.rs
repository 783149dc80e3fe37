//! What a connection takes of memory while nothing is asked on it.

#![allow(clippy::unwrap_used)]
mod common;

use common::{Server, World, read_answer, status};
use std::alloc::{GlobalAlloc, Layout, System};
use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

/// The system's allocator, and how much of it is in use.
struct Counted;

static IN_USE: AtomicUsize = AtomicUsize::new(0);

// SAFETY: the system's allocator does what it promises; counting touches none of it.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        IN_USE.fetch_add(layout.size(), SeqCst);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size(), SeqCst);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counted = Counted;

#[test]
fn a_connection_that_waits_holds_little() {
    const CONNECTIONS: usize = 500;
    const MOST: usize = 2560;
    let server = Server::start();
    let world = World::of(&[&server]);
    let open = |count: usize| -> Vec<_> {
        let asked = (0..count).map(|_| {
            let mut stream = world.connect();
            stream.write_all(b"GET /bytes/3000 HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
            assert_eq!(status(&read_answer(&mut stream)), 200);
            stream
        });
        asked.collect()
    };
    // What is there once is there by then.
    let _few = open(20);
    let before = IN_USE.load(SeqCst);
    let _many = open(CONNECTIONS);
    // The last of them have still to be laid to rest.
    std::thread::sleep(Duration::from_millis(300));
    let each = IN_USE.load(SeqCst).saturating_sub(before) / CONNECTIONS;
    assert!(each <= MOST, "{each} bytes each");
}
