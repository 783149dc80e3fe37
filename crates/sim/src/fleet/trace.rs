//! A fingerprint of a run: of everything that was written, said and answered, in its order.

/// FNV-1a over 64 bits: enough to tell two runs apart, and the same on every machine.
pub struct Trace(u64);

const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0100_0000_01b3;

impl Default for Trace {
    fn default() -> Trace {
        Trace(OFFSET)
    }
}

impl Trace {
    pub fn note(&mut self, at: i64, what: &[u8]) {
        for byte in at.to_le_bytes().iter().chain(what) {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(PRIME);
        }
    }

    pub fn hash(&self) -> u64 {
        self.0
    }
}
