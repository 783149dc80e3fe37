//! The proxies that are measured, each a process with one thread for traffic: nginx and HAProxy as Debian has them, this
//! program as the balancer and as the floor.

use super::{ADDRESSES, COPY, SERVE, output_of};
use anyhow::{Context, Result, ensure};
use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a proxy may take to answer at first.
const PATIENCE: Duration = Duration::from_secs(20);
/// Connections of a proxy, both sides together, where this process may open so many files: what it starts may not more.
const MAX_CONNECTIONS: u64 = 32 * 1024;

/// What a proxy serves.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Front {
    Http,
    /// HTTP, and a line for each request in access logs.
    Logged,
    /// HTTP/1.1 and HTTP/2 by TLS 1.3.
    Https,
    Tcp,
    /// HTTP with targets that come and go.
    Churn,
}

/// The origin, and what all proxies have in common.
pub struct Bench {
    folder: PathBuf,
    origin: Proxy,
    /// The processor of the measured proxies.
    processor: Option<usize>,
}

/// A proxy under load.
pub struct Proxy {
    pub name: String,
    pub port: u16,
    child: Child,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let children: Vec<u32> = self.processes();
        let _ = self.child.kill();
        let _ = self.child.wait();
        // nginx's workers outlive a master that is killed.
        for child in children.into_iter().skip(1) {
            let pid = nix::unistd::Pid::from_raw(child.cast_signed());
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
        }
    }
}

impl Proxy {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// All its processes: nginx has workers below its master.
    fn processes(&self) -> Vec<u32> {
        let own = self.child.id();
        let children = fs::read_to_string(format!("/proc/{own}/task/{own}/children")).unwrap_or_default();
        std::iter::once(own).chain(children.split_whitespace().filter_map(|pid| pid.parse().ok())).collect()
    }

    /// CPU time of its threads so far. Those of processes that have ended since are not in it.
    ///
    /// # Errors
    /// When it is gone.
    pub fn cpu_seconds(&self) -> Result<f64> {
        let mut nanos = 0;
        for process in self.processes() {
            for task in fs::read_dir(format!("/proc/{process}/task"))?.flatten() {
                let text = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
                nanos += text.split(' ').next().and_then(|text| text.parse::<u64>().ok()).unwrap_or_default();
            }
        }
        Ok(nanos as f64 / 1e9)
    }

    /// MiB.
    ///
    /// # Errors
    /// When it is gone.
    pub fn resident(&self) -> Result<f64> {
        let mut kilobytes = 0.0;
        for process in self.processes() {
            let status = fs::read_to_string(format!("/proc/{process}/status"))?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
            kilobytes += line.trim().trim_end_matches(" kB").parse::<f64>().unwrap_or_default();
        }
        Ok(kilobytes / 1024.0)
    }
}

/// A port that nobody has; taken again by whom it is given to.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

fn connections() -> Result<u64> {
    use nix::sys::resource::{Resource, getrlimit};
    Ok(getrlimit(Resource::RLIMIT_NOFILE)?.1.min(MAX_CONNECTIONS))
}

/// Starts a program, on the given processor alone if there is one.
fn begin(name: &str, port: u16, processor: Option<usize>, program: &mut Command) -> Result<Proxy> {
    let mut pinned;
    let command = match processor {
        None => program,
        Some(processor) => {
            pinned = Command::new("taskset");
            pinned.args(["-c", &processor.to_string()]).arg(program.get_program()).args(program.get_args())
        }
    };
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let child =
        child.with_context(|| format!("starting {name} (Debian packages: nginx, haproxy, util-linux)"))?;
    let mut proxy = Proxy { name: name.to_owned(), port, child };
    let begun = Instant::now();
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
        ensure!(proxy.child.try_wait()?.is_none(), "{name} has ended");
        ensure!(begun.elapsed() < PATIENCE, "{name} does not listen");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(proxy)
}

