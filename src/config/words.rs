//! The nearest known word to one that was mistyped.

/// The candidate that `text` was probably meant to be: at most a third of its letters differ (and at least two may).
pub(super) fn nearest<'a>(text: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // A key is a few words; longer text is not a slip of one, and the distance costs the product of the lengths.
    const LENGTH_MAX: usize = 64;
    if text.len() > LENGTH_MAX {
        return None;
    }
    let text = text.to_ascii_lowercase();
    let scored = candidates.into_iter().map(|candidate| {
        let distance = strsim::damerau_levenshtein(&text, &candidate.to_ascii_lowercase());
        (distance, candidate)
    });
    let (distance, candidate) = scored.min_by_key(|(distance, _)| *distance)?;
    (distance <= usize::max(2, candidate.len() / 3)).then_some(candidate)
}

/// `"a", "b" or "c"`.
pub(super) fn one_of<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let quoted: Vec<String> = words.into_iter().map(|word| format!("\"{word}\"")).collect();
    match quoted.split_last() {
        None => "nothing".to_owned(),
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
    }
}

/// A value of the file for a message: quoted, escaped, cut.
pub(super) fn shown(text: &str) -> String {
    const SHOWN_MAX: usize = 80;
    match text.char_indices().nth(SHOWN_MAX) {
        None => format!("{text:?}"),
        Some((cut, _)) => format!("{:?}…", &text[..cut]),
    }
}

#[cfg(test)]
mod tests {
    use super::{nearest, one_of, shown};

    #[test]
    fn the_nearest_word() {
        let words = ["listen", "name", "mode", "max_connections"];
        let table = [
            ("lsiten", Some("listen")),
            ("LISTEN", Some("listen")),
            ("max_conections", Some("max_connections")),
            ("completely_else", None),
        ];
        for (text, expected) in table {
            assert_eq!(nearest(text, words), expected, "{text}");
        }
        assert_eq!(nearest(&"x".repeat(10_000), words), None);
    }

    #[test]
    fn words_in_messages() {
        assert_eq!(one_of(["a"]), r#""a""#);
        assert_eq!(one_of(["a", "b", "c"]), r#""a", "b" or "c""#);
        assert_eq!(shown("a\nb"), r#""a\nb""#);
        assert!(shown(&"ä".repeat(500)).chars().count() < 90);
    }
}
