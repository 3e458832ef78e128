//! A text that lies beside what it belongs to, so that comparing it touches no other memory.

/// Up to `N` bytes in place, more behind a pointer. Compared as bytes; read as text only where somebody is told.
#[derive(Debug)]
pub(super) enum Text<const N: usize> {
    Short(u8, [u8; N]),
    Long(Box<[u8]>),
}

impl<const N: usize> Text<N> {
    pub(super) fn new(text: &str) -> Text<N> {
        const { assert!(N <= u8::MAX as usize) };
        let bytes = text.as_bytes();
        if bytes.len() > N {
            return Text::Long(bytes.into());
        }
        let mut short = [0; N];
        short[..bytes.len()].copy_from_slice(bytes);
        Text::Short(bytes.len() as u8, short)
    }

    #[inline]
    pub(super) fn as_bytes(&self) -> &[u8] {
        match self {
            Text::Short(len, bytes) => &bytes[..usize::from(*len)],
            Text::Long(bytes) => bytes,
        }
    }

    pub(super) fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).expect("it was made of a text")
    }

    /// Bytes that are not in place.
    pub(super) fn apart(&self) -> usize {
        match self {
            Text::Short(..) => 0,
            Text::Long(bytes) => bytes.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_the_text_that_it_was_made_of() {
        for len in [0, 1, 21, 22, 23, 24, 1000] {
            for letter in ["a", "é", "日"] {
                let text: String = letter.repeat(len);
                let kept: Text<22> = Text::new(&text);
                assert_eq!((kept.as_str(), kept.as_bytes()), (&*text, text.as_bytes()));
                assert_eq!(kept.apart(), if text.len() > 22 { text.len() } else { 0 });
            }
        }
    }
}
