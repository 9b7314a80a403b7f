//! Bytes in a row: varints (LEB128), zigzag numbers, texts with their length.

/// Bytes that are not what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// Writes values one after the other.
#[derive(Debug, Default)]
pub struct Writer(Vec<u8>);

impl Writer {
    /// Expects about `capacity` bytes.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        Self(Vec::with_capacity(capacity))
    }

    /// Bytes as they are.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// One to ten bytes, the fewer the smaller.
    pub fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            #[expect(clippy::cast_possible_truncation, reason = "seven bits at a time")]
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        #[expect(clippy::cast_possible_truncation, reason = "less than 0x80")]
        self.0.push(number as u8);
    }

    /// A number of either sign, small when near zero.
    pub fn signed(&mut self, number: i64) {
        self.number(((number << 1) ^ (number >> 63)).cast_unsigned());
    }

    /// A number near another one. Exact for any two.
    pub fn distance(&mut self, number: u64, from: u64) {
        self.signed(number.wrapping_sub(from).cast_signed());
    }

    /// Yes or no.
    pub fn flag(&mut self, flag: bool) {
        self.0.push(u8::from(flag));
    }

    /// A text with its length.
    pub fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.bytes(text.as_bytes());
    }

    /// What was written.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// Reads values one after the other. Never past the end, never panics.
#[derive(Debug)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Reads from the beginning of `bytes`.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Whether everything was read.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What was not read yet.
    #[must_use]
    pub const fn left(&self) -> &'a [u8] {
        self.0
    }

    /// The next `count` bytes.
    ///
    /// # Errors
    /// When there are fewer.
    pub fn bytes(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (head, rest) = self.0.split_at_checked(count).ok_or(Malformed)?;
        self.0 = rest;
        Ok(head)
    }

    /// The rest.
    pub const fn rest(&mut self) -> &'a [u8] {
        let rest = self.0;
        self.0 = &[];
        rest
    }

    /// See [`Writer::number`].
    ///
    /// # Errors
    /// When it is cut off or too large.
    pub fn number(&mut self) -> Result<u64, Malformed> {
        let mut number = 0u64;
        for (at, byte) in self.0.iter().take(10).enumerate() {
            let bits = u64::from(byte & 0x7f);
            number |= bits << (7 * at);
            if byte & 0x80 == 0 {
                if at == 9 && *byte > 1 {
                    return Err(Malformed);
                }
                self.0 = &self.0[at + 1..];
                return Ok(number);
            }
        }
        Err(Malformed)
    }

    /// A number that fits 32 bits.
    ///
    /// # Errors
    /// When it does not.
    pub fn number_u32(&mut self) -> Result<u32, Malformed> {
        u32::try_from(self.number()?).map_err(|_| Malformed)
    }

    /// How many of something follow. Each takes a byte at least, so that a
    /// damaged count allocates no more than was read.
    ///
    /// # Errors
    /// When there cannot be so many.
    pub fn count(&mut self) -> Result<usize, Malformed> {
        usize::try_from(self.number()?).ok().filter(|count| *count <= self.0.len()).ok_or(Malformed)
    }

    /// See [`Writer::signed`].
    ///
    /// # Errors
    /// When it is cut off.
    pub fn signed(&mut self) -> Result<i64, Malformed> {
        let number = self.number()?;
        Ok((number >> 1).cast_signed() ^ -((number & 1).cast_signed()))
    }

    /// See [`Writer::distance`].
    ///
    /// # Errors
    /// When it is cut off.
    pub fn distance(&mut self, from: u64) -> Result<u64, Malformed> {
        Ok(from.wrapping_add(self.signed()?.cast_unsigned()))
    }

    /// See [`Writer::flag`].
    ///
    /// # Errors
    /// When it is neither.
    pub fn flag(&mut self) -> Result<bool, Malformed> {
        match self.bytes(1)?[0] {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed),
        }
    }

    /// See [`Writer::text`].
    ///
    /// # Errors
    /// When it is cut off or not UTF-8.
    pub fn text(&mut self) -> Result<&'a str, Malformed> {
        let length = usize::try_from(self.number()?).map_err(|_| Malformed)?;
        std::str::from_utf8(self.bytes(length)?).map_err(|_| Malformed)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(a: u64, b: u64, c: i64, flag: bool, text in ".{0,40}") {
            let mut out = Writer::default();
            out.number(a);
            out.distance(a, b);
            out.signed(c);
            out.flag(flag);
            out.text(&text);
            let bytes = out.into_bytes();
            let mut input = Reader::new(&bytes);
            prop_assert_eq!(input.number(), Ok(a));
            prop_assert_eq!(input.distance(b), Ok(a));
            prop_assert_eq!(input.signed(), Ok(c));
            prop_assert_eq!(input.flag(), Ok(flag));
            prop_assert_eq!(input.text(), Ok(text.as_str()));
            prop_assert!(input.is_empty());
        }

        #[test]
        fn anything_is_read_without_a_panic(bytes: Vec<u8>) {
            let _ = Reader::new(&bytes).number();
            let _ = Reader::new(&bytes).text();
            let _ = super::super::record::decode(&bytes);
            let _ = super::super::record::decode_evidence(&bytes);
        }
    }
}
