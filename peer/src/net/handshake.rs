//! The member handshake: binds the libp2p key of a connection to an X.509 identity, both ways.
//!
//! Runs inside the secure channel and before the multiplexer, so that no protocol can be reached by a
//! stranger. Messages, in this order (a refusal, `00` and a [`RefusalKind`] code, may stand in place of
//! any of them and ends the handshake):
//!
//! | from | message |
//! |---|---|
//! | both at once | hello: version `01`, nonce (32 bytes), process instance (16 bytes) |
//! | dialer | proof: `01`, u16 length, `SerializedIdentity`, u16 length, signature |
//! | listener | proof, only once the dialer is admitted: a stranger learns no certificate |
//! | dialer | admitted: `02` |
//! | listener | admitted: `02` |
//!
//! The signature, by the key of the certificate, covers [`transcript`]: tag ‖ version ‖ network id ‖
//! role ‖ both PeerIds ‖ both nonces ‖ SHA-256 of the `SerializedIdentity`. What this resists:
//! - *replay*: the verifier's own fresh nonce is signed;
//! - *relay* (a stranger passes on the messages of two members): both PeerIds are signed, and the
//!   secure channel proves them;
//! - *reflection*: the role is signed;
//! - *use in another network or another protocol*: network id and tag are signed;
//! - *floods*: each direction is at most [`HANDSHAKE_BYTES_MAX`], the caller bounds the time, and a
//!   length is checked before anything is allocated for it.
//!
//! The process instance is random per start and not signed: it only tells a restarted peer from one
//! that dialed twice, see `registry`.

use futures::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use grapevine_crypto::{Identity, Signer, sha256, sha256_of};
use libp2p::PeerId;

use super::{ALREADY_CONNECTED, Admission, RefusalKind};

/// Version of the handshake, in the hello and in the signature.
const VERSION: u8 = 1;
const TAG: &[u8] = b"grapevine/member/1";
const NONCE_BYTES: usize = 32;
const INSTANCE_BYTES: usize = 16;
const HELLO_BYTES: usize = NONCE_BYTES + INSTANCE_BYTES;

/// The most bytes the handshake takes in one direction.
pub(crate) const HANDSHAKE_BYTES_MAX: usize = 16 * 1024;
/// P-256 in DER takes 72 bytes, ed25519 64.
const SIGNATURE_BYTES_MAX: usize = 256;
/// What remains for the identity: 1 + 48 hello, 1 + 2 + 2 proof framing, 2 verdict.
const IDENTITY_BYTES_MAX: usize = HANDSHAKE_BYTES_MAX - HELLO_BYTES - SIGNATURE_BYTES_MAX - 8;

const REFUSED: u8 = 0;
const PROOF: u8 = 1;
const ADMITTED: u8 = 2;

/// Why a handshake came to nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) kind: RefusalKind,
    /// The kind the other side gave, if it is the other side that refused.
    pub(crate) by_remote: Option<RefusalKind>,
    detail: String,
}

impl Refusal {
    pub(crate) fn new(kind: RefusalKind, detail: impl Into<String>) -> Self {
        Self { kind, by_remote: None, detail: detail.into() }
    }

    fn by_remote(code: u8) -> Self {
        let by_remote = RefusalKind::from_code(code);
        let label = by_remote.map_or("for an unknown reason", RefusalKind::label);
        Self { kind: RefusalKind::ByRemote, by_remote, detail: format!("refused by the other side: {label}") }
    }

    /// Whether a connection between the two peers exists anyway.
    pub(crate) fn is_already_connected(&self) -> bool {
        let already = RefusalKind::AlreadyConnected;
        self.kind == already || self.by_remote == Some(already)
    }

    /// Whether another address of the same peer would end the same way.
    pub(crate) fn is_final(&self) -> bool {
        self.is_already_connected()
            || matches!(self.kind, RefusalKind::SelfDial | RefusalKind::OwnIdentity | RefusalKind::NotAMember)
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.kind {
            RefusalKind::SelfDial => formatter.write_str("self"),
            _ if self.is_already_connected() => formatter.write_str(ALREADY_CONNECTED),
            RefusalKind::ByRemote | RefusalKind::Closed => formatter.write_str(&self.detail),
            kind => write!(formatter, "{}: {}", kind.label(), self.detail),
        }
    }
}

impl std::error::Error for Refusal {}

impl From<std::io::Error> for Refusal {
    fn from(error: std::io::Error) -> Self {
        Self::new(RefusalKind::Closed, error.to_string())
    }
}

/// What this side brings to a handshake.
pub(crate) struct Handshake<'a> {
    pub(crate) signer: &'a Signer,
    pub(crate) admission: &'a dyn Admission,
    pub(crate) network_id: &'a str,
    pub(crate) local: PeerId,
    pub(crate) remote: PeerId,
    pub(crate) instance: [u8; INSTANCE_BYTES],
}

