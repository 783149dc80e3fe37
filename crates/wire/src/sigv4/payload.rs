//! Bodies as they come: whole, or framed in chunks with signatures and trailers of their own (`aws-chunked`). Facts:
//! AWS's public description of signature calculation for chunked uploads.

use super::checksum::Checksum;
use super::{CONTENT_SHA256, Refusal, SigningKey, Stamp, sha256_hex};
use crate::error::ApiError;
use std::fmt::Write as _;
use subtle::ConstantTimeEq;

/// Every chunk but the last has at least so many bytes: AWS's rule. It also bounds the chunks, and so the signatures
/// to compute, by the body's size.
const CHUNK_BYTES_MIN: usize = 8 << 10;
/// Bytes of a line of the framing: a size of 16 digits and a signature of 64, or a trailer with its longest checksum.
const LINE_BYTES_MAX: usize = 512;
/// Trailers of a body. Clients send a checksum and, with signatures, a signature.
const TRAILERS_MAX: usize = 8;
const TRAILER_SIGNATURE: &str = "x-amz-trailer-signature";

/// How the chunks of a body are protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Signed,
    SignedWithTrailer,
    UnsignedWithTrailer,
}

impl Form {
    /// What stands in the place of the body's hash.
    pub(super) fn literal(self) -> &'static str {
        match self {
            Form::Signed => "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
            Form::SignedWithTrailer => "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER",
            Form::UnsignedWithTrailer => "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
        }
    }

    fn is_signed(self) -> bool {
        self != Form::UnsignedWithTrailer
    }
}

/// A request's body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload<'a> {
    /// As it came.
    Whole(&'a [u8]),
    /// Taken out of its frames.
    Chunked(Chunked),
}

/// A body that came in chunks, with what is needed to verify it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunked {
    form: Form,
    data: Vec<u8>,
    /// Where each chunk ends in `data`, and its signature; the last is the empty one.
    chunks: Vec<(usize, String)>,
    /// Without the trailers' own signature.
    trailers: Vec<(String, String)>,
    trailer_signature: String,
}

fn broken(code: &'static str, message: &str) -> ApiError {
    ApiError::new(code, message)
}

fn cut_off() -> ApiError {
    broken("IncompleteBody", "The request body terminated unexpectedly")
}

impl<'a> Payload<'a> {
    /// Reads a body in the form that its `x-amz-content-sha256` names. Names of `headers` are in lower case.
    ///
    /// # Errors
    /// For an unknown form, broken frames, and a length or checksum that is not the body's. Signatures are another
    /// matter: see [`super::Claim::verify`].
    pub fn read(headers: &[(&str, &str)], body: &'a [u8]) -> Result<Payload<'a>, ApiError> {
        let header = |name: &str| headers.iter().find(|(key, _)| *key == name).map(|(_, value)| *value);
        let Some(literal) = header(CONTENT_SHA256).filter(|value| value.starts_with("STREAMING-")) else {
            return Ok(Payload::Whole(body));
        };
        let forms = [Form::Signed, Form::SignedWithTrailer, Form::UnsignedWithTrailer];
        let form = forms.into_iter().find(|form| form.literal() == literal).ok_or_else(|| {
            broken(
                "InvalidRequest",
                "The value of x-amz-content-sha256 is not a form of streaming served here.",
            )
        })?;
        let length = header("x-amz-decoded-content-length").and_then(|length| length.parse::<usize>().ok());
        let length = length.ok_or_else(|| {
            broken("MissingContentLength", "You must provide the x-amz-decoded-content-length HTTP header.")
        })?;
        let mut frames = Frames { rest: body };
        let chunked = frames.read(form)?;
        if chunked.data.len() != length {
            return Err(broken(
                "IncompleteBody",
                "You did not provide the number of bytes specified by the x-amz-decoded-content-length HTTP header.",
            ));
        }
        chunked.check_trailers(header("x-amz-trailer").unwrap_or_default())?;
        Ok(Payload::Chunked(chunked))
    }

    /// The body without its frames.
    pub fn data(&self) -> &[u8] {
        match self {
            Payload::Whole(body) => body,
            Payload::Chunked(chunked) => &chunked.data,
        }
    }
}

impl Chunked {
    pub(super) fn form(&self) -> Form {
        self.form
    }

    /// The trailers must be those that were announced, and checksums right.
    fn check_trailers(&self, announced: &str) -> Result<(), ApiError> {
        let malformed = || {
            broken("MalformedTrailerError", "The request contained trailing data that was not well-formed.")
        };
        let announced = announced.split(',').map(|name| name.trim().to_ascii_lowercase());
        let mut announced: Vec<String> = announced.filter(|name| !name.is_empty()).collect();
        let mut present: Vec<&str> = self.trailers.iter().map(|(name, _)| name.as_str()).collect();
        announced.sort();
        present.sort_unstable();
        if announced != present {
            return Err(malformed());
        }
        for (name, value) in &self.trailers {
            let checksum = Checksum::of_header(name).ok_or_else(malformed)?;
            if checksum.of(&self.data) != *value {
                let kind = name.trim_start_matches("x-amz-checksum-").to_ascii_uppercase();
                let message = format!("The {kind} you specified did not match the calculated checksum.");
                return Err(ApiError::new("BadDigest", message));
            }
        }
        Ok(())
    }

