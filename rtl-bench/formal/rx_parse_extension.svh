  // Beside each window goes what the IP header has said of its packet (proof rx_parse_ip: the same for all
  // windows of a packet), and the number of the step. The top gives the IP header its own delay of two
  // cycles a step, which is what stands here.
  (* anyseq *) logic is_ipv6_i;
  (* anyseq *) logic last_i;
  (* anyseq *) logic [3:0] ihl_i;
  (* anyconst *) logic [2:0] step_number;
  logic [1:0] is_ipv6_q, last_q;
  logic [3:0] ihl_1q, ihl_2q;
  always @(posedge clk_i) begin
    is_ipv6_q <= {is_ipv6_q[0], is_ipv6_i};
    last_q <= {last_q[0], last_i};
    ihl_1q <= ihl_i;
    ihl_2q <= ihl_1q;
  end

  // What holds of the walk before step n, for each window: it is known where there is nothing to walk, and
  // the cursor is behind the IP header and grows by at most 2048 octets a step.
  function automatic logic holds(input rx_parse_pkg::chain_t chain,
      input logic is_ipv6, input logic [3:0] ihl, input logic [3:0] steps);
    holds = is_ipv6 ?
        (!chain.known || (chain.cursor >= 13'd10 && chain.cursor <= 13'd10 + {steps, 9'd0})) &&
        (chain.named_at == 12'd0 || (chain.named_at >= 12'd5 &&
        (!chain.known || chain.named_at < chain.cursor[12:1]))) :
        chain.known && !chain.more && chain.cursor == {9'd0, ihl} && chain.named_at == 12'd0;
  endfunction

  // The order of windows: a packet's have one IP header and indices from 0 on, and what is known of the
  // walk stays.
  logic in_packet_q;
  logic is_ipv6_packet_q;
  logic [3:0] ihl_packet_q;
  logic [7:0] index_packet_q;
  rx_parse_pkg::chain_t chain_packet_q;
  always @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) in_packet_q <= 1'b0;
    else if (window_valid_i) in_packet_q <= !last_i;
  end
  always @(posedge clk_i) begin
    if (window_valid_i) begin
      is_ipv6_packet_q <= is_ipv6_i;
      ihl_packet_q <= ihl_i;
      index_packet_q <= window_index_i;
      chain_packet_q <= chain_i;
    end
  end

  always @(*) begin
    if (rst_ni && window_valid_i) begin
      assume (window_first_i == !in_packet_q);
      assume (window_first_i ? window_index_i == 8'd0 : window_index_i == index_packet_q + 8'd1 &&
          index_packet_q != 8'd255);
      assume (holds(chain_i, is_ipv6_i, ihl_i, {1'b0, step_number}));
      assume (window_first_i || (is_ipv6_i == is_ipv6_packet_q && ihl_i == ihl_packet_q));
      assume (window_first_i || !chain_packet_q.known || chain_i == chain_packet_q);
      // A header that begins at the cursor begins in this window, or in one that is to come.
      assume (!chain_i.known || !chain_i.more || (!window_first_i && chain_packet_q.known) ||
          chain_i.cursor[12:4] >= {1'b0, window_index_i});
    end
  end

  // The same for what comes out.
  logic out_in_packet_q, out_is_ipv6_q;
  logic [3:0] out_ihl_q;
  logic [7:0] out_index_q;
  rx_parse_pkg::chain_t out_chain_q;
  always @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) out_in_packet_q <= 1'b0;
    else if (window_valid_o) out_in_packet_q <= !last_q[1];
  end
  always @(posedge clk_i) begin
    if (window_valid_o) begin
      out_is_ipv6_q <= is_ipv6_q[1];
      out_ihl_q <= ihl_2q;
      out_index_q <= window_index_o;
      out_chain_q <= chain_o;
    end
  end

  always @(*) begin
    if (rst_ni) begin
      // What is inside is what came in.
      InPacket: assert (in_packet_q == (valid_1q ? !last_q[0] : valid_2q ? !last_q[1] :
          out_in_packet_q));
      First: assert (!valid_1q || (holds(chain_1q, is_ipv6_q[0], ihl_1q, {1'b0, step_number}) &&
          index_1q == index_packet_q && chain_1q == chain_packet_q && ihl_1q == ihl_packet_q &&
          is_ipv6_q[0] == is_ipv6_packet_q && hit_1q == (chain_1q.known && chain_1q.more &&
          chain_1q.cursor[12:4] == {1'b0, index_1q}) && (first_1q == (index_1q == 8'd0))));
      FirstFollows: assert (!valid_1q || !valid_2q || (first_1q == last_q[1] &&
          (first_1q || (index_1q == index_2q + 8'd1 && ihl_1q == ihl_2q &&
          is_ipv6_q[0] == is_ipv6_q[1]))));
      FirstFollowsOut: assert (!valid_1q || valid_2q || (first_1q == !out_in_packet_q &&
          (first_1q || (index_1q == out_index_q + 8'd1 && ihl_1q == out_ihl_q &&
          is_ipv6_q[0] == out_is_ipv6_q))));
      SecondFollowsOut: assert (!valid_2q || (first_2q == !out_in_packet_q && (first_2q ?
          index_2q == 8'd0 : index_2q == out_index_q + 8'd1 && out_index_q != 8'd255 &&
          ihl_2q == out_ihl_q && is_ipv6_q[1] == out_is_ipv6_q)));
      OutIsLatest: assert (valid_1q || valid_2q || !out_in_packet_q || (index_packet_q == out_index_q &&
          ihl_packet_q == out_ihl_q && is_ipv6_packet_q == out_is_ipv6_q));
      SecondIsLatest: assert (valid_1q || !valid_2q || (index_packet_q == index_2q &&
          ihl_packet_q == ihl_2q && is_ipv6_packet_q == is_ipv6_q[1]));
      Kept: assert (valid_2q || !out_in_packet_q || chain_2q == out_chain_q);
      OutHolds: assert (!out_in_packet_q || holds(out_chain_q, out_is_ipv6_q, out_ihl_q,
          {1'b0, step_number} + 4'd1));

      // What the next step, or rx_parse_upper, relies on.
      FirstInOrder: assert (!window_valid_o || (window_first_o == !out_in_packet_q));
      IndexInOrder: assert (!window_valid_o || (window_first_o ? window_index_o == 8'd0 :
          window_index_o == out_index_q + 8'd1 && out_index_q != 8'd255));
      Holds: assert (!window_valid_o ||
          holds(chain_o, is_ipv6_q[1], ihl_2q, {1'b0, step_number} + 4'd1));
      OneIpHeader: assert (!window_valid_o || window_first_o || (is_ipv6_q[1] == out_is_ipv6_q &&
          ihl_2q == out_ihl_q));
      KnownStays: assert (!window_valid_o || window_first_o || !out_chain_q.known ||
          chain_o == out_chain_q);
      CursorAhead: assert (!window_valid_o || !chain_o.known || !chain_o.more ||
          (!window_first_o && out_chain_q.known) || chain_o.cursor[12:4] >= {1'b0, window_index_o});
    end
  end
