// A packet_memory of many bits that is read in the order of packets, too, in slices of 64 that each count
// their own places: one read place for all of them would be the slowest net of what it is in.
module wide_packet_memory #(
  parameter int Width = 1,
  parameter int Places = 2    // a power of two
) (
  input  logic             clk_i,
  input  logic             rst_ni,
  input  logic             write_i,
  input  logic [Width-1:0] data_i,
  input  logic             read_next_i,  // data_o is taken: the next packet's is there in the next cycle
  output logic [Width-1:0] data_o
);

  localparam int SliceBits = 64;
  localparam int Slices = (Width + SliceBits - 1) / SliceBits;
  localparam int PlaceBits = $clog2(Places);

  for (genvar slice = 0; slice < Slices; slice++) begin : gen_slice
    localparam int First = slice * SliceBits;
    localparam int Bits = Width - First < SliceBits ? Width - First : SliceBits;

    logic [PlaceBits-1:0] read_place_q;

    always_ff @(posedge clk_i or negedge rst_ni) begin
      if (!rst_ni) read_place_q <= '0;
      else if (read_next_i) read_place_q <= read_place_q + 1'b1;
    end

    packet_memory #(.Width(Bits), .Places(Places)) u_memory (
      .clk_i,
      .rst_ni,
      .write_i,
      .data_i(data_i[First +: Bits]),
      .read_place_i(read_place_q),
      .data_o(data_o[First +: Bits])
    );
  end

endmodule
