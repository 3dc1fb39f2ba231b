  // The results' memories are cut away: they give anything whose verdict is one of the table's (proof
  // rx_parse_verdict, with packet_memory).

  logic shown_before_q;
  logic [6:0] verdict_before_q;
  logic [2:0] protocol_before_q;
  logic [13:0] l3_end_before_q;
  logic [127:0] source_before_q, numbers_before_q;
  always @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) shown_before_q <= 1'b0;
    else shown_before_q <= result_valid_o && !result_ready_i;
  end
  always @(posedge clk_i) begin
    verdict_before_q <= result_verdict_o;
    protocol_before_q <= result_protocol_o;
    l3_end_before_q <= result_l3_end_o;
    source_before_q <= result_source_o;
    numbers_before_q <= result_numbers_o;
  end

  logic all_zero;
  assign all_zero = {result_protocol_o, result_reserved_spi_o, result_vlan_valid_o, result_vlan_o,
      result_ip_version_o, result_l3_offset_o, result_l4_offset_o, result_l3_end_o, result_next_header_o,
      result_next_header_offset_o, result_traffic_class_o, result_dont_fragment_o, result_hop_limit_o,
      result_flow_label_o, result_source_o, result_destination_o, result_ports_valid_o,
      result_source_port_o, result_destination_port_o, result_fragment_o, result_udp_o,
      result_security_offset_o, result_spi_o, result_session_id_o, result_numbers_offset_o,
      result_header_octets_o, result_crypt_offset_o, result_payload_offset_valid_o,
      result_payload_offset_o, result_psp_flags_o, result_numbers_o} == '0;

  always @(*) begin
    if (rst_ni) begin
      OkIsOfTheVerdict: assert (!result_valid_o || is_ok_q == (result_verdict_o == 7'd0));
      NotOkShowsNothingElse: assert (!result_valid_o || result_verdict_o == 7'd0 || all_zero);
      ShownStays: assert (!shown_before_q || (result_valid_o && result_verdict_o == verdict_before_q &&
          result_protocol_o == protocol_before_q && result_l3_end_o == l3_end_before_q &&
          result_source_o == source_before_q && result_numbers_o == numbers_before_q));
    end
  end
