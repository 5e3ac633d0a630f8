//! The page tables that a template's guest begins with, and what its VM changed in them since.
//!
//! A processor may translate by what it remembers of page tables; where KVM shadows them (`virt/kvm/x86/mmu.rst` in the
//! kernel's documentation), KVM does. It follows what the guest writes to a table, and catches up with the rest when the
//! guest's root changes; what is written to a table from outside of the guest, it does not see. So when a VM is put back:
//!
//! - A table that says what the template's says is not written. Whatever is remembered of it is true.
//! - Where an entry of the last level points to another page than the template's, that page is given back to the host: with
//!   it goes every translation to it ([`Changes::pages`]). Then the entry may be written.
//! - Anything else is beyond this: all that is remembered has to be forgotten, and each page of the VM faults again.
//!
//! Tables that are not the template's are nobody's after that: the guest's runtime clears a table before it uses it.

use crate::runs::Runs;
use crate::tables::LARGE;
use crate::template::{Page, TemplateError};
use sandbox_abi::layout::{self, PAGE};
use std::collections::BTreeMap;

/// A table of the last level maps pages; the root's level is the fourth.
const LAST: u8 = 1;
const ROOT: u8 = 4;
/// A guest with more tables than that is put back the slow way.
const MOST_TABLES: usize = 2048;
/// As is one that points to more other pages.
const MOST_PAGES: usize = 512;

const PRESENT: u64 = 1;
/// What the processor notes in an entry: that it has used it to read, and to write.
const NOTED: u64 = 0b11 << 5;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Where the tables lie, each with its level.
#[derive(Debug)]
pub(crate) struct Tables(BTreeMap<u64, u8>);

fn entries(page: &Page) -> impl Iterator<Item = u64> + '_ {
    let words = page.as_chunks().0.iter();
    words.map(|word| u64::from_le_bytes(*word))
}

impl Tables {
    /// Finds the tables of a guest that has `ram` bytes of RAM. `None`: they are none that a runtime of this build makes.
    pub(crate) fn find(
        ram: u64,
        mut read: impl FnMut(u64, &mut Page) -> Result<(), TemplateError>,
    ) -> Result<Option<Tables>, TemplateError> {
        let mut found = BTreeMap::new();
        let mut waiting = vec![(layout::PML4, ROOT), (layout::PML4_ALT, ROOT)];
        let mut page: Page = [0; PAGE as usize];
        while let Some((table, level)) = waiting.pop() {
            let there = table < layout::SYSTEM_LEN || is_ram(table, ram);
            match found.insert(table, level) {
                Some(before) if before == level => continue,
                None if there && found.len() <= MOST_TABLES => {}
                _ => return Ok(None),
            }
            if level == LAST {
                continue;
            }
            read(table, &mut page)?;
            let below = entries(&page).filter(|e| e & PRESENT != 0 && e & LARGE == 0);
            waiting.extend(below.map(|e| (e & ADDRESS, level - 1)));
        }
        Ok(Some(Tables(found)))
    }

    /// The level of the table at `gpa`, if there is one.
    pub(crate) fn level(&self, gpa: u64) -> Option<u8> {
        self.0.get(&gpa).copied()
    }
}

fn is_ram(gpa: u64, ram: u64) -> bool {
    (layout::RAM..layout::RAM.saturating_add(ram)).contains(&gpa)
}

/// What was changed in tables.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// The pages that changed entries of the last level point to.
    pages: Vec<u64>,
    /// There are changes of which more has to be forgotten than the translations to these pages.
    others: bool,
}

impl Changes {
    /// Compares a table with the template's. `false`: it says the same.
    pub(crate) fn compare(&mut self, level: u8, now: &Page, then: &Page) -> bool {
        let mut any = false;
        for (now, then) in entries(now).zip(entries(then)) {
            if now == then || now & then & PRESENT != 0 && (now ^ then) & !NOTED == 0 {
                continue;
            }
            any = true;
            if level != LAST {
                self.others = true;
            } else if now & PRESENT != 0 {
                self.pages.push(now & ADDRESS);
            }
        }
        any
    }

