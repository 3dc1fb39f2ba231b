//! The knobs of the model, with their units, as TOML; presets for 25, 100, 200 and 400 Gb/s.

use crate::Ticks;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::psp_kdf;
use crate::receive::MARGIN_BYTES;
use crate::rx_parse::BEAT_OCTETS;

/// Every knob of one NIC and its host. Names carry units.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Parameters {
    /// The MAC and its line.
    pub mac: MacParameters,
    /// The clock and the buses behind it.
    pub pipeline: PipelineParameters,
    /// AES-GCM lanes, key derivation and the context cache.
    pub crypto: CryptoParameters,
    /// The PCI Express link and the memory behind it.
    pub pcie: PcieParameters,
    /// Descriptor fetch and prefetch.
    pub descriptors: DescriptorParameters,
    /// Number of queue pairs, slots and so on.
    pub capacity: CapacityParameters,
    /// Management firmware.
    pub firmware: FirmwareParameters,
    /// The host: what its work costs.
    pub host: HostParameters,
}

/// The MAC and its line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MacParameters {
    /// Line rate in Gb/s.
    pub rate_gbps: u64,
    /// MAC and PHY, from the last bit of a frame in the pipeline to the line, and again on receive.
    pub latency_ns: u64,
    /// Receive buffer between MAC and host memory.
    pub receive_buffer_bytes: u64,
    /// Transmit buffer between host memory and MAC.
    pub transmit_buffer_bytes: u64,
    /// Buffer between host memory and MAC of frames that are cut into segments.
    pub segment_buffer_bytes: u64,
}

/// The clock and the buses behind it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PipelineParameters {
    /// Clock of all stages; must divide 33 × 10^12 so that its period is a whole number of ticks.
    pub clock_hz: u64,
    /// Bytes of one beat of the packet bus.
    pub bus_bytes: u64,
    /// Cycles between two packets in the serial commit stages.
    pub commit_interval_cycles: u64,
    /// Cycles from commit to the lanes, and from the lanes to the MAC: layout, checksum.
    pub stage_latency_cycles: u64,
    /// Cycles of an SA lookup.
    pub lookup_latency_cycles: u64,
    /// Packets in the parser and results behind it before it stops its input; a power of two.
    pub parse_results: u64,
}

/// AES-GCM lanes, key derivation and the context cache.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CryptoParameters {
    /// Number of AES-GCM lanes, each one block a cycle.
    pub lanes: u64,
    /// Cycles from the last block of a packet into a lane to its ICV.
    pub lane_latency_cycles: u64,
    /// Cycles from an SPI to a derived key whose round keys keep ahead of a lane's rounds. H is a block of the lane.
    pub derivation_latency_cycles: u64,
    /// Derived PSP keys, with round keys and H, that a cache holds for further packets with the same SPI; 0 is none: each
    /// received packet has its key derived.
    pub derived_key_cache_entries: u64,
    /// SA contexts that the cache holds; 0 is no limit.
    pub context_cache_entries: u64,
    /// Time to fetch a context that is not cached.
    pub context_miss_ns: u64,
    /// Epoch of the PSP IV clock that is known at power-on; 0 is none, and no PSP packet leaves until the host sets one.
    pub psp_epoch_ps: u64,
    /// SPIs that a PSP device key gives out: 2^31 - 1, or fewer to see a key used up.
    pub psp_spis_per_key: u64,
}

/// The PCI Express link and the memory behind it. The formulas stand in docs/timing.md.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PcieParameters {
    /// Generation, 3 to 5.
    pub generation: u64,
    /// Number of lanes: 1, 2, 4, 8 or 16.
    pub lanes: u64,
    /// Maximum payload size.
    pub mps_bytes: u64,
    /// Maximum read request size.
    pub mrrs_bytes: u64,
    /// How completions are split: the payload size, or 64 or 128 for a root complex that splits at its
    /// read completion boundary.
    pub completion_bytes: u64,
    /// Read requests in flight.
    pub read_tags: u64,
    /// Bytes of completion data that may be in flight.
    pub completion_credit_bytes: u64,
    /// From a read request's last byte on the link to the first byte of its completion.
    pub read_latency_ns: u64,
    /// From a posted write's last byte on the link to its visibility, either way.
    pub write_latency_ns: u64,
}

