// Types that the stages of rx_parse share. All numbers are unsigned unless a comment says otherwise.
package rx_parse_pkg;

  // A window is what a stage sees of a packet at a time: 64 octets that belong to it and 19 octets of
  // lookahead, so that no field of up to 20 octets straddles. Octet 0 of window 0 is the first octet
  // behind the Ethernet header.
  //
  //   octet  0                                   63 64          82
  //         +--------------------------------------+--------------+
  //         | window i: octets 64*i ... 64*i + 63  | lookahead    |
  //         +--------------------------------------+--------------+
  //                                                | window i + 1 ...
  //
  // Octet n stands in bits 8n+7:8n.
  localparam int WindowOctets = 83;
  localparam int WindowBits = 8 * WindowOctets;
  // Where a window begins is a multiple of 64 octets: a cursor's upper bits are the window's index.
  localparam int IndexBits = 8;

  typedef struct packed {
    logic                 first;
    logic                 last;
    logic [IndexBits-1:0] index;
  } window_t;

  // What the Ethernet header says, for the length of a packet.
  typedef struct packed {
    logic        truncated_ethernet;
    logic        truncated_vlan;
    logic [1:0]  tags;      // VLAN tags before the EtherType: the header has 14 + 4 * tags octets
    logic [15:0] control;   // tag control information of the outermost tag
    logic        is_ipv4;
    logic        is_ipv6;
  } link_t;

  // What the IP header says that later stages judge by.
  typedef struct packed {
    logic [1:0]  tags;
    logic        is_ipv4;
    logic        is_ipv6;
    logic [16:0] length;    // octets of the IP packet from its header's first octet, as declared
  } ip_t;

  // What the IP header says that goes into the result as it is.
  typedef struct packed {
    logic         vlan_valid;
    logic [15:0]  vlan;
    logic [2:0]   ip_version;
    logic [4:0]   l3_offset;
    logic [7:0]   traffic_class;
    logic         dont_fragment;
    logic [7:0]   hop_limit;
    logic [19:0]  flow_label;
    logic [127:0] source;
    logic [127:0] destination;
  } ip_result_t;

  // The walk over extension headers, as far as one stage has come.
  typedef struct packed {
    logic        known;          // the fields below count; else the window has not come yet
    logic        more;           // an extension header begins at the cursor
    logic        at_fragment;    // and it is a fragment header
    logic [7:0]  next_header;    // what begins at the cursor
    logic [12:0] cursor;         // 4-octet units from the IP header
    logic [11:0] named_at;       // 8-octet units from the IP header to the extension header that
                                 // names next_header; 0 where the IP header names it
    logic        fragment;       // the packet is a fragment
    logic        later_fragment; // and not the first one
  } chain_t;

  // What options a packet has.
  typedef struct packed {
    logic       is_eesp;
    logic       is_wesp;
    logic [6:0] least_units;     // EESP: bounds of a crypt offset option's payload offset, in
    logic [5:0] most_units;      // 4-octet units
  } option_kind_t;

  // The walk over options, as far as one stage has come.
  typedef struct packed {
    logic        known;          // the fields below count; else the window has not come yet
    logic        more;           // an option begins at the cursor, if neither of these is set:
    logic        overrun;        // the last option passes the options' end
    logic        refused;        // the last option is not one that may stand here
    logic        found;          // a crypt offset option has been seen, with these values:
    logic [5:0]  payload_units;
    logic [5:0]  crypt_units;
    logic [14:0] cursor;         // octets from the IP header
    logic [7:0]  left;           // octets of options from the cursor on
  } options_t;

  // What the upper protocol's stage gives to the result.
  typedef struct packed {
    logic [13:0] l4_offset;
    logic [13:0] l3_end;
    logic [7:0]  next_header;
    logic [13:0] next_header_offset;
    logic        ports_valid;
    logic [15:0] source_port;
    logic [15:0] destination_port;
    logic        fragment;
    logic [2:0]  protocol;
    logic        reserved_spi;
    logic        udp;
    logic [13:0] security_offset;
    logic [15:0] session_id;
    logic [13:0] numbers_offset;
    logic [11:0] header_octets;
    logic [5:0]  crypt_offset;
    logic [7:0]  psp_flags;
  } upper_result_t;

  // What is read behind the security header's front.
  typedef struct packed {
    logic [31:0]  spi;
    logic [127:0] numbers;
  } numbers_result_t;

  // What is known last.
  typedef struct packed {
    logic [6:0] verdict;
    logic       payload_offset_valid;
    logic [5:0] payload_offset;
    logic [5:0] crypt_offset;
  } verdict_result_t;

  // Protocol of a result.
  localparam logic [2:0] ProtocolOther = 3'd0;
  localparam logic [2:0] ProtocolEsp = 3'd1;
  localparam logic [2:0] ProtocolPsp = 3'd2;
  localparam logic [2:0] ProtocolNatKeepalive = 3'd3;
  localparam logic [2:0] ProtocolWespv2 = 3'd4;
  localparam logic [2:0] ProtocolEesp = 3'd5;

  // The 16-bit number whose two octets stand in `octets`, the first in bits 7:0.
  function automatic logic [15:0] number16(input logic [15:0] octets);
    number16 = {octets[7:0], octets[15:8]};
  endfunction

  // The 32-bit number whose four octets stand in `octets`.
  function automatic logic [31:0] number32(input logic [31:0] octets);
    number32 = {octets[7:0], octets[15:8], octets[23:16], octets[31:24]};
  endfunction

  // Octets of an Ethernet header with so many tags, of which there are at most two. A table, for an
  // adder would stand before another one wherever this is used.
  function automatic logic [4:0] link_octets(input logic [1:0] tags);
    case (tags)
      2'd0: link_octets = 5'd14;
      2'd1: link_octets = 5'd18;
      default: link_octets = 5'd22;
    endcase
  endfunction

  // Whether the EtherType is that of a VLAN tag.
  function automatic logic is_tag(input logic [15:0] ethertype);
    is_tag = ethertype == cryptonic_wire_pkg::ETHERNET_ETHERTYPE_VLAN ||
             ethertype == cryptonic_wire_pkg::ETHERNET_ETHERTYPE_SERVICE_VLAN;
  endfunction

  // Whether the next header is an extension header that is walked over.
  function automatic logic is_extension(input logic [7:0] next_header);
    is_extension = next_header == cryptonic_wire_pkg::IP_PROTOCOL_HOP_BY_HOP ||
                   next_header == cryptonic_wire_pkg::IP_PROTOCOL_ROUTING ||
                   next_header == cryptonic_wire_pkg::IP_PROTOCOL_FRAGMENT ||
                   next_header == cryptonic_wire_pkg::IP_PROTOCOL_DESTINATION_OPTIONS;
  endfunction

endpackage
