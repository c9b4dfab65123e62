//! Validity of certificates in time: what time it is for them, and how long the own one lasts.
//!
//! Both parts are driven from outside: [`CertificateClock`] by readings of the wall clock, [`ExpiryWatch`] by certificate time.

mod clock;
mod expiry;

pub use clock::{CertificateClock, ClockNews, STEP_MIN};
pub use expiry::{ExpiryNotice, ExpiryWatch, WARNING_DAYS};
