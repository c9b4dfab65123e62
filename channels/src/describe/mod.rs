//! Blocks and configs as people read them.
//!
//! Everything here only shows; nothing is decided by it. A description can be made of any block that parses, verified or
//! not, and says what it could not make out instead of failing. Text from outside has its control characters escaped and
//! is cut off at [`TEXT_CHARACTERS_MAX`], so that showing a hostile block does not write to the terminal what it likes.
//! All types serialise; their field names are stable, since scripts read them.

mod block;
mod config;
mod difference;
mod identity;
mod msp;
mod policy;
mod time;

pub use block::{BlockDescription, SignerDescription, TransactionDescription};
pub use config::{
    CapabilityDescription, ConfigDescription, ConsenterDescription, EndpointDescription,
    OrganizationDescription,
};
pub use difference::{ConfigChange, config_difference};
pub use identity::IdentityDescription;
pub use msp::{AuthorityDescription, MspDescription};
pub use time::utc;

/// Longest text from outside that is shown, in characters.
pub const TEXT_CHARACTERS_MAX: usize = 256;

/// Text from outside, fit to be shown.
fn printable(text: &str) -> String {
    let mut shown: String = text.chars().take(TEXT_CHARACTERS_MAX).flat_map(escaped).collect();
    if text.chars().nth(TEXT_CHARACTERS_MAX).is_some() {
        shown.push('…');
    }
    shown
}

fn escaped(character: char) -> impl Iterator<Item = char> {
    let (escape, plain) = if character.is_control() || is_invisible(character) {
        (Some(character.escape_unicode()), None)
    } else {
        (None, Some(character))
    };
    escape.into_iter().flatten().chain(plain)
}

/// Characters that reorder or hide text around them.
fn is_invisible(character: char) -> bool {
    matches!(character, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_outside_cannot_steer_the_terminal() {
        assert_eq!(printable("peer0.org1"), "peer0.org1");
        assert_eq!(printable("a\u{1b}[2Jb\n"), "a\\u{1b}[2Jb\\u{a}");
        assert_eq!(printable("\u{202e}evil"), "\\u{202e}evil");
        let long = printable(&"é".repeat(TEXT_CHARACTERS_MAX + 1));
        assert_eq!(long.chars().count(), TEXT_CHARACTERS_MAX + 1);
        assert!(long.ends_with('…'));
    }
}
