//! The name servers of tasks: the host's, as far as they can be reached from another network namespace.

use std::net::IpAddr;

/// Where they stand; the second is systemd's, which the first may hide behind a server on a loopback address.
const FILES: [&str; 2] = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];

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
