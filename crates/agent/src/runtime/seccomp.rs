//! The filter of system calls that containers run under: everything that Docker's default profile allows, and nothing
//! else, as a program of the kernel's BPF.
//!
//! The calls of a platform are numbered almost without gaps, so the profile is kept as what it denies; the program
//! searches the ranges in between like a binary tree, which takes eight comparisons instead of three hundred. Made in
//! microseconds, and a tenth of a millisecond to load.

use super::capabilities::Capabilities;
use libc::{c_long, sock_filter};

#[cfg(target_arch = "x86_64")]
const AUDIT_ARCH: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const AUDIT_ARCH: u32 = 0xc000_00b7;

/// Of 32-bit x86 programs, which 64-bit hosts run too. Those of x32 stay unknown: kernels are hardly built with it.
#[cfg(target_arch = "x86_64")]
const AUDIT_ARCH_I386: u32 = 0x4000_0003;

/// The calls of one architecture that are not simply allowed.
struct Calls {
    /// Denied unless a capability that would be needed anyway is there.
    needs: &'static [(&'static str, &'static [c_long])],
    /// Denied whatever the capabilities are.
    never: &'static [c_long],
    clone: c_long,
    clone3: c_long,
    personality: c_long,
    socket: c_long,
}

const NATIVE: Calls = Calls {
    needs: NEEDS,
    never: NEVER,
    clone: libc::SYS_clone,
    clone3: libc::SYS_clone3,
    personality: libc::SYS_personality,
    socket: libc::SYS_socket,
};

/// The last call that the profile knows. Later ones do not exist for containers: programs then use older ones.
const LAST: c_long = 462;

const NEEDS: &[(&str, &[c_long])] = &[
    (
        "SYS_ADMIN",
        &[
            libc::SYS_bpf,
            libc::SYS_fanotify_init,
            libc::SYS_fsconfig,
            libc::SYS_fsmount,
            libc::SYS_fsopen,
            libc::SYS_fspick,
            libc::SYS_lookup_dcookie,
            libc::SYS_mount,
            libc::SYS_mount_setattr,
            libc::SYS_move_mount,
            libc::SYS_open_tree,
            libc::SYS_perf_event_open,
            libc::SYS_quotactl,
            libc::SYS_quotactl_fd,
            libc::SYS_setdomainname,
            libc::SYS_sethostname,
            libc::SYS_setns,
            libc::SYS_syslog,
            libc::SYS_umount2,
            libc::SYS_unshare,
        ],
    ),
    ("BPF", &[libc::SYS_bpf]),
    ("PERFMON", &[libc::SYS_perf_event_open]),
    ("DAC_READ_SEARCH", &[libc::SYS_open_by_handle_at]),
    ("SYSLOG", &[libc::SYS_syslog]),
    ("SYS_BOOT", &[libc::SYS_reboot]),
    ("SYS_MODULE", &[libc::SYS_delete_module, libc::SYS_init_module, libc::SYS_finit_module]),
    (
        "SYS_NICE",
        &[
            libc::SYS_get_mempolicy,
            libc::SYS_mbind,
            libc::SYS_set_mempolicy,
            libc::SYS_set_mempolicy_home_node,
            libc::SYS_move_pages,
        ],
    ),
    ("SYS_PACCT", &[libc::SYS_acct]),
    ("SYS_PTRACE", &[libc::SYS_kcmp, libc::SYS_pidfd_getfd, libc::SYS_process_madvise]),
    ("SYS_TIME", &[libc::SYS_settimeofday, libc::SYS_clock_settime]),
    ("SYS_TTY_CONFIG", &[libc::SYS_vhangup]),
    #[cfg(target_arch = "x86_64")]
    ("SYS_RAWIO", &[libc::SYS_iopl, libc::SYS_ioperm]),
];

const NEVER: &[c_long] = &[
    libc::SYS_add_key,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    libc::SYS_kexec_file_load,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_migrate_pages,
    libc::SYS_nfsservctl,
    libc::SYS_pivot_root,
    libc::SYS_request_key,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_userfaultfd,
    #[cfg(target_arch = "x86_64")]
    libc::SYS__sysctl,
    #[cfg(target_arch = "x86_64")]
    174, // create_module
    #[cfg(target_arch = "x86_64")]
    177, // get_kernel_syms
    #[cfg(target_arch = "x86_64")]
    178, // query_module
    #[cfg(target_arch = "x86_64")]
    libc::SYS_sysfs,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_uselib,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ustat,
];

