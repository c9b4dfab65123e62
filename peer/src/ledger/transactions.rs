//! Finding a transaction by its id.

use bytes::Bytes;
use grapevine_channels::ChannelId;
use grapevine_channels::block::Block;
use grapevine_channels::transaction::transaction_payload;
use rocksdb::{Direction, IteratorMode};

use super::store::find_family;
use super::{Ledger, LedgerError, keys, options};

/// Most blocks looked into for one id. Fingerprints of different ids coincide once in 2^64 pairs; one id that clients
/// used again and again has many places, of which the first is asked for.
const CANDIDATES_MAX: usize = 64;

impl Ledger {
    /// The first block of `channel` with a transaction that claims `id`, and its place in the block; `None` if there is none.
    ///
    /// # Errors
    /// Storage errors, and damage of a block that may hold it.
    pub fn transaction(&self, channel: &ChannelId, id: &str) -> Result<Option<(u64, u32)>, LedgerError> {
        let fingerprint = keys::fingerprint(channel, id);
        for (number, place) in self.candidates(fingerprint)? {
            let Some((encoded, block)) = self.decoded(channel, number)? else { continue };
            drop(encoded);
            if id_at(&block, place).as_deref() == Some(id) {
                return Ok(Some((number, place)));
            }
        }
        Ok(None)
    }

    /// Whether the index has the transaction `id` at this place.
    pub(super) fn is_indexed(
        &self,
        channel: &ChannelId,
        id: &str,
        number: u64,
        place: u32,
    ) -> Result<bool, LedgerError> {
        let key = keys::transaction(keys::fingerprint(channel, id), number, place);
        Ok(self.store.read(keys::TRANSACTIONS, &key)?.is_some())
    }

    fn candidates(&self, fingerprint: [u8; keys::FINGERPRINT_BYTES]) -> Result<Vec<(u64, u32)>, LedgerError> {
        let database = self.store.database()?;
        let family = find_family(&database, keys::TRANSACTIONS)
            .ok_or_else(|| self.store.damaged("a column family is missing"))?;
        let mut found = Vec::new();
        for record in database.iterator_cf(family, IteratorMode::From(&fingerprint, Direction::Forward)) {
            let (key, _) = record.map_err(|source| options::classify(&self.store.path, source))?;
            if !key.starts_with(&fingerprint) || found.len() >= CANDIDATES_MAX {
                break;
            }
            found.extend(keys::parse_transaction(&key));
        }
        Ok(found)
    }
}

fn id_at(block: &Block, place: u32) -> Option<String> {
    let envelope: &Bytes = block.transactions().get(usize::try_from(place).ok()?)?;
    transaction_payload(envelope).ok().map(|view| view.tx_id)
}
