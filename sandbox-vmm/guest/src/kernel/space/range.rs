//! One range: its pages, and where their content comes from.

use super::{Fault, Refused};
use crate::kernel::expected;
use crate::kernel::frames::{self, Frame, Purpose};
use crate::kernel::paging::{self, COPY_ON_WRITE, NO_EXECUTE, PRESENT, WRITE};
use alloc::vec::Vec;
use sandbox_abi::expected::{Part, When};
use sandbox_abi::layout::PAGE;

/// Frames of its grown part that a memory keeps for its next user.
const KEEP: usize = 256;
/// Bytes behind its frozen part that an arena keeps mapped.
const KEEP_ARENA: u64 = 64 * PAGE;
/// Bytes that a memory gets pages for at once where it is not put back.
const OWN: u64 = 64 << 20;
/// Bytes of growth that it gets page tables for.
const OWN_GROWTH: u64 = 32 << 20;
/// Frames that wasm must leave to the runtime when a memory grows.
const MARGIN: u64 = 1024;

/// What a memory starts with: pages of the artifact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Image {
    /// First page of the content, mapped one to one.
    pub(super) from: u64,
    /// Offset in the range.
    pub(super) at: u64,
    /// Bytes.
    pub(super) len: u64,
}

impl Image {
    /// The page of the image that lies at `offset` of the range.
    fn page(&self, offset: u64) -> Option<u64> {
        let within = offset.checked_sub(self.at)?;
        (within < self.len).then_some(self.from + within)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Used,
    Free,
    /// Free after the next flush.
    Stale,
}

/// A page that has a frame of its own, and what it is put back to.
struct Dirty {
    offset: u64,
    frame: Frame,
    /// `None`: zeroes.
    origin: Option<Frame>,
}

/// What a range is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A wasm memory, and which one of an instance's.
    Memory(usize),
    /// Heap of the runtime: it may have the last frames, and what it grew by needs no wipe.
    Arena,
}

/// A range.
pub(super) struct Range {
    kind: Kind,
    pub(super) base: u64,
    pub(super) len: u64,
    state: State,
    image: Option<Image>,
    /// Where what can be accessible begins.
    pub(super) start: u64,
    /// End of what is copied on write.
    initial: u64,
    /// Whether the entries of the initial part are written.
    filled: bool,
    /// End of what is accessible now.
    pub(super) end: u64,
    /// End of what was accessible when it was frozen.
    floor: u64,
    /// Pages of the initial part that were written.
    dirty: Vec<Dirty>,
    /// Frames that wait for the next growth.
    spare: Vec<Frame>,
}

impl Range {
    /// A range without anything accessible.
    pub(super) fn new(kind: Kind, base: u64, len: u64) -> Range {
        Range {
            kind,
            base,
            len,
            state: State::Used,
            image: None,
            start: 0,
            initial: 0,
            filled: false,
            end: 0,
            floor: 0,
            dirty: Vec::new(),
            spare: Vec::new(),
        }
    }

    /// Whether it waits for a memory of `len` bytes that is this one of an instance's.
    pub(super) fn is_free(&self, ordinal: usize, len: u64) -> bool {
        self.state == State::Free && self.kind == Kind::Memory(ordinal) && self.len == len
    }

    /// It has a user.
    pub(super) fn take(&mut self) {
        self.state = State::Used;
    }

    /// Whether its entries are those of a range that begins with these bytes, or not written.
    pub(super) fn fits(&self, start: u64, initial: u64) -> bool {
        !self.filled || (self.start, self.initial) == (start, initial)
    }

    /// Makes the bytes from `start` to `end` accessible.
    pub(super) fn open(&mut self, start: u64, end: u64) -> Result<(), Refused> {
        if end > self.len {
            return Err(Refused);
        }
        (self.start, self.initial, self.end) = (start, end, end);
        if !self.filled {
            self.image = None;
        }
        Ok(())
    }

    /// If it is empty, what it grows by begins at `start`.
    pub(super) fn begin(&mut self, start: u64) {
        if self.end == self.start && self.dirty.is_empty() {
            (self.start, self.initial, self.end) = (start, start, start);
        }
    }

    /// Whether its entries show this image, or are not written.
    pub(super) fn shows(&self, image: Image) -> bool {
        !self.filled || self.image == Some(image)
    }

    /// Its image from now on.
    pub(super) fn set_image(&mut self, image: Image) {
        self.image = Some(image);
    }

