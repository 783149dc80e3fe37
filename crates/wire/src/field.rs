//! Values of members: how each type is read from a decoded body and written to any protocol's writer.

use crate::limits::Limits;
use crate::reading::{Reading, SHOWN_MAX, Step, Value, Violation, shown};
use crate::shape::Structure;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::collections::BTreeMap;
use std::fmt;

/// Text that is none of an enum's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownValue;

/// A type that a member may have.
pub trait Field: fmt::Debug {
    /// # Errors
    /// When the value does not fit.
    fn read(&mut self, value: Value, reading: &mut Reading) -> Result<(), Violation>;
    fn write(&self, writer: &mut dyn Writer);

    /// Whether there is nothing to write.
    fn is_absent(&self) -> bool {
        false
    }

    /// Holds the value to the limits of its shape; `reading` collects what it does not satisfy.
    fn check(&self, _limits: &Limits, _reading: &mut Reading) {}

    /// The value as an error may show it.
    fn shown(&self) -> Option<String> {
        None
    }
}

/// A protocol's writer.
pub trait Writer {
    fn text(&mut self, text: &str);
    fn integer(&mut self, number: i64);
    fn float(&mut self, number: f64);
    fn boolean(&mut self, truth: bool);
    fn timestamp(&mut self, at: EpochMillis);
    fn blob(&mut self, bytes: &[u8]);
    fn structure(&mut self, structure: &dyn Structure);
    fn list(&mut self, items: &mut dyn Iterator<Item = &dyn Field>);
    fn map(&mut self, entries: &mut dyn Iterator<Item = (&str, &dyn Field)>);
}

/// A text value.
///
/// # Errors
/// For anything else.
pub fn text(value: Value, reading: &Reading) -> Result<String, Violation> {
    match value {
        Value::String(text) => Ok(text),
        _ => Err(reading.wrong("a string")),
    }
}

impl Field for String {
    fn read(&mut self, value: Value, reading: &mut Reading) -> Result<(), Violation> {
        *self = text(value, reading)?;
        Ok(())
    }

    fn write(&self, writer: &mut dyn Writer) {
        writer.text(self);
    }

    fn check(&self, limits: &Limits, reading: &mut Reading) {
        limits.text(self, || self.shown(), reading);
    }

    fn shown(&self) -> Option<String> {
        Some(shown(self))
    }
}

fn integer(value: &Value, reading: &Reading) -> Result<i64, Violation> {
    let number = match value {
        Value::Number(number) => number.as_i64(),
        Value::String(text) if reading.textual => text.parse().ok(),
        _ => None,
    };
    number.ok_or_else(|| reading.wrong("an integer"))
}

impl Field for i64 {
    fn read(&mut self, value: Value, reading: &mut Reading) -> Result<(), Violation> {
        *self = integer(&value, reading)?;
        Ok(())
    }

    fn write(&self, writer: &mut dyn Writer) {
        writer.integer(*self);
    }

    fn check(&self, limits: &Limits, reading: &mut Reading) {
        limits.number(*self as f64, || Some(self.to_string()), reading);
    }
}

impl Field for i32 {
    fn read(&mut self, value: Value, reading: &mut Reading) -> Result<(), Violation> {
        *self =
            i32::try_from(integer(&value, reading)?).map_err(|_| reading.wrong("an integer of 32 bits"))?;
        Ok(())
    }

    fn write(&self, writer: &mut dyn Writer) {
        writer.integer(i64::from(*self));
    }

    fn check(&self, limits: &Limits, reading: &mut Reading) {
        limits.number(f64::from(*self), || Some(self.to_string()), reading);
    }
}

fn float(value: &Value, reading: &Reading) -> Result<f64, Violation> {
    let number = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) if reading.textual => text.parse().ok(),
        _ => None,
    };
    number.filter(|number| number.is_finite()).ok_or_else(|| reading.wrong("a number"))
}

impl Field for f64 {
    fn read(&mut self, value: Value, reading: &mut Reading) -> Result<(), Violation> {
        *self = float(&value, reading)?;
        Ok(())
    }

    fn write(&self, writer: &mut dyn Writer) {
        writer.float(*self);
    }

    fn check(&self, limits: &Limits, reading: &mut Reading) {
        limits.number(*self, || Some(self.to_string()), reading);
    }
}

impl Field for bool {
    fn read(&mut self, value: Value, reading: &mut Reading) -> Result<(), Violation> {
        *self = match value {
            Value::Bool(truth) => truth,
            Value::String(text) if reading.textual && text == "true" => true,
            Value::String(text) if reading.textual && text == "false" => false,
            _ => return Err(reading.wrong("true or false")),
        };
        Ok(())
    }

    fn write(&self, writer: &mut dyn Writer) {
        writer.boolean(*self);
    }
}

/// An instant in milliseconds since the Unix epoch; on the wire seconds with a fraction, or ISO 8601.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct EpochMillis(pub i64);

