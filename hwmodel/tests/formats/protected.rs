//! Keys and cookies in descriptors, and steering of packets by what is inside them: a NIC whose line leads back to itself.

use cryptonic_hwmodel::Parameters;
use cryptonic_regs::Status;
use cryptonic_regs::admin::{Direction, Opcode, PspAllocation};
use cryptonic_regs::bar0::{self, Control, PspControl, ReceiveScaling, STATUS_COUNTERS_OFFSET};
use cryptonic_regs::completion::{ChecksumState, HashKind, ReceivedProtocol};
use cryptonic_regs::descriptor::{Security, SourcePortPolicy, TransmitPsp, inline_room};

use crate::admin::{Admin, esp};
use crate::raw::{Raw, control, extent, status, tcp};

/// Hash by any key, of addresses and TCP ports.
fn scaling_on(raw: &Raw) {
    for word in 0..10 {
        raw.write(bar0::RECEIVE_SCALING_KEY.offset + 4 * word, 0x9e37_79b9_u32.wrapping_mul(word + 1));
    }
    let on = ReceiveScaling::new().with_enable(true).with_tcp_ports(true).with_table_log2(7);
    raw.write(bar0::RECEIVE_SCALING.offset, on.into_bits());
}

fn looped(stride: usize) -> Raw {
    let mut raw = Raw::new(&Parameters::default(), stride);
    raw.write(bar0::CONTROL.offset, Control::new().with_enable(true).with_mac_loopback(true).into_bits());
    scaling_on(&raw);
    raw.post(&[2_048; 32]);
    raw.world.drain();
    raw
}

/// The hash of a frame that comes in clear.
fn hash_in_clear(raw: &mut Raw, frame: &[u8]) -> u32 {
    raw.world.inject(raw.id, frame);
    raw.world.drain();
    raw.received().remove(0).0.steering.hash()
}

#[test]
fn a_key_a_cookie_and_inline_bytes_stand_behind_one_another() {
    for (stride, with_cookie) in [(64, false), (128, false), (128, true)] {
        let room = inline_room(stride, true, with_cookie).expect("fits") as usize;
        for (inline, pushed) in [(0, false), (room, false), (room, true), (room / 2, true)] {
            let mut raw = looped(stride as usize);
            let mut admin = Admin::new(&raw);
            admin.ask(&raw, Opcode::PspTestKeyLoad, 0, &[0x5151_5151_0101_0101; 8], 0);
            let psp = PspControl::new().with_receive_versions(0b11).with_udp_port(1_000);
            raw.write(bar0::PSP_CONTROL.offset, psp.into_bits());
            // One SPI of version 1, which has a key of 256 bits.
            let (_, reply) = admin.ask(&raw, Opcode::PspAllocate, 1 << 32 | 1, &[], PspAllocation::WORDS);
            let reply: [u64; PspAllocation::WORDS] = reply.try_into().expect("a record");
            let spi = PspAllocation::of_words(&reply).spi.spi();

            let frame = tcp(false, &[0x77; 200]);
            let hash = hash_in_clear(&mut raw, &frame);
            let (head, rest) = frame.split_at(inline);
            let mut behind: Vec<u8> = reply[1..].iter().flat_map(|word| word.to_le_bytes()).collect();
            let cookie = *b"tenant-7";
            if with_cookie {
                behind.extend_from_slice(&cookie);
            }
            behind.extend_from_slice(head);
            let at = raw.bytes(rest);
            let control = control(rest.len())
                .with_security(Security::PspKey.number() as u8)
                .with_psp_version(1)
                .with_psp_cookie(with_cookie)
                // Eight bytes from the end of the IV on stay readable: the cookie.
                .with_psp_crypt_offset(if with_cookie { 2 } else { 0 })
                .with_psp_source_port_policy(SourcePortPolicy::Table.number() as u8);
            // Every entry of the table of source ports is the same.
            for word in 0..8 {
                raw.write(bar0::PSP_SOURCE_PORTS.offset + 4 * word, 0xc123_c123);
            }
            let heard = std::rc::Rc::new(std::cell::RefCell::new(vec![]));
            let hears = heard.clone();
            raw.world.tap(raw.id, Box::new(move |_, _, frame| hears.borrow_mut().push(frame.to_vec())));
            let words = [
                at,
                control.into_bits(),
                TransmitPsp::new().with_spi(spi).into_bits(),
                extent(frame.len(), inline),
            ];
            let slot = raw.put(words, &behind);
            if pushed {
                raw.push(&slot, 1)
            } else {
                raw.ring()
            }
            let name = format!("stride {stride}, cookie {with_cookie}, {inline} inline, pushed {pushed}");
            assert_eq!(raw.statuses(), [Status::Ok], "{name}");
            assert_eq!(raw.world.pushes_used(raw.id), u64::from(pushed), "{name}");

            // On the line: UDP from the table's port; SPI and cookie where the PSP specification has them.
            let line = heard.borrow().first().cloned().expect("one frame");
            assert_eq!(line[34..38], [0xc1, 0x23, 0x03, 0xe8], "{name}");
            assert_eq!(line[46..50], spi.to_be_bytes(), "{name}");
            assert_eq!(line[58..66] == cookie, with_cookie, "{name}");
            // Back: every byte, and what is inside decides the hash.
            let (completion, bytes) = raw.received().remove(0);
            assert_eq!(bytes, frame, "{name}");
            assert_eq!(status(completion.end.status()), Status::Ok);
            assert_eq!(completion.end.next_header(), 6);
            let steering = completion.steering;
            assert_eq!(u32::from(steering.protocol()), ReceivedProtocol::Psp.number());
            assert_eq!(
                (steering.hash(), u32::from(steering.hash_kind())),
                (hash, HashKind::Ipv4Tcp.number())
            );
            assert_eq!(u32::from(steering.l4_checksum()), ChecksumState::Good.number());
            assert_eq!(
                u32::from(steering.outer_checksum()),
                ChecksumState::NotChecked.number(),
                "it has none"
            );
        }
    }
}

#[test]
fn an_sa_has_a_queue_pair_or_leaves_it_to_the_hash_of_what_is_inside() {
    for by_hash in [false, true] {
        let mut raw = looped(32);
        let mut admin = Admin::new(&raw);
        let mut inbound = esp(Direction::In, 0x1001);
        inbound.form.set_receive_scaling(by_hash);
        let reference = admin.install(&raw, &[esp(Direction::Out, 0x1001), inbound])[0];
        let frame = tcp(true, &[0x55; 99]);
        let hash = hash_in_clear(&mut raw, &frame);
        // The inner packet's entry of the table, and no other, names a queue pair that is off.
        let entry = hash & 127;
        raw.write(bar0::RECEIVE_SCALING_TABLE.offset + entry / 4 * 4, 3 << (entry % 4 * 8));
        let at = raw.bytes(&frame);
        let control = control(frame.len()).with_security(Security::Sa.number() as u8).into_bits();
        raw.put([at, control, reference.into_bits(), extent(frame.len(), 0)], &[]);
        raw.ring();
        assert_eq!(raw.statuses(), [Status::Ok]);
        let received = raw.received();
        let off = raw.read(STATUS_COUNTERS_OFFSET + 8 * Status::QueueOff.number());
        assert_eq!((received.len(), off), if by_hash { (0, 1) } else { (1, 0) });
        for (completion, bytes) in received {
            assert_eq!(bytes, frame);
            assert_eq!((completion.steering.hash(), completion.end.next_header()), (hash, 41));
            assert_eq!(u32::from(completion.steering.l4_checksum()), ChecksumState::Good.number());
        }
    }
}