    /// Writes the entries of the initial part: image pages and zeroes, read-only, to be copied on write.
    fn fill(&mut self, zeroes: Frame) -> Result<(), Refused> {
        let (base, image) = (self.base, self.image);
        let shared = PRESENT | NO_EXECUTE | COPY_ON_WRITE;
        paging::update(base + self.start, base + self.initial, |va, _| {
            let page = image.and_then(|i| i.page(va - base));
            page.unwrap_or(zeroes.0) | shared
        })?;
        self.filled = true;
        self.copy_expected(When::Making, zeroes);
        Ok(())
    }

    fn part(&self) -> Option<Part> {
        match self.kind {
            Kind::Memory(ordinal) => u8::try_from(ordinal).ok().map(Part::Memory),
            Kind::Arena => Some(Part::Arena),
        }
    }

    /// Gives it the pages that it is expected to write, as far as there are some: together they cost less.
    pub(super) fn copy_expected(&mut self, when: When, zeroes: Frame) {
        let Some(part) = self.part() else { return };
        for offset in expected::offsets(when, part) {
            if (self.start..self.initial).contains(&offset) {
                // Without memory for it, the page is copied when it is written, or is not.
                let _ = self.copy_page(offset, zeroes);
            }
        }
    }

    /// Adds the pages that were written to those that others expect to write.
    pub(super) fn expect(&self, when: When) {
        let Some(part) = self.part() else { return };
        for dirty in &self.dirty {
            expected::add(when, part, dirty.offset);
        }
    }

    /// Deals with a page fault at `va`, which lies in the range.
    pub(super) fn fault(&mut self, va: u64, write: bool, zeroes: Frame) -> Fault {
        let offset = (va - self.base) & !(PAGE - 1);
        if self.state != State::Used || !(self.start..self.end).contains(&offset) {
            return Fault::Bad;
        }
        if !self.filled && offset < self.initial && self.fill(zeroes).is_err() {
            return Fault::NoMemory;
        }
        if write {
            self.copy_page(offset, zeroes)
        } else {
            Fault::Handled
        }
    }

    fn copy_page(&mut self, offset: u64, zeroes: Frame) -> Fault {
        let va = self.base + offset;
        let entry = paging::lookup(va);
        if entry & (PRESENT | WRITE) == PRESENT | WRITE {
            return Fault::Handled;
        }
        if entry & COPY_ON_WRITE == 0 {
            return Fault::Bad;
        }
        let from = Frame(paging::address(entry));
        let origin = (from != zeroes).then_some(from);
        let Some(frame) = frames::take(self.purpose(), origin.is_none()) else {
            return Fault::NoMemory;
        };
        if let Some(from) = origin {
            frames::copy(frame, from);
        }
        self.dirty.push(Dirty {
            offset,
            frame,
            origin,
        });
        match paging::set(va, frame.0 | PRESENT | WRITE | NO_EXECUTE) {
            Ok(()) => Fault::Handled,
            Err(_) => Fault::NoMemory,
        }
    }

    fn purpose(&self) -> Purpose {
        match self.kind {
            Kind::Memory(_) => Purpose::Wasm,
            Kind::Arena => Purpose::Runtime,
        }
    }

    /// Frames that must be left before the range grows to `end`: for the pages, their tables, and the runtime.
    pub(super) fn frames_for(&self, end: u64) -> u64 {
        let pages = end.saturating_sub(self.end) / PAGE;
        let margin = match self.kind {
            Kind::Memory(_) => MARGIN,
            Kind::Arena => 4,
        };
        pages.saturating_sub(self.spare.len() as u64) + pages / 256 + margin
    }

    /// Grows to `end` bytes.
    pub(super) fn grow(&mut self, end: u64) -> Result<(), Refused> {
        if end > self.len {
            return Err(Refused);
        }
        let purpose = self.purpose();
        if matches!(self.kind, Kind::Memory(_)) {
            let pages = (end - self.end) / PAGE;
            frames::expect(pages.saturating_sub(self.spare.len() as u64));
        }
        let (start, spare) = (self.base + self.end, &mut self.spare);
        let mut short = false;
        paging::update(start, self.base + end, |_, _| {
            let frame = spare
                .pop()
                .inspect(|f| frames::zero(*f))
                .or_else(|| frames::take(purpose, true));
            short |= frame.is_none();
            frame.map_or(0, |f| f.0 | PRESENT | WRITE | NO_EXECUTE)
        })?;
        self.end = end;
        if short { Err(Refused) } else { Ok(()) }
    }

