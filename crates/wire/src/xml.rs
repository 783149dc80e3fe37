//! awsQuery and ec2Query responses: a structure as XML elements, lists as `member`s or `item`s, maps as `entry`s.

use crate::error::{ApiError, ErrorField};
use crate::field::{EpochMillis, Field, Writer};
use crate::shape::{OperationModel, ServiceModel, Structure};
use std::fmt::Write as _;

/// An operation's response document.
pub fn response(
    service: &ServiceModel,
    operation: &OperationModel,
    response: &dyn Structure,
    request_id: &str,
) -> Vec<u8> {
    let (name, namespace) = (operation.name, service.xml_namespace);
    let mut writer = XmlWriter::new("member", format!("<{name}Response xmlns=\"{namespace}\">"));
    match operation.result_wrapper {
        Some(wrapper) => writer.element(wrapper, |writer| writer.structure(response)),
        None => writer.structure(response),
    }
    writer
        .element("ResponseMetadata", |writer| writer.element("RequestId", |writer| writer.text(request_id)));
    let _ = write!(writer.out, "</{name}Response>");
    writer.out.into_bytes()
}

/// An operation's response document as EC2 writes it.
pub fn ec2_response(
    service: &ServiceModel,
    operation: &OperationModel,
    response: &dyn Structure,
    request_id: &str,
) -> Vec<u8> {
    let (name, namespace) = (operation.name, service.xml_namespace);
    let mut writer = XmlWriter::new("item", format!("<{name}Response xmlns=\"{namespace}\">"));
    writer.element("requestId", |writer| writer.text(request_id));
    if response.members().is_empty() {
        // What EC2 answers where there is nothing to tell.
        writer.element("return", |writer| writer.boolean(true));
    }
    writer.structure(response);
    let _ = write!(writer.out, "</{name}Response>");
    writer.out.into_bytes()
}

/// An error document.
pub fn error(namespace: &str, error: &ApiError, request_id: &str) -> Vec<u8> {
    let mut writer = XmlWriter::new("member", format!("<ErrorResponse xmlns=\"{namespace}\">"));
    writer.element("Error", |writer| {
        writer.element("Type", |writer| writer.text(if error.status < 500 { "Sender" } else { "Receiver" }));
        writer.error(error);
    });
    writer.element("RequestId", |writer| writer.text(request_id));
    writer.out.push_str("</ErrorResponse>");
    writer.out.into_bytes()
}

/// An error document as EC2 writes it.
pub fn ec2_error(error: &ApiError, request_id: &str) -> Vec<u8> {
    let mut writer = XmlWriter::new("item", "<Response>".to_owned());
    writer.element("Errors", |writer| writer.element("Error", |writer| writer.error(error)));
    writer.element("RequestID", |writer| writer.text(request_id));
    writer.out.push_str("</Response>");
    writer.out.into_bytes()
}

struct XmlWriter {
    out: String,
    /// The element of a list's items.
    item: &'static str,
}

impl XmlWriter {
    fn new(item: &'static str, start: String) -> XmlWriter {
        XmlWriter { out: start, item }
    }

    fn element(&mut self, name: &str, content: impl FnOnce(&mut XmlWriter)) {
        let _ = write!(self.out, "<{name}>");
        content(self);
        let _ = write!(self.out, "</{name}>");
    }

    fn error(&mut self, error: &ApiError) {
        self.element("Code", |writer| writer.text(&error.code));
        self.element("Message", |writer| writer.text(&error.message));
        for (name, values) in &error.fields {
            self.element(name, |writer| match values {
                ErrorField::Text(text) => writer.text(text),
                ErrorField::Texts(texts) => writer.list(&mut texts.iter().map(|text| text as &dyn Field)),
            });
        }
    }
}

impl Writer for XmlWriter {
    fn text(&mut self, text: &str) {
        for character in text.chars() {
            match character {
                '&' => self.out.push_str("&amp;"),
                '<' => self.out.push_str("&lt;"),
                '>' => self.out.push_str("&gt;"),
                '\r' => self.out.push_str("&#xD;"),
                // XML 1.0 has no way to write these.
                '\0'..='\x08' | '\x0b' | '\x0c' | '\x0e'..='\x1f' | '\u{fffe}' | '\u{ffff}' => {
                    self.out.push('\u{fffd}')
                }
                other => self.out.push(other),
            }
        }
    }

    fn integer(&mut self, number: i64) {
        let _ = write!(self.out, "{number}");
    }

    fn float(&mut self, number: f64) {
        let _ = write!(self.out, "{number}");
    }

    fn boolean(&mut self, truth: bool) {
        let _ = write!(self.out, "{truth}");
    }

    fn timestamp(&mut self, at: EpochMillis) {
        self.out.push_str(&iso8601(at));
    }

