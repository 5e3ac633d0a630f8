//! Address ranges that are copied on write and put back: wasm memories, and the arenas of slots.
//!
//! A range is *sticky*: put back, it keeps its translations and the frames of the pages that its user dirtied; the
//! content of those alone is restored. So a wipe costs what was dirtied, and needs neither an exit nor a flush. What a
//! memory has *grown* by is taken away again; its addresses may be used after the next flush, which many ranges share.
//!
//! ```text
//! base ............. start .......................... initial ........... end ............. len
//! | not present (guard) | copied on write from what it began with | frames of its own | guard |
//! ```
//!
//! A free range goes only to the memory that had it before, in another instance: to the one that is reserved as the
//! n-th one when an instance is made. All instances of a VM are of one component, so that is the memory of the
//! same size and the same image, and what is left of the last one, wiped, is what the next one begins with.
//!
//! A range belongs to the [slot](crate::slots) whose thread reserved it. [`freeze`] makes all that the ranges of a slot
//! hold the state that [`restore`] puts them back to.

mod range;

use crate::kernel::arena;
use crate::kernel::cell::Local;
use crate::kernel::frames::{self, Frame};
use crate::kernel::{expected, paging, sched};
use alloc::vec::Vec;
use range::{Kind, Range};
use sandbox_abi::expected::When;
use sandbox_abi::layout::{LARGE_PAGE, PAGE};

/// Where memories begin; far above anything that is mapped one to one.
const BASE: u64 = 0x1000_0000_0000;
const END: u64 = 0x7000_0000_0000;
/// Bytes that the arena of a slot for one request can have without a change of page tables.
const OWN_ARENA: u64 = 512 << 10;
/// Given-back ranges that may wait for a flush before one is made.
const BATCH: usize = 32;

/// A slot's part of the address space.
struct Owner {
    arena: Range,
    /// Its memories, by number.
    ranges: Vec<usize>,
    /// How many of them were there when it was frozen; those behind are its request's.
    frozen: usize,
    /// How many were reserved for the instance that is being made.
    reserved: usize,
    busy: bool,
}

struct Space {
    ranges: Vec<Range>,
    owners: Vec<Owner>,
    /// As an owner's, where there is none.
    reserved: usize,
    /// The memory that was reserved last, if nothing was asked of it yet and no wasm has run.
    newest: Option<usize>,
    next: u64,
    zeroes: Frame,
    /// Memories that are free after the next flush.
    stale: usize,
    flushes: u64,
    /// Frames that may be given back after the next flush.
    quarantine: Vec<Frame>,
}

static SPACE: Local<Space> = Local::new(Space {
    ranges: Vec::new(),
    owners: Vec::new(),
    reserved: 0,
    newest: None,
    next: BASE,
    zeroes: Frame(0),
    stale: 0,
    flushes: 0,
    quarantine: Vec::new(),
});

/// The request cannot be met.
#[derive(Debug)]
pub struct Refused;

impl From<paging::NoTables> for Refused {
    fn from(_: paging::NoTables) -> Self {
        Refused
    }
}

/// Takes the page of zeroes.
pub fn init() {
    SPACE.with(|s| {
        s.zeroes = frames::take_system().unwrap_or_else(|| crate::kernel::fatal_memory())
    });
}

/// Makes an arena for the next slot, whose number it is too.
pub fn add_slot() -> Result<usize, Refused> {
    SPACE.with(|s| {
        let number = s.owners.len();
        if number as u64 == arena::MAX {
            return Err(Refused);
        }
        let base = arena::base(number);
        let mut range = Range::new(Kind::Arena, base, arena::STRIDE);
        range.open(0, 0)?;
        s.owners.push(Owner {
            arena: range,
            ranges: Vec::new(),
            frozen: 0,
            reserved: 0,
            busy: true,
        });
        s.grow(At::Arena(number), 0, arena::FIRST)?;
        arena::create(base);
        Ok(number)
    })
}

/// Gives an arena frames up to `len` bytes from its base. `false`: there are not so many.
pub fn extend(number: usize, len: u64) -> bool {
    SPACE.with(|s| s.grow(At::Arena(number), 0, len).is_ok())
}

/// The running thread is about to make an instance.
pub fn begin_instance() {
    let slot = sched::slot();
    SPACE.with(|s| *s.reserved(slot) = 0);
}

/// Wasm is about to run: what is opened from now on grows.
pub fn begin_call() {
    SPACE.with(|s| s.newest = None);
}

