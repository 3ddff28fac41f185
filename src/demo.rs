//! What `forebay demo` and the tests embed: counterparts that need nothing installed.

pub mod endpoint;
