// Gives back what it was given, Delay cycles later: for what a pipeline's later stages need and its
// earlier ones do not look at. A circular memory rather than registers, so that it becomes RAM, and
// so that a simulation moves each word once.
//
//   data_i ──▶ [ Delay - 1 places, written and read at one pointer ] ──▶ register ──▶ data_o
//
// The memory has no reset: what comes out in the first Delay cycles is unspecified. It must be a RAM
// that reads what was there before the write of the same cycle.
module delay_line #(
  parameter int Width = 1,
  parameter int Delay = 2     // cycles, at least 3
) (
  input  logic             clk_i,
  input  logic             rst_ni,
  input  logic [Width-1:0] data_i,
  output logic [Width-1:0] data_o
);

  localparam int Places = Delay - 1;
  localparam int PointerBits = $clog2(Places);
  localparam logic [PointerBits-1:0] LastPlace = Places[PointerBits-1:0] - 1'b1;

  (* ram_style = "distributed" *)
  logic [Width-1:0] memory_q [Places];
  logic [Width-1:0] data_q;
  logic [PointerBits-1:0] pointer_q;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) pointer_q <= '0;
    else if (pointer_q == LastPlace) pointer_q <= '0;
    else pointer_q <= pointer_q + 1'b1;
  end

  always_ff @(posedge clk_i) begin
    memory_q[pointer_q] <= data_i;
    data_q <= memory_q[pointer_q];
  end

  assign data_o = data_q;

endmodule
