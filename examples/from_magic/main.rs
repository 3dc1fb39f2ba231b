//! A driver from nothing: two devices, from the first read of `MAGIC` to packets that leave protected and arrive opened,
//! with the contract alone. It knows `cryptonic_regs` and `cryptonic_pci`; what it drives is the model, and could be
//! anything behind [`cryptonic_pci::Host`]. `docs/programmers-guide.md` quotes it, section by section.
//!
//! ```sh
//! cargo run --example from_magic
//! ```

mod admin;
mod function;
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

use admin::Admin;
use function::{Capabilities, Function, Outcome};
use queue::{Ended, Protection, Queue, Received, SLOTS};

/// The SPI of the tunnel.
pub const SPI: u32 = 0x1001;
/// The key of the tunnel. Nobody may use it for anything else.
pub const KEY: [u8; 16] = *b"an example's key";
/// The salt of the tunnel.
pub const SALT: [u8; 4] = [0xa1, 0xb2, 0xc3, 0xd4];
/// What the receiving host calls the tunnel.
pub const COOKIE: u32 = 0xc00c;

fn main() -> Outcome<()> {
    let told = run(&|host| host)?;
    for (sent, wire) in told.sent.iter().zip(&told.wire) {
        println!("{:>4} bytes in clear, {:>4} on the wire", sent.len(), wire.len());
    }
    println!("{} packets received and the same as before; no key is left", told.received.len());
    Ok(())
}

/// What happened, for whoever wants to check it.
pub struct Told {
    /// Frames given to the device, in order: ESP, then PSP, then ESP again.
    pub sent: Vec<Vec<u8>>,
    /// Frames on the line.
    pub wire: Vec<Vec<u8>>,
    /// Frames received.
    pub received: Vec<Vec<u8>>,
    /// SPI and key of the PSP packet.
    pub psp: PspAllocation,
    /// Packets that went by ESP before the one by PSP.
    pub esp_packets: usize,
}

/// Two devices with a cable between them, and all that is on the line. Their host sides may be wrapped.
pub fn run(wrap: &dyn Fn(Box<dyn Host>) -> Box<dyn Host>) -> Outcome<Told> {
    let world = World::new(1);
    let nics: [NicId; 2] = [world.add_nic(&Parameters::default())?, world.add_nic(&Parameters::default())?];
    world.connect(nics[0], nics[1], Time::from_nanoseconds(10));
    let wire = Rc::new(RefCell::new(Vec::new()));
    let heard = wire.clone();
    world.tap(nics[0], Box::new(move |_, _, frame| heard.borrow_mut().push(frame.to_vec())));
    let mut told = story(wrap(world.host(nics[0])), wrap(world.host(nics[1])))?;
    told.wire = wire.take();
    Ok(told)
}

/// One end: a device, its admin queue and a queue pair.
struct End {
    function: Function,
    capabilities: Capabilities,
    admin: Admin,
    queue: Queue,
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
        let queue = Queue::start(&function, 0)?;
        function.set_enabled(true)?;
        Ok(End { function, capabilities, admin, queue })
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

    // guide: close
    /// Stops everything, and leaves no key in the device and none in this memory.
    fn close(self, sas: &[TransmitSa]) -> Outcome<()> {
        let End { function, mut admin, queue, .. } = self;
        queue.close(&function)?;
        for sa in sas {
            admin.delete(&function, *sa)?;
        }
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

fn story(here: Box<dyn Host>, there: Box<dyn Host>) -> Outcome<Told> {
    let (mut a, mut b) = (End::open(here)?, End::open(there)?);
    let (mut sent, mut received) = (Vec::new(), Vec::new());

    // guide: esp
    let sa = admin::tunnel(SPI, &KEY, SALT);
    // The end that opens comes first: the other may send as soon as it can.
    let incoming = b.admin.install(&b.function, &admin::inbound(sa, 0, COOKIE))?;
    let (source, destination) = (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2));
    let outgoing = a.admin.install(&a.function, &admin::outbound(sa, source, destination))?;
    // Two and a half times around every ring: phases turn, tags come again with other generations.
    for number in 1..=u64::from(SLOTS * 5 / 2) {
        let frame = clear_frame(number);
        a.queue.transmit(&a.function, &frame, &Protection::Sa(outgoing))?;
        let ended = a.completed()?;
        let packet = b.received()?;
        assert_eq!((ended.status, ended.sequence), (Status::Ok, number));
        assert_eq!((packet.status, packet.completion.sequence), (Status::Ok, number));
        assert_eq!(packet.completion.security.spi(), SPI);
        assert_eq!(packet.completion.security.cookie(), COOKIE);
        assert_eq!(packet.frame, frame);
        sent.push(frame);
        received.push(packet.frame);
    }
    // guide: end
    let esp_packets = sent.len();

    // guide: psp
    // The receiver makes SPI and key; how they reach the sender is the applications' business.
    let psp = b.admin.psp_allocate(&b.function)?;
    let key = [psp.key_0, psp.key_1, psp.key_2, psp.key_3].map(|word| word.secret());
    let protection = Protection::Psp { spi: psp.spi.spi(), key: &key };
    let frame = clear_frame(100);
    a.queue.transmit(&a.function, &frame, &protection)?;
    let ended = a.completed()?;
    let packet = b.received()?;
    assert_eq!((ended.status, packet.status), (Status::Ok, Status::Ok));
    assert_eq!(packet.completion.security.spi(), psp.spi.spi());
    assert_eq!(packet.completion.iv, ended.sequence);
    assert_eq!(packet.frame, frame);
    // guide: end
    sent.push(frame);
    received.push(packet.frame);

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
    sent.push(frame);
    received.push(packet.frame);

    a.close(&[outgoing])?;
    b.close(&[incoming])?;
    Ok(Told { sent, wire: Vec::new(), received, psp, esp_packets })
}

/// An Ethernet frame with UDP over IPv4.
fn clear_frame(number: u64) -> Vec<u8> {
    let builder = etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
        .ipv4([10, 0, 0, 1], [10, 1, 0, 1], 64)
        .udp(4_000, 5_000);
    let mut frame = Vec::new();
    // A vector takes everything.
    let _ = builder.write(&mut frame, format!("packet {number} is nobody's business").as_bytes());
    frame
}
