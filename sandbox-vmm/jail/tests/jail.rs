//! Each check runs in a process of its own, which this executable starts as itself: confinement cannot be undone.

use rustix::process::Pid;
use sandbox_jail::{CompilerLimits, JailError, confine_compiler, harden};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitCode, ExitStatus};

/// A name, what the child does (given its parent's process id), and how the child has to end.
type Check = (&'static str, fn(Pid), fn(ExitStatus) -> bool);

const CHECKS: &[Check] = &[
    ("worker_gives_up_what_it_must", worker, |status| {
        status.success()
    }),
    ("orphan_is_noticed", orphan, |status| status.success()),
    ("compiler_has_limits", compiler, |status| status.success()),
    ("compiler_memory_is_capped", memory, |status| {
        status.signal() == Some(libc::SIGABRT)
    }),
    ("compiler_time_is_capped", spin, |status| {
        status.signal() == Some(libc::SIGXCPU)
    }),
    ("compiler_output_is_capped", output, |status| {
        status.signal() == Some(libc::SIGXFSZ)
    }),
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    if let [_, role, name, parent] = args.as_slice()
        && role == "__check"
    {
        let check = CHECKS
            .iter()
            .find(|check| check.0 == name)
            .expect("a known check");
        let parent = parent
            .parse()
            .ok()
            .and_then(Pid::from_raw)
            .expect("a process id");
        check.1(parent);
        return ExitCode::SUCCESS;
    }
    let mut failed = false;
    for (name, _, expected) in CHECKS {
        let child = Command::new(std::env::current_exe().expect("this executable"))
            .args(["__check", name, &std::process::id().to_string()])
            .env_remove("RUST_BACKTRACE")
            .output()
            .expect("a child");
        let good = expected(child.status);
        print!("{}", String::from_utf8_lossy(&child.stdout));
        if !good {
            print!(
                "{}: {}",
                child.status,
                String::from_utf8_lossy(&child.stderr)
            );
        }
        println!("test {name} ... {}", if good { "ok" } else { "FAILED" });
        failed |= !good;
    }
    if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

fn status_line(name: &str) -> String {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc");
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.expect("a line of /proc/self/status").trim().to_owned()
}

fn worker(parent: Pid) {
    let leaked = std::fs::File::open("/dev/null").expect("/dev/null");
    std::mem::forget(leaked);
    harden(Some(parent), 3).expect("hardened");
    assert_eq!(status_line("NoNewPrivs:"), "1");
    assert_eq!(
        rustix::process::getsid(None).ok(),
        Some(rustix::process::getpid())
    );
    let core = rustix::process::getrlimit(rustix::process::Resource::Core);
    assert_eq!((core.current, core.maximum), (Some(0), Some(0)));
    // The listing itself holds one descriptor.
    let open = std::fs::read_dir("/proc/self/fd").expect("/proc").count();
    assert!(open <= 4, "{open} descriptors are open");
    assert_eq!(
        rustix::process::parent_process_death_signal()
            .ok()
            .flatten(),
        Some(rustix::process::Signal::KILL)
    );
}

fn orphan(_: Pid) {
    let nobody = Pid::from_raw(i32::MAX).expect("a process id");
    assert!(matches!(
        harden(Some(nobody), 3),
        Err(JailError::Orphaned { .. })
    ));
}

fn limits() -> CompilerLimits {
    CompilerLimits {
        memory_bytes: 1 << 30,
        cpu_seconds: 1,
        output_bytes: 4096,
    }
}

fn compiler(parent: Pid) {
    let confinement = confine_compiler(parent, &limits()).expect("confined");
    let memory = rustix::process::getrlimit(rustix::process::Resource::As);
    assert_eq!(memory.maximum, Some(1 << 30));
    assert_eq!(status_line("NoNewPrivs:"), "1");
    if confinement.network {
        // Only a loopback device that is down is left.
        let connected = std::net::TcpStream::connect(("127.0.0.1", 9));
        let error = connected.expect_err("no network").raw_os_error();
        assert_eq!(error, Some(rustix::io::Errno::NETUNREACH.raw_os_error()));
    } else {
        println!(
            "note: this host has no unprivileged user namespaces, so a compiler keeps its network"
        );
    }
}

fn memory(parent: Pid) {
    confine_compiler(parent, &limits()).expect("confined");
    let block = std::hint::black_box(vec![0u8; 2 << 30]);
    assert!(block.is_empty(), "the limit did not hold");
}

fn spin(parent: Pid) {
    confine_compiler(parent, &limits()).expect("confined");
    let start = std::time::Instant::now();
    while start.elapsed().as_secs() < 20 {
        std::hint::black_box(start);
    }
}

fn output(parent: Pid) {
    use std::io::Write;
    let path = std::env::temp_dir().join(format!("sandbox-jail-{}", std::process::id()));
    confine_compiler(parent, &limits()).expect("confined");
    let mut file = std::fs::File::create(&path).expect("a file");
    // Its name is gone before the signal comes.
    std::fs::remove_file(&path).expect("removed");
    let _ = file
        .write_all(&[0; 8192])
        .and_then(|()| file.write_all(&[0; 8192]));
}
