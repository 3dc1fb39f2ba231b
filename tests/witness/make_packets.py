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
        fields = {"id": 0x1000 + number, **fields}
        return IP(src=f"10.0.{src_net}.1", dst=f"10.1.{dst_net}.2", **fields)
    fields = {"fl": 0x10000 + number, **fields}
    return IPv6(src=f"2001:db8:0:{src_net:x}::1", dst=f"2001:db8:1:{dst_net:x}::2", **fields)


def echo(family, number):
    if family == 4:
        return ICMP(id=0x77, seq=number)
    return ICMPv6EchoRequest(id=0x77, seq=number)


def flow(number, family, net, extra=0, **fields):
    """Packet `number` of a flow: TCP, UDP and echo in turn, sizes that give every ESP pad length."""
    head = ip(number, family, net, net, **fields)
    kind = number % 3
    size = extra + 40 + 7 * number
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


OUTER = {4: ("192.0.2.1", "192.0.2.2"), 6: ("2001:db8:ffff::1", "2001:db8:ffff::2")}


class EspSa:
    """One SA of RFC 4303 with the AES-GCM of RFC 4106 or the AES-GMAC of RFC 4543; the IV is the 64-bit sequence number.

    Scapy protects what it can. It knows no short ICV, no implicit IV (RFC 8750) and no BEET mode: such packets are laid
    out here, sealed with AESGCM of `cryptography`.
    """

    # Fields of the clear packets that differ from what `flow` gives them.
    fields = {}
    extra = 0

    def __init__(
        self, name, spi, bits, family, net, outer=None, sequence=0, esn=False,
        gmac=False, icv=16, implicit=False, udp=None, checksum=False, beet=False,
    ):  # fmt: skip
        self.name, self.spi, self.bits, self.family, self.net = name, spi, bits, family, net
        self.outer, self.sequence, self.first, self.esn = outer, sequence, sequence, esn
        self.gmac, self.icv, self.implicit = gmac, icv, implicit
        self.udp, self.checksum, self.beet = udp, checksum, beet
        self.key, self.salt = secret(name, bits // 8), secret(name + " salt", 4)
        if beet and outer != family:
            # What does not cross from one family to the other (RFC 7402 appendix B says nothing of it).
            self.fields = {"id": 0, "flags": "DF"} if family == 4 else {"fl": 0}

    def rows(self, direction):
        rows = {
            "name": self.name,
            "direction": direction,
            "protocol": "esp",
            "mode": "beet" if self.beet else "tunnel" if self.outer else "transport",
            "spi": self.spi,
            "cipher": f"aes-{'gmac' if self.gmac else 'gcm'}-{self.bits}",
            "key": self.key,
            "salt": self.salt,
        }
        if self.icv != 16:
            rows["icv"] = self.icv
        if self.implicit:
            rows["implicit_iv"] = True
        if self.esn:
            rows["esn"] = True
        if self.first:
            rows["sequence"] = self.first if self.first < 1 << 63 else f"0x{self.first:x}"
        if self.outer:
            src, dst = OUTER[self.outer]
            rows["tunnel"] = {"src": src, "dst": dst} | ({} if self.beet or direction == "in" else {"ttl": 64})
        if self.udp and direction == "in":
            rows["udp_encap"] = {"dst_port": self.udp[1]}
        elif self.udp:
            rows["udp_encap"] = {"src_port": self.udp[0], "dst_port": self.udp[1]}
            if (self.outer or self.family) == 6 and not self.checksum:
                rows["udp_encap"]["checksum"] = False
        if self.beet:
            hosts = ("10.0.{0}.1", "10.1.{0}.2") if self.family == 4 else ("2001:db8:0:{0:x}::1", "2001:db8:1:{0:x}::2")
            rows["selector"] = {"src": hosts[0].format(self.net), "dst": hosts[1].format(self.net)}
            return rows
        nets = ("10.0.{0}.0/24", "10.1.{0}.0/24") if self.family == 4 else ("2001:db8:0:{0:x}::/64", "2001:db8:1:{0:x}::/64")
        rows["selector"] = {"src": nets[0].format(self.net), "dst": nets[1].format(self.net)}
        return rows

    def tunnel_header(self):
        if not self.outer:
            return None
        src, dst = OUTER[self.outer]
        if self.outer == 4:
            # Routers never fragment an IPv6 packet, so the tunnel does not either (as Linux: xfrm6_extract_header).
            return IP(src=src, dst=dst, ttl=64, flags="DF" if self.family == 6 else 0)
        return IPv6(src=src, dst=dst, hlim=64)

    def beet_header(self, packet):
        """The inner header with the outer addresses (RFC 7402 appendix B); what has no place in the other family is 0."""
        src, dst = OUTER[self.outer]
        if packet.version == 4:
            tos, ttl, flags, number, label = packet.tos, packet.ttl, packet.flags, packet.id, 0
        else:
            tos, ttl, flags, number, label = packet.tc, packet.hlim, "DF", 0, packet.fl
        if self.outer == 4:
            return IP(src=src, dst=dst, tos=tos, ttl=ttl, flags=flags, id=number)
        return IPv6(src=src, dst=dst, tc=tos, hlim=ttl, fl=label)

    def protect(self, packet):
        self.sequence += 1
        by_hand = self.icv != 16 or self.implicit or self.beet
        sealed = self.protect_by_hand(packet) if by_hand else self.protect_by_scapy(packet)
        if self.checksum:
            sealed[UDP].chksum = None
            sealed = sealed.__class__(bytes(sealed))
        self.check(packet, sealed)
        return sealed

    def protect_by_scapy(self, packet):
        high, low = self.sequence >> 32, self.sequence & 0xFFFFFFFF
        sa = SecurityAssociation(
            ESP, spi=self.spi, seq_num=low, crypt_algo="AES-NULL-GMAC" if self.gmac else "AES-GCM",
            crypt_key=self.key + self.salt, tunnel_header=self.tunnel_header(), esn_en=self.esn, esn=high,
            nat_t_header=UDP(sport=self.udp[0], dport=self.udp[1]) if self.udp else None,
        )  # fmt: skip
        return sa.encrypt(packet, iv=struct.pack(">Q", self.sequence))

    def protect_by_hand(self, packet):
        """RFC 4303 section 2, RFC 4106 sections 3 to 6, RFC 8750."""
        assert not self.gmac and not self.udp
        inner = bytes(packet)
        head = 20 if self.family == 4 else 40
        if self.outer and not self.beet:
            outer, payload, next_header = self.tunnel_header(), inner, 4 if self.family == 4 else 41
        else:
            outer = self.beet_header(packet) if self.beet else packet.copy()
            outer.remove_payload()
            payload, next_header = inner[head:], inner[9] if self.family == 4 else inner[6]
        padding = -(len(payload) + 2) % 4
        clear = payload + bytes(range(1, padding + 1)) + bytes([padding, next_header])
        sequence = struct.pack(">Q", self.sequence)
        aad = struct.pack(">I", self.spi) + (sequence if self.esn else sequence[4:])
        sealed = AESGCM(self.key).encrypt(self.salt + sequence, clear, aad)
        iv = b"" if self.implicit else sequence
        esp = struct.pack(">I", self.spi) + sequence[4:] + iv + sealed[: len(sealed) - 16 + self.icv]
        if outer.version == 4:
            outer.proto, outer.len, outer.chksum = 50, None, None
        else:
            outer.nh, outer.plen = 50, None
        return outer.__class__(bytes(outer / Raw(esp)))

    def check(self, packet, sealed):
        """RFC 4303 section 2, RFC 4106 sections 3 to 5, RFC 4543 section 3 and RFC 3948 section 2, without Scapy."""
        esp = bytes(sealed)[20 if sealed.version == 4 else 40 :]
        if self.udp:
            ports, length, checksum = struct.unpack(">HH", esp[:4]), *struct.unpack(">HH", esp[4:8])
            assert (ports, length, checksum != 0) == (self.udp, len(esp), self.checksum)
            esp = esp[8:]
        sequence = struct.pack(">Q", self.sequence)
        iv = b"" if self.implicit else sequence
        assert esp[: 8 + len(iv)] == struct.pack(">I", self.spi) + sequence[4:] + iv
        aad, body, nonce = esp[:4] + (sequence if self.esn else sequence[4:]), esp[8 + len(iv) :], self.salt + sequence
        if self.gmac:
            clear = body[:-16]
            assert AESGCM(self.key).encrypt(nonce, b"", aad + iv + clear) == body[-16:]
        elif self.icv == 16:
            clear = AESGCM(self.key).decrypt(nonce, body, aad)
        else:
            # The library checks whole tags only; the counter mode beneath is its own inverse.
            text = body[: -self.icv]
            clear = AESGCM(self.key).encrypt(nonce, text, b"")[: len(text)]
            whole = AESGCM(self.key).encrypt(nonce, clear, aad)
            assert whole[: len(body)] == body
        pad, next_header = clear[-2], clear[-1]
        assert clear[-2 - pad : -2] == bytes(range(1, pad + 1)) and len(clear) % 4 == 0
        inner = bytes(packet)
        if self.outer and not self.beet:
            assert (next_header, clear[: -2 - pad]) == (4 if self.family == 4 else 41, inner)
        else:
            inner_head = 20 if self.family == 4 else 40
            protocol = inner[9] if self.family == 4 else inner[6]
            assert (next_header, clear[: -2 - pad]) == (protocol, inner[inner_head:])


# --- PSP -----------------------------------------------------------------------------------------------------------


def psp_key(device_keys, spi, version):
    """SP 800-108 in counter mode over AES-256-CMAC; bit 31 of the SPI chooses the device key."""
    bits = {0: 128, 1: 256, 2: 128, 3: 256}[version]
    key = b""
    for counter in range(1, bits // 128 + 1):
        mac = CMAC(AES256(device_keys[spi >> 31]))
        mac.update(struct.pack(">I", counter) + b"Pv%d\0" % version + struct.pack(">II", spi, bits))
        key += mac.finalize()
    return key


class PspSa:
    """One transmit SA of PSP; its key comes from the receiver's device keys.

    Packets are laid out by Scapy. It seals them too where it can: versions 0 and 1, and a cookie that the crypt offset
    covers. For the rest AESGCM of `cryptography` does.
    """

    fields = {}

    def __init__(
        self, name, spi, version, family, net, offset, source_port, device_keys, vc=None, outer=None,
        sample=False, drop=False, extension=b"", extra=0,
    ):  # fmt: skip
        self.name, self.spi, self.version, self.family, self.net = name, spi, version, family, net
        self.offset, self.source_port, self.vc, self.iv = offset, source_port, vc, 0
        self.outer, self.sample, self.drop, self.extension, self.extra = outer, sample, drop, extension, extra
        self.key = psp_key(device_keys, spi, version)

    def rows(self, direction):
        assert direction == "out"
        rows = {
            "name": self.name,
            "direction": "out",
            "protocol": "psp",
            "mode": "tunnel" if self.outer else "transport",
            "spi": self.spi,
            "version": self.version,
            "key": self.key,
            "crypt_offset": self.offset,
        }
        if self.vc is not None:
            rows["vc"] = struct.pack(">Q", self.vc)
        for bit in ("sample", "drop"):
            if getattr(self, bit):
                rows[bit] = True
        rows["src_port"] = self.source_port
        rows["iv"] = 1
        if self.outer:
            src, dst = OUTER[self.outer]
            rows["tunnel"] = {"src": src, "dst": dst, "ttl": 64}
        dst = f"10.1.{self.net}.0/24" if self.family == 4 else f"2001:db8:1:{self.net:x}::/64"
        rows["selector"] = {"dst": dst}
        return rows

    def protect(self, packet):
        self.iv += 1
        inner = bytes(packet)
        head, protocol = (20, inner[9]) if self.family == 4 else (40, inner[6])
        if self.outer:
            src, dst = OUTER[self.outer]
            # As for ESP: the outer don't-fragment bit is that of the inner header, set for IPv6.
            flags = packet.flags if self.family == 4 else "DF"
            outer = IP(src=src, dst=dst, ttl=64, flags=flags) if self.outer == 4 else IPv6(src=src, dst=dst, hlim=64)
            payload, protocol = inner, 4 if self.family == 4 else 41
        else:
            outer = packet.copy()
            outer.remove_payload()
            payload = inner[head:]
        psp = PSP(
            nexthdr=protocol, hdrextlen=1 + len(self.extension) // 8, cryptoffset=self.offset, version=self.version,
            sample=self.sample, drop=self.drop, spi=self.spi, iv=struct.pack(">Q", self.iv), data=self.extension + payload,
        )  # fmt: skip
        cookie = 0
        if self.vc is not None:
            psp.is_virt, psp.hdrextlen, cookie = 1, psp.hdrextlen + 1, 8
            psp.virtkey, psp.sectoken = self.vc >> 32, self.vc & 0xFFFFFFFF
        if self.version > 1 or cookie > 4 * self.offset:
            body = self.seal(bytes(psp))
        else:
            psp.encrypt(self.key)
            body = bytes(psp)
        self.check(self.extension + payload, body)
        if outer.version == 4:
            outer.proto, outer.len, outer.chksum = 17, None, None
        else:
            outer.nh, outer.plen = 17, None
        udp = UDP(sport=self.source_port, dport=1000, len=8 + len(body), chksum=0)
        return outer.__class__(bytes(outer / Raw(bytes(udp) + body)))

    def seal(self, clear):
        seen = len(clear) if self.version > 1 else 16 + 4 * self.offset
        return clear[:seen] + AESGCM(self.key).encrypt(clear[4:16], clear[seen:], clear[:seen])

    def check(self, payload, body):
        """PSP specification: nonce, AAD and encryption range, without Scapy."""
        seen = len(body) - 16 if self.version > 1 else 16 + 4 * self.offset
        clear = AESGCM(self.key).decrypt(body[4:16], body[seen:], body[:seen])
        cookie = b"" if self.vc is None else struct.pack(">Q", self.vc)
        whole = body[:seen] + clear
        flags = self.sample << 7 | self.drop << 6 | self.version << 2 | (self.vc is not None) << 1 | 1
        lengths = (1 + (len(cookie) + len(self.extension)) // 8, self.offset, flags)
        assert tuple(whole[1:4]) == lengths and whole[16:] == cookie + payload


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
    header = behind_ip + (8 if sa.udp else 0) + 4 if esp else behind_ip + 8 + 2
    return [flipped(frame, -1), flipped(frame, -30), flipped(frame, header, 0x80)]


def write_set(folder, name, title, sas, order, in_file=None, sends=True):
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
        packet = flow(number, sa.family, sa.net, sa.extra, **sa.fields)
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
    if sends:
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

    # Authenticated, not encrypted (RFC 4543); the last with ESN, its high half not 0.
    gmac = [
        EspSa("gmac-128", 0x4001, 128, 4, 1, outer=4, gmac=True),
        EspSa("gmac-192", 0x4002, 192, 6, 2, gmac=True),
        EspSa("gmac-256-esn", 0x4003, 256, 4, 3, outer=6, gmac=True, esn=True, sequence=0x7_FFFF_FFFE),
    ]
    write_set(scapy, "esp-gmac", "ESP with AES-GMAC", gmac, [0, 1, 2] * 4)

    short = [
        EspSa("icv-8", 0x5001, 128, 4, 1, icv=8),
        EspSa("icv-12", 0x5002, 256, 6, 2, outer=4, icv=12),
        EspSa("icv-8-esn", 0x5003, 192, 4, 3, outer=6, icv=8, esn=True, sequence=0xFFFFFFFE),
    ]
    write_set(scapy, "esp-icv", "ESP with short ICVs", short, [0, 1, 2] * 4)

    implicit = [
        EspSa("implicit", 0x6001, 128, 4, 1, outer=4, implicit=True),
        EspSa("implicit-six", 0x6002, 256, 6, 2, implicit=True),
        EspSa("implicit-esn", 0x6003, 256, 6, 3, outer=6, implicit=True, esn=True, sequence=0x1_0000_0000),
    ]
    write_set(scapy, "esp-implicit-iv", "ESP with implicit IVs", implicit, [0, 1, 2] * 4)

    in_udp = [
        EspSa("udp-four-in-four", 0x7001, 128, 4, 1, outer=4, udp=(4500, 4500)),
        EspSa("udp-six-in-four", 0x7002, 256, 6, 2, outer=4, udp=(40001, 4500), gmac=True),
        EspSa("udp-six-in-six", 0x7003, 256, 6, 3, outer=6, udp=(4500, 4500)),
        EspSa("udp-transport", 0x7004, 128, 4, 4, udp=(4500, 4500)),
        EspSa("udp-transport-six", 0x7005, 192, 6, 5, udp=(4500, 4500), checksum=True),
    ]
    write_set(scapy, "esp-udp", "ESP in UDP", in_udp, [0, 1, 2, 3, 4] * 3)

    beet = [
        EspSa("beet-four", 0x8001, 128, 4, 1, outer=4, beet=True),
        EspSa("beet-six", 0x8002, 256, 6, 2, outer=6, beet=True),
    ]
    write_set(scapy, "esp-beet", "ESP in BEET mode", beet, [0, 1] * 6)
    crossing = [
        EspSa("beet-four-in-six", 0x8003, 128, 4, 3, outer=6, beet=True),
        EspSa("beet-six-in-four", 0x8004, 256, 6, 4, outer=4, beet=True),
    ]
    write_set(scapy, "esp-beet-families", "ESP in BEET mode between families", crossing, [0, 1] * 6)

    keys = check_psp(json.loads((VECTORS / "psp.json").read_text()))
    psp = [
        PspSa("v0-offset-0", 0x12345678, 0, 4, 1, 0, 50001, keys),
        PspSa("v0-offset-1", 0x9A345678, 0, 4, 2, 1, 50002, keys),
        PspSa("v1-offset-5", 0x1A345678, 1, 4, 3, 5, 50003, keys),
        PspSa("v1-six-offset-0", 0x00000001, 1, 6, 4, 0, 50004, keys),
        PspSa("v1-six-offset-1", 0xFFFFFFFF, 1, 6, 5, 1, 50005, keys),
        PspSa("v0-six-offset-5", 0x80000001, 0, 6, 6, 5, 50006, keys),
    ]
    receive = ["", "[psp]", f"device_keys = {toml(keys)}", "receive = true"]
    opens = sa_file("PSP: opens", [], head=receive)

    def write_psp(name, title, sas, rounds, sends=True):
        write_set(scapy, name, title, sas, list(range(len(sas))) * rounds, in_file=opens, sends=sends)

    write_psp("psp-transport", "PSP in transport mode", psp, 2)
    tunnels = [
        PspSa("four-in-four", 0x31000001, 0, 4, 1, 0, 50001, keys, outer=4),
        PspSa("six-in-four", 0x31000002, 1, 6, 2, 1, 50002, keys, outer=4),
        PspSa("four-in-six", 0xB1000003, 1, 4, 3, 5, 50003, keys, outer=6),
        PspSa("six-in-six", 0xB1000004, 0, 6, 4, 10, 50004, keys, outer=6),
        PspSa("cookie-six-in-four", 0x31000005, 0, 6, 5, 2, 50005, keys, outer=4, vc=0x0123456789ABCDEF),
        PspSa("gmac-four-in-six", 0x31000006, 2, 4, 6, 0, 50006, keys, outer=6),
    ]
    write_psp("psp-tunnel", "PSP in tunnel mode", tunnels, 2)
    gmac = [
        PspSa("v2", 0x32000001, 2, 4, 1, 0, 50001, keys),
        PspSa("v3", 0xB2000002, 3, 6, 2, 0, 50002, keys),
        PspSa("v3-cookie", 0x32000003, 3, 4, 3, 0, 50003, keys, vc=0xFEDCBA9876543210),
    ]
    write_psp("psp-gmac", "PSP versions 2 and 3", gmac, 3)
    cookie = [
        PspSa("v0-cookie", 0x23456789, 0, 4, 7, 3, 50007, keys, vc=0x0123456789ABCDEF),
        # The offset covers nothing or half of the cookie: what it does not cover is encrypted.
        PspSa("v0-cookie-encrypted", 0x2345678A, 0, 4, 8, 0, 50008, keys, vc=0x0123456789ABCDEF),
        PspSa("v1-cookie-half", 0x2345678B, 1, 6, 9, 1, 50009, keys, vc=0x0123456789ABCDEF),
    ]
    write_psp("psp-cookie", "PSP with a virtualization cookie", cookie, 2)
    header = [
        PspSa("offset-63", 0x33000001, 0, 4, 1, 63, 50001, keys, extra=400),
        PspSa("sample", 0x33000002, 0, 4, 2, 0, 50002, keys, sample=True),
        PspSa("drop-cookie", 0xB3000003, 1, 6, 3, 4, 50003, keys, drop=True, vc=0x1122334455667788),
        PspSa("sample-drop-v2", 0x33000004, 2, 4, 4, 0, 50004, keys, sample=True, drop=True),
    ]
    write_psp("psp-header", "PSP: offset 63, the S and D bits", header, 2)
    extension = [
        PspSa("extension", 0x34000001, 0, 4, 1, 0, 50001, keys, extension=bytes(range(1, 9))),
        PspSa("extension-cookie", 0x34000002, 1, 6, 2, 4, 50002, keys, extension=bytes(range(1, 17)), vc=0x99),
    ]
    write_psp("psp-extension", "PSP with a header extension", extension, 3, sends=False)


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
