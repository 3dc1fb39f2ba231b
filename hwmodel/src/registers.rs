//! The register file: BAR0, the doorbells of BAR2, the MSI-X table of BAR4.

use crate::Ticks;
use cryptonic_pci::host::Bar;
use cryptonic_regs::bar0::{self, DescriptorCapability, QueueControl};
use cryptonic_regs::rows::Value;
use cryptonic_regs::{CONTRACT_MAJOR, CONTRACT_MINOR, doorbell, events, psp_policy};

use crate::events::{RegisterData, RegisterWrite};
use crate::nic::Nic;
use crate::push::window_at;
use crate::queue::Announced;
use crate::shadow_doorbells::{RECEIVE, TRANSMIT};

/// What the model's descriptors and rings can do.
pub(crate) const DESCRIPTOR_CAPABILITY: DescriptorCapability = DescriptorCapability::new()
    .with_stride_32(true)
    .with_stride_64(true)
    .with_stride_128(true)
    .with_inline_data(true)
    .with_push_windows(true)
    .with_scatter_gather(true)
    .with_segmentation(true)
    .with_checksums(true)
    .with_receive_scatter(true)
    .with_completion_coalescing(true)
    .with_interrupt_moderation(true)
    .with_receive_scaling(true)
    .with_psp_preformatted(true);
/// The versions of PSP, one bit each.
const PSP_VERSIONS: u8 = 0b1111;
/// What [`bar0::DEVICE_KIND`] says of the model.
const KIND_MODEL: u16 = 1;
/// Base-2 logarithm of the most slots of a ring.
pub(crate) const RING_SLOTS_LOG2_MAX: u8 = 14;

impl Nic {
    /// A register read of the host.
    pub(crate) fn register_read(&mut self, bar: Bar, offset: u32) -> u32 {
        match bar {
            Bar::Bar0 => {
                // A 64-bit register is read low half first; that latches the high half.
                if let Some(value) = self.wide_register(offset) {
                    self.latched_high = (value >> 32) as u32;
                    return value as u32;
                }
                if offset % 8 == 4 && self.wide_register(offset - 4).is_some() {
                    return self.latched_high;
                }
                self.narrow_register(offset).unwrap_or_else(|| {
                    self.reserved_accesses += 1;
                    0
                })
            }
            Bar::Bar2 => 0,
            Bar::Bar4 => self.msix.read(offset),
        }
    }

    /// A write of the host arrives.
    pub(crate) fn posted_write(&mut self, write: &RegisterWrite) {
        match write.data {
            RegisterData::Word(value) => {
                self.register_write(write.bar, write.offset, value, write.issued_at);
            }
            RegisterData::Line { place, bytes } => {
                for index in 0..bytes / 4 {
                    let words = self.lines.words(place);
                    let word = words.and_then(|words| words.get(index as usize / 2).copied()).unwrap_or(0);
                    let value = (word >> (index % 2 * 32)) as u32;
                    self.register_write(write.bar, write.offset + index * 4, value, write.issued_at);
                }
                self.lines.give(Some(place));
            }
            RegisterData::Shadow { count, epoch } => {
                self.shadow_count(write.offset, count, epoch, write.issued_at);
            }
        }
    }

    /// 32 bits of a register write that the host issued at `issued_at`.
    pub(crate) fn register_write(&mut self, bar: Bar, offset: u32, value: u32, issued_at: Ticks) {
        match bar {
            Bar::Bar0 => self.bar0_write(offset, value),
            Bar::Bar2 => self.page_write(offset, value, issued_at),
            Bar::Bar4 => {
                if let Some(message) = self.msix.write(offset, value) {
                    self.send_message(message);
                }
            }
        }
    }

