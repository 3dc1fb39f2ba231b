-- PSP (PSP Security Protocol, Architecture Specification of 17 November 2022) for Wireshark and tshark, 4.0 or later.
--
--   wireshark -X lua_script:psp.lua FILE
--   tshark -X lua_script:psp.lua -r FILE -O psp
--
-- It decrypts nothing: it shows the header's fields, what is in clear, what is encrypted, and the ICV, which it does
-- not check. UDP destination port 1000, or others: -o psp.udp_port:1000,1001. Whatever it finds wrong has a name to
-- filter on, psp.expert.NAME; the first six are those of the NIC's statuses:
--
--   truncated                the datagram is shorter than a header and an ICV
--   bad_version              the version is none that is defined, so nothing behind the fixed header is dissected
--   bad_header_length        the header extension length has no room for the header, or reaches into the ICV
--   crypt_offset_past_end    encryption would begin behind the payload's last octet
--   reserved_spi             the SPI's low 31 bits are 0
--   reserved_bit             the bit that is always 1 is 0
--   reserved_bits_set        the two bits that are sent as 0 are not
--   gmac_crypt_offset        a version that encrypts nothing has a crypt offset
--   cut_by_capture           the capture kept only the beginning of the packet
--
-- The script uses the name "psp": where another dissector of that name is loaded, only the first of the two works.

local psp = Proto("psp", "PSP Security Protocol")

-- The header without cookie and extension. The crypt offset counts from its end, which is the end of the IV.
local FIXED_HEADER_OCTETS = 16
local COOKIE_OCTETS = 8
local ICV_OCTETS = 16

local TCP, UDP = 6, 17

local NEXT_HEADERS = {
  [1] = "ICMP",
  [4] = "IPv4, tunnel mode",
  [TCP] = "TCP",
  [UDP] = "UDP",
  [41] = "IPv6, tunnel mode",
  [47] = "GRE",
  [50] = "ESP",
  [58] = "ICMPv6",
  [59] = "no next header",
  [132] = "SCTP",
}

local VERSIONS = { [0] = "AES-GCM-128", [1] = "AES-GCM-256", [2] = "AES-GMAC-128", [3] = "AES-GMAC-256" }
local FIRST_GMAC_VERSION = 2

local field = {
  next_header = ProtoField.uint8("psp.next_header", "Next header", base.DEC, NEXT_HEADERS),
  hdr_ext_len = ProtoField.uint8("psp.hdr_ext_len", "Header extension length", base.DEC),
  hdr_len = ProtoField.uint16("psp.hdr_len", "Header length in octets", base.DEC),
  reserved = ProtoField.uint8("psp.reserved", "Reserved", base.DEC, nil, 0xc0),
  crypt_offset = ProtoField.uint8("psp.crypt_offset", "Crypt offset in words", base.DEC, nil, 0x3f),
  crypt_offset_octets = ProtoField.uint16("psp.crypt_offset_octets", "Crypt offset in octets", base.DEC),
  sample = ProtoField.bool("psp.sample", "S, sample at the receiver", 8, nil, 0x80),
  drop = ProtoField.bool("psp.drop", "D, drop after sampling", 8, nil, 0x40),
  version = ProtoField.uint8("psp.version", "Version", base.DEC, VERSIONS, 0x3c),
  vc_present = ProtoField.bool("psp.vc_present", "V, virtualization cookie present", 8, nil, 0x02),
  one = ProtoField.bool("psp.one", "Always 1", 8, nil, 0x01),
  spi = ProtoField.uint32("psp.spi", "SPI", base.HEX),
  spi_device_key = ProtoField.uint32("psp.spi.device_key", "Device key", base.DEC, nil, 0x80000000),
  spi_index = ProtoField.uint32("psp.spi.index", "Index", base.HEX, nil, 0x7fffffff),
  iv = ProtoField.uint64("psp.iv", "IV", base.DEC_HEX),
  iv_time = ProtoField.relative_time("psp.iv_time", "IV as time, of which it counts picoseconds"),
  vc = ProtoField.uint64("psp.vc", "Virtualization cookie", base.HEX),
  vc_encrypted = ProtoField.bytes("psp.vc_encrypted", "Virtualization cookie, encrypted"),
  extension = ProtoField.bytes("psp.extension", "Extension"),
  extension_encrypted = ProtoField.bytes("psp.extension_encrypted", "Extension, encrypted"),
  payload = ProtoField.bytes("psp.payload", "Payload in clear"),
  inner_srcport = ProtoField.uint16("psp.inner.srcport", "Inner source port", base.DEC),
  inner_dstport = ProtoField.uint16("psp.inner.dstport", "Inner destination port", base.DEC),
  encrypted = ProtoField.bytes("psp.encrypted", "Encrypted"),
  icv = ProtoField.bytes("psp.icv", "ICV"),
  undissected = ProtoField.bytes("psp.undissected", "Not dissected"),
}
psp.fields = field

local MALFORMED, PROTOCOL = expert.group.MALFORMED, expert.group.PROTOCOL
local ERROR, WARN, NOTE = expert.severity.ERROR, expert.severity.WARN, expert.severity.NOTE