/// Calls of 32-bit x86, by the kernel's numbers: the names are those of `asm/unistd_32.h`.
#[cfg(target_arch = "x86_64")]
const I386: Calls = Calls {
    needs: &[
        (
            "SYS_ADMIN",
            &[
                357, // bpf
                338, // fanotify_init
                431, // fsconfig
                432, // fsmount
                430, // fsopen
                433, // fspick
                253, // lookup_dcookie
                21,  // mount
                442, // mount_setattr
                429, // move_mount
                428, // open_tree
                336, // perf_event_open
                131, // quotactl
                443, // quotactl_fd
                121, // setdomainname
                74,  // sethostname
                346, // setns
                103, // syslog
                22,  // umount
                52,  // umount2
                310, // unshare
            ],
        ),
        ("BPF", &[357]),
        ("PERFMON", &[336]),
        ("DAC_READ_SEARCH", &[342]),
        ("SYSLOG", &[103]),
        ("SYS_BOOT", &[88]),
        ("SYS_MODULE", &[128, 129, 350]),
        // mbind, get_mempolicy, set_mempolicy, move_pages, set_mempolicy_home_node
        ("SYS_NICE", &[274, 275, 276, 317, 450]),
        ("SYS_PACCT", &[51]),
        // kcmp, pidfd_getfd, process_madvise
        ("SYS_PTRACE", &[349, 438, 440]),
        // stime, settimeofday, clock_settime, clock_settime64
        ("SYS_TIME", &[25, 79, 264, 404]),
        ("SYS_TTY_CONFIG", &[111]),
        // ioperm, iopl
        ("SYS_RAWIO", &[101, 110]),
    ],
    never: &[
        17, 18, 28, 31, 32, 34, 35, 44, 48, 53, 56, 58,
        59, // break to oldolduname: calls of the first kernels
        62, // ustat
        67, 68, 69, 72, 73, 84, // sigaction, sgetmask, ssetmask, sigsuspend, sigpending, oldlstat
        86, // uselib
        87, // swapon
        89, 98, 109, 112, // readdir, profil, olduname, idle
        113, // vm86old
        115, // swapoff
        127, // create_module
        130, // get_kernel_syms
        134, 135, 137, // bdflush, sysfs, afs_syscall
        149, // _sysctl
        166, // vm86
        167, // query_module
        169, // nfsservctl
        188, 189, // getpmsg, putpmsg
        217, // pivot_root
        273, // vserver
        283, // kexec_load
        286, 287, 288, // add_key, request_key, keyctl
        294, // migrate_pages
        374, // userfaultfd
        425, 426, 427, // io_uring
    ],
    clone: 120,
    clone3: 435,
    personality: 136,
    socket: 359,
};

/// Namespaces that clone(2) could make.
const CLONE_NAMESPACES: u32 = 0x7e02_0000;
/// The execution domains that programs ask for in peace.
const PERSONALITIES: [u32; 5] = [0x0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];
const AF_VSOCK: u32 = 40;

const ALLOW: u32 = 0x7fff_0000;
const fn errno(number: i32) -> u32 {
    0x0005_0000 | number as u32
}

const LOAD_WORD: u16 = 0x20;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER: u16 = 0x25;
const JUMP_GREATER_OR_EQUAL: u16 = 0x35;
const JUMP_ANY_BIT: u16 = 0x45;
const RETURN: u16 = 0x06;
/// Offsets in `struct seccomp_data`: the number, the architecture, the low half of the first argument.
const AT_NUMBER: u32 = 0;
const AT_ARCH: u32 = 4;
const AT_FIRST: u32 = 16;

fn statement(code: u16, k: u32) -> sock_filter {
    sock_filter { code, jt: 0, jf: 0, k }
}

fn jump(code: u16, k: u32, yes: usize, no: usize) -> sock_filter {
    let near = |steps: usize| u8::try_from(steps).expect("a test makes the longest program");
    sock_filter { code, jt: near(yes), jf: near(no), k }
}

/// The program for a container with these capabilities.
pub fn program(capabilities: Capabilities) -> Vec<sock_filter> {
    let mut program = vec![statement(LOAD_WORD, AT_ARCH)];
    program.extend(on_architecture(AUDIT_ARCH, &calls(&NATIVE, capabilities)));
    #[cfg(target_arch = "x86_64")]
    program.extend(on_architecture(AUDIT_ARCH_I386, &calls(&I386, capabilities)));
    program.push(statement(RETURN, errno(libc::ENOSYS)));
    program
}

