//! Rekeying without a gap: the new SAs are there before the old ones go.
//!
//! ```no_run
//! # use cryptonic_driver::{Error, Nic, SaConfiguration, SaHandle, SaPair};
//! # fn example(nic: &mut Nic, old: SaPair<SaHandle>, new: SaPair<SaConfiguration>) -> Result<(), Error> {
//! let replacement = nic.replace_sas(old, new)?;
//! // From here on packets are protected by `replacement.sas`. The peer may still send by the old inbound SA …
//! if nic.has_peer_switched(&replacement)? {
//!     nic.finish_replacement(replacement)?; // … until it uses the new one.
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
#[must_use = "the old inbound SA opens packets until it is deleted"]
pub struct Replacement {
    /// The new SAs.
    pub sas: SaPair<SaHandle>,
    /// The old inbound SA, which goes on opening packets until [`Nic::finish_replacement`], or until it is deleted.
    pub retired_inbound: Option<SaHandle>,
}

impl Nic {
    /// Puts new SAs in the place of old ones, in the same directions. The new ones come into use as one. Then the old
    /// outbound SA is deleted: when this returns nothing is protected by it any more, and packets of it that the device
    /// had not begun end with [`crate::Status::StaleSa`]. The old inbound SA stays.
    ///
    /// A failure leaves everything as it was, as far as the device still answers.
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
        if let Some(outbound) = old.outbound
            && let Err(error) = self.delete_sa(outbound)
        {
            for handle in sas.iter() {
                let _ = self.delete_sa(*handle);
            }
            return Err(error);
        }
        Ok(Replacement { sas, retired_inbound: old.inbound })
    }

    /// Whether a packet came in by the new inbound SA: the peer protects by it, and after what it may still have under
    /// way it needs the old one no more. Always so without an inbound SA.
    pub fn has_peer_switched(&mut self, replacement: &Replacement) -> Result<bool, Error> {
        match replacement.sas.inbound {
            Some(inbound) => Ok(self.query_sa(inbound)?.first_use_picoseconds.is_some()),
            None => Ok(true),
        }
    }

    /// Deletes the old inbound SA. Gives the new ones.
    pub fn finish_replacement(&mut self, replacement: Replacement) -> Result<SaPair<SaHandle>, Error> {
        if let Some(inbound) = replacement.retired_inbound {
            self.delete_sa(inbound)?;
        }
        Ok(replacement.sas)
    }
}
