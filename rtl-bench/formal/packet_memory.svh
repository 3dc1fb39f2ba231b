  // Write number n goes to place n modulo Places, and stays there until write number n + Places: for one
  // write, whichever.
  (* anyconst *) logic [15:0] watched_write;
  logic [15:0] writes_q;
  logic [Width-1:0] watched_q;
  logic written_q, overwritten_q;

  always @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      writes_q <= 16'd0;
      written_q <= 1'b0;
      overwritten_q <= 1'b0;
    end else if (write_i) begin
      writes_q <= writes_q + 16'd1;
      if (writes_q == watched_write) written_q <= 1'b1;
      if (written_q && writes_q == watched_write + Places[15:0]) overwritten_q <= 1'b1;
    end
  end

  always @(posedge clk_i) if (write_i && writes_q == watched_write && !written_q) watched_q <= data_i;

  logic [15:0] since;
  assign since = writes_q - watched_write;

  always @(*) begin
    if (rst_ni) begin
      CountsItsWrites: assert (place_q == writes_q[$clog2(Places)-1:0]);
      WatchedIsThere: assert (!written_q || overwritten_q || (since >= 16'd1 && since <= Places &&
          memory_q[watched_write[$clog2(Places)-1:0]] == watched_q));
      ReadsWhatWasWritten: assert (!written_q || overwritten_q ||
          read_place_i != watched_write[$clog2(Places)-1:0] || data_o == watched_q);
    end
  end