/// A block for one architecture; others go on behind it.
fn on_architecture(architecture: u32, block: &[sock_filter]) -> Vec<sock_filter> {
    // Farther than tests can jump.
    let length = u32::try_from(block.len()).expect("the kernel's limit is far below");
    let mut program = vec![jump(JUMP_EQUAL, architecture, 1, 0), statement(JUMP, length)];
    program.extend_from_slice(block);
    program
}

/// Decides on the calls of one architecture.
fn calls(calls: &Calls, capabilities: Capabilities) -> Vec<sock_filter> {
    let mut program = vec![
        statement(LOAD_WORD, AT_NUMBER),
        // glibc falls back to clone, whose flags can be looked at.
        jump(JUMP_EQUAL, calls.clone3 as u32, 0, 1),
        statement(RETURN, errno(libc::ENOSYS)),
    ];
    if !capabilities.has("SYS_ADMIN") {
        program.extend(on_first_argument(
            calls.clone,
            &[
                jump(JUMP_ANY_BIT, CLONE_NAMESPACES, 0, 1),
                statement(RETURN, errno(libc::EPERM)),
                statement(RETURN, ALLOW),
            ],
        ));
    }
    let mut personalities: Vec<_> = PERSONALITIES
        .iter()
        .enumerate()
        .map(|(index, value)| jump(JUMP_EQUAL, *value, PERSONALITIES.len() - index, 0))
        .collect();
    personalities.extend([statement(RETURN, errno(libc::EPERM)), statement(RETURN, ALLOW)]);
    program.extend(on_first_argument(calls.personality, &personalities));
    program.extend(on_first_argument(
        calls.socket,
        &[jump(JUMP_EQUAL, AF_VSOCK, 0, 1), statement(RETURN, errno(libc::EPERM)), statement(RETURN, ALLOW)],
    ));
    program.extend([jump(JUMP_GREATER, LAST as u32, 0, 1), statement(RETURN, errno(libc::ENOSYS))]);
    program.extend(search(&allowed(calls, capabilities)));
    program
}

/// A decision on one call by its first argument; others go on behind it.
fn on_first_argument(call: c_long, decision: &[sock_filter]) -> Vec<sock_filter> {
    let mut block =
        vec![jump(JUMP_EQUAL, call as u32, 0, decision.len() + 1), statement(LOAD_WORD, AT_FIRST)];
    block.extend_from_slice(decision);
    block
}

/// The allowed calls as ranges, in order.
fn allowed(calls: &Calls, capabilities: Capabilities) -> Vec<(u32, u32)> {
    let granted = |call: c_long| {
        let by = calls.needs.iter().filter(|(_, calls)| calls.contains(&call));
        let mut needed = by.peekable();
        needed.peek().is_none() || needed.any(|(capability, _)| capabilities.has(capability))
    };
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for call in (0..=LAST).filter(|call| !calls.never.contains(call) && granted(*call)) {
        let call = call as u32;
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == call => *last = call,
            _ => ranges.push((call, call)),
        }
    }
    ranges
}

