//! Reading protobuf fields one by one, exactly as Go's `google.golang.org/protobuf` does.
//!
//! Generated decoders hide three things that block verification needs: where in the input a field lies (to slice
//! instead of copy), whether its tag and length are encoded minimally (to tell a canonical encoding from another one
//! of the same message), and what Go makes of a known field number with an unexpected wire type (an unknown field,
//! where `prost` fails). The reader is total: every input either yields fields or a [`WireError`]; it never recurses,
//! never allocates beyond the nesting depth of groups, and lengths are checked against the input before use.

use std::ops::Range;

/// Largest field number (Go: `protowire.MaxValidNumber`).
const FIELD_NUMBER_MAX: u64 = (1 << 29) - 1;
/// Largest field number Go lets pass inside of a group that it skips (`protowire.DecodeTag`).
const GROUP_FIELD_NUMBER_MAX: u64 = i32::MAX as u64;
/// Deepest nesting of groups (Go: `protowire.DefaultRecursionLimit`).
const GROUP_DEPTH_MAX: usize = 10_000;

/// The bytes are not a protobuf message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a protobuf message: broken off or malformed at byte {offset}")]
pub struct WireError {
    /// Where reading stopped.
    pub offset: usize,
}

/// What a field holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    /// Wire type 0.
    Varint(u64),
    /// Wire type 2: where its bytes lie in the input.
    Bytes(Range<usize>),
    /// A fixed-width number or a group, skipped.
    Other,
}

/// One field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Field {
    /// Field number.
    pub(crate) number: u64,
    /// The value.
    pub(crate) value: Value,
    /// Whether the tag has its shortest encoding. Go keeps unknown fields byte for byte, except for their tag.
    pub(crate) tag_minimal: bool,
    /// Whether tag and, for wire types 0 and 2, value or length have their shortest encoding.
    pub(crate) minimal: bool,
}

/// Iterates over the fields of a message; ends after the first error.
#[derive(Debug, Clone)]
pub(crate) struct Fields<'a> {
    input: &'a [u8],
    position: usize,
    end: usize,
}

struct Varint {
    value: u64,
    minimal: bool,
}

impl<'a> Fields<'a> {
    /// Fields of the whole input.
    pub(crate) fn new(input: &'a [u8]) -> Self {
        Self { input, position: 0, end: input.len() }
    }

    /// Fields of a part of the input; ranges of values stay relative to the whole input.
    pub(crate) fn within(input: &'a [u8], range: Range<usize>) -> Self {
        let end = range.end.min(input.len());
        Self { input, position: range.start.min(end), end }
    }

    fn field(&mut self) -> Result<Field, WireError> {
        let tag = self.varint()?;
        let number = tag.value >> 3;
        if number == 0 || number > FIELD_NUMBER_MAX {
            return Err(self.error());
        }
        let mut minimal = tag.minimal;
        let value = match tag.value & 7 {
            0 => {
                let varint = self.varint()?;
                minimal &= varint.minimal;
                Value::Varint(varint.value)
            }
            2 => {
                let length = self.varint()?;
                minimal &= length.minimal;
                let start = self.position;
                self.skip(length.value)?;
                Value::Bytes(start..self.position)
            }
            wire_type => {
                self.skip_other(number, wire_type)?;
                Value::Other
            }
        };
        Ok(Field { number, value, tag_minimal: tag.minimal, minimal })
    }

    /// Skips a fixed-width field or a group, whose members may nest.
    fn skip_other(&mut self, number: u64, wire_type: u64) -> Result<(), WireError> {
        match wire_type {
            1 => return self.skip(8),
            5 => return self.skip(4),
            3 => {}
            _ => return Err(self.error()),
        }
        let mut open = vec![number];
        while let Some(&innermost) = open.last() {
            let tag = self.varint()?;
            let member = tag.value >> 3;
            if member == 0 || member > GROUP_FIELD_NUMBER_MAX {
                return Err(self.error());
            }
            match tag.value & 7 {
                0 => {
                    self.varint()?;
                }
                1 => self.skip(8)?,
                2 => {
                    let length = self.varint()?;
                    self.skip(length.value)?;
                }
                3 if open.len() < GROUP_DEPTH_MAX => open.push(member),
                4 if member == innermost => {
                    open.pop();
                }
                5 => self.skip(4)?,
                _ => return Err(self.error()),
            }
        }
        Ok(())
    }

