//! The policy of `sa_install`: which parameters make an SA. A field that has no meaning for the SA must be 0.

use cryptonic_regs::Value;
use cryptonic_regs::admin::{
    AdminStatus, Cipher, DfPolicy, Direction, Mode, SaForm, SaParameters, SaProtocol, SaWindow,
};

use crate::request::reserved_mask;

/// The last SPI of ESP that IANA keeps for itself (RFC 4303 2.1).
const SPI_RESERVED_LAST: u32 = 255;
/// The smallest replay window in packets (RFC 4303 3.4.3).
const REPLAY_WINDOW_MIN: u32 = 32;

const FORM_RESERVED: u64 = reserved_mask(<SaForm as Value>::FIELDS);
const WINDOW_RESERVED: u64 = reserved_mask(<SaWindow as Value>::FIELDS);

/// What the hardware at hand allows.
pub struct Limits {
    pub replay_window_max: u32,
    pub queue_pairs: u32,
}

/// Judges the public words; the secret ones are the hardware's to judge, since firmware never holds them.
pub fn check(sa: &SaParameters, limits: &Limits) -> Result<(), AdminStatus> {
    let reserved =
        sa.form.into_bits() & FORM_RESERVED | sa.window.into_bits() & WINDOW_RESERVED | sa.reserved_0;
    require(reserved == 0)?;
    let form = sa.form;
    let direction = number(Direction::of_number(u32::from(form.direction())))?;
    let protocol = number(SaProtocol::of_number(u32::from(form.protocol())))?;
    let mode = number(Mode::of_number(u32::from(form.mode())))?;
    let cipher = number(Cipher::of_number(u32::from(form.cipher())))?;
    // What the datapath does not have yet.
    let gmac = matches!(cipher, Cipher::AesGmac128 | Cipher::AesGmac192 | Cipher::AesGmac256);
    let extended = form.implicit_iv()
        || sa.options.into_bits() != 0
        || sa.selector.into_bits() != 0
        || sa.psp_cookie != 0;
    if protocol == SaProtocol::Psp || mode == Mode::Beet || gmac || extended {
        return Err(AdminStatus::Unsupported);
    }
    number(DfPolicy::of_number(u32::from(form.df())))?;
    match form.icv_bytes() {
        16 => {}
        // Lengths of RFC 4106 that the datapath does not have yet.
        8 | 12 => return Err(AdminStatus::Unsupported),
        _ => return Err(AdminStatus::BadArgument),
    }
    if sa.names.spi() <= SPI_RESERVED_LAST {
        return Err(AdminStatus::ReservedSpi);
    }
    require(form.esn() || sa.sequence <= u64::from(u32::MAX))?;
    check_outer_header(sa, direction, mode)?;
    check_inbound(sa, direction, mode, limits)
}

/// The rules for building an outer header, and its addresses.
fn check_outer_header(sa: &SaParameters, direction: Direction, mode: Mode) -> Result<(), AdminStatus> {
    let form = sa.form;
    let builds = direction == Direction::Out && mode == Mode::Tunnel;
    if builds {
        require(form.ttl() >= 1)?;
        require(form.dscp() == 0 || !form.copy_dscp())?;
        require(form.df() == 0 || !form.outer_ipv6())?;
        require(sa.window.flow_label() == 0 || form.outer_ipv6())?;
    } else {
        require(form.ttl() == 0 && form.dscp() == 0 && !form.copy_dscp())?;
        require(form.df() == 0 && sa.window.flow_label() == 0)?;
    }
    let source = [sa.tunnel_source_0, sa.tunnel_source_1];
    let destination = [sa.tunnel_destination_0, sa.tunnel_destination_1];
    match mode {
        Mode::Transport => require(!form.outer_ipv6() && absent(source) && absent(destination)),
        // What opens packets needs no addresses of its own; it has both or none.
        Mode::Tunnel if !builds && absent(source) && absent(destination) => Ok(()),
        Mode::Tunnel | Mode::Beet => {
            require(!absent(source) && !absent(destination))?;
            require(family_fits(source, form.outer_ipv6()) && family_fits(destination, form.outer_ipv6()))
        }
    }
}

/// Replay window, receive queue and the destination to match.
fn check_inbound(
    sa: &SaParameters,
    direction: Direction,
    mode: Mode,
    limits: &Limits,
) -> Result<(), AdminStatus> {
    let form = sa.form;
    let window = sa.window.replay_window();
    match direction {
        Direction::Out => require(
            window == 0 && form.receive_queue() == 0 && !form.receive_scaling() && !form.match_destination(),
        )?,
        Direction::In => {
            require(window == 0 || (REPLAY_WINDOW_MIN..=limits.replay_window_max).contains(&window))?;
            require(u32::from(form.receive_queue()) < limits.queue_pairs)?;
            require(form.receive_queue() == 0 || !form.receive_scaling())?;
        }
    }
    let destination = [sa.destination_0, sa.destination_1];
    if !form.match_destination() {
        return require(!form.destination_ipv6() && absent(destination));
    }
    require(!absent(destination) && family_fits(destination, form.destination_ipv6()))?;
    // In a tunnel the destination to match stands in the outer header.
    require(mode == Mode::Transport || form.destination_ipv6() == form.outer_ipv6())
}

fn require(holds: bool) -> Result<(), AdminStatus> {
    if holds { Ok(()) } else { Err(AdminStatus::BadArgument) }
}

fn number<T>(value: Option<T>) -> Result<T, AdminStatus> {
    value.ok_or(AdminStatus::BadArgument)
}

fn absent(address: [u64; 2]) -> bool {
    address == [0, 0]
}

/// An IPv4 address stands in the last four bytes, which are the upper half of the second word.
fn family_fits([first, second]: [u64; 2], ipv6: bool) -> bool {
    ipv6 || (first == 0 && second as u32 == 0)
}
