//! The local member as it is at the moment: its certificate and key are replaced while the peer runs.

use std::sync::{Arc, PoisonError, RwLock};

use grapevine_crypto::Signer;

/// The identity and key this peer signs with now. Whoever does several things that must fit together, as a handshake does, takes
/// [`Self::now`] once.
#[derive(Debug)]
pub struct CurrentSigner(RwLock<Arc<Signer>>);

impl CurrentSigner {
    /// Begins with this one.
    #[must_use]
    pub fn new(signer: Signer) -> Self {
        Self(RwLock::new(Arc::new(signer)))
    }

    /// The one in use.
    #[must_use]
    pub fn now(&self) -> Arc<Signer> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Signs with another one from now on.
    pub fn replace(&self, signer: Signer) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(signer);
    }
}
