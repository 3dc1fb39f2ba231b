// The 64-bit sequence number whose low half is on the wire (RFC 4303, A2.2), in three cycles.
//
// Of all numbers with that low half it is the one from the window's left edge up to 2^32 further on:
//
//            left edge              top                                 left edge + 2^32
//   ────────────┼────────────────────┼──────────────────────────────────────────┼──────▶
//               │◄─── behind ───────►│◄──────────────── ahead ─────────────────►│
//               └ distance 0         └ distance = window - 1
//
//   distance = (low - top + window - 1) mod 2^32
//
// The number is ahead where distance >= window - 1, which is where the last addition does not carry. Its
// high half is then top's, or one more where low < top's low half; behind it is top's, or one less where
// low > top's low half. One adder and a compare, and no 64-bit carry.
module rx_geometry_sequence (
  input  logic        clk_i,

  input  logic [31:0] low_i,
  input  logic [63:0] top_i,        // highest number authenticated
  input  logic [31:0] window_i,     // packets; 0 is off; 0 and what is above 2^31 count as 2^31

  // Three cycles later.
  output logic [63:0] sequence_o,
  output logic        bad_o         // 0, before the first epoch, or behind the last
);

  // First cycle: how far low is ahead of top, and how far the left edge is behind it.
  logic [31:0] window_less_one;
  logic [32:0] ahead;

  assign window_less_one = window_i - 32'd1;
  assign ahead           = {1'b0, low_i} - {1'b0, top_i[31:0]};

  logic [31:0] ahead_1q, behind_1q, low_1q, high_1q;
  logic        below_1q;            // low is below top's low half

  always_ff @(posedge clk_i) begin
    ahead_1q  <= ahead[31:0];
    below_1q  <= ahead[32];
    // The top bit is set for 0 and for what is above 2^31.
    behind_1q <= {1'b0, window_less_one[30:0] | {31{window_less_one[31]}}};
    low_1q    <= low_i;
    high_1q   <= top_i[63:32];
  end

  // Second cycle: on which side of top, and the three high halves there can be.
  logic [32:0] distance, high_more;

  assign distance  = {1'b0, ahead_1q} + {1'b0, behind_1q};
  assign high_more = {1'b0, high_1q} + 33'd1;

  logic [31:0] low_2q, high_2q, high_more_2q, high_less_2q;
  logic        is_behind_2q, below_2q, low_zero_2q, first_epoch_2q, last_epoch_2q;

  always_ff @(posedge clk_i) begin
    is_behind_2q   <= distance[32];
    below_2q       <= below_1q;
    low_2q         <= low_1q;
    low_zero_2q    <= low_1q == 32'd0;
    high_2q        <= high_1q;
    high_more_2q   <= high_more[31:0];
    high_less_2q   <= high_1q - 32'd1;
    first_epoch_2q <= high_1q == 32'd0;
    last_epoch_2q  <= high_more[32];
  end

  // Third cycle: the choice.
  logic more, less;

  assign more = !is_behind_2q && below_2q;
  assign less = is_behind_2q && !below_2q;

  always_ff @(posedge clk_i) begin
    sequence_o <= {more ? high_more_2q : less ? high_less_2q : high_2q, low_2q};
    // Only the first epoch's number 0 is 0: a low half of 0 is never above top's, and so never one less.
    bad_o      <= more ? last_epoch_2q : first_epoch_2q && (less || low_zero_2q);
  end

endmodule
