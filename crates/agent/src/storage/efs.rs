//! EFS volumes: a file system's id stands for an export of an NFS server, or for a directory of this host.
//!
//! The operator says which (`--efs`). A directory serves where the operator has mounted a file system already, and tests.

use super::{StorageError, is_mounted};
use crate::shim::mounts::{Flags, Mount, Root};
use gantry_api::acs;
use nix::mount::MsFlags;
use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// NFS version 4 has one port.
const NFS_PORT: u16 = 2049;
/// For a server to accept a connection. Without one, mount(2) would hold up all volumes of this host for minutes.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// The options that AWS recommends for EFS, and the stock agent uses; `timeo` is in tenths of a second.
const OPTIONS: &str = "vers=4.1,rsize=1048576,wsize=1048576,timeo=600,hard,retrans=2,noresvport";

/// Where the files of a file system or of an access point are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EfsTarget {
    /// A directory of this host.
    Directory(PathBuf),
    /// An export of an NFS server.
    Nfs { host: String, path: String },
}

/// Text that names no place of files.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is neither an absolute path nor HOST:/PATH")]
pub struct InvalidEfsTarget(String);

impl FromStr for EfsTarget {
    type Err = InvalidEfsTarget;

    fn from_str(text: &str) -> Result<EfsTarget, InvalidEfsTarget> {
        if text.starts_with('/') {
            return Ok(EfsTarget::Directory(text.into()));
        }
        match text.split_once(":/") {
            Some((host, path)) if !host.is_empty() && !host.contains('/') => {
                Ok(EfsTarget::Nfs { host: host.to_owned(), path: format!("/{path}") })
            }
            _ => Err(InvalidEfsTarget(text.to_owned())),
        }
    }
}

/// One EFS volume of a task, found among the settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EfsMount {
    target: EfsTarget,
    /// Below the target, without a slash in front.
    root: String,
}

impl EfsMount {
    /// What a payload's volume asks for. An access point goes before its file system.
    ///
    /// # Errors
    /// For ids that the operator has not told this agent, and for encryption that nobody here would do.
    pub fn read(
        known: &BTreeMap<String, EfsTarget>,
        volume: &acs::EFSVolumeConfiguration,
    ) -> Result<EfsMount, StorageError> {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let file_system = text(&volume.file_system_id);
        let access_point =
            volume.authorization_config.as_ref().map(|a| text(&a.access_point_id)).unwrap_or_default();
        let id = if access_point.is_empty() { &file_system } else { &access_point };
        let target = known.get(id).cloned().ok_or_else(|| {
            StorageError::Refused(format!(
                "Failed to resolve \"{}\": this agent was not told where it is (--efs)",
                id.escape_default().take(128).collect::<String>()
            ))
        })?;
        let encrypted = text(&volume.transit_encryption).eq_ignore_ascii_case("ENABLED");
        if encrypted && matches!(target, EfsTarget::Nfs { .. }) {
            let what = "transit encryption takes EFS's own mount helper; a file system that the operator mounted with it can be told as a directory";
            return Err(StorageError::Refused(what.to_owned()));
        }
        let root = text(&volume.root_directory);
        let parts: Vec<&str> = root.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
        if parts.contains(&"..") {
            return Err(StorageError::Refused("the root directory leads upwards".to_owned()));
        }
        Ok(EfsMount { target, root: parts.join("/") })
    }

    /// Mounts it at a place below [`super::DIRECTORY`], if it is not there yet.
    ///
    /// # Errors
    /// When the server does not answer, or has no such directory.
    pub fn provide(&self, place: &Path) -> Result<(), StorageError> {
        fs::create_dir_all(place).map_err(StorageError::io(place.display().to_string()))?;
        if is_mounted(place).map_err(StorageError::io("looking what is mounted"))? {
            return Ok(());
        }
        match &self.target {
            EfsTarget::Directory(directory) => self.bind(directory, place),
            EfsTarget::Nfs { host, path } => self.mount(host, path, place),
        }
    }

    /// Found without leaving the directory, whatever links the tasks that write there have made.
    fn bind(&self, directory: &Path, place: &Path) -> Result<(), StorageError> {
        let failed = || StorageError::io(format!("mounting {} of {}", self.root, directory.display()));
        let root = Root::open(directory).map_err(failed())?;
        let found = root.find(&self.root).map_err(|error| failed()(error.into()))?;
        let view = Mount::bind(found, Path::new(""), Flags::default()).map_err(failed())?;
        let place = Root::open(place).map_err(failed())?;
        view.attach(place).map_err(failed())
    }

    fn mount(&self, host: &str, path: &str, place: &Path) -> Result<(), StorageError> {
        let address = reachable(host)?;
        let path = format!("{}/{}", path.trim_end_matches('/'), self.root);
        let source = format!("{host}:{path}");
        let options = format!("{OPTIONS},addr={}", address.ip());
        nix::mount::mount(
            Some(source.as_str()),
            place,
            Some("nfs4"),
            MsFlags::empty(),
            Some(options.as_str()),
        )
        .map_err(|error| StorageError::io(format!("mounting {source}"))(error.into()))
    }
}

/// The first of a server's addresses that takes a connection.
fn reachable(host: &str) -> Result<SocketAddr, StorageError> {
    let failed = || StorageError::io(format!("Failed to resolve \"{host}\""));
    let addresses: Vec<SocketAddr> = (host, NFS_PORT).to_socket_addrs().map_err(failed())?.collect();
    let mut last = std::io::Error::from(std::io::ErrorKind::NotFound);
    for address in addresses {
        match TcpStream::connect_timeout(&address, CONNECT_MAX) {
            Ok(_) => return Ok(address),
            Err(error) => last = error,
        }
    }
    Err(StorageError::io(format!("connecting to {host}, port {NFS_PORT}"))(last))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn volume(root: &str, encryption: &str, access_point: &str) -> acs::EFSVolumeConfiguration {
        acs::EFSVolumeConfiguration {
            file_system_id: Some("fs-1".to_owned()),
            root_directory: Some(root.to_owned()),
            transit_encryption: Some(encryption.to_owned()),
            authorization_config: Some(acs::EFSAuthorizationConfig {
                access_point_id: Some(access_point.to_owned()),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn volumes_are_found_among_the_settings() {
        let known: BTreeMap<String, EfsTarget> = [("fs-1", "nas:/export/a"), ("fsap-1", "/srv/b")]
            .map(|(id, target)| (id.to_owned(), target.parse().unwrap()))
            .into();
        let read = |volume| EfsMount::read(&known, &volume).map_err(|error| error.text());
        let nfs = EfsTarget::Nfs { host: "nas".to_owned(), path: "/export/a".to_owned() };
        assert_eq!(
            read(volume("/x//y/", "DISABLED", "")),
            Ok(EfsMount { target: nfs, root: "x/y".to_owned() })
        );
        let found = read(volume("", "ENABLED", "fsap-1")).unwrap();
        assert_eq!(found.target, EfsTarget::Directory("/srv/b".into()));
        for (volume, expected) in [
            (volume("", "", "fsap-2"), "Failed to resolve \"fsap-2\""),
            (volume("", "ENABLED", ""), "transit encryption takes"),
            (volume("/a/../b", "", ""), "leads upwards"),
        ] {
            let error = read(volume).unwrap_err();
            assert!(error.starts_with(expected) || error.contains(expected), "{error}");
        }
        assert!("nas".parse::<EfsTarget>().is_err());
    }
}
