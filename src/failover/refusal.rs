//! \[pure\] Errors by which a server says that it takes no writes: nothing was executed.

/// Errors by which a follower says that a statement is no pure read: 1290 (read-only options), 1792 (read-only
/// transaction), 1836 (read-only mode), 3100/3101 (group replication's hooks).
pub fn by_follower(errno: u16, message: &[u8]) -> bool {
    match errno {
        1290 => names_read_only(message),
        1792 | 1836 | 3100 | 3101 => true,
        _ => false,
    }
}

/// Errors by which a fenced primary says that it takes no writes; the statement was not executed.
pub fn by_fence(errno: u16, message: &[u8]) -> bool {
    match errno {
        1290 => names_read_only(message),
        1836 => true,
        _ => false,
    }
}

/// 1290 is also said of other options (`--secure-file-priv`).
fn names_read_only(message: &[u8]) -> bool {
    memchr::memmem::find(message, b"read-only").is_some() || memchr::memmem::find(message, b"read_only").is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_refusals_of_writes_are_refusals() {
        let read_only = &b"The MySQL server is running with the --super-read-only option so it cannot execute this"[..];
        let files = &b"The MySQL server is running with the --secure-file-priv option so it cannot execute this"[..];
        for (errno, message, follower, fence) in [
            (1290, read_only, true, true),
            (1290, files, false, false),
            (1836, read_only, true, true),
            (1792, read_only, true, false),
            (3100, read_only, true, false),
            (1062, read_only, false, false),
        ] {
            assert_eq!((by_follower(errno, message), by_fence(errno, message)), (follower, fence), "{errno}");
        }
    }
}