/// What a finished handshake has shown about the other side.
#[derive(Debug)]
pub(crate) struct Verified {
    pub(crate) identity: Identity,
    pub(crate) session: [u8; 32],
    pub(crate) instance: [u8; INSTANCE_BYTES],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Dialer,
    Listener,
}

struct Hello {
    nonce: [u8; NONCE_BYTES],
    instance: [u8; INSTANCE_BYTES],
}

/// The two hellos and PeerIds, by side.
pub(crate) struct Exchange<'a> {
    pub(crate) network_id: &'a str,
    pub(crate) dialer: PeerId,
    pub(crate) listener: PeerId,
    pub(crate) dialer_nonce: [u8; NONCE_BYTES],
    pub(crate) listener_nonce: [u8; NONCE_BYTES],
}

/// The bytes that `side` signs. Variable parts carry their length, so no two inputs coincide.
pub(crate) fn transcript(exchange: &Exchange<'_>, side: Side, serialized_identity: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(300);
    bytes.extend_from_slice(TAG);
    bytes.push(VERSION);
    let role = [if side == Side::Dialer { 1 } else { 2 }];
    let (dialer, listener) = (exchange.dialer.to_bytes(), exchange.listener.to_bytes());
    for part in [exchange.network_id.as_bytes(), &role, &dialer, &listener] {
        // No part comes near 4 GiB: PeerIds are at most 42 bytes, the network id is checked at start.
        bytes.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
        bytes.extend_from_slice(part);
    }
    bytes.extend_from_slice(&exchange.dialer_nonce);
    bytes.extend_from_slice(&exchange.listener_nonce);
    bytes.extend_from_slice(sha256(serialized_identity).as_ref());
    bytes
}

/// Runs the dialer's part. On a refusal of ours the other side is told the kind.
pub(crate) async fn as_dialer<S>(stream: &mut S, ours: &Handshake<'_>) -> Result<Verified, Refusal>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let result = dialer_steps(stream, ours).await;
    if let Err(refusal) = &result {
        tell(stream, refusal).await;
    }
    result
}

/// Runs the listener's part. `claim` is asked once the dialer is known to be a member, before anything
/// of ours is shown; what it returns is kept by the caller while the connection is brought up.
pub(crate) async fn as_listener<S, C, F>(
    stream: &mut S,
    ours: &Handshake<'_>,
    claim: F,
) -> Result<(Verified, C), Refusal>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    C: Send,
    F: FnOnce(&Verified) -> Result<C, Refusal> + Send,
{
    let result = listener_steps(stream, ours, claim).await;
    if let Err(refusal) = &result {
        tell(stream, refusal).await;
    }
    result
}

/// Tells the other side, as far as it still listens, why the handshake ends.
pub(crate) async fn tell<S: AsyncWrite + Unpin + Send>(stream: &mut S, refusal: &Refusal) {
    if matches!(refusal.kind, RefusalKind::ByRemote | RefusalKind::Closed) {
        return;
    }
    let message = [REFUSED, refusal.kind.code()];
    // Best effort: the refusal stands whether or not it can be delivered.
    if stream.write_all(&message).await.is_ok() {
        let _ = stream.close().await;
    }
}

async fn dialer_steps<S>(stream: &mut S, ours: &Handshake<'_>) -> Result<Verified, Refusal>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let (exchange, instance) = exchange_hellos(stream, ours, Side::Dialer).await?;
    write_proof(stream, ours, &exchange, Side::Dialer).await?;
    let identity = read_proof(stream, ours, &exchange, Side::Listener).await?;
    stream.write_all(&[ADMITTED]).await?;
    stream.flush().await?;
    expect_tag(stream, ADMITTED).await?;
    Ok(Verified { identity, session: session(&exchange), instance })
}

async fn listener_steps<S, C, F>(
    stream: &mut S,
    ours: &Handshake<'_>,
    claim: F,
) -> Result<(Verified, C), Refusal>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    F: FnOnce(&Verified) -> Result<C, Refusal> + Send,
{
    let (exchange, instance) = exchange_hellos(stream, ours, Side::Listener).await?;
    let identity = read_proof(stream, ours, &exchange, Side::Dialer).await?;
    let verified = Verified { identity, session: session(&exchange), instance };
    let claim = claim(&verified)?;
    write_proof(stream, ours, &exchange, Side::Listener).await?;
    expect_tag(stream, ADMITTED).await?;
    stream.write_all(&[ADMITTED]).await?;
    stream.flush().await?;
    Ok((verified, claim))
}

fn session(exchange: &Exchange<'_>) -> [u8; 32] {
    sha256_of([exchange.dialer_nonce.as_slice(), exchange.listener_nonce.as_slice()]).0
}

