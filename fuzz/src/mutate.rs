//! Damage.

use gantry_decide::random::{Random, Seeded};

/// Inputs stay below this: longer ones find nothing that shorter ones do not.
const LENGTH_MAX: usize = 16 << 10;

/// Pieces that readers have opinions on.
const PIECES: &[&[u8]] = &[
    b"\0",
    b"\"",
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b",",
    b"&",
    b"=",
    b"%",
    b"%0",
    b"+",
    b"..",
    b"/",
    b"-1",
    b"0",
    b"null",
    b"true",
    b"1e999",
    b"9223372036854775808",
    b"\xff\xfe",
    b"\xf0\x9f\x98\x80",
    b"\\u0000",
    b"\\ud800",
    b"\r\n\r\n",
    b" ",
    b"(",
    b")",
    b"!",
    b"=~",
    b"in",
    b"[[[[[[[[[[[[[[[[",
    b"{\"a\":{\"a\":{\"a\":{\"a\":",
];

/// Damages an input a little.
pub fn mutate(input: &mut Vec<u8>, samples: &[Vec<u8>], random: &mut Seeded) {
    let at = |length: usize, random: &mut Seeded| random.below(length + 1);
    match random.below(7) {
        0 if !input.is_empty() => {
            let index = random.below(input.len());
            input[index] ^= 1 << random.below(8);
        }
        1 if !input.is_empty() => {
            let index = random.below(input.len());
            input[index] = random.next_u64() as u8;
        }
        2 => {
            let index = at(input.len(), random);
            let piece = PIECES[random.below(PIECES.len())];
            input.splice(index..index, piece.iter().copied());
        }
        3 if !input.is_empty() => {
            let start = random.below(input.len());
            let end = (start + 1 + random.below(16)).min(input.len());
            input.drain(start..end);
        }
        4 => {
            let other = &samples[random.below(samples.len())];
            let (here, there) = (at(input.len(), random), at(other.len(), random));
            input.truncate(here);
            input.extend_from_slice(&other[there..]);
        }
        5 if !input.is_empty() => {
            let start = random.below(input.len());
            let end = (start + 1 + random.below(64)).min(input.len());
            let doubled = input[start..end].to_vec();
            input.splice(start..start, doubled);
        }
        _ => input.truncate(at(input.len(), random)),
    }
    input.truncate(LENGTH_MAX);
}
