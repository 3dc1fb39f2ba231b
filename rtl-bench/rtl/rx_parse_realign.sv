// rx_parse, first part: takes beats, reads the Ethernet header, and gives windows (rx_parse_pkg) in
// which the IP header begins at octet 0.
//
// Beat i is held until beat i + 1 of its packet comes, or for one cycle if it is the last. Then both
// make window i. The window's first octet is at one of three places, so that this takes no shifter:
//
//             beat i (held)                      beat i + 1
//   octet  0        14  18  22          63 | 0                              63
//         +--------+---+---+--------------+---------------------------------+
//         |Ethernet|tag|tag|              |                                 |
//         +--------+---+---+--------------+---------------------------------+
//   no tag         |<-------- window: 83 octets -------->|
//   one tag            |<-------- window: 83 octets -------->|
//   two tags               |<-------- window: 83 octets -------->|
//
// A packet has as many windows as beats. The last one comes a fixed time after the last beat, for the
// cycle behind a last beat is one in which no other window can be due: a next packet's first beat
// makes none. What stands behind the packet's end in a window is unspecified.
//
//   EtherType: octet 12, or 16 behind one tag, or 20 behind two; tag control information: octet 14
//
// From a beat to its window there are 3 cycles, if the next beat follows at once.
module rx_parse_realign (
  input  logic                              clk_i,
  input  logic                              rst_ni,
  // A beat that is taken.
  input  logic                              beat_valid_i,
  input  logic                              beat_first_i,
  input  logic                              beat_last_i,
  input  logic [6:0]                        beat_octets_i,
  input  logic [511:0]                      beat_data_i,
  // A window.
  output logic                              window_valid_o,
  output rx_parse_pkg::window_t             window_o,
  output logic [rx_parse_pkg::WindowBits-1:0] window_data_o,
  output rx_parse_pkg::link_t               link_o,
  output logic [13:0]                       frame_octets_o  // of the frame; in the last window alone
);

  localparam int WindowBits = rx_parse_pkg::WindowBits;

  // The beat as it came.
  logic beat_valid_q, beat_first_q, beat_last_q;
  logic [6:0] beat_octets_q;
  logic [511:0] beat_data_q;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) beat_valid_q <= 1'b0;
    else beat_valid_q <= beat_valid_i;
  end

  always_ff @(posedge clk_i) begin
    beat_first_q <= beat_first_i;
    beat_last_q <= beat_last_i;
    beat_octets_q <= beat_octets_i;
    beat_data_q <= beat_data_i;
  end

  // What the first beat says, for each of the three places of the EtherType.
  logic [15:0] ethertype_12, ethertype_16, ethertype_20;
  logic tag_12, tag_16;

  assign ethertype_12 = rx_parse_pkg::number16(beat_data_q[8*12 +: 16]);
  assign ethertype_16 = rx_parse_pkg::number16(beat_data_q[8*16 +: 16]);
  assign ethertype_20 = rx_parse_pkg::number16(beat_data_q[8*20 +: 16]);
  assign tag_12 = rx_parse_pkg::is_tag(ethertype_12);
  assign tag_16 = rx_parse_pkg::is_tag(ethertype_16);

  // The beat that waits for the next one, and what the packet's first beat has said.
  logic hold_valid_q, hold_first_q, hold_last_q;
  logic [6:0] hold_octets_q;
  logic [7:0] hold_index_q;      // of the beat in its packet, and so of its window
  logic [511:8*14] hold_data_q;  // addresses and EtherType are in no window
  logic [1:0] tags_q;
  logic [15:0] control_q;
  logic ipv4_12_q, ipv4_16_q, ipv4_20_q;
  logic ipv6_12_q, ipv6_16_q, ipv6_20_q;
  logic below_14_q, below_18_q, below_22_q;
  logic emit;

  assign emit = hold_valid_q && (hold_last_q || beat_valid_q);

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) hold_valid_q <= 1'b0;
    else hold_valid_q <= beat_valid_q || (hold_valid_q && !hold_last_q);
  end

  always_ff @(posedge clk_i) begin
    if (beat_valid_q) begin
      hold_first_q <= beat_first_q;
      hold_last_q <= beat_last_q;
      hold_octets_q <= beat_octets_q;
      hold_index_q <= beat_first_q ? 8'd0 : hold_index_q + 8'd1;
      hold_data_q <= beat_data_q[511:8*14];
      if (beat_first_q) begin
        tags_q <= {tag_12 && tag_16, tag_12 && !tag_16};
        control_q <= rx_parse_pkg::number16(beat_data_q[8*14 +: 16]);
        ipv4_12_q <= ethertype_12 == cryptonic_wire_pkg::ETHERNET_ETHERTYPE_IPV4;
        ipv4_16_q <= ethertype_16 == cryptonic_wire_pkg::ETHERNET_ETHERTYPE_IPV4;
        ipv4_20_q <= ethertype_20 == cryptonic_wire_pkg::ETHERNET_ETHERTYPE_IPV4;
        ipv6_12_q <= ethertype_12 == cryptonic_wire_pkg::ETHERNET_ETHERTYPE_IPV6;
        ipv6_16_q <= ethertype_16 == cryptonic_wire_pkg::ETHERNET_ETHERTYPE_IPV6;
        ipv6_20_q <= ethertype_20 == cryptonic_wire_pkg::ETHERNET_ETHERTYPE_IPV6;
        // Comparisons with 14 (1110), 18 (10010) and 22 (10110), without a carry.
        below_14_q <= beat_octets_q[6:4] == 3'd0 && beat_octets_q[3:1] != 3'b111;
        below_18_q <= beat_octets_q[6:5] == 2'd0 &&
            (!beat_octets_q[4] || beat_octets_q[3:1] == 3'd0);
        below_22_q <= beat_octets_q[6:5] == 2'd0 &&
            (!beat_octets_q[4] || (!beat_octets_q[3] && beat_octets_q[2:1] != 2'b11));
      end
    end
  end

  // The window.
  logic window_valid_q;
  rx_parse_pkg::window_t window_q;
  rx_parse_pkg::link_t link_d, link_q;
  logic [WindowBits-1:0] window_data_d, window_data_q;
  logic [13:0] frame_octets_q;

  always_comb begin
    case (tags_q)
      2'd2: window_data_d = {beat_data_q[0 +: WindowBits - 8*42], hold_data_q[511:8*22]};
      2'd1: window_data_d = {beat_data_q[0 +: WindowBits - 8*46], hold_data_q[511:8*18]};
      default: window_data_d = {beat_data_q[0 +: WindowBits - 8*50], hold_data_q[511:8*14]};
    endcase
  end

  always_comb begin
    // A tag's number where the EtherType of the next place would stand needs that place to be there:
    // 18 octets behind one tag, 22 behind two. With 14 to 17 octets the second tag is not looked at.
    link_d.truncated_ethernet = below_14_q;
    link_d.truncated_vlan = (tags_q != 2'd0 && below_18_q) || (tags_q == 2'd2 && below_22_q);
    link_d.tags = tags_q;
    link_d.control = control_q;
    case (tags_q)
      2'd2: begin
        link_d.is_ipv4 = ipv4_20_q;
        link_d.is_ipv6 = ipv6_20_q;
      end
      2'd1: begin
        link_d.is_ipv4 = ipv4_16_q;
        link_d.is_ipv6 = ipv6_16_q;
      end
      default: begin
        link_d.is_ipv4 = ipv4_12_q;
        link_d.is_ipv6 = ipv6_12_q;
      end
    endcase
  end

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) window_valid_q <= 1'b0;
    else window_valid_q <= emit;
  end

  always_ff @(posedge clk_i) begin
    window_data_q <= window_data_d;
    if (emit) begin
      window_q.first <= hold_first_q;
      window_q.last <= hold_last_q;
      window_q.index <= hold_index_q;
      link_q <= link_d;
      frame_octets_q <= {hold_index_q, 6'd0} + {7'd0, hold_octets_q};
    end
  end

  assign window_valid_o = window_valid_q;
  assign window_o = window_q;
  assign window_data_o = window_data_q;
  assign link_o = link_q;
  assign frame_octets_o = frame_octets_q;

endmodule
