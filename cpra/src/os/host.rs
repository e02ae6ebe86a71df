use crate::shard::protocol::HostSample;
use crate::units::Instant;
#[derive(Default)]
pub struct HostCounters;
impl HostCounters {
    pub fn sample(&mut self, now: Instant) -> HostSample {
        HostSample { taken: now, drops: 0, table_full: false }
    }
}
