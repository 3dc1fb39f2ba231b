  // What goes into the FIFO: proof result_fifo gives it back as it is.
  always @(*) begin
    if (rst_ni) begin
      OkIsVerdict0: assert (!valid_q[Stages] || ok_6q == (verdict_6q == 7'd0));
      NotOkIsAllZero: assert (!valid_q[Stages] || verdict_6q == 7'd0 ||
          (ranges_6q & {RangesBits{ok_6q}}) == '0);
      VerdictOfTheTable: assert (!valid_q[Stages] || verdict_6q == 7'd0 || verdict_6q == NoSa ||
          verdict_6q == BadSequence || verdict_6q == TruncatedEsp || verdict_6q == TruncatedPsp ||
          verdict_6q == TruncatedEesp || verdict_6q == PspBadHeaderLength ||
          verdict_6q == PspCryptOffsetPastEnd || verdict_6q == CryptOffsetNotAllowed ||
          verdict_6q == CryptOffsetPastEnd || verdict_6q == EespPayloadOffset ||
          verdict_6q == EespSessionId || verdict_6q == WespHeaderLengthMismatch);
    end
  end
