//! Soft limits that are drawn, and which pair is due.

mod fake;

use cryptonic_driver::rekey::{Due, Margins, Policy, Rekeyer, Role};
use cryptonic_driver::{
    Cipher, Direction, Event, EventCause, Lifetime, LifetimeKind, Mode, Nic, OpenOptions, SaConfiguration,
    SaPair, SecretKey,
};
use proptest::prelude::{any, prop_assert, proptest};

const POLICIES: [Policy; 6] = [
    Policy { margins: Margins::CountBased, role: Role::Initiator },
    Policy { margins: Margins::CountBased, role: Role::Responder },
    Policy { margins: Margins::Libreswan, role: Role::Initiator },
    Policy { margins: Margins::Libreswan, role: Role::Responder },
    Policy { margins: Margins::StrongSwan, role: Role::Initiator },
    Policy { margins: Margins::StrongSwan, role: Role::Responder },
];

#[test]
fn shares_are_those_of_the_sources() {
    // Of a hard limit of 11 million: the lowest, and the highest, that can be drawn.
    let hard = 11_000_000;
    let expected = [
        (8_800_000, 9_350_000),
        (10_450_001, 10_999_999),
        (2_750_000, 3_437_500),
        (4_812_500, 5_500_000),
        (9_000_000, 10_000_000),
        (9_000_000, 10_000_000),
    ];
    for (policy, (lowest, highest)) in POLICIES.iter().zip(expected) {
        let mut ends = [0, u64::MAX].map(|random| policy.soft_limit(hard, || random).unwrap());
        ends.sort();
        assert_eq!(ends, [lowest, highest], "{policy:?}");
    }
    // Libreswan draws nothing below 16384.
    assert_eq!(POLICIES[2].soft_limit(16_383, || u64::MAX), Some(4_095));
    assert_eq!(POLICIES[2].soft_limit(16_384, || u64::MAX), Some(5_120));
    for policy in POLICIES {
        assert_eq!((policy.soft_limit(0, || 0), policy.soft_limit(1, || 0)), (None, None));
        let lifetime = policy.lifetime(LifetimeKind::Bytes, 2, || 7);
        assert_eq!(lifetime, Lifetime::bytes(Some(1), Some(2)));
    }
}

proptest! {
    #[test]
    fn a_soft_limit_is_always_below_the_hard_one(hard: u64, small in 2..100_000_u64, random: u64, which in 0..6_usize) {
        for hard in [hard.max(2), small] {
            let soft = POLICIES[which].soft_limit(hard, || random).unwrap();
            prop_assert!(soft > 0 && soft < hard, "{:?}: {soft} of {hard}", POLICIES[which]);
        }
    }

    #[test]
    fn the_initiator_comes_first(hard in 1_000..=u64::MAX, randoms in any::<[u64; 2]>()) {
        for roles in [&POLICIES[0..2], &POLICIES[2..4]] {
            let first = roles[0].soft_limit(hard, || randoms[0]).unwrap();
            let second = roles[1].soft_limit(hard, || randoms[1]).unwrap();
            prop_assert!(first < second, "{first} {second} of {hard}");
        }
    }
}

#[test]
fn a_pair_is_due_once_until_it_is_replaced() {
    let fake = fake::Fake::new();
    let mut nic = Nic::open(fake.host(), OpenOptions::default()).unwrap();
    let sa = |number: u8| {
        let direction = if number.is_multiple_of(2) { Direction::Out } else { Direction::In };
        let key = SecretKey::new(&[number; 16]).unwrap();
        SaConfiguration::new(direction, Mode::Transport, Cipher::AesGcm128, key, [0; 4], 0x1001)
    };
    let handles = nic.install_sas((0..4).map(sa).collect()).unwrap();
    let [old, new] = [0, 2].map(|first| SaPair::new(handles[first], handles[first + 1]));
    let event = |cause, sa| Event { cause, sa, cookie: 0, spi: 0, record: None };
    let (soft, hard) = (EventCause::SoftPackets, EventCause::HardPackets);

    let mut rekeyer = Rekeyer::new();
    rekeyer.watch("east", old);
    // What is no reason, or of no pair, is none.
    assert_eq!(rekeyer.take(&event(EventCause::IcvFailures, old.inbound)), None);
    assert_eq!(rekeyer.take(&event(EventCause::PspSpiLow, None)), None);
    assert_eq!(rekeyer.take(&event(soft, new.inbound)), None);
    // Both directions reach their limits: one rekeying.
    let due = |expired| Some(Due { name: "east", expired });
    assert_eq!(rekeyer.take(&event(soft, old.outbound)), due(false));
    assert_eq!(rekeyer.take(&event(soft, old.inbound)), None);
    assert_eq!(rekeyer.take(&event(EventCause::SequenceSoft, old.outbound)), None);
    // That it came too late is news, once.
    assert_eq!(rekeyer.take(&event(hard, old.outbound)), due(true));
    assert_eq!(rekeyer.take(&event(hard, old.inbound)), None);
    assert_eq!(rekeyer.take(&event(soft, old.inbound)), None);
    // A failed attempt is made again.
    rekeyer.retry("east");
    assert_eq!(rekeyer.take(&event(hard, old.inbound)), due(true));
    // Replaced: the old ones are heard no more, the new ones are.
    rekeyer.watch("east", new);
    assert_eq!(rekeyer.take(&event(hard, old.inbound)), None);
    assert_eq!(rekeyer.take(&event(EventCause::SoftBytes, new.inbound)), due(false));
    rekeyer.forget("east");
    assert_eq!(rekeyer.take(&event(hard, new.inbound)), None);
}