fn search(ranges: &[(u32, u32)]) -> Vec<sock_filter> {
    match ranges {
        [] => vec![statement(RETURN, errno(libc::EPERM))],
        [(first, last)] => vec![
            jump(JUMP_GREATER_OR_EQUAL, *first, 0, 2),
            jump(JUMP_GREATER, *last, 1, 0),
            statement(RETURN, ALLOW),
            statement(RETURN, errno(libc::EPERM)),
        ],
        _ => {
            let (low, high) = ranges.split_at(ranges.len() / 2);
            let (low, high_code) = (search(low), search(high));
            let mut code = vec![jump(JUMP_GREATER_OR_EQUAL, high[0].0, low.len(), 0)];
            code.extend(low);
            code.extend(high_code);
            code
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel would answer: the same machine, in a few lines.
    fn judge(program: &[sock_filter], number: c_long, first: u32) -> u32 {
        judge_of(program, AUDIT_ARCH, number, first)
    }

    fn judge_of(program: &[sock_filter], architecture: u32, number: c_long, first: u32) -> u32 {
        let (mut at, mut value) = (0, 0);
        loop {
            let step = program[at];
            at += 1;
            let k = step.k;
            let holds = match step.code {
                LOAD_WORD => {
                    value = match k {
                        AT_NUMBER => number as u32,
                        AT_ARCH => architecture,
                        _ => first,
                    };
                    continue;
                }
                RETURN => return k,
                JUMP => {
                    at += k as usize;
                    continue;
                }
                JUMP_EQUAL => value == k,
                JUMP_GREATER => value > k,
                JUMP_GREATER_OR_EQUAL => value >= k,
                JUMP_ANY_BIT => value & k != 0,
                other => panic!("{other:#x}"),
            };
            at += usize::from(if holds { step.jt } else { step.jf });
        }
    }

    #[test]
    fn the_profile_is_dockers() {
        let usual = program(Capabilities::default());
        let eperm = errno(libc::EPERM);
        for call in [
            libc::SYS_read,
            libc::SYS_execve,
            libc::SYS_chroot,
            libc::SYS_openat,
            libc::SYS_capset,
            libc::SYS_ptrace,
        ] {
            assert_eq!(judge(&usual, call, 0), ALLOW, "{call}");
        }
        for call in [
            libc::SYS_mount,
            libc::SYS_setns,
            libc::SYS_bpf,
            libc::SYS_kexec_load,
            libc::SYS_keyctl,
            libc::SYS_reboot,
            libc::SYS_init_module,
        ] {
            assert_eq!(judge(&usual, call, 0), eperm, "{call}");
        }
        assert_eq!(judge(&usual, libc::SYS_clone, 0x11), ALLOW);
        assert_eq!(judge(&usual, libc::SYS_clone, libc::CLONE_NEWUSER as u32), eperm);
        assert_eq!(judge(&usual, libc::SYS_clone3, 0), errno(libc::ENOSYS));
        assert_eq!(judge(&usual, libc::SYS_personality, 8), ALLOW);
        assert_eq!(judge(&usual, libc::SYS_personality, 0xffff_ffff), ALLOW);
        assert_eq!(judge(&usual, libc::SYS_personality, 0x0400_0000), eperm);
        assert_eq!(judge(&usual, libc::SYS_socket, AF_VSOCK), eperm);
        assert_eq!(judge(&usual, libc::SYS_socket, 2), ALLOW);
        assert_eq!(judge(&usual, 100_000, 0), errno(libc::ENOSYS));
        // The 32-bit calls of x32.
        assert_eq!(judge(&usual, 0x4000_0000, 0), errno(libc::ENOSYS));
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn programs_of_32_bits_run_under_the_same_profile() {
        let usual = program(Capabilities::default());
        let judge = |number, first| judge_of(&usual, AUDIT_ARCH_I386, number, first);
        // exit, read, execve, socketcall, mmap2, futex, clock_gettime64
        for call in [1, 3, 11, 102, 192, 240, 403] {
            assert_eq!(judge(call, 0), ALLOW, "{call}");
        }
        // mount, umount, reboot, init_module, pivot_root, keyctl, unshare, setns, bpf, userfaultfd, open_tree, vm86
        for call in [21, 22, 88, 128, 217, 288, 310, 346, 357, 374, 428, 166] {
            assert_eq!(judge(call, 0), errno(libc::EPERM), "{call}");
        }
        assert_eq!(judge(120, 0x11), ALLOW);
        assert_eq!(judge(120, libc::CLONE_NEWUSER as u32), errno(libc::EPERM));
        assert_eq!(judge(435, 0), errno(libc::ENOSYS));
        assert_eq!(judge(359, AF_VSOCK), errno(libc::EPERM));
        let admin = program(Capabilities::default().with("SYS_ADMIN"));
        assert_eq!(judge_of(&admin, AUDIT_ARCH_I386, 21, 0), ALLOW);
        // 32-bit ARM, which this host does not run.
        assert_eq!(judge_of(&usual, 0x4000_0028, 1, 0), errno(libc::ENOSYS));
    }

    #[test]
    fn capabilities_open_what_they_are_for() {
        let admin = program(Capabilities::default().with("SYS_ADMIN"));
        assert_eq!(judge(&admin, libc::SYS_mount, 0), ALLOW);
        assert_eq!(judge(&admin, libc::SYS_clone, libc::CLONE_NEWNS as u32), ALLOW);
        assert_eq!(judge(&admin, libc::SYS_kexec_load, 0), errno(libc::EPERM));
        let clock = program(Capabilities::default().with("SYS_TIME"));
        assert_eq!(judge(&clock, libc::SYS_clock_settime, 0), ALLOW);
        assert!(program(Capabilities::NONE).len() < 4096, "the kernel's limit");
    }
}
