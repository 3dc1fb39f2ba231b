//! Rekeying without a gap: the new SAs are there before the old ones go.
//!
//! ```no_run
//! # use cryptonic_driver::{Error, Nic, SaConfiguration, SaHandle, SaPair};
//! # fn example(nic: &mut Nic, old: SaPair<SaHandle>, new: SaPair<SaConfiguration>) -> Result<(), Error> {
//! let replacement = nic.replace_sas(old, new)?;
//! // From here on packets are protected by `replacement.sas`. What was given to queues before still leaves by the old
//! // outbound SA, and the peer may still send by the old inbound SA …
//! if nic.has_peer_switched(&replacement)? {
//!     nic.finish_replacement(replacement)?; // … until it uses the new one, and the queues are through.
//! }
//! # Ok(())
//! # }
//! ```

use cryptonic_regs::admin::Direction;

use crate::{Error, Nic, SaConfiguration, SaHandle};

/// Something for each direction of a pair of SAs; either may be lacking.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SaPair<T> {
    /// Of the SA that protects.
    pub outbound: Option<T>,
    /// Of the SA that opens.
    pub inbound: Option<T>,
}

impl<T> SaPair<T> {
    /// Both directions.
    pub fn new(outbound: T, inbound: T) -> Self {
        SaPair { outbound: Some(outbound), inbound: Some(inbound) }
    }

    /// What there is, outbound first.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.outbound.iter().chain(&self.inbound)
    }
}

/// A pair of SAs that took the place of another.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "the old SAs stay in use until they are deleted"]
pub struct Replacement {
    /// The new SAs.
    pub sas: SaPair<SaHandle>,
    /// The old SAs, which protect what queues were given before and open what the peer still sends, until
    /// [`Nic::finish_replacement`], or until they are deleted.
    pub retired: SaPair<SaHandle>,
}

impl Nic {
    /// Puts new SAs in the place of old ones, in the same directions. The new ones come into use as one; the old ones stay,
    /// so that nothing that is under way is lost. A failure leaves everything as it was.
    pub fn replace_sas(
        &mut self,
        old: SaPair<SaHandle>,
        new: SaPair<SaConfiguration>,
    ) -> Result<Replacement, Error> {
        for (old, new, direction) in
            [(old.outbound, &new.outbound, Direction::Out), (old.inbound, &new.inbound, Direction::In)]
        {
            if old.is_some() != new.is_some() {
                return Err(Error::Argument("an SA is replaced by one of its direction"));
            }
            let of_old = old.map(|handle| self.installed(handle)).transpose()?.map(|sa| sa.direction);
            let of_new = new.as_ref().map(|sa| sa.direction);
            if [of_old, of_new].into_iter().flatten().any(|found| found != direction) {
                return Err(Error::Argument("an SA of a pair has the pair's direction"));
            }
        }
        let has_outbound = new.outbound.is_some();
        let mut installed =
            self.install_sas(new.outbound.into_iter().chain(new.inbound).collect())?.into_iter();
        let sas = SaPair {
            outbound: if has_outbound { installed.next() } else { None },
            inbound: installed.next(),
        };
        Ok(Replacement { sas, retired: old })
    }

    /// Whether a packet came in by the new inbound SA: the peer protects by it, and after what it may still have under
    /// way it needs the old one no more. Always so without an inbound SA.
    pub fn has_peer_switched(&mut self, replacement: &Replacement) -> Result<bool, Error> {
        match replacement.sas.inbound {
            Some(inbound) => Ok(self.query_sa(inbound)?.first_use_picoseconds.is_some()),
            None => Ok(true),
        }
    }

    /// Deletes the old SAs. Gives the new ones. Packets of the old outbound SA that the device has not begun by now end with
    /// [`crate::Status::StaleSa`] and their buffers come back: a caller that wants to lose none takes the completions of
    /// what it gave to its queues before the replacement first.
    pub fn finish_replacement(&mut self, replacement: Replacement) -> Result<SaPair<SaHandle>, Error> {
        for handle in replacement.retired.iter() {
            self.delete_sa(*handle)?;
        }
        Ok(replacement.sas)
    }
}
