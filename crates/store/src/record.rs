//! Records and their stored form: one JSON object that begins with its version, `{"v":1,"name":…}`, so that an
//! operator can read it with the store's own tools and an older program refuses what it would misread.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::fmt::Debug;

/// A type of record that a [`crate::Table`] keeps.
///
/// Serialises as a JSON object without a member named `v`, which holds the version.
pub trait Record: Clone + Serialize + DeserializeOwned + Send + Sync + 'static {
    /// Service and kind, `ecs/task`: the middle of the stored key.
    const KIND: &'static str;
    /// Raised whenever an older program would misread the record. Counts from 1.
    const VERSION: u32;
    /// What identifies the record within its scope.
    type Key: Ord + Clone + Send + Sync + Debug + 'static;

    fn key(&self) -> Self::Key;

    /// The readable end of the stored key. Different keys must have different paths.
    fn path(key: &Self::Key) -> String;

    /// Makes a record of what version `from`, older than [`Record::VERSION`], stored. `value` is without `v`.
    ///
    /// # Errors
    /// By default every older version is refused.
    fn upgrade(from: u32, value: Value) -> Result<Self, LoadError> {
        drop(value);
        Err(LoadError::NoUpgrade { kind: Self::KIND, found: from, known: Self::VERSION })
    }
}

