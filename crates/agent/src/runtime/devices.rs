//! Which devices a container may make and open: Docker's list and what its definition adds, held by the control group.
//! Version 1 takes the list as text; version 2 has it as a program of the kernel's BPF, which lives as long as the group.

use super::{ContainerConfig, cgroup};
use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Block,
    Character,
}

/// Bits as the kernel's programs have them.
const MAKE: u32 = 1;
const READ: u32 = 2;
const WRITE: u32 = 4;

/// Devices that are allowed; `None` means any number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    kind: Kind,
    major: Option<u32>,
    minor: Option<u32>,
    access: u32,
}

const fn character(major: u32, minor: Option<u32>) -> Rule {
    Rule { kind: Kind::Character, major: Some(major), minor, access: MAKE | READ | WRITE }
}

/// What every container may. A node can be made of any device: opening it is what counts.
const USUAL: [Rule; 11] = [
    Rule { kind: Kind::Character, major: None, minor: None, access: MAKE },
    Rule { kind: Kind::Block, major: None, minor: None, access: MAKE },
    // null, zero, full, random, urandom
    character(1, Some(3)),
    character(1, Some(5)),
    character(1, Some(7)),
    character(1, Some(8)),
    character(1, Some(9)),
    // tty, console, ptmx, and the pseudo terminals
    character(5, Some(0)),
    character(5, Some(1)),
    character(5, Some(2)),
    character(136, None),
];

/// The devices that a container may use; `None` means all.
///
/// # Errors
/// Names a device of its definition that is none.
pub fn rules(config: &ContainerConfig) -> Result<Option<Vec<Rule>>, String> {
    if config.privileged {
        return Ok(None);
    }
    let mut rules = USUAL.to_vec();
    for device in &config.devices {
        let path = device.host_path.display();
        let metadata = fs::metadata(&device.host_path).map_err(|error| format!("device {path}: {error}"))?;
        let kind = match metadata.file_type() {
            kind if kind.is_char_device() => Kind::Character,
            kind if kind.is_block_device() => Kind::Block,
            _ => return Err(format!("{path} is not a device")),
        };
        let bit = |letter| match letter {
            'r' => READ,
            'w' => WRITE,
            'm' => MAKE,
            _ => 0,
        };
        let access = device.access.chars().map(bit).fold(0, |all, one| all | one);
        let number = metadata.rdev();
        rules.push(Rule {
            kind,
            major: Some(libc::major(number)),
            minor: Some(libc::minor(number)),
            access: if access == 0 { MAKE | READ | WRITE } else { access },
        });
    }
    Ok(Some(rules))
}

/// Restricts a new group of version 1's controller.
pub fn restrict_first(group: &OwnedFd, rules: &[Rule]) -> io::Result<()> {
    cgroup::write_at(group, "devices.deny", "a")?;
    let mut file = cgroup::open_at(group, "devices.allow")?;
    // The kernel takes one rule with each write.
    rules.iter().try_for_each(|rule| file.write_all(text(rule).as_bytes()))
}

fn text(rule: &Rule) -> String {
    let kind = if rule.kind == Kind::Block { 'b' } else { 'c' };
    let number = |number: Option<u32>| number.map_or("*".to_owned(), |number| number.to_string());
    let letters = [(READ, 'r'), (WRITE, 'w'), (MAKE, 'm')];
    let access: String = letters.iter().filter(|(bit, _)| rule.access & bit != 0).map(|(_, c)| *c).collect();
    format!("{kind} {}:{} {access}", number(rule.major), number(rule.minor))
}

/// One instruction of the kernel's machine.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Instruction {
    code: u8,
    /// The target in the low half, the source in the high one.
    registers: u8,
    offset: i16,
    immediate: i32,
}

const LOAD_WORD: u8 = 0x61;
const MOVE: u8 = 0xb7;
const MOVE_REGISTER: u8 = 0xbf;
const AND: u8 = 0x57;
const SHIFT_RIGHT: u8 = 0x77;
const JUMP_NOT_EQUAL: u8 = 0x55;
const EXIT: u8 = 0x95;

