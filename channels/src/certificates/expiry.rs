//! How long a certificate lasts: warnings [`WARNING_DAYS`] before its end, each once, and the end itself.
//!
//! What was missed is not made up for: a peer that starts with five days left warns once, for the seven days, and again at one.

/// Days before the end of a certificate at which it is warned of.
pub const WARNING_DAYS: [i64; 4] = [30, 14, 7, 1];

const SECONDS_PER_DAY: i64 = 86_400;

/// Something to tell the operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpiryNotice {
    /// So many whole days are left.
    DaysLeft(i64),
    /// The certificate has expired.
    Expired,
}

/// Watches one certificate.
#[derive(Debug, Clone)]
pub struct ExpiryWatch {
    not_after: i64,
    /// How many of the warnings, and the notice of the end, are told or passed by.
    told: usize,
}

impl ExpiryWatch {
    /// Watches a certificate whose last valid second is `not_after`.
    pub fn new(not_after: i64) -> Self {
        Self { not_after, told: 0 }
    }

    /// What is to be told at `unix_seconds`, if it was not told before.
    pub fn poll(&mut self, unix_seconds: i64) -> Option<ExpiryNotice> {
        let reached = (0..=WARNING_DAYS.len()).rev().find(|stage| self.due(*stage) <= unix_seconds)?;
        if reached < self.told {
            return None;
        }
        self.told = reached.saturating_add(1);
        self.notice(unix_seconds)
    }

    /// What there is to say at `unix_seconds`, told before or not.
    pub fn notice(&self, unix_seconds: i64) -> Option<ExpiryNotice> {
        if unix_seconds > self.not_after {
            return Some(ExpiryNotice::Expired);
        }
        let is_due = WARNING_DAYS.first().is_some_and(|_| self.due(0) <= unix_seconds);
        let left = self.not_after.saturating_sub(unix_seconds) / SECONDS_PER_DAY;
        is_due.then_some(ExpiryNotice::DaysLeft(left))
    }

    /// The second at which the next thing is to be told, if any.
    pub fn next(&self) -> Option<i64> {
        (self.told <= WARNING_DAYS.len()).then(|| self.due(self.told))
    }

    /// When a stage begins: a warning, or after the last of them the end.
    fn due(&self, stage: usize) -> i64 {
        match WARNING_DAYS.get(stage) {
            Some(days) => self.not_after.saturating_sub(days.saturating_mul(SECONDS_PER_DAY)),
            None => self.not_after.saturating_add(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const END: i64 = 1_900_000_000;
    const DAY: i64 = SECONDS_PER_DAY;

    #[test]
    fn each_warning_comes_once_and_the_end_last() {
        let mut watch = ExpiryWatch::new(END);
        let mut told = Vec::new();
        for hour in (0..40 * 24).rev() {
            told.extend(watch.poll(END - hour * 3_600));
        }
        let days: Vec<ExpiryNotice> = WARNING_DAYS.map(ExpiryNotice::DaysLeft).into();
        assert_eq!(told, days);
        assert_eq!(watch.poll(END), None, "the last second is valid");
        assert_eq!(watch.next(), Some(END + 1));
        assert_eq!(watch.poll(END + 1), Some(ExpiryNotice::Expired));
        assert_eq!(watch.poll(END + DAY), None);
        assert_eq!(watch.next(), None);
        assert_eq!(watch.notice(END + DAY), Some(ExpiryNotice::Expired), "it is still to be seen");
    }

    #[test]
    fn what_was_missed_is_not_made_up_for() {
        let mut watch = ExpiryWatch::new(END);
        assert_eq!(watch.notice(END - 31 * DAY), None);
        assert_eq!(watch.poll(END - 5 * DAY), Some(ExpiryNotice::DaysLeft(5)));
        assert_eq!(watch.next(), Some(END - DAY));
        assert_eq!(watch.poll(END - 4 * DAY), None);
        assert_eq!(ExpiryWatch::new(END).poll(END + 1), Some(ExpiryNotice::Expired));
    }

    #[test]
    fn absurd_ends_overflow_nothing() {
        assert_eq!(ExpiryWatch::new(i64::MAX).poll(END), None);
        assert_eq!(ExpiryWatch::new(i64::MIN).poll(END), Some(ExpiryNotice::Expired));
    }
}
