  // What comes out is what went in Delay cycles ago.
  logic [Width*Delay-1:0] past_q;
  logic [7:0] cycles_q;  // since the reset, as far as they count

  always @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) cycles_q <= 8'd0;
    else if (cycles_q < Delay) cycles_q <= cycles_q + 8'd1;
  end

  always @(posedge clk_i) past_q <= {past_q[Width*(Delay-1)-1:0], data_i};

  always @(*) begin
    if (rst_ni) begin
      PointerInRange: assert (pointer_q <= LastPlace);
      CyclesInRange: assert (cycles_q <= Delay);
      GivesBackWhatItWasGiven: assert (cycles_q < Delay ||
          data_o == past_q[Width*(Delay-1) +: Width]);
    end
  end
