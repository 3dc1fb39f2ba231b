//! Rekeying under traffic: when the SA of a flow tells that its soft limit is reached, a new one takes over without a gap.
//! The far end can open by the new SA before this end protects by it, and both old ones go when everything that was
//! protected by them has arrived.

use std::collections::HashMap;

use cryptonic_driver::{EventOptions, EventStream, SaHandle};

use super::protections::{EspLane, FIRST_SPI, Keys};
use super::traffic::{Lane, Side, far, near};
use crate::error::{Error, Result};

/// Packets that an old SA outlives its successor's first one by, beside what the cable reorders.
const OVERLAP_PACKETS: u32 = 256;

/// The SAs with limits, and what became of them.
pub(super) struct Rekeying {
    /// Of each side.
    events: Vec<EventStream>,
    /// Lanes by the SA that protects them.
    lanes: HashMap<SaHandle, (u32, EspLane, SaHandle)>,
    retired: Vec<Retired>,
    next_spi: u32,
    /// What the cable reorders at most.
    reorder_depth: u32,
    /// Successors so far.
    pub(super) count: u64,
}

/// A pair of SAs that has a successor.
struct Retired {
    lane: u32,
    way: usize,
    outbound: SaHandle,
    inbound: SaHandle,
    /// It goes when this packet is due at the far end.
    until: u32,
}

impl Rekeying {
    /// Listens to the NICs.
    pub(super) fn new(sides: &mut [Side], lanes: u32, reorder_depth: u32) -> Result<Rekeying> {
        let listen = |side: &mut Side| {
            side.nic.open_events(EventOptions::default()).map_err(|error| Error::at(&side.name, error))
        };
        Ok(Rekeying {
            events: sides.iter_mut().map(listen).collect::<Result<_>>()?,
            lanes: HashMap::new(),
            retired: Vec::new(),
            next_spi: FIRST_SPI + lanes,
            reorder_depth,
            count: 0,
        })
    }

    /// Looks after an SA from now on.
    pub(super) fn watch(&mut self, lane: u32, form: EspLane, [outbound, inbound]: [SaHandle; 2]) {
        self.lanes.insert(outbound, (lane, form, inbound));
    }

    /// Does what the events of one NIC ask for, and deletes what has been replaced and is no longer needed.
    pub(super) fn look(
        &mut self,
        side: usize,
        sides: &mut [Side],
        lanes: &mut [Lane],
        keys: &mut Keys,
    ) -> Result<()> {
        while let Some(event) =
            self.events[side].next().map_err(|error| Error::at(&sides[side].name, error))?
        {
            let Some((index, form, inbound)) = event.sa.and_then(|sa| self.lanes.remove(&sa)) else {
                continue;
            };
            let Some((lane, outbound)) = lanes.get_mut(index as usize).zip(event.sa) else { continue };
            let new = form.install(sides, self.next_spi, 0, keys)?;
            self.next_spi += 1;
            self.count += 1;
            lane.protection = cryptonic_driver::Protection::Sa(new[0]);
            let until = lane.sent.wrapping_add(self.reorder_depth).wrapping_add(OVERLAP_PACKETS);
            self.retired.push(Retired { lane: index, way: form.way, outbound, inbound, until });
            self.watch(index, form, new);
        }
        let due = |retired: &Retired| {
            let lane = lanes.get(retired.lane as usize);
            lane.is_none_or(|lane| lane.due.wrapping_sub(retired.until) < u32::MAX / 2)
        };
        for Retired { way, outbound, inbound, .. } in self.retired.extract_if(.., |retired| due(retired)) {
            for (side, sa) in [(near(way, sides), outbound), (far(way, sides), inbound)] {
                let Side { name, nic, .. } = &mut sides[side];
                nic.delete_sa(sa).map_err(|error| Error::at(name, error))?;
            }
        }
        Ok(())
    }
}
