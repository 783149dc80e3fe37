//! The calls of imaginary users: few names, so that they meet.

use gantry_decide::random::Random;
use serde_json::{Value, json};

/// An ECS operation and its request.
#[derive(Clone, Debug)]
pub struct Ask {
    pub operation: &'static str,
    pub request: Value,
}

/// Names of each kind. Fewer meet more often, more live longer.
const NAMES: usize = 6;

/// Any call, some of them wrong.
pub fn any(random: &mut dyn Random) -> Ask {
    let cluster = format!("c{}", random.below(NAMES));
    let family = format!("f{}", random.below(NAMES));
    let revision = format!("{family}:{}", 1 + random.below(8));
    let (operation, request) = match random.below(8) {
        0 | 1 => {
            ("CreateCluster", json!({ "clusterName": cluster, "tags": [{"key": "n", "value": cluster}] }))
        }
        2 => ("DeleteCluster", json!({ "cluster": cluster })),
        3 | 4 => {
            let container = json!({ "name": "app", "image": "app:1", "memory": 64 + random.below(64) });
            ("RegisterTaskDefinition", json!({ "family": family, "containerDefinitions": [container] }))
        }
        5 => ("DeregisterTaskDefinition", json!({ "taskDefinition": revision })),
        6 => ("DeleteTaskDefinitions", json!({ "taskDefinitions": [revision] })),
        // Refused: no memory.
        _ => {
            let container = json!({ "name": "app", "image": "app:1" });
            ("RegisterTaskDefinition", json!({ "family": family, "containerDefinitions": [container] }))
        }
    };
    Ask { operation, request }
}