    /// Checks the chain of signatures that begins with the request's own.
    pub(super) fn verify(
        &self,
        key: &SigningKey,
        stamp: &Stamp,
        scope: &str,
        seed: String,
    ) -> Result<(), Refusal> {
        if !self.form.is_signed() {
            return Ok(());
        }
        let (mut previous, mut start) = (seed, 0);
        let nothing = sha256_hex(b"");
        for (end, signature) in &self.chunks {
            let hash = sha256_hex(self.data.get(start..*end).unwrap_or_default());
            let text = format!("AWS4-HMAC-SHA256-PAYLOAD\n{stamp}\n{scope}\n{previous}\n{nothing}\n{hash}");
            previous = expect(key, &text, signature)?;
            start = *end;
        }
        if self.form == Form::SignedWithTrailer {
            let mut canonical = String::new();
            for (name, value) in &self.trailers {
                let _ = writeln!(canonical, "{name}:{value}");
            }
            let hash = sha256_hex(canonical.as_bytes());
            let text = format!("AWS4-HMAC-SHA256-TRAILER\n{stamp}\n{scope}\n{previous}\n{hash}");
            expect(key, &text, &self.trailer_signature)?;
        }
        Ok(())
    }
}

/// The signature of `text`, if it is the one given.
fn expect(key: &SigningKey, text: &str, given: &str) -> Result<String, Refusal> {
    let expected = key.sign(text);
    if bool::from(expected.as_bytes().ct_eq(given.as_bytes())) {
        Ok(expected)
    } else {
        Err(Refusal::different())
    }
}

/// What is left of a framed body.
struct Frames<'a> {
    rest: &'a [u8],
}

impl<'a> Frames<'a> {
    fn read(&mut self, form: Form) -> Result<Chunked, ApiError> {
        let mut chunked = Chunked {
            form,
            data: Vec::with_capacity(self.rest.len()),
            chunks: Vec::new(),
            trailers: Vec::new(),
            trailer_signature: String::new(),
        };
        let mut last_was_short = false;
        loop {
            let (size, signature) = self.chunk_head(form)?;
            if last_was_short && size > 0 {
                let message = "Only the last chunk is allowed to have a size less than 8192 bytes";
                return Err(broken("InvalidChunkSizeError", message));
            }
            last_was_short = size < CHUNK_BYTES_MIN;
            let data = self.rest.get(..size).ok_or_else(cut_off)?;
            self.rest = &self.rest[size..];
            chunked.data.extend_from_slice(data);
            chunked.chunks.push((chunked.data.len(), signature));
            if size == 0 {
                break;
            }
            if !self.line()?.is_empty() {
                return Err(broken("InvalidChunkSizeError", "A chunk is longer than its size says."));
            }
        }
        self.trailers(&mut chunked)?;
        Ok(chunked)
    }

    /// `400;chunk-signature=…`, or the size alone where chunks are not signed.
    fn chunk_head(&mut self, form: Form) -> Result<(usize, String), ApiError> {
        let line = self.line()?;
        let (size, extension) = line.split_once(';').unwrap_or((line, ""));
        let size = Some(size).filter(|size| !size.is_empty() && size.bytes().all(|b| b.is_ascii_hexdigit()));
        let size = size.and_then(|size| usize::from_str_radix(size, 16).ok());
        let size = size.ok_or_else(|| broken("InvalidChunkSizeError", "A chunk has no valid size."))?;
        let signature = extension.strip_prefix("chunk-signature=").unwrap_or_default();
        if form.is_signed() && signature.is_empty() {
            return Err(broken("InvalidChunkSizeError", "A chunk has no signature."));
        }
        Ok((size, signature.to_owned()))
    }

    /// Lines up to an empty one or the end.
    fn trailers(&mut self, chunked: &mut Chunked) -> Result<(), ApiError> {
        let malformed = || {
            broken("MalformedTrailerError", "The request contained trailing data that was not well-formed.")
        };
        while !self.rest.is_empty() {
            let line = self.line()?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').ok_or_else(malformed)?;
            let (name, value) = (name.trim().to_ascii_lowercase(), value.trim().to_owned());
            if name == TRAILER_SIGNATURE {
                chunked.trailer_signature = value;
            } else if chunked.trailers.len() < TRAILERS_MAX && chunked.form != Form::Signed {
                chunked.trailers.push((name, value));
            } else {
                return Err(malformed());
            }
        }
        // A second empty line does not hurt; anything else would be data that nobody has verified.
        if self.rest.iter().any(|byte| !b"\r\n".contains(byte)) { Err(malformed()) } else { Ok(()) }
    }

    /// The next line, without its end.
    fn line(&mut self) -> Result<&'a str, ApiError> {
        let window = &self.rest[..self.rest.len().min(LINE_BYTES_MAX)];
        let end = window.windows(2).position(|pair| pair == b"\r\n").ok_or_else(cut_off)?;
        let line = &self.rest[..end];
        self.rest = &self.rest[end + 2..];
        std::str::from_utf8(line).map_err(|_| broken("InvalidChunkSizeError", "A chunk has no valid size."))
    }
}

#[cfg(test)]
mod tests;
