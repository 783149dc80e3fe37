//! Which rules can match a text at all, by the literal bytes that their patterns begin or end with: a radix tree each,
//! so that a thousand rules cost what ten do.

use super::pattern::{Glob, Matcher};

/// Rules by the literal part of a pattern.
#[derive(Clone, Debug, Default)]
pub(super) struct TextIndex {
    prefixes: Radix,
    suffixes: Radix,
}

/// Where a pattern is filed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Literal {
    Prefix(Vec<u8>),
    /// Last byte first.
    Suffix(Vec<u8>),
}

impl Literal {
    /// None: the pattern has no literal worth filing under.
    pub fn of(matcher: &Matcher) -> Option<Literal> {
        let Matcher::Glob(glob) = matcher else { return None };
        Literal::of_glob(glob)
    }

    fn of_glob(glob: &Glob) -> Option<Literal> {
        let (prefix, suffix) = (glob.prefix(), glob.reversed_suffix());
        match () {
            () if suffix.len() > prefix.len() => Some(Literal::Suffix(suffix)),
            () if prefix.is_empty() => None,
            () => Some(Literal::Prefix(prefix)),
        }
    }
}

impl TextIndex {
    pub fn insert(&mut self, literal: &Literal, rule: u32) {
        match literal {
            Literal::Prefix(bytes) => self.prefixes.insert(bytes, rule),
            Literal::Suffix(bytes) => self.suffixes.insert(bytes, rule),
        }
    }

    /// Calls `found` for every rule of which a literal fits `text`; a rule may come twice.
    pub fn candidates(&self, text: &[u8], found: &mut impl FnMut(u32)) {
        self.prefixes.walk(text.iter().copied(), found);
        if !self.suffixes.is_empty() {
            self.suffixes.walk(text.iter().rev().copied(), found);
        }
    }
}

/// A radix tree from byte strings to rules. Node 0 is the root.
#[derive(Clone, Debug)]
struct Radix {
    nodes: Vec<Node>,
}

#[derive(Clone, Debug, Default)]
struct Node {
    /// The bytes that lead here from the parent.
    label: Vec<u8>,
    rules: Vec<u32>,
    /// By the first byte of their labels.
    children: Vec<(u8, u32)>,
}

impl Default for Radix {
    fn default() -> Self {
        Radix { nodes: vec![Node::default()] }
    }
}

impl Radix {
    fn is_empty(&self) -> bool {
        self.nodes.len() == 1
    }

    fn insert(&mut self, mut text: &[u8], rule: u32) {
        let mut node = 0;
        while let Some(&first) = text.first() {
            let slot = self.nodes[node].children.binary_search_by_key(&first, |child| child.0);
            let child = match slot {
                Ok(slot) => self.nodes[node].children[slot].1 as usize,
                Err(slot) => {
                    let leaf = self.push(Node { label: text.to_vec(), ..Node::default() });
                    self.nodes[node].children.insert(slot, (first, leaf));
                    (node, text) = (leaf as usize, &[]);
                    break;
                }
            };
            let label = &self.nodes[child].label;
            let common = label.iter().zip(text).take_while(|(a, b)| a == b).count();
            if common < label.len() {
                self.split(child, common);
            }
            (node, text) = (child, &text[common..]);
        }
        debug_assert!(text.is_empty());
        self.nodes[node].rules.push(rule);
    }

    /// Leaves the first `at` bytes of a node's label to it, and gives the others with all it has to a new child.
    fn split(&mut self, node: usize, at: usize) {
        let lower = &mut self.nodes[node];
        let rest = lower.label.split_off(at);
        let first = rest[0];
        let moved = Node {
            label: rest,
            rules: std::mem::take(&mut lower.rules),
            children: std::mem::take(&mut lower.children),
        };
        let child = self.push(moved);
        self.nodes[node].children.push((first, child));
    }

    fn push(&mut self, node: Node) -> u32 {
        self.nodes.push(node);
        // Each value of each condition makes two nodes at most, and a listener has some thousand of them.
        u32::try_from(self.nodes.len() - 1).expect("a listener has no billion rules")
    }

    fn walk(&self, mut text: impl Iterator<Item = u8>, found: &mut impl FnMut(u32)) {
        let mut node = &self.nodes[0];
        loop {
            node.rules.iter().for_each(|rule| found(*rule));
            let Some(first) = text.next() else { return };
            let Ok(slot) = node.children.binary_search_by_key(&first, |child| child.0) else { return };
            node = &self.nodes[node.children[slot].1 as usize];
            if !node.label[1..].iter().all(|byte| text.next() == Some(*byte)) {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_walk_finds_all_prefixes_of_a_text(keys in prop::collection::vec("[ab]{1,6}", 0..40), text in "[ab]{0,8}") {
            let mut tree = Radix::default();
            for (number, key) in keys.iter().enumerate() {
                tree.insert(key.as_bytes(), number as u32);
            }
            let mut found = Vec::new();
            tree.walk(text.bytes(), &mut |rule| found.push(rule as usize));
            found.sort_unstable();
            let expected: Vec<usize> = (0..keys.len()).filter(|n| text.starts_with(&keys[*n])).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