impl Field for EpochMillis {
    fn read(&mut self, value: Value, reading: &mut Reading) -> Result<(), Violation> {
        if let Value::String(text) = &value
            && reading.textual
            && let Some(at) = crate::xml::read_iso8601(text)
        {
            *self = at;
            return Ok(());
        }
        let seconds = float(&value, reading)?;
        // Beyond the year 9999 nobody means a time, and arithmetic stays far from overflow.
        if !(-62_135_596_800.0..=253_402_300_800.0).contains(&seconds) {
            return Err(reading.wrong("a time in seconds since 1970"));
        }
        self.0 = (seconds * 1000.0).round() as i64;
        Ok(())
    }

    fn write(&self, writer: &mut dyn Writer) {
        writer.timestamp(*self);
    }
}

/// Text that must not be seen: `Debug` hides it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    /// The text itself; the one way to it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[hidden]")
    }
}

impl Field for Secret {
    fn read(&mut self, value: Value, reading: &mut Reading) -> Result<(), Violation> {
        self.0.read(value, reading)
    }

    fn write(&self, writer: &mut dyn Writer) {
        writer.text(&self.0);
    }

    fn check(&self, limits: &Limits, reading: &mut Reading) {
        limits.text(&self.0, || None, reading);
    }
}

/// Bytes, base64 in every protocol served so far. They may be a key: `Debug` hides them.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Blob(Vec<u8>);

impl Blob {
    pub fn new(bytes: impl Into<Vec<u8>>) -> Blob {
        Blob(bytes.into())
    }

    /// The bytes themselves; the one way to them.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{} bytes]", self.0.len())
    }
}

impl Field for Blob {
    fn read(&mut self, value: Value, reading: &mut Reading) -> Result<(), Violation> {
        let decoded = STANDARD.decode(text(value, reading)?);
        self.0 = decoded.map_err(|_| reading.wrong("bytes in base64"))?;
        Ok(())
    }

    fn write(&self, writer: &mut dyn Writer) {
        writer.blob(&self.0);
    }

    fn check(&self, limits: &Limits, reading: &mut Reading) {
        limits.length(self.0.len(), || None, reading);
    }
}

impl<T: Field + Default> Field for Option<T> {
    fn read(&mut self, value: Value, reading: &mut Reading) -> Result<(), Violation> {
        let mut inner = T::default();
        inner.read(value, reading)?;
        *self = Some(inner);
        Ok(())
    }

    fn write(&self, writer: &mut dyn Writer) {
        if let Some(inner) = self {
            inner.write(writer);
        }
    }

    fn is_absent(&self) -> bool {
        self.is_none()
    }

    fn check(&self, limits: &Limits, reading: &mut Reading) {
        if let Some(inner) = self {
            inner.check(limits, reading);
        }
    }
}

impl<T: Field + Default> Field for Vec<T> {
    fn read(&mut self, value: Value, reading: &mut Reading) -> Result<(), Violation> {
        let items = match value {
            Value::Array(items) => items,
            Value::String(text) if reading.textual && text.is_empty() => Vec::new(),
            Value::Object(numbered) if reading.textual => {
                crate::query::list(numbered).ok_or_else(|| reading.wrong("a list numbered from 1"))?
            }
            _ => return Err(reading.wrong("a list")),
        };
        self.clear();
        self.reserve(items.len().min(1024));
        for (index, value) in items.into_iter().enumerate() {
            let mut item = T::default();
            reading.within(Step::Item(index), |reading| item.read(value, reading))?;
            self.push(item);
        }
        Ok(())
    }

    fn write(&self, writer: &mut dyn Writer) {
        writer.list(&mut self.iter().map(|item| item as &dyn Field));
    }

    fn check(&self, limits: &Limits, reading: &mut Reading) {
        let values = || self.iter().take(SHOWN_MAX).filter_map(|item| item.shown()).collect::<Vec<_>>();
        limits.length(self.len(), || Some(format!("[{}]", values().join(", "))), reading);
        limits.items(self.iter().map(|item| item as &dyn Field), reading);
    }
}

impl<T: Field + Default> Field for BTreeMap<String, T> {
    fn read(&mut self, value: Value, reading: &mut Reading) -> Result<(), Violation> {
        let Value::Object(entries) = value else { return Err(reading.wrong("a map")) };
        let entries = if reading.textual {
            crate::query::map(entries).ok_or_else(|| reading.wrong("a map of numbered entries"))?
        } else {
            entries
        };
        self.clear();
        for (key, value) in entries {
            let mut item = T::default();
            reading
                .within(Step::Key(key.chars().take(100).collect()), |reading| item.read(value, reading))?;
            self.insert(key, item);
        }
        Ok(())
    }

    fn write(&self, writer: &mut dyn Writer) {
        writer.map(&mut self.iter().map(|(key, item)| (key.as_str(), item as &dyn Field)));
    }

    fn check(&self, limits: &Limits, reading: &mut Reading) {
        limits.length(self.len(), || None, reading);
        for (key, item) in self {
            if let Some(limits) = limits.key {
                limits.text(key, || Some(shown(key)), reading);
            }
            if let Some(limits) = limits.item {
                reading.at_key(key, |reading| item.check(limits, reading));
            }
        }
    }
}
