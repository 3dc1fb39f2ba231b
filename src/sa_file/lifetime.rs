//! The lifetime of an SA.

use std::fmt;

use cryptonic_driver::Lifetime;
use cryptonic_regs::admin::LifetimeKind;

use crate::error::Result;
use crate::toml_reader::Item;

/// When an SA ends, and how far it is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SaLifetime {
    pub(crate) limits: Lifetime,
    /// Packets or bytes, as the limits count, that its key was used for before.
    pub(crate) used: u64,
}

impl SaLifetime {
    /// Reads a lifetime.
    pub(crate) fn read(item: &Item<'_>) -> Result<SaLifetime> {
        let mut table = item.table()?;
        let kind_item = table.require("kind")?;
        let kind = kind_item.word(&[("count", LifetimeKind::Packets), ("bytes", LifetimeKind::Bytes)])?;
        let soft_item = table.take("soft");
        let limit = |item: &Item<'_>| item.number(1, u64::MAX);
        let soft = soft_item.as_ref().map(limit).transpose()?;
        let hard = table.take("hard").as_ref().map(limit).transpose()?;
        if let (Some(item), Some(soft), Some(hard)) = (&soft_item, soft, hard)
            && soft >= hard
        {
            return Err(item.error(format_args!("{soft} is not below the hard limit, {hard}")));
        }
        if soft.is_none() && hard.is_none() {
            return Err(item.error("has soft, hard or both"));
        }
        let mut used = 0;
        if let Some(item) = table.take("used") {
            used = item.number(0, u64::MAX)?;
            if let Some(hard) = hard.filter(|hard| used >= *hard) {
                return Err(item.error(format_args!("the SA has ended: its hard limit is {hard}")));
            }
        }
        table.finish()?;
        Ok(SaLifetime { limits: Lifetime { kind, soft, hard }, used })
    }

    /// Packets its key was used for before.
    pub(crate) fn packets(self) -> u64 {
        if self.limits.kind == LifetimeKind::Packets { self.used } else { 0 }
    }

    /// What its limits count, of both.
    pub(crate) fn count_of(self, packets: u64, bytes: u64) -> u64 {
        match self.limits.kind {
            LifetimeKind::Packets => packets,
            LifetimeKind::Bytes => bytes,
        }
    }

    /// Bytes its key was used for before.
    pub(crate) fn bytes(self) -> u64 {
        if self.limits.kind == LifetimeKind::Bytes { self.used } else { 0 }
    }
}

impl fmt::Display for SaLifetime {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} of ", self.used)?;
        match (self.limits.soft, self.limits.hard) {
            (Some(soft), Some(hard)) => write!(formatter, "{hard} (soft {soft})")?,
            (Some(soft), None) => write!(formatter, "soft {soft}")?,
            (None, hard) => write!(formatter, "{}", hard.unwrap_or(u64::MAX))?,
        }
        write!(formatter, " {} used", self.limits.kind.name())
    }
}
