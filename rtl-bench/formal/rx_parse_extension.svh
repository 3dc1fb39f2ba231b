  // One packet, whichever, is watched; what comes behind it cannot matter to it and does not come. Which
  // step of the walk this is does not matter either: it may be any.
  //
  // From window `since` on the walk so far is known, the same for all later windows. The cursor is not
  // behind that window; it is behind the IP header, which has `ihl` words in IPv4 and 10 in IPv6, and at
  // most 2048 octets a step further.
  (* anyconst *) rx_parse_pkg::chain_t walk;
  (* anyconst *) logic [7:0] since;
  (* anyconst *) logic is_ipv6;
  (* anyconst *) logic [3:0] ihl;
  (* anyconst *) logic [2:0] step_number;
  (* anyseq *) logic watch_i, last_i;

  function automatic logic holds(input rx_parse_pkg::chain_t chain, input logic is_ipv6_packet,
      input logic [3:0] words, input logic [3:0] steps);
    holds = is_ipv6_packet ?
        chain.cursor >= 13'd10 && chain.cursor <= 13'd10 + {steps, 9'd0} &&
        (chain.named_at == 12'd0 || (chain.named_at >= 12'd5 && chain.named_at < chain.cursor[12:1])) :
        !chain.more && chain.cursor == {9'd0, words} && chain.named_at == 12'd0;
  endfunction

  always @(*) begin
    assume (walk.known && holds(walk, is_ipv6, ihl, {1'b0, step_number}));
    assume (walk.cursor[12:4] >= {1'b0, since} && (is_ipv6 || since == 8'd0));
  end

  // Which window of the watched packet each stage has seen last, if any.
  logic seen_1q, seen_2q, ended_q, watched_1q, watched_2q;
  logic [7:0] at_1q, at_2q;
  logic watched;
  assign watched = seen_1q || watch_i;
  always @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      seen_1q <= 1'b0;
      seen_2q <= 1'b0;
      ended_q <= 1'b0;
    end else begin
      if (window_valid_i && watched) begin
        seen_1q <= 1'b1;
        ended_q <= last_i;
      end
      if (valid_1q && watched_1q) seen_2q <= 1'b1;
    end
  end
  always @(posedge clk_i) begin
    if (window_valid_i) begin
      watched_1q <= watched;
      at_1q <= window_index_i;
    end
    if (valid_1q) begin
      watched_2q <= watched_1q;
      at_2q <= index_1q;
    end
  end

  always @(*) begin
    if (rst_ni && window_valid_i) begin
      assume (!ended_q);
      if (watched) begin
        assume (window_first_i == !seen_1q);
        assume (seen_1q ? window_index_i == at_1q + 8'd1 && at_1q != 8'd255 : window_index_i == 8'd0);
        assume (chain_i.known == (window_index_i >= since));
        assume (!chain_i.known || chain_i == walk);
        assume (is_ipv6 || chain_i == walk);
      end
    end
  end

  // The answer, and from which window on it is known.
  logic [8:0] answered;
  rx_parse_pkg::chain_t answer_q;
  logic answered_q;
  assign answered = walk.more ? walk.cursor[12:4] : {1'b0, since};
  always @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) answered_q <= 1'b0;
    else if (valid_2q && watched_2q && chain_o.known) answered_q <= 1'b1;
  end
  always @(posedge clk_i) if (valid_2q && watched_2q) answer_q <= chain_o;

  always @(*) begin
    if (rst_ni) begin
      // What is inside is what came in.
      Order1: assert (valid_1q && watched_1q ? seen_1q && at_1q == index_1q &&
          first_1q == (index_1q == 8'd0) && (seen_2q ? index_1q == at_2q + 8'd1 && at_2q != 8'd255 :
          index_1q == 8'd0) : seen_1q == seen_2q && (!seen_1q || at_1q == at_2q));
      Order2: assert (!valid_2q || !watched_2q || (seen_2q && at_2q == index_2q &&
          first_2q == (index_2q == 8'd0)));
      Before1: assert (!valid_1q || watched_1q || !seen_2q);
      Watched1: assert (!seen_1q || watched_1q);
      Watched2: assert (!seen_2q || watched_2q);
      Kept1: assert (!valid_1q || !watched_1q || (chain_1q.known == (index_1q >= since) &&
          (!chain_1q.known || chain_1q == walk) && (is_ipv6 || chain_1q == walk) &&
          hit_1q == (chain_1q.known && walk.more && walk.cursor[12:4] == {1'b0, index_1q})));
      AnswerKept: assert (!seen_2q || (chain_2q.known == ({1'b0, at_2q} >= answered) &&
          (!chain_2q.known || (holds(chain_2q, is_ipv6, ihl, {1'b0, step_number} + 4'd1) &&
          (walk.more || chain_2q == walk) && chain_2q.cursor[12:4] >= answered))));
      AnswerSame: assert (!answered_q || (seen_2q && chain_2q.known && chain_2q == answer_q));

      // What the next step, or rx_parse_upper, relies on: the same as what this one does.
      FirstInOrder: assert (!valid_2q || !watched_2q || window_first_o == (window_index_o == 8'd0));
      KnownFromAWindowOn: assert (!valid_2q || !watched_2q ||
          chain_o.known == ({1'b0, index_2q} >= answered));
      StaysForThePacket: assert (!valid_2q || !watched_2q || !answered_q || chain_o == answer_q);
      Holds: assert (!valid_2q || !watched_2q || !chain_o.known ||
          holds(chain_o, is_ipv6, ihl, {1'b0, step_number} + 4'd1));
      Ahead: assert (!valid_2q || !watched_2q || !chain_o.known || chain_o.cursor[12:4] >= answered);
      KnownInIpv4: assert (!valid_2q || !watched_2q || is_ipv6 || (chain_o == walk));
    end
  end
