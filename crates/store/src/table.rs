//! A table: records of one kind by key, shared structurally between snapshots, with a log of what changed.

use crate::batch::Write;
use crate::record::{Record, encode};
use imbl::ordmap::DiffItem;
use imbl::{OrdMap, OrdSet};
use std::ops::RangeBounds;
use std::sync::Arc;

/// Records of one kind. A clone is O(1) and independent: neither sees the other's later writes.
///
/// Every write notes its key, twice over: as news, until somebody asked what changed, and as unsaved, until the record
/// was drained to be stored. The notes are part of the table and cloned with it (also O(1)), so a transaction's
/// private clone that replaces the original carries the original's notes and its own, and one that is dropped leaves
/// no trace. Whoever publishes snapshots drains first, so that snapshots carry none.
pub struct Table<R: Record> {
    rows: OrdMap<R::Key, Arc<R>>,
    /// Written since the last [`Table::drain_changes`].
    news: OrdSet<R::Key>,
    /// Drained as changes, but not yet as writes.
    unsaved: OrdSet<R::Key>,
}

impl<R: Record> Clone for Table<R> {
    fn clone(&self) -> Self {
        Table { rows: self.rows.clone(), news: self.news.clone(), unsaved: self.unsaved.clone() }
    }
}

impl<R: Record> Default for Table<R> {
    fn default() -> Self {
        Table { rows: OrdMap::new(), news: OrdSet::new(), unsaved: OrdSet::new() }
    }
}

impl<R: Record> std::fmt::Debug for Table<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let undrained = self.news.len() + self.unsaved.len();
        write!(f, "Table<{}>({} records, {undrained} undrained)", R::KIND, self.rows.len())
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
        self.news.insert(key.clone());
        self.rows.insert(key, record)
    }

    /// Changes a record in place, which costs no copy of it where no snapshot has it yet; `change` must leave its key
    /// as it is. A key without a record is left alone.
    pub fn edit<T>(&mut self, key: &R::Key, change: impl FnOnce(&mut R) -> T) -> Option<T> {
        let record = self.rows.get_mut(key)?;
        let result = change(Arc::make_mut(record));
        debug_assert!(record.key() == *key, "a record was moved");
        self.news.insert(key.clone());
        Some(result)
    }

    /// Removes a record; returns it. A key without one is left alone.
    pub fn remove(&mut self, key: &R::Key) -> Option<Arc<R>> {
        let removed = self.rows.remove(key);
        if removed.is_some() {
            self.news.insert(key.clone());
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

    /// The records that differ from those of an earlier form of the table, each as it was and as it is, in key order.
    /// What the two share is not visited: it costs what changed, not what there is.
    pub fn changes_since<'a>(
        &'a self,
        before: &'a Table<R>,
    ) -> impl Iterator<Item = (Option<&'a R>, Option<&'a R>)>
    where
        R: PartialEq,
    {
        before.rows.diff(&self.rows).map(|change| match change {
            DiffItem::Add(_, new) => (None, Some(new.as_ref())),
            DiffItem::Update { old: (_, old), new: (_, new) } => (Some(old.as_ref()), Some(new.as_ref())),
            DiffItem::Remove(_, old) => (Some(old.as_ref()), None),
        })
    }

    /// Whether there is anything to drain.
    pub fn is_dirty(&self) -> bool {
        !self.news.is_empty() || !self.unsaved.is_empty()
    }

    /// The keys written since the last call, in order. They stay to be stored.
    pub fn drain_changes(&mut self) -> Vec<R::Key> {
        let news = std::mem::take(&mut self.news);
        let changed = news.iter().cloned().collect();
        if self.unsaved.is_empty() {
            self.unsaved = news;
        } else {
            self.unsaved.extend(news);
        }
        changed
    }

    /// Appends one [`Write`] per key written since the last call, in key order, each with the record's present form.
    /// Stored keys are `prefix` (the scope with a slash at its end), kind and path. None of them is news any more.
    pub fn drain_writes(&mut self, prefix: &str, out: &mut Vec<Write>) {
        self.drain_changes();
        for key in std::mem::take(&mut self.unsaved) {
            let value = self.rows.get(&key).map(|record| encode(record.as_ref()));
            out.push(Write { key: format!("{prefix}{}/{}", R::KIND, R::path(&key)), value });
        }
    }

    /// Takes a record that the store holds already. Does not count as a write.
    pub fn adopt(&mut self, record: impl Into<Arc<R>>) {
        let record = record.into();
        self.rows.insert(record.key(), record);
    }
}

#[cfg(test)]
mod tests;
