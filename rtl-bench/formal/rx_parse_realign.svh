  // The bus: 1 to 64 octets in a beat, 64 where another one follows, 1 to 16383 in a packet. A first beat
  // stands behind a last one.
  logic in_packet_q;
  logic [14:0] octets_q;   // of the packet, in the beats before this one
  logic [7:0] beats_q;
  logic [14:0] octets;
  logic [7:0] index;

  assign octets = (beat_first_i ? 15'd0 : octets_q) + {8'd0, beat_octets_i};
  assign index = beat_first_i ? 8'd0 : beats_q;

  always @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) in_packet_q <= 1'b0;
    else if (beat_valid_i) in_packet_q <= !beat_last_i;
  end
  always @(posedge clk_i) begin
    if (beat_valid_i) begin
      octets_q <= octets;
      beats_q <= index + 8'd1;
    end
  end

  always @(*) begin
    if (rst_ni && beat_valid_i) begin
      assume (beat_first_i == !in_packet_q);
      assume (beat_octets_i >= 7'd1 && beat_octets_i <= 7'd64);
      assume (beat_last_i || beat_octets_i == 7'd64);
      assume (octets <= 15'd16383);
    end
  end

  // One octet of each frame, whichever, is followed to the window.
  (* anyconst *) logic [13:0] watched;
  logic [7:0] octet, octet_1q, octet_2q, octet_3q, octet_next_3q;
  assign octet = beat_data_i[{watched[5:0], 3'd0} +: 8];

  // Beside the beat register, the held beat and the window: what the beats up to there have said.
  logic [14:0] octets_1q, octets_2q, octets_3q;
  logic [7:0] index_1q, index_2q, index_3q;
  logic next_3q;
  logic [7:0] windows_q, taken_q;
  always @(posedge clk_i) begin
    if (beat_valid_i) begin
      octet_1q <= octet;
      octets_1q <= octets;
      index_1q <= index;
    end
    if (beat_valid_q) begin
      octet_2q <= octet_1q;
      octets_2q <= octets_1q;
      index_2q <= index_1q;
    end
    if (emit) begin
      octet_3q <= octet_2q;
      octets_3q <= octets_2q;
      index_3q <= index_2q;
      octet_next_3q <= octet_1q;
      next_3q <= !hold_last_q;
    end
  end
  always @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      windows_q <= 8'd0;
      taken_q <= 8'd0;
    end else begin
      if (beat_valid_i) taken_q <= taken_q + 8'd1;
      if (emit) windows_q <= windows_q + 8'd1;
    end
  end

  logic [14:0] from, place;  // the window's first octet in the frame; the watched one's place in it
  assign from = {1'b0, window_o.index, 6'd0} + {10'd0, rx_parse_pkg::link_octets(link_o.tags)};
  assign place = {1'b0, watched} - from;
  logic [7:0] found;
  assign found = window_data_o[{place[6:0], 3'd0} +: 8];

  always @(*) begin
    if (rst_ni) begin
      InPacket: assert (!in_packet_q || (octets_q[5:0] == 6'd0 && octets_q == {1'b0, beats_q, 6'd0}));
      // As many windows as beats.
      NoBeatIsLost: assert (taken_q == windows_q + {7'd0, beat_valid_q} + {7'd0, hold_valid_q});
      BeatKept: assert (!beat_valid_q || (beat_octets_q >= 7'd1 && beat_octets_q <= 7'd64 &&
          octets_1q == {1'b0, index_1q, 6'd0} + {8'd0, beat_octets_q} && octets_1q <= 15'd16383 &&
          (beat_first_q == (index_1q == 8'd0)) && (beat_last_q || beat_octets_q == 7'd64)));
      BeatFollows: assert (!beat_valid_q || !hold_valid_q || (hold_last_q == beat_first_q &&
          (hold_last_q || index_1q == index_2q + 8'd1)));
      InPacketBeat: assert (!beat_valid_q || (in_packet_q == !beat_last_q &&
          (beat_last_q || beats_q == index_1q + 8'd1)));
      InPacketHold: assert (!hold_valid_q || beat_valid_q || (in_packet_q == !hold_last_q &&
          (hold_last_q || beats_q == index_2q + 8'd1)));
      InPacketNone: assert (!in_packet_q || beat_valid_q || (hold_valid_q && !hold_last_q));
      HoldKept: assert (!hold_valid_q || (hold_octets_q >= 7'd1 && hold_octets_q <= 7'd64 &&
          octets_2q == {1'b0, index_2q, 6'd0} + {8'd0, hold_octets_q} && octets_2q <= 15'd16383 &&
          (hold_first_q == (index_2q == 8'd0)) && (hold_last_q || hold_octets_q == 7'd64)));
      HoldTags: assert (!hold_valid_q || (tags_q <= 2'd2 &&
          !(ipv4_12_q && ipv6_12_q) && !(ipv4_16_q && ipv6_16_q) && !(ipv4_20_q && ipv6_20_q) &&
          (below_14_q || octets_2q >= 15'd14) && (below_18_q || octets_2q >= 15'd18) &&
          (below_22_q || octets_2q >= 15'd22)));
      HoldOctet: assert (!hold_valid_q || index_2q != watched[13:6] || watched[5:0] < 6'd14 ||
          octet_2q == hold_data_q[{watched[5:0], 3'd0} +: 8]);
      BeatOctet: assert (!beat_valid_q || index_1q != watched[13:6] ||
          octet_1q == beat_data_q[{watched[5:0], 3'd0} +: 8]);
      HoldIndex: assert (!hold_valid_q || hold_index_q == index_2q);
      HoldIsBeforeBeat: assert (!beat_valid_q || beat_first_q || hold_valid_q);

      // What the later stages assume of a window (rx_parse_ip.svh).
      WindowIsThatOfTheBeat: assert (!window_valid_o || (window_o.index == index_3q &&
          window_o.first == (index_3q == 8'd0)));
      FrameOctetsAreCounted: assert (!window_valid_o || !window_o.last ||
          {1'b0, frame_octets_o} == octets_3q);
      LastWindowHasTheLastOctet: assert (!window_valid_o || !window_o.last ||
          {1'b0, frame_octets_o} - {1'b0, window_o.index, 6'd0} - 15'd1 < 15'd64);
      AtMostTwoTags: assert (!window_valid_o || link_o.tags <= 2'd2);
      OneVersion: assert (!window_valid_o || !link_o.is_ipv4 || !link_o.is_ipv6);
      EthernetHeaderIsThere: assert (!window_valid_o || link_o.truncated_ethernet ||
          link_o.truncated_vlan ||
          octets_3q >= {10'd0, rx_parse_pkg::link_octets(link_o.tags)});
      // Every octet of the frame behind the Ethernet header stands where the window's drawing says.
      OctetsInPlace: assert (!window_valid_o || place >= 15'd83 || watched >= octets_3q + (next_3q ?
          15'd64 : 15'd0) || found == (watched[13:6] == window_o.index ? octet_3q : octet_next_3q) ||
          (watched[13:6] != window_o.index && !next_3q));
    end
  end
