//! LZ4 frames built here by hand, with every option, cut and damaged everywhere.

use std::vec;
use std::vec::Vec;

use super::*;
use crate::ltx::tests::content;

/// An LZ4 frame with the given flags; each part is one block, stored or compressed.
pub(in crate::ltx) fn lz4_frame(flags: u8, content: &[u8], parts: &[(&[u8], bool)]) -> Vec<u8> {
    let mut frame = vec![4, 0x22, 0x4d, 0x18, 0x40 | flags, 0x40];
    if flags & 8 != 0 {
        frame.extend_from_slice(&(content.len() as u64).to_le_bytes());
    }
    frame.push((xxh32(&frame[4..], 0) >> 8) as u8);
    for (part, stored) in parts {
        let block = if *stored { part.to_vec() } else { lz4_flex::block::compress(part) };
        let size = block.len() as u32 | if *stored { 1 << 31 } else { 0 };
        frame.extend_from_slice(&size.to_le_bytes());
        frame.extend_from_slice(&block);
        if flags & 0x10 != 0 {
            frame.extend_from_slice(&xxh32(&block, 0).to_le_bytes());
        }
    }
    frame.extend_from_slice(&[0; 4]);
    if flags & 4 != 0 {
        frame.extend_from_slice(&xxh32(content, 0).to_le_bytes());
    }
    frame
}

#[test]
fn lz4_frames_are_read_with_every_option_but_dictionaries() {
    let data = content(5);
    let (left, right) = data.split_at(200);
    for flags in [0x20, 0x24, 0x2c, 0x34, 0x3c, 0x04, 0x1c] {
        for parts in [
            &[(&data[..], false)][..],
            &[(&data, true)],
            &[(left, true), (right, false)],
            &[(left, false), (right, true)],
        ] {
            let frame = lz4_frame(flags, &data, parts);
            let mut out = vec![0; 512];
            assert_eq!(decode(&frame, 0, &mut out), Ok(frame.len()));
            assert_eq!(out, data);
            assert_eq!(measure(&frame, 0, 2000), Ok(frame.len()));
            for len in 0..frame.len() {
                let need = measure(&frame[..len], 0, 2000).unwrap_err();
                assert!(matches!(need, LtxError::NeedMore { bytes } if bytes > len as u64), "{len}: {need}");
                let need = decode(&frame[..len], 0, &mut out).unwrap_err();
                assert!(matches!(need, LtxError::NeedMore { bytes } if bytes > len as u64), "{len}: {need}");
            }
            // Behind the frame anything may follow.
            assert_eq!(decode(&[&frame[..], &[9; 40]].concat(), 0, &mut out), Ok(frame.len()));
        }
    }
    let mut with_dictionary = lz4_frame(0x25, &data, &[(&data, false)]);
    with_dictionary.insert(6, 0);
    assert!(matches!(decode(&with_dictionary, 0, &mut [0; 512]), Err(LtxError::Unsupported { .. })));
}

#[test]
fn an_lz4_frame_with_content_checksum_hides_no_flipped_bit() {
    let data = content(6);
    let frame = lz4_frame(0x3c, &data, &[(&data, false)]);
    for at in 0..frame.len() {
        for bit in 0..8 {
            let mut damaged = frame.clone();
            damaged[at] ^= 1 << bit;
            assert!(decode(&damaged, 0, &mut [0; 512]).is_err(), "byte {at}, bit {bit}");
        }
    }
    // Wrong lengths of content, and blocks without end.
    assert!(decode(&frame, 0, &mut [0; 511]).is_err());
    assert!(decode(&frame, 0, &mut [0; 513]).is_err());
    // Neither content size nor content checksum: the number of bytes alone tells.
    for stored in [true, false] {
        let bare = lz4_frame(0x20, &data, &[(&data, stored)]);
        assert!(decode(&bare, 0, &mut [0; 512]).is_ok());
        assert!(decode(&bare, 0, &mut [0; 511]).is_err());
        assert!(decode(&bare, 0, &mut [0; 513]).is_err());
    }
    let plain = lz4_frame(0x24, &data, &[(&data, true)]);
    assert!(decode(&plain, 0, &mut [0; 511]).is_err());
    assert!(decode(&plain, 0, &mut [0; 513]).is_err());
    assert!(matches!(measure(&plain, 0, plain.len() - 1), Err(LtxError::Corrupt { .. })));
    assert!(measure(&lz4_frame(0x24, &[], &[(&[], true)]), 0, 2000).is_err());
}
