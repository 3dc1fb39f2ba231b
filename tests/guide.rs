//! The programmer's guide: what it quotes is the program `examples/from_magic`, and the program does what the guide says.
//! What it puts on the line is opened here with ring, which nothing of the device uses.

#[path = "../examples/from_magic/main.rs"]
#[expect(dead_code, reason = "the program's own beginning and end")]
mod from_magic;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use cryptonic_pci::host::Wake;
use cryptonic_pci::{Bar, DmaAccess, Host, HostError, SharedMemory, Time, Work};
use cryptonic_regs::admin::SaStateReply;
use cryptonic_regs::descriptor::TransmitControl;
use from_magic::queue::{InlineHead, inline_slot};
use from_magic::{BACK_SPI, Opens, SALT, SPI, Sent, Told, key_of};
use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

const GUIDE: &str = include_str!("../docs/programmers-guide.md");
const SOURCES: [&str; 7] = [
    include_str!("../examples/from_magic/main.rs"),
    include_str!("../examples/from_magic/function.rs"),
    include_str!("../examples/from_magic/admin.rs"),
    include_str!("../examples/from_magic/queue.rs"),
    include_str!("../examples/from_magic/events.rs"),
    include_str!("../examples/from_magic/life.rs"),
    include_str!("../examples/from_magic/psp.rs"),
];

/// The sections of the program, by name, moved to the left edge.
fn sections() -> BTreeMap<&'static str, String> {
    let mut sections = BTreeMap::new();
    for part in SOURCES.iter().flat_map(|source| source.split("// guide: ").skip(1)) {
        let (name, rest) = part.split_once('\n').expect("a name ends its line");
        if name == "end" {
            continue;
        }
        let lines: Vec<&str> = rest.lines().collect();
        // What is left of the next marker is no line of the section.
        let lines = if rest.ends_with('\n') { &lines[..] } else { &lines[..lines.len() - 1] };
        let indent =
            lines.iter().filter(|line| !line.is_empty()).map(|line| line.len() - line.trim_start().len());
        let indent = indent.min().unwrap_or(0);
        let text: String =
            lines.iter().map(|line| format!("{}\n", line.get(indent..).unwrap_or(""))).collect();
        assert!(sections.insert(name, text).is_none(), "two sections are called {name}");
    }
    sections
}

#[test]
fn the_guide_quotes_every_section_once_and_nothing_else() {
    let quotes: Vec<&str> = GUIDE
        .split("```rust\n")
        .skip(1)
        .map(|rest| rest.split_once("```\n").expect("a fence ends").0)
        .collect();
    let sections = sections();
    let stale: Vec<_> = sections
        .iter()
        .filter(|(_, text)| quotes.iter().filter(|quote| *quote == text).count() != 1)
        .collect();
    for (name, text) in &stale {
        println!("--- {name}, as docs/programmers-guide.md should quote it\n{text}");
    }
    assert!(
        stale.is_empty() && quotes.len() == sections.len(),
        "{} of {} are stale",
        stale.len(),
        quotes.len()
    );
}

#[test]
fn links_of_the_guide_lead_somewhere() {
    let manual = include_str!("../docs/registers.md");
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let links: Vec<&str> = GUIDE.split("](").skip(1).filter_map(|rest| rest.split(')').next()).collect();
    assert!(links.len() > 20);
    for link in links {
        let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
        assert!(file.is_empty() || root.join(file).is_file(), "{link}");
        let text = if file.is_empty() { GUIDE } else { manual };
        let found = text.lines().filter(|line| line.starts_with('#')).any(|line| {
            let heading = line.trim_start_matches('#').trim().to_lowercase();
            heading.replace(' ', "-").replace([',', '.'], "") == anchor
        });
        assert!(anchor.is_empty() || found, "{link}");
    }
}

#[test]
fn bytes_are_defined_in_the_guide_as_in_the_contract() {
    let quoted: Vec<&str> = GUIDE.lines().filter_map(|line| line.strip_prefix("> ")).collect();
    let bytes = SaStateReply::ROW.words.iter().find(|word| word.name == "bytes").expect("a word of bytes");
    let contract: Vec<&str> = bytes.doc.split_whitespace().collect();
    assert_eq!(quoted.join(" "), contract.join(" "));
}

