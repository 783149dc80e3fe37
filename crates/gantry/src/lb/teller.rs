//! What a balancer tells of its targets, on its way to the control plane. Of each target the last word is kept, so that
//! what waits is no more than there are targets.

use gantry_decide::routing::channel::{FromBalancer, Instructions, Pem};
use gantry_decide::routing::config::{CertificateArn, TargetGroupArn, TargetKey, TrustStoreArn};
use gantry_decide::routing::{HealthReport, HealthState};
use gantry_edge::balancer::{Observer, Problem, TrustStore};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::sync::Notify;

/// Reports of one message: some 100 KiB, a tenth of what the control plane takes.
const REPORTS: usize = 400;

type Key = (TargetGroupArn, TargetKey);

#[derive(Default)]
struct Inner {
    health: BTreeMap<Key, HealthReport>,
    /// Drained, and not told yet.
    drained: BTreeSet<Key>,
    /// Drained, also those that were told.
    all_drained: BTreeSet<Key>,
    certificates: BTreeMap<CertificateArn, Pem>,
    trust_stores: BTreeMap<TrustStoreArn, Arc<TrustStore>>,
}

/// See the module.
#[derive(Default)]
pub struct Teller {
    inner: Mutex<Inner>,
    arrived: Notify,
}

impl Teller {
    /// Knows these certificates and trust stores from now on, and no others.
    pub fn learn(&self, instructions: &Instructions) {
        let mut inner = self.inner.lock();
        inner.certificates.clone_from(&instructions.certificates);
        inner.trust_stores.clone_from(&instructions.trust_stores);
    }

    /// Waits until there is something to tell.
    pub async fn news(&self) {
        self.arrived.notified().await;
    }

    /// What there is to tell since the last time.
    pub fn take(&self) -> Vec<FromBalancer> {
        let (health, drained) = {
            let mut inner = self.inner.lock();
            (std::mem::take(&mut inner.health), std::mem::take(&mut inner.drained))
        };
        let reports: Vec<HealthReport> = health.into_values().collect();
        messages(&reports, drained)
    }

    /// Everything, when the control plane may not know it: how targets are, and which are drained.
    pub fn all(&self, health: &[HealthReport]) -> Vec<FromBalancer> {
        let mut inner = self.inner.lock();
        inner.health.clear();
        inner.drained.clear();
        let draining: BTreeSet<Key> = health
            .iter()
            .filter(|report| report.health.state == HealthState::Draining)
            .map(|report| (report.group.clone(), report.target.clone()))
            .collect();
        inner.all_drained.retain(|key| draining.contains(key));
        messages(health, inner.all_drained.clone())
    }
}

fn messages(health: &[HealthReport], drained: BTreeSet<Key>) -> Vec<FromBalancer> {
    let reports = health.chunks(REPORTS).map(|reports| FromBalancer::Health(reports.to_vec()));
    // After the reports: that a target drains is told before that it has.
    let drained = drained.into_iter().map(|(group, target)| FromBalancer::Drained { group, target });
    reports.chain(drained).collect()
}

impl Observer for Teller {
    fn health(&self, report: HealthReport) {
        let mut inner = self.inner.lock();
        let key = (report.group.clone(), report.target.clone());
        if report.health.state != HealthState::Draining {
            inner.drained.remove(&key);
            inner.all_drained.remove(&key);
        }
        inner.health.insert(key, report);
        self.arrived.notify_one();
    }

    fn drained(&self, group: &TargetGroupArn, target: &TargetKey) {
        let mut inner = self.inner.lock();
        let key = (group.clone(), target.clone());
        inner.all_drained.insert(key.clone());
        inner.drained.insert(key);
        self.arrived.notify_one();
    }

    fn certificate(&self, arn: &CertificateArn) -> Option<Pem> {
        self.inner.lock().certificates.get(arn).cloned()
    }

    fn trust_store(&self, arn: &TrustStoreArn) -> Option<Arc<TrustStore>> {
        self.inner.lock().trust_stores.get(arn).cloned()
    }

    fn problem(&self, problem: Problem) {
        tracing::warn!(error = &problem as &dyn std::error::Error, "a load balancer is not as it should be");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use gantry_decide::routing::config::TargetId;
    use gantry_decide::routing::{Reason, TargetHealth};
    use gantry_decide::time::Timestamp;

    fn report(port: u16, state: HealthState) -> HealthReport {
        HealthReport {
            group: TargetGroupArn::new("web"),
            target: TargetKey { id: TargetId::new("10.0.0.1"), port },
            health: TargetHealth { state, reason: Some(Reason::NotInUse) },
            at: Timestamp::EPOCH,
        }
    }

    #[test]
    fn the_last_word_is_told_once_and_everything_when_asked() {
        let teller = Teller::default();
        teller.health(report(1, HealthState::Initial));
        teller.health(report(1, HealthState::Draining));
        teller.drained(&TargetGroupArn::new("web"), &report(1, HealthState::Draining).target);
        let told = teller.take();
        assert!(matches!(&told[..], [FromBalancer::Health(reports), FromBalancer::Drained { .. }]
            if reports[0].health.state == HealthState::Draining));
        assert_eq!(teller.take(), []);
        assert_eq!(teller.all(&[report(1, HealthState::Draining)]).len(), 2);
        // Registered again, it is not drained.
        assert_eq!(teller.all(&[report(1, HealthState::Healthy)]).len(), 1);
        let many: Vec<_> = (0..1000).map(|port| report(port, HealthState::Healthy)).collect();
        assert_eq!(teller.all(&many).len(), 3);
    }
}
