// Numbers at the ports of rx_geometry.
package rx_geometry_pkg;

  // What the parser has found, and what an SA is for.
  localparam logic [2:0] PROTOCOL_ESP = 3'd1;
  localparam logic [2:0] PROTOCOL_PSP = 3'd2;
  localparam logic [2:0] PROTOCOL_WESPV2 = 3'd4;
  localparam logic [2:0] PROTOCOL_EESP = 3'd5;

  // What an SA of ESP or WESPv2 does with octets.
  localparam logic [1:0] CIPHER_GCM = 2'd0;
  localparam logic [1:0] CIPHER_GCM_IMPLICIT_IV = 2'd1;
  localparam logic [1:0] CIPHER_GMAC = 2'd2;

  // What stands in the packets of an EESP SA.
  localparam logic [1:0] NUMBERING_SEQUENCE_AND_IV = 2'd0;
  localparam logic [1:0] NUMBERING_SEQUENCE_IS_IV = 2'd1;
  localparam logic [1:0] NUMBERING_IV_ALONE = 2'd2;

  // How the payload of an EESP SA's packets begins: with an IP header or with a payload info header, which
  // a crypt offset option may go with.
  localparam logic [1:0] FORMAT_OPTIMIZED = 2'd0;
  localparam logic [1:0] FORMAT_FULL = 2'd1;
  localparam logic [1:0] FORMAT_FULL_WITH_CRYPT_OFFSET = 2'd2;

endpackage
