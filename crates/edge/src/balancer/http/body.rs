//! Where a message's body ends: by its length, by its chunks, or by the connection.

/// A chunk's size line, its extensions included. Real ones are a few bytes.
const MAX_SIZE_LINE: usize = 4 * 1024;
/// All trailers of a body together, as much as one header may have.
const MAX_TRAILERS: usize = 16 * 1024;

/// What is left of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    None,
    Length(u64),
    Chunked(Chunks),
    /// Until the peer closes.
    Close,
}

/// The chunks are not what HTTP/1.1 says: where the body ends would be a guess.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a chunked body is malformed")]
pub struct Malformed;

impl Body {
    pub fn is_done(&self) -> bool {
        match self {
            Body::None | Body::Length(0) => true,
            Body::Length(_) | Body::Close => false,
            Body::Chunked(chunks) => chunks.state == State::Done,
        }
    }

    /// How many of `bytes` belong to the body, calling `data` with its content among them. Less than all only at the
    /// body's end.
    ///
    /// # Errors
    /// On chunks that are malformed.
    pub fn take(&mut self, bytes: &[u8], mut data: impl FnMut(&[u8])) -> Result<usize, Malformed> {
        match self {
            Body::None => Ok(0),
            Body::Length(left) => {
                let count = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= count as u64;
                data(&bytes[..count]);
                Ok(count)
            }
            Body::Chunked(chunks) => chunks.take(bytes, &mut data),
            Body::Close => {
                data(bytes);
                Ok(bytes.len())
            }
        }
    }
}

/// A reader of `Transfer-Encoding: chunked`. Strict: lines end with CR LF, sizes are at most 15 hexadecimal digits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chunks {
    state: State,
    size: u64,
    /// Bytes of the line, or of the trailers, so far.
    line: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// At the first digit of a size.
    #[default]
    Start,
    Size,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    /// At the start of a trailer's line.
    Trailer,
    TrailerText,
    TrailerLf,
    EndLf,
    Done,
}

impl Chunks {
    fn take(&mut self, bytes: &[u8], data: &mut impl FnMut(&[u8])) -> Result<usize, Malformed> {
        let mut at = 0;
        while let (Some(&byte), true) = (bytes.get(at), self.state != State::Done) {
            if self.state == State::Data {
                let count = (bytes.len() - at).min(usize::try_from(self.size).unwrap_or(usize::MAX));
                data(&bytes[at..at + count]);
                self.size -= count as u64;
                at += count;
                if self.size == 0 {
                    self.state = State::DataCr;
                }
                continue;
            }
            self.state = self.step(byte)?;
            at += 1;
        }
        Ok(at)
    }

    fn step(&mut self, byte: u8) -> Result<State, Malformed> {
        self.line += 1;
        let text = |byte: u8| byte == b'\t' || (byte >= b' ' && byte != 0x7f);
        let next = match (self.state, byte) {
            (State::Start | State::Size, byte) if byte.is_ascii_hexdigit() => {
                // 15 digits: no sum of such sizes comes near to overflowing.
                if self.size >> 56 != 0 {
                    return Err(Malformed);
                }
                let digit = char::from(byte).to_digit(16).ok_or(Malformed)?;
                self.size = self.size << 4 | u64::from(digit);
                State::Size
            }
            (State::Size | State::Extension, b'\r') => State::SizeLf,
            (State::Size, b';' | b' ' | b'\t') => State::Extension,
            (State::Extension, byte) if text(byte) => State::Extension,
            (State::SizeLf, b'\n') => {
                self.line = 0;
                if self.size == 0 { State::Trailer } else { State::Data }
            }
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => {
                self.line = 0;
                State::Start
            }
            (State::Trailer, b'\r') => State::EndLf,
            (State::Trailer | State::TrailerText, byte) if text(byte) => State::TrailerText,
            (State::TrailerText, b'\r') => State::TrailerLf,
            (State::TrailerLf, b'\n') => State::Trailer,
            (State::EndLf, b'\n') => State::Done,
            _ => return Err(Malformed),
        };
        let limit = match next {
            State::Trailer | State::TrailerText | State::TrailerLf | State::EndLf => MAX_TRAILERS,
            _ => MAX_SIZE_LINE,
        };
        if self.line > limit { Err(Malformed) } else { Ok(next) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    /// Reads a chunked body in pieces; the content, and how many bytes were the body's.
    fn read(bytes: &[u8], piece: usize) -> Result<(Vec<u8>, usize, bool), Malformed> {
        let (mut body, mut content, mut at) = (Body::Chunked(Chunks::default()), Vec::new(), 0);
        for part in bytes.chunks(piece) {
            let count = body.take(part, |data| content.extend_from_slice(data))?;
            at += count;
            if count < part.len() {
                break;
            }
        }
        Ok((content, at, body.is_done()))
    }

    #[test]
    fn chunks_are_read_with_extensions_and_trailers() {
        let text = b"5;name=\"v\"\r\nhello\r\n0A\r\n, world!!!\r\n0\r\nX-Sum: 1\r\n\r\nGET";
        for piece in [1, 2, 3, 7, 100] {
            let (content, at, done) = read(text, piece).unwrap();
            assert_eq!((content.as_slice(), at, done), (b"hello, world!!!".as_slice(), text.len() - 3, true));
        }
    }

    #[test]
    fn what_two_servers_could_read_differently_is_refused() {
        for text in [
            "5\nhello\r\n0\r\n\r\n",
            "5\r\nhello0\r\n\r\n",
            "-5\r\nhello\r\n",
            "+5\r\nhello\r\n",
            "0x5\r\nhello\r\n",
            "\r\n",
            ";x\r\n",
            "5 \nhello",
            "5;a\nb\r\nhello",
            "1000000000000000f\r\n",
            "5\r\nhello\n\n0\r\n\r\n",
            "0\r\nX: y\n\r\n",
            "0\r\n\nGET / HTTP/1.1\r\n",
            "5\r\rhello",
        ] {
            assert_eq!(read(text.as_bytes(), 100), Err(Malformed), "{text:?}");
        }
        let long = format!("5;{}\r\n", "x".repeat(MAX_SIZE_LINE));
        assert_eq!(read(long.as_bytes(), 1000), Err(Malformed));
        let trailers = format!("0\r\n{}", "A: b\r\n".repeat(MAX_TRAILERS / 6 + 1));
        assert_eq!(read(trailers.as_bytes(), 1000), Err(Malformed));
    }

    proptest! {
        /// However a body is cut into pieces and chunks, the content is the same, and what follows is not touched.
        #[test]
        fn pieces_change_nothing(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..8), piece in 1_usize..50,
        ) {
            let mut text = Vec::new();
            for chunk in &chunks {
                text.extend_from_slice(format!("{:X}\r\n", chunk.len()).as_bytes());
                text.extend_from_slice(chunk);
                text.extend_from_slice(b"\r\n");
            }
            text.extend_from_slice(b"0\r\n\r\n");
            let length = text.len();
            text.extend_from_slice(b"next");
            prop_assert_eq!(read(&text, piece).unwrap(), (chunks.concat(), length, true));
        }

        /// Nothing makes it panic, and never is more taken than there is.
        #[test]
        fn any_bytes_are_taken_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200), piece in 1_usize..50) {
            if let Ok((content, at, _)) = read(&bytes, piece) {
                prop_assert!(at <= bytes.len() && content.len() <= at);
            }
        }
    }
}
