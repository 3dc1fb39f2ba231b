// rx_parse, second part: reads the IP header in the first window, keeps it for the length of the
// packet, and judges Ethernet and IP header.
//
//   IPv4   octet 0         1         2         3        IPv6   octet 0         1         2         3
//               +----+----+---------+---------+---------+           +----+---------+----+---------+---------+
//             0 | 4  |IHL |  class  |   total length    |         0 | 6  |  class  |    flow label          |
//             4 |  identification   |0DM fragment offset|         4 |  payload length   |next hdr |hop limit|
//             8 |   TTL   |protocol |     checksum      |         8 |  source (16)                          |
//            12 |  source                               |        24 |  destination (16)                     |
//            16 |  destination                          |           +---------------------------------------+
//            20 |  options, up to octet 59              |
//               +---------------------------------------+
//
// What is kept stands beside the window it was found in, one cycle behind the input, until the next
// packet's first window. The verdict of the packet stands there 9 cycles behind the input of its last
// window: lengths in 4 cycles, beside them the checksum in 8.
//
// The checksum is the sum of 30 words of 16 bits, those of options that are not there counted as
// zero. It is at most 30 * ffff, whose upper five bits are folded into the lower sixteen; the header
// is right where that gives ffff, for a second fold cannot (1_0000 to 1_001c become 1 to 1d).
module rx_parse_ip (
  input  logic                                clk_i,
  input  logic                                rst_ni,
  input  logic                                window_valid_i,
  input  rx_parse_pkg::window_t               window_i,
  input  logic [rx_parse_pkg::WindowBits-1:0] window_data_i,
  input  rx_parse_pkg::link_t                 link_i,
  input  logic [13:0]                         frame_octets_i,
  // One cycle later:
  output logic                                window_valid_o,
  output rx_parse_pkg::window_t               window_o,
  output logic [rx_parse_pkg::WindowBits-1:0] window_data_o,
  output logic [13:0]                         frame_octets_o,
  output rx_parse_pkg::ip_t                   ip_o,
  output rx_parse_pkg::ip_result_t            result_o,
  output rx_parse_pkg::chain_t                chain_o,
  // 9 cycles later, for a last window: the Status number, 0 where nothing is wrong so far.
  output logic [6:0]                          verdict_o
);

  localparam int WindowBits = rx_parse_pkg::WindowBits;

  // The header's fields.
  logic [31:0] word_0;
  logic [15:0] flags_and_offset;
  logic [15:0] total_length, payload_length;
  logic [3:0] version, header_words;

  assign word_0 = rx_parse_pkg::number32(window_data_i[31:0]);
  assign version = word_0[31:28];
  assign header_words = word_0[27:24];
  assign total_length =
      rx_parse_pkg::number16(window_data_i[8*cryptonic_wire_pkg::IPV4_TOTAL_LENGTH_OFFSET +: 16]);
  assign flags_and_offset = rx_parse_pkg::number16(
      window_data_i[8*cryptonic_wire_pkg::IPV4_FLAGS_AND_FRAGMENT_OFFSET_OFFSET +: 16]);
  assign payload_length =
      rx_parse_pkg::number16(window_data_i[8*cryptonic_wire_pkg::IPV6_PAYLOAD_LENGTH_OFFSET +: 16]);

  // What is kept of them.
  rx_parse_pkg::ip_t ip_d, ip_q;
  rx_parse_pkg::ip_result_t result_d, result_q;
  rx_parse_pkg::chain_t chain_d, chain_q;
  logic [7:0] next_header, ipv6_next_header;
  logic is_fragment, is_later_fragment;

  assign ipv6_next_header = window_data_i[8*cryptonic_wire_pkg::IPV6_NEXT_HEADER_OFFSET +: 8];
  assign next_header = link_i.is_ipv6 ? ipv6_next_header :
      window_data_i[8*cryptonic_wire_pkg::IPV4_PROTOCOL_OFFSET +: 8];
  assign is_later_fragment = !link_i.is_ipv6 &&
      (flags_and_offset & cryptonic_wire_pkg::IPV4_FRAGMENT_OFFSET) != 16'd0;
  assign is_fragment = is_later_fragment || (!link_i.is_ipv6 &&
      (flags_and_offset & cryptonic_wire_pkg::IPV4_MORE_FRAGMENTS) != 16'd0);

  always_comb begin
    ip_d.tags = link_i.tags;
    ip_d.is_ipv4 = link_i.is_ipv4;
    ip_d.is_ipv6 = link_i.is_ipv6;
    ip_d.length = link_i.is_ipv6 ?
        {1'b0, payload_length} + {1'b0, cryptonic_wire_pkg::IPV6_HEADER_LENGTH} :
        {1'b0, total_length};

    result_d.vlan_valid = link_i.tags != 2'd0;
    result_d.vlan = link_i.tags != 2'd0 ? link_i.control : 16'd0;
    result_d.l3_offset = rx_parse_pkg::link_octets(link_i.tags);
    result_d.ip_version = {link_i.is_ipv4 || link_i.is_ipv6, link_i.is_ipv6, 1'b0};
    if (link_i.is_ipv6) begin
      result_d.traffic_class = word_0[27:20];
      result_d.dont_fragment = 1'b1;
      result_d.hop_limit = window_data_i[8*cryptonic_wire_pkg::IPV6_HOP_LIMIT_OFFSET +: 8];
      result_d.flow_label = word_0[19:0];
      result_d.source = window_data_i[8*cryptonic_wire_pkg::IPV6_SOURCE_OFFSET +: 128];
      result_d.destination = window_data_i[8*cryptonic_wire_pkg::IPV6_DESTINATION_OFFSET +: 128];
    end else if (link_i.is_ipv4) begin
      result_d.traffic_class = word_0[23:16];
      result_d.dont_fragment =
          (flags_and_offset & cryptonic_wire_pkg::IPV4_DONT_FRAGMENT) != 16'd0;
      result_d.hop_limit = window_data_i[8*cryptonic_wire_pkg::IPV4_TTL_OFFSET +: 8];
      result_d.flow_label = 20'd0;
      result_d.source = {window_data_i[8*cryptonic_wire_pkg::IPV4_SOURCE_OFFSET +: 32], 96'd0};
      result_d.destination =
          {window_data_i[8*cryptonic_wire_pkg::IPV4_DESTINATION_OFFSET +: 32], 96'd0};
    end else begin
      result_d.traffic_class = 8'd0;
      result_d.dont_fragment = 1'b0;
      result_d.hop_limit = 8'd0;
      result_d.flow_label = 20'd0;
      result_d.source = 128'd0;
      result_d.destination = 128'd0;
    end

    chain_d.known = 1'b1;
    // An extension header is IPv6's: its next header alone is judged, before the choice.
    chain_d.more = link_i.is_ipv6 && rx_parse_pkg::is_extension(ipv6_next_header);
    chain_d.at_fragment = ipv6_next_header == cryptonic_wire_pkg::IP_PROTOCOL_FRAGMENT;
    chain_d.next_header = next_header;
    chain_d.cursor = link_i.is_ipv6 ? cryptonic_wire_pkg::IPV6_HEADER_LENGTH[14:2] :
        {9'd0, header_words};
    chain_d.named_at = 12'd0;
    chain_d.fragment = is_fragment;
    chain_d.later_fragment = is_later_fragment;
  end

  logic window_valid_q;
  rx_parse_pkg::window_t window_q;
  logic [WindowBits-1:0] window_data_q;
  logic [13:0] frame_octets_q;
  logic truncated_ethernet_q, truncated_vlan_q;
  logic [3:0] version_q, header_words_q;
  logic [15:0] total_length_q;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) window_valid_q <= 1'b0;
    else window_valid_q <= window_valid_i;
  end

  always_ff @(posedge clk_i) begin
    window_q <= window_i;
    window_data_q <= window_data_i;
    frame_octets_q <= frame_octets_i;
    if (window_valid_i && window_i.first) begin
      ip_q <= ip_d;
      result_q <= result_d;
      chain_q <= chain_d;
      truncated_ethernet_q <= link_i.truncated_ethernet;
      truncated_vlan_q <= link_i.truncated_vlan;
      version_q <= version;
      header_words_q <= header_words;
      total_length_q <= total_length;
    end
  end

  assign window_valid_o = window_valid_q;
  assign window_o = window_q;
  assign window_data_o = window_data_q;
  assign frame_octets_o = frame_octets_q;
  assign ip_o = ip_q;
  assign result_o = result_q;
  assign chain_o = chain_q;

  // The header's checksum, of a first window.
  logic checksum_wrong;

  rx_parse_ipv4_checksum u_checksum (
    .clk_i,
    .rst_ni,
    .header_valid_i(window_valid_i && window_i.first),
    .header_i(window_data_i[8*60-1:0]),
    .wrong_o(checksum_wrong)
  );

  // Lengths, of a last window. The subtraction is signed: a frame may end inside its Ethernet header.
  logic signed [14:0] ip_octets_2q;  // octets behind the Ethernet header, padding included
  logic truncated_ethernet_2q, truncated_vlan_2q, is_ipv4_2q, is_ipv6_2q;
  logic [3:0] version_2q, header_words_2q;
  logic [15:0] total_length_2q;
  logic [16:0] length_2q;

  always_ff @(posedge clk_i) begin
    ip_octets_2q <= $signed({1'b0, frame_octets_q}) -
        $signed({10'd0, rx_parse_pkg::link_octets(ip_q.tags)});
    truncated_ethernet_2q <= truncated_ethernet_q;
    truncated_vlan_2q <= truncated_vlan_q;
    is_ipv4_2q <= ip_q.is_ipv4;
    is_ipv6_2q <= ip_q.is_ipv6;
    version_2q <= version_q;
    header_words_2q <= header_words_q;
    total_length_2q <= total_length_q;
    length_2q <= ip_q.length;
  end

  // What a length is compared with is taken away from it: of a difference the sign alone is looked at,
  // which leaves the carry chain once, where a comparison would have to leave it twice.
  logic signed [17:0] beyond_length_2;
  logic signed [16:0] beyond_header_2;

  assign beyond_length_2 = $signed({{3{ip_octets_2q[14]}}, ip_octets_2q}) - $signed({1'b0, length_2q});
  assign beyond_header_2 = $signed({1'b0, total_length_2q}) -
      $signed({11'd0, header_words_2q, 2'b00});

  // One flag for each check.
  logic truncated_ethernet_3q, truncated_vlan_3q, is_ipv4_3q, is_ipv6_3q;
  logic below_8_3q, below_20_3q, below_40_3q, below_length_3q;
  logic wrong_version_3q, short_header_3q, short_total_3q;

  always_ff @(posedge clk_i) begin
    truncated_ethernet_3q <= truncated_ethernet_2q;
    truncated_vlan_3q <= truncated_vlan_2q;
    is_ipv4_3q <= is_ipv4_2q;
    is_ipv6_3q <= is_ipv6_2q;
    // Below 0, or bits that say less than 8 (1000), 20 (10100), 40 (101000), without a carry.
    below_8_3q <= ip_octets_2q[14] || ip_octets_2q[13:3] == 11'd0;
    below_20_3q <= ip_octets_2q[14] || (ip_octets_2q[13:5] == 9'd0 &&
        (!ip_octets_2q[4] || ip_octets_2q[3:2] == 2'd0));
    below_40_3q <= ip_octets_2q[14] || (ip_octets_2q[13:6] == 8'd0 &&
        (!ip_octets_2q[5] || ip_octets_2q[4:3] == 2'd0));
    below_length_3q <= beyond_length_2[17];
    wrong_version_3q <= version_2q != (is_ipv6_2q ? 4'd6 : 4'd4);
    short_header_3q <= !header_words_2q[3] && !(header_words_2q[2] && header_words_2q[1:0] != 2'd0);
    short_total_3q <= beyond_header_2[16];
  end

  // The first flag that is set. The version stands before all that only the whole header can say.
  logic [6:0] verdict_4d, verdict_4q;
  logic is_ipv4_4q;

  always_comb begin
    verdict_4d = 7'd0;
    if (truncated_ethernet_3q) begin
      verdict_4d = cryptonic_regs_pkg::STATUS_TRUNCATED_ETHERNET[6:0];
    end else if (truncated_vlan_3q) begin
      verdict_4d = cryptonic_regs_pkg::STATUS_TRUNCATED_VLAN[6:0];
    end else if (is_ipv4_3q) begin
      if (below_20_3q) verdict_4d = cryptonic_regs_pkg::STATUS_TRUNCATED_IPV4[6:0];
      else if (wrong_version_3q) verdict_4d = cryptonic_regs_pkg::STATUS_BAD_IP_VERSION[6:0];
      else if (short_header_3q) verdict_4d = cryptonic_regs_pkg::STATUS_BAD_IPV4_HEADER_LENGTH[6:0];
      else if (short_total_3q) verdict_4d = cryptonic_regs_pkg::STATUS_BAD_IPV4_TOTAL_LENGTH[6:0];
      else if (below_length_3q) verdict_4d = cryptonic_regs_pkg::STATUS_TRUNCATED_IPV4[6:0];
    end else if (is_ipv6_3q) begin
      if (below_8_3q) verdict_4d = cryptonic_regs_pkg::STATUS_TRUNCATED_IPV6[6:0];
      else if (wrong_version_3q) verdict_4d = cryptonic_regs_pkg::STATUS_BAD_IP_VERSION[6:0];
      else if (below_40_3q || below_length_3q) begin
        verdict_4d = cryptonic_regs_pkg::STATUS_TRUNCATED_IPV6[6:0];
      end
    end
  end

  always_ff @(posedge clk_i) begin
    verdict_4q <= verdict_4d;
    is_ipv4_4q <= is_ipv4_3q;
  end

  // The checksum, which is judged last, is there 8 cycles behind the header.
  logic [6:0] verdict_8, verdict_9q;
  logic is_ipv4_8;

  delay_line #(.Width(8), .Delay(4)) u_verdict_delay (
    .clk_i,
    .rst_ni,
    .data_i({is_ipv4_4q, verdict_4q}),
    .data_o({is_ipv4_8, verdict_8})
  );

  always_ff @(posedge clk_i) begin
    if (verdict_8 != 7'd0) verdict_9q <= verdict_8;
    else if (is_ipv4_8 && checksum_wrong) begin
      verdict_9q <= cryptonic_regs_pkg::STATUS_BAD_IPV4_CHECKSUM[6:0];
    end else verdict_9q <= 7'd0;
  end

  assign verdict_o = verdict_9q;

endmodule