local finding = {
  truncated = ProtoExpert.new("psp.expert.truncated", "Shorter than a header and an ICV", MALFORMED, ERROR),
  bad_version = ProtoExpert.new("psp.expert.bad_version", "Version is reserved", MALFORMED, ERROR),
  bad_header_length = ProtoExpert.new("psp.expert.bad_header_length", "Header length is impossible", MALFORMED, ERROR),
  crypt_offset_past_end = ProtoExpert.new(
    "psp.expert.crypt_offset_past_end", "Crypt offset lies behind the payload's end", MALFORMED, ERROR),
  reserved_spi = ProtoExpert.new("psp.expert.reserved_spi", "SPI is reserved: its low 31 bits are 0", PROTOCOL, ERROR),
  reserved_bit = ProtoExpert.new("psp.expert.reserved_bit", "The bit that is always 1 is 0", PROTOCOL, WARN),
  reserved_bits_set = ProtoExpert.new(
    "psp.expert.reserved_bits_set", "Reserved bits are sent as 0; a receiver ignores them", PROTOCOL, NOTE),
  gmac_crypt_offset = ProtoExpert.new(
    "psp.expert.gmac_crypt_offset", "This version encrypts nothing and is sent with a crypt offset of 0", PROTOCOL, NOTE),
  cut_by_capture = ProtoExpert.new(
    "psp.expert.cut_by_capture", "The capture kept only the beginning of this packet", expert.group.UNDECODED, NOTE),
}
psp.experts = finding

-- What is shown, step by step; defined below.
local show = {}

function psp.dissector(tvb, pinfo, tree)
  -- The port names PSP as a destination. What merely comes from it is left to others.
  if pinfo.match == pinfo.src_port and pinfo.match ~= pinfo.dst_port then
    return 0
  end
  local captured, length = tvb:captured_len(), tvb:reported_len()
  local packet = {
    tvb = tvb,
    captured = captured,
    -- From the header's first octet to the ICV's last, as it was on the wire.
    length = length,
    tree = captured > 0 and tree:add(psp, tvb(0, captured)) or tree:add(psp),
    summary = {},
  }
  pinfo.cols.protocol = "PSP"
  if captured < length then
    show.finding(packet, packet.tree, "cut_by_capture")
  end
  show.packet(packet)
  pinfo.cols.info = table.concat(packet.summary, ", ")
end

function show.packet(packet)
  show.fixed_header(packet)
  local payload_end = packet.length - ICV_OCTETS
  if payload_end < FIXED_HEADER_OCTETS then
    show.finding(packet, packet.tree, "truncated")
    show.octets(packet, field.undissected, FIXED_HEADER_OCTETS, packet.length)
    return
  end
  if packet.captured < FIXED_HEADER_OCTETS then
    return
  end
  if not VERSIONS[packet.version] then
    show.octets(packet, field.undissected, FIXED_HEADER_OCTETS, packet.length)
    return
  end

  local encrypts = packet.version < FIRST_GMAC_VERSION
  local offset_end = FIXED_HEADER_OCTETS + packet.crypt_offset * 4
  if offset_end > payload_end then
    show.finding(packet, packet.crypt_offset_item, "crypt_offset_past_end")
  end
  if not encrypts and packet.crypt_offset ~= 0 then
    show.finding(packet, packet.crypt_offset_item, "gmac_crypt_offset")
  end
  -- Where the AAD ends and the encrypted octets begin. The GMAC versions authenticate all and encrypt nothing.
  packet.text_start = encrypts and math.min(offset_end, payload_end) or payload_end

  local header_end = (packet.hdr_ext_len + 1) * 8
  local extension_start = FIXED_HEADER_OCTETS + (packet.vc_present and COOKIE_OCTETS or 0)
  if header_end < extension_start or header_end > payload_end then
    show.finding(packet, packet.hdr_ext_len_item, "bad_header_length")
    show.octets(packet, field.undissected, FIXED_HEADER_OCTETS, payload_end)
  else
    if packet.vc_present then
      show.cookie(packet)
    end
    show.clear_then_encrypted(packet, field.extension, field.extension_encrypted, extension_start, header_end)
    show.payload(packet, header_end, payload_end)
    show.octets(packet, field.encrypted, packet.text_start, payload_end)
  end
  show.octets(packet, field.icv, payload_end, packet.length)
end

