//! The image of the container that holds what a task's containers share. It is made here, so that nothing has to be
//! fetched: one program of a few hundred bytes, which waits and, as the first process of a task, collects orphans.

use super::api::Progress;
use super::client::{Client, DockerError, LOOK_MAX, bytes, quoted};
use http::Method;
use http_body_util::{BodyExt, Limited};
use std::io;

/// The image's name; the version is that of the program in it.
pub const IMAGE: &str = "gantry/pause:1";

/// Where the program begins in memory: the linker's usual place.
const BASE: u64 = 0x40_0000;
/// Of the two headers before the program.
const HEADERS: u64 = 64 + 56;
/// `struct sigaction` of the kernel with `SIG_IGN`: handler, flags, restorer, mask.
const IGNORE: [u64; 4] = [1, 0, 0, 0];

/// The program's instructions, with which `IGNORE` lies behind them: `rt_sigaction(SIGCHLD, &IGNORE, NULL, 8)`, with
/// which the kernel collects children that end, and then waiting for ever.
#[cfg(target_arch = "x86_64")]
const CODE: &[u8] = &[
    0x48, 0x8d, 0x35, 0x21, 0x00, 0x00, 0x00, // lea rsi, [rip + IGNORE]
    0x31, 0xd2, // xor edx, edx
    0xbf, 0x11, 0x00, 0x00, 0x00, // mov edi, SIGCHLD
    0x41, 0xba, 0x08, 0x00, 0x00, 0x00, // mov r10d, 8
    0xb8, 0x0d, 0x00, 0x00, 0x00, // mov eax, SYS_rt_sigaction
    0x0f, 0x05, // syscall
    0xb8, 0x22, 0x00, 0x00, 0x00, // mov eax, SYS_pause
    0x0f, 0x05, // syscall
    0xeb, 0xf7, // jmp to the mov
    0x90, 0x90, 0x90, 0x90, // to a multiple of eight
];
#[cfg(target_arch = "x86_64")]
const MACHINE: u16 = 62;

#[cfg(target_arch = "aarch64")]
const CODE: &[u8] = &[
    0xc1, 0x01, 0x00, 0x10, // adr x1, IGNORE
    0x20, 0x02, 0x80, 0xd2, // mov x0, SIGCHLD
    0x02, 0x00, 0x80, 0xd2, // mov x2, 0
    0x03, 0x01, 0x80, 0xd2, // mov x3, 8
    0xc8, 0x10, 0x80, 0xd2, // mov x8, SYS_rt_sigaction
    0x01, 0x00, 0x00, 0xd4, // svc 0
    0x00, 0x00, 0x80, 0xd2, // mov x0, 0
    0x01, 0x00, 0x80, 0xd2, // mov x1, 0
    0x02, 0x00, 0x80, 0xd2, // mov x2, 0
    0x03, 0x00, 0x80, 0xd2, // mov x3, 0
    0x04, 0x01, 0x80, 0xd2, // mov x4, 8
    0x28, 0x09, 0x80, 0xd2, // mov x8, SYS_ppoll
    0x01, 0x00, 0x00, 0xd4, // svc 0
    0xf9, 0xff, 0xff, 0x17, // b to the seventh before
];
#[cfg(target_arch = "aarch64")]
const MACHINE: u16 = 183;

/// The program as a static ELF file: its header, the header of its one segment, instructions and data.
fn program() -> Vec<u8> {
    let length = HEADERS + (CODE.len() + size_of_val(&IGNORE)) as u64;
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    // Executable, machine, version.
    for number in [2_u16, MACHINE] {
        file.extend(number.to_le_bytes());
    }
    file.extend(1_u32.to_le_bytes());
    // Where it begins; where its segment's header is; no sections.
    for number in [BASE + HEADERS, 64, 0] {
        file.extend(number.to_le_bytes());
    }
    file.extend(0_u32.to_le_bytes());
    // Sizes and numbers of headers.
    for number in [64_u16, 56, 1, 0, 0, 0] {
        file.extend(number.to_le_bytes());
    }
    // A segment to load, to be read and executed: the whole file.
    for number in [1_u32, 5] {
        file.extend(number.to_le_bytes());
    }
    for number in [0, BASE, BASE, length, length, 0x1000] {
        file.extend(number.to_le_bytes());
    }
    file.extend_from_slice(CODE);
    file.extend(IGNORE.iter().flat_map(|number| number.to_le_bytes()));
    file
}

/// The image's file system.
fn archive() -> io::Result<Vec<u8>> {
    let program = program();
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o755);
    header.set_size(program.len() as u64);
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_data(&mut header, "pause", program.as_slice())?;
    archive.into_inner()
}

/// Makes the image, if it is not there.
///
/// # Errors
/// When the engine does not take it.
pub async fn ensure(client: &Client) -> Result<(), DockerError> {
    match client.order(Method::GET, &format!("images/{}/json", quoted(IMAGE)), LOOK_MAX).await {
        Err(error) if error.is_absent() => {}
        other => return other,
    }
    let broken = |source: Box<dyn std::error::Error + Send + Sync>| DockerError::Broken {
        doing: "making the pause image".to_owned(),
        source,
    };
    let (name, tag) = IMAGE.split_once(':').unwrap_or((IMAGE, "latest"));
    let entrypoint = quoted(r#"ENTRYPOINT ["/pause"]"#);
    let path = format!("images/create?fromSrc=-&repo={}&tag={tag}&changes={entrypoint}", quoted(name));
    let archive = archive().map_err(|error| broken(error.into()))?;
    let answer = client.open(Method::POST, &path, Some(("application/x-tar", bytes(archive)))).await?;
    /// Bytes of what is said: one line.
    const SAID_MAX: usize = 64 << 10;
    let said = Limited::new(answer.into_body(), SAID_MAX).collect().await.map_err(broken)?.to_bytes();
    let lines =
        said.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice::<Progress>(line).ok());
    match lines.filter_map(|line| line.error).next() {
        Some(error) => Err(broken(error.into())),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    #[test]
    fn the_program_waits_until_it_is_killed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pause");
        std::fs::write(&path, program()).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let mut child = std::process::Command::new(&path).spawn().unwrap();
        // SIGCHLD, the 17th, is ignored once the first system call is done.
        let ignores = || {
            let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
            let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:\t")).unwrap().to_owned();
            u64::from_str_radix(&line, 16).unwrap() & 1 << 16 != 0
        };
        let began = std::time::Instant::now();
        while !ignores() {
            assert!(began.elapsed() < Duration::from_secs(10), "it does not ignore the end of children");
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        assert!(!child.wait().unwrap().success());
    }
}
