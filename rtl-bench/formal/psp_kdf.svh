  // The ciphertexts and the key expansion are cut away: they are anything, and come at any time.
  localparam int CountBits_ = $clog2(Results);
  (* hierconn *) logic [$clog2(Results):0] \u_results.reserved_q ;
  (* hierconn *) logic [$clog2(Results):0] \u_results.filled_q ;
  (* hierconn *) logic [$clog2(Results):0] \u_results.cleared_q ;
  (* hierconn *) logic [$clog2(Results)-1:0] \u_results.reserve_index_q ;
  (* hierconn *) logic [$clog2(Results)-1:0] \u_results.done_index_q ;
  (* hierconn *) logic [$clog2(Results)-1:0] \u_results.take_index_q ;
  logic [7:0] reserved, filled, cleared;
  assign reserved = {1'b0, \u_results.reserved_q };
  assign filled = {1'b0, \u_results.filled_q };
  assign cleared = {1'b0, \u_results.cleared_q };

  // Requests, modulo 2^8: taken; out of the entry register; past some stages; answered; and results taken.
  logic [7:0] requests_q, entered_q, past_7q, past_15q, past_23q, done_q, results_q;
  logic entered;
  assign entered = (entry_first_q || entry_second_q) && !entry_waits;
  always @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      requests_q <= 8'd0;
      entered_q <= 8'd0;
      past_7q <= 8'd0;
      past_15q <= 8'd0;
      past_23q <= 8'd0;
      done_q <= 8'd0;
      results_q <= 8'd0;
    end else begin
      if (request_valid_i && request_ready_o) requests_q <= requests_q + 8'd1;
      if (entered) entered_q <= entered_q + 8'd1;
      if (completes_q[7]) past_7q <= past_7q + 8'd1;
      if (completes_q[15]) past_15q <= past_15q + 8'd1;
      if (completes_q[23]) past_23q <= past_23q + 8'd1;
      if (completes_q[28]) done_q <= done_q + 8'd1;
      if (result_valid_o && result_ready_i) results_q <= results_q + 8'd1;
    end
  end

  function automatic logic [7:0] ones(input logic [7:0] bits);
    ones = {7'd0, bits[0]} + {7'd0, bits[1]} + {7'd0, bits[2]} + {7'd0, bits[3]} +
        {7'd0, bits[4]} + {7'd0, bits[5]} + {7'd0, bits[6]} + {7'd0, bits[7]};
  endfunction

  logic [7:0] from_entry, from_7, from_15, from_23, from_done, from_request;  // and not taken
  assign from_request = requests_q - results_q;
  assign from_entry = entered_q - results_q;
  assign from_7 = past_7q - results_q;
  assign from_15 = past_15q - results_q;
  assign from_23 = past_23q - results_q;
  assign from_done = done_q - results_q;

  logic clear_q, shown_q;
  logic [TagBits-1:0] shown_tag_q;
  logic shown_missing_q;
  always @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      clear_q <= 1'b0;
      shown_q <= 1'b0;
    end else begin
      clear_q <= clear_i;
      shown_q <= result_valid_o && !result_ready_i;
    end
  end
  always @(posedge clk_i) begin
    shown_tag_q <= result_tag_o;
    shown_missing_q <= result_device_key_missing_o;
  end

  always @(*) begin
    if (rst_ni) begin
      EntryHasOne: assert (!(entry_first_q && entry_second_q) && (entry_second_q ?
          entry_version_q[0] : 1'b1));
      RequestsEnter: assert (requests_q - entered_q == {7'd0, entry_first_q || entry_second_q});
      To7: assert (entered_q - past_7q == ones(completes_q[7:0]));
      To15: assert (past_7q - past_15q == ones(completes_q[15:8]));
      To23: assert (past_15q - past_23q == ones(completes_q[23:16]));
      ToDone: assert (past_23q - done_q == ones({3'd0, completes_q[28:24]}));
      StagesInOrder: assert (from_request <= Results && from_request >= from_entry &&
          from_entry >= from_7 && from_7 >= from_15 && from_15 >= from_23 && from_23 >= from_done);
      RequestsAreAnsweredOrInside: assert (reserved == from_request);
      FilledAreDone: assert (filled == from_done);
      CreditsInRange: assert (reserved <= Results && filled <= reserved && cleared <= reserved);
      NoRequestWithoutPlace: assert (!(request_valid_i && request_ready_o) || reserved < Results);
      NoResultThatNobodyWaitsFor: assert (!done || filled < reserved);
      ShownIfFilled: assert (result_valid_o == (filled != '0));
      PlacesInOrder: assert (\u_results.done_index_q == done_q[CountBits_-1:0] &&
          \u_results.take_index_q == results_q[CountBits_-1:0] &&
          \u_results.reserve_index_q == requests_q[CountBits_-1:0]);
      DrainedIsEmpty: assert (!drained_o || (!result_valid_o && completes_q == '0 && !entry_first_q &&
          !entry_second_q));

      // A clear: no key is valid, all that was not taken is a missing key, and shows none.
      ClearInvalidates: assert (!clear_q || (device_key_valid_o == 2'b00 && cleared == reserved));
      MissingShowsNoKey: assert (!(result_valid_o && result_device_key_missing_o) ||
          result_key_o == '0);
      NoKeyUnlessValid: assert (result_valid_o || result_key_o == '0);
      ClearedIsMissing: assert (!(result_valid_o && cleared != '0) || result_device_key_missing_o);
      // A result that is shown stays; a clear alone may turn it into a missing key.
      ShownStays: assert (!shown_q || (result_valid_o && result_tag_o == shown_tag_q &&
          (!shown_missing_q || result_device_key_missing_o)));
    end
  end
