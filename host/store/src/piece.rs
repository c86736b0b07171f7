//! The form of a backup: a line that says what it is, then pieces. Each piece has its length, a hash over that of the piece
//! before and over itself, and its bytes; the last one says how much there was. So a changed, missing or moved byte is found
//! at the piece that holds it, and a backup that was cut off never passes for a whole one.

use std::io::{Read, Write};

use minicbor::bytes::ByteSlice;
use minicbor::{Decode, Encode};

use crate::Error;
use crate::frame::Hash;

/// The form that this release writes, and the only one it reads.
const FORMAT: u32 = 1;
/// How every backup begins, whatever its form; the number of the form and a line feed follow.
const MAGIC: &[u8] = b"skep-backup ";
/// Bytes of a piece beside what it carries.
const OVERHEAD: usize = 128;
/// Bytes of a piece's length and hash.
const HEADER: usize = 4 + size_of::<Hash>();

/// A key and its row, as they lie in the engine.
pub(crate) type RawRow<'a> = (&'a ByteSlice, &'a ByteSlice);

#[derive(Debug, Encode, Decode)]
pub(crate) enum Piece<'a> {
    /// The head row. Always the first piece.
    #[n(0)]
    Head {
        #[b(0)]
        row: &'a ByteSlice,
    },
    /// A file of the caller's.
    #[n(1)]
    File {
        #[b(0)]
        name: &'a str,
        #[b(1)]
        bytes: &'a ByteSlice,
    },
    /// Rows of a table.
    #[n(2)]
    Rows {
        #[b(0)]
        table: &'a str,
        #[b(1)]
        rows: Vec<RawRow<'a>>,
    },
    /// A blob, whole.
    #[n(3)]
    Blob {
        #[b(0)]
        bytes: &'a ByteSlice,
    },
    /// Nothing follows.
    #[n(4)]
    End {
        #[n(0)]
        rows: u64,
        #[n(1)]
        blobs: u64,
    },
}

/// Writes pieces.
#[derive(Debug)]
pub(crate) struct Writer<W> {
    to: W,
    hash: Hash,
    pub(crate) bytes: u64,
}

impl<W: Write> Writer<W> {
    pub(crate) fn begin(to: W) -> Result<Self, Error> {
        let mut writer = Self {
            to,
            hash: Hash::default(),
            bytes: 0,
        };
        writer.put(MAGIC)?;
        writer.put(format!("{FORMAT}\n").as_bytes())?;
        Ok(writer)
    }

    pub(crate) fn write(&mut self, piece: &Piece<'_>) -> Result<(), Error> {
        let body = crate::record::encode(piece);
        let length = u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes();
        self.hash = chain(&self.hash, &length, &body);
        let hash = self.hash;
        self.put(&length)?;
        self.put(&hash)?;
        self.put(&body)
    }

    pub(crate) fn finish(mut self) -> Result<u64, Error> {
        self.to.flush().map_err(Error::io("write the backup"))?;
        Ok(self.bytes)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.bytes += bytes.len() as u64;
        self.to.write_all(bytes).map_err(Error::io("write the backup"))
    }
}

fn chain(before: &Hash, length: &[u8], body: &[u8]) -> Hash {
    let mut hash = blake3::Hasher::new();
    hash.update(before).update(length).update(body);
    *hash.finalize().as_bytes()
}

/// Reads pieces, holding one at a time.
#[derive(Debug)]
pub(crate) struct Reader<R> {
    from: R,
    hash: Hash,
    /// Where the next piece begins.
    at: u64,
    piece: Vec<u8>,
    /// The most that a piece may carry.
    limit: usize,
}

impl<R: Read> Reader<R> {
    /// Reads the first line. `limit` is the size of the largest blob.
    pub(crate) fn begin(from: R, limit: usize) -> Result<Self, Error> {
        let mut reader = Self {
            from,
            hash: Hash::default(),
            at: 0,
            piece: Vec::new(),
            limit: limit.max(crate::backup::PIECE_BYTES) + OVERHEAD,
        };
        let mut magic = [0; MAGIC.len()];
        if reader.fill(&mut magic)? < magic.len() || magic != MAGIC {
            return Err(reader.damaged("this is not a backup of skep"));
        }
        let mut digits = String::new();
        loop {
            let mut next = [0];
            reader.fill(&mut next)?;
            match char::from(next[0]) {
                '\n' => break,
                digit @ '0'..='9' if digits.len() < 9 => digits.push(digit),
                _ => return Err(reader.damaged("its first line does not end with a number")),
            }
        }
        match digits.parse() {
            Ok(FORMAT) => {
                reader.at = (MAGIC.len() + digits.len() + 1) as u64;
                Ok(reader)
            }
            Ok(found) => Err(Error::Format {
                what: "backup",
                found,
                known: FORMAT,
            }),
            Err(_) => Err(reader.damaged("its first line does not end with a number")),
        }
    }

    /// The next piece and where it began.
    pub(crate) fn next(&mut self) -> Result<(u64, Piece<'_>), Error> {
        let mut header = [0; HEADER];
        if self.fill(&mut header)? < HEADER {
            return Err(self.damaged("the backup is cut off here"));
        }
        let (length, hash) = header.split_at(4);
        let bytes = length
            .first_chunk()
            .map_or(0, |length| u32::from_le_bytes(*length) as usize);
        if bytes > self.limit {
            return Err(self.damaged("the length of this piece is none that is written"));
        }
        let mut piece = std::mem::take(&mut self.piece);
        piece.clear();
        piece.resize(bytes, 0);
        let found = self.fill(&mut piece)?;
        self.piece = piece;
        if found < bytes {
            return Err(self.damaged("the backup is cut off in this piece, or its length was changed"));
        }
        let next = chain(&self.hash, length, &self.piece);
        if next != hash {
            return Err(self.damaged("the bytes of this piece, or of one before it, are not those that were written"));
        }
        let at = self.at;
        self.hash = next;
        self.at += (HEADER + bytes) as u64;
        let piece = minicbor::decode(&self.piece).map_err(|error| damaged(at, &error.to_string()))?;
        Ok((at, piece))
    }

    /// Refuses whatever follows the last piece, and says how long the backup is.
    pub(crate) fn end(mut self) -> Result<u64, Error> {
        match self.fill(&mut [0])? {
            0 => Ok(self.at),
            _ => Err(self.damaged("something follows the end of the backup")),
        }
    }

    pub(crate) fn damaged(&self, why: &str) -> Error {
        damaged(self.at, why)
    }

    /// Reads until `out` is full or there is no more.
    fn fill(&mut self, out: &mut [u8]) -> Result<usize, Error> {
        let mut found = 0;
        while let Some(rest) = out.get_mut(found..).filter(|rest| !rest.is_empty()) {
            match self.from.read(rest) {
                Ok(0) => break,
                Ok(more) => found += more,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::io("read the backup")(error)),
            }
        }
        Ok(found)
    }
}

/// Something is wrong with the piece that begins at a byte.
pub(crate) fn damaged(at: u64, why: &str) -> Error {
    Error::damaged("backup", format!("byte {at}: {why}"))
}
