//! What an app's log had when it was opened, read piece by piece: no more than a piece is in memory.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Take};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use platform_model::LogLine;
use time::OffsetDateTime;

use super::file::Ring;
use super::filter::Filter;

/// Bytes of a piece, about.
const PIECE: usize = 64 << 10;

/// Time after which others have their turn.
const TURN: Duration = Duration::from_millis(20);

/// Longest line that is read, in bytes; longer ones are no lines of ours.
const MAX_LINE: usize = 1 << 20;

/// What an app's log had when it was opened.
#[derive(Debug)]
pub struct History {
    /// The files of all rings, the older of a ring first, and how much of each is to be read.
    files: Vec<(File, u64)>,
    filter: Filter,
    progress: Progress,
}

/// How far a history is read.
#[derive(Debug)]
enum Progress {
    /// Nothing is read; so many of the last lines are wanted, or all.
    Unread(Vec<Vec<usize>>, Option<u64>),
    /// Line by line, from all rings in the order of time.
    Lines(Merge),
    /// Line by line too, to keep the places of so many that are wanted, the last ones.
    Seeking(Merge, usize, VecDeque<Place>),
    /// Places of the lines that are wanted.
    Places(VecDeque<Place>),
}

/// Where a line is.
#[derive(Debug, Clone, Copy)]
struct Place {
    file: usize,
    offset: u64,
    length: usize,
}

impl History {
    /// Opens the files of a log as they are now; what is written or moved afterwards does not change them. Called by the
    /// thread that writes and moves them.
    pub(super) fn open(folder: &Path, filter: Filter, tail: Option<u64>) -> io::Result<Self> {
        let mut files = Vec::new();
        let mut rings = Vec::new();
        for ring in filter.rings() {
            let first = files.len();
            open_ring(folder, ring, &mut files)?;
            rings.push((first..files.len()).collect());
        }
        Ok(Self {
            files,
            filter,
            progress: Progress::Unread(rings, tail),
        })
    }

    /// The next lines that are wanted, as they are stored: one JSON object a line. None at the end; empty where nothing
    /// was found for now, as after a while others have their turn. Waits for the disk: call it where blocking is allowed.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn next_piece(&mut self) -> io::Result<Option<Vec<u8>>> {
        let began = Instant::now();
        let mut piece = Vec::new();
        while piece.len() < PIECE && began.elapsed() < TURN {
            if self.step(&mut piece)?.is_none() {
                return Ok(Some(piece).filter(|piece| !piece.is_empty()));
            }
        }
        Ok(Some(piece))
    }

    /// Looks at one line, and adds it to the piece if it is wanted now. None at the end.
    fn step(&mut self, piece: &mut Vec<u8>) -> io::Result<Option<()>> {
        match &mut self.progress {
            Progress::Unread(rings, tail) => {
                let merge = Merge::open(&self.files, rings)?;
                self.progress = match tail {
                    None => Progress::Lines(merge),
                    Some(tail) => {
                        let tail = usize::try_from(*tail).unwrap_or(usize::MAX);
                        Progress::Seeking(merge, tail, VecDeque::new())
                    }
                };
            }
            Progress::Lines(merge) => {
                let Some(line) = merge.next()? else {
                    return Ok(None);
                };
                if self.filter.wants(&line.parsed) {
                    piece.extend_from_slice(&line.bytes);
                }
            }
            Progress::Seeking(merge, tail, places) => match merge.next()? {
                None => self.progress = Progress::Places(std::mem::take(places)),
                Some(line) if self.filter.wants(&line.parsed) => {
                    places.push_back(line.place);
                    if places.len() > *tail {
                        places.pop_front();
                    }
                }
                Some(_) => {}
            },
            Progress::Places(places) => match places.pop_front() {
                None => return Ok(None),
                Some(place) => read_at(&self.files, place, piece)?,
            },
        }
        Ok(Some(()))
    }
}

/// Opens the files of a ring, the older first.
fn open_ring(folder: &Path, ring: Ring, files: &mut Vec<(File, u64)>) -> io::Result<()> {
    for name in [ring.previous, ring.current] {
        match File::open(folder.join(name)) {
            Ok(file) => {
                let length = file.metadata()?.len();
                files.push((file, length));
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

fn read_at(files: &[(File, u64)], place: Place, piece: &mut Vec<u8>) -> io::Result<()> {
    let start = piece.len();
    piece.resize(start + place.length, 0);
    let (Some((file, _)), Some(buffer)) = (files.get(place.file), piece.get_mut(start..)) else {
        return Ok(());
    };
    file.read_exact_at(buffer, place.offset)
}

/// Lines of several rings, in the order of time.
#[derive(Debug)]
struct Merge {
    rings: Vec<Lines>,
}

/// Lines of one ring.
#[derive(Debug)]
struct Lines {
    /// Files still to be read, the next first.
    files: VecDeque<(usize, BufReader<Take<File>>)>,
    offset: u64,
    /// The next line.
    next: Option<Line>,
}

#[derive(Debug)]
struct Line {
    bytes: Vec<u8>,
    parsed: LogLine,
    place: Place,
}

impl Merge {
    fn open(files: &[(File, u64)], rings: &[Vec<usize>]) -> io::Result<Self> {
        let open = |ring: &Vec<usize>| {
            let files = ring.iter().filter_map(|index| {
                let (file, length) = files.get(*index)?;
                let file = file.try_clone().map(|file| file.take(*length));
                Some(file.map(|file| (*index, BufReader::with_capacity(PIECE, file))))
            });
            let files = files.collect::<io::Result<_>>()?;
            Ok(Lines {
                files,
                offset: 0,
                next: None,
            })
        };
        let rings = rings.iter().map(open).collect::<io::Result<_>>()?;
        Ok(Self { rings })
    }

    /// The next line.
    fn next(&mut self) -> io::Result<Option<Line>> {
        for lines in &mut self.rings {
            lines.peek()?;
        }
        let time = |lines: &Lines| lines.next.as_ref().map(|line| line.parsed.time);
        let next = self.rings.iter_mut();
        let next = next.filter_map(|lines| Some((time(lines)?, lines)));
        let earliest = next.min_by_key(|(time, _): &(OffsetDateTime, _)| *time);
        Ok(earliest.and_then(|(_, lines)| lines.next.take()))
    }
}

impl Lines {
    /// Reads the next line unless it is there already. What is no line is left out: a node that was killed may have
    /// left half of one.
    fn peek(&mut self) -> io::Result<()> {
        while self.next.is_none() {
            let Some((file, reader)) = self.files.front_mut() else {
                return Ok(());
            };
            let mut bytes = Vec::new();
            let length = reader.take(MAX_LINE as u64).read_until(b'\n', &mut bytes)?;
            let place = Place {
                file: *file,
                offset: self.offset,
                length,
            };
            self.offset += length as u64;
            if length == 0 {
                self.files.pop_front();
                self.offset = 0;
            } else if bytes.ends_with(b"\n")
                && let Ok(parsed) = serde_json::from_slice(&bytes)
            {
                self.next = Some(Line {
                    bytes,
                    parsed,
                    place,
                });
            }
        }
        Ok(())
    }
}