/// A stored value that cannot be made a record.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("the stored {kind} is not what this version of Gantry writes")]
    Json {
        kind: &'static str,
        #[source]
        source: serde_json::Error,
    },
    #[error("the stored {kind} is not a JSON object with a version number 'v'")]
    NoVersion { kind: &'static str },
    #[error(
        "the stored {kind} has version {found}, but this Gantry knows versions up to {known}: the data was written by \
         a newer Gantry; start that one, or restore a backup made before the upgrade"
    )]
    Newer { kind: &'static str, found: u32, known: u32 },
    #[error(
        "the stored {kind} has version {found}, which this Gantry can no longer upgrade to version {known}"
    )]
    NoUpgrade { kind: &'static str, found: u32, known: u32 },
    #[error("a stored {kind} needs the record '{wanted}', which is not stored")]
    Missing { kind: &'static str, wanted: String },
}

/// The stored form of a record.
pub fn encode<R: Record>(record: &R) -> Box<[u8]> {
    // Most records are between 200 bytes and 2 KB: one allocation and rarely a second.
    let mut bytes = Vec::with_capacity(1024);
    bytes.extend_from_slice(br#"{"v":"#);
    bytes.extend_from_slice(R::VERSION.to_string().as_bytes());
    let start = bytes.len();
    serde_json::to_writer(&mut bytes, record).expect("a record has string keys and is written to memory");
    assert_eq!(bytes.get(start), Some(&b'{'), "a {} must serialise as a JSON object", R::KIND);
    if bytes[start + 1] == b'}' {
        bytes.remove(start);
    } else {
        bytes[start] = b',';
    }
    bytes.into_boxed_slice()
}

/// Reads a record's stored form, upgrading an older version.
///
/// # Errors
/// When the value is of a newer version, of one too old, or not a record of this kind.
pub fn decode<R: Record>(value: &[u8]) -> Result<R, LoadError> {
    let json = |source| LoadError::Json { kind: R::KIND, source };
    if let Some((version, rest)) = split_version(value)
        && version == R::VERSION
    {
        return serde_json::from_slice(&rest).map_err(json);
    }
    let Value::Object(mut members) = serde_json::from_slice(value).map_err(json)? else {
        return Err(LoadError::NoVersion { kind: R::KIND });
    };
    let found = members.remove("v").as_ref().and_then(Value::as_u64).and_then(|v| u32::try_from(v).ok());
    let found = found.ok_or(LoadError::NoVersion { kind: R::KIND })?;
    match found.cmp(&R::VERSION) {
        std::cmp::Ordering::Equal => serde_json::from_value(Value::Object(members)).map_err(json),
        std::cmp::Ordering::Less => R::upgrade(found, Value::Object(members)),
        std::cmp::Ordering::Greater => Err(LoadError::Newer { kind: R::KIND, found, known: R::VERSION }),
    }
}

/// Splits what [`encode`] made into the version and the object without it. `None` for any other form, such as a row
/// that an operator edited, which the slow path reads.
fn split_version(value: &[u8]) -> Option<(u32, Vec<u8>)> {
    let tail = value.strip_prefix(br#"{"v":"#)?;
    let digits = tail.iter().take_while(|b| b.is_ascii_digit()).count();
    let version = std::str::from_utf8(&tail[..digits]).ok()?.parse().ok()?;
    let mut rest = tail[digits..].to_vec();
    match rest.first()? {
        b',' => rest[0] = b'{',
        b'}' => rest.insert(0, b'{'),
        _ => return None,
    }
    Some((version, rest))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde::Deserialize;

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Lamp {
        name: String,
        watts: u32,
    }

    impl Record for Lamp {
        const KIND: &'static str = "test/lamp";
        const VERSION: u32 = 3;
        type Key = String;

        fn key(&self) -> String {
            self.name.clone()
        }

        fn path(key: &String) -> String {
            key.clone()
        }

        fn upgrade(from: u32, value: Value) -> Result<Self, LoadError> {
            if from < 2 {
                return Err(LoadError::NoUpgrade { kind: Self::KIND, found: from, known: Self::VERSION });
            }
            // Version 2 called the name `label` and knew no power.
            Ok(Lamp { name: value["label"].as_str().unwrap_or_default().to_owned(), watts: 60 })
        }
    }

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Empty {}

    impl Record for Empty {
        const KIND: &'static str = "test/empty";
        const VERSION: u32 = 1;
        type Key = ();

        fn key(&self) {}

        fn path((): &()) -> String {
            "only".to_owned()
        }
    }

    #[test]
    fn the_stored_form_is_readable_and_reads_back() {
        let lamp = Lamp { name: "desk".to_owned(), watts: 7 };
        let stored = encode(&lamp);
        assert_eq!(std::str::from_utf8(&stored).unwrap(), r#"{"v":3,"name":"desk","watts":7}"#);
        assert_eq!(decode::<Lamp>(&stored).unwrap(), lamp);
        assert_eq!(&*encode(&Empty {}), br#"{"v":1}"#);
        assert_eq!(decode::<Empty>(&encode(&Empty {})).unwrap(), Empty {});
    }

    #[test]
    fn a_row_edited_by_hand_reads_too() {
        let edited = br#" { "name": "desk", "watts": 7, "v": 3 } "#;
        assert_eq!(decode::<Lamp>(edited).unwrap(), Lamp { name: "desk".to_owned(), watts: 7 });
    }

    #[test]
    fn older_versions_are_upgraded_or_refused_and_newer_ones_refused() {
        let upgraded = decode::<Lamp>(br#"{"v":2,"label":"old"}"#).unwrap();
        assert_eq!(upgraded, Lamp { name: "old".to_owned(), watts: 60 });
        assert!(matches!(
            decode::<Lamp>(br#"{"v":1}"#),
            Err(LoadError::NoUpgrade { found: 1, known: 3, .. })
        ));
        let newer = decode::<Lamp>(br#"{"v":4,"name":"desk","watts":7}"#).unwrap_err();
        let text = newer.to_string();
        assert!(text.contains("test/lamp has version 4") && text.contains("up to 3"), "{text}");
    }

    #[test]
    fn what_is_no_record_is_refused() {
        for bad in
            ["", "{", "[]", "7", r#"{"name":"desk","watts":7}"#, r#"{"v":-1}"#, r#"{"v":"3"}"#, r#"{"v":3}"#]
        {
            assert!(decode::<Lamp>(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
