//! The RTL units and their ports: one list for the C++ glue, which build.rs makes from it, and for the adapters.
//!
//! Values cross between Rust and C++ as 32-bit words, least significant first. Each port begins at a word of its
//! own, in the order of the list. Clock and reset are not in it: the shim drives them.

/// A port of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port {
    /// The name in the RTL.
    pub name: &'static str,
    /// Width in bits.
    pub bits: usize,
}

impl Port {
    /// Words that the port takes.
    pub const fn words(self) -> usize {
        self.bits.div_ceil(32)
    }
}

/// How a unit is built.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Build {
    /// Optimised, and nothing else.
    #[default]
    Fast,
    /// With assertions, waveforms and mutants, several times slower.
    Inspect,
}

/// A top module that the bench can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unit {
    /// Its name: the module's, with what tells it from others with other parameters.
    pub name: &'static str,
    /// The module, which is also its file's name.
    pub module: &'static str,
    /// Module parameters and the values they are built with.
    pub parameters: &'static [(&'static str, u64)],
    /// The builds that there are of it.
    pub builds: &'static [Build],
    /// Inputs, but for clock and reset.
    pub inputs: &'static [Port],
    /// Outputs.
    pub outputs: &'static [Port],
}

/// Words that all these ports take.
pub const fn words(ports: &[Port]) -> usize {
    let mut sum = 0;
    let mut index = 0;
    while index < ports.len() {
        sum += ports[index].words();
        index += 1;
    }
    sum
}

/// The word at which the port of this name begins. To be used in constants: an unknown name does not compile then.
pub const fn word_of(ports: &[Port], name: &str) -> usize {
    let mut word = 0;
    let mut index = 0;
    while index < ports.len() {
        if same(ports[index].name.as_bytes(), name.as_bytes()) {
            return word;
        }
        word += ports[index].words();
        index += 1;
    }
    panic!("no port of this name")
}

const fn same(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let mut index = 0;
    while index < a.len() {
        if a[index] != b[index] {
            return false;
        }
        index += 1;
    }
    true
}

const fn port(name: &'static str, bits: usize) -> Port {
    Port { name, bits }
}

/// Every unit.
pub const UNITS: &[&Unit] = &[&RX_PARSE, &RX_GEOMETRY, &PSP_KDF, &PSP_KDF_TWO_BLOCKS, &AES256];

/// The units that the command line runs: for it no other is built. The rest are for tests, which ask for them by the feature
/// `test-units`.
pub const COMMAND_LINE_UNITS: &[&Unit] = &[&RX_PARSE];

/// The receive parser.
pub const RX_PARSE: Unit = Unit {
    name: "rx_parse",
    module: "rx_parse",
    parameters: &[("Results", 64)],
    builds: &[Build::Fast, Build::Inspect],
    inputs: &[
        port("psp_udp_port_i", 16),
        port("esp_udp_port_i", 16),
        port("eesp_protocol_i", 8),
        port("eesp_in_udp_i", 1),
        port("wespv2_protocol_i", 8),
        port("beat_valid_i", 1),
        port("beat_data_i", 512),
        port("beat_octets_i", 7),
        port("beat_last_i", 1),
        port("result_ready_i", 1),
    ],
    outputs: &[
        port("beat_ready_o", 1),
        port("drained_o", 1),
        port("result_valid_o", 1),
        port("result_verdict_o", 7),
        port("result_protocol_o", 3),
        port("result_reserved_spi_o", 1),
        port("result_vlan_valid_o", 1),
        port("result_vlan_o", 16),
        port("result_ip_version_o", 3),
        port("result_l3_offset_o", 5),
        port("result_l4_offset_o", 14),
        port("result_l3_end_o", 14),
        port("result_next_header_o", 8),
        port("result_next_header_offset_o", 14),
        port("result_traffic_class_o", 8),
        port("result_dont_fragment_o", 1),
        port("result_hop_limit_o", 8),
        port("result_flow_label_o", 20),
        port("result_source_o", 128),
        port("result_destination_o", 128),
        port("result_ports_valid_o", 1),
        port("result_source_port_o", 16),
        port("result_destination_port_o", 16),
        port("result_fragment_o", 1),
        port("result_udp_o", 1),
        port("result_security_offset_o", 14),
        port("result_spi_o", 32),
        port("result_session_id_o", 16),
        port("result_numbers_offset_o", 14),
        port("result_header_octets_o", 12),
        port("result_crypt_offset_o", 6),
        port("result_payload_offset_valid_o", 1),
        port("result_payload_offset_o", 6),
        port("result_psp_flags_o", 8),
        port("result_numbers_o", 128),
    ],
};

