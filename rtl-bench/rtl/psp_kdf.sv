// The derivation of PSP keys: NIST SP 800-108 in counter mode over AES-256-CMAC (PSP Architecture
// Specification, 17 November 2022). The CMAC input is exactly one block, so that
//
//   key = AES(block(1) ^ K1)                            128-bit key, versions 0 and 2
//   key = AES(block(1) ^ K1) || AES(block(2) ^ K1)      256-bit key, versions 1 and 3
//
// with K1 the subkey of NIST SP 800-38B, 2 AES(0) in GF(2^128). The SPI's first bit names the device key.
//
//   octet     0  1  2  3   4   5   6    7    8  9 10 11   12 13 14 15
//   block(i)  00 00 00 i   'P' 'v' ver  00   SPI          00 00 00 80 or 00 00 01 00     ver: '0' | version
//   bits      7:0 ...                                     ... 127:120
//
//   request ─▶ entry ─▶ ^ K1 ^ round key 0 ─▶ 14 rounds, 28 cycles ─▶ results ─▶ result
//    ready:     │                                                     FIFO
//    a place ◀──┴── in the FIFO is taken when a request enters, and the pipeline never stalls
//
// A request taken in cycle c shows its result in cycle c + 31, or in turn if the FIFO is not empty. With one block
// a cycle a 256-bit key takes a second cycle: ready is low in the one behind it, and the result comes in c + 32.
//
// Device keys. Whether a request has a key is settled in the cycle in which it is taken.
// * Load, taken in cycle c: the key is not valid from c + 1 on, and the new one valid from c + 63 on. Requests that were
//   taken before have the old key to their end: round keys are written behind the last of them. Requests of the other key go on;
//   for K1 ready is low in cycles c + 31 and c + 32.
// * Clear, in cycle c, at any time: no key is valid from c + 1 on. Every result that was not yet taken then becomes
//   device_key_missing, also one that stands at the output; nothing else changes a result that waits. Round keys, the
//   key expansion, the FIFO and all that is under way are zero or computed of zeros before another request or load is
//   ready, max(Results, 32) + 1 cycles later. A load or request taken in cycle c is cleared with the rest.
//
// Octet n of a key is in bits 8n+7:8n; a 128-bit key has zeros behind it, a missing one is zero.

