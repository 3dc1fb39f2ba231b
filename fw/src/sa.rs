//! The policy of `sa_install`: which parameters make an SA. A field that has no meaning for the SA must be 0.

use cryptonic_regs::Value;
use cryptonic_regs::admin::{
    AdminStatus, Cipher, DfPolicy, Direction, EcnPolicy, FlowLabelPolicy, LifetimeKind, Mode, SaForm,
    SaLifetime, SaOptions, SaParameters, SaProtocol, SaSelector, SaWindow,
};
use cryptonic_regs::descriptor::SourcePortPolicy;

use crate::request::reserved_mask;

/// The last SPI of ESP that IANA keeps for itself (RFC 4303 2.1).
const SPI_RESERVED_LAST: u32 = 255;
/// The bits of a PSP SPI that are not all 0; the other one names the device key.
const PSP_SPI_COUNT: u32 = 0x7fff_ffff;
/// The smallest replay window in packets (RFC 4303 3.4.3).
const REPLAY_WINDOW_MIN: u32 = 32;
/// Bytes of a whole ICV.
const ICV_WHOLE: u8 = 16;

const FORM_RESERVED: u64 = reserved_mask(<SaForm as Value>::FIELDS);
const WINDOW_RESERVED: u64 = reserved_mask(<SaWindow as Value>::FIELDS);
const OPTIONS_RESERVED: u64 = reserved_mask(<SaOptions as Value>::FIELDS);
const LIFETIME_RESERVED: u64 = reserved_mask(<SaLifetime as Value>::FIELDS);
const SELECTOR_RESERVED: u64 = reserved_mask(<SaSelector as Value>::FIELDS);

/// What the hardware at hand allows.
pub struct Limits {
    pub replay_window_max: u32,
    pub queue_pairs: u32,
}

/// Which slots an SA fits in.
#[derive(Clone, Copy)]
pub struct Placement {
    /// What its slot counts.
    pub kind: LifetimeKind,
    /// It has no limit: a slot of the other kind does as well.
    pub any: bool,
}

/// What kind of SA it is to be.
#[derive(Clone, Copy)]
struct Kind {
    direction: Direction,
    protocol: SaProtocol,
    mode: Mode,
    cipher: Cipher,
}

impl Kind {
    fn out(self) -> bool {
        self.direction == Direction::Out
    }

    /// Whether it makes an outer header by rules; BEET mode makes one of the packet's own values.
    fn builds(self) -> bool {
        self.out() && self.mode == Mode::Tunnel
    }

    fn gmac(self) -> bool {
        matches!(self.cipher, Cipher::AesGmac128 | Cipher::AesGmac192 | Cipher::AesGmac256)
    }
}

/// The other kind of slots.
pub fn other(kind: LifetimeKind) -> LifetimeKind {
    match kind {
        LifetimeKind::Packets => LifetimeKind::Bytes,
        LifetimeKind::Bytes => LifetimeKind::Packets,
    }
}

/// Judges the public words; the secret ones are the hardware's to judge, since firmware never holds them.
pub fn check(sa: &SaParameters, limits: &Limits) -> Result<Placement, AdminStatus> {
    let reserved = sa.form.into_bits() & FORM_RESERVED
        | sa.window.into_bits() & WINDOW_RESERVED
        | sa.options.into_bits() & OPTIONS_RESERVED
        | sa.selector.into_bits() & SELECTOR_RESERVED
        | sa.lifetime.into_bits() & LIFETIME_RESERVED;
    require(reserved == 0)?;
    let form = sa.form;
    let kind = Kind {
        direction: number(Direction::of_number(u32::from(form.direction())))?,
        protocol: number(SaProtocol::of_number(u32::from(form.protocol())))?,
        mode: number(Mode::of_number(u32::from(form.mode())))?,
        cipher: number(Cipher::of_number(u32::from(form.cipher())))?,
    };
    match kind.protocol {
        SaProtocol::Esp => check_esp(sa, kind)?,
        SaProtocol::Psp => check_psp(sa, kind)?,
    }
    check_outer_header(sa, kind)?;
    check_inbound(sa, kind, limits)?;
    check_encapsulation(sa, kind)?;
    check_selector(sa, kind)?;
    check_lifetime(sa)
}

