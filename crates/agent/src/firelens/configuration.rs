//! The router's configuration, as text: where it takes records from, what it adds to them, and where they go. Sections
//! and their order are the stock agent's, so that what users wrote for ECS finds what it refers to.

use std::collections::BTreeMap;
use std::fmt::Write;

/// Where the router's own programs and the agent meet, in the router's container.
pub const SOCKET: &str = "/var/run/fluent.sock";
/// Where containers that log by themselves find the router: FireLens's documented port.
pub const PORT: u16 = 24_224;
/// Where Fluent Bit is asked whether it is well: the port that ECS documents for health checks of routers.
const HEALTH_PORT: u16 = 8877;
const HEALTH_TAG: &str = "firelens-healthcheck";

/// The options of a container that say something else than a setting of its output.
const INCLUDE: &str = "include-pattern";
const EXCLUDE: &str = "exclude-pattern";
const BUFFER_LIMIT: &str = "log-driver-buffer-limit";

/// The program that routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    Fluentd,
    FluentBit,
}

impl Program {
    /// Where its images read their configuration.
    pub fn path(self) -> &'static str {
        match self {
            Program::Fluentd => "/fluentd/etc/fluent.conf",
            Program::FluentBit => "/fluent-bit/etc/fluent-bit.conf",
        }
    }

    /// The option of a container that names the plugin of its output.
    fn output(self) -> &'static str {
        match self {
            Program::Fluentd => "@type",
            Program::FluentBit => "Name",
        }
    }

    /// The value of a variable of its environment.
    pub fn of_variable(self, name: &str) -> String {
        match self {
            Program::Fluentd => format!("\"#{{ENV['{name}']}}\""),
            Program::FluentBit => format!("${{{name}}}"),
        }
    }

    /// Matches every tag, or every one that begins with what stands before.
    fn any(self) -> &'static str {
        match self {
            Program::Fluentd => "**",
            Program::FluentBit => "*",
        }
    }
}

/// What a router is configured from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configuration<'a> {
    pub program: Program,
    /// The address that it listens at for containers that log by themselves; none in the host's network.
    pub listen: Option<&'a str>,
    /// What is added to each record, in this order.
    pub metadata: Vec<(&'static str, String)>,
    /// A configuration file of the router's image.
    pub include: Option<&'a str>,
    /// Log options of the containers whose output it routes.
    pub containers: BTreeMap<&'a str, BTreeMap<String, String>>,
}

/// Why there is no configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigurationError {
    #[error("missing output key {key} which is required for firelens configuration of type {kind}")]
    NoOutput { key: &'static str, kind: &'static str },
    #[error(
        "log option {0} of a firelens container has a line break, which could say anything to the router"
    )]
    LineBreak(String),
}

