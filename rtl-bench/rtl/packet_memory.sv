// Part of a result, one place for each packet inside a unit. Parts become known in different cycles but
// each in the order of the packets, so that each part counts its own places:
//
//   write_i, data_i ──▶ place 0, 1, 2, ... modulo Places        read_place_i ──▶ data_o, same cycle
//
// The unit takes no more packets than there are places, so that none is written before it was read.
module packet_memory #(
  parameter int Width = 1,
  parameter int Places = 2    // a power of two
) (
  input  logic                      clk_i,
  input  logic                      rst_ni,
  input  logic                      write_i,
  input  logic [Width-1:0]          data_i,
  input  logic [$clog2(Places)-1:0] read_place_i,
  output logic [Width-1:0]          data_o
);

  (* ram_style = "distributed" *)
  logic [Width-1:0] memory_q [Places];
  logic [$clog2(Places)-1:0] place_q;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) place_q <= '0;
    else if (write_i) place_q <= place_q + 1'b1;
  end

  always_ff @(posedge clk_i) begin
    if (write_i) memory_q[place_q] <= data_i;
  end

  assign data_o = memory_q[read_place_i];

endmodule
