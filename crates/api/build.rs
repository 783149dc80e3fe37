//! Turns `models/*.json` into Rust: one module per service, made of `structure!` and `string_enum!` calls.
//!
//! Nothing clever happens here: a shape is a table, and the code that uses the tables is in the wire crate.

use serde_json::{Map, Value};
use std::fmt::Write as _;
use std::path::Path;

const MODELS: &[&str] =
    &["acm", "acs", "autoscaling", "ec2", "ecs", "elbv2", "gantry", "logs", "ssm", "sts", "tcs"];

fn main() {
    let out = std::env::var("OUT_DIR").expect("cargo sets OUT_DIR");
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models");
    for name in MODELS {
        let path = models.join(format!("{name}.json"));
        println!("cargo::rerun-if-changed={}", path.display());
        let text =
            std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("reading {}: {e}", path.display()));
        let model: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let code = Generator::new(name, &model).run();
        std::fs::write(Path::new(&out).join(format!("{name}.rs")), code).expect("writing generated code");
    }
}

struct Generator<'a> {
    name: &'a str,
    service: &'a Value,
    operations: Map<String, Value>,
    shapes: &'a Map<String, Value>,
    out: String,
}

impl<'a> Generator<'a> {
    fn new(name: &'a str, model: &'a Value) -> Self {
        let shapes = model["shapes"].as_object().expect("a model has shapes");
        let operations = model["operations"].as_object().cloned().unwrap_or_default();
        Generator { name, service: &model["service"], operations, shapes, out: String::new() }
    }

    fn run(mut self) -> String {
        for (name, shape) in self.shapes {
            if shape["exception"] == true {
                continue;
            }
            match shape["type"].as_str() {
                Some("structure") => self.structure(name, shape),
                Some("string") if shape["enum"].is_array() => self.string_enum(name, shape),
                _ => {}
            }
        }
        self.limits();
        if !self.operations.is_empty() {
            self.operations_and_service();
        }
        self.out
    }

