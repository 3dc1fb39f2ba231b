// One round of AES-256 encryption in two cycles, with its round key of each of two keys.
//
//             first cycle                              second cycle
//             ┌───────────┐  ┌───────────┐  substituted_q ┌────────────┐
//   block_i ─▶│ SubBytes  │─▶│ ShiftRows │─▶[ register ]─▶│ MixColumns │─▶ (xor) ─▶[ register ]─▶ block_o
//             └───────────┘  └───────────┘                └────────────┘     ▲
//   key_select_i ─▶ round key 0 or 1 ────────▶[ register ]───────────────────┘
//
// The last round has no MixColumns (FIPS 197, 5.1). Nothing stalls: a block enters every cycle.
//
// Order of octets: octet n of a block or a round key is in bits 8n+7:8n. FIPS 197 fills its state
// column by column, so octet n is row n % 4 of column n / 4, and a column is 32 bits with row 0 lowest.
//
//   bits    127:96      95:64       63:32       31:0
//           column 3    column 2    column 1    column 0
//           each: { row 3, row 2, row 1, row 0 }

module aes256_round #(
  parameter int BlocksPerCycle = 1,   // blocks side by side, all with the same key
  parameter int Round          = 1    // 1..14
) (
  input  logic                           clk_i,
  input  logic                           rst_ni,

  // Writes of round keys go from round to round, a cycle each, so that no wire is longer than a round.
  input  logic                           key_clear_i,    // both round keys become zero
  input  logic                           key_write_i,
  input  logic                           key_index_i,
  input  logic [3:0]                     key_round_i,
  input  logic [127:0]                   key_i,
  output logic                           key_clear_o,
  output logic                           key_write_o,
  output logic                           key_index_o,
  output logic [3:0]                     key_round_o,
  output logic [127:0]                   key_o,

  input  logic                           key_select_i,
  input  logic [128*BlocksPerCycle-1:0]  block_i,
  output logic                           key_select_o,   // two cycles later
  output logic [128*BlocksPerCycle-1:0]  block_o
);

  localparam int LastRound = 14;
  localparam int Columns   = 4 * BlocksPerCycle;

  // Multiplication by x in GF(2^8), four octets at once: what falls out comes back as 0x1b (FIPS 197, 4.2.1).
  function automatic logic [31:0] times_x(input logic [31:0] column);
    logic [31:0] carried;
    carried = column & 32'h80808080;
    times_x = ((column & 32'h7f7f7f7f) << 1)
            ^ (carried >> 7) ^ (carried >> 6) ^ (carried >> 4) ^ (carried >> 3);
  endfunction

  // MixColumns of one column (FIPS 197, 5.1.3): row r becomes 2 a[r] + 3 a[r+1] + a[r+2] + a[r+3].
  function automatic logic [31:0] mix(input logic [31:0] column);
    logic [31:0] next_row;
    next_row = {column[7:0], column[31:8]};
    mix = times_x(column ^ next_row) ^ next_row
        ^ {column[15:0], column[31:16]} ^ {column[23:0], column[31:24]};
  endfunction

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      key_clear_o <= 1'b0;
      key_write_o <= 1'b0;
      key_index_o <= 1'b0;
      key_round_o <= '0;
      key_o       <= '0;
    end else begin
      key_clear_o <= key_clear_i;
      key_write_o <= key_write_i;
      key_index_o <= key_index_i;
      key_round_o <= key_round_i;
      key_o       <= key_i;
    end
  end

  logic [127:0] round_key_0_q, round_key_1_q;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      round_key_0_q <= '0;
      round_key_1_q <= '0;
    end else if (key_clear_o) begin
      round_key_0_q <= '0;
      round_key_1_q <= '0;
    end else if (key_write_o && key_round_o == Round[3:0]) begin
      if (key_index_o) begin
        round_key_1_q <= key_o;
      end else begin
        round_key_0_q <= key_o;
      end
    end
  end

  logic [128*BlocksPerCycle-1:0] substituted_d, substituted_q, mixed;
  logic [127:0]                  key_q;
  logic                          key_select_q;

  // ShiftRows moves row r of column c + r to column c, modulo four columns of the same block.
  for (genvar column = 0; column < Columns; column++) begin : gen_column
    for (genvar row = 0; row < 4; row++) begin : gen_row
      localparam int Source = 4 * (column / 4) + (column + row) % 4;
      aes256_sbox u_sbox (
        .octet_i(block_i[32*Source+8*row +: 8]),
        .octet_o(substituted_d[32*column+8*row +: 8])
      );
    end

    if (Round == LastRound) begin : gen_last
      assign mixed[32*column +: 32] = substituted_q[32*column +: 32];
    end else begin : gen_mix
      assign mixed[32*column +: 32] = mix(substituted_q[32*column +: 32]);
    end
  end

  // No reset: what these hold is gone two cycles later whatever happens.
  always_ff @(posedge clk_i) begin
    substituted_q <= substituted_d;
    key_q         <= key_select_i ? round_key_1_q : round_key_0_q;
    key_select_q  <= key_select_i;
    block_o       <= mixed ^ {BlocksPerCycle{key_q}};
    key_select_o  <= key_select_q;
  end

endmodule