/// Descriptor fetch and prefetch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DescriptorParameters {
    /// Most transmit descriptors one read fetches.
    pub transmit_fetch: u64,
    /// Transmit descriptors fetched or asked for and not yet gathered, per queue pair.
    pub transmit_prefetch: u64,
    /// Most receive descriptors one read fetches.
    pub receive_fetch: u64,
    /// Receive descriptors kept ready, per queue pair.
    pub receive_prefetch: u64,
    /// Most transmit descriptors of one frame.
    pub transmit_chain: u64,
    /// Most receive buffers of one frame.
    pub receive_chain: u64,
}

/// How many there are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CapacityParameters {
    /// Queue pairs, 1 to 64.
    pub queue_pairs: u64,
    /// SA slots, 1 to 65536.
    pub sa_slots: u64,
    /// Of 100 SA slots so many are count-based, rounded up; the others are byte-based.
    pub sa_packet_slots_percent: u64,
    /// Inbound SAs that may refuse packets in clear, 0 to 1024.
    pub clear_policies: u64,
    /// Largest replay window.
    pub replay_window_packets: u64,
    /// Largest frame without FCS, before protection and after it.
    pub frame_bytes: u64,
}

/// Management firmware.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FirmwareParameters {
    /// Clock of its core; must divide 33 × 10^12.
    pub clock_hz: u64,
    /// Core cycles of one bus access, with the instructions around it.
    pub access_cycles: u64,
    /// Core cycles of one activation.
    pub activation_cycles: u64,
}

/// The host: what its work costs. One set for the whole host, as if its cores shared the work.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HostParameters {
    /// A burst of packets prepared or taken.
    pub burst_ns: u64,
    /// Each packet of a burst.
    pub packet_ns: f64,
    /// A posted register write.
    pub register_write_ns: u64,
    /// Between two looks at the rings.
    pub poll_ns: u64,
    /// The device offers it shadow doorbells: counts in host memory in place of register writes.
    pub shadow_doorbells: bool,
}

impl CapacityParameters {
    /// SA slots that are count-based, from slot 0 on.
    pub fn sa_packet_slots(&self) -> u64 {
        (self.sa_slots * self.sa_packet_slots_percent).div_ceil(100)
    }
}

impl Default for MacParameters {
    fn default() -> Self {
        MacParameters {
            rate_gbps: 100,
            latency_ns: 60,
            receive_buffer_bytes: 1 << 20,
            transmit_buffer_bytes: 1 << 16,
            segment_buffer_bytes: 1 << 17,
        }
    }
}

impl Default for PipelineParameters {
    fn default() -> Self {
        PipelineParameters {
            clock_hz: 322_265_625,
            bus_bytes: 64,
            commit_interval_cycles: 1,
            stage_latency_cycles: 8,
            lookup_latency_cycles: 6,
            parse_results: 64,
        }
    }
}

impl Default for CryptoParameters {
    fn default() -> Self {
        CryptoParameters {
            lanes: 3,
            lane_latency_cycles: 40,
            derivation_latency_cycles: psp_kdf::LATENCY_CYCLES + psp_kdf::EXPANSION_STEP_CYCLES,
            derived_key_cache_entries: 0,
            context_cache_entries: 2048,
            context_miss_ns: 120,
            psp_epoch_ps: 1_000_000_000_000,
            psp_spis_per_key: (1 << 31) - 1,
        }
    }
}

