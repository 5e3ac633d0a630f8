//! A mapping of this process, and what the kernel knows of its pages.

use crate::memory::PAGE;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::ptr::null_mut;
use std::sync::OnceLock;

/// Bytes in a large page.
const LARGE_PAGE: usize = 2 << 20;

/// What a mapping shows.
#[derive(Debug)]
pub(crate) enum Source<'a> {
    /// Zeroes.
    Zeroes,
    /// A copy of a file's content; writes stay in the mapping.
    Private(&'a OwnedFd),
    /// A file's content, not to be written.
    ReadOnly(&'a OwnedFd),
    /// A file, which is written.
    Shared(&'a OwnedFd),
}

impl Source<'_> {
    /// What may be done with the pages.
    pub(crate) fn protection(&self) -> libc::c_int {
        match self {
            Source::ReadOnly(_) => libc::PROT_READ,
            Source::Zeroes | Source::Private(_) | Source::Shared(_) => {
                libc::PROT_READ | libc::PROT_WRITE
            }
        }
    }

    fn flags(&self) -> libc::c_int {
        match self {
            Source::Zeroes => libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            Source::Private(_) | Source::ReadOnly(_) => libc::MAP_PRIVATE | libc::MAP_NORESERVE,
            Source::Shared(_) => libc::MAP_SHARED,
        }
    }

    fn fd(&self) -> libc::c_int {
        match self {
            Source::Zeroes => -1,
            Source::Private(fd) | Source::ReadOnly(fd) | Source::Shared(fd) => fd.as_raw_fd(),
        }
    }
}

/// A mapping. Unmapped when it is dropped.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: *mut u8,
    len: usize,
}

