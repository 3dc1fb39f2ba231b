  (* hierconn *) logic [$clog2(Results):0] \u_results.reserved_q ;
  (* hierconn *) logic [$clog2(Results):0] \u_results.filled_q ;
  logic [$clog2(Results):0] reserved, filled;
  assign reserved = \u_results.reserved_q ;
  assign filled = \u_results.filled_q ;

  logic [15:0] requests_q, results_q;
  logic [Stages:1] past_q;
  logic alone_q;  // a request's answer comes and finds none before it
  always @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      requests_q <= 16'd0;
      results_q <= 16'd0;
      past_q <= '0;
      alone_q <= 1'b0;
    end else begin
      if (request_valid_i && request_ready_o) requests_q <= requests_q + 16'd1;
      if (result_valid_o && result_ready_i) results_q <= results_q + 16'd1;
      past_q <= {past_q[Stages-1:1], request_valid_i && request_ready_o};
      alone_q <= past_q[Stages] && (filled == '0 || (filled == 1 && result_ready_i));
    end
  end

  always @(*) begin
    if (rst_ni) begin
      AnswersOnTime: assert (valid_q == past_q);
      Conservation: assert ({9'd0, reserved} == {9'd0, filled} + {15'd0, valid_q[1]} +
          {15'd0, valid_q[2]} + {15'd0, valid_q[3]} + {15'd0, valid_q[4]} + {15'd0, valid_q[5]} +
          {15'd0, valid_q[6]});
      RequestsAreAnsweredOrInside: assert (requests_q == results_q + {9'd0, reserved});
      ReadyDependsOnCredits: assert (request_ready_o == (reserved < Results));
      CreditsInRange: assert (reserved <= Results);
      // What the proof result_fifo assumes.
      ReservesWhatIsFree: assert (!request_taken || !full);
      FillsWhatIsReserved: assert (!valid_q[Stages] || filled < reserved);
      ShownIfFilled: assert (result_valid_o == (filled != '0));
      DrainedIsEmpty: assert (drained_o == (valid_q == '0 && !result_valid_o));
      ShownAfterLatency: assert (!alone_q || (result_valid_o && filled == 1));
    end
  end
