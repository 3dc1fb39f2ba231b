#!/usr/bin/env python3
"""Makes the captures under tests/vectors with Scapy: an implementation that is not ours.

    make_packets.py            write them again
    make_packets.py --check    make them in a scratch folder and compare with the checked-in ones

Needs the packages in requirements.txt. Same versions, same bytes: nothing here is random.
Every protected packet is opened again with AESGCM of `cryptography` from the rules of the RFCs and of the PSP
specification, written out below, before it is kept. So Scapy's framing is checked too.
"""

import argparse
import filecmp
import hashlib
import json
import struct
import sys
import tempfile
from decimal import Decimal
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.cmac import CMAC
from scapy.contrib.psp import PSP
from scapy.layers.dns import DNS, DNSQR, DNSRR
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoReply, ICMPv6EchoRequest, ICMPv6ND_NS, IPv6
from scapy.layers.ipsec import ESP, SecurityAssociation
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether
from scapy.packet import Padding, Raw
from scapy.utils import wrpcap

VECTORS = Path(__file__).resolve().parent.parent / "vectors"
HOST_A, HOST_B = "02:00:00:00:00:0a", "02:00:00:00:00:0b"


# --- clear packets -------------------------------------------------------------------------------------------------


def ether(payload, vlan=None):
    frame = Ether(src=HOST_A, dst=HOST_B)
    if vlan is not None:
        frame = frame / Dot1Q(vlan=vlan)
    return Ether(bytes(frame / payload))


def octets(count, start=0):
    return Raw(bytes((start + i) % 256 for i in range(count)))


def ip(number, family, src_net, dst_net, **fields):
    """An IP header from host 1 of one net to host 2 of another."""
    if family == 4:
        return IP(src=f"10.0.{src_net}.1", dst=f"10.1.{dst_net}.2", id=0x1000 + number, **fields)
    return IPv6(src=f"2001:db8:0:{src_net:x}::1", dst=f"2001:db8:1:{dst_net:x}::2", fl=0x10000 + number, **fields)


def echo(family, number):
    if family == 4:
        return ICMP(id=0x77, seq=number)
    return ICMPv6EchoRequest(id=0x77, seq=number)


def flow(number, family, net):
    """Packet `number` of a flow: TCP, UDP and echo in turn, sizes that give every ESP pad length."""
    head = ip(number, family, net, net)
    kind = number % 3
    size = 40 + 7 * number
    if kind == 0:
        l4 = TCP(sport=40000 + net, dport=443, seq=1000 * number, ack=1, flags="PA", window=502)
    elif kind == 1:
        l4 = UDP(sport=50000 + net, dport=4789)
    else:
        l4 = echo(family, number)
    return head / l4 / octets(size, start=number)


