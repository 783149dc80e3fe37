//! What the users were told, kept outside the system, against which its state is judged.

use gantry_control::state::ScopeState;
use gantry_decide::ids::TaskDefinitionId;
use gantry_store::Record;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// The last that users were told of each thing, and what they asked that nobody answered.
#[derive(Debug, Default)]
pub struct Oracle {
    /// Status of each cluster that an answer named.
    clusters: BTreeMap<String, String>,
    /// Every revision that an answer gave.
    revisions: BTreeSet<TaskDefinitionId>,
    /// Revisions whose deletion was begun: they may be gone.
    deletable: BTreeSet<TaskDefinitionId>,
    /// Clusters that an unanswered call was about: either outcome is right.
    unsure: BTreeSet<String>,
    pub acknowledged: usize,
}

impl Oracle {
    /// A call was made; until it is answered nobody knows.
    pub fn asked(&mut self, operation: &str, request: &Value) {
        if let Some(cluster) = cluster_of(operation, request) {
            self.unsure.insert(cluster);
        }
        if operation == "DeleteTaskDefinitions" {
            let named = request["taskDefinitions"].as_array().into_iter().flatten();
            self.deletable.extend(named.filter_map(|text| text.as_str()?.parse().ok()));
        }
    }

    /// A call was answered with success. Calls are answered in the order in which they were applied.
    pub fn answered(
        &mut self,
        operation: &str,
        request: &Value,
        response: &Value,
        still_open: &BTreeSet<String>,
    ) {
        self.acknowledged += 1;
        if let Some(cluster) = cluster_of(operation, request) {
            let status = response["cluster"]["status"].as_str().unwrap_or_default().to_owned();
            if !still_open.contains(&cluster) {
                self.unsure.remove(&cluster);
            }
            self.clusters.insert(cluster, status);
        }
        if operation == "RegisterTaskDefinition" {
            let shown = &response["taskDefinition"];
            let id = format!("{}:{}", shown["family"].as_str().unwrap_or_default(), shown["revision"]);
            let id: TaskDefinitionId = id.parse().expect("an answer names a revision");
            assert!(self.revisions.insert(id.clone()), "the revision {id} was given twice");
        }
    }

    /// Panics where the state is not what users were told.
    pub fn judge(&self, state: &ScopeState) {
        state.check_invariants();
        for (name, status) in self.clusters.iter().filter(|(name, _)| !self.unsure.contains(*name)) {
            let found = state.ecs.clusters.values().find(|cluster| cluster.name.as_str() == name);
            let found = found.map(|cluster| if cluster.is_active() { "ACTIVE" } else { "INACTIVE" });
            assert_eq!(found, Some(status.as_str()), "the cluster {name} is not what was acknowledged");
        }
        for id in self.revisions.difference(&self.deletable) {
            assert!(state.ecs.task_definitions.contains_key(id), "the acknowledged revision {id} is lost");
        }
        for record in state.ecs.task_definitions.values() {
            let id = record.key();
            let last = state.ecs.families.get(&id.family).map_or(0, |family| family.last_revision);
            assert!(id.revision <= last, "{id} is beyond its family's last revision {last}");
        }
    }
}

/// The cluster that a call changes.
pub fn cluster_of(operation: &str, request: &Value) -> Option<String> {
    let member = match operation {
        "CreateCluster" => "clusterName",
        "DeleteCluster" => "cluster",
        _ => return None,
    };
    request[member].as_str().map(str::to_owned)
}
