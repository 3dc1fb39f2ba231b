  // What went in of a last window, 24 cycles ago.
  logic [23:0] last_past_q;
  logic [24*7-1:0] verdict_past_q;
  logic [23:0] truncated_past_q;
  always @(posedge clk_i) begin
    last_past_q <= {last_past_q[22:0], upper_last_i};
    verdict_past_q <= {verdict_past_q[23*7-1:0], upper_verdict_i};
    truncated_past_q <= {truncated_past_q[22:0], wesp_esp_truncated_i};
  end

  // A verdict of the table, for a result (rx_parse_upper.svh lists those of the parts before).
  function automatic logic of_the_table(input logic [6:0] verdict);
    of_the_table = verdict == 7'd0 || (verdict >= 7'd32 && verdict <= 7'd63 && verdict != 7'd53);
  endfunction

  logic upper_ok_q;
  logic options_ok_q;
  logic counted_q;
  logic [4:0] cycles_q;
  initial cycles_q = 5'd0;
  always @(posedge clk_i) begin
    if (cycles_q != 5'd31) cycles_q <= cycles_q + 5'd1;
    upper_ok_q <= verdict_past_q[23*7 +: 7] == 7'd0 && !truncated_past_q[23];
    options_ok_q <= !options_i.overrun && !options_i.refused && !options_i.more;
  end
  always @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) counted_q <= 1'b0;
    else counted_q <= window_valid_i && last_past_q[23];
  end

  always @(*) begin
    if (rst_ni) begin
      // Since the reset there was none before the delay lines were full.
      assume (cycles_q >= 5'd27 || !window_valid_i);
      assume (!upper_last_i || of_the_table(upper_verdict_i));
      LastIsOfTheWindow: assert (last_o == counted_q);
      OkIsOfAllParts: assert (!last_o || result_o.verdict != 7'd0 || (upper_ok_q && options_ok_q));
      VerdictOfTheTable: assert (!last_o || of_the_table(result_o.verdict));
    end
  end
