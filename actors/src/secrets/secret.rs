//! The value of a secret.

use std::fmt;

use zeroize::Zeroizing;

use super::forms;

/// How large a value may be, in bytes.
pub const MAX_BYTES: usize = 64 * 1024;

/// A value that is shown nowhere, cannot be serialised, and is wiped from memory when it is dropped.
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Reads what a source gave; with `trim` without the white space around it.
    ///
    /// # Errors
    /// What is wrong with it, to read on after its name; never a part of it.
    pub fn read(bytes: &[u8], trim: bool) -> Result<Self, &'static str> {
        if bytes.len() > MAX_BYTES {
            return Err("is larger than 65536 bytes");
        }
        let text = std::str::from_utf8(bytes).map_err(|_| "is no UTF-8 text")?;
        let text = if trim { text.trim() } else { text };
        if text.contains('\0') {
            return Err("has a NUL character, which no variable can hold");
        }
        if !forms::is_recognisable(text) {
            return Err("is shorter than 4 bytes, and could not be told apart from other text in an output");
        }
        Ok(Self(Zeroizing::new(text.to_owned())))
    }

    /// The value itself, for whoever it is given to.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_shown_nowhere() {
        let secret = Secret::read(b" canary-1 \n", true).expect("a value");
        assert_eq!(secret.expose(), "canary-1");
        assert_eq!(format!("{secret} {secret:?} {:#?}", Some(&secret)), "*** *** Some(\n    ***,\n)");
        assert_eq!(Secret::read(b" canary-1 \n", false).expect("a value").expose(), " canary-1 \n");
    }

    #[test]
    fn what_cannot_be_a_value_says_why() {
        for (bytes, why) in [
            (&b"abc \n"[..], "shorter than 4 bytes"),
            (b"a\nb\ncd\n", "shorter than 4 bytes"),
            (b"", "shorter than 4 bytes"),
            (b"abc\xff", "no UTF-8"),
            (b"abc\0def", "NUL"),
            (&[b'x'; MAX_BYTES + 1], "larger than 65536"),
        ] {
            let told = Secret::read(bytes, true).expect_err(why);
            assert!(told.contains(why), "{told}");
        }
    }
}
