  // One packet, whichever, is watched; what comes behind it cannot matter to it and does not come. The
  // octets are cut away: an option's type, length and data are anything.
  //
  // From window `since` on the walk so far is known, the same for all later windows; the option that
  // begins next does so in that window or in a later one, and the options' end stays where it is.
  (* anyconst *) rx_parse_pkg::options_t walk;
  (* anyconst *) rx_parse_pkg::option_kind_t kind;
  (* anyconst *) logic [7:0] since;
  (* anyseq *) logic watch_i, last_i, ok_i;  // ok: the parts before have found the packet right

  function automatic logic goes_on(input rx_parse_pkg::options_t options);
    goes_on = options.more && !options.overrun && !options.refused;
  endfunction
  function automatic logic in_bounds(input rx_parse_pkg::options_t options,
      input rx_parse_pkg::option_kind_t kind_of);
    in_bounds = !options.found || options.refused || ({1'b0, options.payload_units} >= kind_of.least_units &&
        options.payload_units <= kind_of.most_units);
  endfunction
  function automatic logic [15:0] end_of(input rx_parse_pkg::options_t options);
    end_of = {1'b0, options.cursor} + {8'd0, options.left};
  endfunction

  always @(*) begin
    assume (walk.known && in_bounds(walk, kind));
    assume (!goes_on(walk) || walk.cursor[14:6] >= {1'b0, since});
    assume (walk.overrun || walk.refused || (walk.more == (walk.left != 8'd0) &&
        end_of(walk) <= 16'd16384));
  end

  // Which window of the watched packet each stage has seen last, if any.
  logic seen_1q, seen_2q, seen_3q, ended_q, watched_1q, watched_2q, watched_3q;
  logic [7:0] at_1q, at_2q, at_3q;
  logic [2:0] last_q, ok_q;
  logic watched;
  assign watched = seen_1q || watch_i;
  always @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      seen_1q <= 1'b0;
      seen_2q <= 1'b0;
      seen_3q <= 1'b0;
      ended_q <= 1'b0;
    end else begin
      if (window_valid_i && watched) begin
        seen_1q <= 1'b1;
        ended_q <= last_i;
      end
      if (valid_1q && watched_1q) seen_2q <= 1'b1;
      if (valid_2q && watched_2q) seen_3q <= 1'b1;
    end
  end
  always @(posedge clk_i) begin
    if (window_valid_i) begin
      watched_1q <= watched;
      at_1q <= window_index_i;
      last_q[0] <= last_i;
      ok_q[0] <= ok_i;
    end
    if (valid_1q) begin
      watched_2q <= watched_1q;
      at_2q <= index_1q;
      last_q[1] <= last_q[0];
      ok_q[1] <= ok_q[0];
    end
    if (valid_2q) begin
      watched_3q <= watched_2q;
      at_3q <= index_2q;
      last_q[2] <= last_q[1];
      ok_q[2] <= ok_q[1];
    end
  end

  always @(*) begin
    if (rst_ni && window_valid_i) begin
      assume (!ended_q);
      if (watched) begin
        assume (window_first_i == !seen_1q);
        assume (seen_1q ? window_index_i == at_1q + 8'd1 && at_1q != 8'd255 : window_index_i == 8'd0);
        assume (options_i.known == (window_index_i >= since));
        assume (!options_i.known || (options_i == walk && kind_i == kind));
        // In the last window of a packet that is right so far all of its options have come.
        assume (!last_i || !ok_i || (options_i.known && (walk.overrun || walk.refused ||
            end_of(walk) <= {2'd0, window_index_i, 6'd0} + 16'd64)));
      end
    end
  end

  // The answer, and from which window on it is known.
  logic [8:0] answered;
  rx_parse_pkg::options_t answer_q;
  logic answered_q;
  assign answered = goes_on(walk) ? walk.cursor[14:6] : {1'b0, since};
  always @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) answered_q <= 1'b0;
    else if (valid_3q && watched_3q && options_o.known) answered_q <= 1'b1;
  end
  always @(posedge clk_i) if (valid_3q && watched_3q) answer_q <= options_o;

  always @(*) begin
    if (rst_ni) begin
      // What is inside is what came in.
      Order1: assert (valid_1q && watched_1q ? seen_1q && at_1q == index_1q &&
          first_1q == (index_1q == 8'd0) && (seen_2q ? index_1q == at_2q + 8'd1 && at_2q != 8'd255 :
          index_1q == 8'd0) : seen_1q == seen_2q && (!seen_1q || at_1q == at_2q));
      Order2: assert (valid_2q && watched_2q ? seen_2q && at_2q == index_2q &&
          first_2q == (index_2q == 8'd0) && (seen_3q ? index_2q == at_3q + 8'd1 && at_3q != 8'd255 :
          index_2q == 8'd0) : seen_2q == seen_3q && (!seen_2q || at_2q == at_3q));
      Before1: assert (!valid_1q || watched_1q || !seen_2q);
      Before2: assert (!valid_2q || watched_2q || !seen_3q);
      Order3: assert (!valid_3q || !watched_3q || (seen_3q && at_3q == index_3q &&
          first_3q == (index_3q == 8'd0)));
      Watched1: assert (!seen_1q || watched_1q);
      Watched2: assert (!seen_2q || watched_2q);
      Watched3: assert (!seen_3q || watched_3q);
      Kept1: assert (!valid_1q || !watched_1q || (options_1q.known == (index_1q >= since) &&
          (!options_1q.known || (options_1q == walk && kind_1q == kind && going_1q == goes_on(walk))) &&
          hit_1q == (options_1q.known && goes_on(walk) && walk.cursor[14:6] == {1'b0, index_1q})));
      Kept2: assert (!valid_2q || !watched_2q || (options_2q.known == (index_2q >= since) &&
          (!options_2q.known || (options_2q == walk && kind_2q == kind && going_2q == goes_on(walk))) &&
          hit_2q == (options_2q.known && goes_on(walk) && walk.cursor[14:6] == {1'b0, index_2q})));
      Behind2: assert (!valid_2q || !watched_2q || !options_2q.known || (left_behind_type_2q ==
          walk.left - 8'd1 && behind_type_2q == walk.cursor + 15'd1 && behind_length_2q ==
          walk.cursor + 15'd2 && left_behind_length_2q == $signed({2'd0, walk.left}) - 10'sd2));
      HasCome1: assert (!valid_1q || !watched_1q || !last_q[0] || !ok_q[0] || (options_1q.known &&
          (walk.overrun || walk.refused || end_of(walk) <= {2'd0, index_1q, 6'd0} + 16'd64)));
      HasCome2: assert (!valid_2q || !watched_2q || !last_q[1] || !ok_q[1] || (options_2q.known &&
          (walk.overrun || walk.refused || end_of(walk) <= {2'd0, index_2q, 6'd0} + 16'd64)));
      AnswerKept: assert (!seen_3q || (options_3q.known == ({1'b0, at_3q} >= answered) &&
          (!options_3q.known || (in_bounds(options_3q, kind) && (goes_on(walk) || options_3q == walk) &&
          (!goes_on(options_3q) || options_3q.cursor[14:6] >= answered) &&
          (options_3q.overrun || options_3q.refused || (end_of(options_3q) == end_of(walk) &&
          options_3q.more == (options_3q.left != 8'd0)))))));
      AnswerSame: assert (!answered_q || (seen_3q && options_3q.known && options_3q == answer_q));

      // What the next step relies on: the same as what this one does, with its own `since`.
      KnownFromAWindowOn: assert (!valid_3q || !watched_3q ||
          options_o.known == ({1'b0, index_3q} >= answered));
      StaysForThePacket: assert (!valid_3q || !watched_3q || !answered_q || options_o == answer_q);
      KindStays: assert (!valid_3q || !watched_3q || !options_o.known || kind_o == kind);
      PayloadInBounds: assert (!valid_3q || !watched_3q || !options_o.known ||
          in_bounds(options_o, kind));
      Ahead: assert (!valid_3q || !watched_3q || !options_o.known || !goes_on(options_o) ||
          options_o.cursor[14:6] >= answered);
      EndStays: assert (!valid_3q || !watched_3q || !options_o.known || options_o.overrun ||
          options_o.refused || (end_of(options_o) == end_of(walk) &&
          options_o.more == (options_o.left != 8'd0)));
      HasCome: assert (!valid_3q || !watched_3q || !last_q[2] || !ok_q[2] || (options_o.known &&
          (options_o.overrun || options_o.refused ||
          end_of(options_o) <= {2'd0, index_3q, 6'd0} + 16'd64)));
    end
  end
