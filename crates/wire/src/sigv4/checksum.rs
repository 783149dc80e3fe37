//! The checksums that a trailer may carry, by the name of their header.

use aws_lc_rs::digest;
use base64::Engine as _;

/// A checksum of AWS's set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Checksum {
    Crc32,
    Crc32c,
    Crc64Nvme,
    Sha1,
    Sha256,
}

impl Checksum {
    /// The one that a header, in lower case, carries.
    pub(super) fn of_header(name: &str) -> Option<Checksum> {
        Some(match name {
            "x-amz-checksum-crc32" => Checksum::Crc32,
            "x-amz-checksum-crc32c" => Checksum::Crc32c,
            "x-amz-checksum-crc64nvme" => Checksum::Crc64Nvme,
            "x-amz-checksum-sha1" => Checksum::Sha1,
            "x-amz-checksum-sha256" => Checksum::Sha256,
            _ => return None,
        })
    }

    /// Its value over `data`, in base64 as headers have it.
    pub(super) fn of(self, data: &[u8]) -> String {
        // The polynomials stand bit-reversed, as the shifting does.
        let base64 = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes);
        match self {
            Checksum::Crc32 => base64(&(crc(data, 0xedb8_8320, 0xffff_ffff) as u32).to_be_bytes()),
            Checksum::Crc32c => base64(&(crc(data, 0x82f6_3b78, 0xffff_ffff) as u32).to_be_bytes()),
            Checksum::Crc64Nvme => base64(&crc(data, 0x9a6c_9329_ac4b_c9b5, u64::MAX).to_be_bytes()),
            Checksum::Sha1 => base64(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, data).as_ref()),
            Checksum::Sha256 => base64(digest::digest(&digest::SHA256, data).as_ref()),
        }
    }
}

/// A reflected CRC that starts and ends with all bits of `mask` flipped.
fn crc(data: &[u8], polynomial: u64, mask: u64) -> u64 {
    let mut table = [0_u64; 256];
    for (byte, entry) in (0_u64..).zip(&mut table) {
        *entry = (0..8).fold(byte, |rest, _| (rest >> 1) ^ (polynomial * (rest & 1)));
    }
    let step = |sum: u64, byte: &u8| (sum >> 8) ^ table[usize::from(sum as u8 ^ byte)];
    data.iter().fold(mask, step) ^ mask
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The check values that the algorithms' catalogues give for the nine digits.
    #[test]
    fn catalogue_values() {
        assert_eq!(crc(b"123456789", 0xedb8_8320, 0xffff_ffff), 0xcbf4_3926);
        assert_eq!(crc(b"123456789", 0x82f6_3b78, 0xffff_ffff), 0xe306_9283);
        assert_eq!(crc(b"123456789", 0x9a6c_9329_ac4b_c9b5, u64::MAX), 0xae8b_1486_0a79_9888);
        assert_eq!(Checksum::Sha1.of(b"abc"), "qZk+NkcGgWq6PiVxeFDCbJzQ2J0=");
        assert_eq!(Checksum::of_header("x-amz-checksum-md5"), None);
    }
}
