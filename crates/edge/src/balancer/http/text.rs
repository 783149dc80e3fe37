//! Numbers and header lines, written without the machinery of formatting: heads are written for every request.

/// Appends a number.
pub fn push_decimal(out: &mut Vec<u8>, mut number: u64) {
    // As many digits as the largest number has.
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Appends the lowest `N` hexadecimal digits of a number.
pub fn push_hex<const N: usize>(out: &mut Vec<u8>, number: u64) {
    let digits: [u8; N] =
        std::array::from_fn(|place| b"0123456789abcdef"[(number >> (4 * (N - 1 - place)) & 15) as usize]);
    out.extend_from_slice(&digits);
}

/// Appends a header's line.
pub fn push_header(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_are_as_they_are_formatted(number: u64, shift in 0..64) {
            let number = number >> shift;
            let mut out = Vec::new();
            push_decimal(&mut out, number);
            out.push(b' ');
            push_hex::<16>(&mut out, number);
            out.push(b' ');
            push_hex::<8>(&mut out, number);
            let low = number & 0xffff_ffff;
            prop_assert_eq!(String::from_utf8(out).unwrap(), format!("{number} {number:016x} {low:08x}"));
        }
    }
}
