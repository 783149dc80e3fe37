//! Handlers by resource.

pub mod alarm;
pub mod event;
pub mod explain;

use super::errors::GantryError;
use crate::bulk::logs::Place;
use gantry_decide::time::Timestamp;

/// Bytes of events in one page: as of a page of log events.
const PAGE_BYTES_MAX: usize = 1 << 20;

/// A place in the feed as tokens name it.
fn token(place: Place) -> String {
    format!("{}.{}", place.at.as_millis(), place.number)
}

fn read_token(text: &str) -> Result<Place, GantryError> {
    let read = || {
        let (at, number) = text.split_once('.')?;
        Some(Place { at: Timestamp::from_millis(at.parse().ok()?), number: number.parse().ok()? })
    };
    read().ok_or_else(|| GantryError::InvalidParameter("The nextToken is not one of ours.".to_owned()))
}
