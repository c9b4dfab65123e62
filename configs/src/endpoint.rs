//! `host:port`, the way peers and orderers are named to each other.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// A host name or address with a port, as `peer0.org1.example.com:7051`, `127.0.0.1:7051` or `[::1]:7051`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// Host name or IP address; an IPv6 address without its brackets.
    pub host: String,
    /// TCP port. 0 only where the documentation of the key allows it.
    pub port: u16,
}

/// The text is not an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an endpoint; write host:port, such as peer0.org1.example.com:7051")]
pub struct EndpointError(String);

/// Longest DNS name (RFC 1035, section 2.3.4).
const HOST_BYTES_MAX: usize = 253;

impl Endpoint {
    /// True if nobody can be reached under this address from elsewhere (`0.0.0.0` or `[::]`).
    pub fn is_unspecified(&self) -> bool {
        self.host.parse::<IpAddr>().is_ok_and(|address| address.is_unspecified())
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let refused = || EndpointError(text.to_owned());
        let (host, port) = text.trim().rsplit_once(':').ok_or_else(refused)?;
        let port = port.parse::<u16>().map_err(|_| refused())?;
        let host = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(address) => address.parse::<Ipv6Addr>().map_err(|_| refused())?.to_string(),
            None => host.to_owned(),
        };
        let letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        let name = !host.is_empty() && host.len() <= HOST_BYTES_MAX && host.chars().all(letter);
        if name || host.parse::<Ipv6Addr>().is_ok() && text.contains('[') {
            return Ok(Self { host, port });
        }
        Err(refused())
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        Self { host: address.ip().to_string(), port: address.port() }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            return write!(formatter, "[{}]:{}", self.host, self.port);
        }
        write!(formatter, "{}:{}", self.host, self.port)
    }
}

impl Serialize for Endpoint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
