//! When a peer rekeys: what is counted, where its soft limit lies, and how it learns that the limit is reached.

use crate::workload::Random;

/// A row of the experiment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Policy {
    pub(super) name: &'static str,
    pub(super) unit: Unit,
    pub(super) margins: Margins,
    /// The NIC raises an event at the soft limit; else the daemon sees it when it polls.
    pub(super) events: bool,
}

/// What an SA's counter counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Bytes,
    Packets,
}

/// Where the soft limits lie below the hard one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Margins {
    /// Both peers at 80 %.
    Equal,
    /// strongSwan's defaults: life is rekey + 10 %, and each peer draws its limit from rekey less up to as much again.
    StrongSwan,
    /// Libreswan (rekeyfuzz.c): 25 to 31.25 % for the SA's initiator, 43.75 to 50 % for its responder.
    Libreswan,
    /// draft-liu-ipsecme-ikev2-rekey-redundant-sas: 80 to 85 % for the SA's initiator, 95 to 100 % for its responder.
    Draft,
}

impl Policy {
    /// Every policy, in the order of the rows.
    pub(super) const ALL: [Policy; 6] = [
        Policy { name: "bytes-equal", unit: Unit::Bytes, margins: Margins::Equal, events: false },
        Policy { name: "bytes-strongswan", unit: Unit::Bytes, margins: Margins::StrongSwan, events: false },
        Policy { name: "bytes-libreswan", unit: Unit::Bytes, margins: Margins::Libreswan, events: false },
        Policy { name: "bytes-events", unit: Unit::Bytes, margins: Margins::Equal, events: true },
        Policy { name: "count-draft", unit: Unit::Packets, margins: Margins::Draft, events: false },
        Policy { name: "count-events", unit: Unit::Packets, margins: Margins::Draft, events: true },
    ];
}

impl Margins {
    /// The soft limits of both peers for an SA pair that `initiator` has made, drawn anew for each pair.
    pub(super) fn soft_limits(self, hard: u64, initiator: usize, random: &mut Random) -> [u64; 2] {
        std::array::from_fn(|peer| {
            let (from, to, of) = self.range(peer == initiator);
            let at = |part: u64| (u128::from(hard) * u128::from(part) / u128::from(of)) as u64;
            at(from) + random.below((at(to) - at(from) + 1) as usize) as u64
        })
    }

    /// From, to, of what.
    fn range(self, is_initiator: bool) -> (u64, u64, u64) {
        match (self, is_initiator) {
            (Margins::Equal, _) => (80, 80, 100),
            (Margins::StrongSwan, _) => (9, 10, 11),
            (Margins::Libreswan, true) => (16, 20, 64),
            (Margins::Libreswan, false) => (28, 32, 64),
            (Margins::Draft, true) => (80, 85, 100),
            (Margins::Draft, false) => (95, 100, 100),
        }
    }
}