async fn exchange_hellos<'a, S>(
    stream: &mut S,
    ours: &Handshake<'a>,
    side: Side,
) -> Result<(Exchange<'a>, [u8; INSTANCE_BYTES]), Refusal>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let nonce: [u8; NONCE_BYTES] = rand::random();
    let mut message = Vec::with_capacity(1 + HELLO_BYTES);
    message.push(VERSION);
    message.extend_from_slice(&nonce);
    message.extend_from_slice(&ours.instance);
    stream.write_all(&message).await?;
    stream.flush().await?;
    let theirs = read_hello(stream).await?;
    let (dialer, listener, dialer_nonce, listener_nonce) = match side {
        Side::Dialer => (ours.local, ours.remote, nonce, theirs.nonce),
        Side::Listener => (ours.remote, ours.local, theirs.nonce, nonce),
    };
    let exchange = Exchange { network_id: ours.network_id, dialer, listener, dialer_nonce, listener_nonce };
    Ok((exchange, theirs.instance))
}

async fn read_hello<S: AsyncRead + Unpin + Send>(stream: &mut S) -> Result<Hello, Refusal> {
    match read_byte(stream).await? {
        VERSION => {}
        REFUSED => return Err(Refusal::by_remote(read_byte(stream).await?)),
        other => {
            let detail = format!("the other side speaks version {other}, this peer {VERSION}");
            return Err(Refusal::new(RefusalKind::Version, detail));
        }
    }
    let mut hello = Hello { nonce: [0; NONCE_BYTES], instance: [0; INSTANCE_BYTES] };
    stream.read_exact(&mut hello.nonce).await?;
    stream.read_exact(&mut hello.instance).await?;
    Ok(hello)
}

async fn write_proof<S: AsyncWrite + Unpin + Send>(
    stream: &mut S,
    ours: &Handshake<'_>,
    exchange: &Exchange<'_>,
    side: Side,
) -> Result<(), Refusal> {
    let identity = ours.signer.serialized();
    let signature = ours.signer.sign(&transcript(exchange, side, identity));
    let mut message = vec![PROOF];
    for (part, limit) in [(identity, IDENTITY_BYTES_MAX), (&signature, SIGNATURE_BYTES_MAX)] {
        let length = u16::try_from(part.len()).ok().filter(|length| usize::from(*length) <= limit);
        let Some(length) = length else {
            let detail = "this peer's own certificate is too large for the handshake; issue a smaller one";
            return Err(Refusal::new(RefusalKind::Malformed, detail));
        };
        message.extend_from_slice(&length.to_be_bytes());
        message.extend_from_slice(part);
    }
    stream.write_all(&message).await?;
    stream.flush().await?;
    Ok(())
}

async fn read_proof<S: AsyncRead + Unpin + Send>(
    stream: &mut S,
    ours: &Handshake<'_>,
    exchange: &Exchange<'_>,
    side: Side,
) -> Result<Identity, Refusal> {
    expect_tag(stream, PROOF).await?;
    let serialized = read_part(stream, IDENTITY_BYTES_MAX).await?;
    let signature = read_part(stream, SIGNATURE_BYTES_MAX).await?;
    let identity =
        ours.admission.admit(&serialized).map_err(|reason| Refusal::new(RefusalKind::NotAMember, reason))?;
    identity
        .verify(&transcript(exchange, side, &serialized), &signature)
        .map_err(|error| Refusal::new(RefusalKind::BadSignature, error.to_string()))?;
    // Only now is it known to hold the key: a stranger who shows our own name is just a stranger.
    if identity.pki_id() == ours.signer.identity().pki_id() {
        let detail = "another process has a certificate with this peer's name; rename or stop one of the two";
        return Err(Refusal::new(RefusalKind::OwnIdentity, detail));
    }
    Ok(identity)
}

async fn expect_tag<S: AsyncRead + Unpin + Send>(stream: &mut S, expected: u8) -> Result<(), Refusal> {
    match read_byte(stream).await? {
        tag if tag == expected => Ok(()),
        REFUSED => Err(Refusal::by_remote(read_byte(stream).await?)),
        tag => Err(Refusal::new(RefusalKind::Malformed, format!("tag {tag} where {expected} is due"))),
    }
}

async fn read_byte<S: AsyncRead + Unpin + Send>(stream: &mut S) -> Result<u8, Refusal> {
    let mut byte = [0_u8; 1];
    stream.read_exact(&mut byte).await?;
    let [byte] = byte;
    Ok(byte)
}

async fn read_part<S: AsyncRead + Unpin + Send>(stream: &mut S, limit: usize) -> Result<Vec<u8>, Refusal> {
    let mut length = [0_u8; 2];
    stream.read_exact(&mut length).await?;
    let length = usize::from(u16::from_be_bytes(length));
    if length > limit {
        let detail = format!("{length} bytes where {limit} are allowed");
        return Err(Refusal::new(RefusalKind::Malformed, detail));
    }
    let mut part = vec![0; length];
    stream.read_exact(&mut part).await?;
    Ok(part)
}
