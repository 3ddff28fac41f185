//! What an answer means for the rows of a request.
//!
//! In: a status code. Out: an [`AnswerClass`]. Invariant: decided by the code alone, never by the text; every code has
//! a class. Not here: how long to wait, which row of several is at fault.

/// The codes that mean "taken".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Success {
    /// First digits: 2 for all of 200 to 299.
    hundreds: Vec<u16>,
    codes: Vec<u16>,
}

impl Default for Success {
    fn default() -> Success {
        Success { hundreds: vec![2], codes: Vec::new() }
    }
}

impl Success {
    pub fn none() -> Success {
        Success { hundreds: Vec::new(), codes: Vec::new() }
    }

    /// Adds `2xx` or `204`; `false`: it is neither.
    pub fn add(&mut self, word: &str) -> bool {
        let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u16>().ok()).flatten();
        let first = word.strip_suffix("xx").and_then(number).filter(|digit| *digit == 2);
        // these ask for another try: rows that nobody took would count as delivered
        let asks_again = |code: u16| matches!(code, 408 | 425 | 429);
        let code = number(word).filter(|code| (200..500).contains(code) && word.len() == 3 && !asks_again(*code));
        self.hundreds.extend(first);
        self.codes.extend(code);
        first.is_some() || code.is_some()
    }

    fn has(&self, code: u16) -> bool {
        self.codes.contains(&code) || self.hundreds.contains(&(code / 100))
    }
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerClass {
    Taken,
    /// Send the same again later.
    Again,
    /// Fewer rows from now on; a row alone is never taken.
    TooLarge,
    /// One of the rows is at fault, or the only one.
    Refused,
    /// Somebody has to repair something; what to do about it.
    Pause(&'static str),
}

/// The class of a code.
pub fn classify(code: u16, success: &Success) -> AnswerClass {
    match code {
        _ if success.has(code) => AnswerClass::Taken,
        408 | 425 | 429 | 500..=599 => AnswerClass::Again,
        413 => AnswerClass::TooLarge,
        400 | 422 => AnswerClass::Refused,
        401 => AnswerClass::Pause("correct `key` or `headers`"),
        403 => AnswerClass::Pause("give the key the right to write there"),
        300..=399 => AnswerClass::Pause("it sends elsewhere, which is not followed: correct `url`"),
        404 | 405 | 410 => AnswerClass::Pause("correct `url` and `method`"),
        _ => AnswerClass::Pause("see what the receiver expects, or name the code in `success`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_class() {
        let success = Success::default();
        for (codes, class) in [
            (&[200, 201, 202, 204, 299][..], AnswerClass::Taken),
            (&[408, 425, 429, 500, 502, 503, 504, 599], AnswerClass::Again),
            (&[413], AnswerClass::TooLarge),
            (&[400, 422], AnswerClass::Refused),
        ] {
            for code in codes {
                assert_eq!(classify(*code, &success), class, "{code}");
            }
        }
        for code in [101, 301, 304, 401, 403, 404, 405, 409, 410, 415, 418] {
            assert!(matches!(classify(code, &success), AnswerClass::Pause(_)), "{code}");
        }
    }

    #[test]
    fn the_job_file_says_what_success_is() {
        let mut success = Success::none();
        for word in ["204", "409", "302"] {
            assert!(success.add(word), "{word}");
        }
        for word in ["", "2", "1xx", "6xx", "20", "2000", "abc", "xx", "+20", "3xx", "5xx", "429", "503"] {
            assert!(!success.add(word), "{word}");
        }
        for code in [204, 409, 302] {
            assert_eq!(classify(code, &success), AnswerClass::Taken);
        }
        assert!(matches!(classify(200, &success), AnswerClass::Pause(_)));
    }
}
