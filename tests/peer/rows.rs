//! The SA pairs between the gateway and Linux: as its `ip xfrm` takes them, and as a file of ours.

use std::fmt::Write;

/// A pair of SAs, of one family inside.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub name: &'static str,
    /// The family of the outer header, 0 for IPv4; none is transport mode.
    outer: Option<usize>,
    key_bytes: usize,
    esn: bool,
    udp: bool,
}

const fn row(name: &'static str, outer: Option<usize>, key_bytes: usize, esn: bool, udp: bool) -> Row {
    Row { name, outer, key_bytes, esn, udp }
}

pub const ROWS: [Row; 13] = [
    row("tunnel over IPv4, AES-GCM-128", Some(0), 16, false, false),
    row("tunnel over IPv4, AES-GCM-256, ESN over 2^32", Some(0), 32, true, false),
    row("tunnel over IPv6, AES-GCM-256", Some(1), 32, false, false),
    row("tunnel over IPv6, AES-GCM-128, ESN over 2^32", Some(1), 16, true, false),
    row("tunnel over IPv4 in UDP, AES-GCM-128", Some(0), 16, false, true),
    row("tunnel over IPv4 in UDP, AES-GCM-256, ESN over 2^32", Some(0), 32, true, true),
    row("transport, AES-GCM-128", None, 16, false, false),
    row("transport, AES-GCM-256, ESN over 2^32", None, 32, true, false),
    row("tunnel over IPv6 in UDP, AES-GCM-256", Some(1), 32, false, true),
    row("tunnel over IPv6 in UDP, AES-GCM-128, ESN over 2^32", Some(1), 16, true, true),
    row("transport in UDP, AES-GCM-128", None, 16, false, true),
    row("transport in UDP, AES-GCM-256, ESN over 2^32", None, 32, true, true),
    row("rekey under traffic", Some(0), 32, false, false),
];
/// The one whose keys follow one another.
pub const REKEY: usize = ROWS.len() - 1;

impl Row {
    /// The longest packet that 1500 octets have room for: what Linux reckons for its own packets.
    pub fn longest(self) -> usize {
        let outer = self.outer.map_or(0, |family| [20, 40][family]);
        let in_udp = if self.udp { 8 } else { 0 };
        // SPI, sequence number, IV and ICV; pad length and next header end a word.
        (1500 - outer - in_udp - 32) / 4 * 4 - 2
    }
}

/// Outer addresses: of the gateway, and of the guest.
const OUTER: [[&str; 2]; 2] = [["192.0.2.1", "192.0.2.2"], ["2001:db8::1", "2001:db8::2"]];
/// Where numbers begin that pass 2^32.
const BEFORE_2_32: u32 = 0xffff_ffe0;

/// The guest's own address of a row.
pub fn guest(row: usize, family: usize) -> String {
    if family == 0 { format!("10.2.{row}.1") } else { format!("fd00:2:{row}::1") }
}

/// The host behind the gateway.
pub fn host(family: usize) -> &'static str {
    ["10.1.0.1", "fd00:1::1"][family]
}

/// 0 is what the gateway sends.
fn spi(row: usize, family: usize, sender: usize, generation: usize) -> usize {
    0x10_0000 * (sender + 1) + 0x1_0000 * family + 0x100 * row + generation
}

/// No two are alike, for no SPI is.
fn key(spi: usize, bytes: usize) -> Vec<u8> {
    let octets = (spi as u32).to_be_bytes();
    (0..bytes).map(|place| octets[place % 4] ^ (place as u8).wrapping_mul(97)).collect()
}

fn salt(spi: usize) -> [u8; 4] {
    (!(spi as u32)).to_be_bytes()
}

/// The gateway's file, by the generation that the row of rekeying sends by and those that it opens.
pub fn file(out: usize, opens: &[usize]) -> String {
    let mut text = "default = \"drop\"\n".to_owned();
    for number in 0..ROWS.len() {
        for family in [0, 1] {
            let (out, opens) = if number == REKEY { (out, opens) } else { (1, &[1][..]) };
            text.push_str(&sa(number, family, 0, out));
            opens.iter().for_each(|generation| text.push_str(&sa(number, family, 1, *generation)));
        }
    }
    text
}

fn sa(number: usize, family: usize, sender: usize, generation: usize) -> String {
    let row = ROWS[number];
    let spi = spi(number, family, sender, generation);
    let direction = ["out", "in"][sender];
    let mode = if row.outer.is_some() { "tunnel" } else { "transport" };
    let ends = [host(family).to_owned(), guest(number, family)];
    let mut text = format!(
        "[[sa]]\nname = \"{direction}-{spi:x}\"\ndirection = \"{direction}\"\nprotocol = \"esp\"\nmode = \"{mode}\"\n\
         spi = {spi:#x}\ncipher = \"aes-gcm-{}\"\nkey = \"{}\"\nsalt = \"{}\"\nesn = {}\nsequence = {}\n\
         selector = {{ src = \"{}\", dst = \"{}\" }}\n",
        row.key_bytes * 8,
        hex::encode(key(spi, row.key_bytes)),
        hex::encode(salt(spi)),
        row.esn,
        if row.esn { BEFORE_2_32 } else { 0 },
        ends[sender],
        ends[1 - sender],
    );
    if let Some(family) = row.outer {
        let outer = OUTER[family];
        let _ = writeln!(text, "tunnel = {{ src = \"{}\", dst = \"{}\" }}", outer[sender], outer[1 - sender]);
    }
    if row.udp {
        text.push_str("udp_encap = { src_port = 4500, dst_port = 4500 }\n");
    }
    text.push('\n');
    text
}

