//! Gives up images that nobody needs: by age, a few at a time, and at once where the disk fills up.

use super::cleanup::{CleanupRules, select_for_cleanup};
use super::digest::Digest;
use super::disk::Space;
use super::policy::PullBehavior;
use super::pull::Images;
use super::reference::Reference;
use super::store::{Collector, ImageRecord, StoreError};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Between two looks at the disk. A pull looks too, more often.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// How long an unfinished download waits for somebody to go on with it.
const PARTIAL_MAX: Duration = Duration::from_secs(24 * 3600);
/// Packed bytes read between two looks at the disk while a layer is unpacked.
const WATCH_EVERY: u64 = 256 << 10;

/// Why images are given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Because {
    /// A round of clean-up: those that have not been used for long.
    Age,
    /// As many as it takes to free so many bytes.
    Disk(u64),
}

/// What a round gave up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cleaned {
    pub names: Vec<Reference>,
    pub layers: u64,
    pub partials: u64,
    /// A pull was under way, so nothing was looked at.
    pub busy: bool,
}

/// Milliseconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}

impl Images {
    /// Cleans up for as long as the agent lives.
    pub async fn keep_clean(self) {
        let settings = self.settings();
        let look = settings.cleanup_interval.unwrap_or(LOOK_EVERY).min(LOOK_EVERY);
        let mut round = Instant::now();
        loop {
            tokio::time::sleep(look).await;
            let due = self.settings().cleanup_interval.is_some_and(|every| round.elapsed() >= every);
            let images = self.clone();
            let work = tokio::task::spawn_blocking(move || images.look(due));
            match work.await {
                Ok(Ok(busy)) => {
                    if due && !busy {
                        round = Instant::now();
                    }
                }
                Ok(Err(error)) => tracing::warn!(%error, "images cannot be cleaned up"),
                // The runtime ends.
                Err(_) => return,
            }
        }
    }

    /// One look: whether the round that was due has to wait.
    fn look(&self, due: bool) -> Result<bool, StoreError> {
        let mut busy = false;
        if due {
            busy = self.clean(Because::Age)?.busy;
        }
        let to_free = self.settings().disk.to_free(self.space()?);
        if to_free > 0 {
            self.clean(Because::Disk(to_free))?;
        }
        Ok(busy)
    }

    /// Gives images up. Blocks.
    pub fn clean(&self, because: Because) -> Result<Cleaned, StoreError> {
        let store = self.store();
        let Some(collector) = store.collector()? else {
            return Ok(Cleaned { busy: true, ..Cleaned::default() });
        };
        let records = store.list()?;
        let known: BTreeSet<Digest> = records.iter().map(|record| record.config_digest).collect();
        self.keep_wanted(&records)?;
        self.holds().write_back(store, |image| !known.contains(image))?;
        let mut cleaned = match because {
            Because::Age => self.clean_by_age(&collector, &records)?,
            Because::Disk(bytes) => self.clean_for_room(&collector, &records, bytes)?,
        };
        cleaned.layers += collector.collect()?.layers;
        let Cleaned { names, layers, partials, .. } = &cleaned;
        if !names.is_empty() || *layers > 0 || *partials > 0 {
            let names: Vec<String> = names.iter().map(Reference::familiar).collect();
            tracing::info!(?because, ?names, layers, partials, "images were cleaned up");
        }
        Ok(cleaned)
    }

    fn clean_by_age(&self, _alone: &Collector<'_>, records: &[ImageRecord]) -> Result<Cleaned, StoreError> {
        let settings = self.settings();
        let mut rules = settings.cleanup.clone();
        let holds = self.store().all_holds()?.into_iter().filter(|hold| hold.wanted);
        let wanted: BTreeSet<Digest> = holds.map(|hold| hold.image).collect();
        let wanted = records.iter().filter(|record| wanted.contains(&record.config_digest));
        rules.excluded.extend(wanted.map(|record| record.name.clone()));
        let names = self.unneeded(records, settings.pull_behavior, &rules)?;
        for name in &names {
            self.store().remove(name)?;
        }
        let partials = self.store().remove_partials(PARTIAL_MAX)?;
        Ok(Cleaned { names, partials, ..Cleaned::default() })
    }