    fn structure(&mut self, name: &str, shape: &Value) {
        let required: Vec<&str> =
            shape["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let _ = writeln!(self.out, "gantry_wire::structure! {{ {name} {{");
        for (member, facts) in shape["members"].as_object().into_iter().flatten() {
            // What a stream of events may end with is an error like all others.
            if facts["shape"].as_str().is_some_and(|of| self.shapes[of]["exception"] == true) {
                continue;
            }
            let required = required.contains(&member.as_str());
            let of = facts["shape"].as_str().expect("a member has a shape");
            let inner = self.type_of(of);
            let ty = if required { inner } else { format!("Option<{inner}>") };
            let names = self
                .other_names(member, facts)
                .map_or(String::new(), |(form, xml)| format!(" as {form:?} {xml:?}"));
            let limits = if self.has_limits(of) { format!(" = limits::{of}") } else { String::new() };
            let _ = writeln!(self.out, "    {} {member:?}{names} {required} {ty}{limits},", snake(member));
        }
        self.out.push_str("} }\n");
    }

    /// A member's names in forms and in XML, where one is not its name in the model.
    fn other_names(&self, member: &str, facts: &Value) -> Option<(String, String)> {
        let xml = facts["locationName"].as_str().unwrap_or(member);
        let form = match (self.protocol(), facts["queryName"].as_str()) {
            ("query", _) => xml.to_owned(),
            ("ec2", Some(name)) => name.to_owned(),
            // EC2 shows names in lower case and takes them in upper case.
            ("ec2", None) if facts["locationName"].is_string() => capitalised(xml),
            ("ec2", None) => member.to_owned(),
            _ => return None,
        };
        (form != member || xml != member).then(|| (form, xml.to_owned()))
    }

    fn protocol(&self) -> &str {
        self.service["protocol"].as_str().unwrap_or_default()
    }

    /// What the model demands of values beyond their type, of each shape that it says something about.
    fn limits(&mut self) {
        let limited: Vec<&str> =
            self.shapes.keys().map(String::as_str).filter(|name| self.has_limits(name)).collect();
        self.out.push_str("/// What the model demands of values beyond their type.\n#[allow(non_upper_case_globals)]\npub mod limits {\n");
        for name in &limited {
            let shape = &self.shapes[*name];
            let bound = |key: &str| match shape[key].as_f64() {
                Some(bound) => format!("Some({bound:?})"),
                None => "None".to_owned(),
            };
            let pattern = shape["pattern"]
                .as_str()
                .map(|pattern| format!("Some(gantry_wire::Pattern::new({pattern:?}))"));
            let part = |key: &str| {
                let of = shape[key]["shape"].as_str().filter(|of| self.has_limits(of));
                of.map_or("None".to_owned(), |of| format!("Some(&{of})"))
            };
            let item = if shape["type"] == "map" { part("value") } else { part("member") };
            let _ = writeln!(
                self.out,
                "pub static {name}: gantry_wire::Limits = gantry_wire::Limits {{ min: {}, max: {}, pattern: {}, item: {item}, key: {} }};",
                bound("min"),
                bound("max"),
                pattern.unwrap_or("None".to_owned()),
                part("key"),
            );
        }
        let names: Vec<String> = limited.iter().map(|name| format!("({name:?}, &{name})")).collect();
        let _ = writeln!(
            self.out,
            "/// All of them by the names of their shapes.\npub static ALL: &[(&str, &gantry_wire::Limits)] = &[{}];\n}}",
            names.join(", ")
        );
    }

    /// Whether the model limits values of a shape or of what it is made of. Members of structures have limits of
    /// their own; enums are their own limit.
    fn has_limits(&self, name: &str) -> bool {
        let shape = &self.shapes[name];
        if shape["type"] == "structure" || shape["enum"].is_array() {
            return false;
        }
        ["min", "max", "pattern"].iter().any(|key| !shape[*key].is_null())
            || ["member", "key", "value"]
                .iter()
                .filter_map(|part| shape[*part]["shape"].as_str())
                .any(|part| self.has_limits(part))
    }

    fn string_enum(&mut self, name: &str, shape: &Value) {
        let _ = write!(self.out, "gantry_wire::string_enum! {{ {name} {{ ");
        for value in shape["enum"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            let _ = write!(self.out, "{} {value:?}, ", camel(value));
        }
        self.out.push_str("} }\n");
    }

    fn type_of(&self, name: &str) -> String {
        let shape = &self.shapes[name];
        let element =
            |part: &str| self.type_of(shape[part]["shape"].as_str().expect("an element has a shape"));
        match shape["type"].as_str().expect("a shape has a type") {
            "structure" => name.to_owned(),
            "string" if shape["enum"].is_array() => name.to_owned(),
            "string" if shape["sensitive"] == true => "gantry_wire::Secret".to_owned(),
            "string" => "String".to_owned(),
            "blob" => "gantry_wire::Blob".to_owned(),
            "integer" => "i32".to_owned(),
            "long" => "i64".to_owned(),
            "double" | "float" => "f64".to_owned(),
            "boolean" => "bool".to_owned(),
            "timestamp" => "gantry_wire::EpochMillis".to_owned(),
            "list" => format!("Vec<{}>", element("member")),
            "map" => format!("std::collections::BTreeMap<String, {}>", element("value")),
            other => {
                panic!("{}: the shape {name} has the type {other}, which no writer knows yet", self.name)
            }
        }
    }

    fn operations_and_service(&mut self) {
        let operations = std::mem::take(&mut self.operations);
        for (name, operation) in &operations {
            let side = |key: &str, fallback: &str| match operation[key].as_str() {
                Some(shape) => (shape.to_owned(), false),
                None => (format!("{name}{fallback}"), true),
            };
            let ((request, no_input), (response, no_output)) =
                (side("input", "Request"), side("output", "Response"));
            for (shape, missing) in [(&request, no_input), (&response, no_output)] {
                if missing {
                    let _ = writeln!(self.out, "gantry_wire::structure! {{ {shape} {{ }} }}");
                }
            }
            let _ = writeln!(
                self.out,
                "#[derive(Debug)] pub enum {name} {{}}\nimpl gantry_wire::Operation for {name} {{ type Request = {request}; \
                 type Response = {response}; const NAME: &'static str = {name:?}; }}"
            );
        }
        let text = |key: &str| self.service[key].as_str().unwrap_or_default();
        let protocol = match text("protocol") {
            "json" => format!("gantry_wire::Protocol::AwsJson({:?})", text("jsonVersion")),
            "query" => "gantry_wire::Protocol::AwsQuery".to_owned(),
            "ec2" => "gantry_wire::Protocol::Ec2Query".to_owned(),
            other => panic!("{}: the protocol {other} is not spoken yet", self.name),
        };
        let mut code = format!(
            "/// The service as its model tells it.\npub static SERVICE: &gantry_wire::ServiceModel = &gantry_wire::ServiceModel {{\n\
             name: {:?}, protocol: {protocol}, api_version: {:?}, target_prefix: {:?}, signing_name: {:?}, xml_namespace: {:?},\n\
             operations: &[\n",
            self.name,
            text("apiVersion"),
            text("targetPrefix"),
            text("signingName"),
            text("xmlNamespace"),
        );
        for (name, operation) in &operations {
            let wrapper =
                operation["resultWrapper"].as_str().map_or("None".to_owned(), |w| format!("Some({w:?})"));
            let errors: Vec<&str> =
                operation["errors"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            let _ = writeln!(
                code,
                "gantry_wire::OperationModel {{ name: {name:?}, result_wrapper: {wrapper}, errors: &{errors:?} }},"
            );
        }
        code.push_str("] };\n");
        // For tools that go by names, as tests do.
        code.push_str(
            "/// An empty request and an empty response of an operation.\n\
             pub fn shapes(operation: &str) -> Option<(Box<dyn gantry_wire::Structure + Send>, Box<dyn gantry_wire::Structure + Send>)> {\n\
             fn both<O: gantry_wire::Operation>() -> (Box<dyn gantry_wire::Structure + Send>, Box<dyn gantry_wire::Structure + Send>) {\n\
             (Box::new(O::Request::default()), Box::new(O::Response::default())) }\nmatch operation {\n",
        );
        for name in operations.keys() {
            let _ = writeln!(code, "{name:?} => Some(both::<{name}>()),");
        }
        code.push_str("_ => None,\n} }\n");
        self.out.push_str(&code);
    }
}

/// `enableECSManagedTags` as `enable_ecs_managed_tags`; Rust's own words get an underscore.
fn snake(name: &str) -> String {
    let letters: Vec<char> = name.chars().collect();
    let mut out = String::new();
    for (index, letter) in letters.iter().enumerate() {
        let after_lower = index > 0 && !letters[index - 1].is_uppercase();
        let before_lower = letters.get(index + 1).is_some_and(|next| next.is_lowercase());
        if letter.is_uppercase() && index > 0 && (after_lower || before_lower) {
            out.push('_');
        }
        out.extend(letter.to_lowercase());
    }
    if matches!(out.as_str(), "type" | "ref" | "match" | "move" | "in" | "return" | "self") {
        format!("{out}_")
    } else {
        out
    }
}

/// `tagSet` as `TagSet`.
fn capitalised(name: &str) -> String {
    let mut letters = name.chars();
    letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters).collect()
}

/// `TASK_DEFINITION`, `awsvpc` and `TaskFailedToStart` as variants; a digit at the front gets a letter before it.
fn camel(value: &str) -> String {
    let mut out = String::new();
    for word in value.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()) {
        let shouted = !word.chars().any(|c| c.is_ascii_lowercase());
        let mut letters = word.chars();
        out.extend(letters.next().map(|c| c.to_ascii_uppercase()));
        out.extend(letters.map(|c| if shouted { c.to_ascii_lowercase() } else { c }));
    }
    if out.starts_with(|c: char| c.is_ascii_digit()) { format!("V{out}") } else { out }
}
