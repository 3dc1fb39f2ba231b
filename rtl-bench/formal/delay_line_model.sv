// What the proof delay_line says of delay_line: a shift register, arbitrary at first.
module delay_line #(
  parameter int Width = 1,
  parameter int Delay = 2
) (
  input  logic             clk_i,
  input  logic             rst_ni,
  input  logic [Width-1:0] data_i,
  output logic [Width-1:0] data_o
);

  logic [Width*Delay-1:0] past_q;

  always @(posedge clk_i) past_q <= {past_q[Width*(Delay-1)-1:0], data_i};

  assign data_o = past_q[Width*(Delay-1) +: Width];

endmodule
