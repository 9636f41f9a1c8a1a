//! Words that must be found nowhere, in all forms in which a file or an answer may have them: as they are, in UTF-16, in
//! base64 at each place in a group, in hexadecimal. (Percent-encoding and JSON leave such words as they are.)

/// The forms of some words.
pub struct Needles(Vec<(String, Vec<u8>)>);

impl Needles {
    pub fn of(words: &[&str]) -> Self {
        let mut all = Vec::new();
        for word in words {
            let bytes = word.as_bytes();
            let hex = |upper: bool| {
                let digits = bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
                if upper { digits.to_uppercase() } else { digits }
            };
            let utf16 = |big: bool| -> Vec<u8> {
                let units = word.encode_utf16();
                units.flat_map(|unit| if big { unit.to_be_bytes() } else { unit.to_le_bytes() }).collect()
            };
            let mut add = |form: &str, bytes: Vec<u8>| all.push((format!("{word} in {form}"), bytes));
            add("UTF-8", bytes.to_owned());
            add("UTF-16, little end first", utf16(false));
            add("UTF-16, big end first", utf16(true));
            add("hexadecimal", hex(false).into());
            add("hexadecimal", hex(true).into());
            // Letters and digits alone, so that both alphabets give the same or nothing of it is lost.
            for skipped in 0..3 {
                let whole = &bytes[skipped..];
                let whole = &whole[..whole.len() / 3 * 3];
                add("base64", base64(whole));
            }
        }
        Self(all)
    }

    #[track_caller]
    pub fn assert_absent(&self, place: &str, bytes: &[u8]) {
        for (name, needle) in &self.0 {
            let found = bytes.windows(needle.len()).position(|window| window == needle);
            if let Some(found) = found {
                let around = &bytes[found.saturating_sub(80)..bytes.len().min(found + 80)];
                panic!("{name} is in {place}: {}", String::from_utf8_lossy(around));
            }
        }
    }
}

/// Of a multiple of three bytes.
fn base64(bytes: &[u8]) -> Vec<u8> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let group = |group: &[u8]| {
        let bits = group.iter().fold(0_usize, |bits, byte| bits << 8 | usize::from(*byte));
        [18, 12, 6, 0].map(|shift| ALPHABET[bits >> shift & 63])
    };
    bytes.chunks_exact(3).flat_map(group).collect()
}
