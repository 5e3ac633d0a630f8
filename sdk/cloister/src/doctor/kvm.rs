//! `/dev/kvm`: there, and ours to open.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use super::Check;

const NAME: &str = "kvm";

/// Opens the device as a worker would, and closes it again.
pub(super) fn check(device: &Path) -> Check {
    let shown = device.display();
    let meta = match std::fs::metadata(device) {
        Ok(meta) => meta,
        Err(error) if error.kind() == ErrorKind::NotFound => return missing(device),
        Err(error) => {
            return Check::fail(
                NAME,
                format!("{shown}: {error}"),
                "make the folder /dev readable",
            );
        }
    };
    if !meta.file_type().is_char_device() {
        return Check::fail(
            NAME,
            format!("{shown} is not a device"),
            "remove it and load the kernel's module kvm",
        );
    }
    match File::options().read(true).write(true).open(device) {
        Ok(_) => Check::ok(NAME, format!("{shown} can be opened")),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            let (mode, owner, group) = (meta.permissions().mode() & 0o777, meta.uid(), meta.gid());
            let detail = format!(
                "{shown} may not be opened by this user (mode {mode:o}, owner {owner}, group {group})"
            );
            Check::fail(
                NAME,
                detail,
                permission(
                    mode,
                    group,
                    &std::fs::read_to_string("/etc/group").unwrap_or_default(),
                ),
            )
        }
        Err(error) => Check::fail(
            NAME,
            format!("{shown} cannot be opened: {error}"),
            "`dmesg | grep -i kvm` says why; most often virtualization is off in the firmware, or held by another hypervisor",
        ),
    }
}

/// What to do about a device that is not there.
fn missing(device: &Path) -> Check {
    let detail = format!("{} does not exist", device.display());
    let modules = "`sudo modprobe kvm_intel` or `sudo modprobe kvm_amd`; if that fails, switch virtualization (VT-x, SVM) on in the firmware";
    let inside = "in a virtual machine its host has to allow nested virtualization, in a container pass the device with --device /dev/kvm";
    Check::fail(NAME, detail, format!("{modules}; {inside}"))
}

/// What to do about a device that another group has.
fn permission(mode: u32, group: u32, groups: &str) -> String {
    let name = groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(group)).then_some(name)
    });
    match name {
        Some(name) if mode & 0o060 == 0o060 && group != 0 => {
            format!("`sudo usermod -aG {name} $USER`, then log in again")
        }
        _ => "`sudo chgrp kvm /dev/kvm && sudo chmod 660 /dev/kvm`, then be in the group kvm; \
              the udev rule in deploy/ does so at each boot"
            .to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::State;

    #[test]
    fn there_or_not() {
        let check = super::check(Path::new("/no/such/kvm"));
        assert_eq!(check.state, State::Fail);
        assert!(check.detail.contains("does not exist") && check.fix.unwrap().contains("modprobe"));
        let check = super::check(Path::new("/"));
        assert!(check.detail.contains("not a device"), "{check:?}");
        assert_eq!(super::check(Path::new("/dev/null")).state, State::Ok);
    }

    #[test]
    fn the_group_is_named() {
        let groups = "root:x:0:\nkvm:x:108:someone\n";
        assert!(permission(0o660, 108, groups).starts_with("`sudo usermod -aG kvm $USER`"));
        assert!(permission(0o600, 108, groups).contains("chmod 660"));
        assert!(permission(0o660, 0, groups).contains("chgrp kvm"));
    }
}
