//! The worked examples of AWS's documentation, what botocore's wrapper writes, and frames that are broken.
#![allow(clippy::unwrap_used)]

use super::super::{Claim, SignedRequest};
use super::*;
use crate::field::{EpochMillis, Secret};

const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";

/// A PUT of 66,560 times the letter a, in a chunk of 64 KiB and one of 1 KiB.
struct Example {
    form: Form,
    seed: &'static str,
    chunks: [&'static str; 3],
    trailer: Option<(&'static str, &'static str)>,
}

const PLAIN: Example = Example {
    form: Form::Signed,
    seed: "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9",
    chunks: [
        "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648",
        "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497",
        "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9",
    ],
    trailer: None,
};

const WITH_TRAILER: Example = Example {
    form: Form::SignedWithTrailer,
    seed: "106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e",
    chunks: [
        "b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2",
        "1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7",
        "2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992",
    ],
    trailer: Some((
        "x-amz-checksum-crc32c:sOO8/Q==",
        "d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435",
    )),
};

impl Example {
    fn headers(&self) -> Vec<(&'static str, String)> {
        let mut headers = vec![("content-encoding", "aws-chunked".to_owned())];
        if self.trailer.is_none() {
            headers.push(("content-length", "66824".to_owned()));
        }
        headers.extend([
            ("host", "s3.amazonaws.com".to_owned()),
            (CONTENT_SHA256, self.form.literal().to_owned()),
            ("x-amz-date", "20130524T000000Z".to_owned()),
            ("x-amz-decoded-content-length", "66560".to_owned()),
            ("x-amz-storage-class", "REDUCED_REDUNDANCY".to_owned()),
        ]);
        if self.trailer.is_some() {
            headers.push(("x-amz-trailer", "x-amz-checksum-crc32c".to_owned()));
        }
        let names: Vec<&str> = headers.iter().map(|(name, _)| *name).collect();
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, \
             SignedHeaders={}, Signature={}",
            names.join(";"),
            self.seed
        );
        headers.push(("authorization", authorization));
        headers
    }

    fn body(&self) -> Vec<u8> {
        let mut body = Vec::new();
        for (size, signature) in [65_536, 1024, 0].into_iter().zip(self.chunks) {
            body.extend(format!("{size:x};chunk-signature={signature}\r\n").bytes());
            body.extend(vec![b'a'; size]);
            if size > 0 {
                body.extend(b"\r\n");
            }
        }
        if let Some((trailer, signature)) = self.trailer {
            body.extend(format!("{trailer}\r\n{TRAILER_SIGNATURE}:{signature}\r\n").bytes());
        }
        body.extend(b"\r\n");
        body
    }

    fn verify(&self, body: &[u8]) -> Result<usize, Refusal> {
        let headers = self.headers();
        let headers: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
        let request = SignedRequest {
            method: "PUT",
            path: "/examplebucket/chunkObject.txt",
            query: "",
            headers: &headers,
            body,
        };
        let payload = Payload::read(&headers, body)?;
        let claim = Claim::read(&request)?;
        let now: EpochMillis = Stamp::parse("20130524T000000Z").unwrap().at();
        claim.verify(&request, &payload, &claim.key(&Secret::new(SECRET)), now)?;
        Ok(payload.data().len())
    }
}

#[test]
fn the_published_examples_verify() {
    assert_eq!(PLAIN.verify(&PLAIN.body()), Ok(66_560));
    assert_eq!(PLAIN.body().len(), 66_824, "the length that the example declares");
    assert_eq!(WITH_TRAILER.verify(&WITH_TRAILER.body()), Ok(66_560));
}

#[test]
fn a_changed_byte_anywhere_is_noticed() {
    for example in [PLAIN, WITH_TRAILER] {
        let body = example.body();
        // Heads, both chunks' data, signatures, trailers; the very end may have an empty line more or less.
        for place in (0..90).chain([40_000, 65_700, 66_000]).chain(66_650..body.len() - 4) {
            let mut changed = body.clone();
            changed[place] ^= 1;
            assert!(example.verify(&changed).is_err(), "byte {place}");
        }
        for end in [0, 10, 90, 40_000, 66_700] {
            assert!(example.verify(&body[..end]).is_err(), "cut at {end}");
        }
    }
}

#[test]
fn chunks_cannot_be_moved() {
    let example = Example { chunks: [PLAIN.chunks[1], PLAIN.chunks[0], PLAIN.chunks[2]], ..PLAIN };
    assert!(matches!(PLAIN.verify(&example.body()), Err(Refusal::Mismatch(_))));
    let mut more = PLAIN.body();
    more.extend(b"Action=DeleteEverything");
    assert!(PLAIN.verify(&more).is_err());
}

fn unsigned<'a>(body: &'a str, length: &str, trailer: &str) -> Result<Payload<'a>, ApiError> {
    let headers = [
        (CONTENT_SHA256, Form::UnsignedWithTrailer.literal()),
        ("x-amz-decoded-content-length", length),
        ("x-amz-trailer", trailer),
    ];
    Payload::read(&headers, body.as_bytes())
}

#[test]
fn unsigned_chunks_are_held_to_their_checksum() {
    let body = "9\r\n123456789\r\n0\r\nx-amz-checksum-crc32:y/Q5Jg==\r\n\r\n";
    assert_eq!(unsigned(body, "9", "x-amz-checksum-crc32").unwrap().data(), b"123456789");
    assert_eq!(unsigned("0\r\n\r\n", "0", "").unwrap().data(), b"");
    let code = |body: &str, length: &str, trailer: &str| unsigned(body, length, trailer).unwrap_err().code;
    assert_eq!(code(&body.replace("y/Q5", "y/Q6"), "9", "x-amz-checksum-crc32"), "BadDigest");
    assert_eq!(code(body, "8", "x-amz-checksum-crc32"), "IncompleteBody");
    assert_eq!(code(body, "", "x-amz-checksum-crc32"), "MissingContentLength");
    assert_eq!(code(body, "9", ""), "MalformedTrailerError", "not announced");
    assert_eq!(code("0\r\n\r\n", "0", "x-amz-checksum-crc32"), "MalformedTrailerError", "announced, absent");
    assert_eq!(code("1\r\na\r\n1\r\nb\r\n0\r\n\r\n", "2", ""), "InvalidChunkSizeError", "crumbs");
    for size in ["", "-1", "+1", "zz", "ffffffffffffffffffff"] {
        assert_eq!(code(&format!("{size}\r\na\r\n0\r\n\r\n"), "1", ""), "InvalidChunkSizeError", "{size}");
    }
    assert_eq!(code("ffff\r\na\r\n0\r\n\r\n", "1", ""), "IncompleteBody");
    assert_eq!(code("2\r\nabc\r\n0\r\n\r\n", "2", ""), "InvalidChunkSizeError");
    let headers = [(CONTENT_SHA256, "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD")];
    assert_eq!(Payload::read(&headers, b"").unwrap_err().code, "InvalidRequest");
}
