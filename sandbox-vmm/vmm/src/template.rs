//! Templates: the memory of a VM that has loaded its component, in a file. Other VMs begin with it.
//!
//! No register is part of a template: the guest leaves an entry and a stack pointer in its boot page
//! ([`sandbox_abi::port::TEMPLATE`]). Nothing in a template is trusted but that it is of this build: it is what a guest
//! wrote, and a guest of the same tenant begins with it.
//!
//! ```text
//! header, one page | numbers of pages of the system slot, u32 each | these pages | RAM from its start
//! ```

use crate::hot::FileId;
use crate::image::BootImage;
use crate::runs::Runs;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use sandbox_abi::layout::{self, PAGE};
use sandbox_kvm::{GuestMemory, MemoryError, Prefix};

/// Changes with the format of the file.
const FORMAT: u64 = 1;
const MAGIC: u64 = u64::from_le_bytes(*b"cloistpl");
/// Words of the header.
const HEADER: usize = 7;
/// Most pages of the system slot.
const SYSTEM_PAGES: u64 = layout::SYSTEM_LEN / PAGE;
const _: () = assert!(SYSTEM_PAGES * 4 <= 4 * PAGE);
/// Where the pages begin.
const PAGES_AT: u64 = PAGE + 4 * PAGE;

/// A template cannot be made or used.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// It is of another build, or no template.
    #[error("the template is not of this version of the runtime")]
    Version,
    /// It is shorter than it says.
    #[error("the template is cut off")]
    Short,
    /// The file.
    #[error("cannot use the template's file")]
    File(#[from] Errno),
    /// The guest's memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

/// A template.
#[derive(Debug)]
pub struct Template {
    file: OwnedFd,
    /// Pages of the system slot that differ from the boot image, in order; they stand in the file in this order.
    system: Vec<u32>,
    /// Bytes of RAM that the guest had.
    pub(crate) exposed: u64,
    /// Bytes of RAM that are in the file; zeroes follow.
    used: u64,
}

/// A page in transit.
pub(crate) type Page = [u8; PAGE as usize];

fn write_all(file: &OwnedFd, mut bytes: &[u8], mut at: u64) -> Result<(), Errno> {
    while !bytes.is_empty() {
        let n = rustix::io::retry_on_intr(|| rustix::io::pwrite(file, bytes, at))?;
        bytes = bytes.get(n..).unwrap_or_default();
        at += n as u64;
    }
    Ok(())
}

pub(crate) fn read_all(
    file: impl AsFd,
    mut bytes: &mut [u8],
    mut at: u64,
) -> Result<(), TemplateError> {
    while !bytes.is_empty() {
        let n = rustix::io::retry_on_intr(|| rustix::io::pread(&file, &mut *bytes, at))?;
        if n == 0 {
            return Err(TemplateError::Short);
        }
        bytes = bytes.get_mut(n..).unwrap_or_default();
        at += n as u64;
    }
    Ok(())
}

/// Pages of the system slot that lie side by side: their address, how many bytes they have, where they stand in the file.
fn stretches(system: &[u32]) -> impl Iterator<Item = (u64, u64, u64)> {
    let mut next = PAGES_AT;
    system.chunk_by(|a, b| a + 1 == *b).map(move |pages| {
        let (first, len) = (pages.first().map_or(0, |n| *n), pages.len() as u64 * PAGE);
        let at = next;
        next += len;
        (u64::from(first) * PAGE, len, at)
    })
}

/// Writes the memory of a VM that has `exposed` bytes of RAM to an empty file; says how many bytes it has.
///
/// # Errors
/// When memory cannot be read or the file cannot be written.
pub(crate) fn save(
    memory: &GuestMemory,
    image: &BootImage,
    exposed: u64,
    file: &OwnedFd,
) -> Result<u64, TemplateError> {
    let (mut system, mut written) = (Runs::default(), Runs::default());
    system.add_written(memory, 0, layout::SYSTEM_LEN)?;
    written.add_written(memory, layout::RAM, exposed)?;
    // The configuration is each VM's own.
    let config = layout::CONFIG..layout::CONFIG + layout::CONFIG_MAX;
    let system = system.pages().filter(|gpa| !config.contains(gpa));
    let system: Vec<u32> = system
        .map(|gpa| u32::try_from(gpa / PAGE).unwrap_or(u32::MAX))
        .collect();
    let end = written.iter().last();
    let used = end.map_or(0, |(gpa, pages)| gpa + pages * PAGE - layout::RAM);
    let count = system.len() as u64;
    let header: [u64; HEADER] = [
        MAGIC,
        FORMAT,
        sandbox_abi::VERSION,
        image.digest,
        exposed,
        used,
        count,
    ];
    let header: Vec<u8> = header.into_iter().flat_map(u64::to_le_bytes).collect();
    let numbers: Vec<u8> = system.iter().flat_map(|page| page.to_le_bytes()).collect();
    write_all(file, &numbers, PAGE)?;
    for (gpa, len, at) in stretches(&system) {
        memory.store(gpa, len, file.as_fd(), at)?;
    }
    let ram = PAGES_AT + count * PAGE;
    for (start, pages) in written.iter() {
        memory.store(start, pages * PAGE, file.as_fd(), ram + start - layout::RAM)?;
    }
    rustix::fs::ftruncate(file, ram + used)?;
    // Last: a file without a header is no template.
    write_all(file, &header, 0)?;
    Ok(ram + used)
}

impl Template {
    /// Reads a template's header and checks that it is of this build and whole.
    ///
    /// # Errors
    /// [`TemplateError`].
    pub fn open(file: OwnedFd, image: &BootImage) -> Result<Self, TemplateError> {
        let mut header = [0; HEADER * 8];
        read_all(&file, &mut header, 0)?;
        let words = header.as_chunks().0.iter().map(|w| u64::from_le_bytes(*w));
        let [magic, format, version, digest, exposed, used, count] =
            <[u64; HEADER]>::try_from(words.collect::<Vec<_>>())
                .map_err(|_| TemplateError::Version)?;
        let ours =
            (MAGIC, FORMAT, sandbox_abi::VERSION, image.digest) == (magic, format, version, digest);
        let fits = |bytes: u64| bytes <= layout::RAM_MAX && bytes.is_multiple_of(PAGE);
        if !ours || count > SYSTEM_PAGES || !fits(exposed) || !fits(used) || used > exposed {
            return Err(TemplateError::Version);
        }
        let mut numbers = vec![0; usize::try_from(count * 4).unwrap_or(0)];
        read_all(&file, &mut numbers, PAGE)?;
        let numbers = numbers.as_chunks().0.iter();
        let system: Vec<u32> = numbers.map(|n| u32::from_le_bytes(*n)).collect();
        if system.iter().any(|n| u64::from(*n) >= SYSTEM_PAGES) || !system.is_sorted() {
            return Err(TemplateError::Version);
        }
        let template = Template {
            file,
            system,
            exposed,
            used,
        };
        let len = rustix::fs::fstat(&template.file)?.st_size;
        if u64::try_from(len).unwrap_or(0) < template.ram_at() + used {
            return Err(TemplateError::Short);
        }
        Ok(template)
    }

    /// Its file.
    pub(crate) fn id(&self) -> Option<FileId> {
        FileId::of(&self.file)
    }

    fn ram_at(&self) -> u64 {
        PAGES_AT + self.system.len() as u64 * PAGE
    }

    /// What RAM begins with.
    pub(crate) fn prefix(&self) -> Result<Option<Prefix>, TemplateError> {
        if self.used == 0 {
            return Ok(None);
        }
        Ok(Some(Prefix {
            file: rustix::io::fcntl_dupfd_cloexec(&self.file, 3)?,
            offset: self.ram_at(),
            len: self.used,
        }))
    }

    /// Copies the pages of the system slot that differ from the boot image into a VM.
    pub(crate) fn apply(&self, memory: &GuestMemory) -> Result<(), TemplateError> {
        for (gpa, len, at) in stretches(&self.system) {
            memory.load(gpa, len, self.file.as_fd(), at)?;
        }
        Ok(())
    }

    /// Where the page at `gpa` of the system slot or of RAM is kept; `None` where it is zeroes, or the boot image's.
    pub(crate) fn kept(&self, gpa: u64) -> Option<(BorrowedFd<'_>, u64)> {
        let at = match gpa.checked_sub(layout::RAM) {
            Some(offset) => (offset < self.used).then(|| self.ram_at() + offset)?,
            None => {
                let number = u32::try_from(gpa / PAGE).unwrap_or(u32::MAX);
                PAGES_AT + self.system.binary_search(&number).ok()? as u64 * PAGE
            }
        };
        Some((self.file.as_fd(), at))
    }
}
