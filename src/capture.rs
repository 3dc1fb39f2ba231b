//! Captures: reading pcap and pcapng, writing pcap.

use std::fs::File;
use std::io::{self, Cursor, Read, Write};
use std::path::Path;
use std::time::Duration;

use pcap_file::pcap::{PcapHeader, PcapPacket, PcapReadError, PcapReader, PcapTsResolution, PcapWriter};
use pcap_file::pcapng::blocks::interface_description::InterfaceTsResolution;
use pcap_file::pcapng::{Block, PcapNgReadError, PcapNgReader};
use pcap_file::{DataLink, Endianness};

use crate::error::{Error, Result};
use crate::output::OutputFile;

/// The longest packet an output says it may hold: what tcpdump says too.
const SNAP_LENGTH: u32 = 262_144;
/// Bytes of a pcap file before its first packet, and before each packet's data.
const PCAP_HEADER_BYTES: u64 = 24;
const PCAP_PACKET_HEADER_BYTES: u64 = 16;

/// What the packets of a capture begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    /// An Ethernet header.
    Ethernet,
    /// An IP header.
    RawIp,
}

/// How an output is to be written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Format {
    pub(crate) link: Link,
    nanoseconds: bool,
    endianness: Endianness,
}

impl Format {
    /// Ethernet frames with times in nanoseconds.
    pub(crate) const ETHERNET: Format =
        Format { link: Link::Ethernet, nanoseconds: true, endianness: Endianness::Little };
}

/// A packet of a capture.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) time: Duration,
    /// Its length on the wire; more than `data` has if the capture kept only the beginning.
    pub(crate) original_length: u32,
    pub(crate) data: Vec<u8>,
}

/// A capture that is read packet by packet.
pub(crate) struct Input {
    name: String,
    format: Format,
    reader: Reader,
    /// Packets read so far.
    packets: u64,
    /// A packet that was read to learn the link type.
    ahead: Option<Record>,
}

enum Reader {
    Pcap { reader: PcapReader<Box<dyn Read>>, offset: u64 },
    PcapNg { reader: Box<PcapNgReader<Box<dyn Read>>> },
}

impl Input {
    /// Opens a capture; `-` is standard input.
    pub(crate) fn open(path: &Path) -> Result<Input> {
        if path == Path::new("-") {
            return Input::new("standard input", Box::new(io::stdin()));
        }
        let file = File::open(path).map_err(|error| Error::file(path, &error))?;
        Input::new(&path.display().to_string(), Box::new(file))
    }

