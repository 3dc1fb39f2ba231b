// A delay_line of many bits, in slices of 64 that each have their own pointer, which stands beside its
// slice: one pointer for all of them would be the slowest net of what it is in.
module wide_delay_line #(
  parameter int Width = 1,
  parameter int Delay = 3     // cycles, at least 3
) (
  input  logic             clk_i,
  input  logic             rst_ni,
  input  logic [Width-1:0] data_i,
  output logic [Width-1:0] data_o
);

  localparam int SliceBits = 64;
  localparam int Slices = (Width + SliceBits - 1) / SliceBits;

  for (genvar slice = 0; slice < Slices; slice++) begin : gen_slice
    localparam int First = slice * SliceBits;
    localparam int Bits = Width - First < SliceBits ? Width - First : SliceBits;

    delay_line #(.Width(Bits), .Delay(Delay)) u_delay (
      .clk_i,
      .rst_ni,
      .data_i(data_i[First +: Bits]),
      .data_o(data_o[First +: Bits])
    );
  end

endmodule
