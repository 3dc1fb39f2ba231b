  // Bit n of last_taken: a packet's last beat was taken n + 1 cycles ago. The stages in which a part of a
  // result goes into its memory:
  localparam int IpStage = 3;
  localparam int UpperStage = IpStage + 16 + 7;
  localparam int NumbersStage = UpperStage + 5;
  localparam int VerdictStage = UpperStage + 24 + 1;
  logic [VerdictStage:0] last_taken;

  always @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) last_taken <= '0;
    else last_taken <= {last_taken[VerdictStage-1:0], take_beat && beat_last_i};
  end

  // Each part of a packet's result comes a fixed time after the packet's last beat, and at no other.
  always @(*) begin
    if (rst_ni) begin
      IpOnTime: assert ((ip_valid && ip_window.last) == last_taken[IpStage]);
      UpperOnTime: assert ((upper_valid && upper_window.last) == last_taken[UpperStage]);
      NumbersOnTime: assert (numbers_last == last_taken[NumbersStage]);
      OneVerdictForEachPacket: assert (verdict_last == last_taken[VerdictStage]);
      LatencyAsStated: assert (LatencyCycles == VerdictStage + 3);
    end
  end
