//! What must hold for any PROXY protocol header. Shared by the fuzz target and the test that replays its corpus.

use holdfast::frontend::proxy_protocol::{Parsed, parse};

/// Read as it asks for bytes, a header is read to its end and not a byte further, and comes out as when it is there at
/// once.
pub fn check(data: &[u8]) {
    let mut have = 0;
    let asked = loop {
        match parse(&data[..have]) {
            Ok(Parsed::Needs(more)) => {
                assert!(more > 0, "asks for nothing");
                if have + more > data.len() {
                    return;
                }
                have += more;
            }
            done => break done,
        }
    };
    match asked {
        Ok(Parsed::Header { length, .. }) => assert_eq!(length, have, "read past the header"),
        Ok(Parsed::Absent) => assert!(have <= 4, "read {have} bytes of a client's packet"),
        Ok(Parsed::Needs(_)) => unreachable!(),
        Err(_) => assert!(have <= 5000),
    }
    assert_eq!(parse(data), asked);
}
