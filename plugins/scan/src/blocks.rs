//! Reads a file in blocks of whole lines with a fixed amount of memory, however long a line is.
//!
//! A line that does not fit into the buffer is handed out in several blocks that overlap, so that a match on the seam is seen whole, and
//! exactly once: it belongs to the block whose `owned` range holds its first byte.

use std::{
    io::{self, Read},
    ops::Range,
};

/// Bytes asked of the file at once: what one host call answers.
const PIECE: usize = 64 << 10;

/// Bytes held of a file. Two pieces: one whole piece is there even when the other is context.
pub const BUFFER: usize = 128 << 10;

/// What a block of a giant line repeats of the one before it, and what it shows of the one after it. No rule looks further.
pub const CONTEXT: usize = 8 << 10;

/// A file with a NUL this close to its beginning is binary, as it is to `git` and `grep`. UTF-16 text counts as binary too.
const BINARY_PREFIX: usize = 8 << 10;

/// Bytes read of one file at most, so that a file which grows while it is read has an end.
pub const MAX_FILE_BYTES: u64 = 1 << 30;

/// One run of lines, or one piece of a giant line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block<'a> {
    /// What can be seen: the owned bytes and, inside a giant line, up to [`CONTEXT`] bytes either side.
    pub bytes: &'a [u8],
    /// Matches that start here belong to this block.
    pub owned: Range<usize>,
    /// The number of the line of the first byte, from 1.
    pub first_line: u64,
}

impl<'a> Block<'a> {
    /// The number of the line that holds a position, from 1.
    pub fn line_number(&self, at: usize) -> u64 {
        self.first_line + count_newlines(self.bytes.get(..at).unwrap_or(self.bytes))
    }

    /// The range of the line that holds a position, without its end. Inside a giant line: as much of it as the block shows.
    pub fn line_range(&self, at: usize) -> Range<usize> {
        let at = at.min(self.bytes.len());
        let (before, after) = self.bytes.split_at(at);
        let start = memchr::memrchr(b'\n', before).map_or(0, |newline| newline + 1);
        let mut end = memchr::memchr(b'\n', after).map_or(self.bytes.len(), |newline| at + newline);
        if end > at && self.bytes.get(end - 1) == Some(&b'\r') {
            end -= 1;
        }
        start..end
    }

    /// The owned bytes.
    pub fn owned_bytes(&self) -> &'a [u8] {
        self.bytes.get(self.owned.clone()).unwrap_or_default()
    }
}

/// What reading a file to its end amounted to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// Bytes read.
    pub bytes: u64,
    /// Lines, blank ones included; a last line without an end counts.
    pub lines: u64,
    /// True when the file was taken for binary: nothing of it was handed out.
    pub binary: bool,
}

/// Hands out the blocks of one file after another, in one buffer that is kept.
#[derive(Debug, Default)]
pub struct Reader {
    buffer: Vec<u8>,
}

impl Reader {
    /// A reader without a buffer yet; the first file makes it.
    pub fn new() -> Self {
        Self::default()
    }

