//! Cuts a file into transaction payloads. Put together again in order, the payloads are the file, byte for byte.

use std::io::{self, BufRead, Read};

/// How a file is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cutting {
    /// A payload per line, its line end included.
    Lines,
    /// Payloads of this many bytes, the last one shorter; 0 is taken as 1.
    Pieces(usize),
}

/// The payloads of `input`, none of them empty. Memory: one payload; a line longer than `line_bytes_max` is an error.
pub fn payloads<R: BufRead>(
    mut input: R,
    cutting: Cutting,
    line_bytes_max: usize,
) -> impl Iterator<Item = io::Result<Vec<u8>>> {
    std::iter::from_fn(move || {
        let mut payload = Vec::new();
        let read = match cutting {
            Cutting::Lines => read_line(&mut input, &mut payload, line_bytes_max),
            Cutting::Pieces(bytes) => {
                let limit = u64::try_from(bytes.max(1)).unwrap_or(u64::MAX);
                input.by_ref().take(limit).read_to_end(&mut payload)
            }
        };
        match read {
            Ok(0) => None,
            Ok(_) => Some(Ok(payload)),
            Err(error) => Some(Err(error)),
        }
    })
    .scan(false, |failed, item| {
        // After an error nothing more can be read reliably.
        if *failed {
            return None;
        }
        *failed = item.is_err();
        Some(item)
    })
}

fn read_line<R: BufRead>(input: &mut R, line: &mut Vec<u8>, bytes_max: usize) -> io::Result<usize> {
    let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX);
    let read = input.by_ref().take(limit).read_until(b'\n', line)?;
    if read == bytes_max && line.last() != Some(&b'\n') && !input.fill_buf()?.is_empty() {
        let message = format!("a line is longer than {bytes_max} bytes; submit the file in pieces instead");
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(input: &[u8], cutting: Cutting) -> Vec<Vec<u8>> {
        payloads(input, cutting, 8).map(Result::unwrap).collect()
    }

    #[test]
    fn lines_keep_their_ends() {
        assert_eq!(cut(b"a\n\nbc\r\nd", Cutting::Lines), [&b"a\n"[..], b"\n", b"bc\r\n", b"d"]);
        assert!(cut(b"", Cutting::Lines).is_empty());
        assert_eq!(cut(b"1234567\n12345678", Cutting::Lines), [&b"1234567\n"[..], b"12345678"]);
    }

    #[test]
    fn pieces_are_of_one_size_but_the_last() {
        assert_eq!(cut(b"abcde", Cutting::Pieces(2)), [&b"ab"[..], b"cd", b"e"]);
        assert_eq!(cut(b"abcd", Cutting::Pieces(2)), [&b"ab"[..], b"cd"]);
        assert_eq!(cut(b"ab", Cutting::Pieces(0)), [b"a", b"b"]);
        assert!(cut(b"", Cutting::Pieces(2)).is_empty());
    }

    #[test]
    fn a_line_that_is_too_long_is_one_error_and_the_end() {
        let mut items = payloads(&b"123456789\nx\n"[..], Cutting::Lines, 8);
        assert!(items.next().unwrap().is_err());
        assert!(items.next().is_none());
    }
}
