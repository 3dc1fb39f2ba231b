//! What may change of an SA while it is installed: its name, its place in the file, which packets an outbound one takes.

use cryptonic_regs::admin::Direction;

use super::{Esp, Protocol, PspSa, Sa};

impl Sa {
    /// The first key of the file that says otherwise for `other`, which has the same identity, and that an SA which is
    /// installed cannot take over. How far the two are does not count.
    pub(crate) fn cannot_become(&self, other: &Sa) -> Option<&'static str> {
        let limits = |sa: &Sa| sa.lifetime.map(|lifetime| lifetime.limits);
        let differences = [
            (self.mode() != other.mode(), "mode"),
            (self.direction == Direction::In && self.selector != other.selector, "selector"),
            (limits(self) != limits(other), "lifetime"),
        ];
        let first = differences.iter().find(|(differs, _)| *differs).map(|(_, key)| *key);
        first.or_else(|| match (&self.protocol, &other.protocol) {
            (Protocol::Esp(one), Protocol::Esp(other)) => esp(one, other),
            (Protocol::Psp(one), Protocol::Psp(other)) => psp(one, other),
            _ => Some("protocol"),
        })
    }
}

fn esp(one: &Esp, other: &Esp) -> Option<&'static str> {
    let differences = [
        (one.cipher != other.cipher, "cipher"),
        (one.key.expose() != other.key.expose(), "key"),
        (one.salt.expose() != other.salt.expose(), "salt"),
        (one.icv_bytes != other.icv_bytes, "icv"),
        (one.implicit_iv != other.implicit_iv, "implicit_iv"),
        (one.esn != other.esn, "esn"),
        (one.replay_window != other.replay_window, "replay_window"),
        (one.outer != other.outer, "tunnel"),
        (one.encapsulation != other.encapsulation, "udp_encap"),
        (one.tfc_bytes != other.tfc_bytes, "tfc"),
        (one.protect_destination_options != other.protect_destination_options, "protect_destination_options"),
    ];
    differences.iter().find(|(differs, _)| *differs).map(|(_, key)| *key)
}

fn psp(one: &PspSa, other: &PspSa) -> Option<&'static str> {
    let differences = [
        (one.version != other.version, "version"),
        (one.key.expose() != other.key.expose(), "key"),
        (one.outer != other.outer, "tunnel"),
        (one.crypt_offset != other.crypt_offset, "crypt_offset"),
        (one.source_port != other.source_port, "src_port"),
        (one.virtualization_cookie != other.virtualization_cookie, "vc"),
        (one.sample != other.sample, "sample"),
        (one.drop != other.drop, "drop"),
    ];
    differences.iter().find(|(differs, _)| *differs).map(|(_, key)| *key)
}
