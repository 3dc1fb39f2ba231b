//! What a device lacks for what is asked of it: everything, not only the first thing.

use std::borrow::Cow;
use std::fmt;

use cryptonic_regs::admin::{Cipher, Direction, LifetimeKind, Mode};

use crate::sa_configuration::is_gmac;
use crate::transmit::{InlinePolicy, PushPolicy};
use crate::{Capabilities, PspSaConfiguration, QueuePairOptions, SaConfiguration};

/// What a device does not support.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsupported(Vec<Cow<'static, str>>);

impl Unsupported {
    pub(crate) fn one(what: &'static str) -> Self {
        Unsupported(vec![what.into()])
    }

    /// A sentence for each thing, without a full stop.
    pub fn sentences(&self) -> impl Iterator<Item = String> + '_ {
        self.0.iter().map(|what| format!("the device does not support {what}"))
    }
}

impl fmt::Display for Unsupported {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "the device does not support {}", self.0.join("; "))
    }
}

impl std::error::Error for Unsupported {}

/// What is lacking so far.
#[derive(Default)]
struct Lacking(Vec<Cow<'static, str>>);

impl Lacking {
    fn unless(&mut self, able: bool, what: impl Into<Cow<'static, str>>) {
        let what = what.into();
        if !able && !self.0.contains(&what) {
            self.0.push(what);
        }
    }

    fn result(self) -> Result<(), Unsupported> {
        if self.0.is_empty() { Ok(()) } else { Err(Unsupported(self.0)) }
    }
}

impl Capabilities {
    /// Whether the device can do what an SA needs; if not, everything that it lacks.
    pub fn supports(&self, sa: &SaConfiguration) -> Result<(), Unsupported> {
        let (protocol, cipher) = (self.protocol, self.cipher);
        let mut lacking = Lacking::default();
        lacking.unless(protocol.esp(), "ESP");
        match sa.mode {
            Mode::Tunnel => lacking.unless(protocol.esp_tunnel(), "ESP in tunnel mode"),
            Mode::Transport => lacking.unless(protocol.esp_transport(), "ESP in transport mode"),
            Mode::Beet => lacking.unless(protocol.esp_beet(), "ESP in BEET mode"),
        }
        match sa.cipher {
            _ if is_gmac(sa.cipher) => lacking.unless(cipher.aes_gmac(), "AES-GMAC"),
            Cipher::AesGcm128 => lacking.unless(cipher.aes_gcm_128(), "AES-GCM with a 128-bit key"),
            Cipher::AesGcm192 => lacking.unless(cipher.aes_gcm_192(), "AES-GCM with a 192-bit key"),
            _ => lacking.unless(cipher.aes_gcm_256(), "AES-GCM with a 256-bit key"),
        }
        match sa.icv_bytes {
            8 => lacking.unless(cipher.icv_8(), "an ICV of 8 bytes"),
            12 => lacking.unless(cipher.icv_12(), "an ICV of 12 bytes"),
            _ => lacking.unless(cipher.icv_16(), "an ICV of 16 bytes"),
        }
        lacking.unless(protocol.esn() || !sa.esn, "extended sequence numbers");
        lacking.unless(protocol.implicit_iv() || !sa.implicit_iv, "implicit IVs");
        lacking.unless(protocol.udp_encapsulation() || sa.encapsulation.is_none(), "ESP in UDP");
        lacking.unless(
            protocol.traffic_flow_confidentiality() || sa.tfc_bytes == 0,
            "padding for traffic flow confidentiality",
        );
        let selects = sa.check_selector || sa.refuse_clear;
        lacking.unless(protocol.selectors() || !selects, "selectors of inbound SAs");
        lacking.unless(self.descriptor.receive_scaling() || !sa.receive_scaling, "receive scaling");
        self.supports_kind(&mut lacking, sa.lifetime.kind);
        if sa.direction == Direction::In {
            lacking.unless(
                sa.replay_window <= self.replay_window_max,
                format!("a replay window of more than {} packets", self.replay_window_max),
            );
            let queue_pairs = self.queue.queue_pairs();
            lacking.unless(
                sa.receive_scaling || sa.receive_queue < queue_pairs,
                format!("more than {queue_pairs} queue pairs"),
            );
        }
        lacking.result()
    }

    /// Whether the device can do what a PSP SA needs; if not, everything that it lacks.
    pub fn supports_psp(&self, sa: &PspSaConfiguration) -> Result<(), Unsupported> {
        let mut lacking = Lacking::default();
        self.supports_psp_of(&mut lacking, sa.version, sa.mode, sa.virtualization_cookie.is_some());
        lacking.unless(self.protocol.psp_slot(), "PSP keys in SA slots");
        self.supports_kind(&mut lacking, sa.lifetime.kind);
        lacking.result()
    }

    /// Whether the device can protect by a PSP key in the descriptor, and open what another protected by one that it
    /// allocated; if not, everything that it lacks.
    pub fn supports_psp_key(&self, version: u8, cookie: bool) -> Result<(), Unsupported> {
        let mut lacking = Lacking::default();
        self.supports_psp_of(&mut lacking, version, Mode::Transport, cookie);
        lacking.result()
    }

    fn supports_psp_of(&self, lacking: &mut Lacking, version: u8, mode: Mode, cookie: bool) {
        let protocol = self.protocol;
        lacking.unless(protocol.psp(), "PSP");
        let known = version <= 3 && protocol.psp_versions() & 1 << version != 0;
        lacking.unless(known, format!("version {version} of PSP"));
        match mode {
            Mode::Tunnel => lacking.unless(protocol.psp_tunnel(), "PSP in tunnel mode"),
            Mode::Transport | Mode::Beet => {
                lacking.unless(protocol.psp_transport(), "PSP in transport mode");
            }
        }
        lacking.unless(protocol.psp_cookie() || !cookie, "PSP cookies");
    }

    fn supports_kind(&self, lacking: &mut Lacking, kind: LifetimeKind) {
        let what = match kind {
            LifetimeKind::Packets => "SAs whose limits count packets",
            LifetimeKind::Bytes => "SAs whose limits count bytes",
        };
        lacking.unless(!self.sa_slots_of(kind).is_empty(), what);
    }

    /// Whether the device can do what a queue pair needs; if not, everything that it lacks.
    pub fn supports_queue(&self, options: &QueuePairOptions) -> Result<(), Unsupported> {
        let (queue, descriptor) = (self.queue, self.descriptor);
        let mut lacking = Lacking::default();
        let slots_max = 1 << queue.ring_slots_log2_max();
        let slots = options.transmit_slots.max(options.receive_slots);
        lacking.unless(slots <= slots_max, format!("a ring of more than {slots_max} slots"));
        match options.stride {
            32 => lacking.unless(descriptor.stride_32(), "transmit descriptors of stride 32"),
            64 => lacking.unless(descriptor.stride_64(), "transmit descriptors of stride 64"),
            128 => lacking.unless(descriptor.stride_128(), "transmit descriptors of stride 128"),
            other => lacking.unless(false, format!("transmit descriptors of stride {other}")),
        }
        let vectors = queue.vectors();
        lacking.unless(
            options.vector.is_none_or(|vector| vector < vectors),
            format!("more than {vectors} MSI-X vectors"),
        );
        let asks_hold = options.completion_hold_ns != 0 || options.completion_batch > 1;
        let asks_delay = options.interrupt_delay_ns != 0 || options.interrupt_completions > 1;
        for (able, what) in [
            (descriptor.inline_data() || options.inline == InlinePolicy::Never, "inline data in descriptors"),
            (descriptor.push_windows() || options.push == PushPolicy::Never, "push windows"),
            (descriptor.receive_scatter() || !options.receive_scatter, "frames over several receive buffers"),
            (
                descriptor.completion_coalescing() || !asks_hold,
                "receive completions that wait for one another",
            ),
            (descriptor.interrupt_moderation() || !asks_delay, "interrupts that wait for more completions"),
        ] {
            lacking.unless(able, what);
        }
        lacking.result()
    }
}