impl Default for PcieParameters {
    fn default() -> Self {
        PcieParameters {
            generation: 4,
            lanes: 16,
            mps_bytes: 256,
            mrrs_bytes: 512,
            completion_bytes: 256,
            read_tags: 256,
            completion_credit_bytes: 65_536,
            read_latency_ns: 540,
            write_latency_ns: 270,
        }
    }
}

impl Default for DescriptorParameters {
    fn default() -> Self {
        DescriptorParameters {
            transmit_fetch: 16,
            transmit_prefetch: 128,
            receive_fetch: 16,
            receive_prefetch: 256,
            transmit_chain: 32,
            receive_chain: 16,
        }
    }
}

impl Default for CapacityParameters {
    fn default() -> Self {
        CapacityParameters {
            queue_pairs: 16,
            sa_slots: 2048,
            sa_packet_slots_percent: 50,
            clear_policies: 64,
            replay_window_packets: 65_536,
            frame_bytes: 9_600,
        }
    }
}

impl Default for FirmwareParameters {
    fn default() -> Self {
        FirmwareParameters { clock_hz: 250_000_000, access_cycles: 8, activation_cycles: 100 }
    }
}

impl Default for HostParameters {
    fn default() -> Self {
        HostParameters {
            burst_ns: 40,
            packet_ns: 4.0,
            register_write_ns: 20,
            poll_ns: 100,
            shadow_doorbells: false,
        }
    }
}

impl Default for Parameters {
    /// The preset for 100 Gb/s.
    fn default() -> Self {
        Parameters {
            mac: MacParameters::default(),
            pipeline: PipelineParameters::default(),
            crypto: CryptoParameters::default(),
            pcie: PcieParameters::default(),
            descriptors: DescriptorParameters::default(),
            capacity: CapacityParameters::default(),
            firmware: FirmwareParameters::default(),
            host: HostParameters::default(),
        }
    }
}

/// Why parameters cannot be used.
#[derive(Debug, Error, PartialEq)]
pub enum ParameterError {
    /// There is no such preset.
    #[error("no preset `{0}`: there are 25g, 100g, 200g and 400g")]
    NoPreset(String),
    /// The text does not parse, or a key is unknown; the message names line and column.
    #[error("{0}")]
    Syntax(String),
    /// `--set` without `=`, or with a value that is not one.
    #[error("`{0}` is not of the form section.knob=value")]
    Setting(String),
    /// A value out of range.
    #[error("{knob} = {value}: {rule}")]
    Range {
        /// The knob, as `section.knob`.
        knob: &'static str,
        /// Its value.
        value: String,
        /// What it must be.
        rule: &'static str,
    },
}

