//! One row a field of the SA parameters.

use cryptonic_regs::admin::{AdminStatus, SaForm, SaParameters};

use crate::hardware::{QUEUE_PAIRS, REPLAY_WINDOW_MAX};
use crate::samples::{booted, inbound, outbound};

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
        assert_eq!(hardware.used() == 1, *status == AdminStatus::Ok, "{name}");
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

fn to_udp(sa: &mut SaParameters) {
    sa.options = sa.options.with_udp_encapsulation(true).with_udp_source_port(4500);
    sa.selector.set_udp_destination_port(4500);
}

fn to_selector(sa: &mut SaParameters) {
    sa.selector = sa.selector.with_present(true).with_source_bits(32).with_destination_bits(32);
    (sa.selector_source_1, sa.selector_destination_1) = (0x0100_000a << 32, 0x0200_010a << 32);
}

fn to_selector_ipv6(sa: &mut SaParameters) {
    sa.selector = sa.selector.with_ipv6(true).with_source_bits(128).with_destination_bits(128);
    (sa.selector_source_0, sa.selector_source_1) = (0xfd, 1 << 56);
    (sa.selector_destination_0, sa.selector_destination_1) = (0xfd, 2 << 56);
}

fn to_checked(sa: &mut SaParameters) {
    to_selector(sa);
    sa.options.set_check_selector(true);
}

fn to_beet(sa: &mut SaParameters) {
    sa.form = sa.form.with_mode(2).with_ttl(0).with_copy_dscp(false);
    to_selector(sa);
}

fn to_inbound_beet(sa: &mut SaParameters) {
    to_inbound_tunnel(sa);
    to_beet(sa);
}

/// A PSP SA for an IPv4 tunnel.
fn psp(spi: u32) -> SaParameters {
    let mut sa = outbound(spi);
    sa.form.set_protocol(2);
    sa
}

