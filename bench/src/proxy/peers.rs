//! The proxies that are measured, each a process with one thread for traffic: nginx and HAProxy as Debian has them, this
//! program as the balancer and as the floor.

use super::{COPY, SERVE};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a proxy may take to answer at first.
const PATIENCE: Duration = Duration::from_secs(20);

/// A proxy under load.
pub struct Proxy {
    pub name: String,
    pub port: u16,
    child: Child,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// All processes of a proxy: nginx has a worker below its master.
fn processes(proxy: &Proxy) -> Vec<u32> {
    let own = proxy.child.id();
    let children = fs::read_to_string(format!("/proc/{own}/task/{own}/children")).unwrap_or_default();
    std::iter::once(own).chain(children.split_whitespace().filter_map(|pid| pid.parse().ok())).collect()
}

/// CPU time of its threads so far.
pub fn cpu_seconds(proxy: &Proxy) -> Result<f64> {
    let mut nanos = 0;
    for process in processes(proxy) {
        for task in fs::read_dir(format!("/proc/{process}/task"))?.flatten() {
            let text = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            nanos += text.split(' ').next().and_then(|text| text.parse::<u64>().ok()).unwrap_or_default();
        }
    }
    Ok(nanos as f64 / 1e9)
}

/// MiB.
pub fn resident(proxy: &Proxy) -> Result<f64> {
    let mut kilobytes = 0.0;
    for process in processes(proxy) {
        let status = fs::read_to_string(format!("/proc/{process}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
        kilobytes += line.trim().trim_end_matches(" kB").parse::<f64>().unwrap_or_default();
    }
    Ok(kilobytes / 1024.0)
}

/// A port that nobody has; taken again by whom it is given to.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

fn begin(name: &str, port: u16, command: &mut Command) -> Result<Proxy> {
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let proxy =
        Proxy { name: name.to_owned(), port, child: child.with_context(|| format!("starting {name}"))? };
    let begun = Instant::now();
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
        ensure!(begun.elapsed() < PATIENCE, "{name} does not listen");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(proxy)
}

pub fn nginx(folder: &Path, name: &str, server: impl FnOnce(u16) -> String) -> Result<Proxy> {
    let port = free_port()?;
    let own = folder.join(name);
    fs::create_dir(&own)?;
    let paths: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|kind| format!("{kind}_temp_path {}; ", own.join(kind).display()))
        .collect();
    let text = format!(
        "daemon off; worker_processes 1; pid {}; error_log /dev/null; events {{ worker_connections 8192; }}
         http {{ access_log off; keepalive_requests 1000000000; keepalive_timeout 3600; sendfile on; {paths} {} }}",
        own.join("pid").display(),
        server(port)
    );
    let file = own.join("nginx.conf");
    fs::write(&file, text)?;
    begin(name, port, Command::new("nginx").arg("-c").arg(file))
}

pub fn haproxy(folder: &Path, name: &str, mode: &str, origin: u16) -> Result<Proxy> {
    let port = free_port()?;
    let options = if mode == "http" { "option forwardfor\n http-reuse always" } else { "option splice-auto" };
    let text = format!(
        "global\n nbthread 1\n maxconn 8192\ndefaults\n mode {mode}\n timeout connect 10s\n timeout client 60s\n timeout server 60s\n {options}\nlisten l\n bind 127.0.0.1:{port}\n server s 127.0.0.1:{origin}{}\n",
        if mode == "http" { " pool-max-conn 1024" } else { "" }
    );
    let file = folder.join(format!("haproxy-{mode}.cfg"));
    fs::write(&file, text)?;
    begin(name, port, Command::new("haproxy").arg("-db").arg("-f").arg(file))
}

/// The balancer: `rules` that do not match before the one that does, and as many targets, each an address of the origin's.
pub fn ours(name: &str, mode: &str, rules: u32, targets: u8, origin: u16) -> Result<Proxy> {
    let port = free_port()?;
    let mut command = Command::new(std::env::current_exe()?);
    let numbers = [rules, targets.into(), port.into(), origin.into()].map(|number| number.to_string());
    command.args([SERVE, mode]).args(numbers);
    begin(name, port, &mut command)
}

/// What copies bytes and looks at none of them.
pub fn copier(origin: u16) -> Result<Proxy> {
    let port = free_port()?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args([COPY, &port.to_string(), &origin.to_string()]);
    begin("bare copier", port, &mut command)
}
