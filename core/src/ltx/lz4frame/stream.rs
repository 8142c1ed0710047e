//! LZ4 frames of any length, a block at a time.
//!
//! Litestream 0.3 wrote each object as one such frame: a snapshot is as long as the database. What is
//! held is a block on either side, at most 4 MiB each (what it wrote), and the last 64 KiB of output
//! where blocks refer to those before them.

use alloc::vec::Vec;
use core::fmt;

use xxhash_rust::xxh32::{Xxh32, xxh32};

use super::{Descriptor, block_header, check_xxh32, descriptor, need};
use crate::ltx::{Expected, LtxError};

/// How far back a linked block may refer, in bytes.
const WINDOW_BYTES: usize = 64 << 10;

/// What came out of a [`FrameStream`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Block {
    /// More of the content, at least a byte.
    Content(Vec<u8>),
    /// Nothing until more bytes are pushed.
    NeedMore,
    /// The frame has ended, its checksums hold, and nothing follows it.
    End,
}

/// One frame being decompressed.
#[derive(Clone)]
pub struct FrameStream {
    /// Bytes that were pushed and not yet consumed.
    bytes: Vec<u8>,
    /// Where in the file they begin.
    offset: u64,
    head: Option<Descriptor>,
    sum: Xxh32,
    content_bytes: u64,
    /// The end of the content, where blocks are linked.
    window: Vec<u8>,
    ended: bool,
}

impl Default for FrameStream {
    fn default() -> FrameStream {
        FrameStream::new()
    }
}

impl FrameStream {
    /// A frame at its first byte.
    pub const fn new() -> FrameStream {
        FrameStream {
            bytes: Vec::new(),
            offset: 0,
            head: None,
            sum: Xxh32::new(0),
            content_bytes: 0,
            window: Vec::new(),
            ended: false,
        }
    }

    /// Adds bytes of the file.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Decompressed bytes so far.
    pub const fn content_bytes(&self) -> u64 {
        self.content_bytes
    }

    /// Where it stands in the file: behind the last byte that is understood.
    pub const fn offset(&self) -> u64 {
        self.offset
    }

    /// Decompresses the next block.
    ///
    /// # Errors
    /// [`Unsupported`](LtxError::Unsupported) for dictionaries, and [`Corrupt`](LtxError::Corrupt)
    /// for everything else, also for bytes behind the frame. Offsets are those of the file.
    pub fn next_block(&mut self) -> Result<Block, LtxError> {
        loop {
            return match self.step() {
                Err(LtxError::NeedMore { .. }) => Ok(Block::NeedMore),
                // A block may hold nothing; the next one decides.
                Ok(Block::Content(content)) if content.is_empty() => continue,
                other => other,
            };
        }
    }

    fn step(&mut self) -> Result<Block, LtxError> {
        if self.ended {
            return self.end();
        }
        let head = match self.head {
            Some(head) => head,
            None => {
                let head = descriptor(&self.bytes, self.offset)?;
                self.consume(head.bytes);
                *self.head.insert(head)
            }
        };
        let (size, stored) = block_header(&self.bytes, self.offset, 0, &head)?;
        if size == 0 {
            self.finish(&head)?;
            return self.end();
        }
        let end = 4 + size + 4 * usize::from(head.block_checksums);
        need(&self.bytes, end)?;
        let block = &self.bytes[4..4 + size];
        if head.block_checksums {
            check_xxh32(&self.bytes, self.offset, 4 + size, "lz4 block checksum", xxh32(block, 0))?;
        }
        let content = if stored { block.to_vec() } else { self.decompress(&head, block)? };
        self.consume(end);
        self.sum.update(&content);
        self.content_bytes += content.len() as u64;
        if !head.independent {
            self.remember(&content);
        }
        Ok(Block::Content(content))
    }

    fn decompress(&self, head: &Descriptor, block: &[u8]) -> Result<Vec<u8>, LtxError> {
        let mut content = alloc::vec![0; head.block_bytes_max];
        let size = match head.independent {
            true => lz4_flex::block::decompress_into(block, &mut content),
            false => lz4_flex::block::decompress_into_with_dict(block, &mut content, &self.window),
        };
        let rule = Expected::Rule("a block that decompresses to no more than the frame allows");
        let size =
            size.map_err(|_| LtxError::corrupt(self.offset + 4, "lz4 block", rule, block.len() as u64))?;
        content.truncate(size);
        Ok(content)
    }

    fn remember(&mut self, content: &[u8]) {
        self.window.extend_from_slice(content);
        let surplus = self.window.len().saturating_sub(WINDOW_BYTES);
        self.window.drain(..surplus);
    }

    /// The end mark was seen: what is promised of the whole must hold.
    fn finish(&mut self, head: &Descriptor) -> Result<(), LtxError> {
        let end = 4 + 4 * usize::from(head.content_checksum);
        need(&self.bytes, end)?;
        if head.content_checksum {
            check_xxh32(&self.bytes, self.offset, 4, "lz4 content checksum", self.sum.digest())?;
        }
        if let Some(size) = head.content_size.filter(|&size| size != self.content_bytes) {
            let expected = Expected::Value(size);
            return Err(LtxError::corrupt(self.offset, "lz4 content size", expected, self.content_bytes));
        }
        self.consume(end);
        self.ended = true;
        Ok(())
    }

    fn end(&self) -> Result<Block, LtxError> {
        match self.bytes.len() {
            0 => Ok(Block::End),
            more => {
                let expected = Expected::Rule("nothing behind the lz4 frame");
                Err(LtxError::corrupt(self.offset, "end of the file", expected, more as u64))
            }
        }
    }

    fn consume(&mut self, bytes: usize) {
        self.bytes.drain(..bytes);
        self.offset += bytes as u64;
    }
}

impl PartialEq for FrameStream {
    fn eq(&self, other: &FrameStream) -> bool {
        let state = |it: &FrameStream| (it.offset, it.content_bytes, it.sum.digest(), it.ended);
        state(self) == state(other) && self.bytes == other.bytes
    }
}

impl fmt::Debug for FrameStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FrameStream({} bytes in, {} out)", self.offset, self.content_bytes)
    }
}
