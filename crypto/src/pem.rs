//! PEM blocks (RFC 7468), strict and total.
//!
//! Identities arrive in PEM from outside. Fabric refuses an identity that is not exactly one PEM block without trailing
//! bytes (`IsWellFormed`), because otherwise one certificate has endlessly many spellings. [`single_block`] holds that rule
//! and refuses text before the block too. [`first_block`] is the tolerant form for configured CA certificates, which
//! tools like `openssl x509 -text` surround with text; there the operator, not the sender, chose the bytes.

use data_encoding::BASE64;
use zeroize::Zeroizing;

/// Longest PEM text accepted, in bytes; Fabric certificates have about 1 KiB, a member handshake fits 16 KiB.
pub(crate) const PEM_BYTES_MAX: usize = 16 * 1024;

/// Why bytes are not the one PEM block that was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PemError {
    /// Longer than any sensible certificate, key or revocation list.
    #[error("{0} bytes are more than a PEM block may have")]
    TooLong(usize),
    /// There is no `-----BEGIN …-----` line, or text stands before it where none may.
    #[error("it does not start with a -----BEGIN …----- line")]
    NoBegin,
    /// The block is cut off or its end names another label.
    #[error("its -----END …----- line is missing or does not match")]
    NoEnd,
    /// The body is not canonical base64.
    #[error("its body is not base64")]
    Base64,
    /// Bytes follow the block.
    #[error("bytes follow the PEM block")]
    TrailingBytes,
}

/// A decoded PEM block.
#[derive(Debug)]
pub(crate) struct PemBlock<'a> {
    /// The label, such as `CERTIFICATE`.
    pub(crate) label: &'a str,
    /// The decoded body.
    pub(crate) contents: Vec<u8>,
}

/// Decodes text that is exactly one PEM block, at most one line ending following it.
pub(crate) fn single_block(bytes: &[u8], bytes_max: usize) -> Result<PemBlock<'_>, PemError> {
    let text = text_of(bytes, bytes_max)?;
    let (block, rest) = block_at_start(text)?;
    if matches!(rest, "" | "\n" | "\r\n") { Ok(block) } else { Err(PemError::TrailingBytes) }
}

/// Decodes the first PEM block of a file, whatever text stands before and after it.
pub(crate) fn first_block(bytes: &[u8], bytes_max: usize) -> Result<PemBlock<'_>, PemError> {
    let text = text_of(bytes, bytes_max)?;
    let mut rest = text;
    while !rest.starts_with(BEGIN) {
        let (_, next) = rest.split_once('\n').ok_or(PemError::NoBegin)?;
        rest = next;
    }
    block_at_start(rest).map(|(block, _)| block)
}

/// As [`first_block`], but passes over one block of the label given that stands before it.
pub(crate) fn first_block_after<'a>(
    bytes: &'a [u8],
    bytes_max: usize,
    passed_over: &str,
) -> Result<PemBlock<'a>, PemError> {
    let text = text_of(bytes, bytes_max)?;
    let end = format!("{END}{passed_over}{DASHES}");
    let rest = match text.split_once(&end) {
        Some((before, rest)) if before.matches(BEGIN).count() == 1 => rest,
        _ => text,
    };
    match first_block(rest.as_bytes(), bytes_max) {
        // Nothing but that block.
        Err(PemError::NoBegin) => first_block(bytes, bytes_max),
        block => block,
    }
}

/// Encodes `contents` with lines of 64 characters.
pub(crate) fn encode(label: &str, contents: &[u8]) -> String {
    let body = BASE64.encode(contents);
    let mut text = format!("{BEGIN}{label}{DASHES}\n");
    let mut rest = body.as_str();
    while !rest.is_empty() {
        // Base64 is ASCII, so that every index is a character boundary.
        let (line, next) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = next;
    }
    text.push_str(&format!("{END}{label}{DASHES}\n"));
    text
}

const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
const DASHES: &str = "-----";

fn text_of(bytes: &[u8], bytes_max: usize) -> Result<&str, PemError> {
    if bytes.len() > bytes_max {
        return Err(PemError::TooLong(bytes.len()));
    }
    std::str::from_utf8(bytes).map_err(|_| PemError::NoBegin)
}

