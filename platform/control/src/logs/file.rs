//! A ring on disk: two files of bounded size, of which the older makes room.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

/// Size that a file may have, in bytes.
pub(super) const CAP: u64 = 8 << 20;

/// The names of a ring's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ring {
    /// The file that is being written.
    pub(super) current: &'static str,
    /// The file that was written before it.
    pub(super) previous: &'static str,
}

/// What the component and the node write.
pub(super) const OUTPUT: Ring = Ring {
    current: "current.ndjson",
    previous: "previous.ndjson",
};

/// The requests, which would push everything else out of a ring that they shared.
pub(super) const ACCESS: Ring = Ring {
    current: "access.ndjson",
    previous: "access-previous.ndjson",
};

/// A ring, open for writing.
#[derive(Debug)]
pub(super) struct LogFile {
    folder: PathBuf,
    ring: Ring,
    file: BufWriter<File>,
    size: u64,
}

impl LogFile {
    /// Opens the ring in `folder`, or makes it.
    pub(super) fn open(folder: &Path, ring: Ring) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(folder.join(ring.current))?;
        let mut size = file.metadata()?.len();
        // A node that was killed may have left half a line: what comes starts on one of its own.
        if size > 0 {
            let mut last = [0];
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
            if last != *b"\n" {
                file.write_all(b"\n")?;
                size += 1;
            }
        }
        Ok(Self {
            folder: folder.to_owned(),
            ring,
            file: BufWriter::with_capacity(64 * 1024, file),
            size,
        })
    }

    /// Writes a line, which ends with its line end.
    pub(super) fn write(&mut self, line: &[u8]) -> io::Result<()> {
        if self.size > 0 && self.size + line.len() as u64 > CAP {
            self.file.flush()?;
            let current = self.folder.join(self.ring.current);
            fs::rename(&current, self.folder.join(self.ring.previous))?;
            let options = OpenOptions::new()
                .append(true)
                .create(true)
                .open(&current)?;
            self.file = BufWriter::with_capacity(64 * 1024, options);
            self.size = 0;
        }
        self.file.write_all(line)?;
        self.size += line.len() as u64;
        Ok(())
    }

    /// Hands what was written to the system.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_files_of_bounded_size() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = LogFile::open(folder.path(), OUTPUT).unwrap();
        let line = [b"x".repeat(1 << 20), b"\n".to_vec()].concat();
        for _ in 0..40 {
            file.write(&line).unwrap();
        }
        file.flush().unwrap();
        let size = |name| fs::metadata(folder.path().join(name)).unwrap().len();
        assert!(size(OUTPUT.current) > 0 && size(OUTPUT.current) <= CAP);
        assert!(size(OUTPUT.previous) > CAP / 2 && size(OUTPUT.previous) <= CAP);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn half_a_line_is_ended() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(OUTPUT.current), "half").unwrap();
        let mut file = LogFile::open(folder.path(), OUTPUT).unwrap();
        file.write(b"whole\n").unwrap();
        file.flush().unwrap();
        let text = fs::read_to_string(folder.path().join(OUTPUT.current)).unwrap();
        assert_eq!(text, "half\nwhole\n");
    }
}