/// The program that decides by `struct bpf_cgroup_dev_ctx`: kind and access in one word, then major, then minor.
fn program(rules: &[Rule]) -> Vec<Instruction> {
    let step = |code, target: u8, source: u8, offset, immediate| Instruction {
        code,
        registers: target | source << 4,
        offset,
        immediate,
    };
    let number = |number: u32| number.cast_signed();
    // r2 is the kind, r3 the access, r4 the major and r5 the minor number.
    let mut program = vec![
        step(LOAD_WORD, 2, 1, 0, 0),
        step(MOVE_REGISTER, 3, 2, 0, 0),
        step(AND, 2, 0, 0, 0xffff),
        step(SHIFT_RIGHT, 3, 0, 0, 16),
        step(LOAD_WORD, 4, 1, 4, 0),
        step(LOAD_WORD, 5, 1, 8, 0),
    ];
    for rule in rules {
        let kind = if rule.kind == Kind::Block { 1 } else { 2 };
        // Each test leads behind the rule when it fails; how far is known at the end.
        let mut tests = vec![
            step(JUMP_NOT_EQUAL, 2, 0, 0, kind),
            step(MOVE_REGISTER, 1, 3, 0, 0),
            step(AND, 1, 0, 0, number(!rule.access & (MAKE | READ | WRITE))),
            step(JUMP_NOT_EQUAL, 1, 0, 0, 0),
        ];
        tests.extend(rule.major.map(|major| step(JUMP_NOT_EQUAL, 4, 0, 0, number(major))));
        tests.extend(rule.minor.map(|minor| step(JUMP_NOT_EQUAL, 5, 0, 0, number(minor))));
        tests.extend([step(MOVE, 0, 0, 0, 1), step(EXIT, 0, 0, 0, 0)]);
        let length = tests.len();
        for (index, test) in tests.iter_mut().enumerate().filter(|(_, test)| test.code == JUMP_NOT_EQUAL) {
            test.offset = i16::try_from(length - index - 1).expect("a rule has eight steps at most");
        }
        program.extend(tests);
    }
    program.extend([step(MOVE, 0, 0, 0, 0), step(EXIT, 0, 0, 0, 0)]);
    program
}

