// The ranges of a packet, and what in them cannot be, in four cycles. All sums stay below 2^15.
//
//   security_offset                                                                        l3_end
//   │◄─ header_octets ─►│◄─ numbers_octets ─►│◄─ crypt_offset * 4 ─►│                │◄─ ICV ─►│
//   ▼                   ▼                    ▼                      ▼                ▼         ▼
//   ┌───────────────────┬────────────────────┬──────────────────────┬────────────────┬─────────┐
//   │ header            │ numbers            │ clear payload        │ text           │ ICV     │
//   └───────────────────┴────────────────────┴──────────────────────┴────────────────┴─────────┘
//                       header_end           payload                clear_end        icv_offset
//
//   ESP      header: SPI and sequence number; numbers: the IV, if it is in the packet; no crypt offset
//   PSP      the payload of the drawing begins 16 octets behind the header's first, whatever its length
//   WESPv2   header: all up to the IV's end; no numbers
//   EESP     header: with options; numbers: sequence number, IV or both
//
// The cycles: header_end and icv_offset; payload; clear_end; comparisons.
module rx_geometry_ranges (
  input  logic        clk_i,

  input  logic        is_esp_i,                 // at most one of the three, or none for PSP
  input  logic        is_wespv2_i,
  input  logic        is_eesp_i,
  input  logic [13:0] security_offset_i,
  input  logic [13:0] numbers_offset_i,
  input  logic [11:0] header_octets_i,
  input  logic [11:0] base_octets_i,            // 16 for PSP, header_octets else
  input  logic [5:0]  crypt_offset_i,           // 4-octet units
  input  logic [5:0]  payload_offset_i,         // 4-octet units
  input  logic [13:0] l3_end_i,
  input  logic [4:0]  icv_octets_i,
  input  logic        has_iv_i,                 // ESP, WESPv2: the IV is in the packet
  input  logic        has_two_numbers_i,        // EESP: sequence number and IV
  input  logic        has_payload_info_i,       // EESP
  input  logic        encrypts_i,

  // Four cycles later.
  output logic [13:0] security_offset_o,
  output logic [13:0] aad_end_o,
  output logic [13:0] text_start_o,
  output logic [13:0] icv_offset_o,
  output logic        truncated_o,              // ICV, trailer or payload info header have no room
  output logic        header_past_end_o,        // the header reaches into the ICV
  output logic        crypt_offset_past_end_o,
  output logic        header_length_mismatch_o, // WESPv2: the header does not end with the IV
  output logic        payload_offset_wrong_o    // EESP: the option's payload is elsewhere
);

  localparam logic [4:0] EespNumberLength = cryptonic_wire_pkg::EESP_SEQUENCE_LENGTH[4:0];
  localparam logic [4:0] EespNumbersLength =
      cryptonic_wire_pkg::EESP_SEQUENCE_LENGTH[4:0] + cryptonic_wire_pkg::EESP_IV_LENGTH[4:0];

  // First cycle.
  logic [14:0] security_offset, behind_sequence;

  assign security_offset = {1'b0, security_offset_i};
  // ESP's SPI is followed by the low half of the sequence number and, if it is there, by the IV.
  assign behind_sequence = has_iv_i ?
      cryptonic_wire_pkg::ESP_SEQUENCE_OCTETS[14:0] + cryptonic_wire_pkg::ESP_IV_OCTETS[14:0] :
      cryptonic_wire_pkg::ESP_SEQUENCE_OCTETS[14:0];

  logic [14:0] header_end_1q, base_1q, iv_end_1q, option_payload_1q;
  logic [15:0] icv_offset_1q;                   // the top bit: below zero
  logic [13:0] security_offset_1q;
  logic [5:0]  crypt_offset_1q;
  logic [4:0]  numbers_octets_1q;
  logic [2:0]  least_1q;                        // octets that must be there behind the payload's start
  logic        has_trailer_1q, is_esp_1q, encrypts_1q;

  always_ff @(posedge clk_i) begin
    header_end_1q      <= security_offset + {3'b0, header_octets_i};
    base_1q            <= security_offset + {3'b0, base_octets_i};
    iv_end_1q          <= {1'b0, numbers_offset_i} + behind_sequence;
    option_payload_1q  <= security_offset + {7'b0, payload_offset_i, 2'b0};
    icv_offset_1q      <= {2'b0, l3_end_i} - {11'b0, icv_octets_i};
    security_offset_1q <= security_offset_i;
    crypt_offset_1q    <= is_esp_i ? 6'd0 : crypt_offset_i;
    has_trailer_1q     <= is_esp_i || is_wespv2_i;
    is_esp_1q          <= is_esp_i;
    encrypts_1q        <= encrypts_i;

    numbers_octets_1q <= 5'd0;
    if (is_esp_i && has_iv_i) numbers_octets_1q <= cryptonic_wire_pkg::ESP_IV_OCTETS[4:0];
    if (is_eesp_i) numbers_octets_1q <= has_two_numbers_i ? EespNumbersLength : EespNumberLength;

    least_1q <= 3'd0;
    if (is_esp_i || is_wespv2_i) least_1q <= cryptonic_wire_pkg::ESP_TRAILER_FIXED_LENGTH[2:0];
    if (is_eesp_i && has_payload_info_i) begin
      least_1q <= cryptonic_wire_pkg::EESP_PAYLOAD_INFO_LENGTH[2:0];
    end
  end

  // Second cycle.
  logic [14:0] header_end_2q, payload_2q, option_payload_2q;
  logic [15:0] icv_offset_2q;
  logic [13:0] security_offset_2q;
  logic [5:0]  crypt_offset_2q;
  logic [2:0]  least_2q;
  logic        has_trailer_2q, is_esp_2q, encrypts_2q, header_length_mismatch_2q;

  always_ff @(posedge clk_i) begin
    payload_2q                <= base_1q + {10'b0, numbers_octets_1q};
    header_length_mismatch_2q <= iv_end_1q != header_end_1q;
    header_end_2q             <= header_end_1q;
    option_payload_2q         <= option_payload_1q;
    icv_offset_2q             <= icv_offset_1q;
    security_offset_2q        <= security_offset_1q;
    crypt_offset_2q           <= crypt_offset_1q;
    least_2q                  <= least_1q;
    has_trailer_2q            <= has_trailer_1q;
    is_esp_2q                 <= is_esp_1q;
    encrypts_2q               <= encrypts_1q;
  end

  // Third cycle. The trailer's two octets stand where the crypt offset's octets have zeros.
  logic [14:0] header_end_3q, clear_end_3q, least_end_3q, clear_least_end_3q;
  logic [15:0] icv_offset_3q;
  logic [13:0] security_offset_3q;
  logic        is_esp_3q, encrypts_3q, header_length_mismatch_3q, payload_offset_wrong_3q;

  always_ff @(posedge clk_i) begin
    clear_end_3q              <= payload_2q + {7'b0, crypt_offset_2q, 2'b00};
    clear_least_end_3q        <= payload_2q + {7'b0, crypt_offset_2q, has_trailer_2q, 1'b0};
    least_end_3q              <= payload_2q + {12'b0, least_2q};
    payload_offset_wrong_3q   <= option_payload_2q != payload_2q;
    header_length_mismatch_3q <= header_length_mismatch_2q;
    header_end_3q             <= header_end_2q;
    icv_offset_3q             <= icv_offset_2q;
    security_offset_3q        <= security_offset_2q;
    is_esp_3q                 <= is_esp_2q;
    encrypts_3q               <= encrypts_2q;
  end

  // Fourth cycle: each difference is below zero where something passes the ICV's first octet.
  logic [15:0] least_room, clear_room, header_room;

  assign least_room  = icv_offset_3q - {1'b0, least_end_3q};
  assign clear_room  = icv_offset_3q - {1'b0, clear_least_end_3q};
  assign header_room = icv_offset_3q - {1'b0, header_end_3q};

  always_ff @(posedge clk_i) begin
    truncated_o              <= least_room[15];
    crypt_offset_past_end_o  <= clear_room[15];
    header_past_end_o        <= header_room[15];
    header_length_mismatch_o <= header_length_mismatch_3q;
    payload_offset_wrong_o   <= payload_offset_wrong_3q;
    security_offset_o        <= security_offset_3q;
    icv_offset_o             <= icv_offset_3q[13:0];
    text_start_o             <= encrypts_3q ? clear_end_3q[13:0] : icv_offset_3q[13:0];
    aad_end_o                <= !encrypts_3q ? icv_offset_3q[13:0] :
                                is_esp_3q ? header_end_3q[13:0] : clear_end_3q[13:0];
  end

endmodule
