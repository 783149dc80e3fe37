//! What happened to the instances of a pool, one change after the other, shared between its copies as far as they agree.

use super::Host;
use super::stock::Held;
use std::iter::successors;
use std::sync::Arc;

/// A change of the instance with this number.
#[derive(Clone, Debug)]
pub(super) struct Change<K> {
    pub number: u32,
    pub what: What<K>,
}

#[derive(Clone, Debug)]
pub(super) enum What<K> {
    /// A task of this kind.
    Came(Arc<Held>),
    Went(Arc<Held>),
    /// All that was known is replaced; none: the number is vacant.
    Is(Option<Arc<(K, Host)>>),
}

impl<K> Change<K> {
    /// What undoes it; of what was replaced nothing is known.
    pub fn undone(&self) -> Option<Change<K>> {
        let what = match &self.what {
            What::Came(held) => What::Went(Arc::clone(held)),
            What::Went(held) => What::Came(Arc::clone(held)),
            What::Is(_) => return None,
        };
        Some(Change { number: self.number, what })
    }
}

/// Changes that only grow in number. A copy costs nothing; of two copies each goes its own way.
#[derive(Clone, Debug)]
pub(super) struct Log<K> {
    last: Option<Arc<Node<K>>>,
}

/// Changes made between two copies.
#[derive(Debug)]
struct Node<K> {
    earlier: Log<K>,
    /// How many there are in all earlier ones.
    before: usize,
    changes: Vec<Change<K>>,
}

impl<K> Default for Log<K> {
    fn default() -> Self {
        Log { last: None }
    }
}

impl<K> Log<K> {
    pub fn len(&self) -> usize {
        self.last.as_ref().map_or(0, |node| node.before + node.changes.len())
    }

    pub fn is_empty(&self) -> bool {
        self.last.is_none()
    }

    pub fn push(&mut self, change: Change<K>) {
        if let Some(node) = self.last.as_mut().and_then(Arc::get_mut) {
            return node.changes.push(change);
        }
        let before = self.len();
        let earlier = Log { last: self.last.take() };
        self.last = Some(Arc::new(Node { earlier, before, changes: vec![change] }));
    }

    pub fn newest(&self) -> Option<&Change<K>> {
        self.last.as_ref().and_then(|node| node.changes.last())
    }

    /// The newest first.
    pub fn backwards(&self) -> impl Iterator<Item = &Change<K>> {
        self.nodes().flat_map(|node| node.changes.iter().rev())
    }

    /// The oldest first.
    pub fn forwards(&self) -> impl Iterator<Item = &Change<K>> {
        let nodes: Vec<&Node<K>> = self.nodes().collect();
        nodes.into_iter().rev().flat_map(|node| node.changes.iter())
    }

    fn nodes(&self) -> impl Iterator<Item = &Node<K>> {
        successors(self.last.as_deref(), |node| node.earlier.last.as_deref())
    }

    /// What leads from this log to another: what is to undo, the newest first, and what is to do then, the oldest first.
    pub fn to<'a>(&'a self, other: &'a Log<K>) -> (Vec<&'a Change<K>>, Vec<&'a Change<K>>) {
        let (mut undo, mut redo) = (Vec::new(), Vec::new());
        let (mut from, mut to) = (self, other);
        loop {
            match (&from.last, &to.last) {
                (Some(one), Some(other)) if Arc::ptr_eq(one, other) => break,
                (None, None) => break,
                (Some(one), other) if other.as_ref().is_none_or(|other| one.before >= other.before) => {
                    undo.extend(one.changes.iter().rev());
                    from = &one.earlier;
                }
                (_, Some(other)) => {
                    redo.extend(other.changes.iter().rev());
                    to = &other.earlier;
                }
                (Some(_), None) => unreachable!("nothing is older than no change"),
            }
        }
        redo.reverse();
        (undo, redo)
    }
}
