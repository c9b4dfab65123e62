//! Letting time pass in which something is measured.

use std::time::{Duration, Instant};

use grapevine_network::Network;

/// Longest time in which an interrupt or the end of a process goes unnoticed.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// Waits until a moment; nothing is asked of the processes meanwhile.
///
/// # Errors
/// If the program is interrupted or a process ends by itself.
pub(crate) fn until(network: &Network, moment: Instant) -> anyhow::Result<()> {
    network.check()?;
    while let Some(left) = moment.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        std::thread::sleep(left.min(LOOK_INTERVAL));
        network.check()?;
    }
    Ok(())
}
