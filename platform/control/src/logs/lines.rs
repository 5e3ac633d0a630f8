//! Puts bytes together to lines: those of one stream of one request, whose pieces end anywhere.

use std::time::Instant;

/// The line of a stream that has no end yet.
#[derive(Debug)]
pub(super) struct Partial {
    bytes: Vec<u8>,
    /// Longest line, in bytes; a longer one becomes several.
    most: usize,
    /// When the last piece came.
    pub(super) touched: Instant,
}

impl Partial {
    /// Nothing yet.
    pub(super) fn new(most: usize, now: Instant) -> Self {
        Self {
            bytes: Vec::new(),
            // Four bytes are the longest character, and what is shorter could not be cut between two.
            most: most.max(4),
            touched: now,
        }
    }

    /// Bytes that wait for a line end.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Takes a piece; gives each line that is whole with it, without its end.
    pub(super) fn push(&mut self, piece: &[u8], now: Instant, mut line: impl FnMut(&[u8])) {
        self.touched = now;
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            self.bytes.extend_from_slice(part);
            if let Some(text) = self.bytes.strip_suffix(b"\n") {
                let text = text.strip_suffix(b"\r").unwrap_or(text);
                // Empty chunks only where the line itself is empty.
                if text.is_empty() {
                    line(text);
                }
                give_cut(text, self.most, &mut line);
                self.bytes.clear();
            } else if self.bytes.len() >= 2 * self.most {
                let rest = give_whole_chunks(&self.bytes, self.most, &mut line);
                self.bytes = rest;
            }
        }
    }

    /// Gives what waits for a line end, as it is.
    pub(super) fn flush(&mut self, mut line: impl FnMut(&[u8])) {
        give_cut(&self.bytes, self.most, &mut line);
        self.bytes.clear();
    }
}

/// Gives a text in pieces of at most `most` bytes.
fn give_cut(mut text: &[u8], most: usize, line: &mut impl FnMut(&[u8])) {
    while !text.is_empty() {
        let (head, tail) = text.split_at(cut(text, most));
        line(head);
        text = tail;
    }
}

/// Gives as many full pieces as there are; the rest.
fn give_whole_chunks(mut text: &[u8], most: usize, line: &mut impl FnMut(&[u8])) -> Vec<u8> {
    while text.len() > most {
        let (head, tail) = text.split_at(cut(text, most));
        line(head);
        text = tail;
    }
    text.to_vec()
}

/// Where to cut a text so that its first piece is short enough and no character of UTF-8 is cut.
fn cut(text: &[u8], most: usize) -> usize {
    if text.len() <= most {
        return text.len();
    }
    let inside = |at: &usize| text.get(*at).is_some_and(|byte| byte & 0xc0 == 0x80);
    // A character has at most four bytes; more of that kind is not UTF-8, and cut where it is.
    (most - 3..=most)
        .rev()
        .find(|at| !inside(at))
        .unwrap_or(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX_LINE: usize = 16 * 1024;

    fn lines(pieces: &[&[u8]]) -> Vec<Vec<u8>> {
        let now = Instant::now();
        let mut partial = Partial::new(MAX_LINE, now);
        let mut lines = Vec::new();
        for piece in pieces {
            partial.push(piece, now, |line| lines.push(line.to_vec()));
        }
        partial.flush(|line| lines.push(line.to_vec()));
        lines
    }

    #[test]
    fn pieces_become_lines() {
        assert_eq!(
            lines(&[b"a", b"b\nc\r\n\nd"]),
            [&b"ab"[..], b"c", b"", b"d"]
        );
        assert!(lines(&[b"", b""]).is_empty());
    }

    #[test]
    fn a_long_line_becomes_several_between_characters() {
        let text = "ä".repeat(MAX_LINE * 2);
        let with_shift = format!("x{text}\n");
        let pieces: Vec<_> = with_shift.as_bytes().chunks(1000).collect();
        let lines = lines(&pieces);
        assert!(lines.iter().all(|line| line.len() <= MAX_LINE));
        assert!(lines.iter().all(|line| str::from_utf8(line).is_ok()));
        assert_eq!(lines.concat(), with_shift.trim_end().as_bytes());
    }

    #[test]
    fn bytes_that_are_no_text_are_cut_anywhere() {
        let lines = lines(&[&[0x80; MAX_LINE * 3]]);
        assert_eq!(lines.concat().len(), MAX_LINE * 3);
        assert!(lines.iter().all(|line| line.len() <= MAX_LINE));
    }
}