// SAFETY: the pointer is an address; what lies behind it is reached by volatile copies and system calls alone.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `len` bytes, at an address that is a multiple of a large page: where the host has large pages there, KVM can use
    /// them.
    pub(crate) fn new(len: usize, source: &Source<'_>) -> io::Result<Mapping> {
        let mapping = Mapping::reserve(len)?;
        // SAFETY: the range is a mapping of our own that nobody knows of yet; its pages become others.
        let start = unsafe {
            libc::mmap(
                mapping.start.cast(),
                len,
                source.protection(),
                source.flags() | libc::MAP_FIXED,
                source.fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // What is in a guest is its tenant's.
        mapping.advise(0, len, libc::MADV_DONTDUMP)?;
        Ok(mapping)
    }

    /// Addresses for `len` bytes, which cannot be used yet.
    fn reserve(len: usize) -> io::Result<Mapping> {
        let invalid = || io::Error::from(io::ErrorKind::InvalidInput);
        let page = usize::try_from(PAGE).map_err(|_| invalid())?;
        let len = len.checked_next_multiple_of(page).ok_or_else(invalid)?;
        let room = len.checked_add(LARGE_PAGE).ok_or_else(invalid)?;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice aliases nothing of this process.
        let all = unsafe { libc::mmap(null_mut(), room, libc::PROT_NONE, flags, -1, 0) };
        if all == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let all: *mut u8 = all.cast();
        let before = all.addr().next_multiple_of(LARGE_PAGE) - all.addr();
        let start = all.wrapping_add(before);
        for (at, rest) in [
            (all, before),
            (start.wrapping_add(len), LARGE_PAGE - before),
        ] {
            if rest > 0 {
                // SAFETY: what lies before and behind the part that is kept, of the mapping that was just made.
                unsafe { libc::munmap(at.cast(), rest) };
            }
        }
        Ok(Mapping { start, len })
    }

    /// Lets `len` bytes from `offset` on, of a mapping that may be written, show a private copy of `file` from `at` on.
    pub(crate) fn overlay(
        &self,
        offset: usize,
        len: usize,
        file: BorrowedFd<'_>,
        at: u64,
    ) -> io::Result<()> {
        self.check(offset, len)?;
        if len == 0 {
            return Ok(());
        }
        let at = libc::off_t::try_from(at).map_err(|_| io::ErrorKind::InvalidInput)?;
        // SAFETY: the range lies in our own mapping (`check`), to whose content nobody has a reference.
        let mapped = unsafe {
            libc::mmap(
                self.start.wrapping_add(offset).cast(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_FIXED | libc::MAP_NORESERVE,
                file.as_raw_fd(),
                at,
            )
        };
        if mapped == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        self.advise(offset, len, libc::MADV_DONTDUMP)
    }

    /// Its address.
    pub(crate) fn start(&self) -> *mut u8 {
        self.start
    }

    /// Its bytes.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Gives `len` bytes from `offset` back to what they were when they were mapped.
    pub(crate) fn discard(&self, offset: usize, len: usize) -> io::Result<()> {
        self.advise(offset, len, libc::MADV_DONTNEED)
    }

    /// Asks for large pages, where the host has some to give.
    pub(crate) fn prefer_large_pages(&self, offset: usize, len: usize) {
        // Without them it works as well.
        let _ = self.advise(offset, len, libc::MADV_HUGEPAGE);
    }

    /// Gives `len` bytes from `offset` pages of their own at once, with the content that they have.
    pub(crate) fn populate(&self, offset: usize, len: usize) -> io::Result<()> {
        self.advise(offset, len, libc::MADV_POPULATE_WRITE)
    }

    /// Makes `len` bytes from `offset` of a shared file zeroes.
    pub(crate) fn remove(&self, offset: usize, len: usize) -> io::Result<()> {
        self.advise(offset, len, libc::MADV_REMOVE)
    }

    /// Copies `len` bytes from `at` of a file to `offset`, past all memory of Rust's.
    pub(crate) fn load(
        &self,
        offset: usize,
        len: usize,
        file: BorrowedFd<'_>,
        at: u64,
    ) -> io::Result<()> {
        self.transfer(offset, len, at, |start, len, at| {
            // SAFETY: the caller of the closure, `transfer`, hands over bytes of our mapping, whose content nobody has a
            // reference to.
            unsafe { libc::pread(file.as_raw_fd(), start.cast(), len, at) }
        })
    }

    /// Copies `len` bytes from `offset` to `at` of a file.
    pub(crate) fn store(
        &self,
        offset: usize,
        len: usize,
        file: BorrowedFd<'_>,
        at: u64,
    ) -> io::Result<()> {
        self.transfer(offset, len, at, |start, len, at| {
            // SAFETY: as in `load`.
            unsafe { libc::pwrite(file.as_raw_fd(), start.cast(), len, at) }
        })
    }

    /// Calls `some(start, len, at)` until all is done; it says how many bytes it did, or -1.
    fn transfer(
        &self,
        offset: usize,
        len: usize,
        at: u64,
        some: impl Fn(*mut u8, usize, libc::off_t) -> isize,
    ) -> io::Result<()> {
        self.check(offset, len)?;
        let invalid = |_| io::Error::from(io::ErrorKind::InvalidInput);
        let mut done = 0;
        while done < len {
            let from = libc::off_t::try_from(at + done as u64).map_err(invalid)?;
            match some(self.start.wrapping_add(offset + done), len - done, from) {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n if n > 0 => done += n.unsigned_abs(),
                _ => match io::Error::last_os_error() {
                    error if error.kind() == io::ErrorKind::Interrupted => {}
                    error => return Err(error),
                },
            }
        }
        Ok(())
    }

    fn advise(&self, offset: usize, len: usize, advice: libc::c_int) -> io::Result<()> {
        self.check(offset, len)?;
        // SAFETY: the range lies in our mapping (`check`), whose content nobody has a reference to.
        let done = unsafe { libc::madvise(self.start.wrapping_add(offset).cast(), len, advice) };
        if done == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }

    fn check(&self, offset: usize, len: usize) -> io::Result<()> {
        match offset.checked_add(len) {
            Some(end) if end <= self.len => Ok(()),
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    /// Calls `found(offset, pages)` for each run of pages that are in memory, or in swap, and belong to no file: those that
    /// were written.
    pub(crate) fn private_pages(
        &self,
        offset: usize,
        len: usize,
        mut found: impl FnMut(usize, u64),
    ) -> io::Result<()> {
        self.check(offset, len)?;
        let start = self.start.addr() + offset;
        let base = self.start.addr();
        match scan(start, len, &mut |at, pages| found(at - base, pages)) {
            Err(error) if is_unknown(&error) => {
                read_pagemap(start, len, &mut |at, pages| found(at - base, pages))
            }
            done => done,
        }
    }
}

/// Writes bytes to a file in memory; in large pages, where the host has some to give.
///
/// # Errors
/// When the file cannot be mapped, or is too short.
pub fn write_in_large_pages(file: &OwnedFd, at: u64, bytes: &[u8]) -> io::Result<()> {
    let invalid = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let len = rustix::fs::fstat(file)?.st_size;
    let mapping = Mapping::new(
        usize::try_from(len).map_err(invalid)?,
        &Source::Shared(file),
    )?;
    let at = usize::try_from(at).map_err(invalid)?;
    mapping.check(at, bytes.len())?;
    let first = at & !(LARGE_PAGE - 1);
    let end = (at + bytes.len()).next_multiple_of(LARGE_PAGE);
    let around = end.min(mapping.len) - first;
    mapping.prefer_large_pages(first, around);
    // SAFETY: the destination lies in our mapping (`check`), which nobody else has a reference to, and which is not where
    // `bytes` is. The file is as long as the mapping and not shorter meanwhile: it is ours alone.
    unsafe {
        let to = mapping.start.wrapping_add(at);
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len());
    }
    // Where no large page was at hand when it was written to: as above.
    let _ = mapping.advise(first, around, libc::MADV_COLLAPSE);
    Ok(())
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping of `new`, whole; whoever points into it is dropped before (`GuestMemory`, `Machine`).
        unsafe { libc::munmap(self.start.cast(), self.len) };
    }
}

/// `struct page_region` of `linux/fs.h`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct PageRegion {
    start: u64,
    end: u64,
    categories: u64,
}

/// `struct pm_scan_arg` of `linux/fs.h`.
#[repr(C)]
struct ScanArg {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

/// `PAGEMAP_SCAN`, of Linux 6.7: `Documentation/admin-guide/mm/pagemap.rst`.
const PAGEMAP_SCAN: libc::c_ulong = 0xc060_6610;
const PAGE_IS_FILE: u64 = 1 << 2;
const PAGE_IS_PRESENT: u64 = 1 << 3;
const PAGE_IS_SWAPPED: u64 = 1 << 4;
const PAGE_IS_PFNZERO: u64 = 1 << 5;

fn pagemap() -> io::Result<&'static File> {
    static FILE: OnceLock<Option<File>> = OnceLock::new();
    FILE.get_or_init(|| File::open("/proc/self/pagemap").ok())
        .as_ref()
        .ok_or_else(|| io::Error::other("/proc/self/pagemap cannot be opened"))
}

/// Opens what [`Mapping::private_pages`] reads, for a process that will not be able to later.
pub(crate) fn prepare() -> io::Result<()> {
    pagemap().map(|_| ())
}

fn is_unknown(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENOTTY | libc::EINVAL | libc::ENOSYS)
    )
}

