//! Fabric's MSP messages (`msp/identities.proto`, `msp/msp_config.proto`, `msp/msp_principal.proto` of fabric-protos).
//!
//! Written by hand with Fabric's field numbers, so that no protobuf compiler is needed. Field names follow Fabric.

/// An identity as it travels: the MSP it belongs to and its certificate.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct SerializedIdentity {
    /// MSP identifier.
    #[prost(string, tag = "1")]
    pub mspid: String,
    /// The PEM certificate.
    #[prost(bytes = "vec", tag = "2")]
    pub id_bytes: Vec<u8>,
}

/// The value `MSP` of an organisation in a channel configuration.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct MspConfig {
    /// 0: X.509 (`FabricMspConfig`), 1: idemix (not supported).
    #[prost(int32, tag = "1")]
    pub r#type: i32,
    /// The marshalled configuration of that type.
    #[prost(bytes = "vec", tag = "2")]
    pub config: Vec<u8>,
}

/// Verification material of an X.509 MSP. All certificates are PEM.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct FabricMspConfig {
    /// MSP identifier.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Trusted root CAs.
    #[prost(bytes = "vec", repeated, tag = "2")]
    pub root_certs: Vec<Vec<u8>>,
    /// Intermediate CAs.
    #[prost(bytes = "vec", repeated, tag = "3")]
    pub intermediate_certs: Vec<Vec<u8>>,
    /// Certificates of administrators.
    #[prost(bytes = "vec", repeated, tag = "4")]
    pub admins: Vec<Vec<u8>>,
    /// Certificate revocation lists, PEM.
    #[prost(bytes = "vec", repeated, tag = "5")]
    pub revocation_list: Vec<Vec<u8>>,
    /// A marshalled `SigningIdentityInfo`; empty in channel configurations and not used here: it may hold a private key.
    #[prost(bytes = "vec", tag = "6")]
    pub signing_identity: Vec<u8>,
    /// If not empty, every identity must carry one of these organisational units.
    #[prost(message, repeated, tag = "7")]
    pub organizational_unit_identifiers: Vec<FabricOuIdentifier>,
    /// Hash families.
    #[prost(message, optional, tag = "8")]
    pub crypto_config: Option<FabricCryptoConfig>,
    /// TLS root CAs.
    #[prost(bytes = "vec", repeated, tag = "9")]
    pub tls_root_certs: Vec<Vec<u8>>,
    /// TLS intermediate CAs.
    #[prost(bytes = "vec", repeated, tag = "10")]
    pub tls_intermediate_certs: Vec<Vec<u8>>,
    /// Roles told by organisational units.
    #[prost(message, optional, tag = "11")]
    pub fabric_node_ous: Option<FabricNodeOus>,
}

/// Hash families of an MSP.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct FabricCryptoConfig {
    /// `SHA2` (the default) or `SHA3`.
    #[prost(string, tag = "1")]
    pub signature_hash_family: String,
    /// `SHA256` (the default).
    #[prost(string, tag = "2")]
    pub identity_identifier_hash_function: String,
}

/// An organisational unit, and the CA that must have certified it.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct FabricOuIdentifier {
    /// PEM certificate of the root or intermediate CA.
    #[prost(bytes = "vec", tag = "1")]
    pub certificate: Vec<u8>,
    /// The organisational unit.
    #[prost(string, tag = "2")]
    pub organizational_unit_identifier: String,
}

/// Which organisational unit tells which role.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct FabricNodeOus {
    /// Whether roles are enforced at all.
    #[prost(bool, tag = "1")]
    pub enable: bool,
    /// Clients.
    #[prost(message, optional, tag = "2")]
    pub client_ou_identifier: Option<FabricOuIdentifier>,
    /// Peers.
    #[prost(message, optional, tag = "3")]
    pub peer_ou_identifier: Option<FabricOuIdentifier>,
    /// Administrators.
    #[prost(message, optional, tag = "4")]
    pub admin_ou_identifier: Option<FabricOuIdentifier>,
    /// Orderers.
    #[prost(message, optional, tag = "5")]
    pub orderer_ou_identifier: Option<FabricOuIdentifier>,
}

/// A condition on an identity, as policies state it.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct MspPrincipal {
    /// What `principal` holds.
    #[prost(enumeration = "PrincipalClassification", tag = "1")]
    pub principal_classification: i32,
    /// A marshalled `MspRole`, `OrganizationUnit`, `SerializedIdentity`, `CombinedPrincipal` or `MspIdentityAnonymity`.
    #[prost(bytes = "vec", tag = "2")]
    pub principal: Vec<u8>,
}

/// Kinds of principals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum PrincipalClassification {
    /// An `MspRole`.
    Role = 0,
    /// An `OrganizationUnit`.
    OrganizationUnit = 1,
    /// A `SerializedIdentity`: exactly that certificate.
    Identity = 2,
    /// An `MspIdentityAnonymity`.
    Anonymity = 3,
    /// A `CombinedPrincipal`: all of several.
    Combined = 4,
}

/// A role within an MSP.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct MspRole {
    /// MSP identifier.
    #[prost(string, tag = "1")]
    pub msp_identifier: String,
    /// The role.
    #[prost(enumeration = "MspRoleType", tag = "2")]
    pub role: i32,
}

/// Roles that policies can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum MspRoleType {
    /// Any valid identity of the MSP.
    Member = 0,
    /// An administrator.
    Admin = 1,
    /// A client (NodeOUs).
    Client = 2,
    /// A peer (NodeOUs).
    Peer = 3,
    /// An orderer (NodeOUs).
    Orderer = 4,
}

/// An organisational unit certified by a certain CA of an MSP.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct OrganizationUnit {
    /// MSP identifier.
    #[prost(string, tag = "1")]
    pub msp_identifier: String,
    /// The organisational unit.
    #[prost(string, tag = "2")]
    pub organizational_unit_identifier: String,
    /// SHA-256 over the concatenated DER certificates of the CA chain, issuer first.
    #[prost(bytes = "vec", tag = "3")]
    pub certifiers_identifier: Vec<u8>,
}

/// Several principals, all of which must hold.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct CombinedPrincipal {
    /// The principals.
    #[prost(message, repeated, tag = "1")]
    pub principals: Vec<MspPrincipal>,
}

/// Whether an identity must be nominal or anonymous. X.509 identities are nominal.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct MspIdentityAnonymity {
    /// 0: nominal, 1: anonymous.
    #[prost(int32, tag = "1")]
    pub anonymity_type: i32,
}
