//! Which pages a VM writes before it has answered its first request: the next one with the same template is given them
//! before it is entered. A page that it is given costs a fraction of a fault.
//!
//! It is a hint of what a guest did: whatever it says, a VM is given pages of its own RAM, and not many.

use crate::runs::Runs;
use rustix::fd::AsFd;
use sandbox_abi::layout::PAGE;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Most pages that a VM is given: 2 MiB.
const MOST_PAGES: u64 = 512;
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

/// What is known of templates.
#[derive(Debug, Default)]
pub(crate) struct Hot(Mutex<HashMap<FileId, Arc<Runs>>>);

impl Hot {
    /// What VMs with this template write first.
    pub(crate) fn of(&self, template: FileId) -> Option<Arc<Runs>> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&template).cloned()
    }

    /// Learns it from one of them.
    pub(crate) fn learn(&self, template: FileId, written: &Runs) {
        let mut left = MOST_PAGES;
        let mut end = 0;
        let some = written.iter().filter_map(|(gpa, pages)| {
            let start = (gpa & !(GROUP - 1)).max(end);
            end = (gpa + pages * PAGE).max(start);
            let pages = ((end - start) / PAGE).min(left);
            left -= pages;
            (pages > 0).then_some((start, pages))
        });
        let some = Arc::new(some.collect());
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST_TEMPLATES {
            known.clear();
        }
        known.insert(template, some);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_learnt_is_cut() {
        let hot = Hot::default();
        let id = FileId(1, 2);
        assert!(hot.of(id).is_none());
        hot.learn(
            id,
            &[
                (0x10_3000, 2),
                (0x10_6000, 500),
                (0x100_0000, 500),
                (0x200_0000, 1),
            ]
            .into_iter()
            .collect(),
        );
        let runs = hot.of(id).unwrap();
        // From the start of a group, and no page twice.
        assert_eq!(
            runs.iter().collect::<Vec<_>>(),
            [(0x10_0000, 506), (0x100_0000, 6)]
        );
        for n in 0..MOST_TEMPLATES as u64 {
            hot.learn(FileId(3, n), &Runs::default());
        }
        assert!(hot.of(id).is_none());
    }
}
