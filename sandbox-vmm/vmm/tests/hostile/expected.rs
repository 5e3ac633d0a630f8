//! What a guest says of the pages that it wrote, and what the next one with its template is told.

use crate::program::Program;
use crate::{Running, begin, factory};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::AsFd as _;
use sandbox_abi::boot::field;
use sandbox_abi::expected::{ENTRY, MOST, state};
use sandbox_abi::{layout, port};
use sandbox_vmm::{Begin, Factory, Template, VmEvent};
use std::sync::Arc;

/// Where the test says what the guest is to do: a word of the rings.
const FIRST: u64 = 0x2000;

fn at(field: u64) -> u32 {
    (layout::BOOT + field) as u32
}

/// Sends `len` bytes of the boot page.
fn show(field: u64, len: u64) -> Program {
    Program::new()
        .put(at(field::ARG0), layout::BOOT + field)
        .put(at(field::ARG1), len)
        .out(port::DEBUG)
}

/// A factory with a template of a guest: the one that is told so runs `first`, sleeps, and rings; the others show what they
/// were told.
fn with_template(first: Program) -> (Factory, Arc<Template>) {
    let first = first
        .put(at(field::ARG0), 1)
        .out(port::SLEEP)
        .out(port::DOORBELL)
        .put(at(field::ARG0), u64::MAX)
        .out(port::SLEEP);
    let program = Program::new()
        .map_rings()
        .template()
        .load_from((layout::RINGS + FIRST) as u32)
        .unless_zero(first)
        .append(show(field::EXPECTED, 16))
        .append(show(field::EXPECTED_LIST, MOST * ENTRY))
        .out(port::FATAL);
    let factory = factory(&program);
    let file = rustix::fs::memfd_create("template", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    let booted = begin(&factory, Begin::Boot(Some(file.try_clone().unwrap())), None);
    let shown = shown(&booted);
    // One that boots is neither told nor asked.
    assert_eq!(shown.0, [state::NONE, 0]);
    let template = Template::open(file, factory.image()).unwrap();
    (factory, Arc::new(template))
}

fn wake(running: &Running) {
    rustix::io::write(&running.wake, &1_u64.to_ne_bytes()).unwrap();
}

/// What a guest shows: what there is of a list, its length, and the list.
fn shown(running: &Running) -> ([u64; 2], Vec<u64>) {
    let words = |text: &str| {
        let words = text.as_bytes().as_chunks().0.iter();
        words.map(|w| u64::from_le_bytes(*w)).collect::<Vec<_>>()
    };
    let mut lines = Vec::new();
    loop {
        match running.events.recv_timeout(crate::PATIENCE).unwrap() {
            VmEvent::Debug(line) => lines.push(words(&line)),
            VmEvent::Template(_) => {}
            _ => break,
        }
    }
    let [told, list] = <[Vec<u64>; 2]>::try_from(lines).unwrap();
    (told.try_into().unwrap(), list)
}

fn next(factory: &Factory, template: &Arc<Template>) -> Running {
    begin(factory, Begin::Template(Arc::clone(template)), None)
}

/// What the second VM is told after the first one ran `first`.
fn told_after(first: Program) -> ([u64; 2], Vec<u64>) {
    let (factory, template) = with_template(first);
    let one = next(&factory, &template);
    rustix::io::pwrite(one.rings.as_fd(), &1_u64.to_ne_bytes(), FIRST).unwrap();
    wake(&one);
    poll(&mut [PollFd::new(&one.doorbell, PollFlags::IN)], None).unwrap();
    one.stops();
    let other = next(&factory, &template);
    wake(&other);
    shown(&other)
}

#[test]
fn a_list_comes_as_it_was_written_and_no_longer_than_it_may_be() {
    let last = field::EXPECTED_LIST + (MOST - 1) * ENTRY;
    let list = |count: u64| {
        Program::new()
            .put(at(field::EXPECTED_LIST), 0x11)
            .put(at(field::EXPECTED_LIST + ENTRY), 0x22)
            .put(at(last), 0x33)
            .put(at(field::EXPECTED_COUNT), count)
            .put(at(field::EXPECTED), state::WRITTEN)
    };
    for (count, kept) in [
        (1, 1),
        (2, 2),
        (MOST, MOST),
        (MOST + 1, MOST),
        (u64::MAX, MOST),
    ] {
        let (told, list) = told_after(list(count));
        assert_eq!(told, [state::KNOWN, kept], "{count}");
        let mut wanted = vec![0; MOST as usize];
        wanted[0] = 0x11;
        wanted[1] = if kept > 1 { 0x22 } else { 0 };
        wanted[MOST as usize - 1] = if kept == MOST { 0x33 } else { 0 };
        assert_eq!(list, wanted, "{count}");
    }
}

#[test]
fn a_guest_that_has_not_written_its_list_is_not_heard() {
    for said in [state::NONE, state::WANTED, state::KNOWN, u64::MAX] {
        let first = Program::new()
            .put(at(field::EXPECTED_COUNT), 1)
            .put(at(field::EXPECTED), said);
        let (told, _) = told_after(first);
        assert_eq!(told, [state::WANTED, 0], "{said}");
    }
}
