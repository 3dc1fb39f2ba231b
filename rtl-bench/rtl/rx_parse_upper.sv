// rx_parse, fourth part: reads the 16 octets behind the IP header and decides what the packet is.
//
//   octet  0       2       4       6       8              12              16
//         +-------+-------+-------+-------+---------------+---------------+
//   UDP   |source | dest. |length |chksum | first 8 octets of security header
//         +-------+-------+-------+-------+---------------+---------------+
//                                         |marker 00000002| WESPv2        |
//         +---------------+---------------+---------------+---------------+
//   ESP   | SPI           | sequence      |
//         +---------------+---------------+
//   EESP  |1ver R|olen|sid| SPI           |  options, olen octets ...
//         +---------------+---------------+
//   WESPv2|nh|hl|off R|V ol|  options, ol octets ...
//         +---------------+
//   PSP   |nh|el|R off|flags SPI          |  in UDP alone
//
// The IP header ends on a multiple of four octets, so that the sixteen are picked in two steps of four
// places each. All that can be wrong has a flag; the order among them comes last.
//
//   cycle  1 coarse pick, lengths   2 fine pick   3 security header, lengths   4 flags
//          5 one verdict and one set of lengths for each protocol   6 the protocol's   7 sums
module rx_parse_upper (
  input  logic                                clk_i,
  input  logic [15:0]                         psp_udp_port_i,
  input  logic [15:0]                         esp_udp_port_i,
  input  logic [7:0]                          eesp_protocol_i,
  input  logic                                eesp_in_udp_i,
  input  logic [7:0]                          wespv2_protocol_i,
  input  logic                                window_valid_i,
  input  logic [7:0]                          window_index_i,
  input  logic [8*76-1:0]                     window_data_i,
  input  logic [13:0]                         frame_octets_i,
  input  rx_parse_pkg::ip_t                   ip_i,
  input  rx_parse_pkg::chain_t                chain_i,
  input  logic [6:0]                          ip_verdict_6_i,   // of the window given 6 cycles ago
  // 7 cycles later:
  output logic [6:0]                          verdict_o,        // but for options and WESPv2's SPI
  output rx_parse_pkg::upper_result_t         result_o,
  output rx_parse_pkg::option_kind_t          option_kind_o,
  output rx_parse_pkg::options_t              options_o,
  output logic                                numbers_known_o,  // where they begin
  output logic [14:0]                         numbers_cursor_o, // 4 octets before them, from the IP header
  output logic [31:0]                         eesp_spi_o,
  output logic                                wesp_esp_truncated_o
);

  // Cycle 1: the pick's first step, 28 octets from a multiple of 16. Lengths and offsets.
  logic hit_1q, reached_1q;  // the sixteen begin in this window; or in an earlier one
  logic [223:0] coarse_1q;
  logic [1:0] fine_1q;
  logic is_tcp_1q, is_udp_1q, is_esp_1q, is_eesp_1q, is_wesp_1q;
  logic known_1q, more_1q, is_ip_1q, is_ipv6_1q, fragment_1q, later_fragment_1q;
  logic signed [17:0] upper_octets_1q;  // octets behind the IP header, below 0 where it has more
  logic [14:0] l4_cursor_1q;
  logic [13:0] l4_offset_1q, l3_end_1q, next_header_offset_1q;
  logic [7:0] next_header_1q;
  logic [13:0] link_octets;
  logic is_ip;

  assign link_octets = {9'd0, rx_parse_pkg::link_octets(ip_i.tags)};
  assign is_ip = ip_i.is_ipv4 || ip_i.is_ipv6;

  always_ff @(posedge clk_i) begin
    hit_1q <= window_valid_i && chain_i.known && !chain_i.more &&
        chain_i.cursor[12:4] == {1'b0, window_index_i};
    reached_1q <= chain_i.known && !chain_i.more &&
        chain_i.cursor[12:4] <= {1'b0, window_index_i};
    case (chain_i.cursor[3:2])
      2'd0: coarse_1q <= window_data_i[0 +: 224];
      2'd1: coarse_1q <= window_data_i[128 +: 224];
      2'd2: coarse_1q <= window_data_i[256 +: 224];
      default: coarse_1q <= window_data_i[384 +: 224];
    endcase
    fine_1q <= chain_i.cursor[1:0];
    is_tcp_1q <= chain_i.next_header == cryptonic_wire_pkg::IP_PROTOCOL_TCP;
    is_udp_1q <= is_ip && chain_i.next_header == cryptonic_wire_pkg::IP_PROTOCOL_UDP;
    is_esp_1q <= chain_i.next_header == cryptonic_wire_pkg::IP_PROTOCOL_ESP;
    is_eesp_1q <= eesp_protocol_i != 8'd0 && chain_i.next_header == eesp_protocol_i;
    is_wesp_1q <= wespv2_protocol_i != 8'd0 && chain_i.next_header == wespv2_protocol_i;
    known_1q <= chain_i.known;
    more_1q <= chain_i.more;
    is_ip_1q <= is_ip;
    is_ipv6_1q <= ip_i.is_ipv6;
    fragment_1q <= chain_i.fragment;
    later_fragment_1q <= chain_i.later_fragment;
    upper_octets_1q <= $signed({1'b0, ip_i.length}) - $signed({3'd0, chain_i.cursor, 2'd0});
    l4_cursor_1q <= {chain_i.cursor, 2'd0};
    l4_offset_1q <= link_octets + (is_ip ? {chain_i.cursor[11:0], 2'd0} : 14'd0);
    l3_end_1q <= is_ip ? link_octets + ip_i.length[13:0] : frame_octets_i;
    next_header_1q <= is_ip ? chain_i.next_header : 8'd0;
    if (!is_ip) next_header_offset_1q <= 14'd0;
    else if (chain_i.named_at != 12'd0) begin
      next_header_offset_1q <= link_octets + {chain_i.named_at[10:0], 3'd0};
    end else if (ip_i.is_ipv6) begin
      next_header_offset_1q <= link_octets + cryptonic_wire_pkg::IPV6_NEXT_HEADER_OFFSET[13:0];
    end else begin
      next_header_offset_1q <= link_octets + cryptonic_wire_pkg::IPV4_PROTOCOL_OFFSET[13:0];
    end
  end

  // Cycle 2: the pick's second step, kept for the packet's later windows.
  logic [127:0] upper_2q;
  logic is_udp_2q, is_esp_2q, is_eesp_2q, is_wesp_2q;
  logic known_2q, reached_2q, more_2q, is_ip_2q, is_ipv6_2q, fragment_2q;
  logic has_ports_2q;
  logic signed [17:0] upper_octets_2q, security_octets_2q;
  logic [14:0] l4_cursor_2q;
  logic [13:0] l4_offset_2q, l3_end_2q, next_header_offset_2q;
  logic [7:0] next_header_2q;

  always_ff @(posedge clk_i) begin
    if (hit_1q) upper_2q <= coarse_1q[{1'b0, fine_1q, 5'd0} +: 128];
    is_udp_2q <= is_udp_1q;
    is_esp_2q <= is_esp_1q;
    is_eesp_2q <= is_eesp_1q;
    is_wesp_2q <= is_wesp_1q;
    known_2q <= known_1q;
    reached_2q <= reached_1q;
    more_2q <= more_1q;
    is_ip_2q <= is_ip_1q;
    is_ipv6_2q <= is_ipv6_1q;
    fragment_2q <= is_ip_1q && fragment_1q;
    has_ports_2q <= is_ip_1q && (is_tcp_1q || is_udp_1q) && !later_fragment_1q &&
        !upper_octets_1q[17] && upper_octets_1q[16:2] != 15'd0;
    upper_octets_2q <= upper_octets_1q;
    security_octets_2q <= upper_octets_1q - (is_udp_1q ? 18'sd8 : 18'sd0);
    l4_cursor_2q <= l4_cursor_1q;
    l4_offset_2q <= l4_offset_1q;
    l3_end_2q <= l3_end_1q;
    next_header_offset_2q <= next_header_offset_1q;
    next_header_2q <= next_header_1q;
  end

  // Cycle 3: the security header's place follows from the protocol. What is compared with a length in
  // cycle 4 is made ready here, as octets beyond a fixed number.
  logic [63:0] security_3q;
  logic [31:0] wesp_3q;
  logic [4:0] wesp_least_units_3q;  // header, options and ESP's header, in 4-octet units
  logic [15:0] source_port_3q, destination_port_3q, udp_length_3q;
  logic to_psp_3q, to_esp_3q;
  logic upper_below_0_3q, upper_below_8_3q, upper_below_12_3q;
  logic signed [17:0] upper_octets_3q;
  logic security_below_4_3q, security_below_8_3q, security_below_16_3q, security_below_32_3q;
  logic security_is_1_3q, wesp_below_4_3q;
  logic signed [17:0] beyond_8_3q, beyond_24_3q, beyond_32_3q, wesp_beyond_4_3q, wesp_beyond_12_3q;
  logic signed [17:0] security_octets_3q;
  logic is_udp_3q, is_esp_3q, is_eesp_3q, is_wesp_3q;
  logic known_3q, reached_3q, more_3q, is_ipv6_3q, fragment_3q, has_ports_3q;
  logic [14:0] l4_cursor_3q;
  logic [13:0] l4_offset_3q, l3_end_3q, next_header_offset_3q;
  logic [7:0] next_header_3q;
  logic [15:0] destination_port_2;
  logic [6:0] wesp_least_octets_2;

  assign wesp_least_octets_2 = {1'b0, is_udp_2q ? upper_2q[125:120] : upper_2q[29:24]} + 7'd15;
  assign destination_port_2 = rx_parse_pkg::number16(upper_2q[16 +: 16]);

  always_ff @(posedge clk_i) begin
    security_3q <= is_udp_2q ? upper_2q[127:64] : upper_2q[63:0];
    wesp_3q <= is_udp_2q ? upper_2q[127:96] : upper_2q[31:0];
    wesp_least_units_3q <= wesp_least_octets_2[6:2];
    source_port_3q <= rx_parse_pkg::number16(upper_2q[0 +: 16]);
    destination_port_3q <= destination_port_2;
    udp_length_3q <= rx_parse_pkg::number16(upper_2q[32 +: 16]);
    to_psp_3q <= is_udp_2q && has_ports_2q && psp_udp_port_i != 16'd0 &&
        destination_port_2 == psp_udp_port_i;
    to_esp_3q <= is_udp_2q && has_ports_2q && esp_udp_port_i != 16'd0 &&
        destination_port_2 == esp_udp_port_i;
    // Below 0, or bits that say less than the number: comparisons without a carry.
    upper_below_0_3q <= upper_octets_2q[17];
    upper_below_8_3q <= upper_octets_2q[17] || upper_octets_2q[16:3] == 14'd0;
    upper_below_12_3q <= upper_octets_2q[17] || (upper_octets_2q[16:4] == 13'd0 &&
        upper_octets_2q[3:2] != 2'b11);
    upper_octets_3q <= upper_octets_2q;
    security_below_4_3q <= security_octets_2q[17] || security_octets_2q[16:2] == 15'd0;
    security_below_8_3q <= security_octets_2q[17] || security_octets_2q[16:3] == 14'd0;
    security_below_16_3q <= security_octets_2q[17] || security_octets_2q[16:4] == 13'd0;
    security_below_32_3q <= security_octets_2q[17] || security_octets_2q[16:5] == 12'd0;
    security_is_1_3q <= security_octets_2q == 18'sd1;
    // In UDP the marker stands before it.
    wesp_below_4_3q <= security_octets_2q[17] || (security_octets_2q[16:3] == 14'd0 &&
        (is_udp_2q || !security_octets_2q[2]));
    beyond_8_3q <= security_octets_2q - 18'sd8;
    beyond_24_3q <= security_octets_2q - 18'sd24;
    beyond_32_3q <= security_octets_2q - 18'sd32;
    wesp_beyond_4_3q <= security_octets_2q - (is_udp_2q ? 18'sd8 : 18'sd4);
    wesp_beyond_12_3q <= security_octets_2q - (is_udp_2q ? 18'sd16 : 18'sd12);
    security_octets_3q <= security_octets_2q;
    is_udp_3q <= is_udp_2q;
    is_esp_3q <= is_ip_2q && is_esp_2q;
    is_eesp_3q <= is_ip_2q && is_eesp_2q && !is_esp_2q && !is_udp_2q;
    is_wesp_3q <= is_ip_2q && is_wesp_2q && !is_eesp_2q && !is_esp_2q && !is_udp_2q;
    known_3q <= known_2q;
    reached_3q <= reached_2q;
    more_3q <= more_2q;
    is_ipv6_3q <= is_ipv6_2q;
    fragment_3q <= fragment_2q;
    has_ports_3q <= has_ports_2q;
    l4_cursor_3q <= l4_cursor_2q;
    l4_offset_3q <= l4_offset_2q;
    l3_end_3q <= l3_end_2q;
    next_header_offset_3q <= next_header_offset_2q;
    next_header_3q <= next_header_2q;
  end

  // Cycle 4: flags. The fields, numbers at last:
  logic [31:0] first_word_3, second_word_3;
  logic [7:0] psp_flags_3, psp_extension_3;
  logic [5:0] psp_crypt_3;
  logic [7:0] eesp_first_3, eesp_options_3, wesp_length_3;
  logic [5:0] wesp_options_3;
  logic [8:0] least_octets_3;
  logic signed [18:0] beyond_psp_3, beyond_psp_crypt_3, beyond_eesp_3, beyond_wesp_3;
  logic signed [18:0] beyond_wesp_esp_3;
  logic signed [6:0] beyond_wesp_length_3;

  assign first_word_3 = rx_parse_pkg::number32(security_3q[31:0]);
  assign second_word_3 = rx_parse_pkg::number32(security_3q[63:32]);
  assign psp_extension_3 = security_3q[15:8];
  assign psp_crypt_3 = security_3q[21:16];
  assign psp_flags_3 = security_3q[31:24];
  assign eesp_first_3 = security_3q[7:0];
  assign eesp_options_3 = security_3q[15:8];
  assign wesp_length_3 = wesp_3q[15:8];
  assign wesp_options_3 = wesp_3q[29:24];
  // What a length is compared with is taken away from it: of a difference the sign alone is looked at,
  // which leaves the carry chain once, where a comparison would have to leave it twice.
  assign beyond_psp_3 = $signed({beyond_24_3q[17], beyond_24_3q}) - $signed({8'd0, psp_extension_3, 3'd0});
  assign beyond_psp_crypt_3 = $signed({beyond_32_3q[17], beyond_32_3q}) - $signed({11'd0, psp_crypt_3, 2'd0});
  assign beyond_eesp_3 = $signed({beyond_8_3q[17], beyond_8_3q}) - $signed({11'd0, eesp_options_3});
  assign beyond_wesp_3 = $signed({wesp_beyond_4_3q[17], wesp_beyond_4_3q}) - $signed({13'd0, wesp_options_3});
  assign beyond_wesp_esp_3 = $signed({wesp_beyond_12_3q[17], wesp_beyond_12_3q}) -
      $signed({13'd0, wesp_options_3});
  assign beyond_wesp_length_3 = $signed({1'b0, wesp_length_3[7:2]}) -
      $signed({2'd0, wesp_least_units_3q});
  // Rounded up to units of 4 octets.
  assign least_octets_3 = {1'b0, eesp_options_3} + 9'd11;

  // What the first word of ESP is.
  logic word_zero_4q, word_reserved_4q, word_wesp_4q, word_eesp_4q, keepalive_4q;
  // UDP.
  logic udp_length_wrong_4q;
  // PSP.
  logic psp_zero_bit_4q, psp_version_4q, psp_spi_4q, psp_extension_4q, psp_length_4q, psp_crypt_4q;
  // EESP.
  logic eesp_first_bit_4q, eesp_version_4q, eesp_reserved_4q, spi_zero_4q, eesp_options_4q;
  logic [6:0] least_units_4q;
  logic [5:0] most_units_4q;
  // WESPv2.
  logic wesp_version_4q, wesp_length_wrong_4q, wesp_length_odd_4q, wesp_next_header_4q;
  logic wesp_options_wrong_4q, wesp_esp_truncated_4q;
  // What goes on.
  logic [63:0] security_4q;
  logic [31:0] wesp_4q;
  logic [15:0] source_port_4q, destination_port_4q;
  logic to_psp_4q, to_esp_4q, truncated_extension_4q, too_deep_4q;
  logic upper_below_8_4q, upper_below_12_4q;
  logic security_below_4_4q, security_below_8_4q, security_below_16_4q, security_below_32_4q;
  logic wesp_below_4_4q;
  logic is_udp_4q, is_esp_4q, is_eesp_4q, is_wesp_4q, reached_4q, fragment_4q, has_ports_4q;
  logic [14:0] l4_cursor_4q;
  logic [13:0] l4_offset_4q, l3_end_4q, next_header_offset_4q;
  logic [7:0] next_header_4q;

  always_ff @(posedge clk_i) begin
    word_zero_4q <= first_word_3 == cryptonic_wire_pkg::ESP_NON_ESP_MARKER;
    word_reserved_4q <= first_word_3 <= cryptonic_wire_pkg::ESP_LAST_RESERVED_SPI;
    word_wesp_4q <= wespv2_protocol_i != 8'd0 &&
        first_word_3 == cryptonic_wire_pkg::WESPV2_UDP_MARKER;
    word_eesp_4q <= eesp_in_udp_i && first_word_3[31];
    keepalive_4q <= security_is_1_3q &&
        security_3q[7:0] == cryptonic_wire_pkg::ESP_NAT_KEEPALIVE;
    udp_length_wrong_4q <= $signed({2'd0, udp_length_3q}) != upper_octets_3q;

    psp_zero_bit_4q <= (psp_flags_3 & cryptonic_wire_pkg::PSP_ONE) == 8'd0;
    psp_version_4q <= psp_flags_3[5:4] != 2'd0;  // code points 4 to 15
    psp_spi_4q <= second_word_3[30:0] == 31'd0;
    psp_extension_4q <= psp_extension_3 < 8'd2 && (psp_extension_3 == 8'd0 ||
        (psp_flags_3 & cryptonic_wire_pkg::PSP_VIRTUALIZATION_COOKIE) != 8'd0);
    // (extension length + 1) * 8 + ICV > octets
    psp_length_4q <= beyond_psp_3[18];
    psp_crypt_4q <= beyond_psp_crypt_3[18];

    eesp_first_bit_4q <= (eesp_first_3 & cryptonic_wire_pkg::EESP_ONE) == 8'd0;
    eesp_version_4q <= (eesp_first_3 & cryptonic_wire_pkg::EESP_VERSION) != 8'd0;
    eesp_reserved_4q <= (eesp_first_3 & cryptonic_wire_pkg::EESP_RESERVED) != 8'd0;
    spi_zero_4q <= second_word_3 == 32'd0;
    eesp_options_4q <= beyond_eesp_3[18];
    // A payload offset lies behind the options, which end at 8 + their length, and in the packet.
    least_units_4q <= least_octets_3[8:2];
    most_units_4q <= !security_octets_3q[17] && security_octets_3q[16:8] != 9'd0 ? 6'd63 :
        security_octets_3q[7:2];

    wesp_version_4q <= {6'd0, wesp_3q[31:30]} != cryptonic_wire_pkg::WESPV2_VERSION;
    // Below 12, no multiple of 4, or below header, options and ESP's header.
    wesp_length_wrong_4q <= wesp_length_3[1:0] != 2'd0 ||
        beyond_wesp_length_3[6];
    wesp_length_odd_4q <= wesp_length_3[2] && is_ipv6_3q && !is_udp_3q;
    wesp_next_header_4q <= wesp_3q[23:18] == 6'd0 &&
        wesp_3q[7:0] != cryptonic_wire_pkg::IP_PROTOCOL_NO_NEXT_HEADER;
    wesp_options_wrong_4q <= beyond_wesp_3[18];
    wesp_esp_truncated_4q <= beyond_wesp_esp_3[18];

    truncated_extension_4q <= is_ipv6_3q && (!known_3q || upper_below_0_3q);
    too_deep_4q <= is_ipv6_3q && more_3q;
    security_4q <= security_3q;
    wesp_4q <= wesp_3q;
    source_port_4q <= source_port_3q;
    destination_port_4q <= destination_port_3q;
    to_psp_4q <= to_psp_3q;
    to_esp_4q <= to_esp_3q && !to_psp_3q;
    upper_below_8_4q <= upper_below_8_3q;
    upper_below_12_4q <= upper_below_12_3q;
    security_below_4_4q <= security_below_4_3q;
    security_below_8_4q <= security_below_8_3q;
    security_below_16_4q <= security_below_16_3q;
    security_below_32_4q <= security_below_32_3q;
    wesp_below_4_4q <= wesp_below_4_3q;
    is_udp_4q <= is_udp_3q;
    is_esp_4q <= is_esp_3q;
    is_eesp_4q <= is_eesp_3q;
    is_wesp_4q <= is_wesp_3q;
    reached_4q <= reached_3q;
    fragment_4q <= fragment_3q;
    has_ports_4q <= has_ports_3q;
    l4_cursor_4q <= l4_cursor_3q;
    l4_offset_4q <= l4_offset_3q;
    l3_end_4q <= l3_end_3q;
    next_header_offset_4q <= next_header_offset_3q;
    next_header_4q <= next_header_3q;
  end

  // Cycle 5: which protocol it is, and what each of them would say.
  logic [6:0] early_verdict_4, psp_verdict_4, eesp_verdict_4, wesp_verdict_4, esp_verdict_4;
  logic is_not_udp_security_4, udp_esp_4;

  always_comb begin
    if (truncated_extension_4q) begin
      early_verdict_4 = cryptonic_regs_pkg::STATUS_TRUNCATED_IPV6_EXTENSION[6:0];
    end else if (too_deep_4q) begin
      early_verdict_4 = cryptonic_regs_pkg::STATUS_TOO_DEEP_EXTENSION_CHAIN[6:0];
    end else if (fragment_4q) begin
      // IKE shares ESP's port and may come in fragments; its marker may be cut off.
      early_verdict_4 = is_esp_4q || is_eesp_4q || is_wesp_4q || to_psp_4q ||
          (to_esp_4q && (upper_below_12_4q || !word_zero_4q)) ?
          cryptonic_regs_pkg::STATUS_FRAGMENT[6:0] : 7'd0;
    end else if (is_udp_4q && upper_below_8_4q) begin
      early_verdict_4 = cryptonic_regs_pkg::STATUS_TRUNCATED_UDP[6:0];
    end else if ((to_psp_4q || to_esp_4q) && udp_length_wrong_4q) begin
      early_verdict_4 = cryptonic_regs_pkg::STATUS_BAD_UDP_LENGTH[6:0];
    end else begin
      early_verdict_4 = 7'd0;
    end
  end

  always_comb begin
    psp_verdict_4 = 7'd0;
    if (security_below_16_4q) begin
      psp_verdict_4 = cryptonic_regs_pkg::STATUS_TRUNCATED_PSP[6:0];
    end else if (psp_zero_bit_4q) begin
      psp_verdict_4 = cryptonic_regs_pkg::STATUS_PSP_RESERVED_BIT[6:0];
    end else if (psp_version_4q) begin
      psp_verdict_4 = cryptonic_regs_pkg::STATUS_PSP_BAD_VERSION[6:0];
    end else if (psp_spi_4q) begin
      psp_verdict_4 = cryptonic_regs_pkg::STATUS_RESERVED_SPI[6:0];
    end else if (psp_extension_4q) begin
      psp_verdict_4 = cryptonic_regs_pkg::STATUS_PSP_BAD_HEADER_LENGTH[6:0];
    end else if (security_below_32_4q) begin
      psp_verdict_4 = cryptonic_regs_pkg::STATUS_TRUNCATED_PSP[6:0];
    end else if (psp_length_4q) begin
      psp_verdict_4 = cryptonic_regs_pkg::STATUS_PSP_BAD_HEADER_LENGTH[6:0];
    end else if (psp_crypt_4q) begin
      psp_verdict_4 = cryptonic_regs_pkg::STATUS_PSP_CRYPT_OFFSET_PAST_END[6:0];
    end
  end

  always_comb begin
    eesp_verdict_4 = 7'd0;
    if (security_below_8_4q) begin
      eesp_verdict_4 = cryptonic_regs_pkg::STATUS_TRUNCATED_EESP[6:0];
    end else if (eesp_first_bit_4q) begin
      eesp_verdict_4 = cryptonic_regs_pkg::STATUS_EESP_FIXED_BITS[6:0];
    end else if (eesp_version_4q) begin
      eesp_verdict_4 = cryptonic_regs_pkg::STATUS_EESP_BAD_VERSION[6:0];
    end else if (eesp_reserved_4q) begin
      eesp_verdict_4 = cryptonic_regs_pkg::STATUS_EESP_FIXED_BITS[6:0];
    end else if (spi_zero_4q) begin
      eesp_verdict_4 = cryptonic_regs_pkg::STATUS_RESERVED_SPI[6:0];
    end else if (eesp_options_4q) begin
      eesp_verdict_4 = cryptonic_regs_pkg::STATUS_TRUNCATED_EESP[6:0];
    end
  end

  always_comb begin
    wesp_verdict_4 = 7'd0;
    if (wesp_below_4_4q) begin
      wesp_verdict_4 = cryptonic_regs_pkg::STATUS_TRUNCATED_WESP[6:0];
    end else if (wesp_version_4q) begin
      wesp_verdict_4 = cryptonic_regs_pkg::STATUS_WESP_BAD_VERSION[6:0];
    end else if (wesp_length_wrong_4q) begin
      wesp_verdict_4 = cryptonic_regs_pkg::STATUS_WESP_BAD_HEADER_LENGTH[6:0];
    end else if (wesp_next_header_4q) begin
      wesp_verdict_4 = cryptonic_regs_pkg::STATUS_WESP_BAD_NEXT_HEADER[6:0];
    end else if (wesp_length_odd_4q) begin
      wesp_verdict_4 = cryptonic_regs_pkg::STATUS_WESP_BAD_HEADER_LENGTH[6:0];
    end else if (wesp_options_wrong_4q) begin
      wesp_verdict_4 = cryptonic_regs_pkg::STATUS_TRUNCATED_WESP[6:0];
    end
  end

  always_comb begin
    esp_verdict_4 = 7'd0;
    if (security_below_8_4q) esp_verdict_4 = cryptonic_regs_pkg::STATUS_TRUNCATED_ESP[6:0];
    else if (word_zero_4q) esp_verdict_4 = cryptonic_regs_pkg::STATUS_RESERVED_SPI[6:0];
  end

  // At ESP's port: a keepalive, a marker that says it is no ESP, or one of three protocols.
  assign is_not_udp_security_4 = keepalive_4q || (!security_below_4_4q && word_zero_4q);
  assign udp_esp_4 = to_esp_4q && !fragment_4q && !is_not_udp_security_4;

  logic [6:0] early_verdict_5q, psp_verdict_5q, eesp_verdict_5q, wesp_verdict_5q, esp_verdict_5q;
  logic use_keepalive_5q, use_psp_5q, use_eesp_5q, use_wesp_5q, use_esp_5q;
  logic word_reserved_5q, wesp_esp_truncated_5q;
  logic [6:0] least_units_5q;
  logic [5:0] most_units_5q;
  logic [63:0] security_5q;
  logic [31:0] wesp_5q;
  logic [15:0] source_port_5q, destination_port_5q;
  logic is_udp_5q, reached_5q, fragment_5q, has_ports_5q;
  logic [14:0] l4_cursor_5q;
  logic [13:0] l4_offset_5q, l3_end_5q, next_header_offset_5q;
  logic [7:0] next_header_5q;

  always_ff @(posedge clk_i) begin
    early_verdict_5q <= early_verdict_4;
    psp_verdict_5q <= psp_verdict_4;
    eesp_verdict_5q <= eesp_verdict_4;
    wesp_verdict_5q <= wesp_verdict_4;
    esp_verdict_5q <= esp_verdict_4;
    use_keepalive_5q <= to_esp_4q && !fragment_4q && keepalive_4q;
    use_psp_5q <= to_psp_4q && !fragment_4q;
    use_wesp_5q <= is_wesp_4q || (udp_esp_4 && !security_below_8_4q && word_wesp_4q);
    use_eesp_5q <= is_eesp_4q || (udp_esp_4 && !security_below_8_4q && word_eesp_4q);
    use_esp_5q <= is_esp_4q || (udp_esp_4 &&
        (security_below_8_4q || (!word_wesp_4q && !word_eesp_4q)));
    word_reserved_5q <= word_reserved_4q;
    wesp_esp_truncated_5q <= wesp_esp_truncated_4q;
    least_units_5q <= least_units_4q;
    most_units_5q <= most_units_4q;
    security_5q <= security_4q;
    wesp_5q <= wesp_4q;
    source_port_5q <= source_port_4q;
    destination_port_5q <= destination_port_4q;
    is_udp_5q <= is_udp_4q;
    reached_5q <= reached_4q;
    fragment_5q <= fragment_4q;
    has_ports_5q <= has_ports_4q;
    l4_cursor_5q <= l4_cursor_4q;
    l4_offset_5q <= l4_offset_4q;
    l3_end_5q <= l3_end_4q;
    next_header_offset_5q <= next_header_offset_4q;
    next_header_5q <= next_header_4q;
  end

  // Cycle 6: the protocol's verdict, fields and lengths.
  rx_parse_pkg::upper_result_t result_6d, result_6q;
  logic [6:0] verdict_6d, verdict_6q;
  logic has_esp_5, has_security_5;
  // Octets from the upper protocol to the security header, its options, its numbers, and to 4 octets
  // before those. Sums of what the packet says and of a fixed number, so that no adder follows another.
  logic [3:0] base_5, base_6q;
  logic [4:0] options_from_5, options_from_6q;
  logic [4:0] fixed_5, word_fixed_5;
  logic [7:0] said_5;
  logic [8:0] numbers_from_6q, word_from_6q;
  logic is_eesp_6q, is_wesp_6q, has_security_6q, reached_6q, wesp_esp_truncated_6q;
  logic [7:0] left_6q;
  logic [6:0] least_units_6q;
  logic [5:0] most_units_6q;
  logic [14:0] l4_cursor_6q;
  logic [31:0] eesp_spi_6q;

  assign has_esp_5 = use_esp_5q && !word_reserved_5q;
  assign has_security_5 = has_esp_5 || use_psp_5q || use_eesp_5q || use_wesp_5q;

  always_comb begin
    if (!is_udp_5q) base_5 = 4'd0;
    else if (use_wesp_5q) base_5 = 4'd12;
    else base_5 = 4'd8;

    if (use_eesp_5q) options_from_5 = is_udp_5q ? 5'd16 : 5'd8;
    else options_from_5 = is_udp_5q ? 5'd16 : 5'd4;

    // ESP has 4 octets before its numbers, the others 8.
    if (use_psp_5q || use_eesp_5q) begin
      fixed_5 = is_udp_5q ? 5'd16 : 5'd8;
      word_fixed_5 = is_udp_5q ? 5'd12 : 5'd4;
    end else if (use_wesp_5q) begin
      fixed_5 = is_udp_5q ? 5'd20 : 5'd8;
      word_fixed_5 = is_udp_5q ? 5'd16 : 5'd4;
    end else begin
      fixed_5 = is_udp_5q ? 5'd12 : 5'd4;
      word_fixed_5 = is_udp_5q ? 5'd8 : 5'd0;
    end

    if (use_psp_5q) said_5 = 8'd0;
    else if (use_eesp_5q) said_5 = security_5q[15:8];
    else if (use_wesp_5q) said_5 = {2'd0, wesp_5q[29:24]};
    else said_5 = 8'd0;

    if (early_verdict_5q != 7'd0) verdict_6d = early_verdict_5q;
    else if (use_psp_5q) verdict_6d = psp_verdict_5q;
    else if (use_eesp_5q) verdict_6d = eesp_verdict_5q;
    else if (use_wesp_5q) verdict_6d = wesp_verdict_5q;
    else if (use_esp_5q) verdict_6d = esp_verdict_5q;
    else verdict_6d = 7'd0;
  end

  always_comb begin
    result_6d.l4_offset = l4_offset_5q;
    result_6d.l3_end = l3_end_5q;
    result_6d.next_header = next_header_5q;
    result_6d.next_header_offset = next_header_offset_5q;
    result_6d.ports_valid = has_ports_5q;
    result_6d.source_port = has_ports_5q ? source_port_5q : 16'd0;
    result_6d.destination_port = has_ports_5q ? destination_port_5q : 16'd0;
    result_6d.fragment = fragment_5q;
    result_6d.reserved_spi = use_esp_5q && word_reserved_5q;
    result_6d.udp = is_udp_5q && (has_security_5 || use_keepalive_5q);
    result_6d.security_offset = 14'd0;  // in cycle 7, as
    result_6d.numbers_offset = 14'd0;   // this is
    result_6d.protocol = rx_parse_pkg::ProtocolOther;
    result_6d.header_octets = 12'd0;
    result_6d.crypt_offset = 6'd0;
    result_6d.session_id = 16'd0;
    result_6d.psp_flags = 8'd0;
    if (use_keepalive_5q) begin
      result_6d.protocol = rx_parse_pkg::ProtocolNatKeepalive;
    end else if (use_psp_5q) begin
      result_6d.protocol = rx_parse_pkg::ProtocolPsp;
      result_6d.header_octets = {1'b0, security_5q[15:8], 3'd0} + 12'd8;
      result_6d.crypt_offset = security_5q[21:16];
      result_6d.psp_flags = security_5q[31:24];
    end else if (use_eesp_5q) begin
      result_6d.protocol = rx_parse_pkg::ProtocolEesp;
      result_6d.header_octets = {4'd0, security_5q[15:8]} + 12'd8;
      result_6d.session_id = rx_parse_pkg::number16(security_5q[31:16]);
    end else if (use_wesp_5q) begin
      result_6d.protocol = rx_parse_pkg::ProtocolWespv2;
      result_6d.header_octets = {4'd0, wesp_5q[15:8]};
      result_6d.crypt_offset = wesp_5q[23:18];
    end else if (has_esp_5) begin
      result_6d.protocol = rx_parse_pkg::ProtocolEsp;
      result_6d.header_octets = cryptonic_wire_pkg::ESP_FIXED_LENGTH[11:0];
    end
  end

  always_ff @(posedge clk_i) begin
    verdict_6q <= verdict_6d;
    result_6q <= result_6d;
    base_6q <= base_5;
    options_from_6q <= options_from_5;
    numbers_from_6q <= {1'b0, said_5} + {4'd0, fixed_5};
    word_from_6q <= {1'b0, said_5} + {4'd0, word_fixed_5};
    is_eesp_6q <= use_eesp_5q;
    is_wesp_6q <= use_wesp_5q;
    has_security_6q <= has_security_5;
    reached_6q <= reached_5q;
    wesp_esp_truncated_6q <= use_wesp_5q && wesp_esp_truncated_5q;
    left_6q <= use_eesp_5q ? security_5q[15:8] : {2'd0, wesp_5q[29:24]};
    least_units_6q <= least_units_5q;
    most_units_6q <= most_units_5q;
    l4_cursor_6q <= l4_cursor_5q;
    eesp_spi_6q <= rx_parse_pkg::number32(security_5q[63:32]);
  end

  // Cycle 7: what begins behind the security header.
  rx_parse_pkg::upper_result_t result_7d, result_7q;
  rx_parse_pkg::option_kind_t option_kind_7q;
  rx_parse_pkg::options_t options_7d, options_7q;
  logic [6:0] verdict_7q;
  logic numbers_known_7q, wesp_esp_truncated_7q;
  logic [14:0] numbers_cursor_7q;
  logic [31:0] eesp_spi_7q;

  always_comb begin
    result_7d = result_6q;
    result_7d.security_offset = has_security_6q ? result_6q.l4_offset + {10'd0, base_6q} : 14'd0;
    result_7d.numbers_offset = has_security_6q ? result_6q.l4_offset + {5'd0, numbers_from_6q} :
        14'd0;

    options_7d.known = reached_6q;
    options_7d.more = (is_eesp_6q || is_wesp_6q) && left_6q != 8'd0;
    options_7d.overrun = 1'b0;
    options_7d.refused = 1'b0;
    options_7d.found = 1'b0;
    options_7d.payload_units = 6'd0;
    options_7d.crypt_units = 6'd0;
    options_7d.cursor = l4_cursor_6q + {10'd0, options_from_6q};
    options_7d.left = left_6q;
  end

  always_ff @(posedge clk_i) begin
    verdict_7q <= ip_verdict_6_i != 7'd0 ? ip_verdict_6_i : verdict_6q;
    result_7q <= result_7d;
    option_kind_7q.is_eesp <= is_eesp_6q;
    option_kind_7q.is_wesp <= is_wesp_6q;
    option_kind_7q.least_units <= least_units_6q;
    option_kind_7q.most_units <= most_units_6q;
    options_7q <= options_7d;
    numbers_known_7q <= reached_6q && has_security_6q;
    numbers_cursor_7q <= l4_cursor_6q + {6'd0, word_from_6q};
    wesp_esp_truncated_7q <= wesp_esp_truncated_6q;
    eesp_spi_7q <= eesp_spi_6q;
  end

  assign verdict_o = verdict_7q;
  assign result_o = result_7q;
  assign option_kind_o = option_kind_7q;
  assign options_o = options_7q;
  assign numbers_known_o = numbers_known_7q;
  assign numbers_cursor_o = numbers_cursor_7q;
  assign eesp_spi_o = eesp_spi_7q;
  assign wesp_esp_truncated_o = wesp_esp_truncated_7q;

endmodule