/// Reserves `len` bytes, none of them accessible.
pub fn reserve(len: u64) -> Result<u64, Refused> {
    let len = len.next_multiple_of(PAGE);
    let slot = sched::slot();
    SPACE.with(|s| {
        if s.stale >= BATCH {
            s.flush();
        }
        let ordinal = *s.reserved(slot);
        *s.reserved(slot) += 1;
        let free = s.ranges.iter().position(|r| r.is_free(ordinal, len));
        let index = match free {
            Some(index) => index,
            None => {
                let base = s.next;
                s.next = base
                    .checked_add(len.next_multiple_of(LARGE_PAGE) + LARGE_PAGE)
                    .filter(|n| *n <= END)
                    .ok_or(Refused)?;
                s.ranges.push(Range::new(Kind::Memory(ordinal), base, len));
                s.ranges.len() - 1
            }
        };
        s.ranges[index].take();
        s.newest = Some(index);
        if let Some(owner) = slot.and_then(|n| s.owners.get_mut(n)) {
            owner.ranges.push(index);
        }
        Ok(s.ranges[index].base)
    })
}

/// Makes `len` bytes from `start` accessible, as zeroes unless an image says otherwise.
pub fn open(start: u64, len: u64) -> Result<(), Refused> {
    SPACE.with(|s| {
        let index = s.find(start).ok_or(Refused)?;
        let range = &mut s.ranges[index];
        let start = start - range.base;
        let end = (start + len).next_multiple_of(PAGE);
        if end > range.len {
            return Err(Refused);
        }
        // What is opened later than at once has grown, be it from nothing.
        if s.newest.take() != Some(index) {
            return s.grow(At::Memory(index), start, end);
        }
        if !range.fits(start, end) {
            s.forget(index);
        }
        s.ranges[index].open(start, end)
    })
}

/// Lets the pages from `at` show the image at `from`, copied on write.
pub fn show(from: u64, at: u64, len: u64) -> Result<(), Refused> {
    SPACE.with(|s| {
        let index = s.find(at).ok_or(Refused)?;
        let image = range::Image {
            from,
            at: at - s.ranges[index].base,
            len,
        };
        if !s.ranges[index].shows(image) {
            let (start, end) = (s.ranges[index].start, s.ranges[index].end);
            s.forget(index);
            s.ranges[index].open(start, end)?;
        }
        s.ranges[index].set_image(image);
        Ok(())
    })
}

/// Takes a memory back and wipes it.
pub fn release(base: u64) -> Result<(), Refused> {
    let slot = sched::slot();
    SPACE.with(|s| {
        let index = s.find(base).ok_or(Refused)?;
        if let Some(owner) = slot.and_then(|n| s.owners.get_mut(n)) {
            owner.ranges.retain(|n| *n != index);
        }
        s.release(index)
    })
}

/// Makes what the ranges of a slot hold now what they are put back to.
pub fn freeze(slot: usize) -> Result<(), Refused> {
    SPACE.with(|s| {
        let sealed = arena::seal(arena::base(slot));
        let owner = s.owners.get_mut(slot).ok_or(Refused)?;
        owner.frozen = owner.ranges.len();
        owner.arena.freeze(sealed, s.zeroes)?;
        for index in &owner.ranges {
            let range = &mut s.ranges[*index];
            if expected::is_wanted() {
                range.expect(When::Making);
            }
            range.freeze(range.end, s.zeroes)?;
        }
        s.copy_expected(slot);
        // What could be written a moment ago must not be any more.
        s.flush();
        Ok(())
    })
}

/// Gives a slot that was frozen the pages that its first request is expected to write.
pub fn copy_expected(slot: usize) {
    SPACE.with(|s| s.copy_expected(slot));
}

/// Tells VMs with the same template what a slot's request has written, if they are to know.
pub fn tell_expected(slot: usize) {
    if !expected::is_wanted() {
        return;
    }
    SPACE.with(|s| {
        let Some(owner) = s.owners.get(slot) else {
            return;
        };
        owner.arena.expect(When::Request);
        for (n, index) in owner.ranges.iter().enumerate() {
            let when = if n < owner.frozen {
                When::Request
            } else {
                When::Making
            };
            s.ranges[*index].expect(when);
        }
    });
    expected::end();
}

/// Gives a slot pages of its own for all that its memories begin with, and tables for what they may grow by: a request then
/// changes no page table, as a rule. For a slot that is not put back.
pub fn own(slot: usize) -> Result<(), Refused> {
    SPACE.with(|s| {
        s.grow(
            At::Arena(slot),
            0,
            arena::size(arena::base(slot)) + OWN_ARENA,
        )?;
        let owner = s.owners.get_mut(slot).ok_or(Refused)?;
        owner.arena.own(s.zeroes)?;
        for index in &owner.ranges {
            s.ranges[*index].own(s.zeroes)?;
        }
        Ok(())
    })
}

/// Puts the ranges of a slot back to what they were when it was frozen. `Ok(false)`: it may be used again after the next
/// [`flush`].
pub fn restore(slot: usize) -> Result<bool, Refused> {
    SPACE.with(|s| {
        let owner = s.owners.get_mut(slot).ok_or(Refused)?;
        let late = owner.ranges.split_off(owner.frozen.min(owner.ranges.len()));
        let mut clean = owner.arena.restore(&mut s.quarantine)?;
        for index in &owner.ranges {
            clean &= s.ranges[*index].restore(&mut s.quarantine)?;
        }
        for index in late {
            s.release(index)?;
        }
        Ok(clean)
    })
}