    /// Read at most `limit` bytes and show each block to `visit`.
    ///
    /// # Errors
    /// What the file answered. Blocks that were shown before it stand.
    pub fn read(
        &mut self,
        mut file: impl Read,
        limit: u64,
        mut visit: impl FnMut(&Block<'_>),
    ) -> Result<Extent, io::Error> {
        self.buffer.resize(BUFFER, 0);
        let mut extent = Extent::default();
        // `filled` bytes are held, of which `context` were owned by the block before.
        let (mut filled, mut context, mut first_line) = (0, 0, 1);
        let mut ends_with_newline = true;
        loop {
            let room = limit.saturating_sub(extent.bytes);
            let got = fill(&mut file, self.buffer.get_mut(filled..).unwrap_or_default(), room)?;
            extent.bytes += got.bytes;
            if extent.bytes == got.bytes && is_binary(self.buffer.get(..filled_by(&got)).unwrap_or_default()) {
                return Ok(Extent { binary: true, ..extent });
            }
            filled += filled_by(&got);
            let held = self.buffer.get(..filled).unwrap_or_default();
            if filled <= context {
                break;
            }
            let fresh = held.get(context..).unwrap_or_default();
            let newline = memchr::memrchr(b'\n', fresh).map(|at| context + at + 1);
            let (shown, owned_end, keep_from) = match newline {
                _ if got.ended => (filled, filled, filled),
                Some(end) => (end, end, end),
                None => (filled, filled - CONTEXT, filled - 2 * CONTEXT),
            };
            let block = Block {
                bytes: held.get(..shown).unwrap_or_default(),
                owned: context..owned_end,
                first_line,
            };
            visit(&block);
            first_line += count_newlines(block.owned_bytes());
            if got.ended {
                ends_with_newline = held.last() == Some(&b'\n');
                break;
            }
            self.buffer.copy_within(keep_from..filled, 0);
            filled -= keep_from;
            context = owned_end - keep_from;
            ends_with_newline = context == 0;
        }
        extent.lines = first_line - u64::from(ends_with_newline);
        Ok(extent)
    }
}

struct Filled {
    bytes: u64,
    ended: bool,
}

fn filled_by(got: &Filled) -> usize {
    usize::try_from(got.bytes).unwrap_or(BUFFER)
}

/// Fill a buffer, in pieces, with no more than `room` bytes.
fn fill(file: &mut impl Read, mut buffer: &mut [u8], room: u64) -> Result<Filled, io::Error> {
    let room = usize::try_from(room).unwrap_or(usize::MAX).min(buffer.len());
    let bounded = room < buffer.len();
    buffer = buffer.get_mut(..room).unwrap_or_default();
    let mut bytes = 0;
    while !buffer.is_empty() {
        let piece = buffer.len().min(PIECE);
        match file.read(buffer.get_mut(..piece).unwrap_or_default()) {
            Ok(0) => return Ok(Filled { bytes, ended: true }),
            Ok(read) => {
                bytes += u64::try_from(read).unwrap_or_default();
                buffer = buffer.get_mut(read..).unwrap_or_default();
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Filled { bytes, ended: bounded })
}

fn is_binary(beginning: &[u8]) -> bool {
    let prefix = beginning.get(..BINARY_PREFIX).unwrap_or(beginning);
    memchr::memchr(0, prefix).is_some()
}

/// How many newlines there are.
///
/// The loop is written for the vectoriser: 255 equal bytes fit the accumulator. It runs over every byte of every file.
pub fn count_newlines(bytes: &[u8]) -> u64 {
    let mut total = 0;
    for run in bytes.chunks(255) {
        let mut lines = 0_u8;
        for byte in run {
            lines += u8::from(*byte == b'\n');
        }
        total += u64::from(lines);
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every byte is owned once, in order, and line numbers agree with a naive count.
    fn check(text: &[u8]) {
        let mut owned = Vec::new();
        let extent = Reader::new()
            .read(text, MAX_FILE_BYTES, |block| {
                assert!(block.bytes.len() <= BUFFER);
                let naive = 1 + count_newlines(&text[..owned.len()]);
                assert_eq!(block.line_number(block.owned.start), naive);
                owned.extend_from_slice(block.owned_bytes());
            })
            .unwrap();
        assert!(owned == text, "{} of {} bytes", owned.len(), text.len());
        let expected = if text.is_empty() {
            0
        } else {
            text.split_inclusive(|byte| *byte == b'\n').count()
        };
        assert_eq!(
            extent,
            Extent {
                bytes: text.len() as u64,
                lines: expected as u64,
                binary: false
            }
        );
    }

    #[test]
    fn every_byte_is_owned_once() {
        check(b"");
        check(b"\n");
        check(b"one");
        check(b"one\ntwo\n");
        for length in [1, CONTEXT, BUFFER - 1, BUFFER, BUFFER + 1, 2 * BUFFER, 5 * BUFFER + 77] {
            check(&vec![b'x'; length]);
            let mut text = vec![b'x'; length];
            text.push(b'\n');
            check(&text);
            text.extend_from_slice(b"short\n");
            text.extend(vec![b'y'; length]);
            check(&text);
        }
        check(&b"a line of thirty-one bytes ....\n".repeat(20_000));
    }

    #[test]
    fn a_match_on_a_seam_is_seen_whole_and_once() {
        for offset in BUFFER - 2 * CONTEXT..BUFFER + 16 {
            if offset % 97 != 0 && !(BUFFER - CONTEXT - 20..BUFFER - CONTEXT + 5).contains(&offset) {
                continue;
            }
            let mut text = vec![b'x'; 3 * BUFFER];
            text[offset..offset + 8].copy_from_slice(b"NEEDLE!!");
            let mut seen = 0;
            Reader::new()
                .read(&text[..], MAX_FILE_BYTES, |block| {
                    if let Some(at) = memchr::memmem::find(block.bytes, b"NEEDLE!!") {
                        seen += usize::from(block.owned.contains(&at));
                    }
                })
                .unwrap();
            assert_eq!(seen, 1, "at {offset}");
        }
    }

    #[test]
    fn binary_and_bounds() {
        let read = |text: &[u8], limit| Reader::new().read(text, limit, |_| {}).unwrap();
        assert!(read(b"\x7fELF\0\0", MAX_FILE_BYTES).binary);
        let mut late = vec![b'x'; BINARY_PREFIX];
        late.push(0);
        assert!(!read(&late, MAX_FILE_BYTES).binary, "a NUL further in is text");
        assert_eq!(
            read(b"one\ntwo\nthree\n", 8),
            Extent {
                bytes: 8,
                lines: 2,
                binary: false
            }
        );
        assert_eq!(read(&vec![b'x'; 3 * BUFFER], 200_000).bytes, 200_000);
    }

    #[test]
    fn line_ranges() {
        let block = Block {
            bytes: b"one\r\ntwo\nthree",
            owned: 0..14,
            first_line: 7,
        };
        for (at, line, number) in [
            (0, "one", 7),
            (2, "one", 7),
            (5, "two", 8),
            (9, "three", 9),
            (13, "three", 9),
        ] {
            assert_eq!(&block.bytes[block.line_range(at)], line.as_bytes());
            assert_eq!(block.line_number(at), number);
        }
    }
}