module psp_kdf #(
  parameter int BlocksPerCycle = 1,   // 1 or 2; with 2 a 256-bit key takes one cycle, too
  parameter int Results        = 64,  // places in the FIFO, a power of two from 2; full rate from 32 on
  parameter int TagBits        = 8
) (
  input  logic               clk_i,
  input  logic               rst_ni,

  input  logic               clear_i,
  input  logic               load_valid_i,
  output logic               load_ready_o,
  input  logic               load_index_i,
  input  logic [255:0]       load_key_i,
  output logic [1:0]         device_key_valid_o,

  input  logic               request_valid_i,
  output logic               request_ready_o,
  input  logic [31:0]        request_spi_i,
  input  logic [1:0]         request_version_i,   // the PSP header's, 0..3
  input  logic [TagBits-1:0] request_tag_i,

  output logic               result_valid_o,
  input  logic               result_ready_i,
  output logic [255:0]       result_key_o,
  output logic [TagBits-1:0] result_tag_o,
  output logic               result_device_key_missing_o,

  output logic               drained_o            // no request, load or clear under way
);

  // From a block in the entry register to its ciphertext: aes256's.
  localparam int BlockCycles = 29;
  localparam int ClearCycles = Results > 32 ? Results : 32;   // a power of two
  localparam int CountBits   = $clog2(ClearCycles);
  localparam int IndexBits   = $clog2(Results);

  // Doubling in GF(2^128) as CMAC has it (NIST SP 800-38B, 6.1): octet 0 is the most significant.
  function automatic logic [127:0] double(input logic [127:0] octets);
    logic [127:0] number, doubled;
    for (int octet = 0; octet < 16; octet++) begin
      number[8*(15-octet) +: 8] = octets[8*octet +: 8];
    end
    doubled = (number << 1) ^ (number[127] ? 128'h87 : 128'h0);
    for (int octet = 0; octet < 16; octet++) begin
      double[8*octet +: 8] = doubled[8*(15-octet) +: 8];
    end
  endfunction

  function automatic logic [127:0] derivation_block(
    input logic [31:0] spi, input logic [1:0] version, input logic [1:0] counter
  );
    derivation_block = {
      version[0] ? 32'h00_01_00_00 : 32'h80_00_00_00,          // length in bits, octet 12 lowest
      spi[7:0], spi[15:8], spi[23:16], spi[31:24],
      8'h00, 8'h30 | {6'b0, version}, 8'h76, 8'h50,
      6'b0, counter, 24'h000000
    };
  endfunction

  // ---- Control of the device keys ----

  typedef enum logic [2:0] {
    StateIdle,
    StateExpand,     // round keys of a load are written
    StateSubkey,     // two cycles in which no request enters: the second is K1's
    StateCapture,    // AES(0) is under way
    StateClear
  } state_t;

  state_t               state_q;
  logic [CountBits-1:0] count_q;        // cycles in a state
  logic                 load_index_q;
  logic [1:0]           key_valid_q;
  logic                 load_take, expansion_done, captured;

  assign load_ready_o       = state_q == StateIdle;
  assign load_take          = load_valid_i && load_ready_o;
  assign captured           = state_q == StateCapture && count_q == BlockCycles[CountBits-1:0];
  assign device_key_valid_o = key_valid_q;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      state_q      <= StateIdle;
      count_q      <= '0;
      load_index_q <= 1'b0;
      key_valid_q  <= 2'b00;
    end else if (clear_i) begin
      state_q     <= StateClear;
      count_q     <= '0;
      key_valid_q <= 2'b00;
    end else begin
      count_q <= count_q + 1'b1;
      unique case (state_q)
        StateIdle: begin
          if (load_valid_i) begin
            state_q      <= StateExpand;
            load_index_q <= load_index_i;
            key_valid_q  <= key_valid_q & ~(2'b01 << load_index_i);
          end
        end
        StateExpand: begin
          if (expansion_done) begin
            state_q <= StateSubkey;
            count_q <= '0;
          end
        end
        StateSubkey: begin
          if (count_q[0]) begin
            state_q <= StateCapture;
            count_q <= '0;
          end
        end
        StateCapture: begin
          if (captured) begin
            state_q     <= StateIdle;
            key_valid_q <= key_valid_q | (2'b01 << load_index_q);
          end
        end
        default: begin
          if (&count_q) begin
            state_q <= StateIdle;
          end
        end
      endcase
    end
  end

  // ---- Entry: requests become blocks ----

  logic [31:0] entry_spi_q;
  logic [1:0]  entry_version_q;
  logic        entry_missing_q;
  logic        entry_first_q, entry_second_q, entry_subkey_q;
  logic        entry_waits, entry_completes;
  logic        request_take, request_missing, full;

  assign entry_waits     = BlocksPerCycle == 1 && entry_first_q && entry_version_q[0];
  assign entry_completes = entry_second_q || (entry_first_q && !entry_waits);
  assign request_ready_o = state_q != StateSubkey && state_q != StateClear && !entry_waits && !full;
  assign request_take    = request_valid_i && request_ready_o;
  assign request_missing = !key_valid_q[request_spi_i[31]];

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      entry_spi_q     <= '0;
      entry_version_q <= '0;
      entry_missing_q <= 1'b0;
      entry_first_q   <= 1'b0;
      entry_second_q  <= 1'b0;
      entry_subkey_q  <= 1'b0;
    end else begin
      entry_first_q  <= request_take;
      entry_second_q <= entry_waits;
      entry_subkey_q <= state_q == StateSubkey && count_q[0] && !clear_i;
      if (request_take) begin
        entry_spi_q     <= request_spi_i;
        entry_version_q <= request_version_i;
        entry_missing_q <= request_missing;
      end
    end
  end

  // ---- AES ----

  logic [128*BlocksPerCycle-1:0] entry_block, ciphertext;
  logic                          entry_select, key_clear;

  assign key_clear    = state_q == StateClear;
  assign entry_select = entry_subkey_q ? load_index_q : entry_spi_q[31];

  if (BlocksPerCycle == 1) begin : gen_one_block
    assign entry_block = entry_subkey_q ? 128'h0 :
        derivation_block(entry_spi_q, entry_version_q, entry_second_q ? 2'd2 : 2'd1);
  end else begin : gen_two_blocks
    assign entry_block = entry_subkey_q ? 256'h0 :
        {derivation_block(entry_spi_q, entry_version_q, 2'd2),
         derivation_block(entry_spi_q, entry_version_q, 2'd1)};
  end

  aes256 #(
    .BlocksPerCycle(BlocksPerCycle)
  ) u_aes256 (
    .clk_i,
    .rst_ni,
    .clear_i              (key_clear),
    .expand_start_i       (load_take),
    .expand_index_i       (load_index_q),
    .expand_key_i         (load_key_i),
    .expand_done_o        (expansion_done),
    .first_key_xor_valid_i(captured),
    .first_key_xor_index_i(load_index_q),
    .first_key_xor_i      (double(ciphertext[127:0])),
    .key_select_i         (entry_select),
    .block_i              (entry_block),
    .block_o              (ciphertext)
  );

  // ---- Results ----

  // What goes with a block: bit 0 is of the cycle behind the entry register.
  logic [BlockCycles-1:0] completes_q, wide_q, missing_q;
  logic [127:0]           previous_q;       // the block before, for the first half of a 256-bit key
  logic [255:0]           derived;
  logic                   done, empty;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      completes_q <= '0;
      wide_q      <= '0;
      missing_q   <= '0;
    end else begin
      completes_q <= {completes_q[BlockCycles-2:0], entry_completes};
      wide_q      <= {wide_q[BlockCycles-2:0], entry_version_q[0]};
      missing_q   <= {missing_q[BlockCycles-2:0], entry_missing_q};
    end
  end

  always_ff @(posedge clk_i) begin
    previous_q <= ciphertext[127:0];
  end

  assign done = completes_q[BlockCycles-1];

  if (BlocksPerCycle == 1) begin : gen_join_in_time
    assign derived = wide_q[BlockCycles-1] ? {ciphertext, previous_q} : {128'h0, ciphertext};
  end else begin : gen_join_side_by_side
    logic unused_previous;
    assign unused_previous = ^previous_q;
    assign derived = wide_q[BlockCycles-1] ? ciphertext : {128'h0, ciphertext[127:0]};
  end

  psp_kdf_results #(
    .Results(Results),
    .TagBits(TagBits)
  ) u_results (
    .clk_i,
    .rst_ni,
    .clear_i,
    .scrub_i                    (key_clear),
    .scrub_index_i              (count_q[IndexBits-1:0]),
    .full_o                     (full),
    .reserve_i                  (request_take),
    .reserve_tag_i              (request_tag_i),
    .reserve_missing_i          (request_missing),
    .done_i                     (done),
    .done_key_i                 (missing_q[BlockCycles-1] ? 256'h0 : derived),
    .result_valid_o,
    .result_ready_i,
    .result_key_o,
    .result_tag_o,
    .result_device_key_missing_o,
    .empty_o                    (empty)
  );

  assign drained_o = empty && state_q == StateIdle;

endmodule