/// The derivation of PSP keys, a block a cycle.
pub const PSP_KDF: Unit = Unit {
    name: "psp_kdf",
    module: "psp_kdf",
    parameters: &[("BlocksPerCycle", 1), ("Results", 64)],
    builds: &[Build::Fast, Build::Inspect],
    inputs: &[
        port("clear_i", 1),
        port("load_valid_i", 1),
        port("load_index_i", 1),
        port("load_key_i", 256),
        port("request_valid_i", 1),
        port("request_spi_i", 32),
        port("request_version_i", 2),
        port("request_tag_i", 8),
        port("result_ready_i", 1),
    ],
    outputs: &[
        port("load_ready_o", 1),
        port("device_key_valid_o", 2),
        port("request_ready_o", 1),
        port("result_valid_o", 1),
        port("result_key_o", 256),
        port("result_tag_o", 8),
        port("result_device_key_missing_o", 1),
        port("drained_o", 1),
    ],
};

/// The same, two blocks a cycle, and with no more places for results than the full rate takes.
pub const PSP_KDF_TWO_BLOCKS: Unit =
    Unit { name: "psp_kdf_two_blocks", parameters: &[("BlocksPerCycle", 2), ("Results", 32)], ..PSP_KDF };

/// The AES-256 in it, a block a cycle.
pub const AES256: Unit = Unit {
    name: "aes256",
    module: "aes256",
    parameters: &[("BlocksPerCycle", 1)],
    builds: &[Build::Inspect],
    inputs: &[
        port("clear_i", 1),
        port("expand_start_i", 1),
        port("expand_index_i", 1),
        port("expand_key_i", 256),
        port("first_key_xor_valid_i", 1),
        port("first_key_xor_index_i", 1),
        port("first_key_xor_i", 128),
        port("key_select_i", 1),
        port("block_i", 128),
    ],
    outputs: &[port("expand_done_o", 1), port("block_o", 128)],
};

/// The unit with the SA's parameters. Verdict and ranges are the last outputs.
pub const RX_GEOMETRY: Unit = Unit {
    name: "rx_geometry",
    module: "rx_geometry",
    parameters: &[("Results", 16)],
    builds: &[Build::Fast, Build::Inspect],
    inputs: &[
        port("request_valid_i", 1),
        port("request_protocol_i", 3),
        port("request_security_offset_i", 14),
        port("request_numbers_offset_i", 14),
        port("request_header_octets_i", 12),
        port("request_crypt_offset_i", 6),
        port("request_payload_offset_valid_i", 1),
        port("request_payload_offset_i", 6),
        port("request_session_id_i", 16),
        port("request_psp_flags_i", 8),
        port("request_l3_end_i", 14),
        port("request_numbers_i", 128),
        port("sa_protocol_i", 3),
        port("sa_cipher_i", 2),
        port("sa_icv_octets_i", 5),
        port("sa_extended_sequence_i", 1),
        port("sa_window_top_i", 64),
        port("sa_window_i", 32),
        port("sa_numbering_i", 2),
        port("sa_format_i", 2),
        port("sa_last_sub_sa_valid_i", 1),
        port("sa_last_sub_sa_i", 16),
        port("result_ready_i", 1),
    ],
    outputs: &[
        port("request_ready_o", 1),
        port("drained_o", 1),
        port("result_valid_o", 1),
        port("result_verdict_o", 7),
        port("result_sequence_o", 64),
        port("result_iv_o", 64),
        port("result_aad_start_o", 14),
        port("result_aad_end_o", 14),
        port("result_sequence_high_in_aad_o", 1),
        port("result_text_start_o", 14),
        port("result_icv_offset_o", 14),
        port("result_icv_octets_o", 5),
    ],
};
