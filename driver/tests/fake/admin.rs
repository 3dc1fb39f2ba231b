//! The admin queue of the small device.

use cryptonic_regs::admin::{
    AdminCompletion, AdminCompletionEnd, AdminStatus, AllocatedSpi, CapabilityReply, Command, InstalledSa,
    LifetimeKind, Opcode, SaParameters, SaStateHead, SaStateReply, SaSticky, StatisticsReply,
};
use cryptonic_regs::bar0::{ADMIN_COMMAND_BASE, ADMIN_COMPLETION_BASE, ADMIN_CONTROL, AdminControl};

use super::{Device, PACKET_SLOT_COUNT, SA_SLOT_COUNT, Sa};

impl Device {
    pub(super) fn serve_admin(&mut self) {
        let control: AdminControl = self.register(ADMIN_CONTROL);
        let slots_log2 = u32::from(control.slots_log2());
        let slot = u64::from(self.admin_done & ((1 << slots_log2) - 1));
        let phase = (self.admin_done >> slots_log2) & 1 == 0;
        self.admin_done = self.admin_done.wrapping_add(1);
        let base = self.register(ADMIN_COMMAND_BASE);
        let Some(words) = self.words(base + slot * Command::BYTES as u64) else { return };
        let command = Command::of_words(&words);
        let (result, status) = match self.command(&command) {
            Ok(result) => (result, AdminStatus::Ok),
            Err(status) => (std::mem::take(&mut self.refused_record), status),
        };
        let end = AdminCompletionEnd::new()
            .with_identifier(command.head.identifier())
            .with_status(status.number() as u16)
            .with_phase(phase);
        let mut completion = AdminCompletion { result, end };
        if let Some(hook) = &mut self.on_admin {
            hook(&mut completion);
        }
        let base = self.register(ADMIN_COMPLETION_BASE);
        self.put_words(base + slot * 16, &completion.to_words());
    }

    fn command(&mut self, command: &Command) -> Result<u64, AdminStatus> {
        let (low, high) = (command.argument_0 as u32, (command.argument_0 >> 32) as u32);
        match Opcode::of_number(command.head.opcode().into()).ok_or(AdminStatus::UnknownOpcode)? {
            Opcode::Capabilities => {
                let reply = CapabilityReply {
                    spis_per_command: 3,
                    sa_slots: SA_SLOT_COUNT.into(),
                    firmware_version: 0x1_0002,
                    replay_window_max: 1024,
                };
                self.put_words(command.reply_address, &reply.to_words());
                Ok(0)
            }
            Opcode::Statistics => {
                let reply = StatisticsReply { commands: 42, ..StatisticsReply::default() };
                self.put_words(command.reply_address, &reply.to_words());
                Ok(0)
            }
            Opcode::SaInstall => {
                // All are looked at before one is put into its slot.
                let mut taken: Vec<(u32, SaParameters)> = Vec::new();
                for number in 0..command.argument_0 {
                    self.refused_record = number;
                    let at = command.parameter_address + number * SaParameters::BYTES as u64;
                    let words: [u64; SaParameters::WORDS] = self.words(at).ok_or(AdminStatus::BadAddress)?;
                    self.parameters.push(words.to_vec());
                    let parameters = SaParameters::of_words(&words);
                    let packets = u32::from(parameters.lifetime.kind()) == LifetimeKind::Packets.number();
                    let mut slots =
                        if packets { 0..PACKET_SLOT_COUNT } else { PACKET_SLOT_COUNT..SA_SLOT_COUNT };
                    let free = |index: &u32| {
                        !self.sas.contains_key(index) && taken.iter().all(|(other, _)| other != index)
                    };
                    let index = slots.find(free).ok_or(AdminStatus::NoFreeSlot)?;
                    taken.push((index, parameters));
                }
                for (number, (index, parameters)) in taken.into_iter().enumerate() {
                    self.next_generation += 1;
                    let sa = Sa {
                        generation: self.next_generation,
                        parameters,
                        sequence: parameters.sequence,
                        packets: parameters.packets,
                        bytes: parameters.bytes,
                        refused: 0,
                        arming: 0,
                        causes: 0,
                    };
                    self.sas.insert(index, sa);
                    let word = InstalledSa::new().with_index(index).with_generation(self.next_generation);
                    let mut reply = (number as u32, word);
                    if let Some(hook) = &mut self.on_installed {
                        hook(&mut reply);
                    }
                    let word = reply.1;
                    self.put_words(command.reply_address + number as u64 * 8, &[word.into_bits()]);
                }
                Ok(0)
            }
            Opcode::SaDelete => match self.sas.get(&low) {
                Some(sa) if sa.generation == high => {
                    self.sas.remove(&low);
                    Ok(0)
                }
                _ => Err(AdminStatus::NoSuchSa),
            },
            Opcode::SaArm => match self.sas.get_mut(&low) {
                Some(sa) if sa.generation == high => {
                    sa.arming = sa.arming.wrapping_add(1);
                    sa.causes &= !(1 << 1 | 1 << 3);
                    sa.parameters.soft_limit = command.argument_1;
                    sa.parameters.lifetime.set_no_soft_limit(false);
                    Ok(0)
                }
                _ => Err(AdminStatus::NoSuchSa),
            },
            Opcode::SaQuery => match self.sas.get(&low).cloned() {
                Some(sa) if sa.generation == high => {
                    let (form, lifetime) = (sa.parameters.form, sa.parameters.lifetime);
                    let head = SaStateHead::new()
                        .with_state(sa.state().number() as u8)
                        .with_direction(form.direction())
                        .with_protocol(form.protocol())
                        .with_kind(lifetime.kind())
                        .with_no_soft_limit(lifetime.no_soft_limit())
                        .with_no_hard_limit(lifetime.no_hard_limit())
                        .with_spi(sa.parameters.names.spi());
                    let mut reply = SaStateReply {
                        head,
                        sequence: sa.sequence,
                        packets: sa.packets,
                        bytes: sa.bytes,
                        soft_limit: sa.parameters.soft_limit,
                        hard_limit: sa.parameters.hard_limit,
                        refused: sa.refused,
                        sticky: SaSticky::new().with_causes(sa.causes).with_arming(sa.arming),
                        ..SaStateReply::default()
                    };
                    if let Some(hook) = &mut self.on_query {
                        hook(&mut reply);
                    }
                    self.put_words(command.reply_address, &reply.to_words());
                    Ok(0)
                }
                _ => Err(AdminStatus::NoSuchSa),
            },
            Opcode::PspAllocate => {
                for record in 0..u64::from(low) {
                    self.next_spi += 1;
                    let key_bytes = if high == 0 { 16 } else { 32 };
                    let head = AllocatedSpi::new().with_spi(self.next_spi).with_key_bytes(key_bytes);
                    let words = [head.into_bits(), 0x004b_4559, 0x004b_455a, 0, 0];
                    self.put_words(command.reply_address + record * 40, &words);
                }
                Ok(low.into())
            }
            Opcode::PspRotate => {
                self.generation += 1;
                Ok(self.generation.into())
            }
            Opcode::PspTestKeyLoad => {
                let words: [u64; 8] = self.words(command.parameter_address).ok_or(AdminStatus::BadAddress)?;
                self.parameters.push(words.to_vec());
                Ok(0)
            }
            Opcode::PspTestIvLoad => Err(AdminStatus::Locked),
        }
    }
}
