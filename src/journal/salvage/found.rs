//! What became of a pool that was salvaged. Plain data.

/// Records that are missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostRange {
    /// Name of the stream; `inputs` for that of all inputs.
    pub stream: String,
    pub first: i64,
    /// Offset behind the last of them.
    pub end: i64,
}

/// What there is, and what is missing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Salvaged {
    /// In the new pool.
    pub segments: u64,
    pub records: u64,
    pub dead_letters: u64,
    /// In the order of streams and offsets.
    pub lost: Vec<LostRange>,
    /// What else is not as it was, in words.
    pub notes: Vec<String>,
}

impl Salvaged {
    /// How many records are missing.
    pub fn lost_records(&self) -> u64 {
        self.lost.iter().map(|range| (range.end - range.first).unsigned_abs()).sum()
    }
}
