//! What all VMs of a process are made from: the host's KVM, the boot image, and a few machines that were made ahead.

use crate::hot::Hot;
use crate::image::{BootImage, ImageError};
use crate::runner::Runner;
use sandbox_kvm::{Blank, Fresh, Host, KvmError};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Machines that are kept ready, and threads for their processors.
const READY: usize = 2;

/// The factory.
#[derive(Debug)]
pub struct Factory {
    host: Host,
    pub(crate) image: Arc<BootImage>,
    ready: Mutex<Vec<Blank>>,
    runners: Mutex<Vec<Runner>>,
    fresh: OnceLock<Arc<Fresh>>,
    pub(crate) hot: Arc<Hot>,
}

/// A factory could not be made.
#[derive(Debug, thiserror::Error)]
pub enum FactoryError {
    /// KVM.
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// The boot image.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// What the kernel knows of this process's pages.
    #[error("cannot open /proc/self/pagemap")]
    Proc(#[source] std::io::Error),
}

impl Factory {
    /// Opens the host's KVM and lays out the guest runtime `elf` ([`crate::GUEST`], or another in tests).
    pub fn new(elf: &[u8]) -> Result<Self, FactoryError> {
        sandbox_kvm::prepare().map_err(FactoryError::Proc)?;
        Ok(Factory {
            host: Host::open()?,
            image: Arc::new(BootImage::new(elf)?),
            ready: Mutex::default(),
            runners: Mutex::default(),
            fresh: OnceLock::new(),
            hot: Arc::default(),
        })
    }

    /// The boot image.
    pub fn image(&self) -> &BootImage {
        &self.image
    }

    /// Makes one thing that is not ready yet; `false`: all is. To be called when there is time.
    pub fn stock(&self) -> bool {
        // Whoever needs one next finds out why there is none.
        fill(&self.ready, || self.host.blank()).unwrap_or(false)
            || fill(&self.runners, Runner::new).unwrap_or(false)
    }

    pub(crate) fn blank(&self) -> Result<Blank, KvmError> {
        take(&self.ready).map_or_else(|| self.host.blank(), Ok)
    }

    /// A thread for a virtual processor.
    pub(crate) fn runner(&self) -> std::io::Result<Runner> {
        take(&self.runners).map_or_else(Runner::new, Ok)
    }

    /// What a processor that has not run holds, the same for all.
    pub(crate) fn fresh(&self, blank: &Blank) -> Result<Arc<Fresh>, KvmError> {
        if let Some(fresh) = self.fresh.get() {
            return Ok(Arc::clone(fresh));
        }
        let fresh = Arc::new(self.host.fresh(blank)?);
        Ok(Arc::clone(self.fresh.get_or_init(|| fresh)))
    }
}

/// Adds one to what is ready; `Ok(false)`: there is enough of it.
fn fill<T, E>(ready: &Mutex<Vec<T>>, make: impl Fn() -> Result<T, E>) -> Result<bool, E> {
    let lock = || ready.lock().unwrap_or_else(PoisonError::into_inner);
    if lock().len() >= READY {
        return Ok(false);
    }
    let one = make()?;
    lock().push(one);
    Ok(true)
}

fn take<T>(ready: &Mutex<Vec<T>>) -> Option<T> {
    ready.lock().unwrap_or_else(PoisonError::into_inner).pop()
}
