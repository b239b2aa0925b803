use super::*;

const ALGORITHMS: [Algorithm; 3] = [Algorithm::Zlib, Algorithm::Zstd { level: 3 }, Algorithm::Zstd { level: 22 }];

/// Bytes that compress about fourfold.
fn text(n: usize) -> Vec<u8> {
    (0..n).map(|i| b"SELECT "[(i * i / 7) % 7]).collect()
}

/// Bytes that don't compress.
fn noise(n: usize) -> Vec<u8> {
    let mut state = 1u32;
    (0..n)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect()
}

/// Decodes `wire`, given in steps of `step` bytes, `limit` bytes at a time.
fn decode_all(algorithm: Algorithm, wire: &[u8], step: usize, limit: usize) -> Result<Vec<u8>, Malformed> {
    let mut compression = Compression::new(algorithm);
    let (mut raw, mut all) = (BytesMut::new(), Vec::new());
    for piece in wire.chunks(step) {
        raw.extend_from_slice(piece);
        loop {
            let mut out = BytesMut::new();
            let n = compression.decode(&mut raw, &mut out, limit)?;
            assert_eq!(n, out.len());
            assert!(n <= limit.saturating_add(PIECE), "{n} bytes at once");
            all.extend_from_slice(&out);
            if n == 0 {
                break;
            }
        }
    }
    assert!(raw.is_empty());
    assert!(!compression.is_inside_frame());
    Ok(all)
}

#[test]
fn what_is_encoded_comes_back_in_any_pieces() {
    for algorithm in ALGORITHMS {
        for plain in [text(1), text(49), text(50), text(100_000), noise(60), noise(100_000)] {
            let mut out = BytesMut::new();
            Compression::new(algorithm).encode(&plain, &mut out);
            let header = Header::read(&out).unwrap();
            assert_eq!(header.length + HEADER, out.len());
            let packed = header.plain_length > 0;
            assert!(!packed || plain.len() >= STORED_BELOW);
            assert_eq!(packed && plain.len() > 1000, plain == text(100_000), "{algorithm:?} {}", plain.len());
            for (step, limit) in [(1, usize::MAX), (7, 1), (usize::MAX, 10), (usize::MAX, usize::MAX)] {
                assert!(decode_all(algorithm, &out, step, limit).unwrap() == plain, "{algorithm:?} {step} {limit}");
            }
        }
    }
}

#[test]
fn past_16_mib_frames_follow_each_other_and_count_on() {
    let plain = vec![b'x'; FRAME_MAX + 100];
    for algorithm in ALGORITHMS {
        let mut compression = Compression::new(algorithm);
        compression.sequence = 255;
        let mut out = BytesMut::new();
        compression.encode(&plain, &mut out);
        let first = Header::read(&out).unwrap();
        assert_eq!((first.sequence, first.plain_length), (255, FRAME_MAX));
        let second = Header::read(&out[HEADER + first.length..]).unwrap();
        assert_eq!((second.sequence, second.plain_length), (0, 100));
        assert!(decode_all(algorithm, &out, usize::MAX, PIECE).unwrap() == plain);
    }
}

#[test]
fn answers_count_on_from_the_question() {
    let mut compression = Compression::new(Algorithm::Zlib);
    let mut raw = BytesMut::from(&b"\x01\x00\x00\x07\x00\x00\x00x"[..]);
    compression.decode(&mut raw, &mut BytesMut::new(), usize::MAX).unwrap();
    let mut out = BytesMut::new();
    compression.encode(b"answer", &mut out);
    assert_eq!(Header::read(&out).unwrap().sequence, 8);
}

#[test]
fn frames_that_lie_about_their_length_are_malformed() {
    for algorithm in ALGORITHMS {
        let mut wire = BytesMut::new();
        Compression::new(algorithm).encode(&text(1000), &mut wire);
        let header = Header::read(&wire).unwrap();
        for plain_length in [1, 999, 1001, FRAME_MAX] {
            let mut lie = BytesMut::new();
            Header { plain_length, ..header }.put(&mut lie);
            lie.extend_from_slice(&wire[HEADER..]);
            assert!(decode_all(algorithm, &lie, usize::MAX, usize::MAX).is_err(), "{algorithm:?} {plain_length}");
        }
        let mut garbage = BytesMut::new();
        Header { length: 100, sequence: 0, plain_length: 100 }.put(&mut garbage);
        garbage.extend_from_slice(&noise(100));
        assert!(decode_all(algorithm, &garbage, usize::MAX, usize::MAX).is_err());
    }
}