    /// The pages to be given back; `None` if that would not do. They are to be pages of RAM, and none of `tables`.
    pub(crate) fn pages(mut self, tables: &Tables, ram: u64) -> Option<Runs> {
        let fits = |page: &u64| is_ram(*page, ram) && tables.level(*page).is_none();
        if self.others || self.pages.len() > MOST_PAGES || !self.pages.iter().all(fits) {
            return None;
        }
        self.pages.sort_unstable();
        self.pages.dedup();
        Some(self.pages.into_iter().map(|page| (page, 1)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RAM_LEN: u64 = 1 << 20;

    fn page(set: &[(usize, u64)]) -> Page {
        let mut page = [0; PAGE as usize];
        for (n, entry) in set {
            page[n * 8..n * 8 + 8].copy_from_slice(&entry.to_le_bytes());
        }
        page
    }

    fn find(tables: &[(u64, Page)]) -> Option<Tables> {
        let read = |gpa: u64, page: &mut Page| {
            let found = tables.iter().find(|(at, _)| *at == gpa);
            *page = found.map_or([0; PAGE as usize], |(_, table)| *table);
            Ok(())
        };
        Tables::find(RAM_LEN, read).unwrap()
    }

    fn chain() -> Vec<(u64, Page)> {
        let ram = layout::RAM;
        vec![
            (layout::PML4, page(&[(0, 0x2_0000 | 7)])),
            (layout::PML4_ALT, page(&[(0, 0x2_0000 | 7)])),
            (
                0x2_0000,
                page(&[(1, ram | 7), (2, 0x4000_0000 | LARGE | 7)]),
            ),
            (ram, page(&[(3, (ram + PAGE) | 7)])),
            (ram + PAGE, page(&[(4, 0xffff_f000 | 7)])),
        ]
    }

    #[test]
    fn tables_are_found_with_their_levels() {
        let tables = find(&chain()).unwrap();
        let expected = [
            (layout::PML4, 4),
            (layout::PML4_ALT, 4),
            (0x2_0000, 3),
            (layout::RAM, 2),
            (layout::RAM + PAGE, 1),
        ];
        assert_eq!(tables.0, BTreeMap::from(expected));
    }

    #[test]
    fn tables_of_two_levels_or_outside_of_memory_are_not_gone_through() {
        let mut twice = chain();
        twice[3].1 = page(&[(3, 0x2_0000 | 7)]);
        assert!(find(&twice).is_none());
        let mut outside = chain();
        outside[3].1 = page(&[(3, layout::ARTIFACT | 7)]);
        assert!(find(&outside).is_none());
        let mut itself = chain();
        itself[0].1 = page(&[(0, layout::PML4 | 7)]);
        assert!(find(&itself).is_none());
    }

    #[test]
    fn what_the_processor_notes_is_no_change() {
        let mut changes = Changes::default();
        assert!(!changes.compare(LAST, &page(&[(1, 0x5067)]), &page(&[(1, 0x5007)])));
        assert!(!changes.compare(2, &page(&[(1, 0x5027)]), &page(&[(1, 0x5007)])));
        // Of an entry that is not present it notes nothing.
        assert!(changes.compare(LAST, &page(&[(1, 0x5060)]), &page(&[(1, 0x5000)])));
    }

    #[test]
    fn pages_of_changed_entries_are_told_in_runs() {
        let tables = find(&chain()).unwrap();
        let at = |n: u64| layout::RAM + n * PAGE;
        let mut changes = Changes::default();
        let now = page(&[
            (1, at(6) | 7),
            (2, at(5) | 7),
            (3, at(9) | 7),
            (4, at(9) | 5),
        ]);
        assert!(changes.compare(LAST, &now, &page(&[(7, at(20) | 7)])));
        assert_eq!(
            changes.pages(&tables, RAM_LEN),
            Some([(at(5), 2), (at(9), 1)].into_iter().collect())
        );
    }

    #[test]
    fn other_changes_are_beyond_it() {
        let tables = find(&chain()).unwrap();
        let changed = |level, entry: u64| {
            let mut changes = Changes::default();
            assert!(changes.compare(level, &page(&[(1, entry)]), &page(&[])));
            changes.pages(&tables, RAM_LEN)
        };
        let inside = layout::RAM + 7 * PAGE;
        assert!(changed(LAST, inside | 7).is_some());
        assert!(changed(2, inside | 7).is_none());
        assert!(changed(LAST, layout::ARTIFACT | 5).is_none());
        assert!(changed(LAST, (layout::RAM + RAM_LEN) | 7).is_none());
        // A table, mapped as a page.
        assert!(changed(LAST, (layout::RAM + PAGE) | 7).is_none());
    }
}
