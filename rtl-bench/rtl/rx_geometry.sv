// Where the cipher works on a received packet: with what rx_parse has found and what the SA says, the 64-bit
// sequence number, the IV, the ranges of AAD, text and ICV; or the verdict that they cannot be.
//
// One request a cycle, one answer for each, in order, 7 cycles later or as soon as those in front of it are
// taken. The pipeline never stalls inside: a request enters only while the result FIFO has a place for its
// answer. All that is shown in a cycle depends on registers alone.
//
//             place free?    1         2          3         4          5          6        FIFO
//   request ──▶ ready ──▶ request ─▶ header ─▶ payload ─▶ clear ─▶ comparisons ─▶ verdict ─▶ ┌──┬──┐ ──▶ result
//                                    end                  payload                            └──┴──┘
//                                └─── sequence number ──────────┘
//
// request_numbers_i: the 16 octets of the frame from numbers_offset on, octet 0 in bits 7:0. They are
//
//   octet     0         1    ...  3         4    ...  7         8         ...    11 |       ...       15
//            ┌─────────────────────────────┬─────────────────────────────────────────┬──────────────────┐
//   ESP      │ sequence number, low half   │ IV, if it is in the packet              │                  │
//   WESPv2   └─────────────────────────────┴───────────────────┬─────────────────────┴──────────────────┤
//   EESP     │ sequence number, or the lone IV                 │ IV, behind a sequence number           │
//            ├─────────────────────────────────────────────────┼────────────────────────────────────────┤
//   PSP      │ IV                                              │                                        │
//            └─────────────────────────────────────────────────┴────────────────────────────────────────┘
//
// most significant octet first.
module rx_geometry #(
  parameter int Results = 16    // places in the result FIFO, a power of two, at least 8 for full rate
) (
  input  logic         clk_i,
  input  logic         rst_ni,

  input  logic         request_valid_i,
  output logic         request_ready_o,

  // As rx_parse gives them; protocols as in rx_geometry_pkg.
  input  logic [2:0]   request_protocol_i,
  input  logic [13:0]  request_security_offset_i,
  input  logic [13:0]  request_numbers_offset_i,
  input  logic [11:0]  request_header_octets_i,
  input  logic [5:0]   request_crypt_offset_i,
  input  logic         request_payload_offset_valid_i,
  input  logic [5:0]   request_payload_offset_i,
  input  logic [15:0]  request_session_id_i,
  input  logic [7:0]   request_psp_flags_i,
  input  logic [13:0]  request_l3_end_i,
  input  logic [127:0] request_numbers_i,

  // The SA. What is not of its protocol does not matter.
  input  logic [2:0]   sa_protocol_i,
  input  logic [1:0]   sa_cipher_i,              // ESP, WESPv2
  input  logic [4:0]   sa_icv_octets_i,          // 8, 12, 16; PSP's are 16
  input  logic         sa_extended_sequence_i,   // ESP
  input  logic [63:0]  sa_window_top_i,          // ESP with extended sequence numbers: highest authenticated
  input  logic [31:0]  sa_window_i,              // likewise; 0 is off, and counts as 2^31
  input  logic [1:0]   sa_numbering_i,           // EESP
  input  logic [1:0]   sa_format_i,              // EESP
  input  logic         sa_last_sub_sa_valid_i,   // EESP: session IDs are those of sub SAs
  input  logic [15:0]  sa_last_sub_sa_i,

  output logic         result_valid_o,
  input  logic         result_ready_i,
  output logic [6:0]   result_verdict_o,         // number of a status, 0 is ok; all below is 0 otherwise
  output logic [63:0]  result_sequence_o,        // 0 where there is none
  output logic [63:0]  result_iv_o,              // the last eight octets of the nonce, as a number
  output logic [13:0]  result_aad_start_o,
  output logic [13:0]  result_aad_end_o,
  output logic         result_sequence_high_in_aad_o,   // it stands behind the first four octets
  output logic [13:0]  result_text_start_o,
  output logic [13:0]  result_icv_offset_o,      // the text ends here
  output logic [4:0]   result_icv_octets_o,

  output logic         drained_o                 // nothing inside
);

  // Number of a status as verdict.
  localparam logic [6:0] NoSa = cryptonic_regs_pkg::STATUS_NO_SA[6:0];
  localparam logic [6:0] BadSequence = cryptonic_regs_pkg::STATUS_BAD_SEQUENCE[6:0];
  localparam logic [6:0] TruncatedEsp = cryptonic_regs_pkg::STATUS_TRUNCATED_ESP[6:0];
  localparam logic [6:0] TruncatedPsp = cryptonic_regs_pkg::STATUS_TRUNCATED_PSP[6:0];
  localparam logic [6:0] TruncatedEesp = cryptonic_regs_pkg::STATUS_TRUNCATED_EESP[6:0];
  localparam logic [6:0] PspBadHeaderLength = cryptonic_regs_pkg::STATUS_PSP_BAD_HEADER_LENGTH[6:0];
  localparam logic [6:0] PspCryptOffsetPastEnd =
      cryptonic_regs_pkg::STATUS_PSP_CRYPT_OFFSET_PAST_END[6:0];
  localparam logic [6:0] CryptOffsetNotAllowed =
      cryptonic_regs_pkg::STATUS_CRYPT_OFFSET_NOT_ALLOWED[6:0];
  localparam logic [6:0] CryptOffsetPastEnd = cryptonic_regs_pkg::STATUS_CRYPT_OFFSET_PAST_END[6:0];
  localparam logic [6:0] EespPayloadOffset = cryptonic_regs_pkg::STATUS_EESP_PAYLOAD_OFFSET[6:0];
  localparam logic [6:0] EespSessionId = cryptonic_regs_pkg::STATUS_EESP_SESSION_ID[6:0];
  localparam logic [6:0] WespHeaderLengthMismatch =
      cryptonic_regs_pkg::STATUS_WESP_HEADER_LENGTH_MISMATCH[6:0];
  localparam logic [4:0] PspIcvLength = cryptonic_wire_pkg::PSP_ICV_LENGTH[4:0];
  localparam logic [11:0] PspHeaderLength = cryptonic_wire_pkg::PSP_HEADER_LENGTH[11:0];

  localparam int Stages = 6;

  // What is inside.
  logic              full, request_taken;
  logic [Stages:1]   valid_q;

  assign request_ready_o = !full;
  assign request_taken   = request_valid_i && request_ready_o;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) valid_q <= '0;
    else valid_q <= {valid_q[Stages-1:1], request_taken};
  end

  // Stage 1: the request, its protocol told, with each number the right way round.
  logic         is_psp;
  logic         is_esp_1q, is_psp_1q, is_wespv2_1q, is_eesp_1q;
  logic         has_iv_1q, cipher_encrypts_1q, psp_encrypts_1q;
  logic         has_two_numbers_1q, has_lone_iv_1q, has_payload_info_1q;
  logic [13:0]  security_offset_1q, numbers_offset_1q, l3_end_1q;
  logic [11:0]  header_octets_1q, base_octets_1q;
  logic [5:0]   crypt_offset_1q, payload_offset_1q;
  logic         has_option_1q, option_not_allowed_1q;
  logic [15:0]  session_id_1q, last_sub_sa_1q;
  logic [127:0] numbers_1q;
  logic [4:0]   icv_octets_1q;
  logic         extended_sequence_1q, last_sub_sa_valid_1q;
  logic [63:0]  window_top_1q;
  logic [31:0]  window_1q;

  assign is_psp = sa_protocol_i == rx_geometry_pkg::PROTOCOL_PSP;

  always_ff @(posedge clk_i) begin
    is_esp_1q    <= request_protocol_i == rx_geometry_pkg::PROTOCOL_ESP &&
                    sa_protocol_i == rx_geometry_pkg::PROTOCOL_ESP;
    is_psp_1q    <= request_protocol_i == rx_geometry_pkg::PROTOCOL_PSP && is_psp;
    is_wespv2_1q <= request_protocol_i == rx_geometry_pkg::PROTOCOL_WESPV2 &&
                    sa_protocol_i == rx_geometry_pkg::PROTOCOL_WESPV2;
    is_eesp_1q   <= request_protocol_i == rx_geometry_pkg::PROTOCOL_EESP &&
                    sa_protocol_i == rx_geometry_pkg::PROTOCOL_EESP;
    has_iv_1q           <= sa_cipher_i != rx_geometry_pkg::CIPHER_GCM_IMPLICIT_IV;
    cipher_encrypts_1q  <= sa_cipher_i != rx_geometry_pkg::CIPHER_GMAC;
    // The version is in bits 5..2: 0 and 1 encrypt.
    psp_encrypts_1q     <= request_psp_flags_i[5:3] == 3'd0;
    has_two_numbers_1q  <= sa_numbering_i == rx_geometry_pkg::NUMBERING_SEQUENCE_AND_IV;
    has_lone_iv_1q      <= sa_numbering_i == rx_geometry_pkg::NUMBERING_IV_ALONE;
    has_payload_info_1q <= sa_format_i != rx_geometry_pkg::FORMAT_OPTIMIZED;

    security_offset_1q    <= request_security_offset_i;
    numbers_offset_1q     <= request_numbers_offset_i;
    l3_end_1q             <= request_l3_end_i;
    header_octets_1q      <= request_header_octets_i;
    base_octets_1q        <= is_psp ? PspHeaderLength : request_header_octets_i;
    crypt_offset_1q       <= request_crypt_offset_i;
    payload_offset_1q     <= request_payload_offset_i;
    has_option_1q         <= request_payload_offset_valid_i;
    option_not_allowed_1q <= request_payload_offset_valid_i &&
                             sa_format_i != rx_geometry_pkg::FORMAT_FULL_WITH_CRYPT_OFFSET;
    session_id_1q         <= request_session_id_i;
    last_sub_sa_1q        <= sa_last_sub_sa_i;
    last_sub_sa_valid_1q  <= sa_last_sub_sa_valid_i;
    icv_octets_1q         <= is_psp ? PspIcvLength : sa_icv_octets_i;
    extended_sequence_1q  <= sa_extended_sequence_i;
    window_top_1q         <= sa_window_top_i;
    window_1q             <= sa_window_i;
    for (int octet = 0; octet < 16; octet++) begin
      numbers_1q[8*(15-octet)+:8] <= request_numbers_i[8*octet+:8];
    end
  end

  // Stages 2 to 5: the ranges.
  logic [13:0] security_offset_5q, aad_end_5q, text_start_5q, icv_offset_5q;
  logic        truncated_5q, header_past_end_5q, crypt_offset_past_end_5q;
  logic        header_length_mismatch_5q, payload_offset_wrong_5q;

  rx_geometry_ranges u_ranges (
    .clk_i,
    .is_esp_i                 (is_esp_1q),
    .is_wespv2_i              (is_wespv2_1q),
    .is_eesp_i                (is_eesp_1q),
    .security_offset_i        (security_offset_1q),
    .numbers_offset_i         (numbers_offset_1q),
    .header_octets_i          (header_octets_1q),
    .base_octets_i            (base_octets_1q),
    .crypt_offset_i           (crypt_offset_1q),
    .payload_offset_i         (payload_offset_1q),
    .l3_end_i                 (l3_end_1q),
    .icv_octets_i             (icv_octets_1q),
    .has_iv_i                 (has_iv_1q),
    .has_two_numbers_i        (has_two_numbers_1q),
    .has_payload_info_i       (has_payload_info_1q),
    .encrypts_i               (is_psp_1q ? psp_encrypts_1q : is_eesp_1q || cipher_encrypts_1q),
    .security_offset_o        (security_offset_5q),
    .aad_end_o                (aad_end_5q),
    .text_start_o             (text_start_5q),
    .icv_offset_o             (icv_offset_5q),
    .truncated_o              (truncated_5q),
    .header_past_end_o        (header_past_end_5q),
    .crypt_offset_past_end_o  (crypt_offset_past_end_5q),
    .header_length_mismatch_o (header_length_mismatch_5q),
    .payload_offset_wrong_o   (payload_offset_wrong_5q)
  );

  // Stages 2 to 4: the sequence number whose low half alone is sent.
  logic [63:0] inferred_4q;
  logic        inferred_bad_4q;

  rx_geometry_sequence u_sequence (
    .clk_i,
    .low_i      (numbers_1q[127:96]),
    .top_i      (window_top_1q),
    .window_i   (window_1q),
    .sequence_o (inferred_4q),
    .bad_o      (inferred_bad_4q)
  );

  // Stages 2 to 4: the numbers that are sent, and what is judged by other things than lengths.
  typedef struct packed {
    logic        is_esp;
    logic        is_psp;
    logic        is_wespv2;
    logic        is_eesp;
    logic        infers;              // ESP with extended sequence numbers
    logic        iv_is_sequence;      // ESP, WESPv2: the IV is not sent
    logic [63:0] sequence_number;     // as it is sent; 0 where there is none
    logic [63:0] iv;                  // as it is sent
    logic        is_lone_iv;          // EESP without a sequence number
    logic        word_0_zero;         // the numbers' first four octets
    logic        word_1_zero;         // the four behind them
    logic        session_past_last;
    logic        option_not_allowed;
    logic        has_option;
    logic [4:0]  icv_octets;
  } told_t;

  told_t told_1, told_2q, told_3q, told_4q;

  always_comb begin
    told_1.is_esp             = is_esp_1q;
    told_1.is_psp             = is_psp_1q;
    told_1.is_wespv2          = is_wespv2_1q;
    told_1.is_eesp            = is_eesp_1q;
    told_1.infers             = is_esp_1q && extended_sequence_1q;
    told_1.iv_is_sequence     = (is_esp_1q || is_wespv2_1q) && !has_iv_1q;
    told_1.session_past_last  = last_sub_sa_valid_1q && session_id_1q > last_sub_sa_1q;
    told_1.has_option         = has_option_1q;
    told_1.option_not_allowed = option_not_allowed_1q;
    told_1.icv_octets         = icv_octets_1q;

    told_1.is_lone_iv         = has_lone_iv_1q;
    told_1.word_0_zero        = numbers_1q[127:96] == 32'd0;
    told_1.word_1_zero        = numbers_1q[95:64] == 32'd0;

    if (is_esp_1q || is_wespv2_1q) told_1.sequence_number = {32'd0, numbers_1q[127:96]};
    else if (is_eesp_1q && !has_lone_iv_1q) told_1.sequence_number = numbers_1q[127:64];
    else told_1.sequence_number = 64'd0;

    if (is_esp_1q || is_wespv2_1q) told_1.iv = numbers_1q[95:32];
    else if (is_eesp_1q && has_two_numbers_1q) told_1.iv = numbers_1q[63:0];
    else told_1.iv = numbers_1q[127:64];
  end

  always_ff @(posedge clk_i) begin
    told_2q <= told_1;
    told_3q <= told_2q;
    told_4q <= told_3q;
  end

  // Stage 5.
  logic [63:0] sequence_4, sequence_5q, iv_5q;
  logic        bad_sequence_4, bad_sequence_5q;
  logic        is_esp_5q, is_psp_5q, is_wespv2_5q, is_eesp_5q, infers_5q;
  logic        session_past_last_5q, option_not_allowed_5q, has_option_5q;
  logic [4:0]  icv_octets_5q;

  assign sequence_4     = told_4q.infers ? inferred_4q : told_4q.sequence_number;
  assign bad_sequence_4 =
      told_4q.infers ? inferred_bad_4q :
      told_4q.is_eesp ? told_4q.word_0_zero && told_4q.word_1_zero && !told_4q.is_lone_iv :
      told_4q.word_0_zero;

  always_ff @(posedge clk_i) begin
    sequence_5q           <= sequence_4;
    iv_5q                 <= told_4q.iv_is_sequence ? sequence_4 : told_4q.iv;
    bad_sequence_5q       <= bad_sequence_4;
    is_esp_5q             <= told_4q.is_esp;
    is_psp_5q             <= told_4q.is_psp;
    is_wespv2_5q          <= told_4q.is_wespv2;
    is_eesp_5q            <= told_4q.is_eesp;
    infers_5q             <= told_4q.infers;
    session_past_last_5q  <= told_4q.session_past_last;
    option_not_allowed_5q <= told_4q.option_not_allowed;
    has_option_5q         <= told_4q.has_option;
    icv_octets_5q         <= told_4q.icv_octets;
  end

  // Stage 6: the verdict. What is found first is the answer; the order is that of each protocol's rules.
  logic [6:0] verdict_5, verdict_6q;
  logic       ok_6q;

  always_comb begin
    verdict_5 = 7'd0;
    if (is_esp_5q) begin
      if (bad_sequence_5q) verdict_5 = BadSequence;
      else if (truncated_5q) verdict_5 = TruncatedEsp;
    end else if (is_wespv2_5q) begin
      if (bad_sequence_5q) verdict_5 = BadSequence;
      else if (header_length_mismatch_5q) verdict_5 = WespHeaderLengthMismatch;
      else if (truncated_5q) verdict_5 = TruncatedEsp;
      else if (crypt_offset_past_end_5q) verdict_5 = CryptOffsetPastEnd;
    end else if (is_eesp_5q) begin
      if (session_past_last_5q) verdict_5 = EespSessionId;
      else if (option_not_allowed_5q) verdict_5 = CryptOffsetNotAllowed;
      else if (has_option_5q && payload_offset_wrong_5q) verdict_5 = EespPayloadOffset;
      else if (truncated_5q) verdict_5 = TruncatedEesp;
      else if (crypt_offset_past_end_5q) verdict_5 = CryptOffsetPastEnd;
      else if (bad_sequence_5q) verdict_5 = BadSequence;
    end else if (is_psp_5q) begin
      if (truncated_5q) verdict_5 = TruncatedPsp;
      else if (header_past_end_5q) verdict_5 = PspBadHeaderLength;
      else if (crypt_offset_past_end_5q) verdict_5 = PspCryptOffsetPastEnd;
    end else begin
      verdict_5 = NoSa;
    end
  end

  typedef struct packed {
    logic [63:0] sequence_number;
    logic [63:0] iv;
    logic [13:0] aad_start;
    logic [13:0] aad_end;
    logic        sequence_high_in_aad;
    logic [13:0] text_start;
    logic [13:0] icv_offset;
    logic [4:0]  icv_octets;
  } ranges_t;

  localparam int RangesBits = 2 * 64 + 4 * 14 + 1 + 5;

  ranges_t ranges_6q;

  always_ff @(posedge clk_i) begin
    verdict_6q                     <= verdict_5;
    ok_6q                          <= verdict_5 == 7'd0;
    ranges_6q.sequence_number      <= sequence_5q;
    ranges_6q.iv                   <= iv_5q;
    ranges_6q.aad_start            <= security_offset_5q;
    ranges_6q.aad_end              <= aad_end_5q;
    ranges_6q.sequence_high_in_aad <= infers_5q;
    ranges_6q.text_start           <= text_start_5q;
    ranges_6q.icv_offset           <= icv_offset_5q;
    ranges_6q.icv_octets           <= icv_octets_5q;
  end

  // The results.
  ranges_t result;

  result_fifo #(
    .Width  (7 + RangesBits),
    .Places (Results)
  ) u_results (
    .clk_i,
    .rst_ni,
    .full_o      (full),
    .reserve_i   (request_taken),
    .fill_i      (valid_q[Stages]),
    .fill_data_i ({verdict_6q, ok_6q ? ranges_6q : '0}),
    .valid_o     (result_valid_o),
    .ready_i     (result_ready_i),
    .data_o      ({result_verdict_o, result}),
    .empty_o     (drained_o)
  );

  assign result_sequence_o             = result.sequence_number;
  assign result_iv_o                   = result.iv;
  assign result_aad_start_o            = result.aad_start;
  assign result_aad_end_o              = result.aad_end;
  assign result_sequence_high_in_aad_o = result.sequence_high_in_aad;
  assign result_text_start_o           = result.text_start;
  assign result_icv_offset_o           = result.icv_offset;
  assign result_icv_octets_o           = result.icv_octets;

`ifndef SYNTHESIS
  always_ff @(posedge clk_i) begin
    if (rst_ni && valid_q[Stages] && ok_6q) begin
      assert (ranges_6q.aad_start <= ranges_6q.aad_end && ranges_6q.aad_end <= ranges_6q.text_start &&
              ranges_6q.text_start <= ranges_6q.icv_offset) else $error("ranges out of order");
    end
  end
`endif

endmodule
