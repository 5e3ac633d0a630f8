//! Pages that a request is expected to write, since one did in another VM with the same template: a list in the boot page. The
//! guest that knows them copies them all at once; each that it does not know costs it a fault when it is written.
//!
//! The list is the guest's word on itself, kept by the VMM for guests of the same tenant and component. It says nothing of
//! what is in the pages, and a guest that it misleads copies pages in vain.

/// Values of [`crate::boot::field::EXPECTED`].
pub mod state {
    /// There is no list, and none is wanted. VMM.
    pub const NONE: u64 = 0;
    /// There is no list: the guest is to write one. VMM.
    pub const WANTED: u64 = 1;
    /// The guest has written it, as its first request was over. Guest.
    pub const WRITTEN: u64 = 2;
    /// There is a list. VMM.
    pub const KNOWN: u64 = 3;
}

/// Most entries of the list.
pub const MOST: u64 = 256;
/// Bytes of an entry.
pub const ENTRY: u64 = 8;

/// When a page is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// While the instance is made.
    Making,
    /// Later, by a request.
    Request,
}

/// What a page is a part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The arena of a slot.
    Arena,
    /// The n-th memory of an instance.
    Memory(u8),
}

/// An entry of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// When.
    pub when: When,
    /// Of what.
    pub part: Part,
    /// Its number there.
    pub page: u32,
}

const PART_AT: u32 = 32;
const WHEN_AT: u32 = 48;

impl Entry {
    /// As it stands in the list: bits 0 to 31 the page, 32 to 40 the part (0: the arena), 48 set for a request's.
    #[must_use]
    pub fn encode(self) -> u64 {
        let part = match self.part {
            Part::Arena => 0,
            Part::Memory(n) => u64::from(n) + 1,
        };
        let when = u64::from(self.when == When::Request);
        u64::from(self.page) | part << PART_AT | when << WHEN_AT
    }

    /// `None`: it is no entry.
    #[must_use]
    pub fn decode(word: u64) -> Option<Entry> {
        let part = word >> PART_AT & 0xffff;
        Some(Entry {
            when: match word >> WHEN_AT {
                0 => When::Making,
                1 => When::Request,
                _ => return None,
            },
            part: match part.checked_sub(1) {
                None => Part::Arena,
                Some(n) => Part::Memory(u8::try_from(n).ok()?),
            },
            page: u32::try_from(word & 0xffff_ffff).ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_read_as_they_were_written() {
        for when in [When::Making, When::Request] {
            for part in [Part::Arena, Part::Memory(0), Part::Memory(u8::MAX)] {
                for page in [0, 1, u32::MAX] {
                    let entry = Entry { when, part, page };
                    assert_eq!(Entry::decode(entry.encode()), Some(entry));
                }
            }
        }
        for bad in [257 << PART_AT, 2 << WHEN_AT, u64::MAX] {
            assert_eq!(Entry::decode(bad), None, "{bad:#x}");
        }
    }
}
