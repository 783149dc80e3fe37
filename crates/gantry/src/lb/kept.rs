//! What a balancer was told last, on its disk, so that it also starts without the control plane. Certificates' keys are
//! in it: only its owner may read it.

use anyhow::{Context, Result};
use gantry_decide::routing::channel::Instructions;
use std::fs::{DirBuilder, File, OpenOptions, rename};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// In the data directory.
const FILE: &str = "configuration.json";

/// See the module.
pub struct Kept {
    path: PathBuf,
    last: Option<Arc<Instructions>>,
}

impl Kept {
    /// In a directory, which is made where there is none.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(directory: &Path) -> Result<Kept> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        Ok(Kept { path: directory.join(FILE), last: None })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is on the disk; none before anything was saved.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(&self) -> Result<Option<Instructions>> {
        let shown = self.path.display();
        match std::fs::read(&self.path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .with_context(|| format!("{shown} is damaged; remove it to start without it")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {shown}")),
        }
    }

    /// Takes what was told now; [`Self::saving`] saves it.
    pub fn put(&mut self, instructions: Instructions) {
        self.last = Some(Arc::new(instructions));
    }

    /// The generation of what was told last.
    pub fn generation(&self) -> Option<u64> {
        self.last.as_ref().map(|last| last.configuration.generation)
    }

    /// Saves what was told last, complete or not at all.
    pub fn saving(&self) -> impl FnOnce() -> io::Result<()> + use<> {
        let (path, last) = (self.path.clone(), self.last.clone());
        move || {
            let Some(last) = last else { return Ok(()) };
            let fresh = path.with_extension("new");
            let mut file =
                OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
            file.write_all(&serde_json::to_vec(&*last)?)?;
            file.sync_all()?;
            rename(&fresh, &path)?;
            path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn what_was_told_reads_back_and_is_the_owners_alone() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = scratch.path().join("lb");
        let mut kept = Kept::open(&directory).unwrap();
        assert_eq!(kept.read().unwrap(), None);
        kept.saving()().unwrap();
        assert_eq!(kept.read().unwrap(), None);
        let mut instructions = Instructions::default();
        instructions.configuration.generation = 7;
        kept.put(instructions.clone());
        kept.saving()().unwrap();
        assert_eq!(Kept::open(&directory).unwrap().read().unwrap(), Some(instructions));
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&directory), mode(kept.path())), (0o700, 0o600));
        std::fs::write(kept.path(), "{").unwrap();
        assert!(kept.read().is_err());
    }
}
