//! How many bytes of received bodies the process may hold, over all connections. The parent module says by which rules.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Gets the credits that are granted to a connection.
pub(crate) trait Granted: Send + Sync {
    /// The connection may receive this many more body bytes.
    fn granted(&self, bytes: usize);
}

/// Orders bodies by their beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct BodyId(u64);

#[derive(Default)]
struct Body {
    connection: u64,
    /// Granted, and not given back.
    held: usize,
    /// Wished for and not granted yet.
    wanted: usize,
    to: Option<Arc<dyn Granted>>,
}

#[derive(Default)]
struct State {
    used: usize,
    next: u64,
    bodies: BTreeMap<BodyId, Body>,
}

/// See the module's header. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Budget {
    bytes_max: usize,
    state: Arc<Mutex<State>>,
}

/// The bytes of one body; dropping it gives them back.
pub(crate) struct Held {
    budget: Budget,
    id: BodyId,
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Held").field("id", &self.id).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Budget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Budget").field("bytes_max", &self.bytes_max).finish_non_exhaustive()
    }
}

impl Budget {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, state: Arc::default() }
    }

    /// A body begins to come in.
    pub(crate) fn begin(&self, connection: u64, to: Arc<dyn Granted>) -> Held {
        let mut state = self.lock();
        let id = BodyId(state.next);
        state.next = state.next.saturating_add(1);
        state.bodies.insert(id, Body { connection, to: Some(to), ..Body::default() });
        Held { budget: self.clone(), id }
    }

    /// Bytes granted and not given back.
    pub(crate) fn used(&self) -> usize {
        self.lock().used
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Grants what can be granted, the oldest first.
    fn grant(&self, mut state: MutexGuard<'_, State>) {
        let mut grants = Vec::new();
        let mut used = state.used;
        // Complete ones make room when the owner takes them. Where there are none, somebody must come to an end.
        let is_complete = |body: &Body| body.to.is_none();
        let first = state.bodies.values().next().map(|body| body.connection);
        let favoured = first.filter(|_| !state.bodies.values().any(is_complete));
        for body in state.bodies.values_mut() {
            let Some(to) = body.to.as_ref().filter(|_| body.wanted > 0) else { continue };
            let room = self.bytes_max.saturating_sub(used);
            let bytes = if favoured == Some(body.connection) { body.wanted } else { body.wanted.min(room) };
            if bytes > 0 {
                grants.push((to.clone(), bytes));
                body.wanted = body.wanted.saturating_sub(bytes);
                body.held = body.held.saturating_add(bytes);
                used = used.saturating_add(bytes);
            }
        }
        state.used = used;
        drop(state);
        for (to, bytes) in grants {
            to.granted(bytes);
        }
    }
}

impl Held {
    /// Asks for this many more bytes; they are granted at once or when there is room.
    pub(crate) fn want(&self, bytes: usize) {
        let mut state = self.budget.lock();
        if let Some(body) = state.bodies.get_mut(&self.id) {
            body.wanted = body.wanted.saturating_add(bytes);
        }
        self.budget.grant(state);
    }

    /// The body is complete: it wants nothing more, and another is now the oldest of those that come in.
    pub(crate) fn complete(&self) {
        let mut state = self.budget.lock();
        if let Some(body) = state.bodies.get_mut(&self.id) {
            (body.wanted, body.to) = (0, None);
        }
        self.budget.grant(state);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut state = self.budget.lock();
        if let Some(body) = state.bodies.remove(&self.id) {
            state.used = state.used.saturating_sub(body.held);
        }
        self.budget.grant(state);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[derive(Default)]
    struct Purse(AtomicUsize);

    impl Granted for Purse {
        fn granted(&self, bytes: usize) {
            self.0.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    impl Purse {
        fn bytes(&self) -> usize {
            self.0.load(Ordering::Relaxed)
        }
    }

    #[test]
    fn grants_end_with_the_budget_and_go_on_when_bytes_come_back() {
        let budget = Budget::new(100);
        let purses: [Arc<Purse>; 3] = Default::default();
        let begin = |index: usize| budget.begin(index as u64, purses[index].clone());
        let (first, second, third) = (begin(0), begin(1), begin(2));
        first.want(60);
        second.want(60);
        third.want(10);
        let granted = || [0, 1, 2].map(|index: usize| purses[index].bytes());
        assert_eq!(granted(), [60, 40, 0]);
        first.complete();
        assert_eq!(granted(), [60, 40, 0], "the owner will take it and make room");
        drop(first);
        assert_eq!(granted(), [60, 60, 10]);
        assert_eq!(budget.used(), 70);
        drop((second, third));
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn all_come_to_an_end_and_never_more_than_the_budget_and_one_connection() {
        let budget = Budget::new(1_000);
        let purses: Vec<Arc<Purse>> = (0..50).map(|_| Arc::default()).collect();
        let begin = |(index, purse): (usize, &Arc<Purse>)| budget.begin(index as u64, purse.clone());
        let mut bodies: Vec<Held> = purses.iter().enumerate().map(begin).collect();
        bodies.iter().for_each(|body| body.want(1_700));
        for purse in &purses {
            assert!(budget.used() <= 1_000 + 1_700, "{}", budget.used());
            assert_eq!(purse.bytes(), 1_700, "the one that began first has all it wants");
            bodies[0].complete();
            bodies.remove(0);
        }
        assert_eq!(budget.used(), 0);
    }
}
