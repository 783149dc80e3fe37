//! How full the file system of the images may get, and what is done before it is.

use std::io;
use std::path::Path;

/// When images are given up early, and when no more are fetched. Containers write to the same file system: one that a
/// pull fills makes every one of them fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskRules {
    /// Above so much of the file system in use, unused images go whatever their age. In percent.
    pub high: u8,
    /// Until so much is left in use.
    pub low: u8,
    /// Bytes that pulls leave free; none stands for 5 % of the file system, at most 1 GiB.
    pub reserve: Option<u64>,
}

impl Default for DiskRules {
    fn default() -> Self {
        DiskRules { high: 90, low: 80, reserve: None }
    }
}

const RESERVE_PERCENT: u64 = 5;
const RESERVE_MAX: u64 = 1 << 30;

/// A file system's size and what is free of it for anyone, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    pub total: u64,
    pub available: u64,
}

impl Space {
    /// Of the file system that `path` is on.
    pub fn of(path: &Path) -> io::Result<Space> {
        let found = rustix::fs::statvfs(path)?;
        let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
        Ok(Space { total: bytes(found.f_blocks), available: bytes(found.f_bavail) })
    }

    /// Bytes to free so that no more than `percent` is in use.
    pub fn excess(self, percent: u8) -> u64 {
        let keep = self.total / 100 * u64::from(100_u8.saturating_sub(percent));
        keep.saturating_sub(self.available)
    }
}

impl DiskRules {
    /// Bytes that pulls leave free on a file system of this size.
    pub fn reserve(&self, space: Space) -> u64 {
        self.reserve.unwrap_or_else(|| (space.total / 100 * RESERVE_PERCENT).min(RESERVE_MAX))
    }

    /// Bytes to free now: none below the high mark, what leads to the low one above it.
    pub fn to_free(&self, space: Space) -> u64 {
        if space.excess(self.high) == 0 { 0 } else { space.excess(self.low.min(self.high)) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn nothing_is_freed_below_the_high_mark_and_enough_above_it() {
        let rules = DiskRules::default();
        let space = |available| Space { total: 1000, available };
        assert_eq!(rules.to_free(space(100)), 0);
        assert_eq!(rules.to_free(space(99)), 101);
        assert_eq!(rules.to_free(space(0)), 200);
        let odd = DiskRules { high: 50, low: 70, reserve: None };
        assert_eq!(odd.to_free(space(400)), 100);
    }

    #[test]
    fn what_is_kept_free_follows_the_size_and_is_bounded() {
        let rules = DiskRules::default();
        assert_eq!(rules.reserve(Space { total: 1000, available: 0 }), 50);
        assert_eq!(rules.reserve(Space { total: 1 << 40, available: 0 }), 1 << 30);
        let own = DiskRules { reserve: Some(7), ..rules };
        assert_eq!(own.reserve(Space { total: 1 << 40, available: 0 }), 7);
    }

    #[test]
    fn the_file_system_tells_its_size() {
        let dir = tempfile::tempdir().unwrap();
        let space = Space::of(dir.path()).unwrap();
        assert!(space.total > 0 && space.available <= space.total);
        assert!(Space::of(&dir.path().join("gone")).is_err());
    }
}