    fn wide_register(&self, offset: u32) -> Option<u64> {
        if let Some((queue, register)) = queue_register(offset) {
            let pair = self.queues.get(queue)?;
            return base_index(register).and_then(|index| pair.bases.get(index).copied());
        }
        Some(match offset {
            _ if offset == bar0::SERIAL.offset => self.serial,
            _ if offset == bar0::TIME_PICOSECONDS.offset => self.now_picoseconds(),
            // 02: locally administered; then the serial number.
            _ if offset == bar0::MAC_ADDRESS.offset => (self.serial & 0xff_ffff).swap_bytes() >> 16 | 0x02,
            _ if offset == bar0::ADMIN_COMMAND_BASE.offset => self.management.ring.base,
            _ if offset == bar0::ADMIN_COMPLETION_BASE.offset => self.management.completions.base,
            _ if offset == events::EVENT_RING_BASE.offset => self.event_ring.ring.base,
            _ if offset == psp_policy::PSP_EPOCH.offset => self.keys.epoch(),
            _ if (bar0::COUNTERS.offset..bar0::COUNTERS.offset + bar0::COUNTERS.stride).contains(&offset)
                && offset.is_multiple_of(8) =>
            {
                return self.counters.at(offset, self.memory.faults());
            }
            _ => return self.shadow.wide(offset),
        })
    }

