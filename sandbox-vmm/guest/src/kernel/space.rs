//! Address ranges for wasm memories: reserved, made accessible, copied on write, wiped, used again.
//!
//! A range is *sticky*: given back, it keeps its translations and the frames of the pages that its user dirtied; those
//! alone are restored, from the image or to zero, before anyone else gets it. So the wipe costs what was dirtied, and
//! needs neither an exit nor a flush. What a memory has *grown* by is taken away again; its addresses may be used after
//! the next flush, which many ranges share.
//!
//! ```text
//! base ..... image ..... initial ................ grown ............ len
//! | copied on write from image or zeroes | frames of its own | not present (guard) |
//! ```

use crate::kernel::cell::Local;
use crate::kernel::frames::{self, Frame};
use crate::kernel::paging::{self, COPY_ON_WRITE, NO_EXECUTE, PRESENT, WRITE};
use alloc::vec::Vec;
use sandbox_abi::layout::{LARGE_PAGE, PAGE};

/// Where ranges begin; far above anything that is mapped one to one.
const BASE: u64 = 0x1000_0000_0000;
const END: u64 = 0x7000_0000_0000;
/// Given-back ranges that may wait for a flush before one is made.
const BATCH: usize = 32;
/// Frames of its grown part that a range keeps for its next user.
const KEEP: usize = 256;

/// What a memory starts with: pages of the artifact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Image {
    /// First page of the content, mapped one to one.
    from: u64,
    /// Offset in the range.
    at: u64,
    len: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Used,
    Free,
    /// Free after the next flush.
    Stale,
}

struct Range {
    base: u64,
    len: u64,
    state: State,
    image: Option<Image>,
    /// Bytes that were accessible from the start.
    initial: u64,
    /// Whether `initial` was set for this user.
    opened: bool,
    /// Whether the entries of the initial part are written.
    filled: bool,
    /// End of what is accessible now.
    end: u64,
    /// Pages of the initial part that have a frame of their own, by number.
    dirty: Vec<u32>,
    /// Frames that wait for the next growth.
    spare: Vec<Frame>,
}

struct Space {
    ranges: Vec<Range>,
    next: u64,
    zeroes: Frame,
    stale: usize,
    /// Frames that may be given back after the next flush.
    quarantine: Vec<Frame>,
}

