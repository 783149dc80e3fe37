//! The floor: one thread, epoll, and bytes from one socket into the other. What a proxy costs beyond it, it costs for
//! knowing what it carries.

use super::COPY;
use anyhow::{Result, bail};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;

const BUFFER: usize = 64 * 1024;

/// Runs as the copier: `PORT ORIGIN`, until it is killed.
pub fn copy(arguments: &[String]) -> Result<()> {
    let [port, origin] = arguments else { bail!("usage: {COPY} PORT ORIGIN") };
    let (port, origin): (u16, u16) = (port.parse()?, origin.parse()?);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    listener.set_nonblocking(true)?;
    let epoll = Epoll::new(EpollCreateFlags::empty())?;
    epoll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
    // By the descriptor of the one side: the other.
    let mut others: HashMap<u64, TcpStream> = HashMap::new();
    let mut events = [EpollEvent::empty(); 256];
    let mut buffer = vec![0; BUFFER];
    loop {
        let count = match epoll.wait(&mut events, EpollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            other => other?,
        };
        for event in &events[..count] {
            if event.data() == 0 {
                while let Ok((near, _)) = listener.accept() {
                    let far = TcpStream::connect((Ipv4Addr::LOCALHOST, origin))?;
                    for stream in [&near, &far] {
                        stream.set_nodelay(true)?;
                        stream.set_nonblocking(true)?;
                        epoll.add(stream, EpollEvent::new(EpollFlags::EPOLLIN, stream.as_raw_fd() as u64))?;
                    }
                    let (one, other) = (near.as_raw_fd() as u64, far.as_raw_fd() as u64);
                    others.insert(one, far);
                    others.insert(other, near);
                }
                continue;
            }
            if !carry(event.data(), &others, &mut buffer)
                && let Some(far) = others.remove(&event.data())
            {
                others.remove(&(far.as_raw_fd() as u64));
            }
        }
    }
}

/// Copies what can be read of a descriptor; false when it, or the other side, has ended.
fn carry(from: u64, others: &HashMap<u64, TcpStream>, buffer: &mut [u8]) -> bool {
    let Some(mut far) = others.get(&from) else { return true };
    let Some(mut near) = others.get(&(far.as_raw_fd() as u64)) else { return true };
    let count = match near.read(buffer) {
        Ok(0) => return false,
        Ok(count) => count,
        Err(error) => return error.kind() == ErrorKind::WouldBlock,
    };
    let mut rest = &buffer[..count];
    while !rest.is_empty() {
        match far.write(rest) {
            Ok(count) => rest = &rest[count..],
            // A floor may wait for a reader: there is nothing else that it is measured by.
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::yield_now(),
            Err(_) => return false,
        }
    }
    true
}
