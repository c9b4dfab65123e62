//! When a block is full: Fabric's batch cutter, as a pure state machine.
//!
//! Promises: messages leave in the order they came in, each exactly once; no batch holds more than `max_message_count`
//! messages; no batch holds more than `preferred_max_bytes` unless it is one single message. The rules are Fabric's
//! (`orderer/common/blockcutter`), in this order for each message:
//!
//! 1. A message larger than `preferred_max_bytes` first cuts what is pending, then is a batch of its own.
//! 2. A message that would push the pending batch over `preferred_max_bytes` first cuts what is pending.
//! 3. A message that makes the pending batch `max_message_count` long cuts it, itself included.
//!
//! The caller owns the batch timeout: it starts a timer when [`Cut::pending`] turns true and none runs, stops it when it is
//! false, and calls [`BatchCutter::cut`] when the timer fires. The timer is not restarted when rule 2 cuts, as in Fabric's
//! raft orderer. Messages above `absolute_max_bytes` never get here; they are refused at the door.
//!
//! Memory: at most `preferred_max_bytes` and `max_message_count` messages are pending.

/// How large a batch may get, from the channel's `BatchSize`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchLimits {
    /// Most messages in one batch; 0 is taken as 1.
    pub max_message_count: usize,
    /// Bytes above which a batch is cut early.
    pub preferred_max_bytes: usize,
    /// Bytes above which a message is refused.
    pub absolute_max_bytes: usize,
}

/// What adding a message led to.
#[derive(Debug, PartialEq, Eq)]
pub struct Cut<T> {
    /// Finished batches, oldest first: none, one or two.
    pub batches: Vec<Vec<T>>,
    /// Whether messages wait for more, so that a batch timer must run.
    pub pending: bool,
}

/// Collects messages until a batch is full.
#[derive(Debug)]
pub struct BatchCutter<T> {
    pending: Vec<T>,
    pending_bytes: usize,
}

impl<T> Default for BatchCutter<T> {
    fn default() -> Self {
        Self { pending: Vec::new(), pending_bytes: 0 }
    }
}

impl<T> BatchCutter<T> {
    /// Adds a message of `size_bytes` (payload and signature together, as Fabric counts).
    pub fn add(&mut self, limits: &BatchLimits, message: T, size_bytes: usize) -> Cut<T> {
        let mut batches = Vec::new();
        if size_bytes > limits.preferred_max_bytes {
            batches.extend(self.cut());
            batches.push(vec![message]);
            return Cut { batches, pending: false };
        }
        if self.pending_bytes.saturating_add(size_bytes) > limits.preferred_max_bytes {
            batches.extend(self.cut());
        }
        self.pending.push(message);
        self.pending_bytes = self.pending_bytes.saturating_add(size_bytes);
        if self.pending.len() >= limits.max_message_count {
            batches.extend(self.cut());
        }
        Cut { batches, pending: !self.pending.is_empty() }
    }

    /// Whether nothing is pending.
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Takes what is pending as one batch; `None` when nothing is.
    pub fn cut(&mut self) -> Option<Vec<T>> {
        self.pending_bytes = 0;
        if self.pending.is_empty() { None } else { Some(std::mem::take(&mut self.pending)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: BatchLimits =
        BatchLimits { max_message_count: 3, preferred_max_bytes: 100, absolute_max_bytes: 1000 };

    /// Feeds messages given as sizes; returns the batches after each and whether any are pending.
    fn feed(sizes: &[usize]) -> (Vec<Vec<usize>>, bool, Vec<usize>) {
        let mut cutter = BatchCutter::default();
        let mut batches = Vec::new();
        let mut pending = false;
        for &size in sizes {
            let cut = cutter.add(&LIMITS, size, size);
            batches.extend(cut.batches);
            pending = cut.pending;
        }
        (batches, pending, cutter.cut().unwrap_or_default())
    }

    #[test]
    fn the_table_of_rules() {
        type Row = (&'static str, &'static [usize], &'static [&'static [usize]], &'static [usize]);
        let table: &[Row] = &[
            ("nothing", &[], &[], &[]),
            ("one waits", &[10], &[], &[10]),
            ("count cuts, itself included", &[10, 20, 30], &[&[10, 20, 30]], &[]),
            ("count cuts, the next waits", &[1, 2, 3, 4], &[&[1, 2, 3]], &[4]),
            ("exactly preferred is not over", &[50, 50], &[], &[50, 50]),
            ("over preferred cuts what was pending", &[50, 51], &[&[50]], &[51]),
            ("one of exactly preferred waits", &[100], &[], &[100]),
            ("a full one and a small one", &[100, 1], &[&[100]], &[1]),
            ("larger than preferred stands alone", &[101], &[&[101]], &[]),
            ("larger than preferred cuts pending first", &[10, 101], &[&[10], &[101]], &[]),
            ("order is kept around a large one", &[10, 101, 20], &[&[10], &[101]], &[20]),
            ("bytes are forgotten after a cut", &[60, 60, 30], &[&[60]], &[60, 30]),
        ];
        for (name, sizes, batches, rest) in table {
            let (got, pending, left) = feed(sizes);
            let want: Vec<Vec<usize>> = batches.iter().map(|batch| batch.to_vec()).collect();
            assert_eq!(got, want, "{name}");
            assert_eq!(left, rest.to_vec(), "{name}");
            assert_eq!(pending, !rest.is_empty(), "{name}");
        }
    }

    #[test]
    fn a_count_of_one_or_zero_makes_every_message_a_batch() {
        for max_message_count in [0, 1] {
            let limits = BatchLimits { max_message_count, ..LIMITS };
            let mut cutter = BatchCutter::default();
            let cut = cutter.add(&limits, 'a', 1);
            assert_eq!(cut, Cut { batches: vec![vec!['a']], pending: false });
        }
    }

    #[test]
    fn every_message_leaves_once_and_in_order() {
        let sizes: Vec<usize> = (0..500_usize).map(|index| index.wrapping_mul(7919) % 130).collect();
        let mut cutter = BatchCutter::default();
        let mut out = Vec::new();
        for (index, &size) in sizes.iter().enumerate() {
            for batch in cutter.add(&LIMITS, index, size).batches {
                let bytes: usize = batch.iter().map(|&index| sizes[index]).sum();
                assert!(batch.len() <= 3);
                assert!(bytes <= 100 || batch.len() == 1);
                out.extend(batch);
            }
        }
        out.extend(cutter.cut().unwrap_or_default());
        assert_eq!(out, (0..sizes.len()).collect::<Vec<_>>());
    }
}