impl Parameters {
    /// The names of the presets.
    pub const PRESETS: [&'static str; 4] = ["25g", "100g", "200g", "400g"];

    /// A preset by its name.
    pub fn preset(name: &str) -> Result<Parameters, ParameterError> {
        let mut parameters = Parameters::default();
        match name {
            "25g" => {
                parameters.mac.rate_gbps = 25;
                parameters.crypto.lanes = 1;
                parameters.capacity.sa_slots = 1024;
                parameters.pcie.generation = 3;
                parameters.pcie.lanes = 8;
            }
            "100g" => {}
            "200g" => {
                parameters.mac.rate_gbps = 200;
                parameters.mac.transmit_buffer_bytes = 1 << 17;
                parameters.pipeline.bus_bytes = 128;
                parameters.crypto.lanes = 6;
                parameters.capacity.sa_slots = 4096;
                parameters.pcie.generation = 5;
                parameters.descriptors.transmit_prefetch = 256;
            }
            "400g" => {
                parameters.mac.rate_gbps = 400;
                parameters.mac.transmit_buffer_bytes = 1 << 18;
                parameters.pipeline.bus_bytes = 256;
                parameters.crypto.lanes = 12;
                parameters.capacity.sa_slots = 8192;
                parameters.pcie.generation = 5;
                parameters.pcie.read_tags = 768;
                parameters.pcie.completion_credit_bytes = 131_072;
                parameters.descriptors.transmit_prefetch = 256;
            }
            _ => return Err(ParameterError::NoPreset(name.to_owned())),
        }
        Ok(parameters)
    }

    /// These parameters with what `text` (TOML) says in their place. An unknown key is an error that names
    /// its line.
    pub fn with_toml(&self, text: &str) -> Result<Parameters, ParameterError> {
        toml::from_str::<Parameters>(text).map_err(|error| ParameterError::Syntax(error.to_string()))?;
        let changes: toml::Table =
            toml::from_str(text).map_err(|error| ParameterError::Syntax(error.to_string()))?;
        self.merged(changes)
    }

    /// These parameters with one knob set, from `section.knob=value`.
    pub fn with_setting(&self, setting: &str) -> Result<Parameters, ParameterError> {
        let bad = || ParameterError::Setting(setting.to_owned());
        let (name, value) = setting.split_once('=').ok_or_else(bad)?;
        let (section, knob) = name.trim().split_once('.').ok_or_else(bad)?;
        self.with_toml(&format!("[{section}]\n{knob} = {}\n", value.trim()))
    }

    fn merged(&self, changes: toml::Table) -> Result<Parameters, ParameterError> {
        let syntax = |error: &dyn std::fmt::Display| ParameterError::Syntax(error.to_string());
        let mut table = toml::Table::try_from(self).map_err(|error| syntax(&error))?;
        for (section, knobs) in changes {
            if let (Some(toml::Value::Table(into)), toml::Value::Table(from)) =
                (table.get_mut(&section), knobs)
            {
                into.extend(from);
            }
        }
        let parameters: Parameters = table.try_into().map_err(|error| syntax(&error))?;
        parameters.check()?;
        Ok(parameters)
    }

    /// Checks every range.
    pub fn check(&self) -> Result<(), ParameterError> {
        let in_range = |knob, value: u64, low: u64, high: u64, rule| {
            if (low..=high).contains(&value) {
                Ok(())
            } else {
                Err(ParameterError::Range { knob, value: value.to_string(), rule })
            }
        };
        in_range("mac.rate_gbps", self.mac.rate_gbps, 1, 1_600, "1 to 1600")?;
        in_range(
            "mac.receive_buffer_bytes",
            self.mac.receive_buffer_bytes,
            16_384,
            1 << 30,
            "16384 to 2^30",
        )?;
        in_range(
            "mac.transmit_buffer_bytes",
            self.mac.transmit_buffer_bytes,
            16_384,
            1 << 30,
            "16384 to 2^30",
        )?;
        in_range(
            "mac.segment_buffer_bytes",
            self.mac.segment_buffer_bytes,
            16_384,
            1 << 30,
            "16384 to 2^30",
        )?;
        for (knob, hertz) in
            [("pipeline.clock_hz", self.pipeline.clock_hz), ("firmware.clock_hz", self.firmware.clock_hz)]
        {
            if hertz == 0 || !TICKS_PER_SECOND.is_multiple_of(hertz) {
                return Err(ParameterError::Range {
                    knob,
                    value: hertz.to_string(),
                    rule: "must divide 33 × 10^12, so that a period is a whole number of ticks",
                });
            }
        }
        in_range("pipeline.bus_bytes", self.pipeline.bus_bytes, 8, 1_024, "8 to 1024")?;
        in_range("pipeline.parse_results", self.pipeline.parse_results, 1, 4_096, "1 to 4096")?;
        in_range("crypto.lanes", self.crypto.lanes, 1, 64, "1 to 64")?;
        in_range("pcie.generation", self.pcie.generation, 3, 5, "3 to 5")?;
        in_range("pcie.mps_bytes", self.pcie.mps_bytes, 128, 4_096, "128 to 4096")?;
        in_range("pcie.mrrs_bytes", self.pcie.mrrs_bytes, 128, 4_096, "128 to 4096")?;
        in_range("pcie.completion_bytes", self.pcie.completion_bytes, 64, 4_096, "64 to 4096")?;
        in_range("pcie.read_tags", self.pcie.read_tags, 32, 65_536, "32 to 65536")?;
        in_range(
            "pcie.completion_credit_bytes",
            self.pcie.completion_credit_bytes,
            16_384,
            1 << 30,
            "16384 to 2^30",
        )?;
        if ![1, 2, 4, 8, 16].contains(&self.pcie.lanes) {
            let value = self.pcie.lanes.to_string();
            return Err(ParameterError::Range { knob: "pcie.lanes", value, rule: "1, 2, 4, 8 or 16" });
        }
        in_range("descriptors.transmit_fetch", self.descriptors.transmit_fetch, 1, 64, "1 to 64")?;
        in_range(
            "descriptors.transmit_prefetch",
            self.descriptors.transmit_prefetch,
            1,
            65_536,
            "1 to 65536",
        )?;
        in_range("descriptors.receive_fetch", self.descriptors.receive_fetch, 1, 64, "1 to 64")?;
        in_range("descriptors.receive_prefetch", self.descriptors.receive_prefetch, 1, 65_536, "1 to 65536")?;
        in_range("descriptors.transmit_chain", self.descriptors.transmit_chain, 1, 255, "1 to 255")?;
        in_range("descriptors.receive_chain", self.descriptors.receive_chain, 1, 255, "1 to 255")?;
        in_range("capacity.queue_pairs", self.capacity.queue_pairs, 1, 64, "1 to 64")?;
        in_range("capacity.sa_slots", self.capacity.sa_slots, 1, 65_536, "1 to 65536")?;
        in_range(
            "capacity.sa_packet_slots_percent",
            self.capacity.sa_packet_slots_percent,
            0,
            100,
            "0 to 100",
        )?;
        let entries = self.crypto.derived_key_cache_entries;
        if entries != 0 && !((4..=1 << 20).contains(&entries) && entries.is_power_of_two()) {
            return Err(ParameterError::Range {
                knob: "crypto.derived_key_cache_entries",
                value: entries.to_string(),
                rule: "0, or a power of two from 4 to 2^20",
            });
        }
        in_range("crypto.psp_spis_per_key", self.crypto.psp_spis_per_key, 1, (1 << 31) - 1, "1 to 2^31 - 1")?;
        in_range("crypto.psp_epoch_ps", self.crypto.psp_epoch_ps, 0, 1 << 62, "0 to 2^62")?;
        in_range("capacity.clear_policies", self.capacity.clear_policies, 0, 1_024, "0 to 1024")?;
        in_range(
            "capacity.replay_window_packets",
            self.capacity.replay_window_packets,
            32,
            65_536,
            "32 to 65536",
        )?;
        for (knob, cycles) in [
            ("pipeline.commit_interval_cycles", self.pipeline.commit_interval_cycles),
            ("pipeline.stage_latency_cycles", self.pipeline.stage_latency_cycles),
            ("pipeline.lookup_latency_cycles", self.pipeline.lookup_latency_cycles),
            ("crypto.lane_latency_cycles", self.crypto.lane_latency_cycles),
            ("crypto.derivation_latency_cycles", self.crypto.derivation_latency_cycles),
            ("firmware.access_cycles", self.firmware.access_cycles),
            ("firmware.activation_cycles", self.firmware.activation_cycles),
        ] {
            in_range(knob, cycles, 0, 1_000_000, "0 to 10^6")?;
        }
        for (knob, nanoseconds) in [
            ("mac.latency_ns", self.mac.latency_ns),
            ("crypto.context_miss_ns", self.crypto.context_miss_ns),
            ("pcie.read_latency_ns", self.pcie.read_latency_ns),
            ("pcie.write_latency_ns", self.pcie.write_latency_ns),
            ("host.burst_ns", self.host.burst_ns),
            ("host.register_write_ns", self.host.register_write_ns),
            ("host.poll_ns", self.host.poll_ns),
        ] {
            in_range(knob, nanoseconds, 0, 1_000_000_000, "0 to 10^9")?;
        }
        for (knob, number) in [
            ("pcie.mps_bytes", self.pcie.mps_bytes),
            ("pcie.mrrs_bytes", self.pcie.mrrs_bytes),
            ("pipeline.parse_results", self.pipeline.parse_results),
        ] {
            if !number.is_power_of_two() {
                return Err(ParameterError::Range {
                    knob,
                    value: number.to_string(),
                    rule: "a power of two",
                });
            }
        }
        in_range("capacity.frame_bytes", self.capacity.frame_bytes, 1_518, 16_383, "1518 to 16383")?;
        if !(0.0..=1e6).contains(&self.host.packet_ns) {
            let value = self.host.packet_ns.to_string();
            return Err(ParameterError::Range { knob: "host.packet_ns", value, rule: "0 to 10^6" });
        }
        Ok(())
    }

    /// Checks what a clocked parser wants beside: its beats have 64 octets, its offsets 14 bits.
    pub(crate) fn check_clocked_parser(&self) -> Result<(), ParameterError> {
        let (bus_bytes, frame_bytes) = (self.pipeline.bus_bytes, self.capacity.frame_bytes);
        let range =
            |knob, value: u64, rule| Err(ParameterError::Range { knob, value: value.to_string(), rule });
        if bus_bytes != BEAT_OCTETS as u64 {
            return range("pipeline.bus_bytes", bus_bytes, "64 with a clocked parser");
        }
        if frame_bytes + MARGIN_BYTES > 16_383 {
            return range("capacity.frame_bytes", frame_bytes, "at most 16255 with a clocked parser");
        }
        Ok(())
    }

    /// One clock period of the pipeline.
    pub fn cycle(&self) -> Ticks {
        Ticks(TICKS_PER_SECOND / self.pipeline.clock_hz)
    }
}

const TICKS_PER_SECOND: u64 = 33_000_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_pass_their_own_check() {
        for name in Parameters::PRESETS {
            Parameters::preset(name).unwrap().check().unwrap();
        }
        assert_eq!(Parameters::preset("100g").unwrap().cycle(), Ticks(102_400));
    }