#[test]
fn fields_of_every_sa() {
    use AdminStatus::{BadArgument, Ok, ReservedSpi};
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
        ("icv 8", |s| s.form.set_icv_bytes(8), Ok),
        ("icv 12", |s| s.form.set_icv_bytes(12), Ok),
        ("icv 8, GMAC", |s| s.form = s.form.with_icv_bytes(8).with_cipher(3), BadArgument),
        ("icv 12, implicit IV", |s| s.form = s.form.with_icv_bytes(12).with_implicit_iv(true), BadArgument),
        ("GMAC, 128 bits", |s| s.form.set_cipher(3), Ok),
        ("GMAC, 256 bits", |s| s.form.set_cipher(5), Ok),
        ("implicit IV", |s| s.form.set_implicit_iv(true), Ok),
        ("GMAC, implicit IV", |s| s.form = s.form.with_cipher(4).with_implicit_iv(true), BadArgument),
        ("ecn 2", |s| s.options.set_ecn(2), BadArgument),
        ("flow label policy 3", |s| s.options.set_flow_label_policy(3), BadArgument),
        ("options reserved", |s| s.options = (s.options.into_bits() | 1 << 18).into(), BadArgument),
        ("options reserved, last bit", |s| s.options = (s.options.into_bits() | 1 << 31).into(), BadArgument),
        ("selector reserved", |s| s.selector = (s.selector.into_bits() | 1 << 3).into(), BadArgument),
        (
            "selector reserved, last bit",
            |s| s.selector = (s.selector.into_bits() | 1 << 47).into(),
            BadArgument,
        ),
        ("psp cookie flag", |s| s.options.set_psp_cookie(true), BadArgument),
        ("psp cookie", |s| s.psp_cookie = 1, BadArgument),
        ("psp crypt offset", |s| s.options.set_psp_crypt_offset(1), BadArgument),
        ("psp source port policy", |s| s.options.set_psp_source_port_policy(2), BadArgument),
        ("udp source port", |s| s.options.set_udp_source_port(4500), BadArgument),
        ("udp destination port", |s| s.selector.set_udp_destination_port(4500), BadArgument),
        ("udp checksum", |s| s.options.set_udp_checksum(true), BadArgument),
        ("selector without use", |s| s.selector.set_present(true), BadArgument),
        ("selector family", |s| s.selector.set_ipv6(true), BadArgument),
        ("selector protocol", |s| s.selector.set_protocol(6), BadArgument),
        ("selector matches protocol", |s| s.selector.set_match_protocol(true), BadArgument),
        ("selector source bits", |s| s.selector.set_source_bits(8), BadArgument),
        ("selector destination bits", |s| s.selector.set_destination_bits(8), BadArgument),
        ("selector source", |s| s.selector_source_1 = 10 << 32, BadArgument),
        ("selector destination", |s| s.selector_destination_0 = 1, BadArgument),
        ("icv 0", |s| s.form.set_icv_bytes(0), BadArgument),
        ("icv 255", |s| s.form.set_icv_bytes(255), BadArgument),
        ("form reserved", |s| raw(s, 31), BadArgument),
        ("window reserved", |s| s.window = (s.window.into_bits() | 1 << 52).into(), BadArgument),
        ("window reserved, last bit", |s| s.window = (s.window.into_bits() | 1 << 63).into(), BadArgument),
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
            ("ttl copied", |s| s.form.set_ttl(0), Ok),
            ("ttl 1", |s| s.form.set_ttl(1), Ok),
            ("dscp copied and given", |s| s.form.set_dscp(46), BadArgument),
            ("dscp given", |s| s.form = s.form.with_copy_dscp(false).with_dscp(46), Ok),
            ("df", |s| s.form.set_df(2), Ok),
            ("df in ipv6", |s| (to_ipv6(s), s.form.set_df(1)).0, BadArgument),
            ("flow label in ipv4", |s| s.window.set_flow_label(1), BadArgument),
            ("flow label in ipv6", |s| (to_ipv6(s), s.window.set_flow_label(0xfffff)).0, Ok),
            ("flow label copied in ipv4", |s| s.options.set_flow_label_policy(1), BadArgument),
            ("flow label copied", |s| (to_ipv6(s), s.options.set_flow_label_policy(1)).0, Ok),
            ("flow label hashed", |s| (to_ipv6(s), s.options.set_flow_label_policy(2)).0, Ok),
            (
                "flow label hashed and given",
                |s| {
                    to_ipv6(s);
                    s.options.set_flow_label_policy(2);
                    s.window.set_flow_label(1);
                },
                BadArgument,
            ),
            ("ecn not copied", |s| s.options.set_ecn(1), Ok),
            ("tfc", |s| s.options.set_tfc_bytes(1_500), Ok),
            ("destination options", |s| s.options.set_protect_destination_options(true), BadArgument),
            ("check selector", |s| (to_selector(s), s.options.set_check_selector(true)).0, BadArgument),
            ("refuse clear", |s| (to_selector(s), s.options.set_refuse_clear(true)).0, BadArgument),
            ("receive scaling", |s| s.form.set_receive_scaling(true), BadArgument),
            ("in udp", to_udp, Ok),
            ("in udp, no source port", |s| (to_udp(s), s.options.set_udp_source_port(0)).0, BadArgument),
            (
                "in udp, no destination port",
                |s| (to_udp(s), s.selector.set_udp_destination_port(0)).0,
                BadArgument,
            ),
            ("in udp, checksum in ipv4", |s| (to_udp(s), s.options.set_udp_checksum(true)).0, BadArgument),
            ("in udp, checksum", |s| (to_udp(s), to_ipv6(s), s.options.set_udp_checksum(true)).0, Ok),
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
            (
                "transport in udp, checksum",
                |s| (to_transport(s), to_udp(s), s.options.set_udp_checksum(true)).0,
                Ok,
            ),
            ("transport with ecn", |s| (to_transport(s), s.options.set_ecn(1)).0, BadArgument),
            (
                "transport with flow label policy",
                |s| (to_transport(s), s.options.set_flow_label_policy(1)).0,
                BadArgument,
            ),
            ("transport with tfc", |s| (to_transport(s), s.options.set_tfc_bytes(64)).0, BadArgument),
            (
                "transport, destination options",
                |s| (to_transport(s), s.options.set_protect_destination_options(true)).0,
                Ok,
            ),
            ("beet", to_beet, Ok),
            ("beet, ipv6 in ipv4", |s| (to_beet(s), to_selector_ipv6(s)).0, Ok),
            ("beet in udp", |s| (to_beet(s), to_udp(s)).0, Ok),
            ("beet without selector", |s| (to_beet(s), s.selector = Default::default()).0, BadArgument),
            ("beet, network", |s| (to_beet(s), s.selector.set_source_bits(31)).0, BadArgument),
            ("beet, no inner source", |s| (to_beet(s), s.selector_source_1 = 0).0, BadArgument),
            ("beet, no inner destination", |s| (to_beet(s), s.selector_destination_1 = 0).0, BadArgument),
            ("beet, no outer source", |s| (to_beet(s), s.tunnel_source_1 = 0).0, BadArgument),
            ("beet with ttl", |s| (to_beet(s), s.form.set_ttl(1)).0, BadArgument),
            ("beet with dscp", |s| (to_beet(s), s.form.set_copy_dscp(true)).0, BadArgument),
            ("beet with ecn", |s| (to_beet(s), s.options.set_ecn(1)).0, BadArgument),
            ("beet with tfc", |s| (to_beet(s), s.options.set_tfc_bytes(64)).0, BadArgument),
            ("beet with protocol", |s| (to_beet(s), s.selector.set_match_protocol(true)).0, BadArgument),
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
            ("ecn", |s| s.options.set_ecn(1), BadArgument),
            ("flow label policy", |s| s.options.set_flow_label_policy(1), BadArgument),
            ("tfc", |s| s.options.set_tfc_bytes(64), BadArgument),
            ("destination options", |s| s.options.set_protect_destination_options(true), BadArgument),
            ("receive scaling", |s| s.form = s.form.with_receive_queue(0).with_receive_scaling(true), Ok),
            ("receive scaling and a queue", |s| s.form.set_receive_scaling(true), BadArgument),
            ("in udp", |s| s.options.set_udp_encapsulation(true), Ok),
            ("in udp, with ports", to_udp, BadArgument),
            (
                "in udp, with checksum",
                |s| s.options = s.options.with_udp_encapsulation(true).with_udp_checksum(true),
                BadArgument,
            ),
            ("check without selector", |s| s.options.set_check_selector(true), BadArgument),
            ("refuse without selector", |s| s.options.set_refuse_clear(true), BadArgument),
            ("selector", to_checked, Ok),
            ("selector, clear refused", |s| (to_selector(s), s.options.set_refuse_clear(true)).0, Ok),
            ("selector, not checked", to_selector, BadArgument),
            (
                "selector, protocol",
                |s| (to_checked(s), s.selector = s.selector.with_match_protocol(true).with_protocol(6)).0,
                Ok,
            ),
            ("selector, protocol 0", |s| (to_checked(s), s.selector.set_match_protocol(true)).0, Ok),
            (
                "selector, protocol not matched",
                |s| (to_checked(s), s.selector.set_protocol(6)).0,
                BadArgument,
            ),
            ("selector, 33 bits", |s| (to_checked(s), s.selector.set_source_bits(33)).0, BadArgument),
            ("selector, bits behind", |s| (to_checked(s), s.selector.set_source_bits(31)).0, BadArgument),
            (
                "selector, every source",
                |s| (to_checked(s), s.selector.set_source_bits(0), s.selector_source_1 = 0).0,
                Ok,
            ),
            (
                "selector, 0 bits of an address",
                |s| (to_checked(s), s.selector.set_source_bits(0)).0,
                BadArgument,
            ),
            ("selector, byte 11", |s| (to_checked(s), s.selector_source_1 |= 1 << 31).0, BadArgument),
            ("selector, ipv6", |s| (to_checked(s), to_selector_ipv6(s)).0, Ok),
            (
                "selector, ipv6 network",
                |s| {
                    to_checked(s);
                    to_selector_ipv6(s);
                    s.selector = s.selector.with_source_bits(8).with_destination_bits(0);
                    (s.selector_source_1, s.selector_destination_0, s.selector_destination_1) = (0, 0, 0);
                },
                Ok,
            ),
            (
                "selector, ipv6, bits behind",
                |s| (to_checked(s), to_selector_ipv6(s), s.selector.set_source_bits(127)).0,
                BadArgument,
            ),
            (
                "selector, 129 bits",
                |s| (to_checked(s), to_selector_ipv6(s), s.selector.set_source_bits(129)).0,
                BadArgument,
            ),
            ("beet", to_inbound_beet, Ok),
            ("beet, checked", |s| (to_inbound_beet(s), s.options.set_check_selector(true)).0, Ok),
            (
                "beet, checked protocol",
                |s| {
                    (
                        to_inbound_beet(s),
                        s.options.set_check_selector(true),
                        s.selector.set_match_protocol(true),
                    )
                        .0
                },
                Ok,
            ),
            (
                "beet without selector",
                |s| (to_inbound_beet(s), s.selector = Default::default()).0,
                BadArgument,
            ),
            (
                "beet without outer addresses",
                |s| (to_inbound_beet(s), (s.tunnel_source_1, s.tunnel_destination_1) = (0, 0)).0,
                BadArgument,
            ),
            ("psp", |s| s.form.set_protocol(2), BadArgument),
        ],
    );
}

