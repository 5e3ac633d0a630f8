//! Putting a VM back to what it was before its first request: memory, registers, rings. What a request left is gone,
//! whatever code it ran.
//!
//! That is its template, and what the guest added to it before it looked at the rings ([`crate::checkpoint`]). Only pages
//! that were written since are copied back; the host's kernel knows which ones these are, so nothing that the guest says
//! counts. Nor is more forgotten of how addresses are translated than has to be ([`crate::translations`]): to translate each
//! page of a guest anew would cost more than all the rest.

use crate::checkpoint::{Checkpoint, written};
use crate::image::BootImage;
use crate::runs::{Runs, each_page};
use crate::template::{Page, Template, TemplateError, read_all};
use crate::translations::{Changes, Tables};
use crate::vm::{Boot, VmError};
use rustix::fd::{AsRawFd as _, BorrowedFd};
use sandbox_abi::boot::field;
use sandbox_abi::layout::{self, PAGE};
use sandbox_kvm::{Fresh, GuestMemory, Machine, Start, Vcpu};
use std::sync::Arc;

/// Runs of so many pages or more are given back to the host instead of being written: it is more memory than a VM is to keep
/// for its next requests.
const LARGE_RUN: u64 = 1024;
/// Pages at the start of a ring that stay in memory; most requests need no more.
const RING_PAGES: u64 = 16;

/// What a VM is put back to.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(crate) image: Arc<BootImage>,
    pub(crate) template: Arc<Template>,
    /// What the guest added. None before it said so.
    pub(crate) checkpoint: Option<Checkpoint>,
    pub(crate) boot: Boot,
    /// The state of a processor that has not run.
    pub(crate) fresh: Arc<Fresh>,
    /// The page tables that it begins with.
    pub(crate) tables: Option<Tables>,
}

impl Origin {
    /// Where the page at `gpa`, of the system slot or of RAM, is kept; `None`: it is zeroes.
    fn kept(&self, gpa: u64) -> Option<(BorrowedFd<'_>, u64)> {
        let added = self.checkpoint.as_ref().and_then(|c| c.kept(gpa));
        added
            .or_else(|| self.template.kept(gpa))
            .or_else(|| self.image.kept(gpa))
    }

    /// Reads that page.
    fn read(&self, gpa: u64, page: &mut Page) -> Result<(), TemplateError> {
        match self.kept(gpa) {
            Some((file, at)) => read_all(file, page, at),
            None => {
                page.fill(0);
                Ok(())
            }
        }
    }

    /// What the guest has made of its memory is what it is put back to from now on.
    pub(crate) fn take_checkpoint(
        &mut self,
        memory: &GuestMemory,
        exposed: u64,
    ) -> Result<(), VmError> {
        self.checkpoint = Some(Checkpoint::take(memory, exposed)?);
        self.boot.ram = exposed;
        self.tables = Tables::find(exposed, |gpa, page| self.read(gpa, page))?;
        Ok(())
    }

    /// Puts a VM back whose processor is not running, and which has `exposed` bytes of RAM. It goes on where its guest said.
    pub(crate) fn restore(
        &self,
        machine: &Machine,
        vcpu: &mut Vcpu,
        exposed: u64,
    ) -> Result<(), VmError> {
        vcpu.complete()?;
        let memory = machine.memory();
        let written = written(memory, exposed)?;
        let given_back = self.put_back_tables(memory, &written, exposed)?;
        for (start, pages) in given_back.iter().flat_map(Runs::iter) {
            memory.discard(start, pages * PAGE)?;
        }
        for (start, pages) in written.iter() {
            if start >= layout::RAM && pages >= LARGE_RUN {
                memory.discard(start, pages * PAGE)?;
            } else {
                self.put_back(memory, start, pages, |gpa| {
                    let table = self.tables.as_ref().and_then(|t| t.level(gpa));
                    table.is_none() && !given_back.as_ref().is_some_and(|runs| runs.holds(gpa))
                })?;
            }
        }
        clear_rings(memory)?;
        crate::vm::write_boot(memory, &self.image, &self.boot)?;
        if given_back.is_none() {
            machine.forget_shadows(crate::vm::RINGS_SLOT, layout::RINGS, layout::RINGS_LEN)?;
        }
        vcpu.renew(&self.fresh)?;
        start(machine, vcpu)
    }

    /// Puts the page tables back; says which pages are to be given back because of it. `None`: all translations
    /// have to be forgotten.
    fn put_back_tables(
        &self,
        memory: &GuestMemory,
        written: &Runs,
        exposed: u64,
    ) -> Result<Option<Runs>, VmError> {
        let Some(tables) = &self.tables else {
            return Ok(None);
        };
        let mut changes = Changes::default();
        let (mut now, mut then): (Page, Page) = ([0; PAGE as usize], [0; PAGE as usize]);
        for (gpa, level) in written
            .pages()
            .filter_map(|gpa| Some((gpa, tables.level(gpa)?)))
        {
            memory.read(gpa, &mut now)?;
            self.read(gpa, &mut then)?;
            if changes.compare(level, &now, &then) {
                memory.write(gpa, &then)?;
            }
        }
        Ok(changes.pages(tables, exposed))
    }

    /// Copies what is kept of a run of pages back, but for those that are not `wanted`.
    fn put_back(
        &self,
        memory: &GuestMemory,
        start: u64,
        pages: u64,
        wanted: impl Fn(u64) -> bool,
    ) -> Result<(), VmError> {
        let zeroes: Page = [0; PAGE as usize];
        // What lies side by side here and there is copied at once.
        let mut run: Option<(u64, u64, BorrowedFd<'_>, u64)> = None;
        for gpa in each_page(start, pages).filter(|gpa| wanted(*gpa)) {
            let Some((file, at)) = self.kept(gpa) else {
                memory.write(gpa, &zeroes)?;
                continue;
            };
            match &mut run {
                Some((first, len, of, from))
                    if *first + *len == gpa && is_same(of, &file) && *from + *len == at =>
                {
                    *len += PAGE;
                }
                _ => {
                    if let Some((first, len, of, from)) = run.replace((gpa, PAGE, file, at)) {
                        memory.load(first, len, of, from)?;
                    }
                }
            }
        }
        if let Some((first, len, of, from)) = run {
            memory.load(first, len, of, from)?;
        }
        Ok(())
    }
}

fn is_same(one: &BorrowedFd<'_>, other: &BorrowedFd<'_>) -> bool {
    one.as_raw_fd() == other.as_raw_fd()
}

/// Makes the rings zeroes: what most requests use stays in memory, the rest is given back.
fn clear_rings(memory: &GuestMemory) -> Result<(), VmError> {
    let zeroes: Page = [0; PAGE as usize];
    let data = layout::RINGS + layout::RING_CONTROL;
    memory.write(layout::RINGS, &zeroes)?;
    for ring in [data, data + layout::RING_LEN] {
        for gpa in each_page(ring, RING_PAGES) {
            memory.write(gpa, &zeroes)?;
        }
        let kept = RING_PAGES * PAGE;
        memory.remove(ring + kept, layout::RING_LEN - kept)?;
    }
    Ok(())
}

/// Puts the processor where the guest is to go on.
pub(crate) fn start(machine: &Machine, vcpu: &mut Vcpu) -> Result<(), VmError> {
    let memory = machine.memory();
    vcpu.start(&Start {
        entry: memory.read_u64(layout::BOOT + field::RESUME_ENTRY)?,
        stack: memory.read_u64(layout::BOOT + field::RESUME_STACK)?,
        ..crate::vm::START
    })?;
    Ok(())
}
