#!/usr/bin/env python3
"""Makes esp-forms.json with Scapy, an implementation that is not ours. See README.md."""

import hashlib
import json
from pathlib import Path

from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrHopByHop, IPv6ExtHdrRouting
from scapy.layers.ipsec import ESP, SecurityAssociation
from scapy.packet import Raw

CIPHERS = {"gcm": "AES-GCM", "gmac": "AES-NULL-GMAC"}


def secret(label, length):
    return hashlib.sha256(label.encode()).digest()[:length]


def clear_packet(family, size, extension):
    data = UDP(sport=40000, dport=4789) / Raw(bytes(7 * index % 256 for index in range(size)))
    if family == 4:
        return IP(src="10.0.0.1", dst="10.1.0.1", id=0x1234, ttl=57, tos=0xB9) / data
    head = IPv6(src="2001:db8::1", dst="2001:db8:1::2", fl=0x54321, hlim=57, tc=0xB9)
    if extension == "hop-by-hop and routing":
        head = head / IPv6ExtHdrHopByHop() / IPv6ExtHdrRouting(addresses=["2001:db8:1::2"], segleft=0)
    if extension == "destination options":
        head = head / IPv6ExtHdrDestOpt()
    return head / data


def outer_header(family):
    # RFC 4301's defaults as this project has them: TTL 64, DSCP and ECN copied, flow label 0.
    if family == 4:
        return IP(src="192.0.2.1", dst="192.0.2.2", id=0x77, ttl=64, tos=0xB9)
    return IPv6(src="2001:db8:ff::1", dst="2001:db8:ff::2", hlim=64, tc=0xB9)


def cases():
    number = 0
    for cipher, name in CIPHERS.items():
        for _ in range(2):
            for mode, inner, outer, extension in [
                ("tunnel", 4, 4, None),
                ("tunnel", 4, 6, None),
                ("tunnel", 6, 4, None),
                ("tunnel", 6, 6, None),
                ("transport", 4, 4, None),
                ("transport", 6, 6, None),
                ("transport", 6, 6, "hop-by-hop and routing"),
                ("transport", 6, 6, "destination options"),
            ]:
                for udp in [False, True]:
                    if udp and extension:
                        continue  # Scapy puts the UDP header before the extension headers
                    for esn in [False, True]:
                        number += 1
                        key_octets = [16, 24, 32][number % 3]
                        size = [0, 1, 2, 3, 15, 16, 17, 64, 100, 400][number % 10]
                        if (cipher, mode, inner, outer, udp, esn) == ("gmac", "tunnel", 4, 4, False, True):
                            size = 8900
                        sequence = [1, 0xFFFFFFFF, 0x80000007][number % 3] + (number << 32 if esn else 0)
                        key, salt = secret(f"key {number}", key_octets), secret(f"salt {number}", 4)
                        packet = clear_packet(inner, size, extension)
                        # IPv4 in a tunnel: don't-fragment copied, set for IPv6; identification only without it.
                        tunnel = outer_header(outer) if mode == "tunnel" else None
                        if tunnel is not None and outer == 4 and inner == 6:
                            tunnel.flags, tunnel.id = "DF", 0
                        sa = SecurityAssociation(
                            ESP,
                            spi=0x1000 + number,
                            crypt_algo=name,
                            crypt_key=key + salt,
                            tunnel_header=tunnel,
                            nat_t_header=UDP(sport=4500, dport=4500) if udp else None,
                        )
                        protected = sa.encrypt(
                            packet.__class__(bytes(packet)),
                            seq_num=sequence & 0xFFFFFFFF,
                            iv=sequence.to_bytes(8, "big"),
                            esn_en=esn,
                            esn=sequence >> 32,
                        )
                        yield {
                            "mode": mode,
                            "cipher": cipher,
                            "extension": extension,
                            "udp": udp,
                            "esn": esn,
                            "sequence": hex(sequence),
                            "spi": hex(0x1000 + number),
                            "key": key.hex(),
                            "salt": salt.hex(),
                            "clear": bytes(packet).hex(),
                            "protected": bytes(protected).hex(),
                        }


def main():
    rows = ",\n".join("    " + json.dumps(case) for case in cases())
    origin = "Scapy 2.8.0 with cryptography 50.0.2, by make_esp_forms.py"
    text = f'{{\n  "origin": "{origin}",\n  "cases": [\n{rows}\n  ]\n}}\n'
    Path(__file__).with_name("esp-forms.json").write_text(text, encoding="ascii")


if __name__ == "__main__":
    main()
