  // Reset holds in the first cycle and in no other. What has no reset begins as anything, so that every
  // later reset begins what this one begins.
  logic started_q;
  initial started_q = 1'b0;
  always @(posedge clk_i) started_q <= 1'b1;
  always @(*) assume (rst_ni == started_q);
