//! What a machine's user data says to its ECS agent.
//!
//! On EC2 user data is a script that runs at the first start, and by which users tell the agent its cluster: with lines
//! for `/etc/ecs/ecs.config`. Those lines are read here, wherever in a script they stand; nothing is run.

use std::collections::BTreeMap;

/// Bytes of user data: EC2's limit, before it is encoded.
pub const LENGTH_MAX: usize = 16 * 1024;
/// Settings that are read: those of the stock agent, and room.
const SETTINGS_MAX: usize = 64;

/// The agent's settings (`ECS_…`) in a script, a `#cloud-config` or a plain `ecs.config`; of several the last counts.
pub fn ecs_config(text: &str) -> BTreeMap<String, String> {
    let mut settings = BTreeMap::new();
    for (start, _) in text.match_indices("ECS_") {
        let before = text[..start].chars().next_back();
        if before.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_' || c == '$' || c == '{') {
            continue;
        }
        let rest = &text[start..];
        let name_end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        let (name, rest) = rest.split_at(name_end);
        let Some(value) = rest.strip_prefix('=') else { continue };
        if settings.len() < SETTINGS_MAX || settings.contains_key(name) {
            settings.insert(name.to_owned(), value_of(value).to_owned());
        }
    }
    settings
}

/// A value up to where the shell or the line ends it.
fn value_of(text: &str) -> &str {
    let quote = text.chars().next().filter(|c| matches!(c, '"' | '\''));
    if let Some(quote) = quote {
        let inner = &text[1..];
        return inner.split([quote, '\n']).next().unwrap_or_default();
    }
    // JSON values have blanks and quotes of their own, and end with the line; `echo 'A=b' >> file` ends at its quote.
    if text.starts_with(['{', '[']) {
        let line = text.lines().next().unwrap_or_default();
        let end = line.rfind(['}', ']']).map_or(line.len(), |at| at + 1);
        return &line[..end];
    }
    text.split(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | ';' | '\\')).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(text: &str) -> Option<String> {
        ecs_config(text).remove("ECS_CLUSTER")
    }

    #[test]
    fn the_usual_forms_are_read() {
        for text in [
            "ECS_CLUSTER=web",
            "#!/bin/bash\necho ECS_CLUSTER=web >> /etc/ecs/ecs.config\n",
            "#!/bin/bash\necho \"ECS_CLUSTER=web\" >> /etc/ecs/ecs.config",
            "#!/bin/sh\ncat <<'EOF' >> /etc/ecs/ecs.config\nECS_CLUSTER=web\nECS_ENABLE_TASK_IAM_ROLE=true\nEOF\n",
            "#cloud-config\nwrite_files:\n- path: /etc/ecs/ecs.config\n  content: |\n    ECS_CLUSTER=\"web\"\n",
            "echo ECS_CLUSTER=first >/dev/null; echo 'ECS_CLUSTER=web' > /etc/ecs/ecs.config",
        ] {
            assert_eq!(cluster(text).as_deref(), Some("web"), "{text}");
        }
    }

    #[test]
    fn what_is_no_setting_is_left_alone() {
        for text in ["", "echo $ECS_CLUSTER", "MY_ECS_CLUSTER=web", "ECS_CLUSTER", "echo ${ECS_CLUSTER=web}"]
        {
            assert_eq!(cluster(text), None, "{text}");
        }
        let attributes = ecs_config("ECS_INSTANCE_ATTRIBUTES={\"stack\": \"prod\"}\n");
        assert_eq!(attributes["ECS_INSTANCE_ATTRIBUTES"], "{\"stack\": \"prod\"}");
    }
}
