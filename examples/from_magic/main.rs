//! A driver from nothing: two devices, from the first read of `MAGIC` to packets that leave protected and arrive opened,
//! with the contract alone. It knows `cryptonic_regs` and `cryptonic_pci`; what it drives is the model, and could be
//! anything behind [`cryptonic_pci::Host`]. `docs/programmers-guide.md` quotes it, section by section.
//!
//! ```sh
//! cargo run --example from_magic
//! ```

mod admin;
mod events;
mod function;
mod life;
mod psp;
pub mod queue;

use std::cell::RefCell;
use std::net::Ipv4Addr;
use std::rc::Rc;

use cryptonic_hwmodel::{NicId, Parameters, World};
use cryptonic_pci::config::COMMAND_MEMORY;
use cryptonic_pci::{Host, Time};
use cryptonic_regs::Status;
use cryptonic_regs::admin::PspAllocation;
use cryptonic_regs::bar0::DEVICE_STATUS;
use cryptonic_regs::descriptor::TransmitSa;
use cryptonic_regs::events::{Event, EventCause};

use admin::Admin;
use events::Events;
use function::{Capabilities, Function, Outcome};
use queue::{Ended, Protection, Queue, Received, SLOTS};

/// The SPI of the first tunnel; others follow it.
pub const SPI: u32 = 0x1001;
/// The SPI of the tunnel that leads back.
pub const BACK_SPI: u32 = 0x2001;
/// The salt of every tunnel.
pub const SALT: [u8; 4] = [0xa1, 0xb2, 0xc3, 0xd4];
/// What the receiving host calls a tunnel.
pub const COOKIE: u32 = 0xc00c;
/// The ends of the tunnels.
const A: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const B: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// How long this program waits for what must come.
const PATIENCE: Time = Time::from_milliseconds(100);

/// The key of a tunnel: each has its own. Nobody may use these for anything else.
pub fn key_of(spi: u32) -> [u8; 16] {
    let mut key = *b"an example's key";
    key[12..].copy_from_slice(&spi.to_be_bytes());
    key
}

fn main() -> Outcome<()> {
    let told = run(&|host| host)?;
    for (sent, wire) in told.sent.iter().zip(&told.wire) {
        println!("{:>4} bytes in clear, {:>4} on the wire", sent.frame.len(), wire.len());
    }
    println!("{} packets received and the same as before; no key is left", told.received.len());
    Ok(())
}

/// What happened, for whoever wants to check it.
#[derive(Default)]
pub struct Told {
    /// Frames that were given to a device and left it, in order.
    pub sent: Vec<Sent>,
    /// Frames on the line.
    pub wire: Vec<Vec<u8>>,
    /// Frames received.
    pub received: Vec<Vec<u8>>,
}

/// A frame that left protected.
pub struct Sent {
    /// The frame in clear.
    pub frame: Vec<u8>,
    /// What opens it.
    pub opens: Opens,
}

/// What opens a packet.
#[derive(Clone, Copy)]
pub enum Opens {
    /// ESP, with [`key_of`] this SPI.
    Esp {
        /// The SPI.
        spi: u32,
        /// The sequence number, in all its 64 bits.
        sequence: u64,
    },
    /// PSP, with this SPI and key.
    Psp(PspAllocation),
}

/// Two devices with a cable between them, and all that is on the line. Their host sides may be wrapped.
pub fn run(wrap: &dyn Fn(Box<dyn Host>) -> Box<dyn Host>) -> Outcome<Told> {
    let world = World::new(1);
    let mut parameters = Parameters::default();
    // After power-on these devices know no IV that they may begin with.
    parameters.crypto.psp_epoch_ps = 0;
    let nics: [NicId; 2] = [world.add_nic(&parameters)?, world.add_nic(&parameters)?];
    world.connect(nics[0], nics[1], Time::from_nanoseconds(10));
    let wire = Rc::new(RefCell::new(Vec::new()));
    for nic in nics {
        let heard = wire.clone();
        world.tap(nic, Box::new(move |_, _, frame| heard.borrow_mut().push(frame.to_vec())));
    }
    let mut told = story(wrap(world.host(nics[0])), wrap(world.host(nics[1])))?;
    told.wire = wire.take();
    Ok(told)
}

/// One end: a device, its admin queue, its events and a queue pair.
struct End {
    function: Function,
    capabilities: Capabilities,
    admin: Admin,
    events: Events,
    queue: Queue,
    /// SAs to delete at the end.
    sas: Vec<TransmitSa>,
}