/// nginx with these blocks.
fn nginx(folder: &Path, name: &str, port: u16, processor: Option<usize>, blocks: &str) -> Result<Proxy> {
    let own = folder.join(name.replace(' ', "-"));
    fs::create_dir_all(&own)?;
    let file = own.join("nginx.conf");
    let (own, preamble) = (own.display(), if blocks.starts_with("stream") { STREAM } else { "" });
    let most = connections()?;
    let text = format!(
        "{preamble} daemon off; worker_processes 1; worker_rlimit_nofile {most}; pid {own}/pid;
         error_log /dev/null; events {{ worker_connections {most}; }} {blocks}"
    );
    fs::write(&file, text)?;
    begin(name, port, processor, Command::new("nginx").arg("-c").arg(file))
}

const STREAM: &str = "load_module /usr/lib/nginx/modules/ngx_stream_module.so;";

/// An `http` block of nginx with these directives.
fn http(folder: &Path, name: &str, directives: &str) -> Result<String> {
    let own = folder.join(name.replace(' ', "-"));
    fs::create_dir_all(&own)?;
    let paths =
        ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].iter().fold(String::new(), |mut all, kind| {
            let _ = write!(all, "{kind}_temp_path {}; ", own.join(kind).display());
            all
        });
    Ok(format!(
        "http {{ access_log off; keepalive_requests 1000000000; keepalive_timeout 3600; sendfile on; {paths} {directives} }}"
    ))
}

