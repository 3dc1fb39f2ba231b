// The key expansion of AES-256 (FIPS 197, 5.2), one round key every second cycle.
//
//   cycle      0       1     2     3     4     ...   30
//   start_i    1
//   run_i      -       1     1     1     1           1
//   write_o    0       0     1     0     1           1
//   round_o                  0           1           14
//
// A step is two cycles: one looks the last word up in the S-box, one gives the older of the two round keys
// that are held out and puts the next one behind the younger. With the last step nothing of the key is left here.
//
//   w[i] = w[i-8] ^ w[i-1]                              four words at once, w[i-1] of the first being
//   SubWord(RotWord(w[i-1])) ^ Rcon   for even rounds   the last word of the younger round key
//   SubWord(w[i-1])                   for odd rounds
//
// Order of octets: octet n in bits 8n+7:8n; the first octet of a word is its lowest.

module aes256_key_expansion (
  input  logic         clk_i,
  input  logic         rst_ni,

  input  logic         clear_i,   // zero, at any time
  input  logic         start_i,
  input  logic [255:0] key_i,     // with start_i
  input  logic         run_i,     // from the cycle behind start_i until done_o

  output logic         write_o,
  output logic [3:0]   round_o,
  output logic [127:0] key_o,
  output logic         done_o     // with the last round key
);

  localparam logic [3:0] LastRound = 4'd14;

  logic [127:0] older_q, younger_q;
  logic [31:0]  substituted_d, substituted_q, turned;
  logic [7:0]   constant_q;      // Rcon: x^0 for round key 2, x^1 for round key 4, ...
  logic [3:0]   round_q;
  logic         second_q;        // the second cycle of a step

  // The round key behind the younger one has the parity of the older one.
  assign turned = round_q[0] ? younger_q[127:96] : {younger_q[103:96], younger_q[127:104]};

  for (genvar octet = 0; octet < 4; octet++) begin : gen_sub_word
    aes256_sbox u_sbox (
      .octet_i(turned[8*octet +: 8]),
      .octet_o(substituted_d[8*octet +: 8])
    );
  end

  logic [31:0]  word_0, word_1, word_2, word_3;

  assign word_0 = older_q[31:0] ^ substituted_q ^ {24'b0, round_q[0] ? 8'b0 : constant_q};
  assign word_1 = older_q[63:32] ^ word_0;
  assign word_2 = older_q[95:64] ^ word_1;
  assign word_3 = older_q[127:96] ^ word_2;

  assign write_o = run_i && second_q;
  assign round_o = round_q;
  assign key_o   = older_q;
  assign done_o  = write_o && round_q == LastRound;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      older_q       <= '0;
      younger_q     <= '0;
      substituted_q <= '0;
      constant_q    <= '0;
      round_q       <= '0;
      second_q      <= 1'b0;
    end else if (clear_i || done_o) begin
      older_q       <= '0;
      younger_q     <= '0;
      substituted_q <= '0;
      constant_q    <= '0;
      round_q       <= '0;
      second_q      <= 1'b0;
    end else if (start_i) begin
      older_q       <= key_i[127:0];
      younger_q     <= key_i[255:128];
      constant_q    <= 8'h01;
      round_q       <= '0;
      second_q      <= 1'b0;
    end else if (run_i) begin
      second_q      <= !second_q;
      substituted_q <= substituted_d;
      if (second_q) begin
        older_q   <= younger_q;
        younger_q <= {word_3, word_2, word_1, word_0};
        round_q   <= round_q + 4'd1;
        if (!round_q[0]) begin
          constant_q <= constant_q << 1;
        end
      end
    end
  end

endmodule
