//! Whether the files of components are there, and what they are called.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use platform_model::Digest;
use sha2::{Digest as _, Sha256};

use super::records::Content;
use super::{CheckError, Report, names};

/// Bytes that are read at once.
const CHUNK: usize = 1 << 20;

/// Looks at the folder of components.
pub(super) fn check(
    folder: &Path,
    content: &Content,
    report: &mut Report,
) -> Result<(), CheckError> {
    let mut wanted = BTreeMap::<Digest, BTreeSet<u64>>::new();
    for component in &content.components {
        let sizes = wanted.entry(component.record.digest).or_default();
        sizes.insert(component.record.size);
    }
    for name in names(folder)? {
        let digest = name
            .strip_suffix(".wasm")
            .and_then(|hex| Digest::from_hex(hex).ok());
        let what = format!("components/{name}");
        let Some(sizes) = digest.and_then(|digest| wanted.remove(&digest)) else {
            report.leftover(what, "no tenant has it");
            continue;
        };
        report.components += 1;
        let path = folder.join(&name);
        let read = hash(&path).map_err(|source| CheckError::File { path, source })?;
        let (found, size) = read;
        if Some(found) != digest {
            report.problem(&what, format!("its content has the digest {found}"));
        }
        if sizes != BTreeSet::from([size]) {
            let why = format!("it has {size} bytes, and the records say {sizes:?}");
            report.problem(&what, why);
        }
    }
    for digest in wanted.into_keys() {
        let what = format!("components/{}.wasm", digest.hex());
        report.problem(what, "a tenant has it, and the file is not there");
    }
    Ok(())
}

/// Digest and size of a file.
fn hash(path: &Path) -> io::Result<(Digest, u64)> {
    let mut file = File::open(path)?;
    let mut chunk = vec![0; CHUNK];
    let (mut hash, mut size) = (Sha256::new(), 0);
    loop {
        let read = file.read(&mut chunk)?;
        if read == 0 {
            return Ok((Digest::from_sha256(hash.finalize().into()), size));
        }
        hash.update(chunk.get(..read).unwrap_or_default());
        size += read as u64;
    }
}