    fn varint(&mut self) -> Result<Varint, WireError> {
        let mut value = 0_u64;
        for index in 0..10_u32 {
            let byte = self.byte()?;
            // The tenth byte holds the 64th bit alone.
            if index == 9 && byte > 1 {
                return Err(self.error());
            }
            value |= u64::from(byte & 0x7f) << (index * 7);
            if byte < 0x80 {
                return Ok(Varint { value, minimal: index == 0 || byte != 0 });
            }
        }
        Err(self.error())
    }

    fn byte(&mut self) -> Result<u8, WireError> {
        if self.position >= self.end {
            return Err(self.error());
        }
        let byte = *self.input.get(self.position).ok_or_else(|| self.error())?;
        self.position = self.position.saturating_add(1);
        Ok(byte)
    }

    fn skip(&mut self, length: u64) -> Result<(), WireError> {
        let left = self.end.saturating_sub(self.position);
        match usize::try_from(length) {
            Ok(length) if length <= left => {
                self.position = self.position.saturating_add(length);
                Ok(())
            }
            _ => Err(self.error()),
        }
    }

    fn error(&self) -> WireError {
        WireError { offset: self.position }
    }
}

impl Iterator for Fields<'_> {
    type Item = Result<Field, WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.position >= self.end {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.position = self.end;
        }
        Some(field)
    }
}

/// Appends the shortest varint of `value`.
pub(crate) fn push_varint(out: &mut Vec<u8>, value: u64) {
    let mut rest = value;
    while rest >= 0x80 {
        out.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Bytes of the shortest varint of `value`.
pub(crate) fn varint_length(value: usize) -> usize {
    let bits = usize::BITS.saturating_sub(value.leading_zeros()).max(1);
    bits.div_ceil(7) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(input: &[u8]) -> Result<Vec<Field>, WireError> {
        Fields::new(input).collect()
    }

    #[test]
    fn reads_every_wire_type() {
        let input = [
            0x08, 0x96, 0x01, 0x12, 2, 7, 8, 0x1d, 0, 0, 0, 0, 0x21, 0, 0, 0, 0, 0, 0, 0, 0, 0x2b, 0x08, 1,
            0x2c,
        ];
        let read = fields(&input).unwrap();
        assert_eq!(read.iter().map(|field| field.number).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
        assert_eq!(read[0].value, Value::Varint(150));
        assert_eq!(read[1].value, Value::Bytes(5..7));
        assert!(read.iter().all(|field| field.minimal && field.tag_minimal));
    }

    #[test]
    fn refuses_malformed_input() {
        for input in [
            &[0x00_u8, 0][..],                                                   // field number 0
            &[0x08],                                                             // no value
            &[0x12, 2, 0],                                                       // length beyond the end
            &[0x0c],       // end without start of a group
            &[0x0b, 0x14], // end of another group
            &[0x0b],       // group without end
            &[0x0e, 0],    // wire type 6
            &[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2], // 65 bits
            &[0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0], // length of 2^64 - 1
            &[0x80, 0x80, 0x80, 0x80, 0x10, 0], // field number 2^29
        ] {
            assert!(fields(input).is_err(), "{input:?}");
        }
    }

    #[test]
    fn nesting_of_groups_is_bounded_and_needs_no_stack() {
        let nested = |depth: usize| [vec![0x0b; depth], vec![0x0c; depth]].concat();
        assert!(fields(&nested(GROUP_DEPTH_MAX)).is_ok());
        assert!(fields(&nested(GROUP_DEPTH_MAX + 1)).is_err());
    }

    #[test]
    fn tells_longer_encodings_from_the_shortest() {
        assert!(!fields(&[0x88, 0x00, 1]).unwrap()[0].tag_minimal);
        let long_length = &fields(&[0x12, 0x81, 0x00, 9]).unwrap()[0];
        assert!(long_length.tag_minimal && !long_length.minimal);
    }

    #[test]
    fn varints_round_trip() {
        for value in [0, 1, 127, 128, 16_383, 16_384, u64::from(u32::MAX), u64::MAX] {
            let mut bytes = vec![0x08];
            push_varint(&mut bytes, value);
            assert_eq!(bytes.len() - 1, varint_length(usize::try_from(value).unwrap()));
            assert_eq!(fields(&bytes).unwrap()[0].value, Value::Varint(value));
            assert!(fields(&bytes).unwrap()[0].minimal);
        }
    }
}
