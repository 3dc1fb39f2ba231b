//! Getting ready: opens the NICs, makes queue pairs, installs the SAs and keys of the flows.

use std::cell::RefCell;
use std::rc::Rc;

use cryptonic_driver::{QueuePairOptions, Time};

use super::side::{BATCH, Lane, Queue, Side, far, near};
use super::{Bench, Ends, Models, Settings, WireCapture};
use crate::cable::Arrived;
use crate::capture;
use crate::commands::protections::{EspLane, FIRST_SPI, Keys, describe, lacking, psp};
use crate::commands::rekeying::Rekeying;
use crate::device::{self, Pair};
use crate::error::{Error, Result};
use crate::flow::{Descriptor, Flow, Protection};
use crate::report::{FlowReport, LeftOut};
use crate::sa_file::PSP_UDP_PORT;
use crate::workload::{self, Random, Stream};

/// Receive slots of a queue pair that only sends.
const IDLE_SLOTS: u32 = 2;
/// How long a link may take to come up.
const LINK_UP: Time = Time::from_milliseconds(10_000);

impl Bench {
    /// Opens the NICs and installs the SAs and keys of the flows. A flow that a NIC cannot serve is left out.
    pub(crate) fn new(
        settings: &Settings<'_>,
        flows: &[Flow],
        wire: Option<capture::Output>,
    ) -> Result<Bench> {
        let mut random = Random::new(settings.seed);
        let (pair, mut sides) = open(settings)?;
        let transmit_slots = transmit_slots(settings, &sides);
        let (flows, left_out) = servable(flows, &sides, transmit_slots)?;
        for side in &mut sides {
            let protocol = side.nic.information().capabilities.protocol;
            if protocol.psp() {
                side.nic.psp_rotate().map_err(|error| Error::at(&side.name, error))?;
                let received = side.nic.psp_receive(protocol.psp_versions(), PSP_UDP_PORT);
                received.map_err(|error| Error::at(&side.name, error))?;
            }
        }

        // Streams first: their longest frame decides how large buffers are.
        let mut streams = Vec::new();
        for (flow_index, flow) in flows.iter().enumerate() {
            for way in 0..2 {
                for _ in (0..flow.count).filter(|_| flow.ways[way]) {
                    let index = streams.len();
                    streams.push((flow_index, way, Stream::new(flow, index, way, &mut random)?));
                }
            }
        }
        let longest = streams.iter().map(|(_, _, stream)| stream.longest()).max().unwrap_or(0);
        fits(longest, &sides)?;
        let buffer_bytes = longest.next_power_of_two().clamp(2048, 16_384) as u32;
        for index in 0..sides.len() {
            let mut descriptors: Vec<Descriptor> = Vec::new();
            for (flow, ..) in streams.iter().filter(|(_, way, _)| near(*way, &sides) == index) {
                if !descriptors.contains(&flows[*flow].descriptor) {
                    descriptors.push(flows[*flow].descriptor);
                }
            }
            if descriptors.is_empty() {
                // A side that sends nothing still receives.
                descriptors.push(Descriptor::STRIDE_64);
            }
            let Side { name, nic, queues, .. } = &mut sides[index];
            for descriptor in descriptors {
                let options = QueuePairOptions { buffer_bytes, ..queue_options(&descriptor, transmit_slots) };
                let options = match queues.is_empty() {
                    true => options,
                    false => QueuePairOptions { receive_slots: IDLE_SLOTS, ..options },
                };
                let pair = nic.create_queue_pair(options).map_err(|error| Error::at(&name, error))?;
                queues.push(Queue { pair, descriptor, batch: Vec::with_capacity(BATCH) });
            }
        }

        let cable = match &settings.ends {
            Ends::Models(Models { cable, .. }) => Some(cable),
            Ends::Devices(_) => None,
        };
        let is_plain = cable.is_none_or(|cable| cable.is_plain());
        let mut keys = match settings.ends {
            Ends::Models(_) => Keys::Seeded(random),
            Ends::Devices(_) => Keys::Fresh,
        };
        let mut lanes = Vec::with_capacity(streams.len());
        let mut weights = vec![Vec::new(); sides.len()];
        let mut limited = Vec::new();
        for (flow_index, way, stream) in streams {
            let flow = flows[flow_index];
            let lane = lanes.len() as u32;
            let (near, far) = (near(way, &sides), far(way, &sides));
            let queues = &sides[near].queues;
            let queue = queues.iter().position(|queue| queue.descriptor == flow.descriptor).unwrap_or(0);
            let protection = match flow.protection {
                Protection::Psp(form) => {
                    let (spi, protection) = psp(&mut sides, queue, way, lane, form)?;
                    sides[far].psp_lanes.insert(spi, lane);
                    protection
                }
                Protection::Esp(form) => {
                    let inner = [way, 1 - way].map(|side| workload::address(flow.ipv6, lane as usize, side));
                    let esp = EspLane { way, lane, form, inner };
                    let sas = esp.install(&mut sides, FIRST_SPI + lane, form.sequence, &mut keys)?;
                    if form.lifetime.is_some() {
                        limited.push((lane, esp, sas));
                    }
                    cryptonic_driver::Protection::Sa(sas[0])
                }
            };
            weights[near].push((lane, flow.weight));
            lanes.push(Lane {
                stream,
                flow: flow_index,
                queue,
                protection,
                sent: 0,
                due: 0,
                arrived: (!is_plain).then(|| Arrived::new(flow)),
                verified: 0,
            });
        }
        share_out(settings.packets, &mut sides, &weights);

        let rekeying = (!limited.is_empty())
            .then(|| {
                let depth = cable.and_then(|cable| cable.reorder_depth).unwrap_or(0);
                let mut rekeying = Rekeying::new(&mut sides, lanes.len() as u32, depth)?;
                limited.into_iter().for_each(|(lane, esp, sas)| rekeying.watch(lane, esp, sas));
                Ok::<_, Error>(rekeying)
            })
            .transpose()?;
        let wire =
            wire.map(|output| Rc::new(RefCell::new(WireCapture { output: Some(output), error: None })));
        if let (Some(wire), Some(pair)) = (&wire, &pair) {
            let wire = Rc::clone(wire);
            pair.tap(move |time, frame| wire.borrow_mut().hear(time, frame));
        }
        let flows = flows.iter().map(|flow| FlowReport {
            name: flow.name.clone(),
            protection: describe(flow),
            ..FlowReport::default()
        });
        let flows = flows.collect();
        Ok(Bench { pair, sides, lanes, flows, left_out, rekeying, keys, transmit_slots, wire })
    }
}

