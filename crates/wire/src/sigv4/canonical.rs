//! The canonical request: the one spelling of a request that both sides hash.

use super::SignedRequest;
use aws_lc_rs::digest;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

pub const UNSIGNED_PAYLOAD: &str = "UNSIGNED-PAYLOAD";

/// All but RFC 3986's unreserved characters.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
/// The same within a path, whose slashes stay.
const ENCODED_IN_PATH: &AsciiSet = &ENCODED.remove(b'/');

/// Lower-case hexadecimal SHA-256.
pub fn sha256_hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(64);
    push_hex(&mut text, digest::digest(&digest::SHA256, bytes).as_ref());
    text
}

pub(super) fn push_hex(text: &mut String, bytes: &[u8]) {
    text.push_str(&faster_hex::hex_string(bytes));
}

/// The canonical request over `signed_headers` (lower-case, in the order in which they were signed), for a service.
pub(super) fn request(
    request: &SignedRequest<'_>,
    service: &str,
    signed_headers: &[String],
    payload_hash: &str,
) -> String {
    let mut text = String::with_capacity(512);
    text.push_str(request.method);
    text.push('\n');
    let path = if request.path.is_empty() { "/" } else { request.path };
    // Every service but S3 encodes the path as it stands on the wire once more.
    match service {
        "s3" => text.push_str(path),
        _ => text.extend(utf8_percent_encode(path, ENCODED_IN_PATH)),
    }
    text.push('\n');
    query(&mut text, request.query);
    text.push('\n');
    for name in signed_headers {
        text.push_str(name);
        text.push(':');
        let values = request.headers.iter().filter(|(key, _)| key == name).map(|(_, value)| *value);
        for (index, value) in values.enumerate() {
            if index > 0 {
                text.push(',');
            }
            for (index, word) in value.split_ascii_whitespace().enumerate() {
                if index > 0 {
                    text.push(' ');
                }
                text.push_str(word);
            }
        }
        text.push('\n');
    }
    text.push('\n');
    text.push_str(&signed_headers.join(";"));
    text.push('\n');
    text.push_str(payload_hash);
    text
}

/// The query's pairs, re-encoded and sorted, without the signature itself.
fn query(text: &mut String, query: &str) {
    let encode = |part: &str| -> String {
        let plain: Vec<u8> = percent_decode_str(part).collect();
        percent_encoding::percent_encode(&plain, ENCODED).collect()
    };
    let mut pairs: Vec<(String, String)> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .filter(|(name, _)| *name != "X-Amz-Signature")
        .map(|(name, value)| (encode(name), encode(value)))
        .collect();
    pairs.sort();
    for (index, (name, value)) in pairs.iter().enumerate() {
        if index > 0 {
            text.push('&');
        }
        text.push_str(name);
        text.push('=');
        text.push_str(value);
    }
}