static SPACE: Local<Space> = Local::new(Space {
    ranges: Vec::new(),
    next: BASE,
    zeroes: Frame(0),
    stale: 0,
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

/// Reserves `len` bytes, none of them accessible.
pub fn reserve(len: u64) -> Result<u64, Refused> {
    let len = len.next_multiple_of(PAGE);
    SPACE.with(|s| {
        if s.stale >= BATCH {
            s.flush();
        }
        if let Some(range) = s
            .ranges
            .iter_mut()
            .find(|r| r.state == State::Free && r.len == len)
        {
            range.state = State::Used;
            return Ok(range.base);
        }
        let base = s.next;
        s.next = base
            .checked_add(len.next_multiple_of(LARGE_PAGE) + LARGE_PAGE)
            .filter(|n| *n <= END)
            .ok_or(Refused)?;
        s.ranges.push(Range {
            base,
            len,
            state: State::Used,
            image: None,
            initial: 0,
            opened: false,
            filled: false,
            end: 0,
            dirty: Vec::new(),
            spare: Vec::new(),
        });
        Ok(base)
    })
}

/// Makes `len` bytes from `start` accessible, as zeroes unless an image says otherwise.
pub fn open(start: u64, len: u64) -> Result<(), Refused> {
    SPACE.with(|s| {
        let index = s.find(start).ok_or(Refused)?;
        let end = (start + len).next_multiple_of(PAGE) - s.ranges[index].base;
        if end > s.ranges[index].len {
            return Err(Refused);
        }
        if s.ranges[index].opened {
            return s.grow(index, end);
        }
        if s.ranges[index].filled && s.ranges[index].initial != end {
            s.forget(index);
        }
        let range = &mut s.ranges[index];
        (range.opened, range.initial, range.end) = (true, end, end);
        Ok(())
    })
}

/// Lets the pages from `at` show the image at `from`, copied on write.
pub fn show(from: u64, at: u64, len: u64) -> Result<(), Refused> {
    SPACE.with(|s| {
        let index = s.find(at).ok_or(Refused)?;
        let range = &s.ranges[index];
        let image = Image {
            from,
            at: at - range.base,
            len,
        };
        if range.filled && range.image != Some(image) {
            let (initial, end) = (range.initial, range.end);
            s.forget(index);
            let range = &mut s.ranges[index];
            (range.opened, range.initial, range.end) = (true, initial, end);
        }
        s.ranges[index].image = Some(image);
        Ok(())
    })
}

/// Takes a range back and wipes it.
pub fn release(base: u64) -> Result<(), Refused> {
    SPACE.with(|s| {
        let index = s.find(base).ok_or(Refused)?;
        s.wipe(index)?;
        let range = &mut s.ranges[index];
        range.opened = false;
        let grown = range.end > range.initial;
        if !grown {
            range.state = State::Free;
            return Ok(());
        }
        let (spare, mut extra) = (&mut range.spare, Vec::new());
        paging::update(
            range.base + range.initial,
            range.base + range.end,
            |_, entry| {
                if entry & PRESENT == PRESENT {
                    let frame = Frame(paging::address(entry));
                    if spare.len() < KEEP {
                        spare.push(frame)
                    } else {
                        extra.push(frame)
                    }
                }
                0
            },
        )?;
        range.end = range.initial;
        range.state = State::Stale;
        s.stale += 1;
        s.quarantine.append(&mut extra);
        Ok(())
    })
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
    if !(BASE..END).contains(&va) {
        return Fault::Bad;
    }
    SPACE.with(|s| {
        let Some(index) = s.find(va) else {
            return Fault::Bad;
        };
        let range = &s.ranges[index];
        let offset = va - range.base;
        if range.state != State::Used || offset >= range.end {
            return Fault::Bad;
        }
        if !range.filled && offset < range.initial && s.fill(index).is_err() {
            return Fault::NoMemory;
        }
        if !write {
            return Fault::Handled;
        }
        s.copy_page(index, offset & !(PAGE - 1))
    })
}

impl Space {
    fn find(&self, va: u64) -> Option<usize> {
        let index = self
            .ranges
            .partition_point(|r| r.base <= va)
            .checked_sub(1)?;
        (va < self.ranges[index].base + self.ranges[index].len).then_some(index)
    }

    /// Writes the entries of the initial part: image pages and zeroes, read-only, to be copied on write.
    fn fill(&mut self, index: usize) -> Result<(), Refused> {
        let range = &mut self.ranges[index];
        let (base, image, zeroes) = (range.base, range.image, self.zeroes.0);
        let shared = PRESENT | NO_EXECUTE | COPY_ON_WRITE;
        paging::update(base, base + range.initial, |va, _| {
            origin(image, va - base).unwrap_or(zeroes) | shared
        })?;
        range.filled = true;
        Ok(())
    }

    fn copy_page(&mut self, index: usize, offset: u64) -> Fault {
        let range = &mut self.ranges[index];
        let va = range.base + offset;
        let entry = paging::lookup(va);
        if entry & (PRESENT | WRITE) == PRESENT | WRITE {
            return Fault::Handled;
        }
        if entry & COPY_ON_WRITE == 0 {
            return Fault::Bad;
        }
        let from = origin(range.image, offset);
        let frame = if from.is_some() {
            frames::take_dirty()
        } else {
            frames::take_zeroed()
        };
        let Some(frame) = frame else {
            return Fault::NoMemory;
        };
        if let Some(from) = from {
            frames::copy(frame, from);
        }
        range.dirty.push((offset / PAGE) as u32);
        match paging::set(va, frame.0 | PRESENT | WRITE | NO_EXECUTE) {
            Ok(()) => Fault::Handled,
            Err(_) => Fault::NoMemory,
        }
    }

    /// Gives pages beyond the initial part frames at once: who grows a memory is about to use it.
    fn grow(&mut self, index: usize, end: u64) -> Result<(), Refused> {
        let range = &mut self.ranges[index];
        if end <= range.end {
            return Ok(());
        }
        let pages = (end - range.end) / PAGE;
        let need = pages.saturating_sub(range.spare.len() as u64);
        if frames::left() < need + pages / 256 + 1024 {
            self.flush();
            self.strip();
            if frames::left() < need + pages / 256 + 1024 {
                return Err(Refused);
            }
        }
        let range = &mut self.ranges[index];
        let (start, spare) = (range.base + range.end, &mut range.spare);
        let mut short = false;
        paging::update(start, range.base + end, |_, _| {
            let frame = spare
                .pop()
                .inspect(|f| frames::zero(*f))
                .or_else(frames::take_zeroed);
            short |= frame.is_none();
            frame.map_or(0, |f| f.0 | PRESENT | WRITE | NO_EXECUTE)
        })?;
        range.end = end;
        if short { Err(Refused) } else { Ok(()) }
    }

    /// Restores the dirty pages of the initial part.
    fn wipe(&mut self, index: usize) -> Result<(), Refused> {
        let range = &self.ranges[index];
        for page in &range.dirty {
            let offset = u64::from(*page) * PAGE;
            let frame = Frame(paging::address(paging::lookup(range.base + offset)));
            match origin(range.image, offset) {
                Some(from) => frames::copy(frame, from),
                None => frames::zero(frame),
            }
        }
        Ok(())
    }

    /// Makes a range blank: its next user has another size or image. Needs a flush, as pages change their frames.
    fn forget(&mut self, index: usize) {
        let range = &mut self.ranges[index];
        let dirty = core::mem::take(&mut range.dirty);
        for page in dirty {
            self.quarantine.push(Frame(paging::address(paging::lookup(
                range.base + u64::from(page) * PAGE,
            ))));
        }
        let _ = paging::update(range.base, range.base + range.end, |_, _| 0);
        (range.image, range.initial, range.end) = (None, 0, 0);
        (range.opened, range.filled) = (false, false);
        self.flush();
    }

    fn flush(&mut self) {
        paging::flush();
        for frame in self.quarantine.drain(..) {
            frames::give(frame);
        }
        for range in self.ranges.iter_mut().filter(|r| r.state == State::Stale) {
            range.state = State::Free;
        }
        self.stale = 0;
    }

    /// Gives back the spare frames of ranges that nobody uses.
    fn strip(&mut self) {
        for range in self.ranges.iter_mut().filter(|r| r.state == State::Free) {
            for frame in range.spare.drain(..) {
                frames::give(frame);
            }
        }
    }
}

/// The page of the image that lies at `offset` of the range.
fn origin(image: Option<Image>, offset: u64) -> Option<u64> {
    let image = image?;
    let within = offset.checked_sub(image.at)?;
    (within < image.len).then_some(image.from + within)
}
