//! What a run is made of, in the units of the simulation.

use clap::ValueEnum;

/// What becomes of the SA pair too many when both peers have rekeyed at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Redundant {
    /// Its creator deletes it (RFC 7296 2.8.1)
    Close,
    /// Nobody does: it stays, idle, until its time lifetime ends
    Keep,
}

impl Redundant {
    pub(super) fn name(self) -> &'static str {
        match self {
            Redundant::Close => "close",
            Redundant::Keep => "keep",
        }
    }
}

/// Parameters of one run. All times are nanoseconds.
#[derive(Clone, Debug)]
pub(super) struct Parameters {
    pub(super) tunnels: u32,
    /// Of each peer's table.
    pub(super) slots: u32,
    pub(super) end_ns: u64,
    /// Figures are taken from here on.
    pub(super) warm_up_ns: u64,
    pub(super) seed: u64,
    /// Of all tunnels together in their heavier directions, on average.
    pub(super) bytes_per_second: u64,
    pub(super) skew: f64,
    /// The lighter direction has 1 less this of the heavier one's rate.
    pub(super) asymmetry: f64,
    pub(super) on_ns: u64,
    /// 0: the burst never ends.
    pub(super) off_ns: u64,
    pub(super) loss_millionths: u64,
    /// One way, of data.
    pub(super) delay_ns: u64,
    /// A rekey exchange from its start until both ends have the new pair; half of it until the other end hears of it.
    pub(super) rekey_ns: u64,
    pub(super) delete_ns: u64,
    /// From an SA's deletion until its inbound slot is free.
    pub(super) drain_ns: u64,
    pub(super) retransmit_ns: u64,
    pub(super) poll_ns: u64,
    /// Hard limits.
    pub(super) lifetime_bytes: u64,
    pub(super) lifetime_packets: u64,
    pub(super) time_lifetime_ns: u64,
    pub(super) redundant: Redundant,
}
