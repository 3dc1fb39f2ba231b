  // What the proof rx_parse_timing says: a verdict comes VerdictStage + 1 cycles behind each last beat,
  // and at no other time. The stages themselves are cut away.
  localparam int IpStage = 3;
  localparam int UpperStage = IpStage + 16 + 7;
  localparam int NumbersStage = UpperStage + 5;
  localparam int VerdictStage = UpperStage + 24 + 1;
  logic [VerdictStage:0] last_taken;
  always @(*) if (rst_ni) assume (verdict_last == last_taken[VerdictStage]);

  // Packets, modulo 2^8, which is more than twice what can be inside: those that have begun, ended (their
  // last beat was taken), have passed a stage, were loaded into the output register, and were taken.
  logic [7:0] begun_q, ended_q, ip_written_q, at_11q, at_19q, upper_written_q, numbers_written_q;
  logic [7:0] at_39q, at_47q, verdict_written_q, loaded_q, taken_q;

  always @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      last_taken <= '0;
      begun_q <= 8'd0;
      ended_q <= 8'd0;
      ip_written_q <= 8'd0;
      at_11q <= 8'd0;
      at_19q <= 8'd0;
      upper_written_q <= 8'd0;
      numbers_written_q <= 8'd0;
      at_39q <= 8'd0;
      at_47q <= 8'd0;
      verdict_written_q <= 8'd0;
      loaded_q <= 8'd0;
      taken_q <= 8'd0;
    end else begin
      last_taken <= {last_taken[VerdictStage-1:0], beat_valid_i && beat_ready_o && beat_last_i};
      if (beat_valid_i && beat_ready_o && !in_packet_q) begun_q <= begun_q + 8'd1;
      if (beat_valid_i && beat_ready_o && beat_last_i) ended_q <= ended_q + 8'd1;
      if (last_taken[IpStage]) ip_written_q <= ip_written_q + 8'd1;
      if (last_taken[11]) at_11q <= at_11q + 8'd1;
      if (last_taken[19]) at_19q <= at_19q + 8'd1;
      if (last_taken[UpperStage]) upper_written_q <= upper_written_q + 8'd1;
      if (last_taken[NumbersStage]) numbers_written_q <= numbers_written_q + 8'd1;
      if (last_taken[39]) at_39q <= at_39q + 8'd1;
      if (last_taken[47]) at_47q <= at_47q + 8'd1;
      if (last_taken[VerdictStage]) verdict_written_q <= verdict_written_q + 8'd1;
      if (load) loaded_q <= loaded_q + 8'd1;
      if (result_valid_o && result_ready_i) taken_q <= taken_q + 8'd1;
    end
  end

  // Packets between two of these places are the last beats that are between them.
  function automatic logic [7:0] ones(input logic [7:0] bits);
    ones = {7'd0, bits[0]} + {7'd0, bits[1]} + {7'd0, bits[2]} + {7'd0, bits[3]} +
        {7'd0, bits[4]} + {7'd0, bits[5]} + {7'd0, bits[6]} + {7'd0, bits[7]};
  endfunction

  // Packets that are past a place and were not loaded yet.
  logic [7:0] ended_unread, ip_unread, past_11_unread, past_19_unread, upper_unread;
  logic [7:0] numbers_unread, past_39_unread, past_47_unread, verdict_unread;
  assign ended_unread = ended_q - loaded_q;
  assign ip_unread = ip_written_q - loaded_q;
  assign past_11_unread = at_11q - loaded_q;
  assign past_19_unread = at_19q - loaded_q;
  assign upper_unread = upper_written_q - loaded_q;
  assign numbers_unread = numbers_written_q - loaded_q;
  assign past_39_unread = at_39q - loaded_q;
  assign past_47_unread = at_47q - loaded_q;
  assign verdict_unread = verdict_written_q - loaded_q;

  logic empty_1q, empty_2q;  // a verdict came and found no result before it
  logic [7:0] which_1q, which_2q;
  always @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      empty_1q <= 1'b0;
      empty_2q <= 1'b0;
    end else begin
      empty_1q <= last_taken[VerdictStage] && waiting_q == '0 && (!result_valid_o || result_ready_i);
      empty_2q <= empty_1q;
    end
  end
  always @(posedge clk_i) begin
    which_1q <= verdict_written_q;
    which_2q <= which_1q;
  end

  always @(*) begin
    if (rst_ni) begin
      StagesAreThoseOfTheUnit: assert (VerdictStage == 51 && LatencyCycles == VerdictStage + 3);
      EndedToIp: assert (ended_q - ip_written_q == ones({4'd0, last_taken[3:0]}));
      IpTo11: assert (ip_written_q - at_11q == ones(last_taken[11:4]));
      To19: assert (at_11q - at_19q == ones(last_taken[19:12]));
      ToUpper: assert (at_19q - upper_written_q == ones({1'b0, last_taken[26:20]}));
      UpperToNumbers: assert (upper_written_q - numbers_written_q == ones({3'd0, last_taken[31:27]}));
      NumbersTo39: assert (numbers_written_q - at_39q == ones(last_taken[39:32]));
      To47: assert (at_39q - at_47q == ones(last_taken[47:40]));
      ToVerdict: assert (at_47q - verdict_written_q == ones({4'd0, last_taken[51:48]}));
      StagesInOrder: assert (ended_unread <= Results && ended_unread >= ip_unread &&
          ip_unread >= past_11_unread && past_11_unread >= past_19_unread &&
          past_19_unread >= upper_unread && upper_unread >= numbers_unread &&
          numbers_unread >= past_39_unread && past_39_unread >= past_47_unread &&
          past_47_unread >= verdict_unread);

      // Conservation: packets that have begun are arriving (in_packet_q), in the stages (ended_q -
      // verdict_written_q), waiting, shown, or taken.
      BegunAreTakenOrInside: assert (begun_q == taken_q + {1'b0, reserved_q});
      EndedHaveBegun: assert (begun_q == ended_q + {7'd0, in_packet_q});
      LoadedAreTakenOrShown: assert (loaded_q == taken_q + {7'd0, result_valid_q});
      VerdictsAreLoadedOrWait: assert (verdict_written_q == loaded_q + {1'b0, waiting_q});
      DrainedIsEmpty: assert (drained_o == (!in_packet_q && last_taken == '0 && waiting_q == '0 &&
          !result_valid_o));

      // Credits alone decide, and never run over or under.
      ReadyDependsOnCredits: assert (beat_ready_o == (in_packet_q || reserved_q < Results));
      CreditsInRange: assert (reserved_q <= Results);
      CreditsDoNotUnderflow: assert (!take_result || reserved_q != '0);
      FifoDoesNotOverflow: assert (!verdict_last || waiting_q < Results);
      FifoDoesNotUnderflow: assert (!load || waiting_q != '0);
      ResultsMoveOn: assert (!(waiting_q != '0 && (!result_valid_o || result_ready_i)) || load);
      ShownResultStays: assert (!load || !result_valid_q || result_ready_i);

      // In order: what is read is what packet number loaded_q wrote. Each memory counts its own places,
      // one for each packet (proof packet_memory), so that place n modulo Results is packet n's in all
      // four; and no place is written again before it was read.
      ReadInOrder: assert (read_place_q == loaded_q[PlaceBits-1:0]);
      IpNotOverwritten: assert (!last_taken[IpStage] || ip_unread < Results);
      UpperNotOverwritten: assert (!last_taken[UpperStage] || upper_unread < Results);
      NumbersNotOverwritten: assert (!last_taken[NumbersStage] || numbers_unread < Results);
      VerdictNotOverwritten: assert (!last_taken[VerdictStage] || verdict_unread < Results);

      // A result that has none before it is shown two cycles behind its verdict: LatencyCycles in all.
      EmptyWaits: assert (!empty_1q || (waiting_q == 1'b1 && !result_valid_q && loaded_q == which_1q));
      ShownAfterLatency: assert (!empty_2q || (result_valid_o && loaded_q == which_2q + 8'd1));
    end
  end
