//! The IPv6 addresses of load balancers that are an installation's own: they lead to this machine as long as somebody here
//! carries traffic. A file says which block does, for whoever comes after a crash.

use gantry_agent::network::local::{self, LocalError};
use gantry_decide::network::Ipv6Block;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// In the data directory of who carries traffic.
const FILE: &str = "own-addresses";

/// See the module.
#[derive(Debug)]
pub struct OwnAddresses {
    file: PathBuf,
    /// What leads here.
    led: Option<Ipv6Block>,
    /// What could not be led here, of which was told.
    told: Option<Ipv6Block>,
}

impl OwnAddresses {
    /// Of who carries traffic with this data directory. What one before it led here is not led here anew.
    pub fn open(data_dir: &Path) -> OwnAddresses {
        OwnAddresses { file: data_dir.join(FILE), led: noted(data_dir), told: None }
    }

    /// Leads a block here, and no other one. Where that cannot be, load balancers have their other addresses still.
    pub fn lead(&mut self, block: Option<Ipv6Block>) {
        // It may have been taken away meanwhile, by another one of the installation that ended.
        if block == self.led && block.is_none_or(local::leads) {
            return;
        }
        if self.led != block {
            self.leave();
        }
        let Some(block) = block else { return };
        let Err(error) = note(&self.file, block).and_then(|()| Ok(local::lead(block)?)) else {
            (self.led, self.told) = (Some(block), None);
            return;
        };
        // There is nothing to sweep.
        let _ = fs::remove_file(&self.file);
        if self.told != Some(block) {
            self.told = Some(block);
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "load balancers are not reached by IPv6");
        }
    }

    /// Leads nothing here any more.
    pub fn leave(&mut self) {
        let Some(block) = self.led.take() else { return };
        match local::leave(block) {
            // As above, if it stays.
            Ok(()) => drop(fs::remove_file(&self.file)),
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "addresses of load balancers lead here still");
            }
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum LeadError {
    #[error("cannot note it in the data directory")]
    Note(#[from] io::Error),
    #[error(transparent)]
    Local(#[from] LocalError),
}

fn note(file: &Path, block: Ipv6Block) -> Result<(), LeadError> {
    Ok(fs::write(file, format!("{block}\n"))?)
}

/// What was last led here by who had this data directory.
fn noted(data_dir: &Path) -> Option<Ipv6Block> {
    fs::read_to_string(data_dir.join(FILE)).ok()?.trim().parse().ok()
}

/// What leads here still, of who carried traffic with this data directory.
pub fn leftovers(data_dir: &Path) -> Vec<String> {
    let block = noted(data_dir).filter(|block| local::leads(*block));
    block.map(|block| format!("route to {block}")).into_iter().collect()
}

/// Leads it here no more.
///
/// # Errors
/// When it does still.
pub fn sweep(data_dir: &Path) -> Result<(), LocalError> {
    noted(data_dir).map_or(Ok(()), local::leave)
}