/// Notes whether a slot is at work: what an idle one holds beyond its frozen state may be taken away.
pub fn set_busy(slot: usize, busy: bool) {
    SPACE.with(|s| {
        if let Some(owner) = s.owners.get_mut(slot) {
            owner.busy = busy;
        }
    });
}

/// Has the processor forget what was taken away.
pub fn flush() {
    SPACE.with(Space::flush);
}

/// How many flushes there were, for whatever reason.
pub fn flushes() -> u64 {
    SPACE.with(|s| s.flushes)
}

/// What a page fault in a range was.
pub enum Fault {
    /// Dealt with: try again.
    Handled,
    /// No frame is left.
    NoMemory,
    /// Not accessible.
    Bad,
}

/// Deals with a page fault at `va`.
pub fn fault(va: u64, write: bool) -> Fault {
    if !(arena::BASE..END).contains(&va) {
        return Fault::Bad;
    }
    SPACE.with(|s| {
        let zeroes = s.zeroes;
        let Some(range) = s.range_at(va) else {
            return Fault::Bad;
        };
        let mut fault = range.fault(va, write, zeroes);
        if matches!(fault, Fault::NoMemory) {
            s.reclaim();
            if let Some(range) = s.range_at(va) {
                fault = range.fault(va, write, zeroes);
            }
        }
        fault
    })
}

/// Which range.
#[derive(Clone, Copy)]
enum At {
    Memory(usize),
    Arena(usize),
}

impl Space {
    fn find(&self, va: u64) -> Option<usize> {
        let index = self
            .ranges
            .partition_point(|r| r.base <= va)
            .checked_sub(1)?;
        (va < self.ranges[index].base + self.ranges[index].len).then_some(index)
    }

    fn range_at(&mut self, va: u64) -> Option<&mut Range> {
        if va < BASE {
            let owner = self.owners.get_mut(arena::number(va))?;
            return Some(&mut owner.arena);
        }
        let index = self.find(va)?;
        self.ranges.get_mut(index)
    }

    fn at(&mut self, at: At) -> Option<&mut Range> {
        match at {
            At::Memory(index) => self.ranges.get_mut(index),
            At::Arena(number) => self.owners.get_mut(number).map(|o| &mut o.arena),
        }
    }

    fn copy_expected(&mut self, slot: usize) {
        let Some(owner) = self.owners.get_mut(slot) else {
            return;
        };
        owner.arena.copy_expected(When::Request, self.zeroes);
        for index in &owner.ranges {
            self.ranges[*index].copy_expected(When::Request, self.zeroes);
        }
    }

    /// How many memories the instance has that is being made.
    fn reserved(&mut self, slot: Option<usize>) -> &mut usize {
        match slot.and_then(|n| self.owners.get_mut(n)) {
            Some(owner) => &mut owner.reserved,
            None => &mut self.reserved,
        }
    }

    /// Gives pages beyond the initial part, or from `start` if there is none, frames at once: who grows a memory is about
    /// to use it.
    fn grow(&mut self, at: At, start: u64, end: u64) -> Result<(), Refused> {
        let range = self.at(at).ok_or(Refused)?;
        range.begin(start);
        if end <= range.end {
            return Ok(());
        }
        let need = range.frames_for(end);
        if frames::left() < need {
            self.reclaim();
            if frames::left() < need {
                return Err(Refused);
            }
        }
        self.at(at).ok_or(Refused)?.grow(end)
    }

    fn release(&mut self, index: usize) -> Result<(), Refused> {
        if !self.ranges[index].release(&mut self.quarantine)? {
            self.stale += 1;
        }
        Ok(())
    }

    /// Makes a memory blank: its next user has another size or image. Needs a flush, as pages change their frames.
    fn forget(&mut self, index: usize) {
        self.ranges[index].forget(&mut self.quarantine);
        self.flush();
    }

    fn flush(&mut self) {
        paging::flush();
        self.flushes += 1;
        for frame in self.quarantine.drain(..) {
            frames::give(frame);
        }
        for range in &mut self.ranges {
            range.flushed();
        }
        self.stale = 0;
    }

    /// Takes from those who are not at work what they hold only to be faster the next time.
    fn reclaim(&mut self) {
        let (zeroes, quarantine) = (self.zeroes, &mut self.quarantine);
        for range in &mut self.ranges {
            range.strip(quarantine);
        }
        for owner in self.owners.iter_mut().filter(|o| !o.busy) {
            owner.arena.thaw(zeroes, quarantine);
            for index in &owner.ranges {
                self.ranges[*index].thaw(zeroes, quarantine);
            }
        }
        self.flush();
    }
}
