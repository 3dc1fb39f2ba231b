#!/usr/bin/env bash
# Records tests/vectors/captures/linux.pcap: what two Linux hosts really say to each other, over a veth pair in
# network namespaces of their own: TCP (HTTP, DNS), UDP (DNS, large datagrams), ICMP, fragments, IPv4 options, over
# IPv4 and IPv6. Needs root and: iproute2 ethtool iputils-ping dnsutils curl python3 dumpcap.
set -euo pipefail
cd "$(dirname "$0")/../.."
output=tests/vectors/captures/linux.pcap
left=cryptonic-left right=cryptonic-right
scratch=$(mktemp -d)
trap 'jobs -p | xargs -r kill 2>/dev/null || true
      ip netns del $left 2>/dev/null || true; ip netns del $right 2>/dev/null || true; rm -rf "$scratch"' EXIT

ip netns add $left
ip netns add $right
ip link add east netns $left type veth peer name west netns $right
on() { ip netns exec "$@"; }
set_up() { # NAMESPACE INTERFACE NUMBER
    # What offloads leave to hardware would stand in the capture as it never is on a wire.
    on "$1" ethtool -K "$2" tx off rx off tso off gso off gro off >/dev/null
    on "$1" ip link set lo up
    on "$1" ip link set "$2" up
    on "$1" ip address add "10.0.0.$3/24" dev "$2"
    on "$1" ip address add "fd00:1::$3/64" dev "$2" nodad
}
set_up $left east 1
set_up $right west 2

head -c 20000 /dev/urandom >"$scratch/file"
cat >"$scratch/servers.py" <<'PYTHON'
# A name server that answers every question with one address, over UDP and TCP; and a sink of datagrams.
import socket, struct, threading

def answer(question):
    end = question.index(b"\0", 12) + 5
    kind = struct.unpack(">H", question[end - 4:end - 2])[0]
    data = {1: bytes([192, 0, 2, 80]), 28: bytes.fromhex("20010db8000000000000000000000080"), 16: b"\x0bhello world"}.get(kind, b"")
    count = 1 if data else 0
    head = question[:2] + b"\x85\x80" + struct.pack(">4H", 1, count, 0, 0)
    body = b"\xc0\x0c" + struct.pack(">HHIH", kind, 1, 60, len(data)) + data if data else b""
    return head + question[12:end] + body

def udp(family):
    with socket.socket(family, socket.SOCK_DGRAM) as s:
        if family == socket.AF_INET6: s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        s.bind(("", 53))
        while True:
            question, peer = s.recvfrom(4096)
            s.sendto(answer(question), peer)

def tcp(family):
    with socket.socket(family, socket.SOCK_STREAM) as s:
        if family == socket.AF_INET6: s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(("", 53)); s.listen()
        while True:
            c, _ = s.accept()
            length = struct.unpack(">H", c.recv(2))[0]
            reply = answer(c.recv(length))
            c.sendall(struct.pack(">H", len(reply)) + reply); c.close()

def sink(family):
    with socket.socket(family, socket.SOCK_DGRAM) as s:
        if family == socket.AF_INET6: s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        s.bind(("", 7000))
        while True:
            data, peer = s.recvfrom(65535)
            s.sendto(data[:100], peer)

for f in (socket.AF_INET, socket.AF_INET6):
    for work in (udp, tcp, sink): threading.Thread(target=work, args=(f,)).start()
PYTHON
ip netns exec $right python3 "$scratch/servers.py" &
ip netns exec $right python3 -m http.server --directory "$scratch" --bind :: 8080 >"$scratch/http" 2>&1 &
ip netns exec $left dumpcap -q -P -i east -w "$scratch/capture.pcap" 2>"$scratch/dumpcap" &
recorder=$!
sleep 1

on $left ping -q -c 2 -i 0.2 10.0.0.2 >/dev/null
on $left ping -q -c 2 -i 0.2 fd00:1::2 >/dev/null
on $left ping -q -c 1 -s 4000 10.0.0.2 >/dev/null          # fragments over IPv4
on $left ping -q -c 1 -s 4000 fd00:1::2 >/dev/null         # and over IPv6
on $left ping -q -c 1 -R 10.0.0.2 >/dev/null || true       # IPv4 options
for server in 10.0.0.2 fd00:1::2; do
    for kind in A AAAA TXT; do on $left dig +tries=1 "@$server" $kind name.example >/dev/null; done
    on $left dig +tcp +tries=1 "@$server" A name.example >/dev/null
done
on $left curl -s -o /dev/null http://10.0.0.2:8080/file
on $left curl -s -o /dev/null -g "http://[fd00:1::2]:8080/file"
on $left python3 - <<'PYTHON'
import socket
for family, peer in ((socket.AF_INET, "10.0.0.2"), (socket.AF_INET6, "fd00:1::2")):
    with socket.socket(family, socket.SOCK_DGRAM) as s:
        s.settimeout(2)
        for size in (0, 1, 17, 1472, 8000):
            s.sendto(bytes(i & 255 for i in range(size)), (peer, 7000))
            s.recv(200)
PYTHON
sleep 0.5
kill -TERM $recorder
wait $recorder || true
cp "$scratch/capture.pcap" $output
capinfos -c -y -d $output 2>/dev/null || ls -l $output