/// ICV, IV, SPI and sequence number of ESP, and what ESP alone does on transmit.
fn check_esp(sa: &SaParameters, kind: Kind) -> Result<(), AdminStatus> {
    let (form, options) = (sa.form, sa.options);
    // RFC 4106 6 has three lengths; RFC 4543 3.3 and RFC 8750 3 have one, and RFC 8750 no GMAC.
    require(match form.icv_bytes() {
        ICV_WHOLE => true,
        8 | 12 => !kind.gmac() && !form.implicit_iv(),
        _ => false,
    })?;
    require(!(kind.gmac() && form.implicit_iv()))?;
    if sa.names.spi() <= SPI_RESERVED_LAST {
        return Err(AdminStatus::ReservedSpi);
    }
    require(form.esn() || sa.sequence <= u64::from(u32::MAX))?;
    require(options.tfc_bytes() == 0 || kind.builds())?;
    require(!options.protect_destination_options() || (kind.out() && kind.mode == Mode::Transport))?;
    require(!options.psp_cookie() && sa.psp_cookie == 0)?;
    require(options.psp_crypt_offset() == 0 && options.psp_source_port_policy() == 0)
}

/// PSP with its key in the slot: it protects, and its IV is device time.
fn check_psp(sa: &SaParameters, kind: Kind) -> Result<(), AdminStatus> {
    let (form, options) = (sa.form, sa.options);
    require(kind.out() && kind.mode != Mode::Beet)?;
    // Versions 0 to 3 have keys of 128 and 256 bits.
    require(!matches!(kind.cipher, Cipher::AesGcm192 | Cipher::AesGmac192))?;
    require(form.icv_bytes() == ICV_WHOLE && !form.implicit_iv() && !form.esn())?;
    require(sa.sequence == 0)?;
    if sa.names.spi() & PSP_SPI_COUNT == 0 {
        return Err(AdminStatus::ReservedSpi);
    }
    require(options.psp_cookie() || sa.psp_cookie == 0)?;
    // What is not encrypted has no place where encryption begins.
    require(options.psp_crypt_offset() == 0 || !kind.gmac())?;
    number(SourcePortPolicy::of_number(u32::from(options.psp_source_port_policy())))?;
    require(options.tfc_bytes() == 0 && !options.protect_destination_options())
}

/// The rules for building an outer header, and its addresses.
fn check_outer_header(sa: &SaParameters, kind: Kind) -> Result<(), AdminStatus> {
    let (form, label) = (sa.form, sa.window.flow_label());
    number(DfPolicy::of_number(u32::from(form.df())))?;
    number(EcnPolicy::of_number(u32::from(sa.options.ecn())))?;
    let label_policy = number(FlowLabelPolicy::of_number(u32::from(sa.options.flow_label_policy())))?;
    if kind.builds() {
        require(form.dscp() == 0 || !form.copy_dscp())?;
        require(form.df() == 0 || !form.outer_ipv6())?;
        require((label == 0 && label_policy == FlowLabelPolicy::Fixed) || form.outer_ipv6())?;
        require(label == 0 || label_policy != FlowLabelPolicy::Hash)?;
    } else {
        require(form.ttl() == 0 && form.dscp() == 0 && !form.copy_dscp())?;
        require(form.df() == 0 && label == 0 && label_policy == FlowLabelPolicy::Fixed)?;
        require(sa.options.ecn() == 0)?;
    }
    let source = [sa.tunnel_source_0, sa.tunnel_source_1];
    let destination = [sa.tunnel_destination_0, sa.tunnel_destination_1];
    match kind.mode {
        Mode::Transport => require(!form.outer_ipv6() && absent(source) && absent(destination)),
        // What opens packets needs no addresses of its own; it has both or none.
        Mode::Tunnel if !kind.out() && absent(source) && absent(destination) => Ok(()),
        Mode::Tunnel | Mode::Beet => {
            require(!absent(source) && !absent(destination))?;
            require(family_fits(source, form.outer_ipv6()) && family_fits(destination, form.outer_ipv6()))
        }
    }
}

