//! From a peer's bytes to a frame: every list is within its bounds, every hash has its length, or nothing is kept.

use bytes::Bytes;
use prost::Message;

use super::{
    BulkHeader, ChannelBody, ChannelFrame, DELEGATION_MEMBERS_MAX, Frame, FrameBody, HEADERS_PER_RANGE_MAX,
    Headers, Holding, LeadershipKind, MANIFESTS_PER_FRAME_MAX, MEMBER_PREFIX_SIZE, NUMBERS_PER_FRAME_MAX,
    RECORDS_PER_VIEW_MAX, VIEW_ENTRIES_MAX, VIEW_ENTRY_SIZE,
};

/// Why bytes from a peer were not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Not the protobuf it should be.
    #[error("undecodable frame: {0}")]
    Undecodable(String),
    /// A frame of a kind this version does not know, or none.
    #[error("frame without a known body")]
    Empty,
    /// A list or field outside its bounds.
    #[error("{0} out of bounds")]
    OutOfBounds(&'static str),
}

impl Frame {
    /// Decodes a control frame and checks the bounds of its lists.
    pub fn parse(bytes: Bytes) -> Result<FrameBody, WireError> {
        let body = Self::decode(bytes)
            .map_err(|error| WireError::Undecodable(error.to_string()))?
            .body
            .ok_or(WireError::Empty)?;
        match &body {
            FrameBody::View(view) if view.records.len() > RECORDS_PER_VIEW_MAX => {
                Err(WireError::OutOfBounds("view"))
            }
            FrameBody::IdentityRequest(request) if request.digests.len() > RECORDS_PER_VIEW_MAX => {
                Err(WireError::OutOfBounds("identity request"))
            }
            FrameBody::Joined(joined) if joined.proofs.len() > NUMBERS_PER_FRAME_MAX => {
                Err(WireError::OutOfBounds("joined channels"))
            }
            FrameBody::ViewRoot(digest)
            | FrameBody::LookFor(digest)
            | FrameBody::Heard(digest)
            | FrameBody::Suspicion(digest)
                if digest.len() != 32 =>
            {
                Err(WireError::OutOfBounds("digest"))
            }
            FrameBody::ViewList(list)
                if list.entries.len() > VIEW_ENTRIES_MAX * VIEW_ENTRY_SIZE
                    || list.entries.len() % VIEW_ENTRY_SIZE != 0 =>
            {
                Err(WireError::OutOfBounds("view list"))
            }
            FrameBody::Channel(frame) => check_channel_frame(frame).map(|()| body),
            _ => Ok(body),
        }
    }

    /// Encodes a frame that belongs to no channel.
    pub fn encode_body(body: FrameBody) -> Bytes {
        debug_assert!(!matches!(body, FrameBody::Channel(_)), "channel frames are made by ChannelLink alone");
        Self { body: Some(body) }.encode_to_vec().into()
    }
}

impl BulkHeader {
    /// Decodes a bulk header.
    pub fn parse(bytes: Bytes) -> Result<Self, WireError> {
        let header = Self::decode(bytes).map_err(|error| WireError::Undecodable(error.to_string()))?;
        match &header.delegation {
            Some(delegation)
                if delegation.members.len() != delegation.sizes.len() * MEMBER_PREFIX_SIZE
                    || delegation.sizes.len() > DELEGATION_MEMBERS_MAX =>
            {
                Err(WireError::OutOfBounds("delegation"))
            }
            _ => Ok(header),
        }
    }
}

fn check_headers(headers: &Headers) -> Result<(), WireError> {
    let hash = |bytes: &Bytes| bytes.len() == 32;
    let sound = headers.entries.len() <= HEADERS_PER_RANGE_MAX
        && headers.first.checked_add(headers.entries.len() as u64).is_some()
        && (headers.entries.is_empty() || hash(&headers.previous_hash))
        && headers.entries.iter().all(|entry| hash(&entry.data_hash));
    if sound { Ok(()) } else { Err(WireError::OutOfBounds("headers")) }
}

fn check_channel_frame(frame: &ChannelFrame) -> Result<(), WireError> {
    match frame.body.as_ref().ok_or(WireError::Empty)? {
        ChannelBody::Request(request) | ChannelBody::Refusal(request) | ChannelBody::Late(request)
            if request.numbers.len() > NUMBERS_PER_FRAME_MAX =>
        {
            Err(WireError::OutOfBounds("requested numbers"))
        }
        ChannelBody::HeadersRequest(request) if request.count > HEADERS_PER_RANGE_MAX as u64 => {
            Err(WireError::OutOfBounds("requested headers"))
        }
        ChannelBody::Headers(headers) => check_headers(headers),
        ChannelBody::Digest(digest)
            if digest.ranges.len() > 2 * NUMBERS_PER_FRAME_MAX || digest.ranges.len() % 2 != 0 =>
        {
            Err(WireError::OutOfBounds("digest ranges"))
        }
        ChannelBody::Holding(Holding { ranges, .. })
            if ranges.len() > 2 * NUMBERS_PER_FRAME_MAX || ranges.len() % 2 != 0 =>
        {
            Err(WireError::OutOfBounds("held ranges"))
        }
        ChannelBody::Announcement(announcement) if announcement.manifests.len() > MANIFESTS_PER_FRAME_MAX => {
            Err(WireError::OutOfBounds("manifests"))
        }
        ChannelBody::Leadership(message)
            if message.kind() == LeadershipKind::Unspecified
                || !matches!(message.about.len(), 0 | 32)
                || !matches!(message.tip_hash.len(), 0 | 32) =>
        {
            Err(WireError::OutOfBounds("leadership message"))
        }
        _ => Ok(()),
    }
}