#[test]
fn what_the_program_sends_is_opened_by_another_library() {
    let Told { sent, wire, received } = from_magic::run(&|host| host).expect("the program runs");
    assert_eq!((sent.len(), wire.len()), (38, 38), "what was refused is not on the line");
    assert!(sent.iter().map(|sent| &sent.frame).eq(&received));
    for (Sent { frame, opens }, wire) in sent.iter().zip(&wire) {
        match opens {
            Opens::Psp(psp) => {
                let key: Vec<u8> =
                    [psp.key_0, psp.key_1].iter().flat_map(|word| word.secret().to_le_bytes()).collect();
                assert_eq!(open_psp(wire, psp.spi.spi(), &key), frame[34..], "the UDP packet");
            }
            Opens::Esp { spi, sequence } => {
                assert_eq!(open_esp(wire, *spi, *sequence), frame[14..], "the IP packet");
            }
        }
    }
}

#[test]
fn no_key_is_left_in_memory_that_the_device_reached() {
    // Given host sides that remember what was mapped
    let (memories, seen) = (Rc::new(RefCell::new(vec![])), Rc::new(Cell::new(false)));
    let watch = |host| -> Box<dyn Host> {
        Box::new(Watched { host, memories: memories.clone(), key_seen: seen.clone() })
    };
    // When the program has ended
    let sent = from_magic::run(&watch).expect("the program runs").sent;
    // Then the key of an SA was there, and neither any of these nor those of PSP are
    let arenas = "two arenas for a queue, two queues, one of events, two devices";
    assert!(seen.get() && memories.borrow().len() == 10, "{arenas}");
    let key = key_of(SPI);
    for memory in memories.borrow().iter() {
        // All keys of SAs begin alike.
        assert!(!holds(memory, &key[..8]) && !holds(memory, &key[8..12]) && !holds(memory, &SALT));
        for Sent { opens, .. } in &sent {
            let Opens::Psp(psp) = opens else { continue };
            assert!(!holds(memory, &psp.key_0.secret().to_le_bytes()));
        }
        assert!(!holds(memory, b"nobody's business"), "frames are wiped too");
    }
}

/// A host side that remembers the memory it maps, and whether the key was in it when the device was told of something.
struct Watched {
    host: Box<dyn Host>,
    memories: Rc<RefCell<Vec<SharedMemory>>>,
    key_seen: Rc<Cell<bool>>,
}

fn holds(memory: &SharedMemory, part: &[u8]) -> bool {
    let mut bytes = vec![0; memory.bytes()];
    memory.read(0, &mut bytes).expect("all of it");
    bytes.windows(part.len()).any(|window| window == part)
}

impl Host for Watched {
    fn config_read(&self, offset: u16) -> Result<u32, HostError> {
        self.host.config_read(offset)
    }
    fn config_write(&self, offset: u16, value: u32) -> Result<(), HostError> {
        self.host.config_write(offset, value)
    }
    fn read32(&self, bar: Bar, offset: u32) -> Result<u32, HostError> {
        self.host.read32(bar, offset)
    }
    fn write32(&self, bar: Bar, offset: u32, value: u32) -> Result<(), HostError> {
        let seen = self.memories.borrow().iter().any(|memory| holds(memory, &key_of(SPI)));
        self.key_seen.set(self.key_seen.get() || seen);
        self.host.write32(bar, offset, value)
    }
    fn push64(&self, bar: Bar, offset: u32, line: &[u8; 64]) -> Result<(), HostError> {
        self.host.push64(bar, offset, line)
    }
    fn address_of(&self, memory: &SharedMemory, wanted: u64) -> Result<u64, HostError> {
        self.host.address_of(memory, wanted)
    }
    fn dma_map(&self, memory: &SharedMemory, iova: u64, access: DmaAccess) -> Result<(), HostError> {
        self.memories.borrow_mut().push(memory.clone());
        self.host.dma_map(memory, iova, access)
    }
    fn dma_unmap(&self, iova: u64) -> Result<(), HostError> {
        self.host.dma_unmap(iova)
    }
    fn interrupts_enable(&self, vectors: u16) -> Result<(), HostError> {
        self.host.interrupts_enable(vectors)
    }
    fn now(&self) -> Time {
        self.host.now()
    }
    fn spend(&self, work: Work) {
        self.host.spend(work);
    }
    fn relax(&self) {
        self.host.relax();
    }
    fn wait(&self, vector: u16, deadline: Time) -> Result<Wake, HostError> {
        self.host.wait(vector, deadline)
    }
    fn reset(&self) -> Result<(), HostError> {
        self.host.reset()
    }
}

fn open(key: &[u8], nonce: [u8; 12], aad: &[u8], sealed: &[u8]) -> Vec<u8> {
    let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, key).expect("16 bytes"));
    let mut bytes = sealed.to_vec();
    let nonce = Nonce::assume_unique_for_key(nonce);
    key.open_in_place(nonce, Aad::from(aad), &mut bytes).expect("the ICV is right").to_vec()
}