fn scan(start: usize, len: usize, found: &mut dyn FnMut(usize, u64)) -> io::Result<()> {
    let file = pagemap()?;
    let mut regions = [PageRegion::default(); 64];
    let (mut at, end) = (start as u64, (start + len) as u64);
    while at < end {
        let mut arg = ScanArg {
            size: size_of::<ScanArg>() as u64,
            flags: 0,
            start: at,
            end,
            walk_end: 0,
            vec: regions.as_mut_ptr().addr() as u64,
            vec_len: regions.len() as u64,
            max_pages: 0,
            // Of no file, and not the page of zeroes.
            category_inverted: PAGE_IS_FILE | PAGE_IS_PFNZERO,
            category_mask: PAGE_IS_FILE | PAGE_IS_PFNZERO,
            category_anyof_mask: PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
            return_mask: PAGE_IS_PRESENT,
        };
        // SAFETY: the kernel writes at most `vec_len` regions to `regions`, and the fields of `arg`; both outlive the call.
        let count = unsafe { libc::ioctl(file.as_raw_fd(), PAGEMAP_SCAN, &raw mut arg) };
        if count < 0 {
            return Err(io::Error::last_os_error());
        }
        let count = usize::try_from(count).unwrap_or(0);
        for region in regions.iter().take(count) {
            let first = usize::try_from(region.start).unwrap_or(usize::MAX);
            found(first, (region.end - region.start) / PAGE);
        }
        if arg.walk_end <= at {
            return Err(io::Error::other("PAGEMAP_SCAN makes no progress"));
        }
        at = arg.walk_end;
    }
    Ok(())
}