    fn new(name: &str, mut from: Box<dyn Read>) -> Result<Input> {
        let mut magic = Vec::new();
        from.by_ref()
            .take(4)
            .read_to_end(&mut magic)
            .map_err(|error| Error::file(Path::new(name), &error))?;
        let all: Box<dyn Read> = Box::new(Cursor::new(magic.clone()).chain(from));
        let no_capture =
            |what: &str| Error::at(name, format_args!("is not a pcap or pcapng capture: {what}"));
        match magic.as_slice() {
            [0x0a, 0x0d, 0x0d, 0x0a] => {
                let reader = PcapNgReader::new(all).map_err(|error| no_capture(&error.to_string()))?;
                let format =
                    Format { link: Link::Ethernet, nanoseconds: false, endianness: Endianness::Little };
                let reader = Reader::PcapNg { reader: Box::new(reader) };
                let mut input = Input { name: name.to_owned(), format, reader, packets: 0, ahead: None };
                // The link type stands in a block before the first packet. What is wrong with a packet is
                // told when it is read.
                if let Ok(Some(record)) = input.read() {
                    input.ahead = Some(record);
                }
                input.learn_format()?;
                Ok(input)
            }
            [0x1f, 0x8b, ..] | [0x28, 0xb5, 0x2f, 0xfd] | [0x04, 0x22, 0x4d, 0x18] => {
                Err(no_capture("it is compressed; decompress it first"))
            }
            [] => Err(no_capture("it is empty")),
            _ => {
                let reader = PcapReader::new(all).map_err(|error| match error {
                    PcapReadError::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                        no_capture("it ends within the header")
                    }
                    PcapReadError::Io(error) => Error::file(Path::new(name), &error),
                    error => no_capture(&error.to_string()),
                })?;
                let header = reader.header();
                let format = Format {
                    link: link(name, header.datalink)?,
                    nanoseconds: header.ts_resolution == PcapTsResolution::NanoSecond,
                    endianness: header.endianness,
                };
                let reader = Reader::Pcap { reader, offset: PCAP_HEADER_BYTES };
                Ok(Input { name: name.to_owned(), format, reader, packets: 0, ahead: None })
            }
        }
    }

    /// How an output like this input is written.
    pub(crate) fn format(&self) -> Format {
        self.format
    }

    /// The next packet. An error names the packet and where it begins; what came before it was good.
    pub(crate) fn next(&mut self) -> Result<Option<Record>> {
        if let Some(record) = self.ahead.take() {
            return Ok(Some(record));
        }
        self.read()
    }

    fn learn_format(&mut self) -> Result<()> {
        let Reader::PcapNg { reader } = &self.reader else { return Ok(()) };
        if let Some(interface) = reader.interfaces().first() {
            self.format.link = link(&self.name, interface.linktype)?;
        }
        let micro = InterfaceTsResolution::MICRO;
        self.format.nanoseconds = reader.interfaces().iter().any(|one| one.ts_resolution() != micro);
        self.format.endianness = reader.section().endianness;
        Ok(())
    }

    /// Where packet `packets + 1` begins.
    fn place(&self) -> String {
        let offset = match &self.reader {
            Reader::Pcap { offset, .. } => *offset,
            Reader::PcapNg { reader } => reader.bytes_parsed(),
        };
        format!("{}: packet {}, at byte {offset}", self.name, self.packets + 1)
    }

    fn read(&mut self) -> Result<Option<Record>> {
        let record = match &mut self.reader {
            Reader::Pcap { reader, offset } => match reader.next_raw_packet() {
                None => Ok(None),
                Some(Ok(packet)) => {
                    *offset += PCAP_PACKET_HEADER_BYTES + packet.data.len() as u64;
                    let fraction = u64::from(packet.ts_frac);
                    let fraction = if self.format.nanoseconds {
                        Duration::from_nanos(fraction)
                    } else {
                        Duration::from_micros(fraction)
                    };
                    Ok(Some(Record {
                        time: Duration::from_secs(packet.ts_sec.into()) + fraction,
                        original_length: packet.orig_len.max(packet.incl_len),
                        data: packet.data.into_owned(),
                    }))
                }
                Some(Err(PcapReadError::Io(error))) => Err(io_message(&error)),
                Some(Err(error)) => Err(error.to_string()),
            },
            Reader::PcapNg { reader } => next_of_pcapng(reader, self.format.link, self.packets > 0),
        };
        match record {
            Ok(record) => {
                self.packets += u64::from(record.is_some());
                Ok(record)
            }
            Err(message) => Err(Error::at(self.place(), message)),
        }
    }
}

/// The next packet of a pcapng file, whatever blocks stand before it.
fn next_of_pcapng(
    reader: &mut PcapNgReader<Box<dyn Read>>,
    wanted: Link,
    link_is_known: bool,
) -> std::result::Result<Option<Record>, String> {
    loop {
        let (block, state) = match reader.next_block() {
            None => return Ok(None),
            Some(Ok(block)) => block,
            Some(Err(PcapNgReadError::Io(error))) => return Err(io_message(&error)),
            Some(Err(error)) => return Err(error.to_string()),
        };
        let (interface, record) = match block {
            Block::EnhancedPacket(packet) => (
                packet.interface_id as usize,
                Record {
                    time: packet.timestamp,
                    original_length: packet.original_len,
                    data: packet.data.into_owned(),
                },
            ),
            Block::Packet(packet) => (
                packet.interface_id.into(),
                Record {
                    time: packet.timestamp,
                    original_length: packet.original_len,
                    data: packet.data.into_owned(),
                },
            ),
            Block::SimplePacket(packet) => (
                0,
                Record {
                    time: Duration::ZERO,
                    original_length: packet.original_len,
                    data: packet.data.into_owned(),
                },
            ),
            _ => continue,
        };
        let link_type = state.interfaces().get(interface).map(|interface| interface.linktype);
        if link_is_known
            && let Some(link_type) = link_type
            && known_link(link_type) != Some(wanted)
        {
            return Err(format!("{} is not the link type of the packets before", describe(link_type)));
        }
        return Ok(Some(record));
    }
}

