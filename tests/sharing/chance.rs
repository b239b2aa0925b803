//! Chance that can be had again.

/// xorshift64*: the same seed, the same walk.
pub struct Chance(pub u64);

impl Chance {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub fn pick<'t>(&mut self, of: &[&'t str]) -> &'t str {
        of[self.below(of.len())]
    }
}

/// Of the run: another each time, unless `HOLDFAST_SEED` names it.
pub fn seed() -> u64 {
    let seed = std::env::var("HOLDFAST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed =
        seed.unwrap_or_else(|| std::time::SystemTime::UNIX_EPOCH.elapsed().expect("after 1970").as_nanos() as u64);
    println!("HOLDFAST_SEED={seed}");
    seed | 1
}