    fn narrow_register(&mut self, offset: u32) -> Option<u32> {
        let capacity = &self.parameters.capacity;
        if let Some((queue, register)) = queue_register(offset) {
            let pair = self.queues.get(queue)?;
            return match register {
                _ if register == bar0::QUEUE_CONTROL.offset => Some(pair.control.into_bits()),
                _ if register == bar0::QUEUE_STATUS.offset => Some(pair.status.into_bits()),
                _ if register == bar0::INTERRUPT_MODERATION.offset => Some(pair.moderation.into_bits()),
                _ if register == bar0::COMPLETION_COALESCING.offset => Some(pair.coalescing.into_bits()),
                _ => None,
            };
        }
        if let Some(word) = block_table_word(offset, self.queues.len() as u32)
            .or_else(|| self.receive.scaling.read(offset))
            .or_else(|| self.psp_source_ports.read(offset))
            .or_else(|| self.life_register(offset))
            .or_else(|| self.shadow.narrow(offset))
        {
            return Some(word);
        }
        Some(match offset {
            _ if offset == bar0::MAGIC.offset => bar0::MAGIC_VALUE,
            _ if offset == bar0::CONTRACT_VERSION.offset => {
                bar0::ContractVersion::new().with_major(CONTRACT_MAJOR).with_minor(CONTRACT_MINOR).into_bits()
            }
            _ if offset == bar0::BLOCK_TABLE.offset => bar0::BlockTable::new()
                .with_offset(bar0::BLOCK_TABLE_OFFSET as u16)
                .with_entries(bar0::BLOCKS.len() as u8)
                .with_entry_bytes(bar0::BLOCK_TABLE_ENTRY_BYTES as u8)
                .into_bits(),
            _ if offset == bar0::DEVICE_KIND.offset => {
                bar0::DeviceKind::new().with_kind(KIND_MODEL).with_revision(1).into_bits()
            }
            _ if offset == bar0::QUEUE_CAPABILITY.offset => bar0::QueueCapability::new()
                .with_queue_pairs(self.queues.len() as u16)
                .with_ring_slots_log2_max(RING_SLOTS_LOG2_MAX)
                .with_vectors(self.msix.vectors() as u8)
                .into_bits(),
            _ if offset == bar0::DESCRIPTOR_CAPABILITY.offset => {
                DESCRIPTOR_CAPABILITY.with_shadow_doorbells(self.parameters.host.shadow_doorbells).into_bits()
            }
            _ if offset == bar0::CHAIN_CAPABILITY.offset => bar0::ChainCapability::new()
                .with_transmit_descriptors(self.parameters.descriptors.transmit_chain as u8)
                .with_receive_buffers(self.parameters.descriptors.receive_chain as u8)
                .with_clear_policies(capacity.clear_policies as u16)
                .into_bits(),
            _ if offset == bar0::SEGMENTED_BYTES_MAX.offset => self.segmented_bytes_max() as u32,
            _ if offset == bar0::ESP_UDP_PORT.offset => self.esp_udp_port.into_bits(),
            _ if offset == bar0::SECURITY_PROTOCOLS.offset => self.security_protocols.into_bits(),
            _ if offset == bar0::PROTOCOL_CAPABILITY.offset => bar0::ProtocolCapability::new()
                .with_esp(true)
                .with_psp(true)
                .with_esp_tunnel(true)
                .with_esp_transport(true)
                .with_psp_tunnel(true)
                .with_psp_transport(true)
                .with_esn(true)
                .with_mac_loopback(true)
                .with_psp_versions(PSP_VERSIONS)
                .with_esp_beet(true)
                .with_implicit_iv(true)
                .with_udp_encapsulation(true)
                .with_traffic_flow_confidentiality(true)
                .with_selectors(true)
                .with_psp_slot(true)
                .with_psp_cookie(true)
                .with_unmatched_to_host(true)
                .with_eesp_parser(true)
                .with_wespv2_parser(true)
                .into_bits(),
            _ if offset == bar0::CIPHER_CAPABILITY.offset => bar0::CipherCapability::new()
                .with_aes_gcm_128(true)
                .with_aes_gcm_192(true)
                .with_aes_gcm_256(true)
                .with_aes_gmac(true)
                .with_icv_8(true)
                .with_icv_12(true)
                .with_icv_16(true)
                .into_bits(),
            _ if offset == bar0::SA_SLOTS.offset => capacity.sa_slots as u32,
            _ if offset == bar0::SA_PACKET_SLOTS.offset => capacity.sa_packet_slots() as u32,
            _ if offset == bar0::LIFE_CAPABILITY.offset => bar0::LifeCapability::new()
                .with_events(true)
                .with_psp_rotation(true)
                .with_psp_capture(true)
                .with_psp_sampling(true)
                .with_sa_batch(cryptonic_fw::SA_BATCH as u8)
                .with_event_slots_log2_max(events::EVENT_SLOTS_LOG2.1)
                .into_bits(),
            _ if offset == bar0::REPLAY_WINDOW_MAX.offset => capacity.replay_window_packets as u32,
            _ if offset == bar0::FRAME_BYTES_MAX.offset => capacity.frame_bytes as u32,
            _ if offset == bar0::LINE_RATE_MBPS.offset => self.parameters.mac.rate_gbps as u32 * 1_000,
            _ if offset == bar0::CONTROL.offset => self.control.into_bits(),
            _ if offset == bar0::DEVICE_STATUS.offset => bar0::DeviceStatus::new()
                .with_ready(self.management.ready)
                .with_firmware_running(self.management.running)
                .with_link_up(true)
                .with_keys_zeroised(self.keys_zeroised)
                .into_bits(),
            _ if offset == bar0::ADMIN_CONTROL.offset => self.management.control.into_bits(),
            _ if offset == bar0::ADMIN_STATUS.offset => self.management.status.into_bits(),
            _ if offset == bar0::PSP_CONTROL.offset => self.psp_control.into_bits(),
            _ if offset == bar0::PSP_KEY_STATUS.offset => {
                let [key_0_valid, key_1_valid] = self.keys.valid();
                bar0::PspKeyStatus::new()
                    .with_key_0_valid(key_0_valid)
                    .with_key_1_valid(key_1_valid)
                    .with_active(self.keys.active())
                    .with_test_load_locked(self.keys.locked())
                    .with_epoch_set(self.keys.epoch() != 0)
                    .with_epoch_refused(self.keys.epoch_refused())
                    .with_generation(self.keys.generation())
                    .into_bits()
            }
            _ if offset == bar0::PSP_SPI_REMAINING.offset => self.keys.remaining(),
            _ if offset == bar0::PSP_TEST_LOCK.offset => u32::from(self.keys.locked()),
            // Write-only registers read 0.
            _ if offset == bar0::ADMIN_DOORBELL.offset => 0,
            _ => return None,
        })
    }

