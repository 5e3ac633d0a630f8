//! Pages side by side.

use sandbox_abi::layout::PAGE;
use sandbox_kvm::{GuestMemory, MemoryError};

/// Runs of pages in the order of their addresses: each with its first address, and how many pages it has.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Runs(Vec<(u64, u64)>);

impl Runs {
    /// Adds the pages that a guest wrote between `gpa` and `gpa + len`, which lie behind all others.
    pub(crate) fn add_written(
        &mut self,
        memory: &GuestMemory,
        gpa: u64,
        len: u64,
    ) -> Result<(), MemoryError> {
        memory.written(gpa, len, |gpa, pages| self.push(gpa, pages))
    }

    /// Adds pages that lie behind all others.
    fn push(&mut self, gpa: u64, pages: u64) {
        match self.0.last_mut() {
            Some((first, count)) if *first + *count * PAGE == gpa => *count += pages,
            _ => self.0.push((gpa, pages)),
        }
    }

    /// The runs.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, u64)> {
        self.0.iter().copied()
    }

    /// The address of each page.
    pub(crate) fn pages(&self) -> impl Iterator<Item = u64> {
        self.iter().flat_map(|(gpa, pages)| each_page(gpa, pages))
    }

    /// Whether a page lies in one of them.
    pub(crate) fn holds(&self, gpa: u64) -> bool {
        let behind = self.0.partition_point(|(start, _)| *start <= gpa);
        let run = behind.checked_sub(1).and_then(|n| self.0.get(n));
        run.is_some_and(|(start, pages)| gpa < start + pages * PAGE)
    }
}

impl FromIterator<(u64, u64)> for Runs {
    fn from_iter<I: IntoIterator<Item = (u64, u64)>>(runs: I) -> Runs {
        let mut all = Runs::default();
        for (gpa, pages) in runs {
            all.push(gpa, pages);
        }
        all
    }
}

/// The address of each page of a run.
pub(crate) fn each_page(gpa: u64, pages: u64) -> impl Iterator<Item = u64> {
    (0..pages).map(move |n| gpa + n * PAGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_side_by_side_is_one_run() {
        let at = |n: u64| n * PAGE;
        let runs: Runs = [(at(2), 1), (at(3), 2), (at(7), 1)].into_iter().collect();
        assert_eq!(runs.iter().collect::<Vec<_>>(), [(at(2), 3), (at(7), 1)]);
        let pages = [2, 3, 4, 7].map(at);
        assert_eq!(runs.pages().collect::<Vec<_>>(), pages);
        for n in 0..10 {
            assert_eq!(runs.holds(at(n)), pages.contains(&at(n)), "{n}");
        }
    }
}
