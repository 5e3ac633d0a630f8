//! What a VM does for its first request, for the next ones with the same template. The first VM's guest writes a list of what
//! it copied; the second one's copies all of that at once; the third one is given the pages of RAM that the second wrote before
//! it is entered. A page that a VM is given costs a fraction of a fault.
//!
//! Both are hints that a guest gave: whatever they say, a VM is given pages of its own RAM, and not many; what its guest is
//! told is its own tenant's word.

use crate::runs::Runs;
use rustix::fd::AsFd;
use sandbox_abi::boot::field;
use sandbox_abi::expected::{ENTRY, MOST, state};
use sandbox_abi::layout::{self, PAGE};
use sandbox_kvm::{GuestMemory, MemoryError};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Most pages that a VM is given: 4 MiB.
const MOST_PAGES: u64 = 1024;
/// Most templates that are known; more begin anew.
const MOST_TEMPLATES: usize = 1024;

/// KVM translates so many pages side by side at once, where the first ones of them are there (`PTE_PREFETCH_NUM` of the kernel's
/// `arch/x86/kvm/mmu/mmu_internal.h`).
const GROUP: u64 = 8 * PAGE;

/// A file: its device and its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FileId(u64, u64);

impl FileId {
    /// Of an open file. `None`: the kernel does not say.
    pub(crate) fn of(file: impl AsFd) -> Option<FileId> {
        let stat = rustix::fs::fstat(file).ok()?;
        Some(FileId(stat.st_dev, stat.st_ino))
    }
}

/// What is known of a template.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct First {
    /// What the guest copied: the [list](sandbox_abi::expected) as it stood there.
    list: Vec<u8>,
    /// The pages of RAM that one wrote that had the list; none has yet.
    ram: Option<Runs>,
}

impl First {
    /// Gives a VM the pages, which it gets without it too, for more faults; and its guest the list.
    fn give(&self, memory: &GuestMemory) -> Result<(), MemoryError> {
        for (gpa, pages) in self.ram.iter().flat_map(Runs::iter) {
            let _ = memory.populate(gpa, pages * PAGE);
        }
        memory.write(layout::BOOT + field::EXPECTED_LIST, &self.list)?;
        let count = self.list.len() as u64 / ENTRY;
        memory.write_u64(layout::BOOT + field::EXPECTED_COUNT, count)?;
        memory.write_u64(layout::BOOT + field::EXPECTED, state::KNOWN)
    }
}

/// A VM that others learn from.
#[derive(Debug)]
pub(crate) struct Lesson {
    hot: Arc<Hot>,
    template: FileId,
    known: Option<Arc<First>>,
}

impl Lesson {
    /// Tells a VM that begins with a template what is known of it; a lesson, where that is not all.
    pub(crate) fn begin(
        hot: &Arc<Hot>,
        template: FileId,
        memory: &GuestMemory,
    ) -> Result<Option<Lesson>, MemoryError> {
        let known = hot.of(template);
        match &known {
            Some(first) => first.give(memory)?,
            None => memory.write_u64(layout::BOOT + field::EXPECTED, state::WANTED)?,
        }
        let all = known.as_ref().is_some_and(|first| first.ram.is_some());
        Ok((!all).then(|| Lesson {
            hot: Arc::clone(hot),
            template,
            known,
        }))
    }

    /// The VM, which has so many bytes of RAM, has run and sleeps. `false`: it has not done its first request.
    pub(crate) fn end(&self, memory: &GuestMemory, exposed: u64) -> bool {
        match self.learnt(memory, exposed) {
            Ok(None) => return false,
            Ok(Some(first)) => self.hot.learn(self.template, first),
            // Others begin without.
            Err(_) => {}
        }
        true
    }

    fn learnt(&self, memory: &GuestMemory, exposed: u64) -> Result<Option<First>, MemoryError> {
        Ok(match &self.known {
            None => list(memory)?.map(|list| First { list, ram: None }),
            Some(known) => Some(First {
                list: known.list.clone(),
                ram: Some(written(memory, exposed)?),
            }),
        })
    }
}

/// What a guest has listed, if it has.
fn list(memory: &GuestMemory) -> Result<Option<Vec<u8>>, MemoryError> {
    if memory.read_u64(layout::BOOT + field::EXPECTED)? != state::WRITTEN {
        return Ok(None);
    }
    let count = memory.read_u64(layout::BOOT + field::EXPECTED_COUNT)?;
    let mut list = vec![0; usize::try_from(count.min(MOST) * ENTRY).unwrap_or(0)];
    memory.read(layout::BOOT + field::EXPECTED_LIST, &mut list)?;
    Ok(Some(list))
}

/// What a VM with so many bytes of RAM has written of it.
fn written(memory: &GuestMemory, exposed: u64) -> Result<Runs, MemoryError> {
    let mut ram = Runs::default();
    ram.add_written(memory, layout::RAM, exposed)?;
    Ok(some(&ram))
}

/// What a VM is given of the pages that another one wrote: those before the limit, and what KVM would translate with them.
fn some(written: &Runs) -> Runs {
    let mut left = MOST_PAGES;
    let mut end = 0;
    let some = written.iter().filter_map(|(gpa, pages)| {
        let start = (gpa & !(GROUP - 1)).max(end);
        end = (gpa + pages * PAGE).max(start);
        let pages = ((end - start) / PAGE).min(left);
        left -= pages;
        (pages > 0).then_some((start, pages))
    });
    some.collect()
}

/// What is known of templates.
#[derive(Debug, Default)]
pub(crate) struct Hot(Mutex<HashMap<FileId, Arc<First>>>);

impl Hot {
    /// What is known of one.
    fn of(&self, template: FileId) -> Option<Arc<First>> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&template).cloned()
    }

    /// Learns it.
    fn learn(&self, template: FileId, first: First) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST_TEMPLATES {
            known.clear();
        }
        known.insert(template, Arc::new(first));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_is_cut() {
        let written = [
            (0x10_3000, 2),
            (0x10_6000, MOST_PAGES - 12),
            (0x100_0000, 500),
            (0x200_0000, 1),
        ];
        let runs = some(&written.into_iter().collect());
        // From the start of a group, and no page twice.
        assert_eq!(
            runs.iter().collect::<Vec<_>>(),
            [(0x10_0000, MOST_PAGES - 6), (0x100_0000, 6)]
        );
    }

    #[test]
    fn what_is_known_has_an_end() {
        let hot = Hot::default();
        let id = FileId(1, 2);
        assert!(hot.of(id).is_none());
        hot.learn(id, First::default());
        assert_eq!(hot.of(id).as_deref(), Some(&First::default()));
        for n in 0..MOST_TEMPLATES as u64 {
            hot.learn(FileId(3, n), First::default());
        }
        assert!(hot.of(id).is_none());
    }
}
