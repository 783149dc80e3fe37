//! The way of a request through the readers of this module, for those who feed them damaged input.

use super::body::{Body, Malformed};
use super::head::{self, MAX_HEADERS};
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr};

/// The bytes of a request's head, and its body's content as far as it is there. None for what is refused, and for a head
/// that is incomplete.
///
/// # Panics
/// When a body's content depends on where the network cuts it: two readers would see two requests.
pub fn understood(bytes: &[u8]) -> Option<(usize, Vec<u8>)> {
    let mut space = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    if !head::find_end(bytes, 0) {
        return None;
    }
    let head = head::read(bytes, &mut space, IpAddr::V4(Ipv4Addr::LOCALHOST)).ok()??;
    let rest = &bytes[head.length..];
    let at_once = content(head.body.clone(), rest, rest.len());
    let in_pieces = content(head.body.clone(), rest, 1);
    assert_eq!(at_once, in_pieces, "a body is read in two ways");
    Some((head.length, at_once.ok()?.0))
}

/// A body's content and the bytes that it took, when they come in pieces.
fn content(mut body: Body, bytes: &[u8], piece: usize) -> Result<(Vec<u8>, usize), Malformed> {
    let (mut content, mut taken) = (Vec::new(), 0);
    for piece in bytes.chunks(piece.max(1)) {
        let count = body.take(piece, |data| content.extend_from_slice(data))?;
        taken += count;
        if count < piece.len() {
            break;
        }
    }
    Ok((content, taken))
}
