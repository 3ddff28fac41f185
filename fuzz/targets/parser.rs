//! Any text is a script or errors that can be drawn.

#![no_main]

use forebay::query::parser::parse;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Err(errors) = parse(text, "query.asaql") {
        assert!(errors.to_string().contains("error: "), "no error was drawn");
    }
});
