//! What a transaction leaves behind: writes, and batches of them that become durable as a whole.

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
    /// A batch in key order, so that the store's pages are touched in order and equal states make equal batches.
    ///
    /// # Panics
    /// When a key is written twice.
    pub fn ordered(seq: u64, mut writes: Vec<Write>) -> Batch {
        writes.sort_unstable_by(|one, other| one.key.cmp(&other.key));
        for pair in writes.windows(2) {
            assert_ne!(pair[0].key, pair[1].key, "a batch writes a key once");
        }
        Batch { seq, writes }
    }

    /// Bytes of all keys and values.
    pub fn bytes(&self) -> usize {
        self.writes.iter().map(Write::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(key: &str, value: Option<&[u8]>) -> Write {
        Write { key: key.to_owned(), value: value.map(Box::from) }
    }

    #[test]
    fn a_batch_is_in_the_order_of_keys() {
        let batch = Batch::ordered(4, vec![write("b", Some(b"2")), write("a", None)]);
        assert_eq!(batch, Batch { seq: 4, writes: vec![write("a", None), write("b", Some(b"2"))] });
        assert_eq!(batch.bytes(), 3);
    }

    #[test]
    #[should_panic(expected = "a batch writes a key once")]
    fn a_key_written_twice_is_a_bug() {
        Batch::ordered(1, vec![write("a", None), write("b", None), write("a", Some(b"1"))]);
    }
}
