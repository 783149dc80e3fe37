//! A table against a plain map, and its writes against the store they would make.
#![allow(clippy::unwrap_used)]

use super::*;
use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Cell {
    row: u8,
    column: u8,
    text: String,
}

impl Record for Cell {
    const KIND: &'static str = "test/cell";
    const VERSION: u32 = 1;
    type Key = (u8, u8);

    fn key(&self) -> (u8, u8) {
        (self.row, self.column)
    }

    fn path((row, column): &(u8, u8)) -> String {
        format!("{row}/{column}")
    }
}

#[derive(Clone, Debug)]
enum Step {
    Put(Cell),
    Remove((u8, u8)),
    Changes,
    Drain,
    /// A transaction of these steps, kept or dropped.
    Transaction(Vec<Step>, bool),
    Snapshot,
}

fn step() -> impl Strategy<Value = Step> {
    let cell = (0..4u8, 0..4u8, "\\PC{0,8}").prop_map(|(row, column, text)| Cell { row, column, text });
    let write =
        prop_oneof![3 => cell.prop_map(Step::Put), 2 => (0..4u8, 0..4u8).prop_map(Step::Remove)].boxed();
    prop_oneof![
        4 => write.clone(),
        1 => Just(Step::Changes),
        1 => Just(Step::Drain),
        1 => Just(Step::Snapshot),
        2 => (proptest::collection::vec(write, 0..6), any::<bool>()).prop_map(|(w, keep)| Step::Transaction(w, keep)),
    ]
}

type Cells = BTreeMap<(u8, u8), Cell>;

/// The plain map that a table must equal, the stored rows that its drains make, and snapshots with what they held.
#[derive(Default)]
struct Model {
    table: Table<Cell>,
    map: Cells,
    stored: BTreeMap<String, Box<[u8]>>,
    snapshots: Vec<(Table<Cell>, Cells)>,
}

fn write(table: &mut Table<Cell>, map: &mut Cells, step: &Step) {
    match step {
        Step::Put(cell) => {
            let previous = table.put(cell.clone());
            assert_eq!(previous.as_deref(), map.insert(cell.key(), cell.clone()).as_ref());
        }
        Step::Remove(key) => assert_eq!(table.remove(key).as_deref(), map.remove(key).as_ref()),
        other => unreachable!("{other:?} is not a write"),
    }
}

impl Model {
    fn apply(&mut self, step: &Step) {
        match step {
            Step::Put(_) | Step::Remove(_) => write(&mut self.table, &mut self.map, step),
            Step::Changes => {
                let changed = self.table.drain_changes();
                assert!(changed.is_sorted_by(|a, b| a < b), "each key once, in order");
                assert!(self.table.drain_changes().is_empty(), "no change is told twice");
            }
            Step::Drain => self.drain(),
            Step::Snapshot => self.snapshots.push((self.table.clone(), self.map.clone())),
            Step::Transaction(steps, keep) => {
                let (mut table, mut map) = (self.table.clone(), self.map.clone());
                for step in steps {
                    write(&mut table, &mut map, step);
                }
                if *keep {
                    (self.table, self.map) = (table, map);
                }
            }
        }
        assert!(self.table.iter().map(|(k, v)| (k, v.as_ref())).eq(self.map.iter()));
        assert_eq!(self.table.len(), self.map.len());
    }

    fn drain(&mut self) {
        let mut writes = Vec::new();
        self.table.drain_writes("s/", &mut writes);
        assert!(writes.is_sorted_by(|a, b| a.key < b.key), "each key once, in order");
        for write in writes {
            match write.value {
                Some(value) => self.stored.insert(write.key, value),
                None => self.stored.remove(&write.key),
            };
        }
        assert!(!self.table.is_dirty());
    }
}

proptest! {
    #[test]
    fn a_table_is_a_map_whose_drains_make_the_store(steps in proptest::collection::vec(step(), 0..60)) {
        let mut model = Model::default();
        for step in &steps {
            model.apply(step);
        }
        model.drain();
        let mut loaded = Table::<Cell>::new();
        for value in model.stored.values() {
            loaded.adopt(crate::decode::<Cell>(value).unwrap());
        }
        prop_assert!(!loaded.is_dirty(), "loading is not writing");
        prop_assert!(loaded.iter().map(|(k, v)| (k, v.as_ref())).eq(model.map.iter()));
        for (table, map) in &model.snapshots {
            prop_assert!(table.iter().map(|(k, v)| (k, v.as_ref())).eq(map.iter()), "a snapshot changed");
        }
    }

    #[test]
    fn ranges_are_those_of_a_map(keys in proptest::collection::btree_set((0..8u8, 0..8u8), 0..40), row in 0..8u8) {
        let mut table = Table::new();
        for &(row, column) in &keys {
            table.put(Cell { row, column, text: String::new() });
        }
        let range = (row, 0)..=(row, u8::MAX);
        prop_assert!(table.range(range.clone()).map(|(key, _)| key).eq(keys.range(range.clone())));
        prop_assert!(table.range(range.clone()).rev().map(|(key, _)| key).eq(keys.range(range).rev()));
    }
}

#[test]
fn a_record_made_and_removed_between_drains_leaves_no_row() {
    let mut table = Table::new();
    table.put(Cell { row: 1, column: 2, text: "x".to_owned() });
    table.remove(&(1, 2));
    let mut writes = Vec::new();
    table.drain_writes("s/", &mut writes);
    assert_eq!(writes, [Write { key: "s/test/cell/1/2".to_owned(), value: None }]);
    assert_eq!(table.remove(&(1, 2)), None);
    assert!(!table.is_dirty(), "removing nothing is no write");
}

proptest! {
    #[test]
    fn what_changed_between_two_forms_is_what_differs(
        before in proptest::collection::vec(step(), 0..60),
        after in proptest::collection::vec(step(), 0..60),
    ) {
        let mut table = Table::new();
        let make = |table: &mut Table<Cell>, steps: &[Step]| for step in steps {
            match step {
                Step::Put(cell) => drop(table.put(cell.clone())),
                Step::Remove(key) => drop(table.remove(key)),
                _ => {}
            }
        };
        make(&mut table, &before);
        let old = table.clone();
        make(&mut table, &after);
        let keys: std::collections::BTreeSet<_> = old.iter().chain(table.iter()).map(|(key, _)| *key).collect();
        let differs = |key: &(u8, u8)| {
            let pair = (old.get(key).map(AsRef::as_ref), table.get(key).map(AsRef::as_ref));
            (pair.0 != pair.1).then_some(pair)
        };
        let expected: Vec<_> = keys.iter().filter_map(differs).collect();
        prop_assert_eq!(table.changes_since(&old).collect::<Vec<_>>(), expected);
    }
}
