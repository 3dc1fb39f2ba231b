// The receive parser: Ethernet, IP, extension headers, UDP, and the headers of ESP, PSP, EESP and WESPv2.
// It takes a beat of 64 octets a cycle and gives one result a packet, LatencyCycles after the packet's
// last beat. It needs no SA. Its function is parse_receive of the crate cryptonic-wire, its timing that
// of RxParseShell of the crate cryptonic-hwmodel.
//
//            ┌─────────┐ windows ┌────┐ ┌────────────────────┐ ┌───────┐ ┌─────────────┐ ┌─────────┐
//   beats ──▶│ realign │────────▶│ ip │▶│ extension, 8 steps │▶│ upper │▶│ option, 8   │▶│ verdict │
//            └─────────┘         └─┬──┘ └────────────────────┘ └───┬───┘ │ steps       │ └────┬────┘
//                                  │                               │     ├─────────────┤      │
//                                  │                               │     │ numbers     │      │
//                                  │                               │     └──────┬──────┘      │
//                                  ▼                               ▼            ▼             ▼
//                            memories with one place for each packet inside ──▶ output register ──▶
//
// Nothing inside ever stalls. A packet begins only while there is a place for its result, and has that
// place until its result is taken.
//
// Octet n of a beat stands in bits 8n+7:8n; octet 0 comes first on the wire. Result fields that are
// numbers are numbers; fields that are octets (addresses, numbers) have octet 0 in bits 7:0:
//
//   result_source_o   127                                  31                    7       0
//                    +------------------------------------+---------------------+--------+
//              IPv6  | octet 15 of the address     ...                          | octet 0|
//                    +------+------+------+------+---------------------------------------+
//              IPv4  | d    | c    | b    | a    |              zero                     |   a.b.c.d
//                    +------+------+------+------+---------------------------------------+
//
// What is shown in a cycle depends on registers alone. The configuration may change while drained_o.
module rx_parse #(
  // Places for results, a power of two. Packets of one beat in every cycle need LatencyCycles + 1.
  parameter int Results = 64
) (
  input  logic         clk_i,
  input  logic         rst_ni,

  // Configuration; 0 turns off what it is of.
  input  logic [15:0]  psp_udp_port_i,
  input  logic [15:0]  esp_udp_port_i,
  input  logic [7:0]   eesp_protocol_i,
  input  logic         eesp_in_udp_i,       // at the port of ESP, where the first bit is one
  input  logic [7:0]   wespv2_protocol_i,

  // The packet bus.
  input  logic         beat_valid_i,
  output logic         beat_ready_o,
  input  logic [511:0] beat_data_i,
  input  logic [6:0]   beat_octets_i,       // 64 in all but the last beat, 1 to 64 there
  input  logic         beat_last_i,

  // The result. Where the verdict is not 0, all the rest is.
  output logic         result_valid_o,
  input  logic         result_ready_i,
  output logic [6:0]   result_verdict_o,              // a Status number
  output logic [2:0]   result_protocol_o,
  output logic         result_reserved_spi_o,         // ESP whose SPI is 1 to 255, for the host
  output logic         result_vlan_valid_o,
  output logic [15:0]  result_vlan_o,                 // tag control information, outermost tag
  output logic [2:0]   result_ip_version_o,           // 0, 4, 6
  output logic [4:0]   result_l3_offset_o,
  output logic [13:0]  result_l4_offset_o,
  output logic [13:0]  result_l3_end_o,
  output logic [7:0]   result_next_header_o,
  output logic [13:0]  result_next_header_offset_o,
  output logic [7:0]   result_traffic_class_o,
  output logic         result_dont_fragment_o,
  output logic [7:0]   result_hop_limit_o,
  output logic [19:0]  result_flow_label_o,
  output logic [127:0] result_source_o,
  output logic [127:0] result_destination_o,
  output logic         result_ports_valid_o,
  output logic [15:0]  result_source_port_o,
  output logic [15:0]  result_destination_port_o,
  output logic         result_fragment_o,
  output logic         result_udp_o,                  // encapsulated in UDP, which begins at l4_offset
  output logic [13:0]  result_security_offset_o,
  output logic [31:0]  result_spi_o,
  output logic [15:0]  result_session_id_o,
  output logic [13:0]  result_numbers_offset_o,
  output logic [11:0]  result_header_octets_o,
  output logic [5:0]   result_crypt_offset_o,         // 4-octet units
  output logic         result_payload_offset_valid_o,
  output logic [5:0]   result_payload_offset_o,       // 4-octet units
  output logic [7:0]   result_psp_flags_o,
  output logic [127:0] result_numbers_o,

  // Nothing is inside: no packet begun, no result waiting.
  output logic         drained_o
);

  // Beat register and window 3, IP 1, extension headers 16, upper protocol 7, options 24, verdict 1,
  // result memory 1, output register 1.
  localparam int LatencyCycles = 54;
  localparam int PlaceBits = $clog2(Results);
  localparam int WindowBits = rx_parse_pkg::WindowBits;
  localparam int OptionBits = 8 * 67;
  localparam int Extensions = 8;
  localparam int Options = 8;

  // Packets in and results out.
  logic in_packet_q;
  logic [PlaceBits:0] reserved_q;  // results of packets that have begun and were not taken
  logic take_beat, take_first, take_result;

  assign beat_ready_o = in_packet_q || !reserved_q[PlaceBits];
  assign take_beat = beat_valid_i && beat_ready_o;
  assign take_first = take_beat && !in_packet_q;
  assign take_result = result_valid_o && result_ready_i;
  assign drained_o = reserved_q == '0;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      in_packet_q <= 1'b0;
      reserved_q <= '0;
    end else begin
      if (take_beat) in_packet_q <= !beat_last_i;
      if (take_first && !take_result) reserved_q <= reserved_q + 1'b1;
      else if (!take_first && take_result) reserved_q <= reserved_q - 1'b1;
    end
  end

  // Windows and the IP header.
  logic realign_valid, ip_valid;
  rx_parse_pkg::window_t realign_window, ip_window;
  logic [WindowBits-1:0] realign_data, ip_data;
  rx_parse_pkg::link_t link;
  logic [13:0] realign_frame_octets, ip_frame_octets;
  rx_parse_pkg::ip_t ip;
  rx_parse_pkg::ip_result_t ip_result;
  rx_parse_pkg::chain_t ip_chain;
  logic [6:0] ip_verdict, ip_verdict_late;

  rx_parse_realign u_realign (
    .clk_i,
    .rst_ni,
    .beat_valid_i(take_beat),
    .beat_first_i(!in_packet_q),
    .beat_last_i,
    .beat_octets_i,
    .beat_data_i,
    .window_valid_o(realign_valid),
    .window_o(realign_window),
    .window_data_o(realign_data),
    .link_o(link),
    .frame_octets_o(realign_frame_octets)
  );

  rx_parse_ip u_ip (
    .clk_i,
    .rst_ni,
    .window_valid_i(realign_valid),
    .window_i(realign_window),
    .window_data_i(realign_data),
    .link_i(link),
    .frame_octets_i(realign_frame_octets),
    .window_valid_o(ip_valid),
    .window_o(ip_window),
    .window_data_o(ip_data),
    .frame_octets_o(ip_frame_octets),
    .ip_o(ip),
    .result_o(ip_result),
    .chain_o(ip_chain),
    .verdict_o(ip_verdict)
  );

  delay_line #(.Width(7), .Delay(14)) u_ip_verdict_delay (
    .clk_i,
    .rst_ni,
    .data_i(ip_verdict),
    .data_o(ip_verdict_late)
  );

  // Extension headers: 16 cycles.
  logic [255:0] ip_words;

  for (genvar word = 0; word < 8; word++) begin : gen_word
    assign ip_words[32*word +: 32] = ip_data[64*word +: 32];
  end

  for (genvar step = 0; step < Extensions; step++) begin : gen_extension
    logic valid_in, valid_out, first_in, first_out;
    logic [7:0] index_in, index_out;
    logic [255:0] words_in, words_out;
    rx_parse_pkg::chain_t chain_in, chain_out;

    if (step == 0) begin : gen_first
      assign valid_in = ip_valid;
      assign first_in = ip_window.first;
      assign index_in = ip_window.index;
      assign words_in = ip_words;
      assign chain_in = ip_chain;
    end else begin : gen_next
      assign valid_in = gen_extension[step-1].valid_out;
      assign first_in = gen_extension[step-1].first_out;
      assign index_in = gen_extension[step-1].index_out;
      assign words_in = gen_extension[step-1].words_out;
      assign chain_in = gen_extension[step-1].chain_out;
    end

    rx_parse_extension u_extension (
      .clk_i,
      .rst_ni,
      .window_valid_i(valid_in),
      .window_first_i(first_in),
      .window_index_i(index_in),
      .window_words_i(words_in),
      .chain_i(chain_in),
      .window_valid_o(valid_out),
      .window_first_o(first_out),
      .window_index_o(index_out),
      .window_words_o(words_out),
      .chain_o(chain_out)
    );
  end

  logic walked_valid, walked_first, walked_last;
  logic [7:0] walked_index;
  rx_parse_pkg::chain_t walked_chain;
  logic [WindowBits-1:0] walked_data;
  logic [13:0] walked_frame_octets;
  rx_parse_pkg::ip_t walked_ip;

  assign walked_valid = gen_extension[Extensions-1].valid_out;
  assign walked_first = gen_extension[Extensions-1].first_out;
  assign walked_index = gen_extension[Extensions-1].index_out;
  assign walked_chain = gen_extension[Extensions-1].chain_out;

  wide_delay_line #(.Width(1 + $bits(ip) + 14 + WindowBits), .Delay(16)) u_walk_delay (
    .clk_i,
    .rst_ni,
    .data_i({ip_window.last, ip, ip_frame_octets, ip_data}),
    .data_o({walked_last, walked_ip, walked_frame_octets, walked_data})
  );

  // The upper protocol: 7 cycles.
  logic upper_valid;
  logic [6:0] walked_valid_q;
  rx_parse_pkg::window_t walked_window, upper_window;
  logic [WindowBits-1:0] upper_data;
  logic [13:0] upper_frame_octets;
  rx_parse_pkg::upper_result_t upper_result;
  rx_parse_pkg::option_kind_t upper_kind;
  rx_parse_pkg::options_t upper_options;
  logic [6:0] upper_verdict;
  logic numbers_known, wesp_esp_truncated;
  logic [14:0] numbers_cursor;
  logic [31:0] eesp_spi;

  assign walked_window.first = walked_first;
  assign walked_window.last = walked_last;
  assign walked_window.index = walked_index;

  rx_parse_upper u_upper (
    .clk_i,
    .psp_udp_port_i,
    .esp_udp_port_i,
    .eesp_protocol_i,
    .eesp_in_udp_i,
    .wespv2_protocol_i,
    .window_valid_i(walked_valid),
    .window_index_i(walked_index),
    .window_data_i(walked_data[8*76-1:0]),
    .frame_octets_i(walked_frame_octets),
    .ip_i(walked_ip),
    .chain_i(walked_chain),
    .ip_verdict_6_i(ip_verdict_late),
    .verdict_o(upper_verdict),
    .result_o(upper_result),
    .option_kind_o(upper_kind),
    .options_o(upper_options),
    .numbers_known_o(numbers_known),
    .numbers_cursor_o(numbers_cursor),
    .eesp_spi_o(eesp_spi),
    .wesp_esp_truncated_o(wesp_esp_truncated)
  );

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) walked_valid_q <= '0;
    else walked_valid_q <= {walked_valid_q[5:0], walked_valid};
  end

  assign upper_valid = walked_valid_q[6];

  wide_delay_line #(.Width($bits(walked_window) + 14 + WindowBits), .Delay(7)) u_upper_delay (
    .clk_i,
    .rst_ni,
    .data_i({walked_window, walked_frame_octets, walked_data}),
    .data_o({upper_window, upper_frame_octets, upper_data})
  );

  // Options: 24 cycles.
  for (genvar step = 0; step < Options; step++) begin : gen_option
    logic valid_in, valid_out, first_in, first_out;
    logic [7:0] index_in, index_out;
    logic [OptionBits-1:0] data_in, data_out;
    rx_parse_pkg::option_kind_t kind_in, kind_out;
    rx_parse_pkg::options_t options_in, options_out;

    if (step == 0) begin : gen_first
      assign valid_in = upper_valid;
      assign first_in = upper_window.first;
      assign index_in = upper_window.index;
      assign data_in = upper_data[OptionBits-1:0];
      assign kind_in = upper_kind;
      assign options_in = upper_options;
    end else begin : gen_next
      assign valid_in = gen_option[step-1].valid_out;
      assign first_in = gen_option[step-1].first_out;
      assign index_in = gen_option[step-1].index_out;
      assign data_in = gen_option[step-1].data_out;
      assign kind_in = gen_option[step-1].kind_out;
      assign options_in = gen_option[step-1].options_out;
    end

    rx_parse_option u_option (
      .clk_i,
      .rst_ni,
      .window_valid_i(valid_in),
      .window_first_i(first_in),
      .window_index_i(index_in),
      .window_data_i(data_in),
      .kind_i(kind_in),
      .options_i(options_in),
      .window_valid_o(valid_out),
      .window_first_o(first_out),
      .window_index_o(index_out),
      .window_data_o(data_out),
      .kind_o(kind_out),
      .options_o(options_out)
    );
  end

  // Numbers, beside the options: 5 cycles.
  logic numbers_last;
  rx_parse_pkg::numbers_result_t numbers_result;

  rx_parse_numbers u_numbers (
    .clk_i,
    .rst_ni,
    .window_valid_i(upper_valid),
    .window_last_i(upper_window.last),
    .window_index_i(upper_window.index),
    .window_data_i(upper_data),
    .frame_octets_i(upper_frame_octets),
    .known_i(numbers_known),
    .cursor_i(numbers_cursor),
    .is_eesp_i(upper_kind.is_eesp),
    .eesp_spi_i(eesp_spi),
    .numbers_offset_i(upper_result.numbers_offset),
    .last_o(numbers_last),
    .result_o(numbers_result)
  );

  // The verdict: 1 cycle.
  logic verdict_last;
  rx_parse_pkg::verdict_result_t verdict_result;

  rx_parse_verdict u_verdict (
    .clk_i,
    .rst_ni,
    .upper_last_i(upper_window.last),
    .upper_verdict_i(upper_verdict),
    .wesp_esp_truncated_i(wesp_esp_truncated),
    .spi_i(numbers_result.spi),
    .window_valid_i(gen_option[Options-1].valid_out),
    .kind_i(gen_option[Options-1].kind_out),
    .options_i(gen_option[Options-1].options_out),
    .last_o(verdict_last),
    .result_o(verdict_result)
  );

  // The parts of a result, in the order in which they become known.
  logic [PlaceBits-1:0] read_place_q;
  logic [PlaceBits:0] waiting_q;   // results in the memories
  logic load, result_valid_q, is_ok_q;
  rx_parse_pkg::ip_result_t stored_ip, shown_ip, ip_q;
  rx_parse_pkg::upper_result_t stored_upper, shown_upper, upper_q;
  rx_parse_pkg::numbers_result_t stored_numbers, shown_numbers, numbers_q;
  rx_parse_pkg::verdict_result_t stored_verdict, shown_verdict, verdict_q;

  wide_packet_memory #(.Width($bits(ip_result)), .Places(Results)) u_ip_results (
    .clk_i,
    .rst_ni,
    .write_i(ip_valid && ip_window.last),
    .data_i(ip_result),
    .read_next_i(load),
    .data_o(stored_ip)
  );

  wide_packet_memory #(.Width($bits(upper_result)), .Places(Results)) u_upper_results (
    .clk_i,
    .rst_ni,
    .write_i(upper_valid && upper_window.last),
    .data_i(upper_result),
    .read_next_i(load),
    .data_o(stored_upper)
  );

  wide_packet_memory #(.Width($bits(numbers_result)), .Places(Results))
  u_numbers_results (
    .clk_i,
    .rst_ni,
    .write_i(numbers_last),
    .data_i(numbers_result),
    .read_next_i(load),
    .data_o(stored_numbers)
  );

  packet_memory #(.Width($bits(verdict_result)), .Places(Results))
  u_verdict_results (
    .clk_i,
    .rst_ni,
    .write_i(verdict_last),
    .data_i(verdict_result),
    .read_place_i(read_place_q),
    .data_o(stored_verdict)
  );

  assign load = waiting_q != '0 && (!result_valid_q || result_ready_i);

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      read_place_q <= '0;
      waiting_q <= '0;
      result_valid_q <= 1'b0;
    end else begin
      if (load) begin
        read_place_q <= read_place_q + 1'b1;
        result_valid_q <= 1'b1;
      end else if (result_ready_i) begin
        result_valid_q <= 1'b0;
      end
      if (verdict_last && !load) waiting_q <= waiting_q + 1'b1;
      else if (!verdict_last && load) waiting_q <= waiting_q - 1'b1;
    end
  end

  always_ff @(posedge clk_i) begin
    if (load) begin
      ip_q <= stored_ip;
      upper_q <= stored_upper;
      numbers_q <= stored_numbers;
      verdict_q <= stored_verdict;
      is_ok_q <= stored_verdict.verdict == 7'd0;
    end
  end

  assign result_valid_o = result_valid_q;
  assign shown_ip = is_ok_q ? ip_q : '0;
  assign shown_upper = is_ok_q ? upper_q : '0;
  assign shown_numbers = is_ok_q ? numbers_q : '0;
  assign shown_verdict = is_ok_q ? verdict_q : {verdict_q.verdict, 13'd0};

  assign result_verdict_o = shown_verdict.verdict;
  assign result_protocol_o = shown_upper.protocol;
  assign result_reserved_spi_o = shown_upper.reserved_spi;
  assign result_vlan_valid_o = shown_ip.vlan_valid;
  assign result_vlan_o = shown_ip.vlan;
  assign result_ip_version_o = shown_ip.ip_version;
  assign result_l3_offset_o = shown_ip.l3_offset;
  assign result_l4_offset_o = shown_upper.l4_offset;
  assign result_l3_end_o = shown_upper.l3_end;
  assign result_next_header_o = shown_upper.next_header;
  assign result_next_header_offset_o = shown_upper.next_header_offset;
  assign result_traffic_class_o = shown_ip.traffic_class;
  assign result_dont_fragment_o = shown_ip.dont_fragment;
  assign result_hop_limit_o = shown_ip.hop_limit;
  assign result_flow_label_o = shown_ip.flow_label;
  assign result_source_o = shown_ip.source;
  assign result_destination_o = shown_ip.destination;
  assign result_ports_valid_o = shown_upper.ports_valid;
  assign result_source_port_o = shown_upper.source_port;
  assign result_destination_port_o = shown_upper.destination_port;
  assign result_fragment_o = shown_upper.fragment;
  assign result_udp_o = shown_upper.udp;
  assign result_security_offset_o = shown_upper.security_offset;
  assign result_spi_o = shown_numbers.spi;
  assign result_session_id_o = shown_upper.session_id;
  assign result_numbers_offset_o = shown_upper.numbers_offset;
  assign result_header_octets_o = shown_upper.header_octets;
  assign result_crypt_offset_o = shown_upper.crypt_offset | shown_verdict.crypt_offset;
  assign result_payload_offset_valid_o = shown_verdict.payload_offset_valid;
  assign result_payload_offset_o = shown_verdict.payload_offset;
  assign result_psp_flags_o = shown_upper.psp_flags;
  assign result_numbers_o = shown_numbers.numbers;

`ifndef SYNTHESIS
  // A beat has 1 to 64 octets, and 64 where another one follows.
  BeatOctetsInRange: assert property (@(posedge clk_i) disable iff (!rst_ni)
      !beat_valid_i || (beat_octets_i >= 7'd1 && beat_octets_i <= 7'd64 &&
      (beat_last_i || beat_octets_i == 7'd64)));
  // No more results than places: those in the memories are of packets that have begun.
  ResultsHavePlaces: assert property (@(posedge clk_i) disable iff (!rst_ni)
      {1'b0, waiting_q} + {{PlaceBits + 1{1'b0}}, result_valid_q} <= {1'b0, reserved_q} &&
      reserved_q <= Results[PlaceBits:0]);
  // A verdict comes a fixed time after each last beat, and at no other.
  logic [LatencyCycles-3:0] last_taken_q;
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) last_taken_q <= '0;
    else last_taken_q <= {last_taken_q[LatencyCycles-4:0], take_beat && beat_last_i};
  end
  OneVerdictForEachPacket: assert property (@(posedge clk_i) disable iff (!rst_ni)
      verdict_last == last_taken_q[LatencyCycles-3]);
`endif

endmodule