impl Configuration<'_> {
    /// # Errors
    /// For containers with options but without an output, and for values that are more than one line.
    pub fn text(&self) -> Result<String, ConfigurationError> {
        let one_line =
            |(name, value): (&String, &String)| !name.contains(['\n', '\r']) && !value.contains(['\n', '\r']);
        let mut options = self.containers.values().flat_map(|options| options.iter());
        if let Some((name, _)) = options.find(|option| !one_line(*option)) {
            return Err(ConfigurationError::LineBreak(name.escape_default().take(64).collect()));
        }
        if self.include.is_some_and(|path| path.contains(['\n', '\r'])) {
            return Err(ConfigurationError::LineBreak("config-file-value".to_owned()));
        }
        match self.program {
            Program::FluentBit => self.fluent_bit(),
            Program::Fluentd => self.fluentd(),
        }
    }

    fn fluent_bit(&self) -> Result<String, ConfigurationError> {
        let mut text = String::new();
        let mut section = |kind: &str, pairs: &[(&str, &str)]| {
            let _ = writeln!(text, "[{kind}]");
            for (name, value) in pairs {
                let _ = writeln!(text, "    {name} {value}");
            }
            text.push('\n');
        };
        section("INPUT", &[("Name", "forward"), ("unix_path", SOCKET)]);
        if let Some(listen) = self.listen {
            section("INPUT", &[("Name", "forward"), ("Listen", listen), ("Port", &PORT.to_string())]);
            let port = HEALTH_PORT.to_string();
            section(
                "INPUT",
                &[("Name", "tcp"), ("Tag", HEALTH_TAG), ("Listen", "127.0.0.1"), ("Port", &port)],
            );
        }
        for (container, options) in &self.containers {
            let tag = self.matches(container);
            for (option, verb) in [(INCLUDE, "Regex"), (EXCLUDE, "Exclude")] {
                if let Some(pattern) = options.get(option) {
                    let rule = format!("log {pattern}");
                    section("FILTER", &[("Name", "grep"), ("Match", &tag), (verb, &rule)]);
                }
            }
        }
        if !self.metadata.is_empty() {
            let records: Vec<String> =
                self.metadata.iter().map(|(name, value)| format!("{name} {value}")).collect();
            let mut pairs = vec![("Name", "record_modifier"), ("Match", "*")];
            pairs.extend(records.iter().map(|record| ("Record", record.as_str())));
            section("FILTER", &pairs);
        }
        if let Some(path) = self.include {
            let _ = writeln!(text, "@INCLUDE {path}\n");
        }
        let mut section = |pairs: &[(&str, &str)]| {
            text.push_str("[OUTPUT]\n");
            for (name, value) in pairs {
                let _ = writeln!(text, "    {name} {value}");
            }
            text.push('\n');
        };
        if self.listen.is_some() {
            section(&[("Name", "null"), ("Match", HEALTH_TAG)]);
        }
        for (container, options) in &self.containers {
            if let Some((output, settings)) = self.output(options)? {
                let tag = self.matches(container);
                let mut pairs = vec![("Name", output), ("Match", tag.as_str())];
                pairs.extend(settings);
                section(&pairs);
            }
        }
        Ok(text)
    }

    fn fluentd(&self) -> Result<String, ConfigurationError> {
        let mut text = format!("<source>\n    @type unix\n    path {SOCKET}\n</source>\n\n");
        if let Some(listen) = self.listen {
            let _ = writeln!(
                text,
                "<source>\n    @type forward\n    bind {listen}\n    port {PORT}\n</source>\n"
            );
        }
        for (container, options) in &self.containers {
            let tag = self.matches(container);
            for (option, part) in [(INCLUDE, "regexp"), (EXCLUDE, "exclude")] {
                if let Some(pattern) = options.get(option) {
                    let _ = writeln!(
                        text,
                        "<filter {tag}>\n    @type grep\n    <{part}>\n        key log\n        pattern {pattern}\n    </{part}>\n</filter>\n"
                    );
                }
            }
        }
        if !self.metadata.is_empty() {
            text.push_str("<filter **>\n    @type record_transformer\n    <record>\n");
            for (name, value) in &self.metadata {
                let _ = writeln!(text, "        {name} {value}");
            }
            text.push_str("    </record>\n</filter>\n\n");
        }
        if let Some(path) = self.include {
            let _ = writeln!(text, "@include {path}\n");
        }
        for (container, options) in &self.containers {
            if let Some((output, settings)) = self.output(options)? {
                let _ = writeln!(text, "<match {}>\n    @type {output}", self.matches(container));
                for (name, value) in settings {
                    let _ = writeln!(text, "    {name} {value}");
                }
                text.push_str("</match>\n\n");
            }
        }
        Ok(text)
    }

    /// The tags of a container's records, whichever task's they are.
    fn matches(&self, container: &str) -> String {
        format!("{container}-firelens{}", self.program.any())
    }

    /// A container's output and its settings. None without options: the router's own configuration has one then.
    #[expect(clippy::type_complexity, reason = "a name and its pairs")]
    fn output<'o>(
        &self,
        options: &'o BTreeMap<String, String>,
    ) -> Result<Option<(&'o str, Vec<(&'o str, &'o str)>)>, ConfigurationError> {
        let key = self.program.output();
        let special = [key, INCLUDE, EXCLUDE, BUFFER_LIMIT];
        let settings: Vec<_> = options
            .iter()
            .filter(|(name, _)| !special.contains(&name.as_str()))
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        match options.get(key) {
            Some(output) => Ok(Some((output, settings))),
            None if settings.is_empty() => Ok(None),
            None => {
                let kind = match self.program {
                    Program::Fluentd => "fluentd",
                    Program::FluentBit => "fluentbit",
                };
                Err(ConfigurationError::NoOutput { key, kind })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn metadata() -> Vec<(&'static str, String)> {
        vec![
            ("ecs_cluster", "shop".to_owned()),
            ("ecs_task_arn", "arn:t".to_owned()),
            ("ecs_task_definition", "web:3".to_owned()),
        ]
    }

    #[test]
    fn fluent_bit_is_told_its_sections() {
        let app = options(&[
            ("Name", "http"),
            ("Host", "logs.example"),
            ("exclude-pattern", "^debug"),
            ("log-driver-buffer-limit", "2097152"),
        ]);
        let none = options(&[]);
        let configuration = Configuration {
            program: Program::FluentBit,
            listen: Some("127.0.0.1"),
            metadata: metadata(),
            include: Some("/extra.conf"),
            containers: BTreeMap::from([("app", app), ("quiet", none)]),
        };
        let expected = "\
[INPUT]
    Name forward
    unix_path /var/run/fluent.sock

[INPUT]
    Name forward
    Listen 127.0.0.1
    Port 24224

[INPUT]
    Name tcp
    Tag firelens-healthcheck
    Listen 127.0.0.1
    Port 8877

[FILTER]
    Name grep
    Match app-firelens*
    Exclude log ^debug

[FILTER]
    Name record_modifier
    Match *
    Record ecs_cluster shop
    Record ecs_task_arn arn:t
    Record ecs_task_definition web:3

@INCLUDE /extra.conf

[OUTPUT]
    Name null
    Match firelens-healthcheck

[OUTPUT]
    Name http
    Match app-firelens*
    Host logs.example

";
        assert_eq!(configuration.text().unwrap(), expected);
        let bare = Configuration { listen: None, metadata: Vec::new(), include: None, ..configuration };
        let text = bare.text().unwrap();
        assert!(
            !text.contains("24224") && !text.contains("record_modifier") && !text.contains("@INCLUDE"),
            "{text}"
        );
    }

    #[test]
    fn fluentd_is_told_the_same_in_its_own_words() {
        let app = options(&[("@type", "file"), ("path", "/logs/x"), ("include-pattern", "error")]);
        let configuration = Configuration {
            program: Program::Fluentd,
            listen: Some("0.0.0.0"),
            metadata: metadata(),
            include: None,
            containers: BTreeMap::from([("app", app)]),
        };
        let expected = "\
<source>
    @type unix
    path /var/run/fluent.sock
</source>

<source>
    @type forward
    bind 0.0.0.0
    port 24224
</source>

<filter app-firelens**>
    @type grep
    <regexp>
        key log
        pattern error
    </regexp>
</filter>

<filter **>
    @type record_transformer
    <record>
        ecs_cluster shop
        ecs_task_arn arn:t
        ecs_task_definition web:3
    </record>
</filter>

<match app-firelens**>
    @type file
    path /logs/x
</match>

";
        assert_eq!(configuration.text().unwrap(), expected);
    }

    #[test]
    fn secrets_are_left_to_the_router_s_variables() {
        assert_eq!(Program::FluentBit.of_variable("token_0"), "${token_0}");
        assert_eq!(Program::Fluentd.of_variable("token_0"), "\"#{ENV['token_0']}\"");
    }

    #[test]
    fn what_the_router_could_not_understand_is_refused() {
        let text = |program, pairs: &[(&str, &str)]| {
            let options = options(pairs);
            let containers = BTreeMap::from([("app", options)]);
            Configuration { program, listen: None, metadata: Vec::new(), include: None, containers }.text()
        };
        let error = text(Program::FluentBit, &[("Host", "h")]).unwrap_err();
        let words = "missing output key Name which is required for firelens configuration of type fluentbit";
        assert_eq!(error.to_string(), words);
        let error = text(Program::Fluentd, &[("Name", "http")]).unwrap_err();
        assert!(matches!(error, ConfigurationError::NoOutput { key: "@type", .. }));
        let error = text(Program::FluentBit, &[("Name", "stdout"), ("Format", "x\n[OUTPUT]\n    Name file")])
            .unwrap_err();
        assert_eq!(error, ConfigurationError::LineBreak("Format".to_owned()));
    }
}
