//! Which keys were in use, and up to which sequence number.

use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::rc::Rc;

use cryptonic_regs::admin::Direction;
use siphasher::sip128::{Hasher128, SipHasher24};

use crate::{Error, SecretKey};

/// Remembers keys that were installed, by a keyed hash and never by themselves, so that none is used twice
/// from the same sequence number on. Clones share what they remember: a ledger that outlives a
/// [`crate::Nic`] carries the rule over to the next one.
#[derive(Clone)]
pub struct KeyLedger(Rc<RefCell<Inner>>);

struct Inner {
    hash_key: (u64, u64),
    entries: HashMap<Fingerprint, Entry>,
}

/// What stands for a key and a direction.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Fingerprint(u128);

#[derive(Clone, Copy)]
enum Entry {
    InUse,
    /// May start again at this sequence or above; `None`: never.
    Retired {
        lowest: Option<u64>,
    },
}

impl KeyLedger {
    /// An empty ledger.
    pub fn new() -> Self {
        let random = || RandomState::new().build_hasher().finish();
        KeyLedger(Rc::new(RefCell::new(Inner { hash_key: (random(), random()), entries: HashMap::new() })))
    }

    /// Takes a key into use from `sequence` on, or says why not.
    pub(crate) fn claim(&self, direction: Direction, key: &SecretKey, sequence: u64) -> Result<Claim, Error> {
        let mut inner = self.0.borrow_mut();
        let mut hasher = SipHasher24::new_with_keys(inner.hash_key.0, inner.hash_key.1);
        hasher.write_u32(direction.number());
        hasher.write(key.expose());
        let fingerprint = Fingerprint(hasher.finish128().as_u128());
        let before = inner.entries.get(&fingerprint).copied();
        match before {
            Some(Entry::InUse) => return Err(Error::KeyInUse),
            Some(Entry::Retired { lowest }) if lowest.is_none_or(|lowest| sequence < lowest) => {
                return Err(Error::KeyReused { lowest });
            }
            _ => {}
        }
        inner.entries.insert(fingerprint, Entry::InUse);
        Ok(Claim { fingerprint, before })
    }

    /// Undoes a claim: the key reached no device.
    pub(crate) fn undo(&self, claim: Claim) {
        let entries = &mut self.0.borrow_mut().entries;
        match claim.before {
            Some(before) => entries.insert(claim.fingerprint, before),
            None => entries.remove(&claim.fingerprint),
        };
    }

    /// The key is in use no more; it may start again at `lowest`, or never.
    pub(crate) fn retire(&self, fingerprint: Fingerprint, lowest: Option<u64>) {
        self.0.borrow_mut().entries.insert(fingerprint, Entry::Retired { lowest });
    }
}

impl Default for KeyLedger {
    fn default() -> Self {
        KeyLedger::new()
    }
}

impl fmt::Debug for KeyLedger {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "KeyLedger({} keys)", self.0.borrow().entries.len())
    }
}

/// A key taken into use.
pub(crate) struct Claim {
    pub(crate) fingerprint: Fingerprint,
    before: Option<Entry>,
}

impl Claim {
    /// Whether the key was never in use before.
    pub(crate) fn is_first(&self) -> bool {
        self.before.is_none()
    }
}