#[test]
fn fields_of_a_psp_sa() {
    use AdminStatus::{BadArgument, Ok, ReservedSpi};
    check(
        psp,
        &[
            ("tunnel", |_| {}, Ok),
            ("transport", to_transport, Ok),
            ("beet", to_beet, BadArgument),
            ("version 1", |s| s.form.set_cipher(2), Ok),
            ("version 2", |s| s.form.set_cipher(3), Ok),
            ("version 3", |s| s.form.set_cipher(5), Ok),
            ("192 bits", |s| s.form.set_cipher(1), BadArgument),
            ("192 bits, GMAC", |s| s.form.set_cipher(4), BadArgument),
            ("icv 8", |s| s.form.set_icv_bytes(8), BadArgument),
            ("icv 0", |s| s.form.set_icv_bytes(0), BadArgument),
            ("implicit IV", |s| s.form.set_implicit_iv(true), BadArgument),
            ("esn", |s| s.form.set_esn(true), BadArgument),
            ("sequence", |s| s.sequence = 1, BadArgument),
            ("spi 0", |s| s.names.set_spi(0), ReservedSpi),
            ("spi 0 of the other key", |s| s.names.set_spi(1 << 31), ReservedSpi),
            ("spi 1", |s| s.names.set_spi(1), Ok),
            ("cookie", |s| (s.options.set_psp_cookie(true), s.psp_cookie = u64::MAX).0, Ok),
            ("cookie of zeros", |s| s.options.set_psp_cookie(true), Ok),
            ("cookie without flag", |s| s.psp_cookie = 1, BadArgument),
            ("crypt offset", |s| s.options.set_psp_crypt_offset(63), Ok),
            (
                "crypt offset of GMAC",
                |s| (s.options.set_psp_crypt_offset(1), s.form.set_cipher(3)).0,
                BadArgument,
            ),
            ("ports xor", |s| s.options.set_psp_source_port_policy(1), Ok),
            (
                "fixed port",
                |s| s.options = s.options.with_psp_source_port_policy(2).with_udp_source_port(9),
                Ok,
            ),
            ("table of ports", |s| s.options.set_psp_source_port_policy(3), Ok),
            ("port without policy", |s| s.options.set_udp_source_port(9), BadArgument),
            ("destination port", |s| s.selector.set_udp_destination_port(9), BadArgument),
            ("udp encapsulation", |s| s.options.set_udp_encapsulation(true), BadArgument),
            ("udp encapsulation, with ports", to_udp, BadArgument),
            ("udp checksum", |s| s.options.set_udp_checksum(true), BadArgument),
            ("ecn not copied", |s| s.options.set_ecn(1), Ok),
            ("flow label hashed", |s| (to_ipv6(s), s.options.set_flow_label_policy(2)).0, Ok),
            ("tfc", |s| s.options.set_tfc_bytes(64), BadArgument),
            ("selector", to_selector, BadArgument),
            ("replay window", |s| s.window.set_replay_window(64), BadArgument),
        ],
    );
}
