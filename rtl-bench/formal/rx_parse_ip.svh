  // What the proof rx_parse_realign says of windows, and the order of a packet's windows. The Ethernet
  // header counts as the packet's first window has it.
  logic in_packet_q;
  rx_parse_pkg::link_t link_q, link;
  logic [4:0] link_octets;

  assign link = window_i.first ? link_i : link_q;
  assign link_octets = rx_parse_pkg::link_octets(link.tags);

  always @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) in_packet_q <= 1'b0;
    else if (window_valid_i) in_packet_q <= !window_i.last;
  end
  always @(posedge clk_i) if (window_valid_i) link_q <= link;

  always @(*) begin
    if (rst_ni && window_valid_i) begin
      assume (window_i.first == !in_packet_q);
      assume (link_i.tags <= 2'd2 && !(link_i.is_ipv4 && link_i.is_ipv6));
      assume (!window_i.last || link.truncated_ethernet || link.truncated_vlan ||
          frame_octets_i >= {9'd0, link_octets});
    end
  end

  // What later stages rely on where the verdict is 0: lengths fit into the frame, and each other.
  logic fits;
  logic [17:0] end_of_ip;
  assign end_of_ip = {13'd0, rx_parse_pkg::link_octets(ip_o.tags)} + {1'b0, ip_o.length};
  assign fits = !(ip_o.is_ipv4 || ip_o.is_ipv6) ?
      {9'd0, rx_parse_pkg::link_octets(ip_o.tags)} <= frame_octets_o :
      end_of_ip <= {4'd0, frame_octets_o} &&
      ip_o.length >= {2'd0, chain_o.cursor, 2'd0} && chain_o.cursor >= 13'd5;

  logic [7:0] last_past_q, fits_past_q;  // bit n: n + 1 cycles ago
  always @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) last_past_q <= 8'd0;
    else last_past_q <= {last_past_q[6:0], window_valid_o && window_o.last};
  end
  always @(posedge clk_i) fits_past_q <= {fits_past_q[6:0], fits};

  logic before_q;
  rx_parse_pkg::ip_t ip_before_q;
  rx_parse_pkg::chain_t chain_before_q;
  logic [4:0] l3_offset_before_q;
  always @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) before_q <= 1'b0;
    else if (window_valid_o) before_q <= 1'b1;
  end
  always @(posedge clk_i) begin
    if (window_valid_o) begin
      ip_before_q <= ip_o;
      chain_before_q <= chain_o;
      l3_offset_before_q <= result_o.l3_offset;
    end
  end

  always @(*) begin
    if (rst_ni) begin
      InPacket: assert (!window_valid_o || in_packet_q == !window_o.last);
      InPacketHasBegun: assert (!in_packet_q || window_valid_o || before_q);
      Kept: assert (!(window_valid_o || in_packet_q) || (ip_o.tags == link_q.tags &&
          ip_o.is_ipv4 == link_q.is_ipv4 && ip_o.is_ipv6 == link_q.is_ipv6 && ip_o.tags <= 2'd2 &&
          truncated_ethernet_q == link_q.truncated_ethernet &&
          truncated_vlan_q == link_q.truncated_vlan));
      KeptLengths: assert (!(window_valid_o || in_packet_q) || (ip_o.is_ipv6 ?
          chain_o.cursor == 13'd10 && ip_o.length >= 17'd40 :
          chain_o.cursor == {9'd0, header_words_q} && ip_o.length == {1'b0, total_length_q}));
      KeptChain: assert (!(window_valid_o || in_packet_q) || (chain_o.known &&
          chain_o.named_at == 12'd0 && (ip_o.is_ipv6 || !chain_o.more) &&
          !(ip_o.is_ipv4 && ip_o.is_ipv6)));
      FrameHasEthernet: assert (!window_valid_o || !window_o.last || truncated_ethernet_q ||
          truncated_vlan_q || frame_octets_o >= {9'd0, rx_parse_pkg::link_octets(ip_o.tags)});

      // What rx_parse_extension, rx_parse_upper and the result rely on:
      OneVersion: assert (!window_valid_o || (ip_o.tags <= 2'd2 && !(ip_o.is_ipv4 && ip_o.is_ipv6)));
      ChainBegins: assert (!window_valid_o || (chain_o.known && chain_o.named_at == 12'd0 &&
          (ip_o.is_ipv6 ? chain_o.cursor == 13'd10 : !chain_o.more && chain_o.cursor <= 13'd15)));
      SameForAllWindows: assert (!window_valid_o || window_o.first ||
          (before_q && ip_o == ip_before_q && chain_o == chain_before_q &&
          result_o.l3_offset == l3_offset_before_q));
      SameKept: assert (!before_q || window_valid_o || (ip_o == ip_before_q &&
          chain_o == chain_before_q && result_o.l3_offset == l3_offset_before_q));
      L3Offset: assert (!window_valid_o ||
          result_o.l3_offset == rx_parse_pkg::link_octets(ip_o.tags));
      L3OffsetKept: assert (!in_packet_q ||
          result_o.l3_offset == rx_parse_pkg::link_octets(ip_o.tags));
      OkFits: assert (!last_past_q[7] || verdict_o != 7'd0 || fits_past_q[7]);
      VerdictOfTheTable: assert (!last_past_q[7] || verdict_o == 7'd0 ||
          {25'd0, verdict_o} == cryptonic_regs_pkg::STATUS_TRUNCATED_ETHERNET ||
          {25'd0, verdict_o} == cryptonic_regs_pkg::STATUS_TRUNCATED_VLAN ||
          {25'd0, verdict_o} == cryptonic_regs_pkg::STATUS_TRUNCATED_IPV4 ||
          {25'd0, verdict_o} == cryptonic_regs_pkg::STATUS_BAD_IP_VERSION ||
          {25'd0, verdict_o} == cryptonic_regs_pkg::STATUS_BAD_IPV4_HEADER_LENGTH ||
          {25'd0, verdict_o} == cryptonic_regs_pkg::STATUS_BAD_IPV4_TOTAL_LENGTH ||
          {25'd0, verdict_o} == cryptonic_regs_pkg::STATUS_BAD_IPV4_CHECKSUM ||
          {25'd0, verdict_o} == cryptonic_regs_pkg::STATUS_TRUNCATED_IPV6);
    end
  end