    #[test]
    fn an_unknown_key_names_its_line() {
        let error =
            Parameters::default().with_toml("[mac]\nrate_gbps = 50\n\n[pcie]\nlane = 8\n").unwrap_err();
        let ParameterError::Syntax(message) = error else { panic!("{error:?}") };
        assert!(message.contains("line 5") && message.contains("lane"), "{message}");
    }

    #[test]
    fn a_setting_changes_one_knob_and_nothing_else() {
        let parameters = Parameters::preset("200g").unwrap().with_setting("crypto.lanes=5").unwrap();
        assert_eq!(parameters.crypto.lanes, 5);
        assert_eq!(parameters.mac.rate_gbps, 200);
        assert!(Parameters::default().with_setting("crypto.lanes=0").is_err());
        assert!(Parameters::default().with_setting("pcie.mps_bytes=300").is_err());
        assert!(Parameters::default().with_setting("pcie.read_latency_ns=18446744073709552").is_err());
        assert!(Parameters::default().with_setting("lanes=1").is_err());
        for (entries, valid) in
            [(0, true), (2, false), (4, true), (24, false), (1 << 20, true), (1 << 21, false)]
        {
            let setting = format!("crypto.derived_key_cache_entries={entries}");
            assert_eq!(Parameters::default().with_setting(&setting).is_ok(), valid, "{setting}");
        }
        assert!(Parameters::default().with_setting("pipeline.clock_hz=450000000").is_err());
    }
}
