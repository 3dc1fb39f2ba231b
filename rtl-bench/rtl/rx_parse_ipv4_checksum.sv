// The checksum of an IPv4 header (RFC 1071), options included, as a pipelined tree of adders.
//
//   octet  0   1   2   3   4                               56          59
//        +---+---+---+---+---+--               --+---+---+---+---+---+---+
//        | word 0 even,  |                               | words of unit |
//        |  word 0 odd   |       ...                     | 14            |
//        +---+---+---+---+---+--               --+---+---+---+---+---+---+
//         unit 0: the header length in octet 0, bits 3:0, says how many units of 4 octets count
//
// wrong_o says of the last header given at least 8 cycles ago whether its sum is not ffff, and keeps
// saying it until 8 cycles behind the next one.
module rx_parse_ipv4_checksum (
  input  logic             clk_i,
  input  logic             rst_ni,
  input  logic             header_valid_i,
  input  logic [8*60-1:0]  header_i,
  output logic             wrong_o
);

  localparam int Units = 15;

  // Cycle 1: each unit's two words. Cycle 2: units that do not count become zero, and pairs.
  logic [6:0] valid_q;
  logic [Units-1:0] counts_1q;  // unit n is of the header
  logic [16:0] unit_1q [Units];
  logic [16:0] counted_1 [16];
  logic [17:0] sum_2q [8];
  logic [18:0] sum_3q [4];
  logic [19:0] sum_4q [2];
  logic [20:0] sum_5q;
  logic [16:0] folded_6q;
  logic wrong_7q, wrong_8q;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) valid_q <= '0;
    else valid_q <= {valid_q[5:0], header_valid_i};
  end

  for (genvar unit = 0; unit < Units; unit++) begin : gen_unit
    always_ff @(posedge clk_i) begin
      if (header_valid_i) begin
        unit_1q[unit] <= {1'b0, rx_parse_pkg::number16(header_i[32*unit +: 16])} +
            {1'b0, rx_parse_pkg::number16(header_i[32*unit + 16 +: 16])};
      end
    end
    assign counted_1[unit] = counts_1q[unit] ? unit_1q[unit] : 17'd0;
  end
  assign counted_1[15] = 17'd0;

  for (genvar pair = 0; pair < 8; pair++) begin : gen_sum_2
    always_ff @(posedge clk_i) begin
      if (valid_q[0]) sum_2q[pair] <= {1'b0, counted_1[2*pair]} + {1'b0, counted_1[2*pair + 1]};
    end
  end

  for (genvar pair = 0; pair < 4; pair++) begin : gen_sum_3
    always_ff @(posedge clk_i) begin
      if (valid_q[1]) sum_3q[pair] <= {1'b0, sum_2q[2*pair]} + {1'b0, sum_2q[2*pair + 1]};
    end
  end

  for (genvar pair = 0; pair < 2; pair++) begin : gen_sum_4
    always_ff @(posedge clk_i) begin
      if (valid_q[2]) sum_4q[pair] <= {1'b0, sum_3q[2*pair]} + {1'b0, sum_3q[2*pair + 1]};
    end
  end

  always_ff @(posedge clk_i) begin
    if (header_valid_i) counts_1q <= ~(15'h7fff << header_i[3:0]);
    if (valid_q[3]) sum_5q <= {1'b0, sum_4q[0]} + {1'b0, sum_4q[1]};
    if (valid_q[4]) folded_6q <= {1'b0, sum_5q[15:0]} + {12'd0, sum_5q[20:16]};
    if (valid_q[5]) wrong_7q <= folded_6q != 17'h0ffff;
    if (valid_q[6]) wrong_8q <= wrong_7q;
  end

  assign wrong_o = wrong_8q;

endmodule
