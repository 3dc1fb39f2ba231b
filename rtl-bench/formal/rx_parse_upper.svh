  // A window that is given is a packet's last one where this says so: only of those the IP header's verdict
  // is one, and only their answers are looked at. Everything else may be anything, the octets too.
  (* anyseq *) logic last_i;

  // What went in up to seven cycles ago; bit or entry n: n + 1 cycles ago.
  logic [6:0] last_q, is_ip_q, is_ipv6_q, fits_q, reached_q;
  logic [7*8-1:0] index_q;
  logic [13:0] link_q;  // tags
  logic [7*14-1:0] frame_q;
  logic fits;
  logic [17:0] end_of_ip;

  assign end_of_ip = {13'd0, rx_parse_pkg::link_octets(ip_i.tags)} + {1'b0, ip_i.length};
  // As in rx_parse_ip.svh:
  assign fits = !(ip_i.is_ipv4 || ip_i.is_ipv6) ?
      {9'd0, rx_parse_pkg::link_octets(ip_i.tags)} <= frame_octets_i :
      end_of_ip <= {4'd0, frame_octets_i} && (ip_i.is_ipv6 ? ip_i.length >= 17'd40 :
      ip_i.length >= {2'd0, chain_i.cursor, 2'd0} && chain_i.cursor >= 13'd5);

  always @(posedge clk_i) begin
    last_q <= {last_q[5:0], window_valid_i && last_i};
    is_ip_q <= {is_ip_q[5:0], is_ip};
    is_ipv6_q <= {is_ipv6_q[5:0], ip_i.is_ipv6};
    fits_q <= {fits_q[5:0], fits};
    reached_q <= {reached_q[5:0], chain_i.cursor[12:4] <= {1'b0, window_index_i}};
    index_q <= {index_q[6*8-1:0], window_index_i};
    link_q <= {link_q[11:0], ip_i.tags};
    frame_q <= {frame_q[6*14-1:0], frame_octets_i};
  end

  function automatic logic of_the_ip_header(input logic [6:0] verdict);
    of_the_ip_header = verdict == 7'd0 ||
        {9'd0, verdict} == cryptonic_regs_pkg::STATUS_TRUNCATED_ETHERNET ||
        {9'd0, verdict} == cryptonic_regs_pkg::STATUS_TRUNCATED_VLAN ||
        {9'd0, verdict} == cryptonic_regs_pkg::STATUS_TRUNCATED_IPV4 ||
        {9'd0, verdict} == cryptonic_regs_pkg::STATUS_BAD_IP_VERSION ||
        {9'd0, verdict} == cryptonic_regs_pkg::STATUS_BAD_IPV4_HEADER_LENGTH ||
        {9'd0, verdict} == cryptonic_regs_pkg::STATUS_BAD_IPV4_TOTAL_LENGTH ||
        {9'd0, verdict} == cryptonic_regs_pkg::STATUS_BAD_IPV4_CHECKSUM ||
        {9'd0, verdict} == cryptonic_regs_pkg::STATUS_TRUNCATED_IPV6;
  endfunction

  function automatic logic of_this_part(input logic [6:0] verdict);
    of_this_part = of_the_ip_header(verdict) ||
        {9'd0, verdict} == cryptonic_regs_pkg::STATUS_TRUNCATED_IPV6_EXTENSION ||
        {9'd0, verdict} == cryptonic_regs_pkg::STATUS_TOO_DEEP_EXTENSION_CHAIN ||
        {9'd0, verdict} == cryptonic_regs_pkg::STATUS_FRAGMENT ||
        {9'd0, verdict} == cryptonic_regs_pkg::STATUS_TRUNCATED_UDP ||
        {9'd0, verdict} == cryptonic_regs_pkg::STATUS_BAD_UDP_LENGTH ||
        {9'd0, verdict} == cryptonic_regs_pkg::STATUS_TRUNCATED_ESP ||
        {9'd0, verdict} == cryptonic_regs_pkg::STATUS_RESERVED_SPI ||
        {9'd0, verdict} == cryptonic_regs_pkg::STATUS_TRUNCATED_PSP ||
        {9'd0, verdict} == cryptonic_regs_pkg::STATUS_PSP_RESERVED_BIT ||
        {9'd0, verdict} == cryptonic_regs_pkg::STATUS_PSP_BAD_VERSION ||
        {9'd0, verdict} == cryptonic_regs_pkg::STATUS_PSP_BAD_HEADER_LENGTH ||
        {9'd0, verdict} == cryptonic_regs_pkg::STATUS_PSP_CRYPT_OFFSET_PAST_END ||
        {9'd0, verdict} == cryptonic_regs_pkg::STATUS_TRUNCATED_EESP ||
        {9'd0, verdict} == cryptonic_regs_pkg::STATUS_EESP_FIXED_BITS ||
        {9'd0, verdict} == cryptonic_regs_pkg::STATUS_EESP_BAD_VERSION ||
        {9'd0, verdict} == cryptonic_regs_pkg::STATUS_TRUNCATED_WESP ||
        {9'd0, verdict} == cryptonic_regs_pkg::STATUS_WESP_BAD_VERSION ||
        {9'd0, verdict} == cryptonic_regs_pkg::STATUS_WESP_BAD_HEADER_LENGTH ||
        {9'd0, verdict} == cryptonic_regs_pkg::STATUS_WESP_BAD_NEXT_HEADER;
  endfunction

  always @(*) begin
    // Of rx_parse_realign and rx_parse_ip: tags, one version; of rx_parse_extension: the walk.
    assume (ip_i.tags <= 2'd2 && !(ip_i.is_ipv4 && ip_i.is_ipv6) && frame_octets_i <= 14'd16383);
    assume (!window_valid_i || (ip_i.is_ipv6 ?
        !chain_i.known || (chain_i.cursor >= 13'd10 && chain_i.cursor <= 13'd4106) :
        chain_i.known && !chain_i.more && chain_i.cursor <= 13'd15));
    assume (!window_valid_i || !chain_i.known || chain_i.named_at == 12'd0 || (ip_i.is_ipv6 &&
        chain_i.named_at >= 12'd5 && chain_i.named_at < chain_i.cursor[12:1]));
    // Of rx_parse_realign: the frame's last octet is one of the last beat's.
    assume (!last_i || (frame_octets_i > {window_index_i, 6'd0} &&
        {1'b0, frame_octets_i} <= {1'b0, window_index_i, 6'd0} + 15'd64));
    // Of rx_parse_ip: where the verdict is 0 the lengths fit.
    assume (!last_q[5] || (of_the_ip_header(ip_verdict_6_i) &&
        (ip_verdict_6_i != 7'd0 || fits_q[5])));
  end

  // What the later stages and the result rely on, of a last window whose verdict is 0. 16 bits hold every
  // sum.
  logic ok;
  logic [15:0] l3, l4, l3_end, frame, security, numbers, header, left, crypt;
  assign ok = last_q[6] && verdict_o == 7'd0;
  assign l3 = {11'd0, rx_parse_pkg::link_octets(link_q[13:12])};
  assign l4 = {2'd0, result_o.l4_offset};
  assign l3_end = {2'd0, result_o.l3_end};
  assign frame = {2'd0, frame_q[6*14 +: 14]};
  assign security = {2'd0, result_o.security_offset};
  assign numbers = {2'd0, result_o.numbers_offset};
  assign header = {4'd0, result_o.header_octets};
  assign crypt = {8'd0, result_o.crypt_offset, 2'd0};
  assign left = {8'd0, options_o.left};

  logic is_esp, is_psp, is_eesp, is_wesp, is_other, is_keepalive;
  assign is_other = result_o.protocol == rx_parse_pkg::ProtocolOther;
  assign is_esp = result_o.protocol == rx_parse_pkg::ProtocolEsp;
  assign is_psp = result_o.protocol == rx_parse_pkg::ProtocolPsp;
  assign is_keepalive = result_o.protocol == rx_parse_pkg::ProtocolNatKeepalive;
  assign is_wesp = result_o.protocol == rx_parse_pkg::ProtocolWespv2;
  assign is_eesp = result_o.protocol == rx_parse_pkg::ProtocolEesp;

  always @(*) begin
    ProtocolOfTheTable: assert (!valid_q[6] || result_o.protocol <= 3'd5);
    VerdictOfTheTable: assert (!last_q[6] || of_this_part(verdict_o));
    OffsetsInOrder: assert (!ok || (l3 <= l4 && l4 <= l3_end && l3_end <= frame));
    NextHeaderInside: assert (!ok || (is_ip_q[6] ? {2'd0, result_o.next_header_offset} < l4 &&
        {2'd0, result_o.next_header_offset} > l3 : result_o.next_header_offset == 14'd0));
    EspFits: assert (!ok || !is_esp || (security + 16'd8 <= l3_end && header == 16'd8 &&
        numbers == security + 16'd4));
    PspFits: assert (!ok || !is_psp || (security + header + 16'd16 <= l3_end && header >= 16'd16 &&
        security + 16'd16 + crypt + 16'd16 <= l3_end && numbers == security + 16'd8));
    EespFits: assert (!ok || !is_eesp || (security + header <= l3_end &&
        header == 16'd8 + left && numbers == security + header));
    WespFits: assert (!ok || !is_wesp || (security + 16'd4 + left <= l3_end && header >= left + 16'd12));
    WespEspFits: assert (!ok || !is_wesp || wesp_esp_truncated_o || (numbers + 16'd4 <= l3_end &&
        numbers == security + 16'd8 + left));
    KeepaliveFits: assert (!ok || !is_keepalive || (l4 + 16'd9 == l3_end && result_o.udp));
    SecurityBehindIp: assert (!ok || is_other || is_keepalive || (result_o.udp ?
        security == l4 + (is_wesp ? 16'd12 : 16'd8) : security == l4));
    NoSecurityNoOffsets: assert (!ok || !(is_other || is_keepalive) || (security == 16'd0 &&
        numbers == 16'd0 && header == 16'd0 && crypt == 16'd0 && result_o.session_id == 16'd0 &&
        result_o.psp_flags == 8'd0));
    NumbersInside: assert (!ok || wesp_esp_truncated_o || numbers <= l3_end);

    // What rx_parse_option relies on: options lie in the packet, and so does what a crypt offset may say.
    KindIsTheProtocol: assert (!ok || (option_kind_o.is_eesp == is_eesp &&
        option_kind_o.is_wesp == is_wesp));
    OptionsBegin: assert (!ok || !(is_eesp || is_wesp) || (options_o.more == (left != 16'd0) &&
        !options_o.overrun && !options_o.refused && !options_o.found && l3 + {1'b0, options_o.cursor} ==
        security + (is_eesp ? 16'd8 : 16'd4)));
    NoOptionsElse: assert (!ok || is_eesp || is_wesp || (!options_o.more && !options_o.overrun &&
        !options_o.refused && !options_o.found));
    PayloadBounds: assert (!ok || !is_eesp ||
        ({7'd0, option_kind_o.least_units, 2'd0} >= 16'd8 + left &&
        security + {8'd0, option_kind_o.most_units, 2'd0} <= l3_end));
    // And it is not told about options before the window with the header has come: what is told once
    // stays for the packet.
    KnownOnlyWhenReached: assert (!valid_q[6] || !options_o.known || reached_q[6]);

    // In a packet's last window all options have come.
    OptionsHaveCome: assert (!ok || !(is_eesp || is_wesp) || (options_o.known &&
        {1'b0, options_o.cursor} + left <= {2'd0, index_q[6*8 +: 8], 6'd0} + 16'd64));
  end

  logic [6:0] valid_q;  // windows, last ones or not
  initial valid_q = 7'd0;
  always @(posedge clk_i) valid_q <= {valid_q[5:0], window_valid_i};
  initial last_q = 7'd0;

  always @(posedge clk_i) begin
    CoverEsp: cover (ok && is_esp && !result_o.udp);
    CoverEspInUdp: cover (ok && is_esp && result_o.udp);
    CoverPsp: cover (ok && is_psp && header > 16'd24 && crypt != 16'd0);
    CoverEesp: cover (ok && is_eesp && !result_o.udp && left != 16'd0);
    CoverEespInUdp: cover (ok && is_eesp && result_o.udp);
    CoverWesp: cover (ok && is_wesp && !result_o.udp && left != 16'd0 && !wesp_esp_truncated_o);
    CoverWespInUdp: cover (ok && is_wesp && result_o.udp);
    CoverKeepalive: cover (ok && is_keepalive);
    CoverOther: cover (ok && is_other && !is_ip_q[6]);
    CoverReserved: cover (ok && result_o.reserved_spi);
    CoverFragment: cover (ok && result_o.fragment);
    CoverLongChain: cover (ok && is_eesp && l4 > 16'd2000 && is_ipv6_q[6]);
    CoverPorts: cover (ok && result_o.ports_valid && result_o.next_header ==
        cryptonic_wire_pkg::IP_PROTOCOL_TCP);
  end
