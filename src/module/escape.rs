//! The module proxy protocol's escaping: `!a` stands for `A`, so that paths survive case-insensitive file systems
//! (<https://go.dev/ref/mod#module-proxy>).

/// Undoes the escaping; `None` where the text is not something the escaping could have made.
pub(crate) fn unescape(escaped: &str) -> Option<String> {
    let mut out = String::with_capacity(escaped.len());
    let mut bang = false;
    for c in escaped.chars() {
        match (bang, c) {
            (true, 'a'..='z') => {
                out.push(c.to_ascii_uppercase());
                bang = false;
            }
            (true, _) | (false, 'A'..='Z') => return None,
            (false, '!') => bang = true,
            (false, c) if c.is_ascii() => out.push(c),
            (false, _) => return None,
        }
    }
    (!bang).then_some(out)
}

/// Escapes a text that is already known to be ASCII and free of `!`.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 4);
    for c in text.chars() {
        if c.is_ascii_uppercase() {
            out.push('!');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn escaping_is_undone(text in "[a-zA-Z0-9._~/+-]{0,40}") {
            prop_assert_eq!(unescape(&escape(&text)), Some(text));
        }

        #[test]
        fn what_unescapes_escapes_back(text in "[a-zA-Z!0-9./é-]{0,20}") {
            if let Some(plain) = unescape(&text) {
                prop_assert_eq!(escape(&plain), text);
            }
        }
    }
}
