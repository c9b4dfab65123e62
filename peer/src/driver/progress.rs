//! Log lines about how channels do: while one catches up, and when it becomes ready or is not.
//!
//! A channel is looked at once a second. While it is far behind blocks, speed and time left are told: on a terminal by a bar below the log, elsewhere
//! by a line every [`TOLD_EVERY`]. That it is
//! not ready is told when it has been so for [`PATIENCE`], and again only when the kind of reason changes or after [`REMINDED_EVERY`].

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use grapevine_channels::ChannelId;

use super::core::Core;
use super::status;
use crate::terminal;

/// Time between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// Time between two lines about one channel that catches up.
const TOLD_EVERY: Duration = Duration::from_secs(5);
/// How long a channel may be unready before that is told: every start has such a moment.
const PATIENCE: Duration = Duration::from_secs(5);
/// Time between two lines about one reason.
const REMINDED_EVERY: Duration = Duration::from_secs(60);
/// Blocks behind below which nothing is told of the progress.
const WORTH_TELLING: u64 = 64;

#[derive(Debug, Clone)]
struct Told {
    unready_since: Option<Instant>,
    reminded_at: Option<Instant>,
    /// The first word of the reason told last.
    reason: String,
    progress_at: Option<Instant>,
}

/// See the module's header.
#[derive(Debug)]
pub(super) struct ProgressLog {
    next: Instant,
    told: BTreeMap<ChannelId, Told>,
}

impl ProgressLog {
    pub(super) fn new(now: Instant) -> Self {
        Self { next: now + LOOK, told: BTreeMap::new() }
    }

    /// When [`look`] is due.
    pub(super) fn next(&self) -> Instant {
        self.next
    }
}

/// Tells what is to tell, if it is time.
pub(super) fn look(core: &mut Core, now: Instant) {
    if core.progress_log.next > now {
        return;
    }
    core.progress_log.next = now + LOOK;
    let channels: Vec<ChannelId> = core.node.channels().cloned().collect();
    core.progress_log.told.retain(|channel, _| channels.contains(channel));
    let mut bars = Vec::new();
    for channel in channels {
        let fresh = Told { unready_since: None, reminded_at: None, reason: String::new(), progress_at: None };
        let mut told = core.progress_log.told.get(&channel).cloned().unwrap_or(fresh);
        bars.extend(tell_progress(core, &channel, &mut told, now));
        tell_readiness(core, &channel, &mut told, now);
        core.progress_log.told.insert(channel, told);
    }
    terminal::show(bars);
}

/// The bar, if there is to be one.
fn tell_progress(core: &Core, channel: &ChannelId, told: &mut Told, now: Instant) -> Option<String> {
    let progress = core.node.progress(channel)?;
    if progress.claimed.saturating_sub(progress.height) < WORTH_TELLING {
        if told.progress_at.take().is_some() {
            tracing::info!(%channel, height = progress.height, "caught up");
        }
        return None;
    }
    let line = status::catch_up(progress).line(progress.height);
    let is_live = terminal::is_live();
    let due = told.progress_at.is_none_or(|at| !is_live && now.duration_since(at) >= TOLD_EVERY);
    if due {
        told.progress_at = Some(now);
        tracing::info!(%channel, "catching up {line}");
    }
    is_live.then(|| format!("{channel}  {line}"))
}

fn tell_readiness(core: &Core, channel: &ChannelId, told: &mut Told, now: Instant) {
    let Some(reason) = status::not_ready(core, channel) else {
        if told.unready_since.take().is_some() || told.reason.is_empty() {
            tracing::info!(%channel, "ready");
        }
        told.reason = "ready".to_owned();
        return;
    };
    let since = *told.unready_since.get_or_insert(now);
    let kind = reason.split(':').next().unwrap_or_default().to_owned();
    let due =
        kind != told.reason || told.reminded_at.is_none_or(|at| now.duration_since(at) >= REMINDED_EVERY);
    if due && now.duration_since(since) >= PATIENCE {
        told.reason = kind;
        told.reminded_at = Some(now);
        tracing::warn!(%channel, "not ready: {reason}");
    }
}
