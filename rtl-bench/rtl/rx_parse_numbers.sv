// rx_parse: reads what stands at the numbers' offset, which is any octet: 4 octets before it, which are
// the SPI but in EESP, and 16 from it on.
//
//   octet  cursor      cursor + 4                                 cursor + 20
//         +-----------+------------------------------------------+
//         |    SPI    | sequence number, IV, as the protocol has it |
//         +-----------+------------------------------------------+
//   PSP     SPI 4..8    IV 8..16, ...
//   ESP     SPI 0..4    sequence 4..8, IV 8..16, ...
//   WESPv2  SPI and sequence of the ESP header behind the options
//   EESP    (options)   sequence number, IV, ...; the SPI stands in octets 4..8 of the header
//
// Twenty octets are picked in three steps of four places each: by 16, by 4, by 1. What passes the
// frame's end becomes zero. 5 cycles.
module rx_parse_numbers (
  input  logic                                clk_i,
  input  logic                                rst_ni,
  input  logic                                window_valid_i,
  input  logic                                window_last_i,
  input  logic [7:0]                          window_index_i,
  input  logic [8*83-1:0]                     window_data_i,
  input  logic [13:0]                         frame_octets_i,
  input  logic                                known_i,
  input  logic [14:0]                         cursor_i,
  input  logic                                is_eesp_i,
  input  logic [31:0]                         eesp_spi_i,
  input  logic [13:0]                         numbers_offset_i,
  // 5 cycles later, of the last window:
  output logic                                last_o,
  output rx_parse_pkg::numbers_result_t       result_o
);

  logic [3:0] last_q;
  logic last_5q;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      last_q <= '0;
      last_5q <= 1'b0;
    end else begin
      last_q <= {last_q[2:0], window_valid_i && window_last_i};
      last_5q <= last_q[3];
    end
  end

  // Cycle 1: 35 octets from a multiple of 16.
  logic hit_1q, hit_2q;
  logic [279:0] by_16_1q;
  logic [183:0] by_4_2q;
  logic [159:0] by_1_3q;
  logic [3:0] place_1q;
  logic [1:0] place_2q;
  // The last window's facts.
  logic known_1q, known_2q, known_3q, known_4q;
  logic is_eesp_1q, is_eesp_2q, is_eesp_3q, is_eesp_4q;
  logic [31:0] eesp_spi_1q, eesp_spi_2q, eesp_spi_3q, eesp_spi_4q;
  logic signed [14:0] there_1q;
  logic [4:0] there_2q, there_3q;
  logic [15:0] more_than_4q;
  logic [159:0] octets_4q;

  always_ff @(posedge clk_i) begin
    hit_1q <= window_valid_i && known_i && cursor_i[14:6] == {1'b0, window_index_i};
    case (cursor_i[5:4])
      2'd0: by_16_1q <= window_data_i[0 +: 280];
      2'd1: by_16_1q <= window_data_i[128 +: 280];
      2'd2: by_16_1q <= window_data_i[256 +: 280];
      default: by_16_1q <= window_data_i[384 +: 280];
    endcase
    place_1q <= cursor_i[3:0];
    hit_2q <= hit_1q;
    by_4_2q <= by_16_1q[{2'd0, place_1q[3:2], 5'd0} +: 184];
    place_2q <= place_1q[1:0];
    if (hit_2q) by_1_3q <= by_4_2q[{3'd0, place_2q, 3'd0} +: 160];
  end

  // Octets of the frame from the numbers' offset on, up to 16.
  always_ff @(posedge clk_i) begin
    known_1q <= known_i;
    is_eesp_1q <= is_eesp_i;
    eesp_spi_1q <= eesp_spi_i;
    there_1q <= $signed({1'b0, frame_octets_i}) - $signed({1'b0, numbers_offset_i});
    known_2q <= known_1q;
    is_eesp_2q <= is_eesp_1q;
    eesp_spi_2q <= eesp_spi_1q;
    there_2q <= !there_1q[14] && there_1q[13:4] != 10'd0 ? 5'd16 : there_1q[4:0];
    known_3q <= known_2q;
    is_eesp_3q <= is_eesp_2q;
    eesp_spi_3q <= eesp_spi_2q;
    there_3q <= there_2q;
    known_4q <= known_3q;
    is_eesp_4q <= is_eesp_3q;
    eesp_spi_4q <= eesp_spi_3q;
    // Bit n: there are more than n octets.
    more_than_4q <= ~(16'hffff << there_3q) & {16{known_3q}};
    octets_4q <= by_1_3q;
  end

  rx_parse_pkg::numbers_result_t result_5d, result_5q;
  logic [127:0] mask_4;

  for (genvar octet = 0; octet < 16; octet++) begin : gen_mask
    assign mask_4[8*octet +: 8] = {8{more_than_4q[octet]}};
  end

  always_comb begin
    if (is_eesp_4q) result_5d.spi = eesp_spi_4q;
    else if (known_4q) result_5d.spi = rx_parse_pkg::number32(octets_4q[31:0]);
    else result_5d.spi = 32'd0;
    result_5d.numbers = octets_4q[159:32] & mask_4;
  end

  always_ff @(posedge clk_i) begin
    result_5q <= result_5d;
  end

  assign last_o = last_5q;
  assign result_o = result_5q;

endmodule
