//! The driver `syslog`: sends a container's lines to a syslog server, in Docker's formats.

use super::address::{Address, Connection};
use super::assemble::Event;
use super::local::Receiver;
use crate::runtime::logs::Stream;
use std::io;
use tokio::io::AsyncWriteExt;

/// Bytes of one datagram: what fits into UDP over IPv4, and somewhat less. The rest of a longer line is left out.
const DATAGRAM_MAX: usize = 65_000;
const SEVERITY_ERROR: u8 = 3;
const SEVERITY_INFO: u8 = 6;
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// How a line is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Without the host's name: Docker's for a logger on the same machine, and its default.
    Unix,
    Rfc3164,
    Rfc5424,
    Rfc5424Micro,
}

/// The options of the driver `syslog`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Syslog {
    pub address: Address,
    /// 0 to 23.
    pub facility: u8,
    pub format: Format,
    pub tag: String,
}

pub struct SyslogReceiver {
    to: Syslog,
    hostname: String,
    connection: Option<Connection>,
}

impl SyslogReceiver {
    pub fn new(to: Syslog) -> SyslogReceiver {
        let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let hostname = hostname.split_whitespace().next().unwrap_or("localhost").to_owned();
        SyslogReceiver { to, hostname, connection: None }
    }
}

impl Receiver for SyslogReceiver {
    async fn transmit(&mut self, events: &[Event]) -> io::Result<()> {
        if self.connection.is_none() {
            self.connection = Some(self.to.address.connect().await?);
        }
        let Some(connection) = &mut self.connection else { return Ok(()) };
        match connection {
            Connection::Stream(stream) => {
                let lines: String =
                    events.iter().map(|event| line(&self.to, &self.hostname, event) + "\n").collect();
                stream.write_all(lines.as_bytes()).await?;
                stream.flush().await
            }
            Connection::Udp(socket) => {
                for event in events {
                    socket.send(datagram(&line(&self.to, &self.hostname, event))).await?;
                }
                Ok(())
            }
            Connection::UnixDatagram(socket) => {
                for event in events {
                    socket.send(datagram(&line(&self.to, &self.hostname, event))).await?;
                }
                Ok(())
            }
        }
    }

    fn hang_up(&mut self) {
        self.connection = None;
    }
}

fn datagram(line: &str) -> &[u8] {
    &line.as_bytes()[..line.floor_char_boundary(DATAGRAM_MAX)]
}

fn line(to: &Syslog, hostname: &str, event: &Event) -> String {
    let severity = if event.stream == Stream::Stderr { SEVERITY_ERROR } else { SEVERITY_INFO };
    let priority = to.facility * 8 + severity;
    let (tag, process, message) = (&to.tag, std::process::id(), &event.message);
    let Date { year, month, day, hour, minute, second, milli } = Date::of(event.at);
    let stamp = || {
        let month = MONTHS.get(month - 1).copied().unwrap_or_default();
        format!("{month} {day:2} {hour:02}:{minute:02}:{second:02}")
    };
    let long = || format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
    match to.format {
        Format::Unix => format!("<{priority}>{} {tag}[{process}]: {message}", stamp()),
        Format::Rfc3164 => format!("<{priority}>{} {hostname} {tag}[{process}]: {message}", stamp()),
        Format::Rfc5424 => format!("<{priority}>1 {}Z {hostname} {tag} {process} {tag} - {message}", long()),
        Format::Rfc5424Micro => {
            format!("<{priority}>1 {}.{milli:03}000Z {hostname} {tag} {process} {tag} - {message}", long())
        }
    }
}

/// A time of day in UTC.
#[derive(Debug, PartialEq, Eq)]
struct Date {
    year: i64,
    /// From 1, as days.
    month: usize,
    day: i64,
    hour: i64,
    minute: i64,
    second: i64,
    milli: i64,
}

impl Date {
    /// Of milliseconds since 1970.
    fn of(millis: i64) -> Date {
        let (days, rest) = (millis.div_euclid(86_400_000), millis.rem_euclid(86_400_000));
        // Years begin in March here, so that the leap day is the last; an era has 400 of them.
        let day = days + 719_468;
        let (era, of_era) = (day.div_euclid(146_097), day.rem_euclid(146_097));
        let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let march_month = (5 * of_year + 2) / 153;
        let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
        Date {
            year: year_of_era + era * 400 + i64::from(month <= 2),
            month: usize::try_from(month).unwrap_or(1),
            day: of_year - (153 * march_month + 2) / 5 + 1,
            hour: rest / 3_600_000,
            minute: rest / 60_000 % 60,
            second: rest / 1000 % 60,
            milli: rest % 1000,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tokio::io::AsyncReadExt;
    use tokio::net::{TcpListener, UdpSocket};

    const AT: i64 = 1_795_248_005_678;

    fn event(stream: Stream, message: &str) -> Event {
        Event { at: AT, stream, message: message.to_owned() }
    }

    fn to(address: &str, format: Format) -> Syslog {
        Syslog { address: Address::read(address, 514).unwrap(), facility: 3, format, tag: "web".to_owned() }
    }

    #[test]
    fn lines_have_dockers_formats() {
        let process = std::process::id();
        let show = |format, stream| line(&to("udp://h", format), "host", &event(stream, "hello"));
        assert_eq!(show(Format::Unix, Stream::Stdout), format!("<30>Nov 21 08:00:05 web[{process}]: hello"));
        assert_eq!(
            show(Format::Rfc3164, Stream::Stderr),
            format!("<27>Nov 21 08:00:05 host web[{process}]: hello")
        );
        assert_eq!(
            show(Format::Rfc5424, Stream::Stdout),
            format!("<30>1 2026-11-21T08:00:05Z host web {process} web - hello")
        );
        assert_eq!(
            show(Format::Rfc5424Micro, Stream::Stdout),
            format!("<30>1 2026-11-21T08:00:05.678000Z host web {process} web - hello")
        );
    }

    #[test]
    fn dates_are_right_around_leap_days() {
        let date = |millis| {
            let Date { year, month, day, .. } = Date::of(millis);
            (year, month, day)
        };
        assert_eq!(date(0), (1970, 1, 1));
        assert_eq!(date(951_782_400_000), (2000, 2, 29));
        assert_eq!(date(951_868_800_000), (2000, 3, 1));
        assert_eq!(date(1_735_603_200_000), (2024, 12, 31));
        assert_eq!(date(4_107_542_400_000), (2100, 3, 1));
    }

    #[tokio::test]
    async fn lines_arrive_by_datagram_and_stream() {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = format!("udp://{}", socket.local_addr().unwrap());
        let mut receiver = SyslogReceiver::new(to(&address, Format::Unix));
        receiver.transmit(&[event(Stream::Stdout, "one"), event(Stream::Stdout, "two")]).await.unwrap();
        let mut buffer = [0; 200];
        for wanted in ["one", "two"] {
            let length = socket.recv(&mut buffer).await.unwrap();
            assert!(String::from_utf8_lossy(&buffer[..length]).ends_with(wanted));
        }

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("tcp://{}", listener.local_addr().unwrap());
        let mut receiver = SyslogReceiver::new(to(&address, Format::Rfc5424));
        let events = [event(Stream::Stdout, "three"), event(Stream::Stderr, "four")];
        receiver.transmit(&events).await.unwrap();
        drop(receiver);
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].ends_with("three") && lines[1].ends_with("four") && lines.len() == 2, "{text}");
    }
}
