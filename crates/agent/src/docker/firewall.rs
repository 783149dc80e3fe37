//! Docker's firewall. It drops what the host forwards and is not Docker's own, and with that the traffic of tasks in
//! awsvpc mode, whose links are the agent's. For exceptions it has a chain that it leaves to others, which no table of
//! the agent's own could replace: a packet has to pass all of them. What tasks may do, their security groups still say.

use std::time::Duration;
use tokio::process::Command;
use tokio::sync::Mutex;
use tokio::time::timeout;

/// Docker's chain for others.
const CHAIN: &str = "DOCKER-USER";
/// For one change; other programs may hold the tables' lock.
const CHANGE_MAX: Duration = Duration::from_secs(10);
/// Agents of one process look and change one after the other.
static CHANGING: Mutex<()> = Mutex::const_new(());

/// Lets what comes over the agent's links, and what goes there, pass. Nothing is to be done where Docker keeps no
/// firewall.
pub async fn admit(links: &[&str]) {
    let _one_at_a_time = CHANGING.lock().await;
    for link in links {
        for end in ["-i", "-o"] {
            if !iptables("-C", end, link).await && iptables("-I", end, link).await {
                tracing::info!(link, end, "Docker's firewall lets tasks' packets pass");
            }
        }
    }
}

/// Takes the exceptions of a link away. None there is what is wanted.
pub async fn withdraw(link: &str) {
    let _one_at_a_time = CHANGING.lock().await;
    for end in ["-i", "-o"] {
        while iptables("-C", end, link).await && iptables("-D", end, link).await {}
    }
}

/// Whether it could be done. Hosts without the program, or the chain, have no firewall of Docker's.
async fn iptables(command: &str, end: &str, link: &str) -> bool {
    let words = ["-w", "5", command, CHAIN, end, link, "-j", "ACCEPT"];
    let running = Command::new("iptables").args(words).kill_on_drop(true).output();
    matches!(timeout(CHANGE_MAX, running).await, Ok(Ok(output)) if output.status.success())
}
