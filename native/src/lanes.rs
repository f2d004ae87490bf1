//! Sixteen bytes at a time: where a string stops, and eight digits at once.
//!
//! Laws: a block is inside the slice it was taken from, so nothing outside is ever read. A block may reach beyond the
//! message at hand; whoever asks clips the answer to the message.
#![allow(unsafe_code)] // one load, said where it stands

/// Bytes of a block.
pub const BLOCK: usize = 16;

/// Return the block that begins at a place; None where the slice ends before it does.
#[inline(always)]
pub fn block(bytes: &[u8], at: usize) -> Option<&[u8; BLOCK]> {
    bytes.get(at..)?.first_chunk()
}

/// Return the eight bytes that begin at a place, the first one in the lowest bits.
#[inline(always)]
pub fn word(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|eight| u64::from_le_bytes(*eight))
}

/// Where the first quote, backslash or control character of a block is (`BLOCK` for nowhere), and whether a byte before
/// it is not ASCII.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub fn stop(block: &[u8; BLOCK]) -> (usize, bool) {
    use std::arch::x86_64::{
        __m128i, _mm_cmpeq_epi8, _mm_loadu_si128, _mm_min_epu8, _mm_movemask_epi8, _mm_or_si128, _mm_set1_epi8,
    };
    // SAFETY: SSE2 is part of x86-64; the load takes any alignment and reads the 16 bytes of the reference.
    let (stops, high) = unsafe {
        let block = _mm_loadu_si128(block.as_ptr().cast::<__m128i>());
        let quote = _mm_cmpeq_epi8(block, _mm_set1_epi8(b'"' as i8));
        let slash = _mm_cmpeq_epi8(block, _mm_set1_epi8(b'\\' as i8));
        let control = _mm_cmpeq_epi8(_mm_min_epu8(block, _mm_set1_epi8(0x1f)), block);
        let stops = _mm_movemask_epi8(_mm_or_si128(_mm_or_si128(quote, slash), control));
        (stops as u32 | 1 << BLOCK, _mm_movemask_epi8(block) as u32)
    };
    let stop = stops.trailing_zeros();
    (stop as usize, high & ((1 << stop) - 1) != 0)
}

/// As above, for all other processors.
#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
pub fn stop(block: &[u8; BLOCK]) -> (usize, bool) {
    stop_by_words(block)
}

/// The same with plain arithmetic, eight bytes at a time.
#[cfg(any(test, not(target_arch = "x86_64")))]
#[inline(always)]
fn stop_by_words(block: &[u8; BLOCK]) -> (usize, bool) {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    let mut high = false;
    for half in 0..2 {
        let word = word(block, half * 8).unwrap_or(0);
        // Exact for the lowest hit, which is the one asked for: borrows only spread upwards.
        let zero = |word: u64| word.wrapping_sub(ONES) & !word & HIGHS;
        let control = word.wrapping_sub(ONES * 0x20) & !word & HIGHS;
        let stops = zero(word ^ (ONES * b'"' as u64)) | zero(word ^ (ONES * b'\\' as u64)) | control;
        let stop = stops.trailing_zeros() as usize / 8;
        let below = if stop == 8 { u64::MAX } else { (1 << (8 * stop)) - 1 };
        high |= word & HIGHS & below != 0;
        if stop < 8 {
            return (half * 8 + stop, high);
        }
    }
    (BLOCK, high)
}

/// Whether all eight bytes are digits.
#[inline(always)]
pub fn eight_digits(word: u64) -> bool {
    let carried = (word.wrapping_add(0x0606_0606_0606_0606) & 0xf0f0_f0f0_f0f0_f0f0) >> 4;
    (word & 0xf0f0_f0f0_f0f0_f0f0) | carried == 0x3333_3333_3333_3333
}

/// The number that eight digits write.
#[inline(always)]
pub fn of_eight(word: u64) -> u64 {
    let word = (word & 0x0f0f_0f0f_0f0f_0f0f).wrapping_mul(2561) >> 8;
    let word = (word & 0x00ff_00ff_00ff_00ff).wrapping_mul(6_553_601) >> 16;
    (word & 0x0000_ffff_0000_ffff).wrapping_mul(42_949_672_960_001) >> 32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one_by_one(block: &[u8; BLOCK]) -> (usize, bool) {
        let stop = block.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..=0x1f)).unwrap_or(BLOCK);
        (stop, block[..stop].iter().any(|byte| *byte >= 0x80))
    }

    #[test]
    fn every_byte_in_every_place_is_seen_as_one_by_one() {
        let step = if cfg!(miri) { 31 } else { 1 }; // an interpreter takes its time
        for byte in (0..=255).step_by(step) {
            for other in [b'a', 0x80, b'"', 0x1f, 0x20, 0x21, 0xff] {
                for at in 0..BLOCK {
                    let mut block = [other; BLOCK];
                    block[at] = byte;
                    assert_eq!(stop(&block), one_by_one(&block), "{byte} at {at} among {other}");
                    assert_eq!(stop_by_words(&block), one_by_one(&block), "{byte} at {at} among {other}");
                }
            }
        }
    }

    #[test]
    fn eight_digits_are_told_from_their_neighbours_and_read() {
        for at in 0..8 {
            for byte in 0..=255u8 {
                let mut text = *b"19283746";
                text[at] = byte;
                let word = u64::from_le_bytes(text);
                assert_eq!(eight_digits(word), byte.is_ascii_digit());
                if byte.is_ascii_digit() {
                    let wanted: u64 = std::str::from_utf8(&text).unwrap().parse().unwrap();
                    assert_eq!(of_eight(word), wanted);
                }
            }
        }
    }

    #[test]
    fn a_block_ends_with_its_slice() {
        assert!(block(&[0; 16], 0).is_some());
        assert!(block(&[0; 16], 1).is_none());
        assert!(block(&[0; 16], 99).is_none());
        assert!(word(&[0; 16], 8).is_some());
        assert!(word(&[0; 16], 9).is_none());
    }
}
