//! Values that stand alone, not in parts, and what to say when they are wrong.

use std::net::{IpAddr, SocketAddr};

use crate::document::Value;
use crate::endpoint::Endpoint;
use crate::units::{ByteSize, Period};

/// A value that stands alone, not in parts.
pub(crate) trait Scalar: Sized {
    /// Whether empty text means "not given", as for names and addresses in Fabric's files.
    const EMPTY_IS_ABSENT: bool = false;

    /// The typed value, or what is wrong and what to write instead.
    fn read(value: &Value) -> Result<Self, String>;
}

fn expected<T>(what: &str, value: &Value) -> Result<T, String> {
    let got = match value {
        Value::Bool(value) => value.to_string(),
        Value::Integer(value) => value.to_string(),
        Value::Float(value) => value.to_string(),
        Value::Text(text) => format!("{text:?}"),
        Value::Null => "nothing".to_owned(),
        Value::List(_) => "a list".to_owned(),
        Value::Map(_) => "a section".to_owned(),
    };
    Err(format!("{got} is not {what}"))
}

impl Scalar for bool {
    fn read(value: &Value) -> Result<Self, String> {
        match value {
            Value::Bool(value) => Ok(*value),
            Value::Text(text) if text.eq_ignore_ascii_case("true") => Ok(true),
            Value::Text(text) if text.eq_ignore_ascii_case("false") => Ok(false),
            other => expected("a switch; write true or false", other),
        }
    }
}

macro_rules! whole_number {
    ($($type:ty),*) => {$(
        impl Scalar for $type {
            fn read(value: &Value) -> Result<Self, String> {
                let read = match value {
                    Value::Integer(number) => Self::try_from(*number).ok(),
                    Value::Text(text) => text.trim().parse().ok(),
                    _ => None,
                };
                let what = || format!("a whole number from 0 to {}", Self::MAX);
                read.map_or_else(|| expected(&what(), value), Ok)
            }
        }
    )*};
}

whole_number!(u16, u32, usize);

impl Scalar for String {
    const EMPTY_IS_ABSENT: bool = true;

    fn read(value: &Value) -> Result<Self, String> {
        match value {
            Value::Text(text) => Ok(text.clone()),
            Value::Bool(_) | Value::Integer(_) | Value::Float(_) => expected("text; put it in quotes", value),
            other => expected("text", other),
        }
    }
}

impl Scalar for Period {
    fn read(value: &Value) -> Result<Self, String> {
        match value {
            Value::Integer(0) => Ok(Self::default()),
            Value::Text(text) => text.parse().map_err(|error: crate::UnitError| error.to_string()),
            other => expected("a duration; write a number with a unit, such as 500ms, 2s or 1m30s", other),
        }
    }
}

impl Scalar for ByteSize {
    fn read(value: &Value) -> Result<Self, String> {
        match value {
            Value::Integer(number) if u64::try_from(*number).is_ok() => number.to_string().parse(),
            Value::Text(text) => text.parse(),
            other => return expected("a size; write bytes or a unit, such as 512 KB, 10 MB or 4MiB", other),
        }
        .map_err(|error: crate::UnitError| error.to_string())
    }
}

macro_rules! parsed_text {
    ($($type:ty: $what:literal),*) => {$(
        impl Scalar for $type {
            const EMPTY_IS_ABSENT: bool = true;

            fn read(value: &Value) -> Result<Self, String> {
                let parsed = match value {
                    Value::Text(text) => text.trim().parse().ok(),
                    _ => None,
                };
                parsed.map_or_else(|| expected($what, value), Ok)
            }
        }
    )*};
}

parsed_text!(
    Endpoint: "an endpoint; write host:port, such as peer0.org1.example.com:7051",
    SocketAddr: "an address to listen on; write IP:port, such as 127.0.0.1:7051 or 0.0.0.0:7051",
    IpAddr: "an IP address; write one such as 127.0.0.1 or 0.0.0.0"
);
