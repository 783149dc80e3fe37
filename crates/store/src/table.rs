//! A table: records of one kind by key, shared structurally between snapshots, with a log of what changed.

use crate::batch::Write;
use crate::record::{Record, encode};
use imbl::{OrdMap, OrdSet};
use std::ops::RangeBounds;
use std::sync::Arc;

/// Records of one kind. A clone is O(1) and independent: neither sees the other's later writes.
///
/// Every write notes its key. The notes are part of the table and cloned with it (also O(1)), so a transaction's
/// private clone that replaces the original carries the original's notes and its own, and one that is dropped leaves
/// no trace. Whoever publishes snapshots drains first, so that snapshots carry none.
pub struct Table<R: Record> {
    rows: OrdMap<R::Key, Arc<R>>,
    dirty: OrdSet<R::Key>,
}

impl<R: Record> Clone for Table<R> {
    fn clone(&self) -> Self {
        Table { rows: self.rows.clone(), dirty: self.dirty.clone() }
    }
}

impl<R: Record> Default for Table<R> {
    fn default() -> Self {
        Table { rows: OrdMap::new(), dirty: OrdSet::new() }
    }
}

impl<R: Record> std::fmt::Debug for Table<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Table<{}>({} records, {} undrained)", R::KIND, self.rows.len(), self.dirty.len())
    }
}

impl<R: Record> Table<R> {
    pub fn new() -> Self {
        Table::default()
    }

    pub fn get(&self, key: &R::Key) -> Option<&Arc<R>> {
        self.rows.get(key)
    }

    pub fn contains_key(&self, key: &R::Key) -> bool {
        self.rows.contains_key(key)
    }

    /// Writes a record under its own key; returns the one it replaces.
    pub fn put(&mut self, record: impl Into<Arc<R>>) -> Option<Arc<R>> {
        let record = record.into();
        let key = record.key();
        self.dirty.insert(key.clone());
        self.rows.insert(key, record)
    }

    /// Removes a record; returns it. A key without one is left alone.
    pub fn remove(&mut self, key: &R::Key) -> Option<Arc<R>> {
        let removed = self.rows.remove(key);
        if removed.is_some() {
            self.dirty.insert(key.clone());
        }
        removed
    }

    /// All records in key order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&R::Key, &Arc<R>)> {
        self.rows.iter()
    }

    /// The records whose keys lie in `bounds`, in key order.
    pub fn range(
        &self,
        bounds: impl RangeBounds<R::Key>,
    ) -> impl DoubleEndedIterator<Item = (&R::Key, &Arc<R>)> {
        self.rows.range(bounds)
    }

    /// All records in key order.
    pub fn values(&self) -> impl DoubleEndedIterator<Item = &Arc<R>> {
        self.rows.values()
    }

    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Whether anything was written since the last drain.
    pub fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Appends one [`Write`] per key that changed since the last drain, in key order, each with the record's present
    /// form. Stored keys are `prefix` (the scope with a slash at its end), kind and path. Returns the changed keys.
    pub fn drain_writes(&mut self, prefix: &str, out: &mut Vec<Write>) -> Vec<R::Key> {
        let dirty = std::mem::take(&mut self.dirty);
        let mut changed = Vec::with_capacity(dirty.len());
        for key in dirty {
            let value = self.rows.get(&key).map(|record| encode(record.as_ref()));
            out.push(Write { key: format!("{prefix}{}/{}", R::KIND, R::path(&key)), value });
            changed.push(key);
        }
        changed
    }

    /// Takes a record that the store holds already. Does not count as a write.
    pub fn adopt(&mut self, record: impl Into<Arc<R>>) {
        let record = record.into();
        self.rows.insert(record.key(), record);
    }
}

#[cfg(test)]
mod tests;
