//! A component on its way to the node, with its progress.

use std::path::Path;

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, stream};
use tokio::fs::File;
use tokio::io::AsyncReadExt as _;

use crate::ClientError;

/// Size of a piece that is read and sent, in bytes.
const CHUNK: usize = 64 * 1024;

/// How much of a component has left for the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that were handed to the connection.
    pub sent: u64,
    /// Bytes in all.
    pub total: u64,
}

/// A file that is opened and measured, and not yet read.
pub(crate) struct Source {
    file: File,
    /// Its size in bytes.
    pub(crate) size: u64,
}

impl Source {
    /// Opens a regular file.
    pub(crate) async fn open(path: &Path) -> Result<Self, ClientError> {
        let unreadable = |source| ClientError::Component {
            path: path.to_owned(),
            source,
        };
        let not_a_file = |what| ClientError::NotAFile {
            path: path.to_owned(),
            what,
        };
        // Asked before it is opened: opening a pipe would wait for its other end.
        let kind = tokio::fs::metadata(path).await.map_err(unreadable)?;
        if kind.is_dir() {
            return Err(not_a_file("a folder"));
        }
        if !kind.is_file() {
            return Err(not_a_file("a device, a pipe or a socket"));
        }
        let file = File::open(path).await.map_err(unreadable)?;
        let size = file.metadata().await.map_err(unreadable)?.len();
        Ok(Self { file, size })
    }

    /// The bytes in pieces: exactly `size` of them, or an error when the file became shorter meanwhile.
    pub(crate) fn pieces(
        self,
        progress: impl FnMut(Progress) + Send + 'static,
    ) -> impl Stream<Item = std::io::Result<Bytes>> + Send {
        let Self { file, size } = self;
        let start = (
            file,
            progress,
            Progress {
                sent: 0,
                total: size,
            },
        );
        stream::try_unfold(start, |(mut file, mut report, mut progress)| async move {
            let left = progress.total - progress.sent;
            if left == 0 {
                return Ok(None);
            }
            let mut piece = BytesMut::with_capacity(CHUNK);
            let most = left.min(CHUNK as u64);
            let read = (&mut file).take(most).read_buf(&mut piece).await?;
            if read == 0 {
                let text = "the file became shorter while it was read";
                return Err(std::io::Error::new(std::io::ErrorKind::UnexpectedEof, text));
            }
            progress.sent += read as u64;
            report(progress);
            Ok(Some((piece.freeze(), (file, report, progress))))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use futures_util::TryStreamExt as _;

    use super::*;

    #[tokio::test]
    async fn all_bytes_and_the_last_report_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.wasm");
        let content: Vec<u8> = (0..CHUNK * 3 + 17).map(|i| i.to_le_bytes()[0]).collect();
        std::fs::write(&path, &content).unwrap();
        let reports = Arc::new(Mutex::new(Vec::new()));
        let sink = reports.clone();
        let source = Source::open(&path).await.unwrap();
        let pieces = source.pieces(move |progress| sink.lock().unwrap().push(progress));
        let read: Vec<Bytes> = pieces.try_collect().await.unwrap();
        assert_eq!(read.concat(), content);
        let reports = reports.lock().unwrap();
        let total = content.len() as u64;
        assert_eq!(reports.last(), Some(&Progress { sent: total, total }));
        assert!(reports.is_sorted_by_key(|progress| progress.sent));
    }

    #[tokio::test]
    async fn what_is_not_a_file_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("none.wasm");
        assert!(matches!(
            Source::open(&missing).await,
            Err(ClientError::Component { .. })
        ));
        let error = Source::open(folder.path()).await.err().unwrap().to_string();
        assert!(
            error.ends_with("is a folder, not a file with a component"),
            "{error}"
        );
        let error = Source::open(Path::new("/dev/null")).await.err().unwrap();
        assert!(matches!(error, ClientError::NotAFile { .. }));
    }
}
