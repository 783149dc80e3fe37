//! Who a container runs as: `user[:group]` by the image's own `/etc/passwd` and `/etc/group`.

use crate::runtime::spec::User;
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// An image's passwd file is larger only by mistake.
const FILE_MAX: u64 = 1 << 20;

/// Finds the user that `text` means; empty means root.
///
/// # Errors
/// In Docker's words, for a name that the image does not know.
pub fn find(root: &Path, text: &str) -> Result<User, String> {
    let passwd = read(root, "etc/passwd");
    let group = read(root, "etc/group");
    resolve(text, &passwd, &group)
}

fn resolve(text: &str, passwd: &str, group: &str) -> Result<User, String> {
    let (name, group_name) = match text.split_once(':') {
        Some((name, group)) => (name, Some(group).filter(|group| !group.is_empty())),
        None => (text, None),
    };
    let name = if name.is_empty() { "0" } else { name };
    // name:password:uid:gid:gecos:home:shell
    let fields = |line: &str| line.split(':').map(str::to_owned).collect::<Vec<_>>();
    let lines = || passwd.lines().map(fields).filter(|entry| entry.len() >= 6);
    let number: Option<u32> = name.parse().ok();
    let entry = lines()
        .find(|entry| entry[0] == name)
        .or_else(|| number.and_then(|uid| lines().find(|entry| entry[2].parse() == Ok(uid))));
    let mut user = match (entry, number) {
        (Some(entry), _) => User {
            uid: entry[2].parse().map_err(|_| format!("the image's entry of user {name} is damaged"))?,
            gid: entry[3].parse().map_err(|_| format!("the image's entry of user {name} is damaged"))?,
            additional_gids: memberships(group, &entry[0]),
            home: entry[5].clone(),
        },
        (None, Some(uid)) => User { uid, gid: 0, additional_gids: Vec::new(), home: "/".to_owned() },
        (None, None) => {
            return Err(format!("unable to find user {name}: no matching entries in passwd file"));
        }
    };
    if let Some(wanted) = group_name {
        user.gid = groups(group)
            .find(|(known, _, _)| *known == wanted)
            .map(|(_, gid, _)| gid)
            .or_else(|| wanted.parse().ok())
            .ok_or_else(|| format!("unable to find group {wanted}: no matching entries in group file"))?;
        user.additional_gids.clear();
    }
    Ok(user)
}

/// name:password:gid:members
fn groups(text: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let gid = fields.nth(1)?.parse().ok()?;
        Some((name, gid, fields.next().unwrap_or_default()))
    })
}

fn memberships(group: &str, name: &str) -> Vec<u32> {
    let of = groups(group).filter(|(_, _, members)| members.split(',').any(|member| member == name));
    of.map(|(_, gid, _)| gid).collect()
}

/// A file of the image, whose links lead nowhere outside of it. Empty where there is none.
fn read(root: &Path, path: &str) -> String {
    let open = || {
        let root = File::open(root).ok()?;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = openat2(root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT).ok()?;
        let mut text = String::new();
        File::from(file).take(FILE_MAX).read_to_string(&mut text).ok()?;
        Some(text)
    };
    open().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:33::/srv:/bin/false\nbad:x:y:0::/:\n";
    const GROUP: &str = "root:x:0:\nweb:x:33:\nlogs:x:4:web,root\n";

    #[test]
    fn names_and_numbers_are_found() {
        let find = |text: &str| resolve(text, PASSWD, GROUP);
        let ids = |text: &str| find(text).map(|user| (user.uid, user.gid, user.additional_gids)).unwrap();
        assert_eq!(ids(""), (0, 0, vec![4]));
        assert_eq!(ids("web"), (33, 33, vec![4]));
        assert_eq!(ids("33"), (33, 33, vec![4]));
        assert_eq!(ids("web:logs"), (33, 4, vec![]));
        assert_eq!(ids("1000:1001"), (1000, 1001, vec![]));
        assert_eq!(ids("1000"), (1000, 0, vec![]));
        assert_eq!(find("web").unwrap().home, "/srv");
        assert!(find("nobody").unwrap_err().contains("no matching entries in passwd file"));
        assert!(find("web:nobodies").is_err());
        assert!(find("bad").is_err());
    }
}