fn io_message(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        "the capture ends inside it, or its length is wrong".to_owned()
    } else {
        error.to_string()
    }
}

fn known_link(data_link: DataLink) -> Option<Link> {
    // Two systems number raw IP by themselves.
    match u32::from(data_link) & 0xffff {
        1 => Some(Link::Ethernet),
        12 | 14 | 101 | 228 | 229 => Some(Link::RawIp),
        _ => None,
    }
}

fn describe(data_link: DataLink) -> String {
    format!("link type {} ({data_link:?})", u32::from(data_link))
}

fn link(name: &str, data_link: DataLink) -> Result<Link> {
    known_link(data_link).ok_or_else(|| {
        let hint = match u32::from(data_link) {
            113 | 276 => "; `tcpdump -i any` makes such captures, `-i eth0` makes Ethernet",
            _ => "",
        };
        Error::at(name, format_args!("{} is neither Ethernet nor raw IP{hint}", describe(data_link)))
    })
}

/// A pcap file that is written beside its place and renamed at the end.
pub(crate) struct Output {
    name: String,
    writer: PcapWriter<OutputFile>,
    packets: u64,
}

impl Output {
    /// Opens it; `-` is standard output.
    pub(crate) fn create(path: &Path, format: Format) -> Result<Output> {
        let header = PcapHeader {
            snaplen: SNAP_LENGTH,
            datalink: match format.link {
                Link::Ethernet => DataLink::ETHERNET,
                Link::RawIp => DataLink::RAW,
            },
            ts_resolution: if format.nanoseconds {
                PcapTsResolution::NanoSecond
            } else {
                PcapTsResolution::MicroSecond
            },
            endianness: format.endianness,
            ..PcapHeader::default()
        };
        let name = path.display().to_string();
        let writer = PcapWriter::with_header(OutputFile::create(path)?, header)
            .map_err(|error| write_error(&name, 0, error))?;
        Ok(Output { name, writer, packets: 0 })
    }

    /// Writes a packet.
    pub(crate) fn write(&mut self, time: Duration, original_length: u32, data: &[u8]) -> Result<()> {
        let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
        self.packets += 1;
        PcapPacket::new(time, original_length.max(length), data)
            .map_err(pcap_file::pcap::PcapWriteError::from)
            .and_then(|packet| self.writer.write_packet(&packet))
            .map(drop)
            .map_err(|error| write_error(&self.name, self.packets, error))
    }

    /// Puts the file in its place.
    pub(crate) fn finish(self) -> Result<()> {
        let mut file = self.writer.into_inner();
        file.flush().map_err(|error| Error::file(Path::new(&self.name), &error))?;
        file.finish()
    }
}

