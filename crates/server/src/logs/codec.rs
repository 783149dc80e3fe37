//! Bytes of the store's files: variable-length numbers, and checked, compressed frames.

use gantry_decide::time::Timestamp;

/// Bytes that a frame may hold uncompressed: four times the largest commit. What says more is damaged.
pub const FRAME_RAW_MAX: usize = 64 << 20;
/// Length, uncompressed length and check sum before each frame.
pub const FRAME_HEADER: usize = 12;

/// Bytes that are not what this store writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("damaged data")]
pub struct Damaged;

/// Writes fields one after the other.
#[derive(Default)]
pub struct Encoder(pub Vec<u8>);

impl Encoder {
    pub fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push((number as u8 & 0x7f) | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    pub fn signed(&mut self, number: i64) {
        self.number(((number << 1) ^ (number >> 63)) as u64);
    }

    pub fn time(&mut self, time: Timestamp) {
        self.signed(time.as_millis());
    }

    pub fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    pub fn optional<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Encoder, T)) {
        self.0.push(u8::from(value.is_some()));
        if let Some(value) = value {
            write(self, value);
        }
    }
}

/// Reads what [`Encoder`] wrote.
pub struct Decoder<'a>(pub &'a [u8]);

impl<'a> Decoder<'a> {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn byte(&mut self) -> Result<u8, Damaged> {
        let (first, rest) = self.0.split_first().ok_or(Damaged)?;
        self.0 = rest;
        Ok(*first)
    }

    pub fn number(&mut self) -> Result<u64, Damaged> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(Damaged);
            }
            number |= bits << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(Damaged)
    }

    /// A number of things that take at least a byte each, so that nobody is made to reserve for more than there is.
    pub fn count(&mut self) -> Result<usize, Damaged> {
        let count = usize::try_from(self.number()?).map_err(|_| Damaged)?;
        if count > self.0.len() { Err(Damaged) } else { Ok(count) }
    }

    pub fn signed(&mut self) -> Result<i64, Damaged> {
        let number = self.number()?;
        Ok((number >> 1) as i64 ^ -((number & 1) as i64))
    }

    pub fn time(&mut self) -> Result<Timestamp, Damaged> {
        self.signed().map(Timestamp::from_millis)
    }

    pub fn bytes(&mut self) -> Result<&'a [u8], Damaged> {
        let length = self.count()?;
        let (bytes, rest) = self.0.split_at_checked(length).ok_or(Damaged)?;
        self.0 = rest;
        Ok(bytes)
    }

    pub fn text(&mut self) -> Result<String, Damaged> {
        String::from_utf8(self.bytes()?.to_vec()).map_err(|_| Damaged)
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Damaged> {
        let (bytes, rest) = self.0.split_at_checked(N).ok_or(Damaged)?;
        self.0 = rest;
        bytes.try_into().map_err(|_| Damaged)
    }

    pub fn optional<T>(
        &mut self,
        read: impl FnOnce(&mut Decoder<'a>) -> Result<T, Damaged>,
    ) -> Result<Option<T>, Damaged> {
        match self.byte()? {
            0 => Ok(None),
            1 => read(self).map(Some),
            _ => Err(Damaged),
        }
    }
}

/// Appends `raw` to `out` as a frame: compressed, with its lengths and a check sum of all that before it.
///
/// # Errors
/// When the compressor cannot have memory.
pub fn seal(raw: &[u8], level: i32, out: &mut Vec<u8>) -> std::io::Result<()> {
    let compressed = zstd::bulk::compress(raw, level)?;
    let lengths = [compressed.len() as u32, raw.len() as u32];
    let mut sum = crc32fast::Hasher::new();
    for length in lengths {
        sum.update(&length.to_le_bytes());
        out.extend_from_slice(&length.to_le_bytes());
    }
    sum.update(&compressed);
    out.extend_from_slice(&sum.finalize().to_le_bytes());
    out.extend_from_slice(&compressed);
    Ok(())
}

/// Takes the first frame out of `bytes`: its content and its length.
pub fn open(bytes: &[u8]) -> Result<(Vec<u8>, usize), Damaged> {
    let (header, rest) = bytes.split_at_checked(FRAME_HEADER).ok_or(Damaged)?;
    let word = |at: usize| -> Result<u32, Damaged> {
        let bytes = header.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map(u32::from_le_bytes).ok_or(Damaged)
    };
    let (length, raw_length, sum) = (word(0)? as usize, word(4)? as usize, word(8)?);
    let compressed = rest.get(..length).ok_or(Damaged)?;
    let mut found = crc32fast::Hasher::new();
    found.update(header.get(..8).ok_or(Damaged)?);
    found.update(compressed);
    if found.finalize() != sum || raw_length > FRAME_RAW_MAX {
        return Err(Damaged);
    }
    let raw = zstd::bulk::decompress(compressed, raw_length).map_err(|_| Damaged)?;
    if raw.len() == raw_length { Ok((raw, FRAME_HEADER + length)) } else { Err(Damaged) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn numbers_are_read_as_written() {
        let mut out = Encoder::default();
        let numbers = [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX];
        let signed = [0, -1, 1, i64::MIN, i64::MAX, -64, 64];
        numbers.iter().for_each(|n| out.number(*n));
        signed.iter().for_each(|n| out.signed(*n));
        let mut input = Decoder(&out.0);
        numbers.iter().for_each(|n| assert_eq!(input.number(), Ok(*n)));
        signed.iter().for_each(|n| assert_eq!(input.signed(), Ok(*n)));
        assert!(input.is_empty());
        assert_eq!(input.number(), Err(Damaged));
        assert_eq!(Decoder(&[0xff; 11]).number(), Err(Damaged));
    }

    #[test]
    fn no_flipped_bit_and_no_missing_byte_of_a_frame_goes_unseen() {
        let raw = b"2026-11-21 GET /index.html 200".repeat(4);
        let mut frame = Vec::new();
        seal(&raw, 1, &mut frame).unwrap();
        assert_eq!(open(&frame).unwrap(), (raw, frame.len()));
        for at in 0..frame.len() {
            assert_eq!(open(&frame[..at]), Err(Damaged));
            for bit in 0..8 {
                let mut damaged = frame.clone();
                damaged[at] ^= 1 << bit;
                assert_eq!(open(&damaged), Err(Damaged), "byte {at}, bit {bit}");
            }
        }
    }
}
