//! The task sizes that Fargate offers.

use crate::task::kinds::OsFamily;
use crate::task::units::{CpuUnits, MemoryMib};

/// One row of ECS's table: for this much CPU, memory from `low` to `high` MiB in steps.
struct Size {
    cpu: u32,
    low: u32,
    high: u32,
    step: u32,
    windows: bool,
}

const fn size(cpu: u32, low: u32, high: u32, step: u32, windows: bool) -> Size {
    Size { cpu, low, high, step, windows }
}

/// 256 units go with 512, 1024 and 2048 MiB, which is no arithmetic row: hence two.
const SIZES: [Size; 8] = [
    size(256, 512, 1024, 512, false),
    size(256, 2048, 2048, 1024, false),
    size(512, 1024, 4096, 1024, false),
    size(1024, 2048, 8192, 1024, true),
    size(2048, 4096, 16384, 1024, true),
    size(4096, 8192, 30720, 1024, true),
    size(8192, 16384, 61440, 4096, false),
    size(16384, 32768, 122_880, 8192, false),
];

/// Whether Fargate has a size of this CPU and memory.
pub fn has_size(cpu: CpuUnits, memory: MemoryMib, os: OsFamily) -> bool {
    let (cpu, memory) = (cpu.0, memory.0);
    SIZES.iter().any(|size| {
        size.cpu == cpu
            && (size.low..=size.high).contains(&memory)
            && (memory - size.low).is_multiple_of(size.step)
            && (size.windows || !os.is_windows())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_holds() {
        for (cpu, memory, linux, windows) in [
            (256, 512, true, false),
            (256, 1024, true, false),
            (256, 1536, false, false),
            (256, 2048, true, false),
            (256, 3072, false, false),
            (512, 512, false, false),
            (512, 4096, true, false),
            (512, 5120, false, false),
            (1024, 2048, true, true),
            (1024, 8192, true, true),
            (1024, 2049, false, false),
            (2048, 16384, true, true),
            (4096, 30720, true, true),
            (4096, 31744, false, false),
            (8192, 16384, true, false),
            (8192, 17408, false, false),
            (8192, 61440, true, false),
            (16384, 32768, true, false),
            (16384, 122_880, true, false),
            (16384, 131_072, false, false),
            (300, 512, false, false),
        ] {
            let size = (CpuUnits(cpu), MemoryMib(memory));
            assert_eq!(has_size(size.0, size.1, OsFamily::Linux), linux, "{size:?}");
            assert_eq!(has_size(size.0, size.1, OsFamily::WindowsServer2022Core), windows, "{size:?}");
        }
    }
}
