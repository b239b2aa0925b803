//! \[pure\] The cache of proven accounts: verifiers to recognize a password by, and the password, sealed.
//!
//! An entry is made by a login a server accepted and ends with its lifetime, or when a server refuses it. An account may
//! have two passwords at once (RETAIN CURRENT PASSWORD): the two proven last are kept. Bounded: when full, the entry
//! proven longest ago goes.

use super::SessionCredential;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Passwords kept for one account.
const PASSWORDS_MAX: usize = 2;

/// What recognizes one password of an account.
#[derive(Clone, Debug)]
pub struct Verifier {
    /// `SHA256(SHA256(password))`.
    pub sha2: Option<[u8; 32]>,
    /// `SHA1(SHA1(password))`.
    pub native: Option<[u8; 20]>,
    /// The password, if it was seen.
    pub sealed: Option<SessionCredential>,
}

impl Verifier {
    /// True if both are of the same password.
    pub fn same_password(&self, other: &Self) -> bool {
        (self.sha2.is_some() && self.sha2 == other.sha2) || (self.native.is_some() && self.native == other.native)
    }
}

struct Proven {
    verifier: Verifier,
    at: Instant,
}

/// Account name → what its passwords are recognized by.
pub struct Cache {
    entries: HashMap<Box<[u8]>, Vec<Proven>>,
    entries_max: usize,
    lifetime: Duration,
}

impl Cache {
    /// At most `entries_max` accounts, each for `lifetime` after its last full proof.
    pub fn new(entries_max: usize, lifetime: Duration) -> Self {
        Self { entries: HashMap::new(), entries_max, lifetime }
    }

    /// Accounts held.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// What recognizes the passwords of `user`, the one proven last first.
    pub fn find(&self, user: &[u8], now: Instant) -> Vec<Verifier> {
        let Some(proven) = self.entries.get(user) else { return Vec::new() };
        let alive = proven.iter().filter(|p| now.saturating_duration_since(p.at) < self.lifetime);
        alive.map(|p| p.verifier.clone()).collect()
    }

    /// Keeps what a server has proven.
    pub fn insert(&mut self, user: &[u8], verifier: Verifier, now: Instant) {
        if self.entries_max == 0 {
            return;
        }
        if !self.entries.contains_key(user) && self.entries.len() >= self.entries_max {
            self.make_room(now);
        }
        let proven = self.entries.entry(user.into()).or_default();
        proven.retain(|p| !p.verifier.same_password(&verifier));
        proven.insert(0, Proven { verifier, at: now });
        proven.truncate(PASSWORDS_MAX);
    }

    /// Forgets one password of `user`: a server has refused it.
    pub fn remove(&mut self, user: &[u8], verifier: &Verifier) {
        if let Some(proven) = self.entries.get_mut(user) {
            proven.retain(|p| !p.verifier.same_password(verifier));
            if proven.is_empty() {
                self.entries.remove(user);
            }
        }
    }

    /// Drops what has ended, or else the account proven longest ago.
    fn make_room(&mut self, now: Instant) {
        let lifetime = self.lifetime;
        let newest = |proven: &Vec<Proven>| proven.iter().map(|p| p.at).max();
        self.entries.retain(|_, proven| newest(proven).is_some_and(|at| now.saturating_duration_since(at) < lifetime));
        if self.entries.len() >= self.entries_max {
            let oldest = self.entries.iter().min_by_key(|(_, proven)| newest(proven)).map(|(user, _)| user.clone());
            oldest.map(|user| self.entries.remove(&user));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verifier(n: u8) -> Verifier {
        Verifier { sha2: Some([n; 32]), native: Some([n; 20]), sealed: None }
    }

    #[test]
    fn two_passwords_are_kept_and_end_with_their_lifetime() {
        let mut cache = Cache::new(10, Duration::from_secs(60));
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        for n in 1..=3 {
            cache.insert(b"app", verifier(n), at(u64::from(n)));
        }
        cache.insert(b"app", verifier(3), at(10));
        let found: Vec<_> = cache.find(b"app", at(20)).iter().map(|v| v.sha2.unwrap()[0]).collect();
        assert_eq!(found, [3, 2]);
        assert_eq!(cache.find(b"app", at(65)).len(), 1);
        assert_eq!(cache.find(b"app", at(70)).len(), 0);
        cache.remove(b"app", &verifier(3));
        cache.remove(b"app", &verifier(2));
        assert_eq!(cache.len(), 0);
    }

    #[test]
    fn the_account_proven_longest_ago_makes_room() {
        let mut cache = Cache::new(2, Duration::from_secs(60));
        let now = Instant::now();
        cache.insert(b"a", verifier(1), now);
        cache.insert(b"b", verifier(2), now + Duration::from_secs(1));
        cache.insert(b"a", verifier(1), now + Duration::from_secs(2));
        cache.insert(b"c", verifier(3), now + Duration::from_secs(3));
        assert_eq!(cache.len(), 2);
        assert!(cache.find(b"b", now + Duration::from_secs(3)).is_empty());
    }
}
