//! Control frames that wait to be sent to one peer: bounded in frames and in bytes, never blocking the sender.
//!
//! What does not fit is refused and counted by the caller; nothing that was taken is thrown out. A frame
//! counts until it has been written, so the bound covers the one being written too. A single frame larger
//! than the byte bound is taken when nothing else waits: otherwise it could never be sent.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

/// A queue with many senders and one receiver.
#[derive(Debug)]
pub(crate) struct SendQueue<T> {
    state: Mutex<State<T>>,
    ready: Notify,
    frames_max: usize,
    bytes_max: usize,
}

#[derive(Debug)]
struct State<T> {
    waiting: VecDeque<(T, usize)>,
    frames: usize,
    bytes: usize,
}

impl<T> SendQueue<T> {
    pub(crate) fn new(frames_max: usize, bytes_max: usize) -> Self {
        let state = Mutex::new(State { waiting: VecDeque::new(), frames: 0, bytes: 0 });
        Self { state, ready: Notify::new(), frames_max, bytes_max }
    }

    /// Takes `item` of `bytes` bytes, or says that the queue is full.
    pub(crate) fn push(&self, item: T, bytes: usize) -> bool {
        {
            let mut state = self.lock();
            let total = state.bytes.saturating_add(bytes);
            if state.frames >= self.frames_max || (total > self.bytes_max && state.frames > 0) {
                return false;
            }
            state.waiting.push_back((item, bytes));
            state.frames = state.frames.saturating_add(1);
            state.bytes = total;
        }
        self.ready.notify_one();
        true
    }

    /// Waits for the next item. It counts until [`SendQueue::written`] is called for it.
    pub(crate) async fn pop(&self) -> (T, usize) {
        loop {
            if let Some(item) = self.try_pop() {
                return item;
            }
            self.ready.notified().await;
        }
    }

    /// The next item, if one waits.
    pub(crate) fn try_pop(&self) -> Option<(T, usize)> {
        self.lock().waiting.pop_front()
    }

    /// So many items of `bytes` bytes together have been written.
    pub(crate) fn written(&self, items: u64, bytes: usize) {
        let mut state = self.lock();
        state.frames = state.frames.saturating_sub(usize::try_from(items).unwrap_or(usize::MAX));
        state.bytes = state.bytes.saturating_sub(bytes);
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn push_refuses_beyond_the_frame_bound() {
        let queue = SendQueue::new(2, 1000);
        assert!(queue.push("a", 1));
        assert!(queue.push("b", 1));
        assert!(!queue.push("c", 1));
    }

    #[test]
    fn push_refuses_beyond_the_byte_bound_but_takes_one_large_frame() {
        let queue = SendQueue::new(10, 100);
        assert!(queue.push("large", 500));
        assert!(!queue.push("small", 1));
    }

    #[tokio::test]
    async fn a_popped_frame_counts_until_it_is_written() {
        let queue = SendQueue::new(1, 100);
        assert!(queue.push("a", 10));
        assert_eq!(queue.pop().await, ("a", 10));
        assert!(!queue.push("b", 10));
        queue.written(1, 10);
        assert!(queue.push("b", 10));
    }
}
