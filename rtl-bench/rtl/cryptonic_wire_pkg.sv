// Made from wire/ by `cargo run -- regs --format wire-sv`.
package cryptonic_wire_pkg;

  // Ethernet with VLAN tags
  localparam logic [15:0] ETHERNET_HEADER_LENGTH = 16'h000e;
  localparam logic [15:0] ETHERNET_TAG_LENGTH = 16'h0004;
  localparam logic [15:0] ETHERNET_MAX_TAGS = 16'h0002;
  localparam int ETHERNET_ETHERTYPE_OFFSET = 12;
  localparam int ETHERNET_ETHERTYPE_OCTETS = 2;
  localparam logic [15:0] ETHERNET_ETHERTYPE_IPV4 = 16'h0800;
  localparam logic [15:0] ETHERNET_ETHERTYPE_IPV6 = 16'h86dd;
  localparam logic [15:0] ETHERNET_ETHERTYPE_VLAN = 16'h8100;
  localparam logic [15:0] ETHERNET_ETHERTYPE_SERVICE_VLAN = 16'h88a8;

  // IP protocol numbers
  localparam logic [7:0] IP_PROTOCOL_HOP_BY_HOP = 8'h00;
  localparam logic [7:0] IP_PROTOCOL_TCP = 8'h06;
  localparam logic [7:0] IP_PROTOCOL_UDP = 8'h11;
  localparam logic [7:0] IP_PROTOCOL_ROUTING = 8'h2b;
  localparam logic [7:0] IP_PROTOCOL_FRAGMENT = 8'h2c;
  localparam logic [7:0] IP_PROTOCOL_ESP = 8'h32;
  localparam logic [7:0] IP_PROTOCOL_NO_NEXT_HEADER = 8'h3b;
  localparam logic [7:0] IP_PROTOCOL_DESTINATION_OPTIONS = 8'h3c;

  // IPv4
  localparam logic [15:0] IPV4_HEADER_LENGTH = 16'h0014;
  localparam logic [15:0] IPV4_DONT_FRAGMENT = 16'h4000;
  localparam logic [15:0] IPV4_MORE_FRAGMENTS = 16'h2000;
  localparam logic [15:0] IPV4_FRAGMENT_OFFSET = 16'h1fff;
  localparam int IPV4_VERSION_AND_HEADER_LENGTH_OFFSET = 0;
  localparam int IPV4_VERSION_AND_HEADER_LENGTH_OCTETS = 1;
  localparam int IPV4_TRAFFIC_CLASS_OFFSET = 1;
  localparam int IPV4_TRAFFIC_CLASS_OCTETS = 1;
  localparam int IPV4_TOTAL_LENGTH_OFFSET = 2;
  localparam int IPV4_TOTAL_LENGTH_OCTETS = 2;
  localparam int IPV4_FLAGS_AND_FRAGMENT_OFFSET_OFFSET = 6;
  localparam int IPV4_FLAGS_AND_FRAGMENT_OFFSET_OCTETS = 2;
  localparam int IPV4_TTL_OFFSET = 8;
  localparam int IPV4_TTL_OCTETS = 1;
  localparam int IPV4_PROTOCOL_OFFSET = 9;
  localparam int IPV4_PROTOCOL_OCTETS = 1;
  localparam int IPV4_CHECKSUM_OFFSET = 10;
  localparam int IPV4_CHECKSUM_OCTETS = 2;
  localparam int IPV4_SOURCE_OFFSET = 12;
  localparam int IPV4_SOURCE_OCTETS = 4;
  localparam int IPV4_DESTINATION_OFFSET = 16;
  localparam int IPV4_DESTINATION_OCTETS = 4;

  // IPv6
  localparam logic [15:0] IPV6_HEADER_LENGTH = 16'h0028;
  localparam logic [15:0] IPV6_FRAGMENT_HEADER_LENGTH = 16'h0008;
  localparam logic [15:0] IPV6_MAX_EXTENSION_HEADERS = 16'h0008;
  localparam int IPV6_PAYLOAD_LENGTH_OFFSET = 4;
  localparam int IPV6_PAYLOAD_LENGTH_OCTETS = 2;
  localparam int IPV6_NEXT_HEADER_OFFSET = 6;
  localparam int IPV6_NEXT_HEADER_OCTETS = 1;
  localparam int IPV6_HOP_LIMIT_OFFSET = 7;
  localparam int IPV6_HOP_LIMIT_OCTETS = 1;
  localparam int IPV6_SOURCE_OFFSET = 8;
  localparam int IPV6_SOURCE_OCTETS = 16;
  localparam int IPV6_DESTINATION_OFFSET = 24;
  localparam int IPV6_DESTINATION_OCTETS = 16;

  // UDP
  localparam logic [15:0] UDP_HEADER_LENGTH = 16'h0008;
  localparam int UDP_SOURCE_PORT_OFFSET = 0;
  localparam int UDP_SOURCE_PORT_OCTETS = 2;
  localparam int UDP_DESTINATION_PORT_OFFSET = 2;
  localparam int UDP_DESTINATION_PORT_OCTETS = 2;
  localparam int UDP_LENGTH_OFFSET = 4;
  localparam int UDP_LENGTH_OCTETS = 2;

  // ESP; the mark that is not an SPI, and the octet that keeps a NAT mapping alive
  localparam logic [15:0] ESP_FIXED_LENGTH = 16'h0008;
  localparam logic [31:0] ESP_LAST_RESERVED_SPI = 32'h000000ff;
  localparam logic [7:0] ESP_NAT_KEEPALIVE = 8'hff;
  localparam logic [15:0] ESP_TRAILER_FIXED_LENGTH = 16'h0002;
  localparam int ESP_SPI_OFFSET = 0;
  localparam int ESP_SPI_OCTETS = 4;
  localparam int ESP_SEQUENCE_OFFSET = 4;
  localparam int ESP_SEQUENCE_OCTETS = 4;
  localparam int ESP_IV_OFFSET = 8;
  localparam int ESP_IV_OCTETS = 8;
  localparam logic [31:0] ESP_NON_ESP_MARKER = 32'h00000000;

  // PSP
  localparam logic [15:0] PSP_HEADER_LENGTH = 16'h0010;
  localparam logic [15:0] PSP_ICV_LENGTH = 16'h0010;
  localparam logic [7:0] PSP_MAX_CRYPT_OFFSET = 8'h3f;
  localparam logic [7:0] PSP_VERSION = 8'h3c;
  localparam logic [7:0] PSP_VERSION_SHIFT = 8'h02;
  localparam logic [7:0] PSP_VIRTUALIZATION_COOKIE = 8'h02;
  localparam logic [7:0] PSP_ONE = 8'h01;
  localparam int PSP_EXTENSION_LENGTH_OFFSET = 1;
  localparam int PSP_EXTENSION_LENGTH_OCTETS = 1;
  localparam int PSP_CRYPT_OFFSET_OFFSET = 2;
  localparam int PSP_CRYPT_OFFSET_OCTETS = 1;
  localparam int PSP_FLAGS_OFFSET = 3;
  localparam int PSP_FLAGS_OCTETS = 1;
  localparam int PSP_SPI_OFFSET = 4;
  localparam int PSP_SPI_OCTETS = 4;
  localparam int PSP_IV_OFFSET = 8;
  localparam int PSP_IV_OCTETS = 8;

  // WESPv2 (draft-klassert-ipsecme-wespv2-01)
  localparam logic [15:0] WESPV2_HEADER_LENGTH = 16'h0004;
  localparam logic [7:0] WESPV2_MAX_OPTION_LENGTH = 8'h3f;
  localparam logic [7:0] WESPV2_MIN_HEADER_LENGTH_FIELD = 8'h0c;
  localparam logic [7:0] WESPV2_VERSION = 8'h01;
  localparam logic [7:0] WESPV2_ACTION = 8'hc0;
  localparam logic [7:0] WESPV2_MAY_CHANGE = 8'h20;
  localparam int WESPV2_NEXT_HEADER_OFFSET = 0;
  localparam int WESPV2_NEXT_HEADER_OCTETS = 1;
  localparam int WESPV2_CRYPT_OFFSET_OFFSET = 2;
  localparam int WESPV2_CRYPT_OFFSET_OCTETS = 1;
  localparam int WESPV2_VERSION_AND_OPTION_LENGTH_OFFSET = 3;
  localparam int WESPV2_VERSION_AND_OPTION_LENGTH_OCTETS = 1;
  localparam logic [15:0] WESPV2_HEADER_LENGTH_FIELD = 16'h0001;
  localparam logic [31:0] WESPV2_UDP_MARKER = 32'h00000002;

  // EESP (draft-ietf-ipsecme-eesp-03)
  localparam logic [15:0] EESP_HEADER_LENGTH = 16'h0008;
  localparam logic [15:0] EESP_SEQUENCE_LENGTH = 16'h0008;
  localparam logic [15:0] EESP_IV_LENGTH = 16'h0008;
  localparam logic [15:0] EESP_PAYLOAD_INFO_LENGTH = 16'h0004;
  localparam logic [15:0] EESP_CRYPT_OFFSET_OPTION_LENGTH = 16'h0004;
  localparam logic [7:0] EESP_ONE = 8'h80;
  localparam logic [7:0] EESP_VERSION = 8'h78;
  localparam logic [7:0] EESP_RESERVED = 8'h07;
  localparam int EESP_FIRST_OFFSET = 0;
  localparam int EESP_FIRST_OCTETS = 1;
  localparam int EESP_OPTION_LENGTH_OFFSET = 1;
  localparam int EESP_OPTION_LENGTH_OCTETS = 1;
  localparam int EESP_SESSION_ID_OFFSET = 2;
  localparam int EESP_SESSION_ID_OCTETS = 2;
  localparam int EESP_SPI_OFFSET = 4;
  localparam int EESP_SPI_OCTETS = 4;
  localparam logic [7:0] EESP_OPTION_TYPE_CRYPT_OFFSET = 8'h02;

  // options of WESPv2 and EESP
  localparam logic [15:0] OPTION_MAX_OPTIONS = 16'h0008;
  localparam logic [7:0] OPTION_PAD1 = 8'h00;
  localparam logic [7:0] OPTION_PADN = 8'h01;
endpackage
