//! Where received packets go, and the ports that tell protected ones.

use cryptonic_regs::Register;
use cryptonic_regs::bar0::{
    ESP_UDP_PORT, EspUdpPort, PSP_SOURCE_PORTS, PspSourcePorts, RECEIVE_SCALING, RECEIVE_SCALING_KEY,
    RECEIVE_SCALING_TABLE, ReceiveScaling, ReceiveScalingEntries,
};

use crate::support::Unsupported;
use crate::{Error, Nic};

/// Most entries of the table of receive scaling.
const TABLE_ENTRIES_MAX: usize = 128;

/// What the hash of receive scaling covers beside both addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceiveScalingOptions {
    /// TCP ports.
    pub tcp_ports: bool,
    /// UDP ports.
    pub udp_ports: bool,
    /// Packets of ESP and PSP that were not opened are hashed by their SPI.
    pub spi: bool,
}

impl Default for ReceiveScalingOptions {
    fn default() -> Self {
        ReceiveScalingOptions { tcp_ports: true, udp_ports: true, spi: true }
    }
}

impl Nic {
    /// Spreads packets that no SA has a queue for over queue pairs: the Toeplitz hash with this key, modulo the
    /// length of the table, chooses the table's entry. The table has 1, 2, 4, … or 128 entries.
    pub fn configure_receive_scaling(
        &mut self,
        key: &[u8; 40],
        table: &[u8],
        options: ReceiveScalingOptions,
    ) -> Result<(), Error> {
        self.alive()?;
        if !self.information.capabilities.descriptor.receive_scaling() {
            return Err(Unsupported::one("receive scaling").into());
        }
        if !table.len().is_power_of_two() || table.len() > TABLE_ENTRIES_MAX {
            return Err(Error::Argument(
                "a table of receive scaling has a power of two of entries, 1 to 128",
            ));
        }
        let queue_pairs = self.information.capabilities.queue.queue_pairs();
        if table.iter().any(|queue| u16::from(*queue) >= queue_pairs) {
            return Err(Error::Argument("a table of receive scaling names queue pairs of the device"));
        }
        // Off while key and table are half written: a packet is never hashed by a mixture.
        self.shared.write(RECEIVE_SCALING, ReceiveScaling::new())?;
        for (index, word) in key.as_chunks::<4>().0.iter().enumerate() {
            self.shared.write(RECEIVE_SCALING_KEY.instance(index as u32, 4), u32::from_le_bytes(*word))?;
        }
        for (index, entries) in table.chunks(4).enumerate() {
            let entry = |place: usize| entries.get(place).copied().unwrap_or(0);
            let word = ReceiveScalingEntries::new()
                .with_queue_0(entry(0))
                .with_queue_1(entry(1))
                .with_queue_2(entry(2))
                .with_queue_3(entry(3));
            self.shared.write(RECEIVE_SCALING_TABLE.instance(index as u32, 4), word)?;
        }
        let scaling = ReceiveScaling::new()
            .with_enable(true)
            .with_tcp_ports(options.tcp_ports)
            .with_udp_ports(options.udp_ports)
            .with_spi(options.spi)
            .with_table_log2(table.len().ilog2() as u8);
        self.write_and_read_back(RECEIVE_SCALING, scaling)
    }

    /// Packets that no SA has a queue for go to queue pair 0 again.
    pub fn stop_receive_scaling(&mut self) -> Result<(), Error> {
        self.alive()?;
        self.write_and_read_back(RECEIVE_SCALING, ReceiveScaling::new())
    }

    /// The UDP destination port of received ESP in UDP; `None` turns that off. 4500 after opening.
    pub fn set_esp_udp_port(&mut self, port: Option<u16>) -> Result<(), Error> {
        self.alive()?;
        if !self.information.capabilities.protocol.udp_encapsulation() {
            return Err(Unsupported::one("ESP in UDP").into());
        }
        if port == Some(0) {
            return Err(Error::Argument("there is no UDP port 0"));
        }
        self.write_and_read_back(ESP_UDP_PORT, EspUdpPort::new().with_port(port.unwrap_or(0)))
    }

    /// The UDP source ports among which [`crate::SourcePort::Table`] chooses.
    pub fn set_psp_source_ports(&mut self, ports: &[u16; 16]) -> Result<(), Error> {
        self.alive()?;
        if !self.information.capabilities.protocol.psp() {
            return Err(Unsupported::one("PSP").into());
        }
        for (index, [even, odd]) in ports.as_chunks::<2>().0.iter().enumerate() {
            let word = PspSourcePorts::new().with_even(*even).with_odd(*odd);
            self.write_and_read_back(PSP_SOURCE_PORTS.instance(index as u32, 4), word)?;
        }
        Ok(())
    }

    /// The write is posted; what is read back comes after it.
    pub(crate) fn write_and_read_back<T>(&self, register: Register<T>, value: T) -> Result<(), Error>
    where
        T: cryptonic_regs::Value + PartialEq,
    {
        self.shared.write(register, value)?;
        if self.shared.read(register)? == value {
            Ok(())
        } else {
            Err(Unsupported::one("a setting that it does not take").into())
        }
    }
}
