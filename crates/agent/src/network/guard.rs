//! The firewall of one agent: what it was told of security groups, which interfaces there are, and that the kernel
//! knows both. The groups are kept in a file too, so that tasks outlive a restart of the host's agent, or of its
//! server, under the rules that held.

use super::filter::Table;
use super::{NetworkError, io as failed};
use gantry_decide::network::firewall::{Change, Firewall, Interface, News};
use parking_lot::Mutex;
use std::collections::BTreeSet;
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
    hosts: Mutex<BTreeSet<IpAddr>>,
}

impl Guard {
    /// With what the file says and these interfaces, by their links.
    pub fn open(
        table: Table,
        file: PathBuf,
        resolvers: Vec<IpAddr>,
        hosts: BTreeSet<IpAddr>,
        interfaces: impl IntoIterator<Item = (String, Interface)>,
    ) -> Result<Guard, NetworkError> {
        let mut firewall = read(&file);
        for (link, interface) in interfaces {
            firewall.attach(&link, interface);
        }
        let guard = Guard { table, file, resolvers, firewall: Mutex::default(), hosts: Mutex::new(hosts) };
        guard.install(&firewall)?;
        *guard.firewall.lock() = firewall;
        Ok(guard)
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

    /// The hosts that packets of tasks may come from are these.
    pub fn hosts(&self, hosts: BTreeSet<IpAddr>) -> Result<(), NetworkError> {
        let firewall = self.firewall.lock();
        let before = std::mem::replace(&mut *self.hosts.lock(), hosts.clone());
        let joined: Vec<IpAddr> = hosts.difference(&before).copied().collect();
        let left: Vec<IpAddr> = before.difference(&hosts).copied().collect();
        self.table.hosts(&joined, &left).or_else(|error| self.mend(&error, &firewall))
    }

    fn install(&self, firewall: &Firewall) -> Result<(), NetworkError> {
        let hosts: Vec<IpAddr> = self.hosts.lock().iter().copied().collect();
        let installed = self.table.install(&self.resolvers, &hosts, &firewall.whole());
        installed.map_err(failed("installing the security groups"))
    }

    /// After a change that the kernel did not take: somebody else of this host has changed or removed the table.
    fn mend(&self, error: &io::Error, firewall: &Firewall) -> Result<(), NetworkError> {
        tracing::warn!(table = self.table.name, %error, "making the firewall's table anew");
        self.install(firewall)
    }

    fn apply(&self, firewall: &Firewall, changes: &[Change]) -> Result<(), NetworkError> {
        self.table.apply(changes).or_else(|error| self.mend(&error, firewall))
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
