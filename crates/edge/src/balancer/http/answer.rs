//! Answers that are the balancer's own: errors, redirects, fixed responses.

use super::super::clock;
use std::fmt::Write as _;

/// An answer of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub content_type: String,
    pub location: Option<String>,
    pub body: String,
}

impl Answer {
    /// The page for an error.
    pub fn error(status: u16) -> Answer {
        let title = match reason(status) {
            "" => status.to_string(),
            reason => format!("{status} {reason}"),
        };
        let body = format!(
            "<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n<center><h1>{title}</h1></center>\r\n</body>\r\n</html>\r\n"
        );
        Answer { status, content_type: "text/html".to_owned(), location: None, body }
    }

    pub fn redirect(permanent: bool, location: String) -> Answer {
        let mut answer = Answer::error(if permanent { 301 } else { 302 });
        answer.location = Some(location);
        answer
    }

    /// Writes the answer; without its body to a HEAD request.
    pub fn write(&self, out: &mut Vec<u8>, keep: bool, body: bool, server: bool) {
        let mut head = String::with_capacity(256);
        let mut line = |text: std::fmt::Arguments<'_>| {
            head.write_fmt(text).expect("a string takes all that is written");
            head.push_str("\r\n");
        };
        line(format_args!("HTTP/1.1 {} {}", self.status, reason(self.status)));
        if server {
            line(format_args!("Server: awselb/2.0"));
        }
        line(format_args!("Date: {}", http_date(clock::now().as_millis() / 1000)));
        if !self.content_type.is_empty() {
            line(format_args!("Content-Type: {}", self.content_type));
        }
        line(format_args!("Content-Length: {}", self.body.len()));
        line(format_args!("Connection: {}", if keep { "keep-alive" } else { "close" }));
        if let Some(location) = &self.location {
            line(format_args!("Location: {location}"));
        }
        head.push_str("\r\n");
        out.extend_from_slice(head.as_bytes());
        if body {
            out.extend_from_slice(self.body.as_bytes());
        }
    }
}

/// A status's reason, as the balancer words it; empty for those without one.
pub fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        301 => "Moved Permanently",
        302 => "Found",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Time-out",
        413 => "Request Entity Too Large",
        414 => "Request-URI Too Large",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Temporarily Unavailable",
        504 => "Gateway Time-out",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}

/// Seconds since the epoch as `Sun, 06 Nov 1994 08:49:37 GMT`.
pub fn http_date(seconds: i64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    format!(
        "{}, {day:02} {} {year:04} {:02}:{:02}:{:02} GMT",
        DAYS[days.rem_euclid(7) as usize],
        MONTHS[month as usize - 1],
        second / 3600,
        second / 60 % 60,
        second % 60,
    )
}

/// The date of a day since the epoch, by the calendar's 400-year cycle counted from a first of March.
pub fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_read_as_http_has_them() {
        assert_eq!(http_date(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(http_date(0), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(http_date(951_782_400), "Tue, 29 Feb 2000 00:00:00 GMT");
    }

    #[test]
    fn an_error_has_its_page_and_head_requests_have_none() {
        let mut out = Vec::new();
        Answer::error(503).write(&mut out, true, false, true);
        let text = String::from_utf8_lossy(&out);
        assert!(
            text.starts_with("HTTP/1.1 503 Service Temporarily Unavailable\r\nServer: awselb/2.0\r\n"),
            "{text}"
        );
        assert!(text.ends_with("Content-Length: 162\r\nConnection: keep-alive\r\n\r\n"), "{text}");
    }
}
