//! What generated code is made of: structures with member tables, string enums, operations, services.

use crate::field::Field;
use crate::limits::Limits;
use std::fmt::Debug;

/// One member of a structure.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    /// The name in the model, and in JSON.
    pub name: &'static str,
    /// The name in a form.
    pub form: &'static str,
    /// The name of its element in XML.
    pub xml: &'static str,
    /// A request without it is refused before a handler sees it.
    pub required: bool,
    /// What a request's value must satisfy.
    pub limits: Option<&'static Limits>,
}

/// A shape with named members; generated types implement it through [`crate::structure!`].
pub trait Structure: Debug {
    /// The shape's name in the model.
    fn name(&self) -> &'static str;
    fn members(&self) -> &'static [Member];
    /// The member at this place of the table. Panics beyond its end.
    fn field(&self, index: usize) -> &dyn Field;
    fn field_mut(&mut self, index: usize) -> &mut dyn Field;
}

/// How a service's messages look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// `X-Amz-Target` and a JSON body; the version of the content type.
    AwsJson(&'static str),
    /// `Action` and `Version` in a form, XML back.
    AwsQuery,
    /// The same with EC2's habits: flat lists, no wrapper around the result, errors of its own form.
    Ec2Query,
}

/// An operation and its two shapes, at the type level.
pub trait Operation {
    type Request: Structure + Default + Send + 'static;
    type Response: Structure + Default + Send + 'static;
    const NAME: &'static str;
}

/// An operation as the model tells it.
#[derive(Clone, Copy, Debug)]
pub struct OperationModel {
    pub name: &'static str,
    /// The element that wraps the response in awsQuery.
    pub result_wrapper: Option<&'static str>,
    /// The exceptions that it may answer.
    pub errors: &'static [&'static str],
}

/// A service as the model tells it.
#[derive(Clone, Copy, Debug)]
pub struct ServiceModel {
    /// Gantry's short name for it, which is botocore's.
    pub name: &'static str,
    pub protocol: Protocol,
    pub api_version: &'static str,
    /// What stands before the dot in `X-Amz-Target`; empty for awsQuery.
    pub target_prefix: &'static str,
    /// The service name in SigV4 credential scopes.
    pub signing_name: &'static str,
    pub xml_namespace: &'static str,
    /// Every operation of the model, served or not.
    pub operations: &'static [OperationModel],
}

impl ServiceModel {
    pub fn operation(&self, name: &str) -> Option<&'static OperationModel> {
        self.operations.iter().find(|operation| operation.name == name)
    }
}

/// The first of some expressions.
#[doc(hidden)]
#[macro_export]
macro_rules! first {
    ($first:expr $(, $rest:expr)*) => {
        $first
    };
}

/// Defines a structure: a plain struct, its member table, and its place in the codecs. After a member's name may come
/// its names `as` in forms and XML, after its type `=` its limits.
#[macro_export]
macro_rules! structure {
    ($name:ident { $($field:ident $wire:literal $(as $form:literal $xml:literal)? $required:literal $ty:ty $(= $limits:path)?,)* }) => {
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct $name { $(pub $field: $ty,)* }

        impl $crate::Structure for $name {
            fn name(&self) -> &'static str {
                stringify!($name)
            }

            fn members(&self) -> &'static [$crate::Member] {
                static MEMBERS: &[$crate::Member] = &[$($crate::Member {
                    name: $wire,
                    form: $crate::first!($($form,)? $wire),
                    xml: $crate::first!($($xml,)? $wire),
                    required: $required,
                    limits: $crate::first!($(Some(&$limits),)? None),
                },)*];
                MEMBERS
            }

            #[allow(unused_assignments, unused_mut)]
            fn field(&self, index: usize) -> &dyn $crate::Field {
                let mut at = 0;
                $(if at == index { return &self.$field; } at += 1;)*
                panic!("{} has no member {index}", stringify!($name))
            }

            #[allow(unused_assignments, unused_mut)]
            fn field_mut(&mut self, index: usize) -> &mut dyn $crate::Field {
                let mut at = 0;
                $(if at == index { return &mut self.$field; } at += 1;)*
                panic!("{} has no member {index}", stringify!($name))
            }
        }

        impl $crate::Field for $name {
            fn read(&mut self, value: $crate::reading::Value, reading: &mut $crate::reading::Reading) -> Result<(), $crate::reading::Violation> {
                $crate::reading::read_structure(self, value, reading)
            }

            fn write(&self, writer: &mut dyn $crate::Writer) {
                writer.structure(self);
            }
        }
    };
}

/// Defines a string enum of the model. The default is the first value, for required members before they are read.
#[macro_export]
macro_rules! string_enum {
    ($name:ident { $first:ident $first_wire:literal, $($variant:ident $wire:literal,)* }) => {
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { #[default] $first, $($variant,)* }

        impl $name {
            pub const ALL: &'static [$name] = &[$name::$first, $($name::$variant,)*];

            pub fn as_str(self) -> &'static str {
                match self { $name::$first => $first_wire, $($name::$variant => $wire,)* }
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::field::UnknownValue;

            fn from_str(text: &str) -> Result<$name, $crate::field::UnknownValue> {
                match text { $first_wire => Ok($name::$first), $($wire => Ok($name::$variant),)* _ => Err($crate::field::UnknownValue) }
            }
        }

        impl $crate::Field for $name {
            fn read(&mut self, value: $crate::reading::Value, reading: &mut $crate::reading::Reading) -> Result<(), $crate::reading::Violation> {
                let text = $crate::field::text(value, reading)?;
                *self = text.parse().map_err(|_| reading.not_one_of(&text, &[$first_wire, $($wire,)*]))?;
                Ok(())
            }

            fn write(&self, writer: &mut dyn $crate::Writer) {
                writer.text(self.as_str());
            }
        }
    };
}
