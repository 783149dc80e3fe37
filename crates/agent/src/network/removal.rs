//! Deleting links, many in one go: for each deletion the kernel waits some 20 ms until nobody looks at what it deletes, in
//! which no other link of the host can be made or changed; for a hundred at once it waits no longer.

use super::netlink::Socket;
use super::route;
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::io;

/// The group of links that are about to be deleted, by whichever agent of the host: of no meaning to anybody else.
const DOOMED: u32 = 0x6761_6e74;

/// Collects the links that are to go while others go.
#[derive(Default)]
pub struct Removal {
    waiting: Mutex<BTreeSet<String>>,
    turn: Mutex<()>,
}

impl Removal {
    /// Deletes a link, together with those that others want deleted meanwhile. One that is not there is no error.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn delete(&self, link: &str) -> io::Result<()> {
        if route::index(link).is_err() {
            return Ok(());
        }
        self.waiting.lock().insert(link.to_owned());
        let _turn = self.turn.lock();
        let mut waiting = self.waiting.lock();
        if waiting.contains(link) {
            let links = std::mem::take(&mut *waiting);
            drop(waiting);
            return delete(links.iter().map(String::as_str));
        }
        // Those that came meanwhile are for one of them to take.
        drop(waiting);
        if route::index(link).is_ok() {
            // Whoever took it along failed, and told its own caller.
            route::delete(&mut Socket::route()?, link)?;
        }
        Ok(())
    }
}

/// Deletes links in one go.
pub fn delete<'a>(links: impl IntoIterator<Item = &'a str>) -> io::Result<()> {
    let mut socket = Socket::route()?;
    for link in links {
        route::join_group(&mut socket, link, DOOMED)?;
    }
    route::delete_group(&mut socket, DOOMED)
}
