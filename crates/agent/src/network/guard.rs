//! The firewall of one agent: what it was told of security groups, which interfaces there are, and that the kernel
//! knows both. The groups are kept in a file too, so that tasks outlive a restart of the host's agent, or of its
//! server, under the rules that held.

use super::filter::Table;
use super::{NetworkError, io as failed};
use gantry_decide::network::firewall::{Change, Firewall, Interface, News};
use parking_lot::Mutex;
use std::fs;
use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// See the module.
pub struct Guard {
    table: Table,
    file: PathBuf,
    resolvers: Vec<IpAddr>,
    /// Held while the kernel is told, so that it hears of changes in their order.
    firewall: Mutex<Firewall>,
}

impl Guard {
    /// With what the file says and these interfaces, by their links.
    pub fn open(
        table: Table,
        file: PathBuf,
        resolvers: Vec<IpAddr>,
        interfaces: impl IntoIterator<Item = (String, Interface)>,
    ) -> Result<Guard, NetworkError> {
        let mut firewall = read(&file);
        for (link, interface) in interfaces {
            firewall.attach(&link, interface);
        }
        table.install(&resolvers, &firewall.whole()).map_err(failed("installing the security groups"))?;
        Ok(Guard { table, file, resolvers, firewall: Mutex::new(firewall) })
    }

    /// Whatever a link was before, from now on it is guarded.
    pub fn attach(&self, link: &str, interface: Interface) -> Result<(), NetworkError> {
        let firewall = &mut *self.firewall.lock();
        let changes = firewall.attach(link, interface);
        let applied = self.apply(firewall, &changes);
        if applied.is_err() {
            firewall.detach(link);
        }
        applied
    }

    pub fn detach(&self, link: &str) -> Result<(), NetworkError> {
        let firewall = &mut *self.firewall.lock();
        let changes = firewall.detach(link);
        self.apply(firewall, &changes)
    }

    /// The control plane has told something.
    pub fn hear(&self, news: News) -> Result<(), NetworkError> {
        let firewall = &mut *self.firewall.lock();
        let changes = firewall.hear(news);
        if changes.is_empty() {
            return Ok(());
        }
        let applied = self.apply(firewall, &changes);
        if let Err(error) = write(&self.file, firewall) {
            tracing::warn!(file = %self.file.display(), %error, "security groups are not kept");
        }
        applied
    }

    fn apply(&self, firewall: &Firewall, changes: &[Change]) -> Result<(), NetworkError> {
        match self.table.apply(changes) {
            Ok(()) => Ok(()),
            Err(error) => {
                // Somebody else of this host has changed or removed the table.
                tracing::warn!(table = self.table.name, %error, "making the firewall's table anew");
                let anew = self.table.install(&self.resolvers, &firewall.whole());
                anew.map_err(failed("installing the security groups"))
            }
        }
    }
}

/// What is damaged is of no use: the control plane tells all of it again.
fn read(file: &Path) -> Firewall {
    let text = match fs::read(file) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Firewall::default(),
        Err(error) => {
            tracing::warn!(file = %file.display(), %error, "security groups cannot be read");
            return Firewall::default();
        }
    };
    serde_json::from_slice(&text).unwrap_or_else(|error| {
        tracing::warn!(file = %file.display(), %error, "security groups do not read");
        Firewall::default()
    })
}

/// Not synced: what a crash of the host loses is told again.
fn write(file: &Path, firewall: &Firewall) -> io::Result<()> {
    let new = file.with_extension("tmp");
    fs::write(&new, serde_json::to_vec(firewall)?)?;
    fs::rename(new, file)
}