fn write_error(name: &str, packet: u64, error: pcap_file::pcap::PcapWriteError) -> Error {
    use pcap_file::pcap::PcapWriteError;
    match error {
        PcapWriteError::Io(error) | PcapWriteError::FieldWriteFailed(_, error) => {
            Error::file(Path::new(name), &error)
        }
        error => Error::at(format_args!("{name}: packet {packet}"), error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pcap(link_type: u32, little: bool, nanoseconds: bool, packets: &[&[u8]]) -> Vec<u8> {
        let word = |value: u32| if little { value.to_le_bytes() } else { value.to_be_bytes() };
        let half = |value: u16| if little { value.to_le_bytes() } else { value.to_be_bytes() };
        let mut bytes = word(if nanoseconds { 0xa1b2_3c4d } else { 0xa1b2_c3d4 }).to_vec();
        bytes.extend([half(2), half(4)].concat());
        bytes.extend([word(0), word(0), word(65535), word(link_type)].concat());
        for packet in packets {
            let length = u32::try_from(packet.len()).unwrap();
            bytes.extend([word(1_700_000_000), word(123_456), word(length), word(length)].concat());
            bytes.extend(*packet);
        }
        bytes
    }

    fn open(bytes: Vec<u8>) -> Result<Input> {
        Input::new("t.pcap", Box::new(Cursor::new(bytes)))
    }

    #[test]
    fn either_byte_order_and_resolution_is_read_and_written_alike() {
        let folder = tempfile::tempdir().unwrap();
        for (little, nanoseconds) in [(true, true), (true, false), (false, true), (false, false)] {
            let bytes = pcap(1, little, nanoseconds, &[b"one", b"three"]);
            let mut input = open(bytes.clone()).unwrap();
            let path = folder.path().join("out.pcap");
            let mut output = Output::create(&path, input.format()).unwrap();
            while let Some(record) = input.next().unwrap() {
                let fraction = Duration::from_nanos(if nanoseconds { 123_456 } else { 123_456_000 });
                assert_eq!(record.time, Duration::from_secs(1_700_000_000) + fraction);
                output.write(record.time, record.original_length, &record.data).unwrap();
            }
            output.finish().unwrap();
            let mut written = std::fs::read(&path).unwrap();
            // The length that an output allows is its own.
            written[16..20].copy_from_slice(&bytes[16..20]);
            assert_eq!(written, bytes);
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside");
    }

    #[test]
    fn a_truncated_capture_names_the_packet_and_its_offset() {
        for cut in [1, 4, 5, 20] {
            let mut bytes = pcap(101, true, false, &[b"one", b"three"]);
            bytes.truncate(bytes.len() - cut);
            let mut input = open(bytes).unwrap();
            assert_eq!(input.next().unwrap().unwrap().data, b"one");
            let error = input.next().unwrap_err();
            assert_eq!(error.place(), Some("t.pcap: packet 2, at byte 43"), "{cut}: {error}");
        }
    }

    #[test]
    fn what_is_no_capture_is_refused_with_its_reason() {
        let cases: [(Vec<u8>, &str); 6] = [
            (Vec::new(), "empty"),
            (b"\x1f\x8b\x08\x00".to_vec(), "compressed"),
            (b"#!/bin/sh\n and so on and so on".to_vec(), "magic"),
            (pcap(1, true, false, &[])[..20].to_vec(), "header"),
            (pcap(113, true, false, &[]), "LINUX_SLL"),
            (pcap(105, false, false, &[]), "link type 105"),
        ];
        for (bytes, part) in cases {
            let error = open(bytes).map(|_| ()).unwrap_err().to_string();
            assert!(error.to_lowercase().contains(&part.to_lowercase()), "{part}: {error}");
        }
    }

    #[test]
    fn pcapng_gives_its_packets_link_type_and_resolution() {
        let block = |kind: u32, body: &[u8]| {
            let mut padded = body.to_vec();
            padded.resize(body.len().next_multiple_of(4), 0);
            let length = u32::try_from(padded.len() + 12).unwrap();
            [&kind.to_le_bytes()[..], &length.to_le_bytes(), &padded, &length.to_le_bytes()].concat()
        };
        let section = [&0x1a2b_3c4d_u32.to_le_bytes()[..], &[1, 0, 0, 0], &[0xff; 8]].concat();
        // Raw IP; if_tsresol 9.
        let interface = [101, 0, 0, 0, 0, 0, 4, 0, 9, 0, 1, 0, 9, 0, 0, 0, 0, 0, 0, 0];
        let packet =
            [&[0; 4][..], &0_u32.to_le_bytes(), &7_u32.to_le_bytes(), &[3, 0, 0, 0], &[9, 0, 0, 0], b"one"];
        let mut bytes =
            [block(0x0a0d_0d0a, &section), block(1, &interface), block(6, &packet.concat())].concat();
        let end = bytes.len();
        bytes.extend(block(6, &packet.concat()));
        bytes.truncate(bytes.len() - 3);
        let mut input = open(bytes).unwrap();
        assert_eq!(input.format().link, Link::RawIp);
        assert!(input.format().nanoseconds);
        let record = input.next().unwrap().unwrap();
        assert_eq!((record.data.as_slice(), record.original_length), (&b"one"[..], 9));
        assert_eq!(record.time, Duration::from_nanos(7));
        let error = input.next().unwrap_err();
        assert_eq!(error.place(), Some(format!("t.pcap: packet 2, at byte {end}").as_str()));
    }
}
