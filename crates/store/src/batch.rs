//! What a transaction leaves behind: writes, and batches of them that become durable as a whole.

use std::collections::BTreeMap;

/// One record written or removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// `SCOPE/KIND/PATH`, for instance `123456789012/eu-north-1/ecs/cluster/default`.
    pub key: String,
    /// The record's stored form; `None` removes it.
    pub value: Option<Box<[u8]>>,
}

impl Write {
    /// Bytes of key and value, for bounds.
    pub fn len(&self) -> usize {
        self.key.len() + self.value.as_ref().map_or(0, |value| value.len())
    }

    /// Never true: a key is not empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Writes that are durable together or not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Counts batches from 1, without gaps, over the life of the data.
    pub seq: u64,
    /// Each key at most once.
    pub writes: Vec<Write>,
}

impl Batch {
    /// A batch in which, of several writes to one key, only the last counts. In key order, so that the store's pages
    /// are touched in order and equal states make equal batches.
    pub fn coalesced(seq: u64, writes: Vec<Write>) -> Batch {
        let mut last = BTreeMap::new();
        for write in writes {
            last.insert(write.key, write.value);
        }
        Batch { seq, writes: last.into_iter().map(|(key, value)| Write { key, value }).collect() }
    }

    /// Bytes of all keys and values.
    pub fn bytes(&self) -> usize {
        self.writes.iter().map(Write::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_write_of_a_key_counts() {
        let write =
            |key: &str, value: Option<&[u8]>| Write { key: key.to_owned(), value: value.map(Box::from) };
        let batch = Batch::coalesced(
            4,
            vec![write("b", Some(b"1")), write("a", Some(b"1")), write("b", Some(b"2")), write("a", None)],
        );
        assert_eq!(batch, Batch { seq: 4, writes: vec![write("a", None), write("b", Some(b"2"))] });
        assert_eq!(batch.bytes(), 3);
    }
}
