// One step of the walk over IPv6 extension headers (RFC 8200, 4).
//
//   octet 0         1         2         3
//        +---------+---------+---------+---------+
//        |next hdr | units   |                   |   hop-by-hop 0, routing 43, destination options 60:
//        +---------+---------+---------+---------+   (units + 1) * 8 octets
//        |next hdr |reserved | offset/8 15..3  M |   fragment 44: 8 octets, and the walk ends behind it
//        +---------+---------+---------+---------+
//
// Headers begin on multiples of 8 octets from the IPv6 header, so that none straddles a window: of each
// window only the first four of every eight octets come here. Where the header begins in an earlier
// window than the cursor's the step does not know its answer yet; once it does it keeps it for the
// packet's later windows.
//
// It takes two cycles: the first one picks the word at the cursor, the second one judges it.
module rx_parse_extension (
  input  logic                  clk_i,
  input  logic                  rst_ni,
  input  logic                  window_valid_i,
  input  logic                  window_first_i,
  input  logic [7:0]            window_index_i,
  input  logic [255:0]          window_words_i,  // word n, of octets 8n to 8n + 3, in bits 32n+31:32n
  input  rx_parse_pkg::chain_t  chain_i,
  // Two cycles later:
  output logic                  window_valid_o,
  output logic                  window_first_o,
  output logic [7:0]            window_index_o,
  output logic [255:0]          window_words_o,
  output rx_parse_pkg::chain_t  chain_o
);

  // First cycle.
  logic valid_1q, first_1q, hit_1q;
  logic [7:0] index_1q;
  logic [255:0] words_1q;
  logic [31:0] word_1q;
  rx_parse_pkg::chain_t chain_1q;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) valid_1q <= 1'b0;
    else valid_1q <= window_valid_i;
  end

  always_ff @(posedge clk_i) begin
    first_1q <= window_first_i;
    index_1q <= window_index_i;
    words_1q <= window_words_i;
    hit_1q <= chain_i.known && chain_i.more && chain_i.cursor[12:4] == {1'b0, window_index_i};
    word_1q <= window_words_i[{chain_i.cursor[3:1], 5'd0} +: 32];
    chain_1q <= chain_i;
  end

  // Second cycle.
  logic valid_2q, first_2q;
  logic [7:0] index_2q;
  logic [255:0] words_2q;
  rx_parse_pkg::chain_t step, chain_2d, chain_2q;
  logic [12:0] fragment_offset;

  assign fragment_offset = {word_1q[23:16], word_1q[31:27]};

  always_comb begin
    step.known = 1'b1;
    step.more = !chain_1q.at_fragment && rx_parse_pkg::is_extension(word_1q[7:0]);
    step.at_fragment = word_1q[7:0] == cryptonic_wire_pkg::IP_PROTOCOL_FRAGMENT;
    step.next_header = word_1q[7:0];
    step.cursor[12:1] = chain_1q.cursor[12:1] +
        (chain_1q.at_fragment ? 12'd0 : {4'd0, word_1q[15:8]}) + 12'd1;
    step.cursor[0] = 1'b0;
    step.named_at = chain_1q.cursor[12:1];
    step.fragment = chain_1q.at_fragment;
    step.later_fragment = chain_1q.at_fragment && fragment_offset != 13'd0;
  end

  always_comb begin
    chain_2d = hit_1q ? step : chain_1q;
    chain_2d.known = hit_1q || (chain_1q.known && !chain_1q.more);
  end

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) valid_2q <= 1'b0;
    else valid_2q <= valid_1q;
  end

  always_ff @(posedge clk_i) begin
    first_2q <= first_1q;
    index_2q <= index_1q;
    words_2q <= words_1q;
    if (valid_1q) begin
      if (first_1q || !chain_2q.known) chain_2q <= chain_2d;
    end
  end

  assign window_valid_o = valid_2q;
  assign window_first_o = first_2q;
  assign window_index_o = index_2q;
  assign window_words_o = words_2q;
  assign chain_o = chain_2q;

endmodule
