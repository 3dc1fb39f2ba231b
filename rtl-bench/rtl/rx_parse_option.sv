// One step of the walk over the options of EESP and WESPv2.
//
//   octet 0         1         2         3
//        +---------+
//        |    0    |                               Pad1: one octet
//        +---------+---------+---------+---------+
//        |  type   | length  | data, length octets ...
//        +---------+---------+---------+---------+
//        |    2    |    2    |payload 15..10, crypt 9..4   EESP's crypt offset; units of 4 octets
//        +---------+---------+---------+---------+
//
// An option begins at any octet. Where it begins in a later window than this one the step does not know
// its answer yet; once it does it keeps it for the packet's later windows.
//
// It takes three cycles: 7 octets from a multiple of four, four octets of those, and the judgement.
module rx_parse_option (
  input  logic                        clk_i,
  input  logic                        rst_ni,
  input  logic                        window_valid_i,
  input  logic                        window_first_i,
  input  logic [7:0]                  window_index_i,
  input  logic [8*67-1:0]             window_data_i,
  input  rx_parse_pkg::option_kind_t  kind_i,
  input  rx_parse_pkg::options_t      options_i,
  // Three cycles later:
  output logic                        window_valid_o,
  output logic                        window_first_o,
  output logic [7:0]                  window_index_o,
  output logic [8*67-1:0]             window_data_o,
  output rx_parse_pkg::option_kind_t  kind_o,
  output rx_parse_pkg::options_t      options_o
);

  logic valid_1q, valid_2q, valid_3q;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      valid_1q <= 1'b0;
      valid_2q <= 1'b0;
      valid_3q <= 1'b0;
    end else begin
      valid_1q <= window_valid_i;
      valid_2q <= valid_1q;
      valid_3q <= valid_2q;
    end
  end

  // First cycle.
  logic first_1q, going, going_1q, hit_1q;
  logic [7:0] index_1q;
  logic [8*67-1:0] data_1q;
  logic [55:0] coarse_1q;
  rx_parse_pkg::option_kind_t kind_1q;
  rx_parse_pkg::options_t options_1q;

  assign going = options_i.more && !options_i.overrun && !options_i.refused;

  always_ff @(posedge clk_i) begin
    first_1q <= window_first_i;
    index_1q <= window_index_i;
    data_1q <= window_data_i;
    going_1q <= going;
    hit_1q <= options_i.known && going &&
        options_i.cursor[14:6] == {1'b0, window_index_i};
    coarse_1q <= window_data_i[{1'b0, options_i.cursor[5:2], 5'd0} +: 56];
    kind_1q <= kind_i;
    options_1q <= options_i;
  end

  // Second cycle. Both places where the option may end, but for its length.
  logic first_2q, going_2q, hit_2q;
  logic [7:0] index_2q;
  logic [8*67-1:0] data_2q;
  logic [27:0] option_2q;  // but for four bits of the crypt offset option that are reserved
  rx_parse_pkg::option_kind_t kind_2q;
  rx_parse_pkg::options_t options_2q;
  logic [14:0] behind_type_2q, behind_length_2q;
  logic [7:0] left_behind_type_2q;
  logic signed [9:0] left_behind_length_2q;
  logic [31:0] option_1;

  assign option_1 = coarse_1q[{1'b0, options_1q.cursor[1:0], 3'd0} +: 32];

  always_ff @(posedge clk_i) begin
    first_2q <= first_1q;
    going_2q <= going_1q;
    hit_2q <= hit_1q;
    index_2q <= index_1q;
    data_2q <= data_1q;
    option_2q <= {option_1[31:28], option_1[23:0]};
    kind_2q <= kind_1q;
    options_2q <= options_1q;
    behind_type_2q <= options_1q.cursor + 15'd1;
    behind_length_2q <= options_1q.cursor + 15'd2;
    left_behind_type_2q <= options_1q.left - 8'd1;
    left_behind_length_2q <= $signed({2'd0, options_1q.left}) - 10'sd2;
  end

  // Third cycle.
  logic first_3q;
  logic [7:0] index_3q;
  logic [8*67-1:0] data_3q;
  rx_parse_pkg::option_kind_t kind_3q;
  rx_parse_pkg::options_t step, options_3d, options_3q;
  logic [7:0] option_type, option_length;
  logic [5:0] payload_units, crypt_units;
  logic is_pad1, is_crypt_offset, bad_crypt_offset, overrun, ends;
  logic signed [9:0] left_behind_option;
  logic signed [7:0] beyond_least, before_most;

  assign option_type = option_2q[7:0];
  assign option_length = option_2q[15:8];
  assign payload_units = option_2q[23:18];
  assign crypt_units = {option_2q[17:16], option_2q[27:24]};
  assign is_pad1 = option_type == cryptonic_wire_pkg::OPTION_PAD1;
  assign is_crypt_offset = kind_2q.is_eesp &&
      option_type == cryptonic_wire_pkg::EESP_OPTION_TYPE_CRYPT_OFFSET;
  assign bad_crypt_offset = option_length != 8'd2 || options_2q.found ||
      beyond_least[7] || before_most[7];
  // Of a difference the sign alone is looked at, which leaves the carry chain once, where a comparison
  // would have to leave it twice.
  assign beyond_least = $signed({2'd0, payload_units}) - $signed({1'b0, kind_2q.least_units});
  assign before_most = $signed({2'd0, kind_2q.most_units}) - $signed({2'd0, payload_units});
  assign left_behind_option = left_behind_length_2q - $signed({2'd0, option_length});
  assign overrun = !is_pad1 && left_behind_option[9];
  assign ends = is_pad1 ? left_behind_type_2q == 8'd0 :
      left_behind_length_2q == $signed({2'd0, option_length});

  always_comb begin
    step.known = 1'b1;
    step.overrun = overrun;
    // WESPv2 has no option that a receiver must know, and none that may change.
    step.refused = (is_crypt_offset && bad_crypt_offset) || (kind_2q.is_wesp &&
        (option_type & (cryptonic_wire_pkg::WESPV2_ACTION |
        cryptonic_wire_pkg::WESPV2_MAY_CHANGE)) != 8'd0);
    step.more = !ends;
    step.found = options_2q.found || is_crypt_offset;
    step.payload_units = is_crypt_offset ? payload_units : options_2q.payload_units;
    step.crypt_units = is_crypt_offset ? crypt_units : options_2q.crypt_units;
    step.cursor = is_pad1 ? behind_type_2q : behind_length_2q + {7'd0, option_length};
    step.left = is_pad1 ? left_behind_type_2q : left_behind_option[7:0];
  end

  always_comb begin
    options_3d = hit_2q ? step : options_2q;
    options_3d.known = hit_2q || (options_2q.known && !going_2q);
  end

  always_ff @(posedge clk_i) begin
    first_3q <= first_2q;
    index_3q <= index_2q;
    data_3q <= data_2q;
    if (valid_2q) begin
      kind_3q <= kind_2q;
      if (first_2q || !options_3q.known) options_3q <= options_3d;
    end
  end

  assign window_valid_o = valid_3q;
  assign window_first_o = first_3q;
  assign window_index_o = index_3q;
  assign window_data_o = data_3q;
  assign kind_o = kind_3q;
  assign options_o = options_3q;

endmodule