impl Bench {
    /// Starts the origin: an nginx with files of 64 B to 64 MiB.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(folder: &Path, processor: Option<usize>) -> Result<Bench> {
        let www = folder.join("www");
        fs::create_dir(&www)?;
        for (name, bytes) in [("small", 64), ("middle", 10 << 10), ("large", 1 << 20), ("huge", 64 << 20)] {
            fs::write(www.join(name), vec![b'x'; bytes])?;
        }
        let mut openssl = Command::new("openssl");
        openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
        openssl.args(["-subj", "/CN=bench", "-days", "7", "-keyout"]).arg(folder.join("key.pem"));
        output_of(openssl.arg("-out").arg(folder.join("chain.pem")), "openssl")?;
        let mut both = fs::read(folder.join("chain.pem"))?;
        both.extend(fs::read(folder.join("key.pem"))?);
        fs::write(folder.join("both.pem"), both)?;
        let port = free_port()?;
        let listen = (1..=ADDRESSES).fold(String::new(), |mut all, last| {
            let _ = write!(all, "listen 127.0.0.{last}:{port} backlog=4096; ");
            all
        });
        let block = http(folder, "origin", &format!("server {{ {listen} root {}; }}", www.display()))?;
        let origin = nginx(folder, "origin", port, None, &block)?;
        Ok(Bench { folder: folder.to_owned(), origin, processor })
    }

    /// The origin itself, past all proxies.
    pub fn origin(&self) -> &Proxy {
        &self.origin
    }

    /// nginx's `upstream` blocks have these targets: so many addresses, from the given one on.
    fn upstream(&self, targets: u8, from: u64) -> String {
        (0..u64::from(targets)).fold(String::new(), |mut all, number| {
            let last = (number + from) % u64::from(targets) + 1;
            let _ = write!(all, "server 127.0.0.{last}:{}; ", self.origin.port);
            all
        })
    }

    /// nginx with its targets in an order that begins at `from`: another configuration for each.
    fn nginx_blocks(&self, name: &str, port: u16, front: Front, targets: u8, from: u64) -> Result<String> {
        let (upstream, folder) = (self.upstream(targets, from), self.folder.display());
        let listen = format!("listen 127.0.0.1:{port} backlog=4096");
        let secure = format!(
            "{listen} ssl http2; ssl_certificate {folder}/chain.pem; ssl_certificate_key {folder}/key.pem;
             ssl_protocols TLSv1.3; http2_max_concurrent_streams 128;"
        );
        if front == Front::Tcp {
            return Ok(format!(
                "stream {{ upstream o {{ {upstream} }} server {{ {listen}; proxy_pass o; tcp_nodelay on; }} }}"
            ));
        }
        let listen = if front == Front::Https { secure } else { format!("{listen};") };
        let directives = format!(
            "upstream o {{ {upstream} keepalive 1024; keepalive_requests 1000000000; }}
             server {{ {listen} location / {{ proxy_pass http://o; proxy_http_version 1.1;
             proxy_set_header Connection \"\"; proxy_set_header Host $host;
             proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; }} }}"
        );
        http(&self.folder, name, &directives)
    }

    /// nginx as a reverse proxy.
    ///
    /// # Errors
    /// When it does not start.
    pub fn nginx(&self, name: &str, front: Front, targets: u8) -> Result<Proxy> {
        let port = free_port()?;
        let blocks = self.nginx_blocks(name, port, front, targets, 0)?;
        nginx(&self.folder, name, port, self.processor, &blocks)
    }

    /// Has nginx take up other targets, by its own means: a new configuration and a signal.
    ///
    /// # Errors
    /// When the file cannot be written, or nginx is gone.
    pub fn reload_nginx(&self, proxy: &Proxy, from: u64) -> Result<()> {
        let blocks = self.nginx_blocks(&proxy.name, proxy.port, Front::Http, ADDRESSES, from)?;
        let file = self.folder.join(proxy.name.replace(' ', "-")).join("nginx.conf");
        let text = fs::read_to_string(&file)?;
        let head = text.split("http {").next().unwrap_or_default();
        let whole = file.with_extension("new");
        fs::write(&whole, format!("{head}{blocks}"))?;
        fs::rename(whole, file)?;
        let master = nix::unistd::Pid::from_raw(proxy.pid().cast_signed());
        Ok(nix::sys::signal::kill(master, nix::sys::signal::Signal::SIGHUP)?)
    }

    /// HAProxy as a reverse proxy, with as many servers `s1`, `s2`… in the proxy `l`.
    ///
    /// # Errors
    /// When it does not start.
    pub fn haproxy(&self, name: &str, front: Front, targets: u8) -> Result<Proxy> {
        let port = free_port()?;
        let (mode, options) = match front {
            Front::Tcp => ("tcp", "option splice-auto"),
            _ => ("http", "option forwardfor\n http-reuse always"),
        };
        let secure = match front {
            Front::Https => {
                format!(" ssl crt {}/both.pem alpn h2,http/1.1 ssl-min-ver TLSv1.3", self.folder.display())
            }
            _ => String::new(),
        };
        let most = connections()?;
        let pool = if mode == "http" { " pool-max-conn 1024" } else { "" };
        let servers = (1..=targets).fold(String::new(), |mut all, last| {
            let _ = writeln!(all, " server s{last} 127.0.0.{last}:{}{pool}", self.origin.port);
            all
        });
        let text = format!(
            "global\n nbthread 1\n maxconn {}\n ulimit-n {most}\n no strict-limits\n stats socket {} level admin\ndefaults\n mode {mode}\n timeout connect 10s\n timeout client 600s\n timeout server 60s\n {options}\nlisten l\n bind 127.0.0.1:{port}{secure}\n{servers}",
            // Of the clients', most of which are idle where there are so many.
            most * 3 / 4,
            self.haproxy_socket(port).display(),
        );
        let file = self.folder.join(format!("haproxy-{port}.cfg"));
        fs::write(&file, text)?;
        begin(name, port, self.processor, Command::new("haproxy").arg("-db").arg("-f").arg(file))
    }

    /// Where the HAProxy on this port is told what to do.
    pub fn haproxy_socket(&self, port: u16) -> PathBuf {
        self.folder.join(format!("haproxy-{port}.sock"))
    }

    /// The balancer: `rules` that do not match before the one that does, and as many targets, each an address of the
    /// origin's.
    ///
    /// # Errors
    /// When it does not start.
    pub fn ours(&self, name: &str, front: Front, rules: u32, targets: u8) -> Result<Proxy> {
        let port = free_port()?;
        let mode = match front {
            Front::Http => "http",
            Front::Logged => "logged",
            Front::Https => "https",
            Front::Tcp => "tcp",
            Front::Churn => "churn",
        };
        let mut command = Command::new(std::env::current_exe()?);
        let numbers =
            [rules, targets.into(), port.into(), self.origin.port.into()].map(|number| number.to_string());
        command.args([SERVE, mode]).args(numbers).arg(&self.folder);
        begin(name, port, self.processor, &mut command)
    }

    /// What copies bytes and looks at none of them.
    ///
    /// # Errors
    /// When it does not start.
    pub fn copier(&self) -> Result<Proxy> {
        let port = free_port()?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args([COPY, &port.to_string(), &self.origin.port.to_string()]);
        begin("bare copier", port, self.processor, &mut command)
    }
}
