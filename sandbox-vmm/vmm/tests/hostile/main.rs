//! The VMM against machine code that means ill, in place of the guest's runtime: on real KVM.
//!
//! Whatever the code does, the VM ends by itself or by being told to, with an event that says why, and the process that
//! holds it goes on.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on fails, in its helpers too"
)]

mod expected;
mod program;
mod reset;

use program::Program;
use rustix::event::{EventfdFlags, eventfd};
use sandbox_abi::boot::field;
use sandbox_abi::message::{Header, Kind, MAX_PAYLOAD};
use sandbox_abi::{layout, port};
use sandbox_ring::host::{HostRing, RingMemory};
use sandbox_ring::{Consumer, Producer};
use sandbox_vmm::watch::TICK;
use sandbox_vmm::{Begin, Factory, ResetDescriptors, Vm, VmDescriptors, VmEvent, VmPlan, Watch};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Nothing here takes longer, on a machine however busy; the watch gives a mute guest 10 s.
const PATIENCE: Duration = Duration::from_secs(60);

struct Running {
    vm: Arc<Vm>,
    rings: Arc<RingMemory>,
    doorbell: OwnedFd,
    wake: OwnedFd,
    events: Receiver<VmEvent>,
}

fn start(program: &Program) -> Running {
    begin(&factory(program), Begin::Boot(None), None)
}

fn factory(program: &Program) -> Factory {
    Factory::new(&program.elf()).expect("is /dev/kvm there, and may this user open it?")
}

fn event() -> OwnedFd {
    eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).expect("eventfd")
}

fn begin(factory: &Factory, begin: Begin, reset: Option<ResetDescriptors>) -> Running {
    static WATCH: OnceLock<Watch> = OnceLock::new();
    static NUMBER: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let artifact =
        rustix::fs::memfd_create("artifact", rustix::fs::MemfdFlags::CLOEXEC).expect("memfd");
    rustix::fs::ftruncate(&artifact, layout::PAGE).expect("ftruncate");
    let rings = RingMemory::create().expect("rings");
    let (doorbell, wake) = (event(), event());
    let fds = VmDescriptors {
        artifact,
        rings: rings.as_fd().try_clone_to_owned().expect("dup"),
        wake: wake.try_clone().expect("dup"),
        doorbell: doorbell.try_clone().expect("dup"),
        config: rustix::fs::memfd_create("config", rustix::fs::MemfdFlags::CLOEXEC).expect("memfd"),
    };
    let (send, events) = channel();
    let plan = VmPlan {
        fds,
        ram: layout::RAM_MIN,
        begin,
        reset,
    };
    let vm = Vm::start(factory, plan, move |event| {
        // The test may have ended.
        let _ = send.send(event);
    });
    let vm = Arc::new(vm.expect("a VM: is /dev/kvm there, and may this user open it?"));
    let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    WATCH
        .get_or_init(|| Watch::start().expect("a thread"))
        .add(number, &vm);
    Running {
        vm,
        rings,
        doorbell,
        wake,
        events,
    }
}

impl Running {
    /// The last event; those before it are counted.
    fn end(&self) -> (usize, VmEvent) {
        let mut before = 0;
        loop {
            match self.events.recv_timeout(PATIENCE).expect("the VM ends") {
                VmEvent::Debug(_) | VmEvent::Template(_) | VmEvent::NoTemplate(_) => before += 1,
                last => return (before, last),
            }
        }
    }

    fn lost(&self) -> String {
        match self.end().1 {
            VmEvent::Lost(reason) => reason,
            other => panic!("{other:?}, not lost"),
        }
    }

    fn stops(&self) -> usize {
        self.vm.stop();
        let (before, last) = self.end();
        assert_eq!(last, VmEvent::Stopped);
        before
    }
}

#[test]
fn a_wild_jump_ends_the_vm() {
    for target in [
        0,
        0xdead_0000,
        layout::RAM,
        layout::ARTIFACT,
        u64::MAX,
        1 << 47,
    ] {
        let reason = start(&Program::new().rax(target).jump_to_rax()).lost();
        assert!(!reason.is_empty(), "{target:#x}");
    }
}

#[test]
fn code_is_not_writable_and_data_is_not_executable() {
    // Without a handler for the fault the processor shuts down.
    let write = Program::new()
        .put(layout::RUNTIME as u32, 0)
        .out(port::FATAL);
    let reason = start(&write).lost();
    assert!(reason.contains("Shutdown"), "{reason}");
    // `out FATAL` in the boot page, jumped to: it must never get there.
    let code = u64::from_le_bytes([0xe6, port::FATAL, 0xeb, 0xfe, 0, 0, 0, 0]);
    let at = (layout::BOOT + 0x800) as u32;
    let reason = start(
        &Program::new()
            .put(at, code)
            .rax(u64::from(at))
            .jump_to_rax(),
    )
    .lost();
    assert!(reason.contains("Shutdown"), "{reason}");
}

#[test]
fn a_port_that_does_not_exist_ends_the_vm() {
    let reason = start(&Program::new().out(0x80)).lost();
    assert!(reason.contains("0x80"), "{reason}");
}

#[test]
fn a_made_up_reason_is_reported_as_it_is() {
    let program = Program::new()
        .put((layout::BOOT + field::ARG0) as u32, 0xbad)
        .out(port::FATAL);
    assert!(start(&program).lost().contains("2989"));
}

#[test]
fn a_guest_that_never_yields_is_given_up() {
    assert_eq!(
        start(&Program::new().repeat(0)).lost(),
        "the guest does not answer"
    );
}

#[test]
fn a_guest_that_never_yields_can_be_stopped() {
    let running = start(&Program::new().repeat(0));
    running.stops();
}