def mixed():
    """A small office: what a capture holds that is neither all IP nor all one protocol."""
    a, b, dns = "10.0.0.1", "10.1.0.2", "10.1.0.53"
    a6, b6 = "2001:db8:0:1::1", "2001:db8:1:1::2"
    there, back = dict(sport=40001, dport=80), dict(sport=80, dport=40001)
    get = b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n"
    page = b"HTTP/1.1 200 OK\r\nContent-Length: 1200\r\n\r\n" + bytes(1200)
    query = DNSQR(qname="example.org")
    reply = DNS(id=7, qr=1, aa=1, qd=query, an=DNSRR(rrname="example.org", ttl=300, rdata="10.1.0.2"))
    ack = Ether(src=HOST_A, dst=HOST_B) / IP(src=a, dst=b, id=13, flags="DF") / TCP(**there, seq=142, ack=1241, flags="A")
    return [
        Ether(src=HOST_A, dst="ff:ff:ff:ff:ff:ff") / ARP(op=1, hwsrc=HOST_A, psrc=a, pdst="10.0.0.254"),
        Ether(src=HOST_B, dst=HOST_A) / ARP(op=2, hwsrc=HOST_B, psrc="10.0.0.254", hwdst=HOST_A, pdst=a),
        ether(IP(src=a, dst=dns, id=1) / UDP(sport=33333, dport=53) / DNS(id=7, rd=1, qd=query)),
        ether(IP(src=dns, dst=a, id=2) / UDP(sport=53, dport=33333) / reply),
        ether(IP(src=a, dst=b, id=10, flags="DF") / TCP(**there, seq=100, flags="S", options=[("MSS", 1460)])),
        ether(IP(src=b, dst=a, id=11, flags="DF") / TCP(**back, seq=0, ack=101, flags="SA", options=[("MSS", 1460)])),
        ether(IP(src=a, dst=b, id=12, flags="DF") / TCP(**there, seq=101, ack=1, flags="PA") / get),
        ether(IP(src=b, dst=a, id=14, flags="DF") / TCP(**back, seq=1, ack=142, flags="PA") / page),
        # Padded to the 60 octets that Ethernet wants: the padding is no part of the IP packet.
        ack / Padding(bytes(6)),
        ether(IP(src=a, dst=b, id=20) / ICMP(id=1, seq=1) / octets(56)),
        ether(IP(src=b, dst=a, id=21) / ICMP(type=0, id=1, seq=1) / octets(56)),
        ether(IP(src=a, dst=b, id=30) / UDP(sport=41111, dport=42222)),
        ether(IP(src=a, dst=b, id=31) / UDP(sport=41111, dport=42222) / octets(1)),
        ether(IP(src=a, dst=b, id=32) / UDP(sport=41111, dport=42222) / octets(1372)),
        ether(IP(src=a, dst=b, id=33, tos=0xB8, ttl=3) / UDP(sport=41112, dport=42222) / octets(160)),
        ether(IPv6(src=a6, dst=b6, fl=0xABCDE) / TCP(sport=40002, dport=443, seq=5, ack=6, flags="PA") / octets(517)),
        ether(IPv6(src=a6, dst=b6, tc=0xB8) / UDP(sport=41113, dport=42222) / octets(64)),
        ether(IPv6(src=a6, dst=b6) / ICMPv6EchoRequest(id=2, seq=1, data=bytes(range(56)))),
        ether(IPv6(src=b6, dst=a6) / ICMPv6EchoReply(id=2, seq=1, data=bytes(range(56)))),
        ether(IPv6(src="fe80::a", dst="ff02::1:ff00:b", hlim=255) / ICMPv6ND_NS(tgt="fe80::b")),
        ether(IP(src=a, dst=b, id=40) / UDP(sport=41114, dport=42222) / octets(100), vlan=7),
        ether(IPv6(src=a6, dst=b6) / UDP(sport=41115, dport=42222) / octets(100), vlan=7),
        Ether(src=HOST_A, dst=HOST_B)
        / Dot1AD(vlan=100)
        / Dot1Q(vlan=7)
        / IP(src=a, dst=b, id=41)
        / UDP(sport=41116, dport=42222)
        / octets(33),
        ether(IP(src="172.16.0.1", dst="172.16.0.2", id=50) / UDP(sport=41117, dport=42222) / octets(40)),
    ]


# --- SA files ------------------------------------------------------------------------------------------------------


def secret(label, length):
    return hashlib.sha256(b"cryptonic test key " + label.encode()).digest()[:length]


