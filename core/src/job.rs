//! Processor work that a host may run wherever it likes.
//!
//! A job is data, its result is data, and running it twice gives the same result. The engine
//! never does such work itself, since it shares its thread with every other database.

use alloc::vec::Vec;

use crate::checksum::{DbXor, page_checksum};
use crate::compact::{MergeJob, MergeOutput};
use crate::engine::{TrainJob, TrainOutput};
use crate::ids::{DbChecksum, PageNo, PageSize};
use crate::legacy::{UnpackJob, UnpackOutput};
use crate::ltx::{Encoder, LtxHeader, Packing};
use crate::machine::Chunk;
use crate::restore::{RestoreJob, RestoreOutput};

/// A page and its image.
pub type Image = (PageNo, Chunk);

/// What to compute.
#[derive(Clone, PartialEq, Debug)]
pub enum Job {
    /// The checksums of pages that follow one another in `bytes`.
    Checksums {
        /// The number of the first.
        first: PageNo,
        /// Their size.
        page_size: PageSize,
        /// Their images, whole pages.
        bytes: Chunk,
    },
    /// A whole segment from images in ascending order. The header's post-state is filled in from
    /// `xor`, the database's checksum without the pages that the segment holds.
    Segment {
        /// The header, its post-state unset.
        header: LtxHeader,
        /// The checksum accumulator without the segment's pages.
        xor: DbXor,
        /// The images.
        images: Vec<Image>,
        /// How they are compressed, as the header says.
        packing: Packing,
        /// Where SQLite keeps its lock bytes ([`crate::ids::PENDING_BYTE`]).
        pending_byte: u64,
    },
    /// More pages of a segment that is streamed, and its end if `finish` is set.
    Pages {
        /// The state of the encoding.
        encoder: Encoder,
        /// The images, in ascending order after those before.
        images: Vec<Image>,
        /// Whether these are the last.
        finish: bool,
    },
    /// A dictionary.
    Train(TrainJob),
    /// Of a restore or a verification.
    Restore(RestoreJob),
    /// Of a compaction.
    Merge(MergeJob),
    /// Of a restore from Litestream 0.3's layout.
    Unpack(UnpackJob),
}

/// What came out.
#[derive(Clone, PartialEq, Debug)]
pub enum JobOutput {
    /// Of [`Job::Checksums`], in order.
    Checksums(Vec<u64>),
    /// Of [`Job::Segment`].
    Segment {
        /// The whole file.
        bytes: Chunk,
        /// The post-state.
        post: DbChecksum,
        /// The checksum of each page, in order.
        sums: Vec<(PageNo, u64)>,
    },
    /// Of [`Job::Pages`].
    Pages {
        /// The state of the encoding; `None` once finished.
        encoder: Option<Encoder>,
        /// What to append to the file.
        bytes: Chunk,
        /// The checksum of each page, in order.
        sums: Vec<(PageNo, u64)>,
    },
    /// Of [`Job::Train`].
    Train(TrainOutput),
    /// Of [`Job::Restore`].
    Restore(RestoreOutput),
    /// Of [`Job::Merge`].
    Merge(MergeOutput),
    /// Of [`Job::Unpack`].
    Unpack(UnpackOutput),
}

impl Job {
    /// Does the work.
    pub fn run(self) -> JobOutput {
        match self {
            Job::Checksums { first, page_size, bytes } => checksums(first, page_size, &bytes),
            Job::Segment { header, xor, images, packing, pending_byte } => {
                segment(header, xor, &images, packing, pending_byte)
            }
            Job::Pages { encoder, images, finish } => pages(encoder, &images, finish),
            Job::Train(job) => JobOutput::Train(job.run()),
            Job::Restore(job) => JobOutput::Restore(job.run()),
            Job::Merge(job) => JobOutput::Merge(job.run()),
            Job::Unpack(job) => JobOutput::Unpack(job.run()),
        }
    }
}

fn checksums(first: PageNo, page_size: PageSize, bytes: &[u8]) -> JobOutput {
    let pages = bytes.chunks_exact(page_size.bytes()).zip(first.get()..);
    let sums = pages.map(|(page, no)| page_checksum(PageNo::new(no).expect("pages count from 1"), page));
    JobOutput::Checksums(sums.collect())
}

fn segment(
    mut header: LtxHeader,
    mut xor: DbXor,
    images: &[Image],
    packing: Packing,
    pending_byte: u64,
) -> JobOutput {
    let sums = sums_of(images);
    for (_, sum) in &sums {
        xor.toggle(*sum);
    }
    let post = xor.finish();
    header.chain.post = Some(post);
    let mut bytes =
        Vec::with_capacity(images.iter().map(|(_, page)| page.len() / 2 + 16).sum::<usize>() + 256);
    let mut encoder = Encoder::packed(&header, packing, &mut bytes).with_pending_byte(pending_byte);
    for (no, page) in images {
        encoder.page(*no, page, &mut bytes);
    }
    encoder.finish(0, &mut bytes);
    bytes.shrink_to_fit();
    JobOutput::Segment { bytes: Chunk::from(bytes), post, sums }
}

fn sums_of(images: &[Image]) -> Vec<(PageNo, u64)> {
    images.iter().map(|(no, page)| (*no, page_checksum(*no, page))).collect()
}

fn pages(mut encoder: Encoder, images: &[Image], finish: bool) -> JobOutput {
    let mut bytes = Vec::new();
    let sums = sums_of(images);
    for (no, page) in images {
        encoder.page(*no, page, &mut bytes);
    }
    let encoder = if finish {
        encoder.finish(0, &mut bytes);
        None
    } else {
        Some(encoder)
    };
    JobOutput::Pages { encoder, bytes: Chunk::from(bytes), sums }
}
