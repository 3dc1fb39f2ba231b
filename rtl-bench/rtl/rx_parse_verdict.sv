// rx_parse, last part: the verdict of a packet, out of what each part has found wrong. The first that
// holds counts:
//
//   1 Ethernet to security header, which rx_parse_upper has put in order     24 cycles ago
//   2 options, in their order: overrun, or one that may not stand there      now
//   3 more options than are walked
//   4 WESPv2: ESP's header is not there, or has no SPI                       24 and 19 cycles ago
//
// 1 cycle from the options' last step.
module rx_parse_verdict (
  input  logic                          clk_i,
  input  logic                          rst_ni,
  // Of the window that the last step of the options will give in 24 cycles.
  input  logic                          upper_last_i,
  input  logic [6:0]                    upper_verdict_i,
  input  logic                          wesp_esp_truncated_i,
  // Of the one that it will give in 19 cycles, if that is a last one.
  input  logic [31:0]                   spi_i,
  // The last step of the options.
  input  logic                          window_valid_i,
  input  rx_parse_pkg::option_kind_t    kind_i,
  input  rx_parse_pkg::options_t        options_i,
  // 1 cycle later, for a last window:
  output logic                          last_o,
  output rx_parse_pkg::verdict_result_t result_o
);

  logic last, wesp_esp_truncated, spi_zero_q, spi_zero;
  logic [6:0] upper_verdict;

  delay_line #(.Width(9), .Delay(24)) u_upper_delay (
    .clk_i,
    .rst_ni,
    .data_i({upper_last_i, wesp_esp_truncated_i, upper_verdict_i}),
    .data_o({last, wesp_esp_truncated, upper_verdict})
  );

  always_ff @(posedge clk_i) spi_zero_q <= spi_i == 32'd0;

  delay_line #(.Width(1), .Delay(18)) u_spi_delay (
    .clk_i,
    .rst_ni,
    .data_i(spi_zero_q),
    .data_o(spi_zero)
  );

  logic last_q;
  rx_parse_pkg::verdict_result_t result_d, result_q;

  always_comb begin
    result_d.payload_offset_valid = options_i.found;
    result_d.payload_offset = options_i.payload_units;
    result_d.crypt_offset = options_i.crypt_units;
    if (upper_verdict != 7'd0) begin
      result_d.verdict = upper_verdict;
    end else if (options_i.overrun) begin
      result_d.verdict = cryptonic_regs_pkg::STATUS_OPTION_OVERRUN[6:0];
    end else if (options_i.refused) begin
      result_d.verdict = kind_i.is_eesp ?
          cryptonic_regs_pkg::STATUS_EESP_BAD_CRYPT_OFFSET[6:0] :
          cryptonic_regs_pkg::STATUS_WESP_UNKNOWN_OPTION[6:0];
    end else if (options_i.more) begin
      result_d.verdict = cryptonic_regs_pkg::STATUS_TOO_MANY_OPTIONS[6:0];
    end else if (wesp_esp_truncated) begin
      result_d.verdict = cryptonic_regs_pkg::STATUS_TRUNCATED_WESP[6:0];
    end else if (kind_i.is_wesp && spi_zero) begin
      result_d.verdict = cryptonic_regs_pkg::STATUS_RESERVED_SPI[6:0];
    end else begin
      result_d.verdict = 7'd0;
    end
  end

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) last_q <= 1'b0;
    else last_q <= window_valid_i && last;
  end

  always_ff @(posedge clk_i) begin
    result_q <= result_d;
  end

  assign last_o = last_q;
  assign result_o = result_q;

endmodule