/// As [`scan`], for older kernels: bits 61 to 63 of an entry say file, swapped, present.
fn read_pagemap(start: usize, len: usize, found: &mut dyn FnMut(usize, u64)) -> io::Result<()> {
    const FILE: u64 = 1 << 61;
    const THERE: u64 = 0b11 << 62;
    let file = pagemap()?;
    let page = usize::try_from(PAGE).unwrap_or(4096);
    let mut entries = [0_u8; 8 * 512];
    let mut at = start;
    while at < start + len {
        let pages = ((start + len - at) / page).min(512);
        let bytes = entries.get_mut(..pages * 8).unwrap_or_default();
        file.read_exact_at(bytes, (at / page * 8) as u64)?;
        for (n, entry) in bytes.as_chunks::<8>().0.iter().enumerate() {
            let entry = u64::from_ne_bytes(*entry);
            if entry & THERE != 0 && entry & FILE == 0 {
                found(at + n * page, 1);
            }
        }
        at += pages * page;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd as _;

    fn runs(f: impl FnOnce(&mut dyn FnMut(usize, u64)) -> io::Result<()>) -> Vec<(usize, u64)> {
        let mut all = Vec::new();
        f(&mut |at, pages| all.push((at, pages))).unwrap();
        all
    }

    /// One page after the other, so that runs may be cut where the kernel likes.
    fn pages(runs: &[(usize, u64)], base: usize) -> Vec<usize> {
        let page = PAGE as usize;
        let mut all = Vec::new();
        for (at, n) in runs {
            let first = (at - base) / page;
            all.extend(first..first + *n as usize);
        }
        all.sort_unstable();
        all
    }

    #[test]
    fn mappings_lie_where_large_pages_could() {
        for len in [4096, LARGE_PAGE, 3 * LARGE_PAGE + 4096] {
            let mapping = Mapping::new(len, &Source::Zeroes).unwrap();
            assert!(mapping.start.addr().is_multiple_of(LARGE_PAGE));
            // SAFETY: the last byte of the mapping.
            unsafe { mapping.start.wrapping_add(len - 1).write_volatile(1) };
        }
    }

    #[test]
    fn what_is_written_in_large_pages_is_in_the_file() {
        let file = rustix::fs::memfd_create("test", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&file, 3 << 20).unwrap();
        let bytes: Vec<u8> = (0..10_000_u32).map(|n| n as u8).collect();
        let at = (2 << 20) - 5000;
        write_in_large_pages(&file, at, &bytes).unwrap();
        let mut read = vec![1; 10_002];
        rustix::io::pread(&file, &mut read, at - 1).unwrap();
        assert_eq!((read[0], read[10_001]), (0, 0));
        assert_eq!(read[1..10_001], bytes);
        assert!(write_in_large_pages(&file, 3 << 20, &[1]).is_err());
    }

    #[test]
    fn pages_that_were_written_are_found_both_ways() {
        let page = PAGE as usize;
        let file = rustix::fs::memfd_create("test", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&file, 8 * PAGE).unwrap();
        rustix::io::pwrite(&file, &[7; 8 * PAGE as usize], 0).unwrap();
        let mapping = Mapping::new(16 * page, &Source::Zeroes).unwrap();
        mapping.overlay(0, 8 * page, file.as_fd(), 0).unwrap();
        let at = |n: usize| mapping.start().wrapping_add(n * page);
        for n in [1, 2, 9] {
            // SAFETY: within the mapping.
            unsafe { at(n).write_volatile(1) };
        }
        for n in [4, 12] {
            // SAFETY: within the mapping. Reading makes no page of one's own.
            unsafe { at(n).read_volatile() };
        }
        let base = mapping.start().addr();
        let scanned = runs(|found| scan(base, mapping.len(), found));
        let read = runs(|found| read_pagemap(base, mapping.len(), found));
        assert_eq!(pages(&scanned, base), [1, 2, 9]);
        // The page of zeroes, which was read, cannot be told apart this way; it does no harm.
        let read = pages(&read, base);
        assert!([1, 2, 9].iter().all(|n| read.contains(n)), "{read:?}");
        assert!(!read.contains(&4), "{read:?}");
        mapping.discard(page, page).unwrap();
        // SAFETY: within the mapping.
        assert_eq!(unsafe { at(1).read_volatile() }, 7);
        assert_eq!(
            pages(&runs(|found| scan(base, mapping.len(), found)), base),
            [2, 9]
        );
    }
}
