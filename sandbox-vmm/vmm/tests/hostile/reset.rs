//! What a request leaves in a VM that is put back after it: nothing, be it in memory, in page tables, or in what is
//! remembered of them.

use crate::program::Program;
use crate::{Running, begin, event, factory};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::{AsFd as _, OwnedFd};
use sandbox_abi::{layout, port};
use sandbox_vmm::{Begin, ResetDescriptors, Template, VmEvent};
use std::sync::Arc;

/// Where the test says which round it is: a word of the rings.
const ROUND: u64 = 0x2000;
/// A page of the system slot that is not mapped.
const HOLE: u64 = 0xf0_0000;
/// A page of RAM.
const PAGE_OF_RAM: u64 = layout::RAM + (5 << 20);
/// Another one.
const OTHER_PAGE: u64 = layout::RAM + (6 << 20);
/// The tables of the boot: see `sandbox_vmm::tables`.
const LOW_DIRECTORY: u32 = layout::BOOT_TABLES as u32 + 0x1000;
const RAM_DIRECTORY: u32 = layout::BOOT_TABLES as u32 + 0x2000;
const LOW_PAGES: u32 = layout::BOOT_TABLES as u32 + 0x3000;
const LARGE: u64 = 1 << 7;
/// Present, writable, of ring 3.
const MAPPED: u64 = 7;

struct Node {
    running: Running,
    request: OwnedFd,
    done: OwnedFd,
}

fn tell(event: &OwnedFd) {
    rustix::io::write(event, &1_u64.to_ne_bytes()).unwrap();
}

fn wait(event: &OwnedFd) {
    poll(&mut [PollFd::new(event, PollFlags::IN)], None).unwrap();
    rustix::io::read(event, &mut [0_u8; 8]).unwrap();
}

