//! Memory for the pieces of bodies that guests send, used again and again: the allocator would give it back to the kernel
//! between two batches of records, and the first touch of a page that was fetched anew costs more than filling it.

use std::sync::Mutex;

use bytes::Bytes;
use sandbox_abi::message::MAX_DATA;

use crate::sync::lock;

/// Bytes of a piece that is worth it.
const LEAST: usize = 16 << 10;
/// Pieces that are kept: 1 MiB for the whole node.
const KEPT: usize = 16;

static PIECES: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

/// Memory for a piece of so many bytes; what is in it does not count.
pub(super) fn take(bytes: usize) -> Vec<u8> {
    if bytes < LEAST {
        return Vec::new();
    }
    lock(&PIECES).pop().unwrap_or_default()
}

/// The piece as bytes whose memory comes back when nobody has them any more.
pub(super) fn bytes(piece: Vec<u8>) -> Bytes {
    if piece.len() < LEAST || piece.capacity() > MAX_DATA {
        return piece.into();
    }
    Bytes::from_owner(Piece(piece))
}

struct Piece(Vec<u8>);

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        let mut kept = lock(&PIECES);
        if kept.len() < KEPT {
            kept.push(std::mem::take(&mut self.0));
        }
    }
}