/// Opens what there is to be at either end, and joins it.
fn open(settings: &Settings<'_>) -> Result<(Option<Pair>, Vec<Side>)> {
    match &settings.ends {
        Ends::Models(Models { parameters, cable, parser, .. }) => {
            let parsers = [parser.parser(parameters)?, parser.parser(parameters)?];
            let (pair, nics) = Pair::open(parameters, parsers, cable, settings.seed)?;
            Ok((Some(pair), nics.into_iter().map(|nic| Side::new("model".to_owned(), nic)).collect()))
        }
        Ends::Devices(names) => {
            let mut sides = Vec::new();
            for name in names {
                sides.push(Side::new(name.to_string(), device::open_outside(name)?));
            }
            match &mut sides[..] {
                [alone] => alone.nic.set_mac_loopback(true).map_err(|error| {
                    Error::at(&alone.name, format_args!("{error}; --peer names a second device on its cable"))
                })?,
                all => all.iter().try_for_each(wait_for_link)?,
            }
            Ok((None, sides))
        }
    }
}

/// The reset that opens a NIC may have taken its link down.
fn wait_for_link(side: &Side) -> Result<()> {
    let deadline = side.time() + LINK_UP;
    while !side.nic.device_status().map_err(|error| Error::at(&side.name, error))?.link_up() {
        if side.time() >= deadline {
            return Err(Error::at(&side.name, "its link is down: is its cable plugged in at both ends?"));
        }
        side.nic.relax();
    }
    Ok(())
}

/// As many slots as were asked for, if the receive rings, which have twice as many, may be so long.
fn transmit_slots(settings: &Settings<'_>, sides: &[Side]) -> u32 {
    let most = |side: &Side| 1 << side.nic.information().capabilities.queue.ring_slots_log2_max();
    let most: u32 = sides.iter().map(most).min().unwrap_or(IDLE_SLOTS);
    settings.transmit_slots.min(most / 2).max(IDLE_SLOTS)
}

fn queue_options(descriptor: &Descriptor, transmit_slots: u32) -> QueuePairOptions {
    let (inline, push) = descriptor.policies();
    QueuePairOptions {
        stride: descriptor.stride,
        transmit_slots,
        receive_slots: transmit_slots * 2,
        inline,
        push,
        ..QueuePairOptions::default()
    }
}

/// The flows that every NIC can serve, and why the others are left out.
fn servable<'a>(
    flows: &'a [Flow],
    sides: &[Side],
    transmit_slots: u32,
) -> Result<(Vec<&'a Flow>, Vec<LeftOut>)> {
    let (mut served, mut left_out) = (Vec::new(), Vec::new());
    for flow in flows {
        let options = queue_options(&flow.descriptor, transmit_slots);
        let reason = sides.iter().find_map(|side| {
            let lacking = lacking(flow, &options, &side.nic.information().capabilities)?;
            Some(format!("{}: {lacking}", side.name))
        });
        match reason {
            None => served.push(flow),
            Some(reason) => left_out.push(LeftOut { flow: flow.name.clone(), reason }),
        }
    }
    match (&served[..], &left_out[..]) {
        ([], [first, ..]) => Err(Error::input(format_args!("no flow is left to send: {}", first.reason))),
        _ => Ok((served, left_out)),
    }
}

fn fits(longest: usize, sides: &[Side]) -> Result<()> {
    for side in sides {
        let limit = side.nic.information().capabilities.frame_bytes_max;
        if longest as u64 > limit.into() {
            let message = format!(
                "frames of {longest} bytes; {} takes {limit} (frame_bytes_max, the model's capacity.frame_bytes)",
                side.name
            );
            return Err(Error::at("--size", message));
        }
    }
    Ok(())
}

/// Gives each side its share of the packets, and the order of its lanes.
fn share_out(packets: u64, sides: &mut [Side], weights: &[Vec<(u32, usize)>]) {
    let total = |lanes: &[(u32, usize)]| lanes.iter().map(|(_, weight)| *weight as u64).sum::<u64>();
    let all: u64 = weights.iter().map(|lanes| total(lanes)).sum();
    let mut left = packets;
    let last = sides.len() - 1;
    for (index, (side, lanes)) in sides.iter_mut().zip(weights).enumerate() {
        let share = (u128::from(packets) * u128::from(total(lanes)) / u128::from(all.max(1))) as u64;
        side.left = if index == last { left } else { share };
        left -= side.left;
        let order = workload::schedule(&lanes.iter().map(|(_, weight)| *weight).collect::<Vec<_>>());
        side.schedule = order.iter().map(|index| lanes[*index as usize].0).collect();
    }
}