/// Starts a VM whose requests run `first` in the first round, and `then` in those after it.
fn start(first: Program, then: Program) -> Node {
    let idle = |program: Program| {
        program
            .out(port::DOORBELL)
            .put(SLEEP_NS, u64::MAX)
            .out(port::SLEEP)
    };
    let program = Program::new()
        .map_rings()
        .template()
        .template()
        .load_from((layout::RINGS + ROUND) as u32)
        .unless_zero(idle(first));
    let program = idle(program.append(then));
    let factory = factory(&program);
    let file = rustix::fs::memfd_create("template", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    let booted = begin(&factory, Begin::Boot(Some(file.try_clone().unwrap())), None);
    let saved = booted.events.recv_timeout(crate::PATIENCE).unwrap();
    assert!(matches!(saved, VmEvent::Template(_)), "{saved:?}");
    // It may have ended by itself: it goes on with what comes after the first round.
    booted.vm.stop();
    booted.end();
    let template = Arc::new(Template::open(file, factory.image()).unwrap());
    let (request, done) = (event(), event());
    let reset = ResetDescriptors {
        request: request.try_clone().unwrap(),
        done: done.try_clone().unwrap(),
    };
    let running = begin(&factory, Begin::Template(template), Some(reset));
    Node {
        running,
        request,
        done,
    }
}

const SLEEP_NS: u32 = (layout::BOOT + sandbox_abi::boot::field::ARG0) as u32;

impl Node {
    /// Runs the first round, puts the VM back, and begins the second one.
    fn two_rounds(&self) {
        let word = 1_u64.to_ne_bytes();
        rustix::io::pwrite(self.running.rings.as_fd(), &word, ROUND).unwrap();
        tell(&self.running.wake);
        wait(&self.running.doorbell);
        self.put_back();
        tell(&self.running.wake);
    }

    fn put_back(&self) {
        tell(&self.request);
        wait(&self.done);
        let mut word = [1; 8];
        rustix::io::pread(self.running.rings.as_fd(), &mut word, ROUND).unwrap();
        assert_eq!(word, [0; 8], "the rings are zeroes");
    }

    /// Why the VM ended in the second round.
    fn lost(&self) -> String {
        self.two_rounds();
        self.running.lost()
    }
}

/// Says by its reason for ending how much of RAM is zeroes, counted from its end.
fn count_words() -> Program {
    Program::new()
        .rdi(layout::RAM)
        .rcx(layout::RAM_FIRST / 8)
        .rax(0)
        .scan_while_zero()
        .store_rcx(SLEEP_NS)
        .out(port::FATAL)
}

fn fill(gpa: u64, len: u64) -> Program {
    Program::new().rdi(gpa).rcx(len / 8).fill_with_noise()
}

/// Maps a page where there is none, and writes to it.
fn map_hole() -> Program {
    Program::new()
        .put(LOW_PAGES + (HOLE >> 12) as u32 * 8, PAGE_OF_RAM | MAPPED)
        .put(HOLE as u32, 0x5ec7e7)
}

/// Reads a word that is not to be there, and says so if it is.
fn read(address: u64) -> Program {
    Program::new()
        .rdi(address)
        .load()
        .put(SLEEP_NS, 0x5ec7e7)
        .out(port::FATAL)
}

#[test]
fn memory_is_what_it_was() {
    for (gpa, len) in [
        (PAGE_OF_RAM, layout::PAGE),
        (layout::RAM, layout::RAM_FIRST),
    ] {
        let reason = start(fill(gpa, len), count_words()).lost();
        assert!(reason.ends_with("code 0"), "{reason}");
    }
}

#[test]
fn a_request_cannot_choose_what_the_vm_is_put_back_to() {
    let evil = fill(PAGE_OF_RAM, layout::PAGE).template();
    let reason = start(evil, count_words()).lost();
    assert!(reason.ends_with("code 0"), "{reason}");
}

#[test]
fn a_page_that_was_mapped_is_not_any_more() {
    let evil = map_hole();
    let node = start(evil, read(HOLE));
    let reason = node.lost();
    assert!(reason.contains("Shutdown"), "{reason}");
}

#[test]
fn a_table_that_was_put_in_is_out_again() {
    // The 100th large page, by way of a table in RAM.
    let evil = Program::new()
        .rdi(PAGE_OF_RAM)
        .rax(OTHER_PAGE | MAPPED)
        .rcx(512)
        .fill()
        .put(LOW_DIRECTORY + 100 * 8, PAGE_OF_RAM | MAPPED)
        .put(100 << 21, 0x5ec7e7);
    let reason = start(evil, read(100 << 21)).lost();
    assert!(reason.contains("Shutdown"), "{reason}");
}

#[test]
fn a_large_page_that_was_mapped_is_not_any_more() {
    let behind = layout::RAM + layout::RAM_FIRST;
    let number = (behind - layout::RAM) >> 21;
    let evil = Program::new()
        .put(
            RAM_DIRECTORY + number as u32 * 8,
            layout::RAM | MAPPED | LARGE,
        )
        .rdi(behind)
        .load();
    let reason = start(evil, read(behind)).lost();
    assert!(reason.contains("Shutdown"), "{reason}");
}

#[test]
fn a_page_that_was_made_writable_is_not_any_more() {
    let code = layout::RUNTIME;
    let entry = LOW_DIRECTORY + (code >> 21) as u32 * 8;
    let evil = Program::new()
        .put(entry, code | MAPPED | LARGE)
        .put(code as u32 + 0xf00, 0x5ec7e7);
    let write = Program::new()
        .put(code as u32 + 0xf00, 1)
        .put(SLEEP_NS, 0x5ec7e7)
        .out(port::FATAL);
    let reason = start(evil, write).lost();
    assert!(reason.contains("Shutdown"), "{reason}");
}

#[test]
fn tables_that_lead_to_themselves_do_no_harm() {
    // The table of the low pages, mapped as one of its own pages and as a table of RAM.
    let evil = Program::new()
        .put(
            LOW_PAGES + (HOLE >> 12) as u32 * 8,
            u64::from(LOW_PAGES) | MAPPED,
        )
        .put(RAM_DIRECTORY + 300 * 8, u64::from(LOW_PAGES) | MAPPED)
        .put(HOLE as u32 + 8, 0);
    let reason = start(evil, read(HOLE)).lost();
    assert!(reason.contains("Shutdown"), "{reason}");
}

#[test]
fn it_is_put_back_again_and_again() {
    let evil = map_hole();
    let node = start(Program::new(), evil);
    for _ in 0..100 {
        tell(&node.running.wake);
        wait(&node.running.doorbell);
        node.put_back();
    }
    node.running.stops();
}