    fn blob(&mut self, bytes: &[u8]) {
        use base64::Engine as _;
        self.out.push_str(&base64::engine::general_purpose::STANDARD.encode(bytes));
    }

    fn structure(&mut self, structure: &dyn Structure) {
        for (index, member) in structure.members().iter().enumerate() {
            let field = structure.field(index);
            if !field.is_absent() {
                self.element(member.xml, |writer| field.write(writer));
            }
        }
    }

    fn list(&mut self, items: &mut dyn Iterator<Item = &dyn Field>) {
        for item in items {
            self.element(self.item, |writer| item.write(writer));
        }
    }

    fn map(&mut self, entries: &mut dyn Iterator<Item = (&str, &dyn Field)>) {
        for (key, item) in entries {
            self.element("entry", |writer| {
                writer.element("key", |writer| writer.text(key));
                writer.element("value", |writer| item.write(writer));
            });
        }
    }
}

/// `2031-01-01T06:00:00.123Z`: UTC, with milliseconds only where there are some.
pub fn iso8601(at: EpochMillis) -> String {
    let (days, millis) = (at.0.div_euclid(86_400_000), at.0.rem_euclid(86_400_000));
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (millis / 3_600_000, millis / 60_000 % 60, millis / 1000 % 60);
    match millis % 1000 {
        0 => format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"),
        fraction => format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{fraction:03}Z"),
    }
}

/// Reads what [`iso8601`] writes, with any number of digits in the fraction. `None` for other forms and for dates
/// that do not exist.
pub fn read_iso8601(text: &str) -> Option<EpochMillis> {
    let (date, fraction) = match text.strip_suffix('Z')?.split_once('.') {
        Some((date, fraction)) => (date, fraction),
        None => (text.strip_suffix('Z')?, "0"),
    };
    let digits_only = fraction.len() <= 9 && fraction.bytes().all(|byte| byte.is_ascii_digit());
    let millis: i64 = Some(format!("{fraction:0<3}")).filter(|_| digits_only)?.get(..3)?.parse().ok()?;
    let form = |at: usize, c: char| matches!((at, c), (4 | 7, '-') | (10, 'T') | (13 | 16, ':'));
    let compact: String = date.char_indices().filter(|(at, c)| !form(*at, *c)).map(|(_, c)| c).collect();
    let stamp = format!("{}T{}Z", compact.get(..8)?, compact.get(8..)?);
    let second = crate::sigv4::Stamp::parse(&stamp).filter(|_| date.len() == 19)?;
    Some(EpochMillis(second.at().0 + millis))
}

/// The Gregorian date of a day counted from 1970-01-01, by eras of 400 years that begin in March.
pub(crate) fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_the_calendar_s() {
        for (millis, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400_000, "2000-02-29T00:00:00Z"),
            (1_924_992_000_250, "2031-01-01T00:00:00.250Z"),
            (-1000, "1969-12-31T23:59:59Z"),
        ] {
            assert_eq!(iso8601(EpochMillis(millis)), text);
            assert_eq!(read_iso8601(text), Some(EpochMillis(millis)));
        }
        for text in
            ["", "Z", "1970-01-01", "1970-02-30T00:00:00Z", "1970-01-01T00:00:00.xZ", "1970-01-01 00:00:00Z"]
        {
            assert_eq!(read_iso8601(text), None, "{text}");
        }
        assert_eq!(read_iso8601("1970-01-01T00:00:00.5Z"), Some(EpochMillis(500)));
    }

    #[test]
    fn an_error_s_further_members_are_written() {
        let mut conflict = ApiError::new("Conflict", "x");
        conflict.fields.push(("resourceIds".into(), ErrorField::Texts(vec!["a".to_owned(), "b".to_owned()])));
        let text = String::from_utf8_lossy(&error("urn:x", &conflict, "id-1")).into_owned();
        assert!(
            text.contains("<resourceIds><member>a</member><member>b</member></resourceIds></Error>"),
            "{text}"
        );
        let text = String::from_utf8_lossy(&ec2_error(&conflict, "id-1")).into_owned();
        let start =
            "<Response><Errors><Error><Code>Conflict</Code><Message>x</Message><resourceIds><item>a</item>";
        assert!(
            text.starts_with(start) && text.ends_with("<RequestID>id-1</RequestID></Response>"),
            "{text}"
        );
    }

    #[test]
    fn an_error_document_escapes_what_it_quotes() {
        let document = error("urn:x", &ApiError::new("Nope", "a < b & c\u{1}"), "id-1");
        let text = String::from_utf8_lossy(&document);
        assert!(text.contains("<Code>Nope</Code><Message>a &lt; b &amp; c\u{fffd}</Message>"), "{text}");
    }
}