-- The sixteen octets that every header has, each field as far as it is there.
function show.fixed_header(packet)
  local tree, present = packet.tree, math.min(packet.captured, packet.length)
  local function range(from, count)
    return from + count <= present and packet.tvb(from, count) or nil
  end

  local octet = range(0, 1)
  if octet then
    tree:add(field.next_header, octet)
    packet.next_header = octet:uint()
    local name = NEXT_HEADERS[packet.next_header] or ("next header " .. packet.next_header)
    table.insert(packet.summary, name)
  end

  octet = range(1, 1)
  if octet then
    packet.hdr_ext_len = octet:uint()
    packet.hdr_ext_len_item = tree:add(field.hdr_ext_len, octet)
    -- In units of eight octets, without the first eight.
    tree:add(field.hdr_len, octet, (packet.hdr_ext_len + 1) * 8):set_generated()
  end

  octet = range(2, 1)
  if octet then
    local reserved = tree:add(field.reserved, octet)
    if octet:bitfield(0, 2) ~= 0 then
      show.finding(packet, reserved, "reserved_bits_set")
    end
    packet.crypt_offset = octet:bitfield(2, 6)
    packet.crypt_offset_item = tree:add(field.crypt_offset, octet)
    tree:add(field.crypt_offset_octets, octet, packet.crypt_offset * 4):set_generated()
  end

  octet = range(3, 1)
  if octet then
    tree:add(field.sample, octet)
    tree:add(field.drop, octet)
    local version = tree:add(field.version, octet)
    tree:add(field.vc_present, octet)
    local one = tree:add(field.one, octet)
    packet.version = octet:bitfield(2, 4)
    packet.vc_present = octet:bitfield(6, 1) == 1
    table.insert(packet.summary, VERSIONS[packet.version] or ("version " .. packet.version))
    if not VERSIONS[packet.version] then
      show.finding(packet, version, "bad_version")
    end
    if octet:bitfield(7, 1) == 0 then
      show.finding(packet, one, "reserved_bit")
    end
  end

  local spi = range(4, 4)
  if spi then
    local item = tree:add(field.spi, spi)
    item:add(field.spi_device_key, spi)
    item:add(field.spi_index, spi)
    table.insert(packet.summary, string.format("SPI 0x%08x", spi:uint()))
    if spi:bitfield(1, 31) == 0 then
      show.finding(packet, item, "reserved_spi")
    end
  end

  local iv = range(8, 8)
  if iv then
    tree:add(field.iv, iv)
    tree:add(field.iv_time, iv, show.time(iv:uint64())):set_generated()
    table.insert(packet.summary, "IV " .. tostring(iv:uint64()))
  end
end

-- A count of picoseconds as time; what is below a nanosecond is lost.
function show.time(picoseconds)
  local per_nanosecond, per_second = UInt64.new(1000), UInt64.new(0xd4a51000, 0xe8)
  local nanoseconds = (picoseconds % per_second) / per_nanosecond
  return NSTime.new((picoseconds / per_second):tonumber(), nanoseconds:tonumber())
end

-- The cookie is a number only where all of it is in clear.
function show.cookie(packet)
  local from, to = FIXED_HEADER_OCTETS, FIXED_HEADER_OCTETS + COOKIE_OCTETS
  if packet.text_start < to then
    local item = show.octets(packet, field.vc_encrypted, from, to)
    if item and packet.text_start > from then
      item:append_text(string.format(" (its first %d octets are in clear)", packet.text_start - from))
    end
  elseif to <= packet.captured then
    packet.tree:add(field.vc, packet.tvb(from, COOKIE_OCTETS))
  end
end

-- The payload's clear octets; TCP's and UDP's ports are its first four.
function show.payload(packet, from, to)
  local clear_end = math.min(to, packet.text_start)
  local item = show.octets(packet, field.payload, from, clear_end)
  local has_ports = packet.next_header == TCP or packet.next_header == UDP
  if item and has_ports and math.min(clear_end, packet.captured) >= from + 4 then
    local source, destination = packet.tvb(from, 2), packet.tvb(from + 2, 2)
    item:add(field.inner_srcport, source)
    item:add(field.inner_dstport, destination)
    table.insert(packet.summary, 2, string.format("%d > %d", source:uint(), destination:uint()))
  end
end

-- The octets from `from` up to, without, `to`: those before the encrypted ones as one field, the others as another.
function show.clear_then_encrypted(packet, clear, encrypted, from, to)
  show.octets(packet, clear, from, math.min(to, packet.text_start))
  show.octets(packet, encrypted, math.max(from, packet.text_start), to)
end

-- The octets from `from` up to, without, `to`, as far as they were captured; nil where there are none.
function show.octets(packet, bytes_field, from, to)
  local count = to - from
  local captured = math.min(to, packet.captured) - from
  if captured <= 0 then
    return nil
  end
  local item = packet.tree:add(bytes_field, packet.tvb(from, captured))
  item:append_text(string.format(" (%d octet%s)", count, count == 1 and "" or "s"))
  return item
end

function show.finding(packet, item, name)
  item:add_proto_expert_info(finding[name])
  table.insert(packet.summary, "[" .. name .. "]")
end

psp.prefs.udp_port = Pref.range("UDP destination ports", "1000", "UDP destination ports that carry PSP", 65535)

local udp_ports = DissectorTable.get("udp.port")
local registered = ""

local function register()
  if registered ~= "" then
    udp_ports:remove(registered, psp)
  end
  registered = tostring(psp.prefs.udp_port)
  if registered ~= "" then
    udp_ports:add(registered, psp)
  end
end

psp.prefs_changed = register
register()
