//! What is counted of the traffic, for CloudWatch: counters that workers add to, and samples that are taken of them.

use gantry_decide::routing::config::{LoadBalancerArn, TargetGroupArn};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Bounds of the response times' histogram grow by a fourth: 100 µs to 4,000 s in 80 steps, so that a percentile is
/// at most an eighth off.
const BUCKETS: usize = 80;
const FIRST_BUCKET: f64 = 0.0001;
const GROWTH: f64 = 1.25;

/// A load balancer's counters, since the last sample.
#[derive(Debug, Default)]
pub struct ListenerCounters {
    pub requests: AtomicU64,
    pub new_connections: AtomicU64,
    pub active_connections: AtomicU64,
    pub rejected_connections: AtomicU64,
    pub processed_bytes: AtomicU64,
    pub rule_evaluations: AtomicU64,
    /// Our own answers, by status.
    pub elb_3xx: AtomicU64,
    pub elb_4xx: AtomicU64,
    pub elb_5xx: AtomicU64,
    pub elb_502: AtomicU64,
    pub elb_503: AtomicU64,
    pub elb_504: AtomicU64,
}

impl ListenerCounters {
    /// Counts an answer that is ours.
    pub fn answered(&self, status: u16) {
        match status {
            300..=399 => add(&self.elb_3xx, 1),
            400..=499 => add(&self.elb_4xx, 1),
            500.. => add(&self.elb_5xx, 1),
            _ => {}
        }
        match status {
            502 => add(&self.elb_502, 1),
            503 => add(&self.elb_503, 1),
            504 => add(&self.elb_504, 1),
            _ => {}
        }
    }

    pub fn sample(&self, load_balancer: LoadBalancerArn) -> ListenerSample {
        let take = |counter: &AtomicU64| counter.swap(0, Relaxed);
        ListenerSample {
            load_balancer,
            requests: take(&self.requests),
            new_connections: take(&self.new_connections),
            active_connections: self.active_connections.load(Relaxed),
            rejected_connections: take(&self.rejected_connections),
            processed_bytes: take(&self.processed_bytes),
            rule_evaluations: take(&self.rule_evaluations),
            elb_3xx: take(&self.elb_3xx),
            elb_4xx: take(&self.elb_4xx),
            elb_5xx: take(&self.elb_5xx),
            elb_502: take(&self.elb_502),
            elb_503: take(&self.elb_503),
            elb_504: take(&self.elb_504),
        }
    }
}

/// A load balancer's traffic since the sample before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerSample {
    pub load_balancer: LoadBalancerArn,
    pub requests: u64,
    pub new_connections: u64,
    /// Now.
    pub active_connections: u64,
    pub rejected_connections: u64,
    pub processed_bytes: u64,
    pub rule_evaluations: u64,
    pub elb_3xx: u64,
    pub elb_4xx: u64,
    pub elb_5xx: u64,
    pub elb_502: u64,
    pub elb_503: u64,
    pub elb_504: u64,
}

/// A target group's counters, since the last sample.
#[derive(Debug)]
pub struct GroupCounters {
    pub requests: AtomicU64,
    pub connection_errors: AtomicU64,
    statuses: [AtomicU64; 4],
    /// Microseconds from the request sent to the answer's head.
    response_micros: AtomicU64,
    buckets: [AtomicU64; BUCKETS],
}

impl Default for GroupCounters {
    fn default() -> Self {
        GroupCounters {
            requests: AtomicU64::default(),
            connection_errors: AtomicU64::default(),
            statuses: Default::default(),
            response_micros: AtomicU64::default(),
            buckets: std::array::from_fn(|_| AtomicU64::default()),
        }
    }
}

impl GroupCounters {
    /// Counts a target's answer.
    pub fn answered(&self, status: u16, took: Duration) {
        if let Some(class) =
            usize::from(status / 100).checked_sub(2).and_then(|class| self.statuses.get(class))
        {
            add(class, 1);
        }
        add(&self.response_micros, took.as_micros() as u64);
        let steps = (took.as_secs_f64() / FIRST_BUCKET).max(1.0).ln() / GROWTH.ln();
        add(&self.buckets[(steps as usize).min(BUCKETS - 1)], 1);
    }

    pub fn sample(&self, group: TargetGroupArn, healthy: u64, unhealthy: u64) -> GroupSample {
        let take = |counter: &AtomicU64| counter.swap(0, Relaxed);
        let [ok, redirect, client, server] = &self.statuses;
        let bound = |place: usize| FIRST_BUCKET * GROWTH.powf(place as f64 + 0.5);
        let times = self.buckets.iter().enumerate().map(|(place, count)| (bound(place), take(count)));
        GroupSample {
            group,
            requests: take(&self.requests),
            connection_errors: take(&self.connection_errors),
            target_2xx: take(ok),
            target_3xx: take(redirect),
            target_4xx: take(client),
            target_5xx: take(server),
            response_seconds: take(&self.response_micros) as f64 / 1e6,
            response_times: times.filter(|(_, count)| *count > 0).collect(),
            healthy,
            unhealthy,
        }
    }
}

/// A target group's traffic since the sample before.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupSample {
    pub group: TargetGroupArn,
    pub requests: u64,
    pub connection_errors: u64,
    pub target_2xx: u64,
    pub target_3xx: u64,
    pub target_4xx: u64,
    pub target_5xx: u64,
    /// Sum of the response times, in seconds.
    pub response_seconds: f64,
    /// Response times in seconds, each with how many answers took about so long.
    pub response_times: Vec<(f64, u64)>,
    /// Targets now.
    pub healthy: u64,
    pub unhealthy: u64,
}

pub fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_what_came_since_the_last_one() {
        let counters = GroupCounters::default();
        for (status, millis) in [(200, 10), (204, 10), (503, 2_000)] {
            counters.answered(status, Duration::from_millis(millis));
        }
        let sample = counters.sample(TargetGroupArn::new("g"), 1, 0);
        assert_eq!((sample.target_2xx, sample.target_5xx, sample.target_4xx), (2, 1, 0));
        assert!((sample.response_seconds - 2.02).abs() < 1e-9);
        let [(fast, 2), (slow, 1)] = sample.response_times.as_slice() else { panic!("{sample:?}") };
        assert!((0.0087..0.0115).contains(fast) && (1.75..2.3).contains(slow), "{fast} {slow}");
        assert_eq!(counters.sample(TargetGroupArn::new("g"), 1, 0).target_2xx, 0);
    }
}