/// An IPv4 header without options, and what follows it.
fn ipv4(frame: &[u8]) -> (&[u8], &[u8]) {
    assert_eq!(frame[12..15], [0x08, 0x00, 0x45]);
    let length = usize::from(u16::from_be_bytes([frame[16], frame[17]]));
    frame[14..14 + length].split_at(20)
}

/// The inner packet of an ESP packet in tunnel mode with ESN (RFC 4303 2, RFC 4106 3 to 5).
fn open_esp(frame: &[u8], spi: u32, sequence: u64) -> Vec<u8> {
    let (outer, esp) = ipv4(frame);
    let (source, destination) = if spi == BACK_SPI { (2, 1) } else { (1, 2) };
    assert_eq!((outer[9], &outer[12..20]), (50, &[192, 0, 2, source, 192, 0, 2, destination][..]));
    assert_eq!(esp[..4], spi.to_be_bytes());
    assert_eq!(esp[4..8], (sequence as u32).to_be_bytes());
    let nonce: Vec<u8> = SALT.iter().chain(&esp[8..16]).copied().collect();
    let aad: Vec<u8> = spi.to_be_bytes().into_iter().chain(sequence.to_be_bytes()).collect();
    let mut text = open(&key_of(spi), nonce.try_into().expect("12 bytes"), &aad, &esp[16..]);
    assert_eq!(text.pop(), Some(4), "next header IPv4");
    let padding = usize::from(text.pop().expect("a pad length"));
    let padded = text.split_off(text.len() - padding);
    assert!(padded.iter().zip(1..).all(|(byte, number)| *byte == number));
    text
}

/// The transport packet of a PSP packet with crypt offset 0 (PSP Architecture Specification).
fn open_psp(frame: &[u8], spi: u32, key: &[u8]) -> Vec<u8> {
    let (outer, udp) = ipv4(frame);
    assert_eq!((outer[9], &udp[2..4]), (17, &1000_u16.to_be_bytes()[..]));
    let (header, sealed) = udp[8..].split_at(16);
    assert_eq!((header[0], &header[4..8]), (17, &spi.to_be_bytes()[..]));
    let nonce = header[4..16].try_into().expect("12 bytes");
    open(key, nonce, header, sealed)
}

#[test]
fn an_inline_slot_has_the_bytes_that_the_contract_says() {
    // Given a frame of 100 bytes and a key of recognisable words
    let frame: Vec<u8> = (0..100).collect();
    let key = [0x1111, 0x2222, 0, 0];
    let head = |key| InlineHead {
        control: TransmitControl::new(),
        security: 7,
        key,
        address: 0x5000,
        producer: 0x1_0009,
    };
    // When slots of every form are filled
    let (inline_64, room_64) = inline_slot::<64>(&head(None), &frame).expect("fits");
    let (inline_128, room_128) = inline_slot::<128>(&head(None), &frame).expect("fits");
    let (with_key, room_with_key) = inline_slot::<128>(&head(Some(&key)), &frame).expect("fits");
    let (whole, room_whole) = inline_slot::<128>(&head(None), &frame[..96]).expect("fits");
    // Then the data stands behind what came before it, and the words say how much it is
    assert_eq!((room_64, room_128, room_with_key, room_whole), (32, 96, 64, 96));
    assert_eq!(inline_64[32..], frame[..32]);
    assert_eq!(inline_128[32..], frame[..96]);
    assert_eq!((&with_key[32..34], &with_key[40..42]), (&[0x11, 0x11][..], &[0x22, 0x22][..]));
    assert_eq!(with_key[64..], frame[..64]);
    let word = |slot: &[u8], at: usize| u64::from_le_bytes(slot[at..at + 8].try_into().expect("8 bytes"));
    for (slot, rest, inline, total) in [
        (&inline_64[..], 68, 32, 100),
        (&inline_128, 4, 96, 100),
        (&with_key, 36, 64, 100),
        (&whole, 0, 96, 96),
    ] {
        assert_eq!(word(slot, 0), if rest == 0 { 0 } else { 0x5000 });
        assert_eq!(word(slot, 8), rest);
        assert_eq!(word(slot, 16), 7);
        assert_eq!(word(slot, 24), total | inline << 18 | 9 << 39);
    }
    // And a slot without room for a key is refused
    assert!(inline_slot::<32>(&head(Some(&key)), &frame).is_err());
}
