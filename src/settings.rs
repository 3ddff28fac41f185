//! Settings as a person writes them: sections of TOML, sizes, durations, addresses, secrets by reference.
//!
//! In: the text of a file. Out: [`Section`]s, of which each stage reads its own into its own checked type; and
//! [`Problems`], which holds everything that is wrong with the file. Invariant: a problem never ends the reading, so
//! all are found at once, and no message shows a secret. Not here: any stage, its keys and its defaults.

pub mod address;
mod document;
mod problems;
mod secret;
mod section;
pub mod units;

pub use document::document;
pub use problems::Problems;
pub use secret::{Secret, SecretError, SecretSource, may_be_secret};
pub use section::{Section, Text, one_of};

/// A file as messages and comparisons name it.
pub fn the_file(path: &std::path::Path) -> String {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    format!("the file {}", path.display())
}
