//! Envelopes: making them, taking them apart, and telling canonical ones.

use bytes::Bytes;
use grapevine_channels::proto::common::{
    ChannelHeader, Envelope, Header, HeaderType, Payload, SignatureHeader,
};
use grapevine_channels::proto::orderer::SeekInfo;
use grapevine_channels::transaction::{
    TransactionError, check_canonical, seek_envelope, transaction_id, transaction_payload,
};
use grapevine_crypto::sha256;
use proptest::prelude::*;
use prost::Message as _;

use crate::network::{NOW, Network};
use crate::vectors::{CHAINS, blocks};

#[test]
fn a_transaction_comes_back_as_submitted() {
    let network = Network::new();
    let envelope = network.transaction(b"payload");
    let view = transaction_payload(&envelope).unwrap();
    assert_eq!(view.payload, "payload");
    assert_eq!(view.channel, "trade");
    assert_eq!(view.header_type, HeaderType::EndorserTransaction as i32);
    assert_eq!(view.timestamp_seconds, Some(NOW));
    assert_eq!(view.creator, network.client.serialized());
    assert_eq!(view.tx_id, transaction_id(&view.nonce, &view.creator));
    assert!(network.client.identity().verify(&view.signed, &view.signature).is_ok());
    assert_eq!(check_canonical(&envelope), Ok(()));
}

#[test]
fn members_submit_and_read_and_others_do_not() {
    let network = Network::new();
    let config = network.config();
    let view = transaction_payload(&network.transaction(b"x")).unwrap();
    assert!(config.evaluate("/Channel/Writers", &[view.signed_data()]).is_ok());
    let mut forged = view.signed_data();
    forged.data = Bytes::from_static(b"other");
    let refused = config.evaluate("/Channel/Writers", &[forged]).unwrap_err();
    assert_eq!((refused.signatures, refused.identities), (1, 0));
    assert!(!config.evaluate("/Channel/Nobody", &[view.signed_data()]).unwrap_err().defined);
    let peer = network.org2.enrol("peer0", grapevine_crypto::Role::Peer, crate::network::VALIDITY).unwrap();
    assert!(config.evaluate_identity("/Channel/Readers", peer.identity()).is_ok());
    assert!(config.evaluate_identity("/Channel/Writers", peer.identity()).is_err());
}

#[test]
fn a_seek_names_its_range_and_binds_tls() {
    let network = Network::new();
    let hash = sha256(b"tls certificate");
    let channel = network.channel();
    let seek = SeekInfo::from_number(7);
    let envelope = seek_envelope(&network.client, &channel, &seek, [1; 24], NOW, Some(hash));
    let view = transaction_payload(&envelope).unwrap();
    assert_eq!(view.header_type, HeaderType::DeliverSeekInfo as i32);
    assert_eq!(view.tls_cert_hash, hash.as_ref());
    assert_eq!(SeekInfo::decode(view.payload.clone()).unwrap(), seek);
    assert!(network.config().evaluate("/Channel/Readers", &[view.signed_data()]).is_ok());
}

#[test]
fn fabrics_transactions_are_canonical() {
    for chain in CHAINS {
        for block in blocks(chain).iter().skip(1) {
            for transaction in block.transactions() {
                assert_eq!(check_canonical(transaction), Ok(()));
            }
        }
    }
}

/// What clients can make Go accept must not stop this peer: merged headers, unknown fields, other wire types.
#[test]
fn reads_odd_envelopes_as_go_does() {
    let channel_header = ChannelHeader { r#type: 3, channel_id: "a".into(), ..Default::default() };
    // Field 4 (channel) again, field 1 (type) as bytes, an unknown group.
    let channel_header =
        [channel_header.encode_to_vec(), vec![0x22, 1, b'b', 0x0a, 1, 0, 0xfb, 1, 0xfc, 1]].concat();
    let headers = [
        Header { channel_header: channel_header.into(), signature_header: Bytes::from_static(b"\x0a\x01x") },
        Header { channel_header: Bytes::new(), signature_header: Bytes::from_static(b"\x0a\x01y") },
    ];
    let mut payload = Vec::new();
    for header in headers {
        payload.extend(Payload { header: Some(header), data: Bytes::new() }.encode_to_vec());
    }
    let envelope = Envelope { payload: payload.into(), signature: Bytes::from_static(b"s") }.encode_to_vec();
    let view = transaction_payload(&envelope.into()).unwrap();
    assert_eq!((view.channel.as_str(), view.header_type), ("b", 3));
    assert_eq!(view.creator, "y");
}

#[test]
fn envelopes_without_header_or_with_bad_text() {
    assert_eq!(transaction_payload(&Bytes::new()).unwrap_err(), TransactionError::NoHeader);
    let header = Header { channel_header: vec![0x22, 1, 0xff].into(), signature_header: Bytes::new() };
    let payload = Payload { header: Some(header), data: Bytes::new() }.encode_to_vec();
    let envelope = Envelope { payload: payload.into(), signature: Bytes::new() }.encode_to_vec();
    assert_eq!(transaction_payload(&envelope.into()).unwrap_err(), TransactionError::Text("channel name"));
}

proptest! {
    /// For messages without unknown fields, `prost` re-encodes as Go does.
    #[test]
    fn canonical_means_that_encoding_again_changes_nothing(
        parts in prop::collection::vec((1_u8..4, prop::collection::vec(any::<u8>(), 0..3)), 0..4),
    ) {
        let mut bytes = Vec::new();
        for (number, content) in &parts {
            bytes.extend([number << 3 | 2, content.len() as u8]);
            bytes.extend(content);
        }
        let envelope = Envelope::decode(bytes.as_slice()).unwrap();
        let mut again = envelope.encode_to_vec();
        for (number, content) in parts.iter().filter(|(number, _)| *number == 3) {
            again.extend([number << 3 | 2, content.len() as u8]);
            again.extend(content);
        }
        let expected = !envelope.payload.is_empty() && !envelope.signature.is_empty() && again == bytes;
        prop_assert_eq!(check_canonical(&bytes).is_ok(), expected);
    }

    #[test]
    fn any_bytes_give_a_view_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = (transaction_payload(&bytes.clone().into()), check_canonical(&bytes));
    }

    /// Where both can read an envelope they read the same.
    #[test]
    fn agrees_with_the_generated_decoder(
        kind: i32, channel in "[a-z]{0,9}", nonce in prop::collection::vec(any::<u8>(), 0..9),
        data in prop::collection::vec(any::<u8>(), 0..9), seconds: i64,
    ) {
        let channel_header = ChannelHeader {
            r#type: kind,
            timestamp: Some(prost_types::Timestamp { seconds, nanos: 5 }),
            channel_id: channel.clone(),
            ..Default::default()
        };
        let header = Header {
            channel_header: channel_header.encode_to_vec().into(),
            signature_header: SignatureHeader { creator: vec![1], nonce: nonce.clone() }.encode_to_vec().into(),
        };
        let payload = Payload { header: Some(header), data: data.clone().into() }.encode_to_vec();
        let envelope = Envelope { payload: payload.into(), signature: Bytes::from_static(b"s") }.encode_to_vec();
        let view = transaction_payload(&envelope.into()).unwrap();
        prop_assert_eq!(view.header_type, kind);
        prop_assert_eq!(view.channel, channel);
        prop_assert_eq!(view.nonce, nonce);
        prop_assert_eq!(view.payload, data);
        prop_assert_eq!(view.timestamp_seconds, Some(seconds));
    }
}