#[test]
fn a_flood_of_lines_is_cut_and_their_addresses_are_not_believed() {
    let argument = (layout::BOOT + field::ARG0) as u32;
    for (address, len) in [
        (0, u64::MAX),
        (u64::MAX, 100),
        (layout::RAM - 1, 8192),
        (layout::RAM + layout::RAM_MIN - 1, 2),
    ] {
        let program = Program::new().put(argument, address).put(argument + 8, len);
        let from = program.here();
        let running = start(&program.out(port::DEBUG).repeat(from));
        while running.vm.exits() < 2000 {
            std::thread::yield_now();
        }
        assert!(running.stops() <= 256);
    }
}

#[test]
fn a_flood_of_doorbells_never_reaches_the_vmm() {
    let running = start(&Program::new().out(port::DOORBELL).repeat(0));
    let mut rung = 0;
    while rung < 10_000 {
        let mut count = [0; 8];
        if rustix::io::read(&running.doorbell, &mut count).is_ok() {
            rung += u64::from_ne_bytes(count);
        }
    }
    assert!(
        running.vm.exits() < rung / 10,
        "{} exits",
        running.vm.exits()
    );
    running.stops();
}

#[test]
fn a_flood_of_flushes_and_sleeps_can_be_stopped() {
    let argument = (layout::BOOT + field::ARG0) as u32;
    for (ns, port) in [
        (0, port::SLEEP),
        (1, port::SLEEP),
        (u64::MAX - 1, port::SLEEP),
        (0, port::FLUSH),
        (0, port::CLOCK),
    ] {
        let program = Program::new().put(argument, ns);
        let from = program.here();
        let running = start(&program.out(port).repeat(from));
        running.stops();
    }
}

#[test]
fn a_guest_that_sleeps_is_left_alone() {
    let program = Program::new().put((layout::BOOT + field::ARG0) as u32, u64::MAX);
    let from = program.here();
    let running = start(&program.out(port::SLEEP).repeat(from));
    while running.vm.exits() == 0 {
        std::thread::yield_now();
    }
    // Not a wait for something: time in which nothing is to happen.
    std::thread::sleep(40 * TICK);
    assert_eq!(running.vm.exits(), 1);
    running.stops();
}

#[test]
fn a_guest_that_wipes_its_own_tables_ends() {
    let tables = Program::new()
        .rdi(layout::PML4)
        .rcx(0x6000)
        .rax(0)
        .fill()
        .out(port::FLUSH)
        .repeat(0);
    assert!(!start(&tables).lost().is_empty());
}

#[test]
fn what_no_slot_backs_cannot_be_read() {
    // Maps the GiB from 0x4000_0000, where nothing is, and reads it.
    let program = Program::new()
        .put(0x3_0000, 0x4000_0000 | 0x87)
        .put(layout::BOOT_TABLES as u32 + 8, 0x3_0000 | 7)
        .rdi(0x4000_0000)
        .load()
        .out(port::FATAL);
    let reason = start(&program).lost();
    assert!(
        reason.contains("Mmio") || reason.contains("Shutdown") || reason.contains("Internal"),
        "{reason}"
    );
}

#[test]
fn a_lie_about_where_wasm_code_is_harms_the_guest_alone() {
    // All addresses are "wasm", and a kick is to continue at a place that is not mapped.
    let boot = layout::BOOT as u32;
    let program = Program::new()
        .put(boot + field::WASM_START as u32, 0)
        .put(boot + field::WASM_END as u32, u64::MAX)
        .put(boot + field::PREEMPT_ENTRY as u32, 0xdead_beef_0000);
    let from = program.here();
    assert!(!start(&program.repeat(from)).lost().is_empty());
}

#[test]
fn a_guest_that_scribbles_over_the_rings_confuses_nobody_else() {
    let program = Program::new().map_rings();
    let from = program.here();
    let running = start(
        &program
            .rdi(layout::RINGS)
            .rcx(layout::RINGS_LEN / 8)
            .fill_with_noise()
            .out(port::DOORBELL)
            .repeat(from),
    );
    let mut rung = [0; 8];
    while rustix::io::read(&running.doorbell, &mut rung).is_err() {
        std::thread::yield_now();
    }
    let mut buffer = vec![0; MAX_PAYLOAD];
    let (mut corrupt, mut rounds) = (0, 0);
    while rounds < 2000 {
        rounds += 1;
        let mut consumer = Consumer::new(HostRing::guest_to_host(&running.rings));
        let mut producer = Producer::new(HostRing::host_to_guest(&running.rings));
        while let Ok(Some((header, payload))) = consumer.pop(&mut buffer) {
            assert_eq!(header.len as usize, payload.len());
            consumer.release();
        }
        corrupt += usize::from(consumer.pop(&mut buffer).is_err());
        for _ in 0..100 {
            if producer
                .push(Header::new(Kind::Data, 1, 0), &[7; 20_000])
                .is_err()
            {
                break;
            }
        }
        let _ = (producer.wait(100), consumer.sleep());
    }
    assert!(
        corrupt > 0,
        "the guest wrote what can be no ring, and it was noticed"
    );
    running.stops();
}

#[test]
fn a_guest_sees_nothing_of_the_host_in_fresh_memory() {
    // Counts the words of RAM that are not zero, and says how many by its reason for ending.
    let boot = (layout::BOOT + field::ARG0) as u32;
    let mut program = Program::new()
        .rdi(layout::RAM)
        .rcx(layout::RAM_FIRST / 8)
        .rax(0);
    program = program.scan_while_zero().store_rcx(boot).out(port::FATAL);
    let reason = start(&program).lost();
    assert!(
        reason.ends_with("code 0"),
        "words left when the first that is not zero was found: {reason}"
    );
}
