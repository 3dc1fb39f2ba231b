// Made from regs/ by `cargo run -- regs --format sv`.
package cryptonic_regs_pkg;

  // BAR0: registers.
  localparam logic [31:0] BAR0_MAGIC_OFFSET = 32'h00000000;
  localparam logic [31:0] BAR0_CONTRACT_VERSION_OFFSET = 32'h00000004;
  localparam int BAR0_CONTRACT_VERSION_MINOR_LOW = 0;
  localparam int BAR0_CONTRACT_VERSION_MINOR_BITS = 16;
  localparam int BAR0_CONTRACT_VERSION_MAJOR_LOW = 16;
  localparam int BAR0_CONTRACT_VERSION_MAJOR_BITS = 16;
  localparam logic [31:0] BAR0_BLOCK_TABLE_OFFSET = 32'h00000008;
  localparam int BAR0_BLOCK_TABLE_OFFSET_LOW = 0;
  localparam int BAR0_BLOCK_TABLE_OFFSET_BITS = 16;
  localparam int BAR0_BLOCK_TABLE_ENTRIES_LOW = 16;
  localparam int BAR0_BLOCK_TABLE_ENTRIES_BITS = 8;
  localparam int BAR0_BLOCK_TABLE_ENTRY_BYTES_LOW = 24;
  localparam int BAR0_BLOCK_TABLE_ENTRY_BYTES_BITS = 8;
  localparam logic [31:0] BAR0_DEVICE_KIND_OFFSET = 32'h0000000c;
  localparam int BAR0_DEVICE_KIND_REVISION_LOW = 0;
  localparam int BAR0_DEVICE_KIND_REVISION_BITS = 16;
  localparam int BAR0_DEVICE_KIND_KIND_LOW = 16;
  localparam int BAR0_DEVICE_KIND_KIND_BITS = 16;
  localparam logic [31:0] BAR0_SERIAL_OFFSET = 32'h00000010;
  localparam logic [31:0] BAR0_QUEUE_CAPABILITY_OFFSET = 32'h00000100;
  localparam int BAR0_QUEUE_CAPABILITY_QUEUE_PAIRS_LOW = 0;
  localparam int BAR0_QUEUE_CAPABILITY_QUEUE_PAIRS_BITS = 16;
  localparam int BAR0_QUEUE_CAPABILITY_RING_SLOTS_LOG2_MAX_LOW = 16;
  localparam int BAR0_QUEUE_CAPABILITY_RING_SLOTS_LOG2_MAX_BITS = 8;
  localparam int BAR0_QUEUE_CAPABILITY_VECTORS_LOW = 24;
  localparam int BAR0_QUEUE_CAPABILITY_VECTORS_BITS = 8;
  localparam logic [31:0] BAR0_DESCRIPTOR_CAPABILITY_OFFSET = 32'h00000104;
  localparam int BAR0_DESCRIPTOR_CAPABILITY_STRIDE_32_LOW = 0;
  localparam int BAR0_DESCRIPTOR_CAPABILITY_STRIDE_32_BITS = 1;
  localparam int BAR0_DESCRIPTOR_CAPABILITY_STRIDE_64_LOW = 1;
  localparam int BAR0_DESCRIPTOR_CAPABILITY_STRIDE_64_BITS = 1;
  localparam int BAR0_DESCRIPTOR_CAPABILITY_STRIDE_128_LOW = 2;
  localparam int BAR0_DESCRIPTOR_CAPABILITY_STRIDE_128_BITS = 1;
  localparam int BAR0_DESCRIPTOR_CAPABILITY_INLINE_DATA_LOW = 3;
  localparam int BAR0_DESCRIPTOR_CAPABILITY_INLINE_DATA_BITS = 1;
  localparam int BAR0_DESCRIPTOR_CAPABILITY_PUSH_WINDOWS_LOW = 4;
  localparam int BAR0_DESCRIPTOR_CAPABILITY_PUSH_WINDOWS_BITS = 1;
  localparam int BAR0_DESCRIPTOR_CAPABILITY_SHADOW_DOORBELLS_LOW = 5;
  localparam int BAR0_DESCRIPTOR_CAPABILITY_SHADOW_DOORBELLS_BITS = 1;
  localparam logic [31:0] BAR0_PROTOCOL_CAPABILITY_OFFSET = 32'h00000108;
  localparam int BAR0_PROTOCOL_CAPABILITY_ESP_LOW = 0;
  localparam int BAR0_PROTOCOL_CAPABILITY_ESP_BITS = 1;
  localparam int BAR0_PROTOCOL_CAPABILITY_PSP_LOW = 1;
  localparam int BAR0_PROTOCOL_CAPABILITY_PSP_BITS = 1;
  localparam int BAR0_PROTOCOL_CAPABILITY_ESP_TUNNEL_LOW = 2;
  localparam int BAR0_PROTOCOL_CAPABILITY_ESP_TUNNEL_BITS = 1;
  localparam int BAR0_PROTOCOL_CAPABILITY_ESP_TRANSPORT_LOW = 3;
  localparam int BAR0_PROTOCOL_CAPABILITY_ESP_TRANSPORT_BITS = 1;
  localparam int BAR0_PROTOCOL_CAPABILITY_PSP_TUNNEL_LOW = 4;
  localparam int BAR0_PROTOCOL_CAPABILITY_PSP_TUNNEL_BITS = 1;
  localparam int BAR0_PROTOCOL_CAPABILITY_PSP_TRANSPORT_LOW = 5;
  localparam int BAR0_PROTOCOL_CAPABILITY_PSP_TRANSPORT_BITS = 1;
  localparam int BAR0_PROTOCOL_CAPABILITY_ESN_LOW = 6;
  localparam int BAR0_PROTOCOL_CAPABILITY_ESN_BITS = 1;
  localparam int BAR0_PROTOCOL_CAPABILITY_MAC_LOOPBACK_LOW = 7;
  localparam int BAR0_PROTOCOL_CAPABILITY_MAC_LOOPBACK_BITS = 1;
  localparam int BAR0_PROTOCOL_CAPABILITY_PSP_VERSIONS_LOW = 8;
  localparam int BAR0_PROTOCOL_CAPABILITY_PSP_VERSIONS_BITS = 4;
  localparam logic [31:0] BAR0_CIPHER_CAPABILITY_OFFSET = 32'h0000010c;
  localparam int BAR0_CIPHER_CAPABILITY_AES_GCM_128_LOW = 0;
  localparam int BAR0_CIPHER_CAPABILITY_AES_GCM_128_BITS = 1;
  localparam int BAR0_CIPHER_CAPABILITY_AES_GCM_192_LOW = 1;
  localparam int BAR0_CIPHER_CAPABILITY_AES_GCM_192_BITS = 1;
  localparam int BAR0_CIPHER_CAPABILITY_AES_GCM_256_LOW = 2;
  localparam int BAR0_CIPHER_CAPABILITY_AES_GCM_256_BITS = 1;
  localparam int BAR0_CIPHER_CAPABILITY_AES_GMAC_LOW = 3;
  localparam int BAR0_CIPHER_CAPABILITY_AES_GMAC_BITS = 1;
  localparam int BAR0_CIPHER_CAPABILITY_ICV_8_LOW = 4;
  localparam int BAR0_CIPHER_CAPABILITY_ICV_8_BITS = 1;
  localparam int BAR0_CIPHER_CAPABILITY_ICV_12_LOW = 5;
  localparam int BAR0_CIPHER_CAPABILITY_ICV_12_BITS = 1;
  localparam int BAR0_CIPHER_CAPABILITY_ICV_16_LOW = 6;
  localparam int BAR0_CIPHER_CAPABILITY_ICV_16_BITS = 1;
  localparam logic [31:0] BAR0_SA_SLOTS_OFFSET = 32'h00000110;
  localparam logic [31:0] BAR0_REPLAY_WINDOW_MAX_OFFSET = 32'h00000114;
  localparam logic [31:0] BAR0_FRAME_BYTES_MAX_OFFSET = 32'h00000118;
  localparam logic [31:0] BAR0_LINE_RATE_MBPS_OFFSET = 32'h0000011c;
  localparam logic [31:0] BAR0_CONTROL_OFFSET = 32'h00000200;
  localparam int BAR0_CONTROL_ENABLE_LOW = 0;
  localparam int BAR0_CONTROL_ENABLE_BITS = 1;
  localparam int BAR0_CONTROL_MAC_LOOPBACK_LOW = 1;
  localparam int BAR0_CONTROL_MAC_LOOPBACK_BITS = 1;
  localparam logic [31:0] BAR0_DEVICE_STATUS_OFFSET = 32'h00000204;
  localparam int BAR0_DEVICE_STATUS_READY_LOW = 0;
  localparam int BAR0_DEVICE_STATUS_READY_BITS = 1;
  localparam int BAR0_DEVICE_STATUS_FIRMWARE_RUNNING_LOW = 1;
  localparam int BAR0_DEVICE_STATUS_FIRMWARE_RUNNING_BITS = 1;
  localparam int BAR0_DEVICE_STATUS_LINK_UP_LOW = 2;
  localparam int BAR0_DEVICE_STATUS_LINK_UP_BITS = 1;
  localparam int BAR0_DEVICE_STATUS_KEYS_ZEROISED_LOW = 3;
  localparam int BAR0_DEVICE_STATUS_KEYS_ZEROISED_BITS = 1;
  localparam int BAR0_DEVICE_STATUS_FATAL_LOW = 4;
  localparam int BAR0_DEVICE_STATUS_FATAL_BITS = 1;
  localparam logic [31:0] BAR0_TIME_PICOSECONDS_OFFSET = 32'h00000208;
  localparam logic [31:0] BAR0_MAC_ADDRESS_OFFSET = 32'h00000210;
  localparam logic [31:0] BAR0_ADMIN_CONTROL_OFFSET = 32'h00000300;
  localparam int BAR0_ADMIN_CONTROL_ENABLE_LOW = 0;
  localparam int BAR0_ADMIN_CONTROL_ENABLE_BITS = 1;
  localparam int BAR0_ADMIN_CONTROL_SLOTS_LOG2_LOW = 8;
  localparam int BAR0_ADMIN_CONTROL_SLOTS_LOG2_BITS = 8;
  localparam int BAR0_ADMIN_CONTROL_VECTOR_LOW = 16;
  localparam int BAR0_ADMIN_CONTROL_VECTOR_BITS = 8;
  localparam logic [31:0] BAR0_ADMIN_STATUS_OFFSET = 32'h00000304;
  localparam int BAR0_ADMIN_STATUS_ENABLED_LOW = 0;
  localparam int BAR0_ADMIN_STATUS_ENABLED_BITS = 1;
  localparam int BAR0_ADMIN_STATUS_STOPPED_LOW = 1;
  localparam int BAR0_ADMIN_STATUS_STOPPED_BITS = 1;
  localparam logic [31:0] BAR0_ADMIN_COMMAND_BASE_OFFSET = 32'h00000308;
  localparam logic [31:0] BAR0_ADMIN_COMPLETION_BASE_OFFSET = 32'h00000310;
  localparam logic [31:0] BAR0_ADMIN_DOORBELL_OFFSET = 32'h00000318;
  localparam logic [31:0] BAR0_PSP_CONTROL_OFFSET = 32'h00000400;
  localparam int BAR0_PSP_CONTROL_RECEIVE_VERSIONS_LOW = 0;
  localparam int BAR0_PSP_CONTROL_RECEIVE_VERSIONS_BITS = 4;
  localparam int BAR0_PSP_CONTROL_UDP_PORT_LOW = 16;
  localparam int BAR0_PSP_CONTROL_UDP_PORT_BITS = 16;
  localparam logic [31:0] BAR0_PSP_KEY_STATUS_OFFSET = 32'h00000404;
  localparam int BAR0_PSP_KEY_STATUS_KEY_0_VALID_LOW = 0;
  localparam int BAR0_PSP_KEY_STATUS_KEY_0_VALID_BITS = 1;
  localparam int BAR0_PSP_KEY_STATUS_KEY_1_VALID_LOW = 1;
  localparam int BAR0_PSP_KEY_STATUS_KEY_1_VALID_BITS = 1;
  localparam int BAR0_PSP_KEY_STATUS_ACTIVE_LOW = 2;
  localparam int BAR0_PSP_KEY_STATUS_ACTIVE_BITS = 1;
  localparam int BAR0_PSP_KEY_STATUS_TEST_LOAD_LOCKED_LOW = 3;
  localparam int BAR0_PSP_KEY_STATUS_TEST_LOAD_LOCKED_BITS = 1;
  localparam int BAR0_PSP_KEY_STATUS_GENERATION_LOW = 16;
  localparam int BAR0_PSP_KEY_STATUS_GENERATION_BITS = 16;
  localparam logic [31:0] BAR0_PSP_SPI_REMAINING_OFFSET = 32'h00000408;
  localparam logic [31:0] BAR0_PSP_TEST_LOCK_OFFSET = 32'h0000040c;
  localparam int BAR0_PSP_TEST_LOCK_LOCKED_LOW = 0;
  localparam int BAR0_PSP_TEST_LOCK_LOCKED_BITS = 1;
  localparam logic [31:0] BAR0_TRANSMITTED_FRAMES_OFFSET = 32'h00000800;
  localparam logic [31:0] BAR0_TRANSMITTED_BYTES_OFFSET = 32'h00000808;
  localparam logic [31:0] BAR0_RECEIVED_FRAMES_OFFSET = 32'h00000810;
  localparam logic [31:0] BAR0_RECEIVED_BYTES_OFFSET = 32'h00000818;
  localparam logic [31:0] BAR0_PSP_RECEIVED_PACKETS_OFFSET = 32'h00000820;
  localparam logic [31:0] BAR0_PSP_RECEIVED_BYTES_OFFSET = 32'h00000828;
  localparam logic [31:0] BAR0_PSP_RECEIVED_AUTHENTICATION_FAILURES_OFFSET = 32'h00000830;
  localparam logic [31:0] BAR0_PSP_RECEIVED_ERRORS_OFFSET = 32'h00000838;
  localparam logic [31:0] BAR0_PSP_RECEIVED_BAD_OFFSET = 32'h00000840;
  localparam logic [31:0] BAR0_PSP_TRANSMITTED_PACKETS_OFFSET = 32'h00000848;
  localparam logic [31:0] BAR0_PSP_TRANSMITTED_BYTES_OFFSET = 32'h00000850;
  localparam logic [31:0] BAR0_PSP_TRANSMITTED_ERRORS_OFFSET = 32'h00000858;
  localparam logic [31:0] BAR0_DMA_FAULTS_OFFSET = 32'h00000860;
  localparam logic [31:0] BAR0_QUEUE_CONTROL_OFFSET = 32'h00002000;
  localparam int BAR0_QUEUE_CONTROL_ENABLE_LOW = 0;
  localparam int BAR0_QUEUE_CONTROL_ENABLE_BITS = 1;
  localparam int BAR0_QUEUE_CONTROL_TRANSMIT_CLEAR_ALLOWED_LOW = 1;
  localparam int BAR0_QUEUE_CONTROL_TRANSMIT_CLEAR_ALLOWED_BITS = 1;
  localparam int BAR0_QUEUE_CONTROL_TRANSMIT_STRIDE_LOG2_LOW = 8;
  localparam int BAR0_QUEUE_CONTROL_TRANSMIT_STRIDE_LOG2_BITS = 4;
  localparam int BAR0_QUEUE_CONTROL_TRANSMIT_SLOTS_LOG2_LOW = 16;
  localparam int BAR0_QUEUE_CONTROL_TRANSMIT_SLOTS_LOG2_BITS = 4;
  localparam int BAR0_QUEUE_CONTROL_RECEIVE_SLOTS_LOG2_LOW = 20;
  localparam int BAR0_QUEUE_CONTROL_RECEIVE_SLOTS_LOG2_BITS = 4;
  localparam int BAR0_QUEUE_CONTROL_VECTOR_LOW = 24;
  localparam int BAR0_QUEUE_CONTROL_VECTOR_BITS = 8;
  localparam logic [31:0] BAR0_QUEUE_STATUS_OFFSET = 32'h00002004;
  localparam int BAR0_QUEUE_STATUS_ENABLED_LOW = 0;
  localparam int BAR0_QUEUE_STATUS_ENABLED_BITS = 1;
  localparam int BAR0_QUEUE_STATUS_QUARANTINED_LOW = 1;
  localparam int BAR0_QUEUE_STATUS_QUARANTINED_BITS = 1;
  localparam int BAR0_QUEUE_STATUS_CAUSE_LOW = 16;
  localparam int BAR0_QUEUE_STATUS_CAUSE_BITS = 16;
  localparam logic [31:0] BAR0_TRANSMIT_RING_BASE_OFFSET = 32'h00002008;
  localparam logic [31:0] BAR0_TRANSMIT_COMPLETION_BASE_OFFSET = 32'h00002010;
  localparam logic [31:0] BAR0_RECEIVE_RING_BASE_OFFSET = 32'h00002018;
  localparam logic [31:0] BAR0_RECEIVE_COMPLETION_BASE_OFFSET = 32'h00002020;

  // BAR2: one page a queue pair.
  localparam logic [31:0] BAR2_TRANSMIT_DOORBELL_OFFSET = 32'h00000000;
  localparam logic [31:0] BAR2_RECEIVE_DOORBELL_OFFSET = 32'h00000004;
  localparam logic [31:0] BAR2_INTERRUPT_ARM_OFFSET = 32'h00000008;

  // The firmware's address space; the host cannot reach it.
  localparam logic [31:0] FIRMWARE_MAILBOX_STATUS_OFFSET = 32'h00000000;
  localparam int FIRMWARE_MAILBOX_STATUS_PENDING_LOW = 0;
  localparam int FIRMWARE_MAILBOX_STATUS_PENDING_BITS = 1;
  localparam logic [31:0] FIRMWARE_MAILBOX_RESULT_LOW_OFFSET = 32'h00000004;
  localparam logic [31:0] FIRMWARE_MAILBOX_RESULT_HIGH_OFFSET = 32'h00000008;
  localparam logic [31:0] FIRMWARE_MAILBOX_COMPLETE_OFFSET = 32'h0000000c;
  localparam logic [31:0] FIRMWARE_MAILBOX_NOTE_OFFSET = 32'h00000010;
  localparam int FIRMWARE_MAILBOX_NOTE_TAKEN_LOW = 0;
  localparam int FIRMWARE_MAILBOX_NOTE_TAKEN_BITS = 1;
  localparam int FIRMWARE_MAILBOX_NOTE_INSTALLING_LOW = 1;
  localparam int FIRMWARE_MAILBOX_NOTE_INSTALLING_BITS = 1;
  localparam int FIRMWARE_MAILBOX_NOTE_SLOT_LOW = 16;
  localparam int FIRMWARE_MAILBOX_NOTE_SLOT_BITS = 16;
  localparam logic [31:0] FIRMWARE_MAILBOX_COMMAND_OFFSET = 32'h00000040;
  localparam logic [31:0] FIRMWARE_DMA_HOST_LOW_OFFSET = 32'h00000100;
  localparam logic [31:0] FIRMWARE_DMA_HOST_HIGH_OFFSET = 32'h00000104;
  localparam logic [31:0] FIRMWARE_DMA_SCRATCH_OFFSET = 32'h00000108;
  localparam logic [31:0] FIRMWARE_DMA_BYTES_OFFSET = 32'h0000010c;
  localparam logic [31:0] FIRMWARE_DMA_COMMAND_OFFSET = 32'h00000110;
  localparam int FIRMWARE_DMA_COMMAND_TO_HOST_LOW = 0;
  localparam int FIRMWARE_DMA_COMMAND_TO_HOST_BITS = 1;
  localparam logic [31:0] FIRMWARE_DMA_STATUS_OFFSET = 32'h00000114;
  localparam int FIRMWARE_DMA_STATUS_BUSY_LOW = 0;
  localparam int FIRMWARE_DMA_STATUS_BUSY_BITS = 1;
  localparam int FIRMWARE_DMA_STATUS_OUTCOME_LOW = 8;
  localparam int FIRMWARE_DMA_STATUS_OUTCOME_BITS = 8;
  localparam logic [31:0] FIRMWARE_SA_SLOT_COUNT_OFFSET = 32'h00000200;
  localparam logic [31:0] FIRMWARE_SA_INDEX_OFFSET = 32'h00000204;
  localparam logic [31:0] FIRMWARE_SA_GENERATION_OFFSET = 32'h00000208;
  localparam logic [31:0] FIRMWARE_SA_SCRATCH_OFFSET = 32'h0000020c;
  localparam logic [31:0] FIRMWARE_SA_HOST_LOW_OFFSET = 32'h00000210;
  localparam logic [31:0] FIRMWARE_SA_HOST_HIGH_OFFSET = 32'h00000214;
  localparam logic [31:0] FIRMWARE_SA_COMMAND_OFFSET = 32'h00000218;
  localparam logic [31:0] FIRMWARE_SA_STATUS_OFFSET = 32'h0000021c;
  localparam int FIRMWARE_SA_STATUS_BUSY_LOW = 0;
  localparam int FIRMWARE_SA_STATUS_BUSY_BITS = 1;
  localparam int FIRMWARE_SA_STATUS_OUTCOME_LOW = 8;
  localparam int FIRMWARE_SA_STATUS_OUTCOME_BITS = 8;
  localparam logic [31:0] FIRMWARE_SA_REPLAY_WINDOW_MAX_OFFSET = 32'h00000220;
  localparam logic [31:0] FIRMWARE_SA_QUEUE_PAIRS_OFFSET = 32'h00000224;
  localparam logic [31:0] FIRMWARE_PSP_VERSION_OFFSET = 32'h00000300;
  localparam logic [31:0] FIRMWARE_PSP_COUNT_OFFSET = 32'h00000304;
  localparam logic [31:0] FIRMWARE_PSP_HOST_LOW_OFFSET = 32'h00000308;
  localparam logic [31:0] FIRMWARE_PSP_HOST_HIGH_OFFSET = 32'h0000030c;
  localparam logic [31:0] FIRMWARE_PSP_COMMAND_OFFSET = 32'h00000310;
  localparam logic [31:0] FIRMWARE_PSP_STATUS_OFFSET = 32'h00000314;
  localparam int FIRMWARE_PSP_STATUS_BUSY_LOW = 0;
  localparam int FIRMWARE_PSP_STATUS_BUSY_BITS = 1;
  localparam int FIRMWARE_PSP_STATUS_OUTCOME_LOW = 8;
  localparam int FIRMWARE_PSP_STATUS_OUTCOME_BITS = 8;
  localparam logic [31:0] FIRMWARE_PSP_GENERATION_OFFSET = 32'h00000318;
  localparam logic [31:0] FIRMWARE_CLOCK_LOW_OFFSET = 32'h00000320;
  localparam logic [31:0] FIRMWARE_CLOCK_HIGH_OFFSET = 32'h00000324;

  // Status
  localparam logic [15:0] STATUS_OK = 16'd0;
  localparam logic [15:0] STATUS_CLEAR_NOT_ALLOWED = 16'd1;
  localparam logic [15:0] STATUS_STALE_SA = 16'd2;
  localparam logic [15:0] STATUS_WRONG_DIRECTION = 16'd3;
  localparam logic [15:0] STATUS_SEQUENCE_EXHAUSTED = 16'd4;
  localparam logic [15:0] STATUS_BAD_DESCRIPTOR = 16'd5;
  localparam logic [15:0] STATUS_TOO_LONG = 16'd6;
  localparam logic [15:0] STATUS_DMA_FAULT = 16'd7;
  localparam logic [15:0] STATUS_NOT_IP = 16'd8;
  localparam logic [15:0] STATUS_FRAGMENT_IN_TRANSPORT = 16'd9;
  localparam logic [15:0] STATUS_TRANSMIT_CRYPT_OFFSET = 16'd10;
  localparam logic [15:0] STATUS_BAD_PSP_KEY = 16'd11;
  localparam logic [15:0] STATUS_RESET = 16'd12;
  localparam logic [15:0] STATUS_TRUNCATED_ETHERNET = 16'd32;
  localparam logic [15:0] STATUS_TRUNCATED_VLAN = 16'd33;
  localparam logic [15:0] STATUS_BAD_IP_VERSION = 16'd34;
  localparam logic [15:0] STATUS_TRUNCATED_IPV4 = 16'd35;
  localparam logic [15:0] STATUS_BAD_IPV4_HEADER_LENGTH = 16'd36;
  localparam logic [15:0] STATUS_BAD_IPV4_TOTAL_LENGTH = 16'd37;
  localparam logic [15:0] STATUS_BAD_IPV4_CHECKSUM = 16'd38;
  localparam logic [15:0] STATUS_TRUNCATED_IPV6 = 16'd39;
  localparam logic [15:0] STATUS_TRUNCATED_IPV6_EXTENSION = 16'd40;
  localparam logic [15:0] STATUS_TOO_DEEP_EXTENSION_CHAIN = 16'd41;
  localparam logic [15:0] STATUS_FRAGMENT = 16'd42;
  localparam logic [15:0] STATUS_TRUNCATED_TCP = 16'd43;
  localparam logic [15:0] STATUS_TRUNCATED_UDP = 16'd44;
  localparam logic [15:0] STATUS_BAD_UDP_LENGTH = 16'd45;
  localparam logic [15:0] STATUS_TRUNCATED_ESP = 16'd46;
  localparam logic [15:0] STATUS_TRUNCATED_PSP = 16'd47;
  localparam logic [15:0] STATUS_PSP_RESERVED_BIT = 16'd48;
  localparam logic [15:0] STATUS_PSP_BAD_VERSION = 16'd49;
  localparam logic [15:0] STATUS_PSP_BAD_HEADER_LENGTH = 16'd50;
  localparam logic [15:0] STATUS_PSP_CRYPT_OFFSET_PAST_END = 16'd51;
  localparam logic [15:0] STATUS_RESERVED_SPI = 16'd52;
  localparam logic [15:0] STATUS_NO_SA = 16'd64;
  localparam logic [15:0] STATUS_PSP_VERSION_DISABLED = 16'd65;
  localparam logic [15:0] STATUS_PSP_NO_DEVICE_KEY = 16'd66;
  localparam logic [15:0] STATUS_REPLAY_DUPLICATE = 16'd67;
  localparam logic [15:0] STATUS_REPLAY_BELOW_WINDOW = 16'd68;
  localparam logic [15:0] STATUS_BAD_SEQUENCE = 16'd69;
  localparam logic [15:0] STATUS_ICV_MISMATCH = 16'd70;
  localparam logic [15:0] STATUS_BAD_TRAILER = 16'd71;
  localparam logic [15:0] STATUS_BAD_INNER = 16'd72;
  localparam logic [15:0] STATUS_DUMMY = 16'd73;
  localparam logic [15:0] STATUS_ECN_DROP = 16'd74;
  localparam logic [15:0] STATUS_SA_DELETED = 16'd75;
  localparam logic [15:0] STATUS_NO_BUFFER = 16'd96;
  localparam logic [15:0] STATUS_TOO_BIG = 16'd97;
  localparam logic [15:0] STATUS_QUEUE_OFF = 16'd98;
  localparam logic [15:0] STATUS_BAD_DOORBELL = 16'd99;
  localparam logic [15:0] STATUS_BAD_RING = 16'd100;
  localparam logic [15:0] STATUS_RING_DMA_FAULT = 16'd101;
  localparam logic [15:0] STATUS_RECEIVE_DMA_FAULT = 16'd102;
  localparam logic [15:0] STATUS_RECEIVE_OVERFLOW = 16'd103;

  // Security
  localparam logic [15:0] SECURITY_CLEAR = 16'd0;
  localparam logic [15:0] SECURITY_SA = 16'd1;
  localparam logic [15:0] SECURITY_PSP_KEY = 16'd2;

  // SourcePortPolicy
  localparam logic [15:0] SOURCE_PORT_POLICY_ENTROPY = 16'd0;
  localparam logic [15:0] SOURCE_PORT_POLICY_PORTS_XOR = 16'd1;
  localparam logic [15:0] SOURCE_PORT_POLICY_FIXED = 16'd2;

  // ReceivedProtocol
  localparam logic [15:0] RECEIVED_PROTOCOL_CLEAR = 16'd0;
  localparam logic [15:0] RECEIVED_PROTOCOL_ESP = 16'd1;
  localparam logic [15:0] RECEIVED_PROTOCOL_PSP = 16'd2;

  // Opcode
  localparam logic [15:0] OPCODE_CAPABILITIES = 16'd1;
  localparam logic [15:0] OPCODE_STATISTICS = 16'd2;
  localparam logic [15:0] OPCODE_SA_INSTALL = 16'd16;
  localparam logic [15:0] OPCODE_SA_DELETE = 16'd17;
  localparam logic [15:0] OPCODE_SA_QUERY = 16'd18;
  localparam logic [15:0] OPCODE_PSP_ALLOCATE = 16'd32;
  localparam logic [15:0] OPCODE_PSP_ROTATE = 16'd33;
  localparam logic [15:0] OPCODE_PSP_TEST_KEY_LOAD = 16'd34;
  localparam logic [15:0] OPCODE_PSP_TEST_IV_LOAD = 16'd35;

  // AdminStatus
  localparam logic [15:0] ADMIN_STATUS_OK = 16'd0;
  localparam logic [15:0] ADMIN_STATUS_UNKNOWN_OPCODE = 16'd1;
  localparam logic [15:0] ADMIN_STATUS_BAD_ARGUMENT = 16'd2;
  localparam logic [15:0] ADMIN_STATUS_BAD_ADDRESS = 16'd3;
  localparam logic [15:0] ADMIN_STATUS_NO_SUCH_SA = 16'd4;
  localparam logic [15:0] ADMIN_STATUS_NO_FREE_SLOT = 16'd5;
  localparam logic [15:0] ADMIN_STATUS_DUPLICATE_SPI = 16'd6;
  localparam logic [15:0] ADMIN_STATUS_UNSUPPORTED = 16'd7;
  localparam logic [15:0] ADMIN_STATUS_NO_SPI_LEFT = 16'd8;
  localparam logic [15:0] ADMIN_STATUS_LOCKED = 16'd9;
  localparam logic [15:0] ADMIN_STATUS_RESERVED_SPI = 16'd10;
  localparam logic [15:0] ADMIN_STATUS_ABORTED = 16'd11;

  // Direction
  localparam logic [15:0] DIRECTION_OUT = 16'd0;
  localparam logic [15:0] DIRECTION_IN = 16'd1;

  // SaProtocol
  localparam logic [15:0] SA_PROTOCOL_ESP = 16'd1;

  // Mode
  localparam logic [15:0] MODE_TUNNEL = 16'd0;
  localparam logic [15:0] MODE_TRANSPORT = 16'd1;

  // Cipher
  localparam logic [15:0] CIPHER_AES_GCM_128 = 16'd0;
  localparam logic [15:0] CIPHER_AES_GCM_192 = 16'd1;
  localparam logic [15:0] CIPHER_AES_GCM_256 = 16'd2;

  // DfPolicy
  localparam logic [15:0] DF_POLICY_COPY = 16'd0;
  localparam logic [15:0] DF_POLICY_SET = 16'd1;
  localparam logic [15:0] DF_POLICY_CLEAR = 16'd2;

  // SaOperation
  localparam logic [15:0] SA_OPERATION_INSTALL = 16'd1;
  localparam logic [15:0] SA_OPERATION_DELETE = 16'd2;
  localparam logic [15:0] SA_OPERATION_QUERY = 16'd3;

  // PspOperation
  localparam logic [15:0] PSP_OPERATION_ALLOCATE = 16'd1;
  localparam logic [15:0] PSP_OPERATION_ROTATE = 16'd2;
  localparam logic [15:0] PSP_OPERATION_TEST_KEY_LOAD = 16'd3;
  localparam logic [15:0] PSP_OPERATION_TEST_IV_LOAD = 16'd4;

  // Outcome
  localparam logic [15:0] OUTCOME_OK = 16'd0;
  localparam logic [15:0] OUTCOME_DMA_FAULT = 16'd1;
  localparam logic [15:0] OUTCOME_DUPLICATE_SPI = 16'd2;
  localparam logic [15:0] OUTCOME_WRONG_STATE = 16'd3;
  localparam logic [15:0] OUTCOME_NO_SPI_LEFT = 16'd4;
  localparam logic [15:0] OUTCOME_LOCKED = 16'd5;
  localparam logic [15:0] OUTCOME_BAD_ARGUMENT = 16'd6;
endpackage
