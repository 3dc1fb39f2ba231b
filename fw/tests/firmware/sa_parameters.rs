//! One row a field of the SA parameters.

use cryptonic_regs::admin::{AdminStatus, SaForm, SaParameters};

use crate::hardware::{QUEUE_PAIRS, REPLAY_WINDOW_MAX, booted, inbound, outbound};

type Row = (&'static str, fn(&mut SaParameters), AdminStatus);

fn raw(sa: &mut SaParameters, bit: u32) {
    sa.form = SaForm::from_bits(sa.form.into_bits() | 1 << bit);
}

fn check(base: fn(u32) -> SaParameters, rows: &[Row]) {
    for (name, change, status) in rows {
        let (mut hardware, mut firmware) = booted(4);
        let mut sa = base(0x1000);
        change(&mut sa);
        let done = hardware.install(&mut firmware, &sa);
        assert_eq!(done.status, *status, "{name}");
        let installed = hardware.slots.iter().any(|slot| slot.generation != 0);
        assert_eq!(installed, *status == AdminStatus::Ok, "{name}");
    }
}

fn to_transport(sa: &mut SaParameters) {
    sa.form = sa.form.with_mode(1).with_ttl(0).with_copy_dscp(false);
    (sa.tunnel_source_1, sa.tunnel_destination_1) = (0, 0);
}

fn to_ipv6(sa: &mut SaParameters) {
    sa.form.set_outer_ipv6(true);
    (sa.tunnel_source_0, sa.tunnel_destination_0) = (0xfd, 0xfd);
}

fn to_inbound_tunnel(sa: &mut SaParameters) {
    sa.form.set_mode(0);
    (sa.tunnel_source_1, sa.tunnel_destination_1) = (0x0102_00c0 << 32, 0x0202_00c0 << 32);
}

#[test]
fn fields_of_every_sa() {
    use AdminStatus::{BadArgument, Ok, ReservedSpi, Unsupported};
    let rows: &[Row] = &[
        ("as it is", |_| {}, Ok),
        ("direction 2", |s| s.form.set_direction(2), BadArgument),
        ("direction 15", |s| s.form.set_direction(15), BadArgument),
        ("protocol 0", |s| s.form.set_protocol(0), BadArgument),
        ("protocol 3", |s| s.form.set_protocol(3), BadArgument),
        ("mode 3", |s| s.form.set_mode(3), BadArgument),
        ("cipher 2", |s| s.form.set_cipher(2), Ok),
        ("cipher 6", |s| s.form.set_cipher(6), BadArgument),
        ("df 3", |s| s.form.set_df(3), BadArgument),
        ("icv 8", |s| s.form.set_icv_bytes(8), Unsupported),
        ("icv 12", |s| s.form.set_icv_bytes(12), Unsupported),
        ("icv 0", |s| s.form.set_icv_bytes(0), BadArgument),
        ("icv 255", |s| s.form.set_icv_bytes(255), BadArgument),
        ("form reserved", |s| raw(s, 31), BadArgument),
        ("window reserved", |s| s.window = (s.window.into_bits() | 1 << 52).into(), BadArgument),
        ("window reserved, last bit", |s| s.window = (s.window.into_bits() | 1 << 63).into(), BadArgument),
        ("reserved 0", |s| s.reserved_0 = 1, BadArgument),
        ("spi 0", |s| s.names.set_spi(0), ReservedSpi),
        ("spi 255", |s| s.names.set_spi(255), ReservedSpi),
        ("spi 256", |s| s.names.set_spi(256), Ok),
        ("spi 2^32 - 1", |s| s.names.set_spi(u32::MAX), Ok),
        ("cookie", |s| s.names.set_cookie(u32::MAX), Ok),
        ("sequence 2^32 - 1", |s| s.sequence = 0xffff_ffff, Ok),
        ("sequence 2^32", |s| s.sequence = 1 << 32, BadArgument),
        (
            "sequence 2^32 with ESN",
            |s| {
                s.sequence = 1 << 32;
                s.form.set_esn(true);
            },
            Ok,
        ),
    ];
    check(outbound, rows);
    check(inbound, rows);
}

#[test]
fn fields_of_an_outbound_sa() {
    use AdminStatus::{BadArgument, Ok};
    check(
        outbound,
        &[
            ("ttl 0", |s| s.form.set_ttl(0), BadArgument),
            ("ttl 1", |s| s.form.set_ttl(1), Ok),
            ("dscp copied and given", |s| s.form.set_dscp(46), BadArgument),
            ("dscp given", |s| s.form = s.form.with_copy_dscp(false).with_dscp(46), Ok),
            ("df", |s| s.form.set_df(2), Ok),
            ("df in ipv6", |s| (to_ipv6(s), s.form.set_df(1)).0, BadArgument),
            ("flow label in ipv4", |s| s.window.set_flow_label(1), BadArgument),
            ("flow label in ipv6", |s| (to_ipv6(s), s.window.set_flow_label(0xfffff)).0, Ok),
            ("replay window", |s| s.window.set_replay_window(64), BadArgument),
            ("receive queue", |s| s.form.set_receive_queue(1), BadArgument),
            ("match destination", |s| s.form.set_match_destination(true), BadArgument),
            ("destination family", |s| s.form.set_destination_ipv6(true), BadArgument),
            ("destination, first word", |s| s.destination_0 = 1, BadArgument),
            ("destination, second word", |s| s.destination_1 = 1 << 32, BadArgument),
            ("no source", |s| s.tunnel_source_1 = 0, BadArgument),
            ("no destination", |s| s.tunnel_destination_1 = 0, BadArgument),
            ("ipv6", to_ipv6, Ok),
            ("ipv6 source in ipv4", |s| s.tunnel_source_0 = 1, BadArgument),
            ("byte 11 of an ipv4 source", |s| s.tunnel_source_1 |= 1 << 31, BadArgument),
            ("ipv6 destination in ipv4", |s| s.tunnel_destination_0 = 1, BadArgument),
            ("byte 8 of an ipv4 destination", |s| s.tunnel_destination_1 |= 1, BadArgument),
            ("transport", to_transport, Ok),
            ("transport with ttl", |s| (to_transport(s), s.form.set_ttl(1)).0, BadArgument),
            ("transport with dscp", |s| (to_transport(s), s.form.set_dscp(1)).0, BadArgument),
            ("transport, dscp copied", |s| (to_transport(s), s.form.set_copy_dscp(true)).0, BadArgument),
            ("transport with df", |s| (to_transport(s), s.form.set_df(1)).0, BadArgument),
            ("transport with flow label", |s| (to_transport(s), s.window.set_flow_label(1)).0, BadArgument),
            ("transport, outer ipv6", |s| (to_transport(s), s.form.set_outer_ipv6(true)).0, BadArgument),
            ("transport with source", |s| (to_transport(s), s.tunnel_source_1 = 1 << 32).0, BadArgument),
            ("transport with destination", |s| (to_transport(s), s.tunnel_destination_0 = 1).0, BadArgument),
        ],
    );
}

#[test]
fn fields_of_an_inbound_sa() {
    use AdminStatus::{BadArgument, Ok};
    check(
        inbound,
        &[
            ("no window", |s| s.window.set_replay_window(0), Ok),
            ("window 1", |s| s.window.set_replay_window(1), BadArgument),
            ("window 31", |s| s.window.set_replay_window(31), BadArgument),
            ("window 32", |s| s.window.set_replay_window(32), Ok),
            ("largest window", |s| s.window.set_replay_window(REPLAY_WINDOW_MAX), Ok),
            ("larger window", |s| s.window.set_replay_window(REPLAY_WINDOW_MAX + 1), BadArgument),
            ("last queue", |s| s.form.set_receive_queue(QUEUE_PAIRS as u16 - 1), Ok),
            ("queue past the last", |s| s.form.set_receive_queue(QUEUE_PAIRS as u16), BadArgument),
            ("ttl", |s| s.form.set_ttl(64), BadArgument),
            ("dscp", |s| s.form.set_dscp(1), BadArgument),
            ("copy dscp", |s| s.form.set_copy_dscp(true), BadArgument),
            ("df", |s| s.form.set_df(1), BadArgument),
            ("flow label", |s| s.window.set_flow_label(1), BadArgument),
            ("ipv6 destination in ipv4", |s| s.destination_0 = 1, BadArgument),
            ("byte 11 of an ipv4 destination", |s| s.destination_1 |= 1 << 31, BadArgument),
            ("ipv6 destination", |s| (s.form.set_destination_ipv6(true), s.destination_0 = 0xfd).0, Ok),
            ("match nothing", |s| s.destination_1 = 0, BadArgument),
            ("destination without match", |s| s.form.set_match_destination(false), BadArgument),
            ("any destination", |s| (s.form.set_match_destination(false), s.destination_1 = 0).0, Ok),
            ("tunnel without addresses", |s| s.form.set_mode(0), Ok),
            ("tunnel", to_inbound_tunnel, Ok),
            ("tunnel with ttl", |s| (to_inbound_tunnel(s), s.form.set_ttl(1)).0, BadArgument),
            ("tunnel, one address", |s| (to_inbound_tunnel(s), s.tunnel_source_1 = 0).0, BadArgument),
            ("tunnel, outer family", |s| s.form = s.form.with_mode(0).with_outer_ipv6(true), BadArgument),
            ("transport, tunnel source", |s| s.tunnel_source_1 = 1 << 32, BadArgument),
            ("transport, outer ipv6", |s| s.form.set_outer_ipv6(true), BadArgument),
        ],
    );
}