impl End {
    // guide: open
    fn open(host: Box<dyn Host>) -> Outcome<End> {
        let function = Function::find(host)?;
        function.identify()?;
        function.reset()?;
        let capabilities = function.capabilities()?;
        function.host.interrupts_enable(capabilities.queue.vectors().into())?;
        let admin = Admin::start(&function)?;
        let events = Events::start(&function)?;
        let queue = Queue::start(&function, 0)?;
        function.set_enabled(true)?;
        Ok(End { function, capabilities, admin, events, queue, sas: Vec::new() })
    }
    // guide: end

    fn completed(&mut self) -> Outcome<Ended> {
        let End { function, queue, .. } = self;
        function.poll("transmit completion", || queue.completed())
    }

    fn received(&mut self) -> Outcome<Received> {
        let End { function, queue, .. } = self;
        queue.sleep(function, function.host.now() + Time::from_milliseconds(1))?;
        function.poll("packet", || queue.receive(function))
    }

    fn event(&mut self) -> Outcome<Event> {
        self.events.wait(&self.function, self.function.host.now() + PATIENCE)
    }

    // guide: close
    /// Stops everything, and leaves no key in the device and none in this memory.
    fn close(self) -> Outcome<()> {
        let End { function, mut admin, events, queue, sas, .. } = self;
        queue.close(&function)?;
        for sa in sas {
            admin.delete(&function, sa)?;
        }
        events.close(&function)?;
        function.set_enabled(false)?;
        // No transaction of the device after this, so its memory may go. The reset wipes what firmware
        // cannot reach: device keys, and whatever a command left behind that was cut short.
        function.set_command(COMMAND_MEMORY)?;
        admin.close(&function)?;
        function.reset()?;
        match function.read(DEVICE_STATUS)?.keys_zeroised() {
            true => Ok(()),
            false => Err("keys are left".into()),
        }
    }
    // guide: end
}

impl Told {
    /// Sends a new frame from one end to the other.
    fn send(&mut self, from: &mut End, to: &mut End, sa: TransmitSa, opens: Opens) -> Outcome<()> {
        self.send_frame(from, to, sa, clear_frame(self.sent.len()), opens)
    }

    /// Sends a frame from one end to the other, where it must arrive as it was.
    fn send_frame(
        &mut self,
        from: &mut End,
        to: &mut End,
        sa: TransmitSa,
        frame: Vec<u8>,
        opens: Opens,
    ) -> Outcome<()> {
        from.queue.transmit(&from.function, &frame, &Protection::Sa(sa))?;
        assert_eq!(from.completed()?.status, Status::Ok);
        self.arrived(to, frame, opens)
    }

    /// Sends a new frame under PSP.
    fn send_psp(&mut self, from: &mut End, to: &mut End, psp: PspAllocation) -> Outcome<()> {
        let key = psp_key(&psp);
        let frame = clear_frame(self.sent.len());
        from.queue.transmit(&from.function, &frame, &Protection::Psp { spi: psp.spi.spi(), key: &key })?;
        assert_eq!(from.completed()?.status, Status::Ok);
        self.arrived(to, frame, Opens::Psp(psp))
    }

    fn arrived(&mut self, to: &mut End, frame: Vec<u8>, opens: Opens) -> Outcome<()> {
        let packet = to.received()?;
        assert_eq!((packet.status, &packet.frame), (Status::Ok, &frame));
        self.note(frame, packet, opens);
        Ok(())
    }

    fn note(&mut self, frame: Vec<u8>, packet: Received, opens: Opens) {
        self.sent.push(Sent { frame, opens });
        self.received.push(packet.frame);
    }

    /// Bytes, as an SA counts them, of the last frames.
    fn clear_bytes(&self, frames: usize) -> u64 {
        self.sent.iter().rev().take(frames).map(|sent| sent.frame.len() as u64 - 14).sum()
    }
}