/// The guest's way to the host behind the gateway.
const ROUTES: [&str; 2] = ["10.1.0.0/24 via 192.0.2.1", "fd00:1::/64 via 2001:db8::1"];

/// What has the guest's kernel forget what it heard of paths: that hangs on their routes.
pub fn forget() -> String {
    ROUTES.map(|route| format!("/sbin/ip route del {route} && /sbin/ip route add {route}")).join(" && ")
}

/// Commands of the guest that set up its interface, and every row in its kernel.
pub fn commands() -> String {
    let mut text = "/sbin/ip link set lo up\n/sbin/ip link set eth0 up\n".to_owned();
    let _ = writeln!(text, "/sbin/ip addr add {}/24 dev eth0", OUTER[0][1]);
    let _ = writeln!(text, "/sbin/ip -6 addr add {}/64 dev eth0 nodad", OUTER[1][1]);
    for route in ROUTES {
        let _ = writeln!(text, "/sbin/ip route add {route}");
    }
    for number in 0..ROWS.len() {
        let _ = writeln!(text, "/sbin/ip addr add {}/32 dev eth0", guest(number, 0));
        let _ = writeln!(text, "/sbin/ip -6 addr add {}/128 dev eth0 nodad", guest(number, 1));
        for family in [0, 1] {
            text.push_str(&state("add", number, family, 1, 1));
            text.push_str(&state("add", number, family, 0, 1));
            if number == REKEY {
                text.push_str(&state("add", number, family, 0, 2));
            }
            for sender in [0, 1] {
                text.push_str(&policy(number, family, sender));
            }
        }
    }
    text
}

/// Addresses of an SA's packets: source, destination, as `sender` sends them.
fn ends(number: usize, family: usize, sender: usize) -> [String; 2] {
    let [gateway, guest] = match ROWS[number].outer {
        Some(outer) => OUTER[outer].map(str::to_owned),
        None => [host(family).to_owned(), guest(number, family)],
    };
    if sender == 0 { [gateway, guest] } else { [guest, gateway] }
}

fn selector(number: usize, family: usize, sender: usize) -> String {
    let inner = [host(family).to_owned(), guest(number, family)];
    format!("src {} dst {}", inner[sender], inner[1 - sender])
}

/// A state in the guest's kernel: added, or deleted.
pub fn state(verb: &str, number: usize, family: usize, sender: usize, generation: usize) -> String {
    let row = ROWS[number];
    let spi = spi(number, family, sender, generation);
    let [source, destination] = ends(number, family, sender);
    let identity = format!("src {source} dst {destination} proto esp spi {spi:#x}");
    if verb == "delete" {
        return format!("/sbin/ip xfrm state delete {identity}\n");
    }
    let mode = if row.outer.is_some() { "tunnel" } else { "transport" };
    let mut text = format!("/sbin/ip xfrm state {verb} {identity} reqid {} mode {mode}", number + 1);
    // Errors of a router on the way come by the SA of the packets that they are about (RFC 4301 6.2).
    let flags = if row.esn { "icmp esn" } else { "icmp" };
    let _ = write!(text, " replay-window 64 flag {flags}");
    if row.esn {
        let sequence = if sender == 0 { "replay-seq" } else { "replay-oseq" };
        let _ = write!(text, " {sequence} {BEFORE_2_32:#x}");
    }
    let (key, salt) = (hex::encode(key(spi, row.key_bytes)), hex::encode(salt(spi)));
    let _ = write!(text, " aead 'rfc4106(gcm(aes))' 0x{key}{salt} 128");
    if row.udp {
        text.push_str(" encap espinudp 4500 4500 0.0.0.0");
    }
    let _ = writeln!(text, " sel {}", selector(number, family, sender));
    text
}

/// Policies of the guest's kernel for what `sender` sends.
fn policy(number: usize, family: usize, sender: usize) -> String {
    let row = ROWS[number];
    let direction = ["in", "out"][sender];
    let [source, destination] = ends(number, family, sender);
    let template = match row.outer {
        Some(_) => format!("src {source} dst {destination} proto esp reqid {} mode tunnel", number + 1),
        None => format!("proto esp reqid {} mode transport", number + 1),
    };
    let selector = selector(number, family, sender);
    let mut text =
        format!("/sbin/ip xfrm policy add {selector} dir {direction} priority 2 flag icmp tmpl {template}\n");
    if row.udp && row.outer.is_none() && sender == 0 {
        // The kernel judges the packet around ESP too, whose addresses are the same. It is to pass as it is.
        let _ = writeln!(text, "/sbin/ip xfrm policy add {selector} proto 17 dport 4500 dir in priority 1");
    }
    text
}

/// What has the guest's kernel send by the second generation.
pub fn rekeying() -> String {
    [0, 1]
        .map(|family| state("add", REKEY, family, 1, 2) + &state("delete", REKEY, family, 1, 1))
        .concat()
        .trim()
        .replace('\n', " && ")
}

/// What takes the first generation of the gateway's from the guest's kernel.
pub fn end_of_rekeying() -> String {
    [0, 1].map(|family| state("delete", REKEY, family, 0, 1)).concat().trim().replace('\n', " && ")
}