    /// First what nobody can use, then images, the longest unused first, until there is room.
    fn clean_for_room(
        &self,
        alone: &Collector<'_>,
        records: &[ImageRecord],
        bytes: u64,
    ) -> Result<Cleaned, StoreError> {
        let wanted = self.space()?.available.saturating_add(bytes);
        let mut cleaned =
            Cleaned { partials: self.store().remove_partials(Duration::ZERO)?, ..Cleaned::default() };
        let excluded = self.settings().cleanup.excluded.clone();
        let rules = CleanupRules { per_round: usize::MAX, minimum_age: Duration::ZERO, excluded };
        let mut candidates = self.unneeded(records, PullBehavior::Default, &rules)?.into_iter();
        loop {
            cleaned.layers += alone.collect()?.layers;
            if self.space()?.available >= wanted {
                return Ok(cleaned);
            }
            let Some(name) = candidates.next() else { return Ok(cleaned) };
            self.store().remove(&name)?;
            cleaned.names.push(name);
        }
    }

    fn unneeded(
        &self,
        records: &[ImageRecord],
        behavior: PullBehavior,
        rules: &CleanupRules,
    ) -> Result<Vec<Reference>, StoreError> {
        let (mut in_use, mut used): (BTreeSet<Digest>, BTreeMap<Digest, u64>) = Default::default();
        for hold in self.store().all_holds()? {
            if hold.in_use {
                in_use.insert(hold.image);
            }
            let last = used.entry(hold.image).or_default();
            *last = hold.last_used.max(*last);
        }
        let of = |which: &dyn Fn(&ImageRecord) -> bool| -> BTreeSet<Reference> {
            records.iter().filter(|record| which(record)).map(|record| record.name.clone()).collect()
        };
        let in_use = of(&|record| in_use.contains(&record.config_digest));
        let last_used = records
            .iter()
            .filter_map(|record| {
                let last = used.get(&record.config_digest)?;
                Some((record.name.clone(), record.stored_at.max(*last)))
            })
            .collect();
        Ok(select_for_cleanup(records, &in_use, &last_used, now(), behavior, rules))
    }

    /// Whether so many bytes may come without using up what is to stay free.
    pub(super) fn room_for(&self, needed: u64) -> Result<(), StoreError> {
        let space = self.space()?;
        let (available, reserve) = (space.available, self.settings().disk.reserve(space));
        if available.saturating_sub(reserve) < needed || available < reserve {
            return Err(StoreError::NoRoom { needed, available, reserve });
        }
        Ok(())
    }

    /// The same for what nobody waits for: it may not bring the disk to where images are given up.
    pub(super) fn spare_room_for(&self, needed: u64) -> Result<(), StoreError> {
        let space = self.space()?;
        let kept = space.total / 100 * u64::from(100 - self.settings().disk.high.min(100));
        let reserve = kept.max(self.settings().disk.reserve(space));
        if space.available.saturating_sub(reserve) < needed {
            return Err(StoreError::NoRoom { needed, available: space.available, reserve });
        }
        Ok(())
    }

    /// The same, after images that nobody needs were given up if that is what it takes. Blocks.
    pub(super) fn make_room_for(&self, needed: u64) -> Result<(), StoreError> {
        match self.room_for(needed) {
            Err(StoreError::NoRoom { needed, available, reserve }) => {
                let missing = needed.saturating_add(reserve).saturating_sub(available);
                self.clean(Because::Disk(missing))?;
                self.room_for(needed)
            }
            other => other,
        }
    }

    fn space(&self) -> Result<Space, StoreError> {
        let root: &Path = self.store().root();
        Space::of(root).map_err(StoreError::io("measuring", root))
    }

    /// A reader that fails when the disk gets too full for what is made of its content.
    pub(super) fn watched<R: Read>(&self, reader: R) -> Watched<R> {
        Watched { images: self.clone(), reader, since: 0 }
    }
}

/// See [`Images::watched`].
pub(super) struct Watched<R> {
    images: Images,
    reader: R,
    since: u64,
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.since >= WATCH_EVERY {
            self.since = 0;
            self.images.room_for(0).map_err(|error| io::Error::new(io::ErrorKind::StorageFull, error))?;
        }
        let read = self.reader.read(buffer)?;
        self.since += read as u64;
        Ok(read)
    }
}
