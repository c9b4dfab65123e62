//! Chaincode events inside an endorser transaction: what Fabric's filtered blocks tell of it.
//!
//! A transaction is what a client wrote, so anything may stand there: whatever cannot be parsed has no events.

use bytes::Bytes;
use prost::Message;

use crate::proto::peer::ChaincodeEvent;

/// `protos.Transaction`, as far as events go.
#[derive(Clone, PartialEq, Eq, Message)]
struct Transaction {
    #[prost(message, repeated, tag = "1")]
    actions: Vec<TransactionAction>,
}

/// `protos.TransactionAction`; the payload is a [`ChaincodeActionPayload`].
#[derive(Clone, PartialEq, Eq, Message)]
struct TransactionAction {
    #[prost(bytes = "bytes", tag = "2")]
    payload: Bytes,
}

/// `protos.ChaincodeActionPayload`.
#[derive(Clone, PartialEq, Eq, Message)]
struct ChaincodeActionPayload {
    #[prost(message, optional, tag = "2")]
    action: Option<ChaincodeEndorsedAction>,
}

/// `protos.ChaincodeEndorsedAction`; what was endorsed is a [`ProposalResponsePayload`].
#[derive(Clone, PartialEq, Eq, Message)]
struct ChaincodeEndorsedAction {
    #[prost(bytes = "bytes", tag = "1")]
    proposal_response_payload: Bytes,
}

/// `protos.ProposalResponsePayload`; the extension is a [`ChaincodeAction`].
#[derive(Clone, PartialEq, Eq, Message)]
struct ProposalResponsePayload {
    #[prost(bytes = "bytes", tag = "2")]
    extension: Bytes,
}

/// `protos.ChaincodeAction`; the events are one [`ChaincodeEvent`].
#[derive(Clone, PartialEq, Eq, Message)]
struct ChaincodeAction {
    #[prost(bytes = "bytes", tag = "2")]
    events: Bytes,
}

/// The events of an endorser transaction's payload ([`super::TransactionView::payload`]), without their payloads, as in
/// Fabric's filtered blocks; `None` if it is not what endorsers make.
pub fn chaincode_events(payload: &Bytes) -> Option<Vec<ChaincodeEvent>> {
    let transaction = Transaction::decode(payload.clone()).ok()?;
    let event = |action: TransactionAction| {
        let Some(endorsed) = ChaincodeActionPayload::decode(action.payload).ok()?.action else {
            return Some(None);
        };
        let response = ProposalResponsePayload::decode(endorsed.proposal_response_payload).ok()?;
        let action = ChaincodeAction::decode(response.extension).ok()?;
        let event = ChaincodeEvent::decode(action.events).ok()?;
        let named = !event.chaincode_id.is_empty();
        Some(named.then(|| ChaincodeEvent { payload: Bytes::new(), ..event }))
    };
    let events: Option<Vec<_>> = transaction.actions.into_iter().map(event).collect();
    Some(events?.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn action(event: &ChaincodeEvent) -> TransactionAction {
        let action = ChaincodeAction { events: event.encode_to_vec().into() };
        let response = ProposalResponsePayload { extension: action.encode_to_vec().into() };
        let endorsed = ChaincodeEndorsedAction { proposal_response_payload: response.encode_to_vec().into() };
        let payload = ChaincodeActionPayload { action: Some(endorsed) };
        TransactionAction { payload: payload.encode_to_vec().into() }
    }

    fn event(chaincode_id: &str) -> ChaincodeEvent {
        ChaincodeEvent {
            chaincode_id: chaincode_id.into(),
            tx_id: "tx".into(),
            event_name: "sold".into(),
            payload: Bytes::from_static(b"to whom"),
        }
    }

    #[test]
    fn events_are_told_without_their_payloads() {
        let endorsed_nothing = TransactionAction { payload: Bytes::new() };
        let actions = vec![action(&event("assets")), action(&event("")), endorsed_nothing];
        let transaction = Transaction { actions }.encode_to_vec().into();
        let told = ChaincodeEvent { payload: Bytes::new(), ..event("assets") };
        assert_eq!(chaincode_events(&transaction), Some(vec![told]));
    }

    #[test]
    fn what_no_endorser_made_has_none() {
        assert_eq!(chaincode_events(&Bytes::new()), Some(Vec::new()));
        assert_eq!(chaincode_events(&Bytes::from_static(b"junk")), None);
        let bytes = Transaction { actions: vec![action(&event("assets"))] }.encode_to_vec();
        for position in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[position] ^= 0x80;
            let _any = chaincode_events(&changed.into());
        }
    }
}