    fn bar0_write(&mut self, offset: u32, value: u32) {
        // The high half of a 64-bit register is held until its low half is written.
        if offset % 8 == 4 && self.wide_register(offset - 4).is_some() {
            self.written_high = value;
            return;
        }
        let wide = u64::from(self.written_high) << 32 | u64::from(value);
        if let Some((queue, register)) = queue_register(offset) {
            if let (Some(index), Some(pair)) = (base_index(register), self.queues.get_mut(queue)) {
                if !pair.control.enable() {
                    pair.bases[index] = wide;
                }
            } else if register == bar0::QUEUE_CONTROL.offset {
                self.queue_control_write(queue as u16, QueueControl::of_bits(u64::from(value)));
            } else if register == bar0::INTERRUPT_MODERATION.offset {
                self.moderation_write(queue, value);
            } else if register == bar0::COMPLETION_COALESCING.offset {
                self.coalescing_write(queue, value);
            }
            return;
        }
        if self.receive.scaling.write(offset, value)
            || self.psp_source_ports.write(offset, value)
            || self.life_register_write(offset, value, wide)
            || self.shadow_register_write(offset, value, wide)
        {
            return;
        }
        match offset {
            _ if offset == bar0::CONTROL.offset => {
                let written = bar0::Control::from_bits(value);
                self.control = bar0::Control::new()
                    .with_enable(written.enable())
                    .with_mac_loopback(written.mac_loopback())
                    .with_unmatched_to_host(written.unmatched_to_host());
                self.fetch_transmit();
            }
            _ if offset == bar0::ESP_UDP_PORT.offset => {
                let port = bar0::EspUdpPort::from_bits(value).port();
                self.esp_udp_port = bar0::EspUdpPort::new().with_port(port);
                self.parser_registers_written();
            }
            _ if offset == bar0::SECURITY_PROTOCOLS.offset => {
                let written = bar0::SecurityProtocols::from_bits(value);
                self.security_protocols = bar0::SecurityProtocols::new()
                    .with_eesp_protocol(written.eesp_protocol())
                    .with_wespv2_protocol(written.wespv2_protocol())
                    .with_eesp_in_udp(written.eesp_in_udp());
                self.parser_registers_written();
            }
            _ if offset == bar0::ADMIN_CONTROL.offset => {
                self.admin_control_write(bar0::AdminControl::from_bits(value));
            }
            _ if offset == bar0::ADMIN_COMMAND_BASE.offset => {
                if !self.management.control.enable() {
                    self.management.ring.base = wide;
                }
            }
            _ if offset == bar0::ADMIN_COMPLETION_BASE.offset => {
                if !self.management.control.enable() {
                    self.management.completions.base = wide;
                }
            }
            _ if offset == bar0::ADMIN_DOORBELL.offset => self.admin_doorbell(value),
            _ if offset == bar0::PSP_CONTROL.offset => {
                let written = bar0::PspControl::from_bits(value);
                self.psp_control = bar0::PspControl::new()
                    .with_receive_versions(written.receive_versions() & PSP_VERSIONS)
                    .with_udp_port(written.udp_port());
                self.parser_registers_written();
            }
            _ if offset == bar0::PSP_TEST_LOCK.offset => {
                if value & 1 == 1 {
                    self.keys.lock();
                }
            }
            _ => self.reserved_accesses += 1,
        }
    }

    fn queue_control_write(&mut self, queue: u16, control: QueueControl) {
        let Some(pair) = self.queues.get_mut(usize::from(queue)) else { return };
        let was_on = pair.control.enable();
        if control.enable() == was_on {
            // Only the clear-allowed bit and the vector may change while the pair is on.
            if was_on {
                pair.control.set_transmit_clear_allowed(control.transmit_clear_allowed());
                pair.control.set_vector(control.vector());
            } else {
                pair.control = control;
            }
            return;
        }
        if !control.enable() {
            self.forget_held(queue);
            self.queues[usize::from(queue)].disable();
            self.key_schedules.clear();
            self.transmit.key_schedules.clear();
            self.transmit.prefetched[usize::from(queue)] = 0;
            return;
        }
        pair.control = control;
        match pair.enable(RING_SLOTS_LOG2_MAX) {
            Ok(()) => self.begin_shadow(queue),
            Err(cause) => self.quarantine(queue, cause),
        }
    }