def toml(value):
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, bytes):
        return f'"{value.hex()}"'
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {toml(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(toml(item) for item in value) + "]"
    return str(value)


def sa_file(title, sas, head=()):
    lines = [f"# {title}", "# Made by tests/witness/make_packets.py. Test keys: never use them for anything else."]
    lines += list(head)
    for sa in sas:
        lines += ["", "[[sa]]"]
        for key, value in sa.items():
            lines.append(f"{key} = " + (f"0x{value:08x}" if key == "spi" else toml(value)))
    return "\n".join(lines) + "\n"


# --- ESP -----------------------------------------------------------------------------------------------------------


class EspSa:
    """One SA of RFC 4303 with the AES-GCM of RFC 4106; the IV is the 64-bit sequence number."""

    def __init__(self, name, spi, bits, family, net, outer=None, sequence=0, esn=False):
        self.name, self.spi, self.bits, self.family, self.net = name, spi, bits, family, net
        self.outer, self.sequence, self.first, self.esn = outer, sequence, sequence, esn
        self.key, self.salt = secret(name, bits // 8), secret(name + " salt", 4)

    def rows(self, direction):
        rows = {
            "name": self.name,
            "direction": direction,
            "protocol": "esp",
            "mode": "tunnel" if self.outer else "transport",
            "spi": self.spi,
            "cipher": f"aes-gcm-{self.bits}",
            "key": self.key,
            "salt": self.salt,
        }
        if self.esn:
            rows["esn"] = True
        if self.first:
            rows["sequence"] = self.first if self.first < 1 << 63 else f"0x{self.first:x}"
        if self.outer:
            src, dst = ("192.0.2.1", "192.0.2.2") if self.outer == 4 else ("2001:db8:ffff::1", "2001:db8:ffff::2")
            rows["tunnel"] = {"src": src, "dst": dst, "ttl": 64}
        nets = ("10.0.{0}.0/24", "10.1.{0}.0/24") if self.family == 4 else ("2001:db8:0:{0:x}::/64", "2001:db8:1:{0:x}::/64")
        rows["selector"] = {"src": nets[0].format(self.net), "dst": nets[1].format(self.net)}
        return rows

    def tunnel_header(self):
        if self.outer == 4:
            # Routers never fragment an IPv6 packet, so the tunnel does not either (as Linux: xfrm6_extract_header).
            return IP(src="192.0.2.1", dst="192.0.2.2", ttl=64, flags="DF" if self.family == 6 else 0)
        if self.outer == 6:
            return IPv6(src="2001:db8:ffff::1", dst="2001:db8:ffff::2", hlim=64)
        return None

    def protect(self, packet):
        self.sequence += 1
        high, low = self.sequence >> 32, self.sequence & 0xFFFFFFFF
        sa = SecurityAssociation(
            ESP, spi=self.spi, seq_num=low, crypt_algo="AES-GCM", crypt_key=self.key + self.salt,
            tunnel_header=self.tunnel_header(), esn_en=self.esn, esn=high,
        )  # fmt: skip
        sealed = sa.encrypt(packet, iv=struct.pack(">Q", self.sequence))
        self.check(packet, sealed)
        return sealed

    def check(self, packet, sealed):
        """RFC 4303 section 2 and RFC 4106 sections 3 to 5, without Scapy."""
        head = 20 if sealed.version == 4 else 40
        esp = bytes(sealed)[head:]
        sequence = struct.pack(">Q", self.sequence)
        assert esp[:16] == struct.pack(">I", self.spi) + sequence[4:] + sequence
        aad = esp[:4] + (sequence if self.esn else sequence[4:])
        clear = AESGCM(self.key).decrypt(self.salt + sequence, esp[16:], aad)
        pad, next_header = clear[-2], clear[-1]
        assert clear[-2 - pad : -2] == bytes(range(1, pad + 1)) and len(clear) % 4 == 0
        inner = bytes(packet)
        if self.outer:
            assert (next_header, clear[: -2 - pad]) == (4 if self.family == 4 else 41, inner)
        else:
            inner_head = 20 if self.family == 4 else 40
            protocol = inner[9] if self.family == 4 else inner[6]
            assert (next_header, clear[: -2 - pad]) == (protocol, inner[inner_head:])


# --- PSP -----------------------------------------------------------------------------------------------------------


def psp_key(device_keys, spi, version):
    """SP 800-108 in counter mode over AES-256-CMAC; bit 31 of the SPI chooses the device key."""
    bits = {0: 128, 1: 256}[version]
    key = b""
    for counter in range(1, bits // 128 + 1):
        mac = CMAC(AES256(device_keys[spi >> 31]))
        mac.update(struct.pack(">I", counter) + b"Pv%d\0" % version + struct.pack(">II", spi, bits))
        key += mac.finalize()
    return key


class PspSa:
    """One transmit SA of PSP in transport mode; its key comes from the receiver's device keys."""

    def __init__(self, name, spi, version, family, net, offset, source_port, device_keys, vc=None):
        self.name, self.spi, self.version, self.family, self.net = name, spi, version, family, net
        self.offset, self.source_port, self.vc, self.iv = offset, source_port, vc, 0
        self.key = psp_key(device_keys, spi, version)

    def rows(self, direction):
        assert direction == "out"
        rows = {
            "name": self.name,
            "direction": "out",
            "protocol": "psp",
            "mode": "transport",
            "spi": self.spi,
            "version": self.version,
            "key": self.key,
            "crypt_offset": self.offset,
        }
        if self.vc is not None:
            rows["vc"] = struct.pack(">Q", self.vc)
        rows["src_port"] = self.source_port
        rows["iv"] = 1
        dst = f"10.1.{self.net}.0/24" if self.family == 4 else f"2001:db8:1:{self.net:x}::/64"
        rows["selector"] = {"dst": dst}
        return rows

    def protect(self, packet):
        self.iv += 1
        inner = bytes(packet)
        head, protocol = (20, inner[9]) if self.family == 4 else (40, inner[6])
        psp = PSP(
            nexthdr=protocol, hdrextlen=1, cryptoffset=self.offset, version=self.version,
            spi=self.spi, iv=struct.pack(">Q", self.iv), data=inner[head:],
        )  # fmt: skip
        if self.vc is not None:
            psp.is_virt, psp.hdrextlen = 1, 2
            psp.virtkey, psp.sectoken = self.vc >> 32, self.vc & 0xFFFFFFFF
        psp.encrypt(self.key)
        body = bytes(psp)
        self.check(inner[head:], body)
        outer = packet.copy()
        outer.remove_payload()
        if self.family == 4:
            outer.proto, outer.len, outer.chksum = 17, None, None
        else:
            outer.nh, outer.plen = 17, None
        udp = UDP(sport=self.source_port, dport=1000, len=8 + len(body), chksum=0)
        return outer.__class__(bytes(outer / Raw(bytes(udp) + body)))

    def check(self, payload, body):
        """PSP specification: nonce, AAD and encryption range, without Scapy."""
        seen = 16 + 4 * self.offset
        clear = AESGCM(self.key).decrypt(body[4:16], body[seen:], body[:seen])
        extension = 8 if self.vc is not None else 0
        assert (body[:seen] + clear)[16 + extension :] == payload


def check_psp(vectors):
    """The derivation against the printed keys; Scapy's frames against the reference parameters' hashes."""
    kdf = vectors["kdf"]
    device_keys = [bytes.fromhex(kdf["master_key_0"]), bytes.fromhex(kdf["master_key_1"])]
    for row in kdf["keys"]:
        assert psp_key(device_keys, int(row["spi"], 16), row["version"]).hex() == row["key"], row
    head = bytes.fromhex(vectors["clear_first_42"])
    frame = head + bytes(i % 256 for i in range(vectors["clear_octets"] - len(head)))
    checked = 0
    for case in vectors["cases"]:
        # Scapy leaves the cookie in clear whatever the offset; the specification encrypts it when not covered.
        uncovered_cookie = case["vc"] and case["crypt_offset_words"] < 2
        if case["mode"] != "transport" or uncovered_cookie or "empty" in case["case"]:
            continue
        sa = PspSa(
            case["case"], int(case["spi"], 16), case["version"], 4, 0, case["crypt_offset_words"],
            0x7DA9, device_keys, vc=0 if case["vc"] else None,
        )  # fmt: skip
        sealed = frame[:14] + bytes(sa.protect(IP(frame[14:])))
        assert hashlib.sha256(sealed).hexdigest() == case["frame_sha256"], case["case"]
        checked += 1
    print(f"psp.json: {len(kdf['keys'])} printed keys and {checked} frame hashes hold")
    return device_keys


# --- captures ------------------------------------------------------------------------------------------------------


def write_capture(path, frames):
    for frame, time in frames:
        frame.time = Decimal(time) / 1_000_000
    wrpcap(str(path), [frame for frame, _ in frames], linktype=1)


def reframe(clear, packet):
    """The L2 header of `clear` with another IP packet behind it."""
    l2 = bytes(clear)[: -len(bytes(clear[IP] if IP in clear else clear[IPv6]))]
    kind = b"\x08\x00" if packet.version == 4 else b"\x86\xdd"
    return Ether(l2[:-2] + kind + bytes(packet))


def flipped(frame, position, mask=0x01):
    """One bit changed; a negative position counts from the end of the frame."""
    raw = bytearray(bytes(frame))
    raw[position] ^= mask
    return Ether(bytes(raw))


def tampered(frame, sa):
    """Copies that must all fail: a bit of the ICV, of the ciphertext, and of what is only authenticated."""
    esp = isinstance(sa, EspSa)
    network = frame[IP] if IP in frame else frame[IPv6]
    behind_ip = len(frame) - len(network) + (20 if network.version == 4 else 40)
    # The top bit of the sequence number, far ahead of the window; or a reserved bit of the PSP header.
    header = behind_ip + 4 if esp else behind_ip + 8 + 2
    return [flipped(frame, -1), flipped(frame, -30), flipped(frame, header, 0x80)]


def write_set(folder, name, title, sas, order, in_file=None):
    """NAME.clear, NAME.protected and NAME.hostile (.pcap), and the SA files that lead from one to the next.

    hostile: each protected packet after three tampered copies of it, so that a failed ICV must neither pass nor
    move the replay window; with ESP also behind it once more, so that the replay must be refused. Opening it
    gives the clear capture again.
    """
    clear, protected, hostile = [], [], []
    replay = isinstance(sas[0], EspSa)
    for number, index in enumerate(order):
        sa = sas[index]
        time = 1_700_000_000_000_000 + 1_000 * number + number
        packet = flow(number, sa.family, sa.net)
        frame = ether(packet, vlan=7 if number % 5 == 4 else None)
        packet = frame[IP] if sa.family == 4 else frame[IPv6]
        sealed = reframe(frame, sa.protect(packet))
        clear.append((frame, time))
        protected.append((sealed, time))
        hostile += [(copy, time) for copy in tampered(sealed, sa)] + [(sealed, time)]
        if replay:
            hostile.append((Ether(bytes(sealed)), time))
    write_capture(folder / f"{name}.clear.pcap", clear)
    write_capture(folder / f"{name}.protected.pcap", protected)
    write_capture(folder / f"{name}.hostile.pcap", hostile)
    (folder / f"{name}.out.toml").write_text(sa_file(title + ": protects", [sa.rows("out") for sa in sas]))
    opens = in_file or sa_file(title + ": opens", [sa.rows("in") for sa in sas])
    (folder / f"{name}.in.toml").write_text(opens)


def make(folder):
    captures, scapy = folder / "captures", folder / "scapy"
    captures.mkdir(parents=True, exist_ok=True)
    scapy.mkdir(parents=True, exist_ok=True)

    start = 1_700_000_000_000_000
    write_capture(captures / "mixed.pcap", [(frame, start + 1_003 * i) for i, frame in enumerate(mixed())])

    tunnels = [
        EspSa("four-in-four", 0x1001, 128, 4, 1, outer=4),
        EspSa("six-in-four", 0x1002, 192, 6, 2, outer=4),
        EspSa("four-in-six", 0x1003, 256, 4, 3, outer=6),
        EspSa("six-in-six", 0x1004, 128, 6, 4, outer=6),
    ]
    write_set(scapy, "esp-tunnel", "ESP in tunnel mode", tunnels, [0, 1, 2, 3] * 3)

    transports = [
        EspSa("four-128", 0x2001, 128, 4, 1),
        EspSa("four-192", 0x2002, 192, 4, 2),
        EspSa("six-256", 0x2003, 256, 6, 3),
    ]
    write_set(scapy, "esp-transport", "ESP in transport mode", transports, [0, 1, 2] * 4)

    # The low half wraps in the middle; a high half that is not 0 from the first packet on.
    extended = [
        EspSa("wraps", 0x3001, 256, 4, 1, outer=4, sequence=0xFFFFFFFD, esn=True),
        EspSa("high", 0x3002, 128, 6, 2, sequence=0x1234_0000_0005, esn=True),
    ]
    write_set(scapy, "esp-esn", "ESP with extended sequence numbers", extended, [0, 1] * 5)

    keys = check_psp(json.loads((VECTORS / "psp.json").read_text()))
    psp = [
        PspSa("v0-offset-0", 0x12345678, 0, 4, 1, 0, 50001, keys),
        PspSa("v0-offset-1", 0x9A345678, 0, 4, 2, 1, 50002, keys),
        PspSa("v1-offset-5", 0x1A345678, 1, 4, 3, 5, 50003, keys),
        PspSa("v1-six-offset-0", 0x00000001, 1, 6, 4, 0, 50004, keys),
        PspSa("v1-six-offset-1", 0xFFFFFFFF, 1, 6, 5, 1, 50005, keys),
        PspSa("v0-six-offset-5", 0x80000001, 0, 6, 6, 5, 50006, keys),
    ]
    cookie = [PspSa("v0-cookie", 0x23456789, 0, 4, 7, 3, 50007, keys, vc=0x0123456789ABCDEF)]
    receive = ["", "[psp]", f"device_keys = {toml(keys)}", "receive = true"]
    opens = sa_file("PSP in transport mode: opens", [], head=receive)
    write_set(scapy, "psp-transport", "PSP in transport mode", psp, [0, 1, 2, 3, 4, 5] * 2, in_file=opens)
    write_set(scapy, "psp-cookie", "PSP with a virtualization cookie", cookie, [0, 0, 0], in_file=opens)


def compare(fresh, kept):
    """Every file that a run makes must stand in the repository, byte for byte."""
    differing = []
    made = sorted(path for path in fresh.rglob("*") if path.is_file())
    for path in made:
        twin = kept / path.relative_to(fresh)
        if not twin.is_file() or not filecmp.cmp(path, twin, shallow=False):
            differing.append(str(twin))
    print(f"{len(made) - len(differing)} of {len(made)} files as checked in")
    return differing


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare with the checked-in files instead of writing")
    if not parser.parse_args().check:
        make(VECTORS)
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        make(Path(scratch))
        differing = compare(Path(scratch), VECTORS)
    for path in differing:
        print(f"differs: {path}", file=sys.stderr)
    return 1 if differing else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except InvalidTag:
        sys.exit("a packet made by Scapy does not open by the rules of the specification")
