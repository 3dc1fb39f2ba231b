// The results of psp_kdf: places are taken when requests enter, filled in order a fixed time later, given
// out in order.
//
//             oldest                                         newest
//   place    ┌──────────┬──────────┬──────────┬──────────┬──────────┐
//   holds    │ key, tag │ key, tag │   tag    │   tag    │  (free)  │
//            └──────────┴──────────┴──────────┴──────────┴──────────┘
//              ▲ given out           ▲ filled next         ▲ reserved next
//
// A clear makes everything that is reserved a missing key by a count, and zeroises the keys' memory place by
// place while `scrub_i` is high; the tags stay, so that every request still has its answer.

module psp_kdf_results #(
  parameter int Results = 64,   // a power of two, from 2 on
  parameter int TagBits = 8
) (
  input  logic                       clk_i,
  input  logic                       rst_ni,

  input  logic                       clear_i,         // what is reserved, now too, is missing
  input  logic                       scrub_i,         // the place of this index becomes zero; done_i fills nothing
  input  logic [$clog2(Results)-1:0] scrub_index_i,

  output logic                       full_o,
  input  logic                       reserve_i,       // only if not full
  input  logic [TagBits-1:0]         reserve_tag_i,
  input  logic                       reserve_missing_i,

  input  logic                       done_i,          // the oldest place that is not filled has its key
  input  logic [255:0]               done_key_i,

  output logic                       result_valid_o,
  input  logic                       result_ready_i,
  output logic [255:0]               result_key_o,
  output logic [TagBits-1:0]         result_tag_o,
  output logic                       result_device_key_missing_o,

  output logic                       empty_o
);

  localparam int IndexBits = $clog2(Results);

  logic [255:0]         key_memory [0:Results-1];
  logic [TagBits:0]     tag_memory [0:Results-1];   // with device_key_missing in the top bit

  logic [IndexBits-1:0] reserve_index_q, done_index_q, take_index_q;
  logic [IndexBits:0]   reserved_q, reserved_d;
  logic [IndexBits:0]   filled_q;
  logic [IndexBits:0]   cleared_q;                  // results, oldest first, that a clear has made missing
  logic                 take, missing;

  assign full_o     = reserved_q[IndexBits];
  assign empty_o    = reserved_q == '0;
  assign take       = result_valid_o && result_ready_i;
  assign reserved_d = reserved_q + {{IndexBits{1'b0}}, reserve_i} - {{IndexBits{1'b0}}, take};

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      reserve_index_q <= '0;
      done_index_q    <= '0;
      take_index_q    <= '0;
      reserved_q      <= '0;
      filled_q   <= '0;
      cleared_q       <= '0;
    end else begin
      if (reserve_i) begin
        reserve_index_q <= reserve_index_q + 1'b1;
      end
      if (done_i) begin
        done_index_q <= done_index_q + 1'b1;
      end
      if (take) begin
        take_index_q <= take_index_q + 1'b1;
      end
      reserved_q <= reserved_d;
      filled_q   <= filled_q + {{IndexBits{1'b0}}, done_i} - {{IndexBits{1'b0}}, take};
      if (clear_i) begin
        cleared_q <= reserved_d;
      end else if (take && cleared_q != '0) begin
        cleared_q <= cleared_q - 1'b1;
      end
    end
  end

  always_ff @(posedge clk_i) begin
    if (reserve_i) begin
      tag_memory[reserve_index_q] <= {reserve_missing_i, reserve_tag_i};
    end
  end

  logic                 key_write;
  logic [IndexBits-1:0] key_write_index;
  logic [255:0]         key_write_data;

  assign key_write       = scrub_i || done_i;
  assign key_write_index = scrub_i ? scrub_index_i : done_index_q;
  assign key_write_data  = scrub_i ? 256'h0 : done_key_i;

  always_ff @(posedge clk_i) begin
    if (key_write) begin
      key_memory[key_write_index] <= key_write_data;
    end
  end

  assign missing                     = tag_memory[take_index_q][TagBits] || cleared_q != '0;
  assign result_valid_o              = filled_q != '0;
  assign result_device_key_missing_o = result_valid_o && missing;
  assign result_tag_o                = tag_memory[take_index_q][TagBits-1:0];
  assign result_key_o = result_valid_o && !missing ? key_memory[take_index_q] : 256'h0;

endmodule
