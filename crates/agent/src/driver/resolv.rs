//! What tasks know of names by their host: its name servers, as far as they can be reached from another network
//! namespace; in the host's own namespace, its name and all that it knows.

use std::fs::File;
use std::io::Read;
use std::net::IpAddr;

/// Where they stand; the second is systemd's, which the first may hide behind a server on a loopback address.
const FILES: [&str; 2] = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];

/// Bytes of the host's hosts file that containers get: a quarter of what their files may have together.
const HOSTS_MAX: u64 = 256 << 10;

/// The host's own name.
pub fn name_of_host() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}

/// The host's hosts file, for who is in its network. Of a very long one, the first lines.
pub fn hosts_of_host() -> String {
    let mut bytes = Vec::new();
    // A host without one has no names to give.
    let _ = File::open("/etc/hosts").and_then(|file| file.take(HOSTS_MAX).read_to_end(&mut bytes));
    let whole = if bytes.len() as u64 == HOSTS_MAX {
        bytes.iter().rposition(|byte| *byte == b'\n').unwrap_or(0)
    } else {
        bytes.len()
    };
    let mut text = String::from_utf8_lossy(&bytes[..whole]).into_owned();
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

/// The host's `resolv.conf`, for who is in its network.
pub fn in_host() -> String {
    std::fs::read_to_string(FILES[0]).unwrap_or_default()
}

/// The text of a task's `resolv.conf`.
pub fn of_host() -> String {
    let mut text = String::new();
    for path in FILES {
        text = reachable(&std::fs::read_to_string(path).unwrap_or_default());
        if text.lines().any(|line| line.starts_with("nameserver")) {
            break;
        }
    }
    text
}

fn reachable(file: &str) -> String {
    let on_loopback = |line: &str| line.starts_with("nameserver 127.") || line.starts_with("nameserver ::1");
    file.lines().filter(|line| !on_loopback(line)).map(|line| format!("{line}\n")).collect()
}

/// The addresses of name servers in such a text.
pub fn servers(text: &str) -> Vec<IpAddr> {
    let server = |line: &str| line.strip_prefix("nameserver")?.split_whitespace().next()?.parse().ok();
    let mut servers: Vec<IpAddr> = text.lines().filter_map(server).collect();
    servers.sort();
    servers.dedup();
    servers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_on_loopback_addresses_are_left_out() {
        let file = "search lan\nnameserver 127.0.0.53\nnameserver 10.0.0.2\nnameserver fd00::2 # two\nnameserver 10.0.0.2\n";
        let text = reachable(file);
        assert!(text.starts_with("search lan\n") && !text.contains("127."));
        assert_eq!(
            servers(&text).iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["10.0.0.2", "fd00::2"]
        );
    }
}