    /// Gives it the pages that it would copy when they are written, as far as there are some, and tables for what it may grow
    /// by.
    pub(super) fn own(&mut self, zeroes: Frame) -> Result<(), Refused> {
        if !self.filled {
            self.fill(zeroes)?;
        }
        let end = self.initial.min(self.start + OWN);
        for offset in (self.start..end).step_by(PAGE as usize) {
            if !matches!(self.copy_page(offset, zeroes), Fault::Handled) {
                break;
            }
        }
        for offset in (self.end..(self.end + OWN_GROWTH).min(self.len)).step_by(PAGE as usize * 512)
        {
            paging::entry(self.base + offset)?;
        }
        Ok(())
    }

    /// Makes the content of the first `end` bytes what the range is put back to; what lies behind stays as it is. Needs a
    /// flush.
    pub(super) fn freeze(&mut self, end: u64, zeroes: Frame) -> Result<(), Refused> {
        if !self.filled {
            self.fill(zeroes)?;
        }
        let shared = PRESENT | NO_EXECUTE | COPY_ON_WRITE;
        for dirty in self.dirty.drain(..) {
            paging::set(self.base + dirty.offset, dirty.frame.0 | shared)?;
        }
        paging::update(self.base + self.initial, self.base + end, |_, entry| {
            paging::address(entry) | shared
        })?;
        (self.initial, self.floor) = (end, self.end);
        Ok(())
    }

    /// Puts the dirty pages of the initial part back.
    fn wipe(&self) {
        for dirty in &self.dirty {
            match dirty.origin {
                Some(from) => frames::copy(dirty.frame, from),
                None => frames::zero(dirty.frame),
            }
        }
    }

    /// Puts the range back to what was frozen. `false`: something was taken away, and a flush is needed before its
    /// addresses are used again.
    pub(super) fn restore(&mut self, quarantine: &mut Vec<Frame>) -> Result<bool, Refused> {
        self.wipe();
        let kept = match self.kind {
            Kind::Memory(_) => self.floor(),
            Kind::Arena => self.floor() + KEEP_ARENA,
        };
        if self.end <= kept {
            return Ok(true);
        }
        self.shrink(kept, quarantine)?;
        Ok(false)
    }

    /// End of what was accessible when it was frozen. What was empty then did not know yet where it would begin.
    fn floor(&self) -> u64 {
        self.floor.max(self.start)
    }

    /// Takes away what lies behind `end`.
    fn shrink(&mut self, end: u64, quarantine: &mut Vec<Frame>) -> Result<(), Refused> {
        let spare = &mut self.spare;
        paging::update(self.base + end, self.base + self.end, |_, entry| {
            if entry & PRESENT == PRESENT {
                let frame = Frame(paging::address(entry));
                if spare.len() < KEEP {
                    spare.push(frame)
                } else {
                    quarantine.push(frame)
                }
            }
            0
        })?;
        self.end = end;
        Ok(())
    }

    /// Wipes it for the next user. `false`: that user has to wait for a flush.
    pub(super) fn release(&mut self, quarantine: &mut Vec<Frame>) -> Result<bool, Refused> {
        self.wipe();
        if self.end <= self.initial {
            self.state = State::Free;
            return Ok(true);
        }
        self.shrink(self.initial, quarantine)?;
        self.state = State::Stale;
        Ok(false)
    }

    /// Takes all of its pages away.
    pub(super) fn forget(&mut self, quarantine: &mut Vec<Frame>) {
        quarantine.extend(self.dirty.drain(..).map(|d| d.frame));
        let _ = paging::update(self.base + self.start, self.base + self.end, |_, _| 0);
        (self.image, self.filled) = (None, false);
        (self.start, self.initial, self.end) = (0, 0, 0);
    }

    /// A flush was made.
    pub(super) fn flushed(&mut self) {
        if self.state == State::Stale {
            self.state = State::Free;
        }
    }

    /// Gives up the frames that wait for its next growth, if nobody uses it.
    pub(super) fn strip(&mut self, quarantine: &mut Vec<Frame>) {
        if self.state != State::Used {
            quarantine.append(&mut self.spare);
        }
    }

    /// Gives up what it holds beyond its frozen state, to which it was put back. Needs a flush.
    pub(super) fn thaw(&mut self, zeroes: Frame, quarantine: &mut Vec<Frame>) {
        let shared = PRESENT | NO_EXECUTE | COPY_ON_WRITE;
        for dirty in self.dirty.drain(..) {
            let from = dirty.origin.unwrap_or(zeroes);
            // The tables of a page that is mapped are there.
            let _ = paging::set(self.base + dirty.offset, from.0 | shared);
            quarantine.push(dirty.frame);
        }
        let _ = self.shrink(self.floor(), quarantine);
        quarantine.append(&mut self.spare);
    }
}
