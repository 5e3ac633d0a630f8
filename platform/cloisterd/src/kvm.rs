//! Whether workers will be able to use KVM. Asked without opening the device: the node never holds it.

use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};
use rustix::io::Errno;

/// The device.
pub(crate) const DEVICE: &str = "/dev/kvm";

/// Why KVM cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KvmError {
    /// There is no device.
    #[error(
        "there is no {}: load the module (modprobe kvm_intel or kvm_amd), enable virtualization in the firmware, or, \
         on a virtual machine, enable nested virtualization; in a container, pass the device in", .0.display()
    )]
    Missing(PathBuf),
    /// It is there, and not for this user.
    #[error(
        "{} may not be read and written by this user: add the user to the group kvm (usermod -aG kvm USER, then log in \
         again), or see to the permissions of the device", .0.display()
    )]
    Forbidden(PathBuf),
    /// Anything else.
    #[error("{} cannot be used", .path.display())]
    Other {
        /// The device.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Whether this user may open the device.
pub(crate) fn check(device: &Path) -> Result<(), KvmError> {
    let path = device.to_owned();
    match access(device, Access::READ_OK | Access::WRITE_OK) {
        Ok(()) => Ok(()),
        Err(Errno::NOENT | Errno::NOTDIR) => Err(KvmError::Missing(path)),
        Err(Errno::ACCESS | Errno::PERM) => Err(KvmError::Forbidden(path)),
        Err(errno) => Err(KvmError::Other {
            path,
            source: errno.into(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_is_missing() {
        let error = check(Path::new("/dev/null/kvm")).unwrap_err();
        assert!(matches!(error, KvmError::Missing(_)));
        assert!(error.to_string().contains("modprobe"), "{error}");
    }

    #[test]
    fn a_device_that_is_there() {
        check(Path::new("/dev/null")).unwrap();
    }
}
