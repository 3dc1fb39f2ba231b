  // One packet, whichever, is watched, as in rx_parse_option.svh: from window `since` on what is known of
  // its extension headers is the same for all its windows, and the cursor is not behind that window.
  (* anyconst *) rx_parse_pkg::chain_t walk;
  (* anyconst *) logic [7:0] since;
  (* anyseq *) logic watch_i, last_i;
  always @(*) begin
    assume (walk.known && !walk.more && walk.cursor[12:4] >= {1'b0, since});
  end

  logic seen_q, ended_q, watched_1q, watched_2q, picked_q;
  logic [7:0] at_q, at_1q, at_2q;
  logic [127:0] picked_octets_q;
  logic watched;
  initial seen_q = 1'b0;
  initial ended_q = 1'b0;
  initial watched_1q = 1'b0;
  initial watched_2q = 1'b0;
  initial picked_q = 1'b0;
  assign watched = seen_q || watch_i;
  always @(posedge clk_i) begin
    watched_1q <= window_valid_i && watched;
    watched_2q <= watched_1q;
    if (window_valid_i && watched) begin
      seen_q <= 1'b1;
      ended_q <= last_i;
      at_q <= window_index_i;
    end
    at_1q <= window_index_i;
    at_2q <= at_1q;
    if (watched_1q && hit_1q && !picked_q) begin
      picked_q <= 1'b1;
      picked_octets_q <= coarse_1q[{1'b0, fine_1q, 5'd0} +: 128];
    end
  end
  always @(*) begin
    if (window_valid_i) begin
      assume (!ended_q);
      if (watched) begin
        assume (seen_q ? window_index_i == at_q + 8'd1 && at_q != 8'd255 : window_index_i == 8'd0);
        assume (chain_i.known == (window_index_i >= since));
        assume (window_index_i < since || chain_i == walk);
      end
    end
  end

  always @(*) begin
    WatchedAreSeen: assert ((!watched_1q || (seen_q && at_q == at_1q)) && (!watched_2q || seen_q));
    InTurn: assert (!watched_1q || !watched_2q || at_1q == at_2q + 8'd1);
    HitIsAtTheCursor: assert (!watched_1q || hit_1q == (at_1q >= since &&
        walk.cursor[12:4] == {1'b0, at_1q}));
    NoneBehind: assert (!seen_q || watched_1q || !hit_1q || !picked_q);
    PickedWhenReached: assert (picked_q == (seen_q && !(watched_1q && at_1q == 8'd0) &&
        {1'b0, at_q - {7'd0, watched_1q}} >= walk.cursor[12:4]));
    // From the window with the cursor on, and for each of the packet's windows, the same octets.
    PickedStay: assert (!picked_q || upper_2q == picked_octets_q);
    PickedForTheWindow: assert (!watched_2q || {1'b0, at_2q} < walk.cursor[12:4] || picked_q);
  end
