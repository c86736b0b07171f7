//! What clients have compressed (Zstandard, RFC 8878), undone at the door: nothing behind it ever sees compressed bytes.

use std::io::Read as _;

use ruzstd::decoding::StreamingDecoder;
use skep_rules::limits::MAX_ARTIFACT_BYTES;

/// The bytes of one frame, at most [`MAX_ARTIFACT_BYTES`] of them. It stops at the bound, whatever the frame says of itself; its window may be 100 MiB.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn expand(compressed: &[u8]) -> Result<Vec<u8>, String> {
    let bad = |error: &dyn std::fmt::Display| format!("it is no whole frame of zstd: {error}");
    let mut rest = compressed;
    let mut decoder = StreamingDecoder::new(&mut rest).map_err(|error| bad(&error))?;
    let mut bytes = Vec::new();
    let read = decoder.by_ref().take(MAX_ARTIFACT_BYTES + 1).read_to_end(&mut bytes);
    read.map_err(|error| bad(&error))?;
    if bytes.len() as u64 > MAX_ARTIFACT_BYTES {
        return Err(format!(
            "it has more than {MAX_ARTIFACT_BYTES} bytes when it is expanded"
        ));
    }
    let decoder = decoder.into_frame_decoder();
    let (said, found) = (decoder.get_checksum_from_data(), decoder.get_calculated_checksum());
    if !decoder.is_finished() {
        Err(bad(&"it ends in the middle"))
    } else if said.is_some_and(|said| Some(said) != found) {
        Err(bad(&"its checksum is another"))
    } else if !rest.is_empty() {
        Err(bad(&"there is more behind it"))
    } else {
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    use super::*;

    fn compress(bytes: &[u8]) -> Vec<u8> {
        compress_to_vec(bytes, CompressionLevel::Fastest)
    }

    #[test]
    fn what_was_compressed_comes_back() {
        for bytes in [&b""[..], b"x", &b"0123456789".repeat(50_000)] {
            assert_eq!(expand(&compress(bytes)).unwrap(), bytes);
        }
    }

    #[test]
    fn a_bomb_stops_at_the_bound_and_damage_is_named() {
        let most = usize::try_from(MAX_ARTIFACT_BYTES).unwrap();
        assert_eq!(expand(&compress(&vec![0; most])).unwrap().len(), most);
        let bomb = compress(&vec![0; most + 1]);
        assert!(bomb.len() < most / 1_000, "{}", bomb.len());
        assert!(expand(&bomb).unwrap_err().contains("more than 10485760 bytes"));
        let whole = compress(&b"0123456789".repeat(1_000));
        for length in 0..whole.len() {
            assert!(expand(&whole[..length]).is_err(), "{length}");
        }
        for at in 0..whole.len() {
            let mut other = whole.clone();
            other[at] ^= 0x55;
            // Whatever it is taken for, it is bounded and no panic.
            if let Ok(bytes) = expand(&other) {
                assert!(bytes.len() <= most);
            }
        }
        assert!(
            expand(&[whole.clone(), whole].concat())
                .unwrap_err()
                .contains("more behind it")
        );
    }
}