/// Replay window, receive queue and the destination to match.
fn check_inbound(sa: &SaParameters, kind: Kind, limits: &Limits) -> Result<(), AdminStatus> {
    let form = sa.form;
    let window = sa.window.replay_window();
    if kind.out() {
        require(window == 0 && form.receive_queue() == 0 && !form.receive_scaling())?;
        require(!form.match_destination())?;
    } else {
        require(window == 0 || (REPLAY_WINDOW_MIN..=limits.replay_window_max).contains(&window))?;
        require(u32::from(form.receive_queue()) < limits.queue_pairs)?;
        require(form.receive_queue() == 0 || !form.receive_scaling())?;
    }
    let destination = [sa.destination_0, sa.destination_1];
    if !form.match_destination() {
        return require(!form.destination_ipv6() && absent(destination));
    }
    require(!absent(destination) && family_fits(destination, form.destination_ipv6()))?;
    // In a tunnel the destination to match stands in the outer header.
    require(kind.mode == Mode::Transport || form.destination_ipv6() == form.outer_ipv6())
}

/// UDP ports and checksum: of ESP in UDP, and the source port of PSP.
fn check_encapsulation(sa: &SaParameters, kind: Kind) -> Result<(), AdminStatus> {
    let options = sa.options;
    let (source, destination) = (options.udp_source_port(), sa.selector.udp_destination_port());
    if options.udp_encapsulation() && kind.out() {
        require(kind.protocol == SaProtocol::Esp)?;
        require(source != 0 && destination != 0)?;
        // Over IPv4 there is no checksum (RFC 3948 2.1). In transport mode the family is the packet's.
        return require(!options.udp_checksum() || sa.form.outer_ipv6() || kind.mode == Mode::Transport);
    }
    let fixed = u32::from(options.psp_source_port_policy()) == SourcePortPolicy::Fixed.number();
    require(source == 0 || (kind.protocol == SaProtocol::Psp && fixed))?;
    require(destination == 0 && !options.udp_checksum())
}

/// Which inner packets it is for.
fn check_selector(sa: &SaParameters, kind: Kind) -> Result<(), AdminStatus> {
    let selector = sa.selector;
    let source = [sa.selector_source_0, sa.selector_source_1];
    let destination = [sa.selector_destination_0, sa.selector_destination_1];
    let checked = sa.options.check_selector() || sa.options.refuse_clear();
    require(!checked || !kind.out())?;
    let wanted = checked || kind.mode == Mode::Beet;
    require(selector.present() == wanted)?;
    require(selector.match_protocol() || selector.protocol() == 0)?;
    require(checked || !selector.match_protocol())?;
    if !wanted {
        require(!selector.ipv6() && selector.source_bits() == 0 && selector.destination_bits() == 0)?;
        return require(absent(source) && absent(destination));
    }
    let whole = if selector.ipv6() { 128 } else { 32 };
    if kind.mode == Mode::Beet {
        // The receiver puts these addresses back (RFC 7402 B.2), so there is one of each.
        require(selector.source_bits() == whole && selector.destination_bits() == whole)?;
        require(!absent(source) && !absent(destination))?;
    }
    require(is_network(source, selector.source_bits(), selector.ipv6()))?;
    require(is_network(destination, selector.destination_bits(), selector.ipv6()))
}

/// Limits, and what was counted before. An ICV of 8 bytes has a limit of its own beside these, which is the
/// hardware's.
fn check_lifetime(sa: &SaParameters) -> Result<Placement, AdminStatus> {
    let kind = number(LifetimeKind::of_number(u32::from(sa.lifetime.kind())))?;
    let (soft, hard) = (!sa.lifetime.no_soft_limit(), !sa.lifetime.no_hard_limit());
    // "No limit" is a flag, and 0 is no limit that could be kept.
    require(soft == (sa.soft_limit != 0) && hard == (sa.hard_limit != 0))?;
    require(!(soft && hard) || sa.soft_limit < sa.hard_limit)?;
    let counted = match kind {
        LifetimeKind::Packets => sa.packets,
        LifetimeKind::Bytes => sa.bytes,
    };
    require(!hard || counted < sa.hard_limit)?;
    Ok(Placement { kind, any: !soft && !hard })
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

/// Whether it is a prefix of a length that its family has, with zeros behind it.
fn is_network(address: [u64; 2], bits: u8, ipv6: bool) -> bool {
    let [first, second] = address.map(u64::swap_bytes);
    let (behind, longest) = if ipv6 {
        let number = u128::from(first) << 64 | u128::from(second);
        (number.checked_shl(u32::from(bits)).unwrap_or(0), 128)
    } else {
        (u128::from((second as u32).checked_shl(u32::from(bits)).unwrap_or(0)), 32)
    };
    bits <= longest && behind == 0 && family_fits(address, ipv6)
}
