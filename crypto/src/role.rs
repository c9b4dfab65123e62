//! Roles of members, told by organisational units (Fabric's NodeOUs).

use std::fmt;

/// What a member is within its organisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Submits transactions.
    Client,
    /// Runs a peer.
    Peer,
    /// Administrates the organisation.
    Admin,
    /// Runs an orderer.
    Orderer,
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 4] = [Self::Client, Self::Peer, Self::Admin, Self::Orderer];

    /// The organisational unit that tells this role by default, as `cryptogen` writes it.
    #[must_use]
    pub const fn organizational_unit(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Peer => "peer",
            Self::Admin => "admin",
            Self::Orderer => "orderer",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.organizational_unit())
    }
}
