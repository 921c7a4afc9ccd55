//! Layer 0: what every other layer may use and what knows none of them.
//!
//! Durations and sizes as people write them, texts that must not be shown ([`Secret`]), and the [`Call`] that accompanies a
//! request from the listener to an upstream; and single flight.

pub mod call;
pub(crate) mod flight;
pub mod secret;
pub mod units;

pub use call::Call;
pub use secret::Secret;
