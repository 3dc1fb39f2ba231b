// AES-256 encryption (FIPS 197) with two keys: key expansion and pipeline, a block or two every cycle.
//
//                          ┌───────────────┐  round keys 0..14, one every second cycle
//   expand_start_i, key ──▶│ key expansion │──────────┬─────────────────────────┐
//                          └───────────────┘          ▼ round key 0             ▼ 1..14
//                                                ┌──────────┐            ┌────────────┐
//                               first_key_xor ──▶│ first key│            │ round keys │
//                                                └────┬─────┘            └─────┬──────┘
//   block_i ────────────────────────────────────────▶(xor)─▶[ register ]─▶ 14 rounds ─▶ block_o
//
// A block that stands at block_i in cycle c has its ciphertext at block_o in cycle c + 29. What is added in front of
// round 1 is the first key: round key 0 and, if the user says so, a value of his own (CMAC's subkey).
//
// Expansion, with expand_start_i in cycle c, gives round key r in cycle c + 2 + 2 r; expand_done_o is high in the last of
// them, c + 30. Round r writes it r cycles later, in c + 2 + 3 r. A block at block_i in cycle b reads the first key in b and
// round key r in b + 2 r - 1. So a block in cycle c + 2 or before has the old key to its end, and one in c + 31
// or behind has the new one; a block of this key between them is of neither.
//
// Clear, while high: both keys and what is left of an expansion become zero, round key r in r + 1 cycles.
//
// Order of octets: octet n in bits 8n+7:8n, as on the bus; block 1 above block 0.

module aes256 #(
  parameter int BlocksPerCycle = 1    // 1 or 2, both with the same key
) (
  input  logic                           clk_i,
  input  logic                           rst_ni,

  input  logic                           clear_i,

  input  logic                           expand_start_i,   // not while another expansion is under way
  input  logic                           expand_index_i,   // held until expand_done_o
  input  logic [255:0]                   expand_key_i,     // with expand_start_i
  output logic                           expand_done_o,

  input  logic                           first_key_xor_valid_i,
  input  logic                           first_key_xor_index_i,
  input  logic [127:0]                   first_key_xor_i,

  input  logic                           key_select_i,
  input  logic [128*BlocksPerCycle-1:0]  block_i,
  output logic [128*BlocksPerCycle-1:0]  block_o
);

  logic         expanding_q;
  logic         key_write;
  logic [3:0]   key_round;
  logic [127:0] round_key;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      expanding_q <= 1'b0;
    end else if (clear_i || expand_done_o) begin
      expanding_q <= 1'b0;
    end else if (expand_start_i) begin
      expanding_q <= 1'b1;
    end
  end

  aes256_key_expansion u_key_expansion (
    .clk_i,
    .rst_ni,
    .clear_i,
    .start_i(expand_start_i),
    .key_i  (expand_key_i),
    .run_i  (expanding_q),
    .write_o(key_write),
    .round_o(key_round),
    .key_o  (round_key),
    .done_o (expand_done_o)
  );

  logic [127:0] first_key_0_q, first_key_1_q;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      first_key_0_q <= '0;
      first_key_1_q <= '0;
    end else if (clear_i) begin
      first_key_0_q <= '0;
      first_key_1_q <= '0;
    end else if (key_write && key_round == 4'd0) begin
      if (expand_index_i) begin
        first_key_1_q <= round_key;
      end else begin
        first_key_0_q <= round_key;
      end
    end else if (first_key_xor_valid_i) begin
      if (first_key_xor_index_i) begin
        first_key_1_q <= first_key_1_q ^ first_key_xor_i;
      end else begin
        first_key_0_q <= first_key_0_q ^ first_key_xor_i;
      end
    end
  end

  logic [128*BlocksPerCycle-1:0] whitened_q;
  logic                          key_select_q;

  always_ff @(posedge clk_i) begin
    whitened_q   <= block_i ^ {BlocksPerCycle{key_select_i ? first_key_1_q : first_key_0_q}};
    key_select_q <= key_select_i;
  end

  aes256_pipeline #(
    .BlocksPerCycle(BlocksPerCycle)
  ) u_pipeline (
    .clk_i,
    .rst_ni,
    .key_clear_i (clear_i),
    .key_write_i (key_write),
    .key_index_i (expand_index_i),
    .key_round_i (key_round),
    .key_i       (round_key),
    .key_select_i(key_select_q),
    .block_i     (whitened_q),
    .block_o
  );

endmodule
