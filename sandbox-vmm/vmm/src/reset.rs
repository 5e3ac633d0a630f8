//! Putting a VM back to its template: memory, registers, rings. What a request left is gone, whatever code it ran.
//!
//! Only pages that were ever written are copied back; the host's kernel knows which ones these are, so nothing that the
//! guest says counts.

use crate::image::BootImage;
use crate::template::{Page, Template, TemplateError};
use crate::vm::VmError;
use rustix::fd::OwnedFd;
use sandbox_abi::boot::field;
use sandbox_abi::layout::{self, PAGE};
use sandbox_kvm::{Fresh, Machine, Start, Vcpu};
use std::sync::Arc;

/// Runs of so many pages or more that were zeroes are given back to the host instead of being written.
const LARGE_RUN: u64 = 64;

/// What a VM is put back to.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(crate) image: Arc<BootImage>,
    pub(crate) template: Arc<Template>,
    pub(crate) config: OwnedFd,
    pub(crate) config_len: u64,
    /// Bytes of RAM that there may be.
    pub(crate) limit: u64,
    pub(crate) tsc_khz: u32,
    pub(crate) artifact_len: u64,
    /// The state of a processor that has not run.
    pub(crate) fresh: Arc<Fresh>,
}

impl Origin {
    /// Writes what each VM has of its own into its boot page, and its configuration.
    pub(crate) fn write_boot(&self, machine: &Machine, exposed: u64) -> Result<(), VmError> {
        crate::vm::write_boot(
            machine.memory(),
            &self.image,
            &crate::vm::Boot {
                ram: exposed,
                limit: self.limit,
                artifact: self.artifact_len,
                config: &self.config,
                config_len: self.config_len,
                tsc_khz: self.tsc_khz,
            },
        )
    }

    /// Puts a VM back whose processor is not running. It goes on at the template's entry.
    pub(crate) fn restore(
        &self,
        machine: &Machine,
        vcpu: &mut Vcpu,
        exposed: u64,
    ) -> Result<(), VmError> {
        vcpu.complete()?;
        let memory = machine.memory();
        let mut system = Vec::new();
        memory.written(0, layout::SYSTEM_LEN, |gpa, pages| {
            system.push((gpa, pages))
        })?;
        let mut ram = Vec::new();
        memory.written(layout::RAM, exposed, |gpa, pages| ram.push((gpa, pages)))?;
        let mut page: Page = [0; PAGE as usize];
        for gpa in each_page(&system) {
            if !self.template.page(gpa, &mut page)? {
                self.image
                    .page(gpa, &mut page)
                    .map_err(TemplateError::from)?;
            }
            memory.write(gpa, &page)?;
        }
        for run in ram {
            if run.1 >= LARGE_RUN {
                memory.discard(run.0, run.1 * PAGE)?;
                continue;
            }
            for gpa in each_page(&[run]) {
                if !self.template.page(gpa, &mut page)? {
                    page.fill(0);
                }
                memory.write(gpa, &page)?;
            }
        }
        memory.remove(layout::RINGS, layout::RINGS_LEN)?;
        self.write_boot(machine, self.template.exposed)?;
        machine.forget_shadows(crate::vm::RINGS_SLOT, layout::RINGS, layout::RINGS_LEN)?;
        vcpu.renew(&self.fresh)?;
        start(machine, vcpu)
    }
}

/// Puts the processor where the template's guest left off.
pub(crate) fn start(machine: &Machine, vcpu: &mut Vcpu) -> Result<(), VmError> {
    let memory = machine.memory();
    vcpu.start(&Start {
        entry: memory.read_u64(layout::BOOT + field::RESUME_ENTRY)?,
        stack: memory.read_u64(layout::BOOT + field::RESUME_STACK)?,
        ..crate::vm::START
    })?;
    Ok(())
}

fn each_page(runs: &[(u64, u64)]) -> impl Iterator<Item = u64> {
    runs.iter()
        .flat_map(|(gpa, pages)| (0..*pages).map(move |n| gpa + n * PAGE))
}