    /// A write to the page of a queue pair.
    fn page_write(&mut self, offset: u32, value: u32, issued_at: Ticks) {
        let queue = (offset / doorbell::DOORBELL_PAGE_BYTES) as u16;
        if self.queue_epoch(queue).is_none() {
            return;
        }
        let at = offset % doorbell::DOORBELL_PAGE_BYTES;
        match window_at(at) {
            Some((window, within)) => self.push_write(queue, window, within, value, issued_at),
            None => {
                self.doorbell_writes += 1;
                self.doorbell(queue, at, value, issued_at);
            }
        }
    }

    /// A doorbell of a queue pair that is on, by its offset in the page.
    pub(crate) fn doorbell(&mut self, queue: u16, at: u32, value: u32, issued_at: Ticks) {
        let Some(pair) = self.queues.get_mut(usize::from(queue)) else { return };
        match at {
            _ if at == doorbell::TRANSMIT_DOORBELL.offset => {
                if pair.shadow.takes(TRANSMIT, value, pair.transmit.producer) {
                    self.transmit_doorbell(queue, value, issued_at);
                }
            }
            _ if at == doorbell::RECEIVE_DOORBELL.offset => {
                if !pair.shadow.takes(RECEIVE, value, pair.receive.producer) {
                    return;
                }
                match pair.receive.doorbell(value) {
                    Ok(()) => self.fetch_receive(queue),
                    Err(cause) => self.quarantine(queue, cause),
                }
            }
            _ if at == doorbell::INTERRUPT_ARM.offset => {
                pair.armed = true;
                // The host looked at its rings after it armed, which may have been before the last completion.
                if pair.shadow.arms(value) {
                    self.send_queue_interrupt(queue);
                }
            }
            _ => self.reserved_accesses += 1,
        }
    }

    /// The host says how far it has filled a transmit ring that is on.
    pub(crate) fn transmit_doorbell(&mut self, queue: u16, producer: u32, issued_at: Ticks) {
        let accepted_at = self.now;
        let Some(pair) = self.queues.get_mut(usize::from(queue)) else { return };
        match pair.transmit.doorbell(producer) {
            Ok(()) => {
                // One that announces nothing new is not remembered, or a host could fill the memory.
                let known = pair.doorbells.back().map_or(pair.transmit.fetched, |last| last.producer);
                if (1..=pair.transmit.slots).contains(&producer.wrapping_sub(known)) {
                    pair.doorbells.push_back(Announced { producer, accepted_at, issued_at });
                }
                self.transmit.announced |= 1 << queue;
                self.fetch_transmit();
            }
            Err(cause) => self.quarantine(queue, cause),
        }
    }
}

/// The queue pair and the register of its first instance that an offset names.
fn queue_register(offset: u32) -> Option<(usize, u32)> {
    let within = offset.checked_sub(bar0::QUEUE_PAIR.offset)?;
    let queue = within / bar0::QUEUE_PAIR_STRIDE;
    (queue < bar0::QUEUE_PAIRS_MAX)
        .then(|| (queue as usize, bar0::QUEUE_PAIR.offset + within % bar0::QUEUE_PAIR_STRIDE))
}

/// Which base register of a queue pair it is.
fn base_index(register: u32) -> Option<usize> {
    let bases = [
        bar0::TRANSMIT_RING_BASE.offset,
        bar0::TRANSMIT_COMPLETION_BASE.offset,
        bar0::RECEIVE_RING_BASE.offset,
        bar0::RECEIVE_COMPLETION_BASE.offset,
    ];
    bases.iter().position(|base| *base == register)
}

fn block_table_word(offset: u32, queue_pairs: u32) -> Option<u32> {
    let within = offset.checked_sub(bar0::BLOCK_TABLE_OFFSET)?;
    let block = bar0::BLOCKS.get((within / bar0::BLOCK_TABLE_ENTRY_BYTES) as usize)?;
    let instances = if block.kind == bar0::QUEUE_PAIR.kind { queue_pairs } else { 1 };
    Some(match within % bar0::BLOCK_TABLE_ENTRY_BYTES {
        0 => u32::from(block.version) << 16 | u32::from(block.kind),
        4 => block.offset,
        8 => instances,
        _ => block.stride,
    })
}
