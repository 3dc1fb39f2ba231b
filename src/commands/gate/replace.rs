//! An SA file that takes the place of another while packets go.

use cryptonic_driver::SaState;

use super::install::Installed;
use super::{Gate, Rules};
use crate::error::{Error, Result};
use crate::sa_file::{Protocol, Sa, SaFile};

/// What a replacement did.
pub(crate) struct Replaced {
    pub(crate) installed: usize,
    pub(crate) kept: usize,
    /// The SAs that are gone, as they were last.
    pub(crate) deleted: Vec<(Sa, Option<SaState>)>,
}

impl Gate {
    /// Takes another file: its new SAs are installed, then they are used in its order, then those it has no more are deleted.
    /// An SA of both files, by direction, protocol, SPI and destination, stays as it is, with its sequence. An error leaves
    /// everything as it was.
    pub(crate) fn replace(&mut self, file: SaFile) -> Result<Replaced> {
        let before = self.places_before(&file)?;
        self.stations.follow(&file, &mut self.clear)?;
        let new = self.install_new(&file, &before).or_else(|error| {
            self.stations.follow(&self.file, &mut self.clear)?;
            Err(error)
        })?;
        self.stations.settle();

        let installed = new.len();
        let mut new = new.into_iter();
        let mut old: Vec<Option<Installed>> =
            std::mem::take(&mut self.installed).into_iter().map(Some).collect();
        self.installed = before
            .iter()
            .filter_map(|place| match place {
                Some(index) => old.get_mut(*index).and_then(Option::take),
                None => new.next(),
            })
            .collect();
        self.rules = Rules::of(&file, self.rules.receives_psp);
        let old_file = std::mem::replace(&mut self.file, file);
        let mut deleted = Vec::new();
        for (sa, installed) in old_file.sas.into_iter().zip(old) {
            let Some(installed) = installed else { continue };
            let state = self.stations.state(&installed)?;
            self.stations.delete(&installed)?;
            deleted.push((sa, state));
        }
        Ok(Replaced { installed, kept: self.installed.len() - installed, deleted })
    }

    /// Which SA of before each one of a file is, if it is one.
    fn places_before(&self, file: &SaFile) -> Result<Vec<Option<usize>>> {
        let same_psp = match (&self.file.psp, &file.psp) {
            (None, None) => true,
            (Some(one), Some(other)) => one.is_same(other),
            _ => false,
        };
        if !same_psp {
            return Err(Error::at("[psp]", "cannot change while packets go; start anew with it"));
        }
        let mut places = Vec::with_capacity(file.sas.len());
        for sa in &file.sas {
            let place = self.file.sas.iter().position(|old| old.identity() == sa.identity());
            if let Some(old) = place.and_then(|place| self.file.sas.get(place))
                && let Some(key) = old.cannot_become(sa)
            {
                let message =
                    "is not as it was when this SA was installed, and an SA cannot change; take a new SPI";
                return Err(Error::at(sa.full_place(), format_args!("`{key}` {message}")));
            }
            places.push(place);
        }
        Ok(places)
    }

    /// Installs what is new, in the order of the file, or nothing.
    fn install_new(&mut self, file: &SaFile, before: &[Option<usize>]) -> Result<Vec<Installed>> {
        let new = || file.sas.iter().zip(before).filter(|(_, place)| place.is_none()).map(|(sa, _)| sa);
        // Those of ESP come last: one of PSP can be installed again after it was taken back, for its numbers are times.
        let mut psp = Vec::new();
        for sa in new().filter(|sa| matches!(sa.protocol, Protocol::Psp(_))) {
            match self.stations.install(sa) {
                Ok(installed) => psp.push(installed),
                Err(error) => return Err(self.take_back(psp, error)),
            }
        }
        let esp: Vec<_> = new()
            .filter_map(|sa| match &sa.protocol {
                Protocol::Esp(esp) => Some((sa, esp)),
                Protocol::Psp(_) => None,
            })
            .collect();
        let esp = match self.stations.install_esp(&esp) {
            Ok(installed) => installed,
            Err((some, error)) => return Err(self.take_back(psp.into_iter().chain(some), error)),
        };
        let (mut psp, mut esp) = (psp.into_iter(), esp.into_iter());
        let next = |sa: &Sa| match sa.protocol {
            Protocol::Esp(_) => esp.next(),
            Protocol::Psp(_) => psp.next(),
        };
        Ok(new().filter_map(next).collect())
    }

    /// Deletes what came before an error.
    fn take_back(&mut self, installed: impl IntoIterator<Item = Installed>, error: Error) -> Error {
        let deleted: Result<()> =
            installed.into_iter().try_for_each(|installed| self.stations.delete(&installed));
        deleted.err().unwrap_or(error)
    }
}