/// Restricts a group of version 2. The program goes with the group.
///
/// # Errors
/// When the kernel takes no such programs: then nothing would control devices.
pub fn restrict_second(group: BorrowedFd<'_>, rules: &[Rule]) -> io::Result<()> {
    const LOAD: libc::c_long = 5;
    const ATTACH: libc::c_long = 8;
    const PROGRAM_OF_GROUP_DEVICES: u32 = 15;
    const ATTACH_TO_GROUP_DEVICES: u32 = 6;
    /// Beside programs of others: all have to agree.
    const MULTIPLE: u32 = 2;
    #[repr(C)]
    #[derive(Default)]
    struct Load {
        kind: u32,
        length: u32,
        instructions: u64,
        licence: u64,
        log: [u32; 2],
        log_buffer: u64,
        kernel_version: u32,
        flags: u32,
    }
    #[repr(C)]
    struct Attach {
        target: u32,
        program: u32,
        kind: u32,
        flags: u32,
    }
    fn call<T>(command: libc::c_long, attributes: &T) -> io::Result<libc::c_long> {
        // SAFETY: the structure is as large as said, what it points to lives until the call returns.
        match unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>()) }
        {
            -1 => Err(io::Error::last_os_error()),
            result => Ok(result),
        }
    }
    let program = program(rules);
    let load = Load {
        kind: PROGRAM_OF_GROUP_DEVICES,
        length: u32::try_from(program.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?,
        instructions: program.as_ptr() as u64,
        licence: c"Apache-2.0".as_ptr() as u64,
        ..Load::default()
    };
    let loaded = call(LOAD, &load)?;
    // SAFETY: the descriptor was just made, and is nobody else's.
    let loaded = unsafe { OwnedFd::from_raw_fd(loaded as libc::c_int) };
    let attach = Attach {
        target: group.as_raw_fd().cast_unsigned(),
        program: loaded.as_raw_fd().cast_unsigned(),
        kind: ATTACH_TO_GROUP_DEVICES,
        flags: MULTIPLE,
    };
    call(ATTACH, &attach).map(drop)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::fd::AsFd;
    use std::path::{Path, PathBuf};

    /// What the kernel's machine would answer, in a few lines.
    fn judge(program: &[Instruction], kind: u32, access: u32, major: u32, minor: u32) -> u64 {
        let context = [kind | access << 16, major, minor];
        let (mut registers, mut at) = ([0_u64; 11], 0);
        loop {
            let Instruction { code, registers: both, offset, immediate } = program[at];
            let (target, source) = (usize::from(both & 15), usize::from(both >> 4));
            at += 1;
            match code {
                LOAD_WORD => {
                    registers[target] = context[usize::try_from(offset).unwrap() / 4].into();
                }
                MOVE => registers[target] = immediate as u64,
                MOVE_REGISTER => registers[target] = registers[source],
                AND => registers[target] &= immediate as u64,
                SHIFT_RIGHT => registers[target] >>= immediate,
                JUMP_NOT_EQUAL if registers[target] != immediate as u64 => {
                    at += usize::try_from(offset).unwrap();
                }
                JUMP_NOT_EQUAL => {}
                EXIT => return registers[0],
                other => panic!("{other:#x}"),
            }
        }
    }

    #[test]
    fn the_program_allows_what_the_list_says() {
        let extra = Rule { kind: Kind::Block, major: Some(7), minor: Some(1), access: READ };
        let rules: Vec<Rule> = USUAL.into_iter().chain([extra]).collect();
        let program = program(&rules);
        let (block, character) = (1, 2);
        for (kind, access, major, minor, allowed) in [
            (character, READ | WRITE, 1, 3, 1),
            (character, READ | WRITE, 136, 4711, 1),
            (character, READ, 4, 64, 0),
            (character, MAKE, 4, 64, 1),
            (character, MAKE | READ, 4, 64, 0),
            (block, READ, 7, 1, 1),
            (block, WRITE, 7, 1, 0),
            (block, READ, 7, 0, 0),
            (block, MAKE, 8, 0, 1),
            // A disk has the number of a harmless terminal.
            (block, READ, 1, 3, 0),
        ] {
            let case = format!("{kind} {access} {major}:{minor}");
            assert_eq!(judge(&program, kind, access, major, minor), allowed, "{case}");
        }
    }

    #[test]
    fn version_1_is_told_in_its_words() {
        assert_eq!(text(&USUAL[1]), "b *:* m");
        assert_eq!(text(&USUAL[2]), "c 1:3 rwm");
        assert_eq!(text(&USUAL[10]), "c 136:* rwm");
    }

    /// A group of version 2 that this host has room for; the hybrid layout has one beside version 1.
    struct Group(PathBuf);

    impl Group {
        fn new() -> Option<Group> {
            let roots = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
            let root = roots.iter().find(|root| Path::new(root).join("cgroup.controllers").exists())?;
            let path = Path::new(root).join(format!("gantry-devices-{}", std::process::id()));
            fs::create_dir(&path).ok().map(|()| Group(path))
        }
    }

    impl Drop for Group {
        fn drop(&mut self) {
            fs::remove_dir(&self.0).unwrap();
        }
    }

    /// Opens a file for reading as a member of a group, in a process of its own.
    fn opens(group: &Group, file: &str) -> bool {
        let script = format!("echo $$ > {}/cgroup.procs && : < {file}", group.0.display());
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", &script]).stderr(std::process::Stdio::null());
        shell.status().unwrap().success()
    }

    #[test]
    fn the_kernel_takes_the_program_and_heeds_it() {
        if !nix::unistd::geteuid().is_root() {
            return eprintln!("skipped: control groups need root");
        }
        let Some(group) = Group::new() else {
            return eprintln!("skipped: this host has no control groups of version 2");
        };
        let kernel_log = "/dev/kmsg";
        let readable = [kernel_log, "/dev/null"].map(|file| opens(&group, file));
        let directory = fs::File::open(&group.0).unwrap();
        restrict_second(directory.as_fd(), &USUAL).unwrap();
        assert!(opens(&group, "/dev/null"));
        assert!(!opens(&group, kernel_log), "a device that is not on the list");
        assert_eq!(readable, [true, true], "without the program both could be opened");
    }
}
