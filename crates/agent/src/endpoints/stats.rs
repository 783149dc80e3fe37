//! A container's use as Docker's statistics show it, which is what the endpoints hand on.

use crate::driver::ContainerSnapshot;
use crate::telemetry::{Sample, cores};
use gantry_wire::{EpochMillis, xml::iso8601};
use serde_json::{Map, Value, json};

/// The statistics at one time, with an earlier sample to compare with. Rates are only shown by version 4 of the
/// endpoints.
pub fn document(one: &ContainerSnapshot, now: &Sample, before: Option<&Sample>, with_rates: bool) -> Value {
    let at = |sample: &Sample| iso8601(EpochMillis(sample.at.as_millis()));
    let stats = &now.stats;
    let mut document = json!({
        "read": at(now),
        "preread": before.map_or_else(|| "0001-01-01T00:00:00Z".to_owned(), at),
        "id": one.runtime_id,
        "name": one.name,
        "num_procs": 0,
        "pids_stats": {"current": stats.pids},
        "blkio_stats": {
            "io_service_bytes_recursive": [
                {"major": 0, "minor": 0, "op": "Read", "value": stats.read_bytes},
                {"major": 0, "minor": 0, "op": "Write", "value": stats.written_bytes},
            ],
            "io_serviced_recursive": [
                {"major": 0, "minor": 0, "op": "Read", "value": stats.reads},
                {"major": 0, "minor": 0, "op": "Write", "value": stats.writes},
            ],
        },
        "storage_stats": {},
        "cpu_stats": cpu(now),
        "precpu_stats": before.map_or_else(|| json!({}), cpu),
        "memory_stats": {
            "usage": stats.memory_bytes,
            "max_usage": stats.memory_peak_bytes,
            "limit": stats.memory_limit.unwrap_or(0),
            "stats": {"inactive_file": stats.inactive_file_bytes},
        },
    });
    let Some(members) = document.as_object_mut() else { return document };
    if !now.interfaces.is_empty() {
        let networks: Map<String, Value> = now
            .interfaces
            .iter()
            .map(|(name, traffic)| {
                let counters = json!({
                    "rx_bytes": traffic.rx_bytes, "rx_packets": traffic.rx_packets,
                    "rx_errors": traffic.rx_errors, "rx_dropped": traffic.rx_dropped,
                    "tx_bytes": traffic.tx_bytes, "tx_packets": traffic.tx_packets,
                    "tx_errors": traffic.tx_errors, "tx_dropped": traffic.tx_dropped,
                });
                (name.clone(), counters)
            })
            .collect();
        members.insert("networks".to_owned(), Value::Object(networks));
    }
    if let Some((received, sent)) = before.filter(|_| with_rates).and_then(|before| now.rates_since(before)) {
        let rates = json!({"rx_bytes_per_sec": received, "tx_bytes_per_sec": sent});
        members.insert("network_rate_stats".to_owned(), rates);
    }
    document
}

fn cpu(sample: &Sample) -> Value {
    json!({
        "cpu_usage": {"total_usage": sample.stats.cpu_nanos, "usage_in_kernelmode": 0, "usage_in_usermode": 0},
        "system_cpu_usage": sample.host_cpu_nanos,
        "online_cpus": cores(),
        "throttling_data": {"periods": 0, "throttled_periods": 0, "throttled_time": sample.stats.throttled_nanos},
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::runtime::ContainerId;
    use crate::runtime::cgroup::Stats;
    use crate::telemetry::Traffic;
    use gantry_decide::lifecycle::DesiredStatus;
    use gantry_decide::task_engine::KnownStatus;
    use gantry_decide::time::Timestamp;
    use std::collections::BTreeMap;

    #[test]
    fn statistics_are_docker_s() {
        let one = ContainerSnapshot {
            name: "app".to_owned(),
            key: None,
            id: ContainerId::try_from("t-1".to_owned()).unwrap(),
            runtime_id: "t-1".to_owned(),
            pid: None,
            desired: DesiredStatus::Running,
            status: KnownStatus::Running,
            health: None,
            image_id: None,
            bindings: Vec::new(),
            started_at: None,
            restarts: 0,
            exit: None,
            address: None,
        };
        let sample = |millis: i64, rx_bytes: u64| Sample {
            at: Timestamp::from_millis(millis),
            stats: Stats {
                cpu_nanos: 7,
                memory_bytes: 9,
                memory_limit: Some(64),
                pids: 3,
                ..Stats::default()
            },
            host_cpu_nanos: 100,
            interfaces: BTreeMap::from([("eth0".to_owned(), Traffic { rx_bytes, ..Traffic::default() })]),
        };
        let (before, now) = (sample(1000, 100), sample(3000, 500));
        let shown = document(&one, &now, Some(&before), true);
        assert_eq!(shown["cpu_stats"]["cpu_usage"]["total_usage"], 7);
        assert_eq!(shown["cpu_stats"]["system_cpu_usage"], 100);
        assert_eq!(
            (&shown["memory_stats"]["usage"], &shown["memory_stats"]["limit"]),
            (&json!(9), &json!(64))
        );
        assert_eq!(shown["networks"]["eth0"]["rx_bytes"], 500);
        assert_eq!(shown["network_rate_stats"], json!({"rx_bytes_per_sec": 200.0, "tx_bytes_per_sec": 0.0}));
        assert_eq!(
            (&shown["preread"], &shown["read"]),
            (&json!("1970-01-01T00:00:01Z"), &json!("1970-01-01T00:00:03Z"))
        );
        assert_eq!(document(&one, &now, Some(&before), false).get("network_rate_stats"), None);
        assert_eq!(document(&one, &now, None, true)["precpu_stats"], json!({}));
    }
}
