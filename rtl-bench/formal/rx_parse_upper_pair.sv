// Two units, given two windows of a packet in the same cycle: with the same octets picked (proof
// rx_parse_upper_pick) and the same IP header and extension headers (rx_parse_extension) both say the
// same, whatever the windows' octets, numbers and the frame's octets so far.
module rx_parse_upper_pair (
  input logic                   clk_i,
  input logic [15:0]            psp_udp_port_i,
  input logic [15:0]            esp_udp_port_i,
  input logic [7:0]             eesp_protocol_i,
  input logic                   eesp_in_udp_i,
  input logic [7:0]             wespv2_protocol_i,
  input rx_parse_pkg::ip_t      ip_i,
  input rx_parse_pkg::chain_t   chain_i,
  input logic [1:0]             valid_i,
  input logic [7:0]             index_0_i,
  input logic [7:0]             index_1_i,
  input logic [8*76-1:0]        data_0_i,
  input logic [8*76-1:0]        data_1_i,
  input logic [13:0]            frame_octets_0_i,
  input logic [13:0]            frame_octets_1_i
);

  rx_parse_pkg::option_kind_t kind_0, kind_1;
  rx_parse_pkg::options_t options_0, options_1;

  rx_parse_upper u_0 (
    .clk_i, .psp_udp_port_i, .esp_udp_port_i, .eesp_protocol_i, .eesp_in_udp_i, .wespv2_protocol_i,
    .window_valid_i(valid_i[0]), .window_index_i(index_0_i), .window_data_i(data_0_i),
    .frame_octets_i(frame_octets_0_i), .ip_i, .chain_i, .ip_verdict_6_i(7'd0),
    .verdict_o(), .result_o(), .option_kind_o(kind_0), .options_o(options_0), .numbers_known_o(),
    .numbers_cursor_o(), .eesp_spi_o(), .wesp_esp_truncated_o()
  );
  rx_parse_upper u_1 (
    .clk_i, .psp_udp_port_i, .esp_udp_port_i, .eesp_protocol_i, .eesp_in_udp_i, .wespv2_protocol_i,
    .window_valid_i(valid_i[1]), .window_index_i(index_1_i), .window_data_i(data_1_i),
    .frame_octets_i(frame_octets_1_i), .ip_i, .chain_i, .ip_verdict_6_i(7'd0),
    .verdict_o(), .result_o(), .option_kind_o(kind_1), .options_o(options_1), .numbers_known_o(),
    .numbers_cursor_o(), .eesp_spi_o(), .wesp_esp_truncated_o()
  );

  (* hierconn *) logic [127:0] \u_0.upper_2q ;
  (* hierconn *) logic [127:0] \u_1.upper_2q ;

  // Both windows are not in front of the cursor's.
  logic [6:0] reached_q;
  logic [4:0] same_q;   // the octets picked were the same, n + 1 cycles ago
  initial reached_q = 7'd0;
  initial same_q = 5'd0;
  always @(posedge clk_i) begin
    reached_q <= {reached_q[5:0], chain_i.known && !chain_i.more &&
        chain_i.cursor[12:4] <= {1'b0, index_0_i} && chain_i.cursor[12:4] <= {1'b0, index_1_i}};
    same_q <= {same_q[3:0], \u_0.upper_2q == \u_1.upper_2q };
  end

  // The configuration changes only while nothing is inside.
  logic begun_q;
  logic [48:0] configuration, configuration_q;
  assign configuration = {psp_udp_port_i, esp_udp_port_i, eesp_protocol_i, eesp_in_udp_i, wespv2_protocol_i};
  initial begun_q = 1'b0;
  always @(posedge clk_i) begin
    begun_q <= 1'b1;
    configuration_q <= configuration;
  end
  always @(*) assume (!begun_q || configuration == configuration_q);

  always @(*) begin
    SameAnswer: assert (!reached_q[6] || !same_q[4] || (options_0 == options_1 && kind_0 == kind_1));
    KnownIfReached: assert (!reached_q[6] || options_0.known);
  end

endmodule
