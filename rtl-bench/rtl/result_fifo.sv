// Results on their way out of a pipeline that never stalls: places are taken when something enters the
// pipeline, filled in order when its result is there, and given back when the result is taken.
//
//             oldest                             newest
//   place    ┌────────┬────────┬────────┬────────┬────────┐
//   holds    │ result │ result │        │        │ (free) │
//            └────────┴────────┴────────┴────────┴────────┘
//              ▲ given out       ▲ filled next     ▲ reserved next
//              └──── filled ─────┘                 │
//              └──────────── reserved ─────────────┘
//
// All outputs depend on registers alone. A result that is filled in one cycle stands at the output in the
// next, if none is in front of it.
module result_fifo #(
  parameter int Width = 1,
  parameter int Places = 64    // a power of two, from 2 on
) (
  input  logic             clk_i,
  input  logic             rst_ni,

  output logic             full_o,      // nothing may be reserved
  input  logic             reserve_i,
  input  logic             fill_i,      // something reserved has its result
  input  logic [Width-1:0] fill_data_i,

  output logic             valid_o,
  input  logic             ready_i,
  output logic [Width-1:0] data_o,

  output logic             empty_o      // nothing is reserved
);

  localparam int IndexBits = $clog2(Places);

  logic [Width-1:0]     memory [0:Places-1];
  logic [IndexBits-1:0] fill_index_q, take_index_q;
  logic [IndexBits:0]   reserved_q, filled_q;
  logic                 valid_q, take;

  assign take    = valid_q && ready_i;
  assign full_o  = reserved_q[IndexBits];
  assign empty_o = reserved_q == '0;
  assign valid_o = valid_q;
  assign data_o  = memory[take_index_q];

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      fill_index_q <= '0;
      take_index_q <= '0;
      reserved_q   <= '0;
      filled_q     <= '0;
      valid_q      <= 1'b0;
    end else begin
      if (fill_i) fill_index_q <= fill_index_q + 1'b1;
      if (take) take_index_q <= take_index_q + 1'b1;
      if (reserve_i && !take) reserved_q <= reserved_q + 1'b1;
      else if (!reserve_i && take) reserved_q <= reserved_q - 1'b1;
      if (fill_i && !take) filled_q <= filled_q + 1'b1;
      else if (!fill_i && take) filled_q <= filled_q - 1'b1;
      // Whether filled_q will be above 0.
      valid_q <= fill_i || (take ? filled_q[IndexBits:1] != '0 : valid_q);
    end
  end

  always_ff @(posedge clk_i) begin
    if (fill_i) memory[fill_index_q] <= fill_data_i;
  end

`ifndef SYNTHESIS
  always_ff @(posedge clk_i) begin
    if (rst_ni) begin
      assert (!(reserve_i && full_o)) else $error("a place is reserved that is not free");
      assert (!(fill_i && filled_q == reserved_q)) else $error("a result that nothing waits for");
      assert (filled_q <= reserved_q) else $error("more results than places");
      assert (valid_q == (filled_q != '0)) else $error("a result that is not shown, or none that is");
    end
  end
`endif

endmodule
