//! A machine for an agent of its own, made of this one: a network namespace, and control groups that bound what its
//! tasks use. Real isolation of what an Auto Scaling group's instances run, without a hypervisor.

use crate::network::MachineNetwork;
use crate::runtime::cgroup::{CPU_PERIOD_MICROS, Hierarchies, TaskLimits};
use std::io;

/// CPU units of one core.
const UNITS_PER_CORE: u64 = 1024;
const MIB: i64 = 1 << 20;

/// One machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    pub network: MachineNetwork,
    /// CPU units: 1024 a core.
    pub cpu: u32,
    /// MiB.
    pub memory: u32,
}

impl Machine {
    /// Makes it, if it is not there.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn open(&self) -> io::Result<()> {
        let groups = Hierarchies::of_host()?;
        // All groups of the agent's tasks lie below this one.
        let group = format!("/gantry/{}", self.network.name);
        let quota = u64::from(self.cpu) * CPU_PERIOD_MICROS / UNITS_PER_CORE;
        let limits = TaskLimits {
            cpu_shares: None,
            cpu_quota: i64::try_from(quota).ok(),
            memory: Some(i64::from(self.memory) * MIB),
        };
        groups.make(&group)?.limit_task(limits)?;
        self.network.open()
    }
}