fn story(here: Box<dyn Host>, there: Box<dyn Host>) -> Outcome<Told> {
    let (mut a, mut b) = (End::open(here)?, End::open(there)?);
    let mut told = Told::default();

    // guide: esp
    let sa = admin::tunnel(SPI, &key_of(SPI), SALT);
    // The end that opens comes first: the other may send as soon as it can.
    let [incoming] = b.admin.install(&b.function, [admin::inbound(sa, 0, COOKIE)])?;
    let [outgoing] = a.admin.install(&a.function, [admin::outbound(sa, A, B)])?;
    // Two and a half times around every ring: phases turn, tags come again with other generations.
    for sequence in 1..=u64::from(SLOTS * 5 / 2) {
        let frame = clear_frame(told.sent.len());
        a.queue.transmit(&a.function, &frame, &Protection::Sa(outgoing))?;
        let ended = a.completed()?;
        let packet = b.received()?;
        assert_eq!((ended.status, ended.sequence), (Status::Ok, sequence));
        assert_eq!((packet.status, packet.completion.sequence), (Status::Ok, sequence));
        assert_eq!(packet.completion.security.spi(), SPI);
        assert_eq!(packet.completion.security.cookie(), COOKIE);
        assert_eq!(packet.frame, frame);
        told.note(frame, packet, Opens::Esp { spi: SPI, sequence });
    }
    // guide: end
    let esp_packets = told.sent.len() as u64;
    a.sas.push(outgoing);
    b.sas.push(incoming);

    life::rekey(&mut a, &mut b, &mut told)?;
    life::overflow(&mut a, &mut b, &mut told)?;

    // guide: psp
    // The receiver makes SPI and key; how they reach the sender is the applications' business.
    psp::start(&mut b.admin, &b.function)?;
    let psp = psp::allocate(&mut b.admin, &b.function)?;
    let key = psp_key(&psp);
    let protection = Protection::Psp { spi: psp.spi.spi(), key: &key };
    let frame = clear_frame(told.sent.len());
    // A sender that was without power does not know which IVs it gave before.
    a.queue.transmit(&a.function, &frame, &protection)?;
    assert_eq!(a.completed()?.status, Status::PspNoEpoch);
    // This key is new, so no IV was given under it.
    psp::set_epoch(&a.function, 0)?;
    a.queue.transmit(&a.function, &frame, &protection)?;
    let ended = a.completed()?;
    let packet = b.received()?;
    assert_eq!((ended.status, packet.status), (Status::Ok, Status::Ok));
    assert_eq!(packet.completion.security.spi(), psp.spi.spi());
    assert_eq!(packet.completion.iv, ended.sequence);
    assert_eq!(packet.frame, frame);
    // guide: end
    told.note(frame, packet, Opens::Psp(psp));

    // guide: rotation
    assert_eq!(life::cause_of(&b.event()?), Some(EventCause::PspRotatedByCommand));
    psp::rotate_every(&b.function, 5)?;
    let rotated = b.event()?;
    assert_eq!(life::cause_of(&rotated), Some(EventCause::PspRotatedByPeriod));
    assert_eq!(rotated.detail.number(), u32::from(psp.spi.generation()) + 1);
    // The key before is good until the next rotation: time enough to give every sender a new one.
    told.send_psp(&mut a, &mut b, psp)?;
    let next = psp::allocate(&mut b.admin, &b.function)?;
    assert_ne!(next.spi.spi() >> 31, psp.spi.spi() >> 31);
    told.send_psp(&mut a, &mut b, next)?;
    psp::rotate_every(&b.function, 0)?;
    // guide: end

    // guide: faults
    // Another generation, as if the SA had been deleted: nothing is sent, and the completion says why.
    let stale = outgoing.with_generation(outgoing.generation().wrapping_add(1));
    a.queue.transmit(&a.function, &clear_frame(101), &Protection::Sa(stale))?;
    assert_eq!(a.completed()?.status, Status::StaleSa);

    // A producer index that cannot be: the device stops the pair, and only this pair.
    a.queue.ring_transmit(&a.function, SLOTS * 100)?;
    let status = a.queue.status(&a.function)?;
    assert!(status.quarantined() && !status.enabled());
    assert_eq!(Status::of_number(status.cause().into()), Some(Status::BadDoorbell));
    a.queue.restart(&a.function)?;
    // guide: end

    // guide: last packet
    let frame = clear_frame(102);
    let descriptor = a.capabilities.descriptor;
    if descriptor.inline_data() {
        let push = descriptor.push_windows();
        a.queue.transmit_inline(&a.function, &frame, &Protection::Sa(outgoing), push)?;
    } else {
        a.queue.transmit(&a.function, &frame, &Protection::Sa(outgoing))?;
    }
    assert_eq!(a.completed()?.status, Status::Ok);
    let packet = b.received()?;
    // guide: end
    assert_eq!(packet.frame, frame);
    // The packet that named a deleted SA took no number.
    told.note(frame, packet, Opens::Esp { spi: SPI, sequence: esp_packets + 1 });

    a.close()?;
    b.close()?;
    Ok(told)
}

/// The key of an allocation as it stands in a descriptor.
fn psp_key(psp: &PspAllocation) -> [u64; 4] {
    [psp.key_0, psp.key_1, psp.key_2, psp.key_3].map(|word| word.secret())
}

/// An Ethernet frame with UDP over IPv4.
fn clear_frame(number: usize) -> Vec<u8> {
    let builder = etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
        .ipv4([10, 0, 0, 1], [10, 1, 0, 1], 64)
        .udp(4_000, 5_000);
    let mut frame = Vec::new();
    // A vector takes everything.
    let _ = builder.write(&mut frame, format!("packet {number} is nobody's business").as_bytes());
    frame
}
