//! The list of expected writes in the boot page: see [`sandbox_abi::expected`].

use crate::kernel::boot;
use sandbox_abi::boot::field;
use sandbox_abi::expected::{ENTRY, Entry, MOST, Part, When, state};
use sandbox_abi::layout::PAGE;

fn is(state: u64) -> bool {
    boot::get(field::EXPECTED) == state
}

/// Whether the list is to be written.
pub fn is_wanted() -> bool {
    is(state::WANTED)
}

fn place(n: u64) -> u64 {
    field::EXPECTED_LIST + n * ENTRY
}

/// Adds the page at `offset` of a part, while there is room.
pub fn add(when: When, part: Part, offset: u64) {
    let count = boot::get(field::EXPECTED_COUNT);
    if count < MOST
        && let Ok(page) = u32::try_from(offset / PAGE)
    {
        boot::set(place(count), Entry { when, part, page }.encode());
        boot::set(field::EXPECTED_COUNT, count + 1);
    }
}

/// The list is as long as it will be.
pub fn end() {
    boot::set(field::EXPECTED, state::WRITTEN);
}

/// Offsets of the pages of a part; none if there is no list.
pub fn offsets(when: When, part: Part) -> impl Iterator<Item = u64> {
    let count = if is(state::KNOWN) {
        boot::get(field::EXPECTED_COUNT).min(MOST)
    } else {
        0
    };
    let entries = (0..count).filter_map(|n| Entry::decode(boot::get(place(n))));
    let entries = entries.filter(move |e| (e.when, e.part) == (when, part));
    entries.map(|e| u64::from(e.page) * PAGE)
}