/// Decodes the block that `text` starts with; the remaining text starts with the line ending of the END line.
fn block_at_start(text: &str) -> Result<(PemBlock<'_>, &str), PemError> {
    let after_begin = text.strip_prefix(BEGIN).ok_or(PemError::NoBegin)?;
    let (first_line, body_and_rest) = after_begin.split_once('\n').ok_or(PemError::NoEnd)?;
    let label = first_line.trim_end_matches('\r').strip_suffix(DASHES).ok_or(PemError::NoBegin)?;
    let (body, after_end) = body_and_rest.split_once(END).ok_or(PemError::NoEnd)?;
    let rest = after_end
        .strip_prefix(label)
        .and_then(|after_label| after_label.strip_prefix(DASHES))
        .ok_or(PemError::NoEnd)?;
    if !body.is_empty() && !body.ends_with('\n') {
        return Err(PemError::NoEnd);
    }
    // Private keys pass through here too, so the copy is erased.
    let compact: Zeroizing<Vec<u8>> =
        Zeroizing::new(body.bytes().filter(|byte| !matches!(byte, b'\n' | b'\r')).collect());
    let contents = BASE64.decode(&compact).map_err(|_| PemError::Base64)?;
    Ok((PemBlock { label, contents }, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_and_wraps_at_64_characters() {
        let contents: Vec<u8> = (0..=255).collect();
        let text = encode("CERTIFICATE", &contents);
        assert!(text.lines().all(|line| line.len() <= 64));
        let block = single_block(text.as_bytes(), PEM_BYTES_MAX).unwrap();
        assert_eq!((block.label, block.contents), ("CERTIFICATE", contents));
    }

    #[test]
    fn accepts_windows_line_endings() {
        let text = encode("X", b"some bytes").replace('\n', "\r\n");
        assert_eq!(single_block(text.as_bytes(), PEM_BYTES_MAX).unwrap().contents, b"some bytes");
    }

    #[test]
    fn refuses_everything_but_one_block() {
        let text = encode("X", b"some bytes");
        let error = |text: String| single_block(text.as_bytes(), 200).unwrap_err();
        assert_eq!(error(format!("{text}\n")), PemError::TrailingBytes);
        assert_eq!(error(format!("{text}{text}")), PemError::TrailingBytes);
        assert_eq!(error(format!("subject\n{text}")), PemError::NoBegin);
        assert_eq!(error(text.replace("END X", "END Y")), PemError::NoEnd);
        assert_eq!(error(text[..text.len() - 8].to_owned()), PemError::NoEnd);
        assert_eq!(error(text.replace("c2", "*")), PemError::Base64);
        assert_eq!(error(text.replace("X-----\n", "X-----\nProc-Type: 4,ENCRYPTED\n\n")), PemError::Base64);
        assert_eq!(error("x".repeat(201)), PemError::TooLong(201));
        assert_eq!(error(String::new()), PemError::NoBegin);
        assert_eq!(single_block(b"-----BEGIN \xff", 200).unwrap_err(), PemError::NoBegin);
    }

    #[test]
    fn first_block_skips_surrounding_text() {
        let text = format!("Certificate:\n  Data\n{}more\n", encode("X", b"abc"));
        assert_eq!(first_block(text.as_bytes(), PEM_BYTES_MAX).unwrap().contents, b"abc");
        assert_eq!(first_block(b"nothing here\n", 200).unwrap_err(), PemError::NoBegin);
    }

    #[test]
    fn one_block_before_the_first_can_be_passed_over() {
        let (before, block) = (encode("PARAMETERS", b"abc"), encode("KEY", b"key"));
        let label = |text: &str| {
            let block = first_block_after(text.as_bytes(), PEM_BYTES_MAX, "PARAMETERS");
            block.map(|block| block.label.to_owned())
        };
        assert_eq!(label(&format!("{before}{block}")), Ok("KEY".to_owned()));
        assert_eq!(label(&format!("text\n{before}text\n{block}")), Ok("KEY".to_owned()));
        assert_eq!(label(&block), Ok("KEY".to_owned()));
        assert_eq!(label(&format!("{block}{before}")), Ok("KEY".to_owned()), "it stands behind");
        assert_eq!(label(&before), Ok("PARAMETERS".to_owned()));
        assert_eq!(label(&format!("{before}{before}")), Ok("PARAMETERS".to_owned()));
        assert_eq!(label(""), Err(PemError::NoBegin));
    }
}
