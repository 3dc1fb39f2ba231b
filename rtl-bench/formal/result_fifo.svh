  // Who uses it reserves only where a place is free, and fills only what is reserved (proof rx_geometry).
  always @(*) begin
    if (rst_ni) begin
      assume (!reserve_i || !full_o);
      assume (!fill_i || filled_q < reserved_q);
    end
  end

  // One result, whichever, is followed: how many are in front of it, itself counted.
  (* anyseq *) logic watch_i;
  logic [IndexBits:0] in_front_q;
  logic watched_q;
  logic [Width-1:0] watched_data_q;
  logic begin_watch;
  assign begin_watch = fill_i && watch_i && !watched_q;
  always @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      watched_q <= 1'b0;
      in_front_q <= '0;
    end else begin
      if (begin_watch) begin
        watched_q <= 1'b1;
        in_front_q <= filled_q + 1'b1 - take;
      end else if (watched_q && take) begin
        in_front_q <= in_front_q - 1'b1;
        if (in_front_q == 1'b1) watched_q <= 1'b0;
      end
    end
  end
  always @(posedge clk_i) if (begin_watch) watched_data_q <= fill_data_i;

  logic shown_q;
  logic [Width-1:0] shown_data_q;
  logic [IndexBits-1:0] watched_place, filled_places;
  assign watched_place = take_index_q + in_front_q[IndexBits-1:0] - 1'b1;
  assign filled_places = fill_index_q - take_index_q;
  always @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) shown_q <= 1'b0;
    else shown_q <= valid_o && !ready_i;
  end
  always @(posedge clk_i) shown_data_q <= data_o;

  always @(*) begin
    if (rst_ni) begin
      CountsInRange: assert (filled_q <= reserved_q && reserved_q <= Places);
      ShownIfFilled: assert (valid_o == (filled_q != '0));
      PlacesAreCounted: assert (filled_places == filled_q[IndexBits-1:0]);
      TakesOnlyWhatIsFilled: assert (!take || filled_q != '0);
      WatchedIsInside: assert (!watched_q || (in_front_q >= 1 && in_front_q <= filled_q &&
          memory[watched_place] == watched_data_q));
      GivenOutInTurn: assert (!watched_q || in_front_q != 1 || data_o == watched_data_q);
      ShownStays: assert (!shown_q || (valid_o && data_o == shown_data_q));
      FullAndEmpty: assert (full_o == (reserved_q == Places) && empty_o == (reserved_q == '0));
    end
  end
