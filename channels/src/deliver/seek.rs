//! Which blocks a seek request asks for: Fabric's rules (`common/deliver/deliver.go` and the file ledger's iterator).

use std::ops::RangeInclusive;

use crate::proto::common::Status;
use crate::proto::orderer::seek_position::Type;
use crate::proto::orderer::{SeekErrorResponse, SeekInfo};

use super::Refusal;

/// 503 if the channel is not in working order (`failure` says why), unless the seek asks for best effort.
pub fn check_health(failure: Option<&str>, seek: &SeekInfo) -> Result<(), Refusal> {
    match failure {
        Some(reason) if seek.error_response() == SeekErrorResponse::Strict => {
            Err(Refusal::new(Status::ServiceUnavailable, reason))
        }
        _ => Ok(()),
    }
}

/// The blocks of `seek` on a chain of `height` blocks (at least one), both ends included; `u64::MAX` as the end means
/// without end.
///
/// 400 if start or stop is missing or stop is before start; 404 if start is beyond the next block or there but empty.
/// Newest is resolved here, once. As in Fabric, stop oldest means the first block served, and stop newest with a start
/// beyond the tip never ends. Other than in Fabric, where they may never end, a stop that is "next commit" or empty is
/// refused with 400.
pub fn range(seek: &SeekInfo, height: u64) -> Result<RangeInclusive<u64>, Refusal> {
    let bad = |info: &str| Refusal::new(Status::BadRequest, info);
    let (Some(start), Some(stop)) = (seek.start, seek.stop) else {
        return Err(bad("the seek has no start or no stop position"));
    };
    let nowhere = || Refusal::new(Status::NotFound, "the start position of the seek is empty");
    let start = start.r#type.ok_or_else(nowhere)?;
    let tip = height.saturating_sub(1);
    let first = match start {
        Type::Oldest(_) => 0,
        Type::Newest(_) => tip,
        Type::NextCommit(_) => height,
        Type::Specified(position) if position.number > height => {
            let info = format!("block {} is beyond the next block, which is {height}", position.number);
            return Err(Refusal::new(Status::NotFound, info));
        }
        Type::Specified(position) => position.number,
    };
    let last = match stop.r#type.ok_or_else(|| bad("the stop position of the seek is empty"))? {
        Type::Oldest(_) => first,
        Type::Newest(_) if tip < first => u64::MAX,
        Type::Newest(_) => tip,
        Type::Specified(position) if position.number < first => {
            return Err(bad("the seek stops before it starts"));
        }
        Type::Specified(position) => position.number,
        Type::NextCommit(_) => return Err(bad("\"next commit\" is a start, not a stop")),
    };
    Ok(first..=last)
}

#[cfg(test)]
mod tests {
    use crate::proto::orderer::{SeekNextCommit, SeekPosition};

    use super::*;

    fn next_commit() -> SeekPosition {
        SeekPosition { r#type: Some(Type::NextCommit(SeekNextCommit {})) }
    }

    fn empty() -> SeekPosition {
        SeekPosition { r#type: None }
    }

    #[test]
    fn the_table_of_ranges() {
        let at = SeekPosition::specified;
        let (oldest, newest) = (SeekPosition::oldest, SeekPosition::newest);
        let table = [
            ("oldest", oldest(), oldest(), Ok(0..=0)),
            ("newest", newest(), newest(), Ok(9..=9)),
            ("all so far", oldest(), newest(), Ok(0..=9)),
            ("one", at(3), at(3), Ok(3..=3)),
            ("without end", at(3), at(u64::MAX), Ok(3..=u64::MAX)),
            ("the next, waiting", at(10), at(10), Ok(10..=10)),
            ("next commit", next_commit(), at(u64::MAX), Ok(10..=u64::MAX)),
            ("newest to a later one", newest(), at(12), Ok(9..=12)),
            ("stop oldest ends after the first", at(4), oldest(), Ok(4..=4)),
            ("newest beyond the tip never ends", at(10), newest(), Ok(10..=u64::MAX)),
            ("beyond the next", at(11), at(11), Err(Status::NotFound)),
            ("beyond the next goes before stop", at(11), at(1), Err(Status::NotFound)),
            ("stop before start", at(4), at(3), Err(Status::BadRequest)),
            ("next commit as stop", at(4), next_commit(), Err(Status::BadRequest)),
            ("empty start", empty(), at(3), Err(Status::NotFound)),
            ("empty start and stop", empty(), empty(), Err(Status::NotFound)),
            ("empty stop", at(3), empty(), Err(Status::BadRequest)),
        ];
        for (name, start, stop, want) in table {
            let seek = SeekInfo { start: Some(start), stop: Some(stop), ..SeekInfo::default() };
            assert_eq!(range(&seek, 10).map_err(|refusal| refusal.status), want, "{name}");
        }
        let missing = SeekInfo { start: Some(at(1)), ..SeekInfo::default() };
        assert_eq!(range(&missing, 10).unwrap_err().status, Status::BadRequest);
    }
}
