// The fourteen rounds of AES-256 encryption (FIPS 197, 5.1), a block or two every cycle, with two keys to
// choose from for each. What is added in front of the first round is the caller's, so that he can
// add more than round key 0 there.
//
//   block_i ─▶ round 1 ─▶ round 2 ─▶ ... ─▶ round 14 ─▶ block_o, 28 cycles later
//
// Round key r is stored with round r. A block uses it in cycle 2 (r - 1) behind the one in which it stands
// at block_i. A write passes from round to round and is done in cycle r behind the one in which it stands at the ports:
// round keys that come in order, one every second cycle, follow the last block of the old key through the pipeline and
// never overtake it.
//
// Order of octets: octet n in bits 8n+7:8n; block 1 above block 0.

module aes256_pipeline #(
  parameter int BlocksPerCycle = 1
) (
  input  logic                           clk_i,
  input  logic                           rst_ni,

  input  logic                           key_clear_i,    // all round keys of both keys become zero, 15 cycles later the last
  input  logic                           key_write_i,
  input  logic                           key_index_i,
  input  logic [3:0]                     key_round_i,    // 1..14; others are not stored here
  input  logic [127:0]                   key_i,

  input  logic                           key_select_i,
  input  logic [128*BlocksPerCycle-1:0]  block_i,
  output logic [128*BlocksPerCycle-1:0]  block_o
);

  localparam int Rounds = 14;
  localparam int Width  = 128 * BlocksPerCycle;

  // Slice r is what stands behind round r; slice 0 is the input.
  logic [Width*(Rounds+1)-1:0] block;
  logic [Rounds:0]             key_select;

  // What goes to round r + 1 of writes: clear, write, index, round, round key.
  localparam int WriteBits = 135;
  logic [WriteBits*(Rounds+1)-1:0] write;

  assign write[WriteBits-1:0] = {key_clear_i, key_write_i, key_index_i, key_round_i, key_i};
  assign block[Width-1:0] = block_i;
  assign key_select[0]    = key_select_i;
  assign block_o          = block[Width*Rounds +: Width];

  for (genvar number = 1; number <= Rounds; number++) begin : gen_round
    aes256_round #(
      .BlocksPerCycle(BlocksPerCycle),
      .Round         (number)
    ) u_round (
      .clk_i,
      .rst_ni,
      .key_clear_i (write[WriteBits*number-1]),
      .key_write_i (write[WriteBits*number-2]),
      .key_index_i (write[WriteBits*number-3]),
      .key_round_i (write[WriteBits*(number-1)+128 +: 4]),
      .key_i       (write[WriteBits*(number-1) +: 128]),
      .key_clear_o (write[WriteBits*(number+1)-1]),
      .key_write_o (write[WriteBits*(number+1)-2]),
      .key_index_o (write[WriteBits*(number+1)-3]),
      .key_round_o (write[WriteBits*number+128 +: 4]),
      .key_o       (write[WriteBits*number +: 128]),
      .key_select_i(key_select[number-1]),
      .block_i     (block[Width*(number-1) +: Width]),
      .key_select_o(key_select[number]),
      .block_o     (block[Width*number +: Width])
    );
  end

  logic unused;
  assign unused = ^{key_select[Rounds], write[WriteBits*Rounds +: WriteBits]};

endmodule
