//! The simulation against what can be computed with pencil and paper.

use super::accounts::State;
use super::parameters::{Parameters, Redundant};
use super::policy::{Margins, Policy, Unit};
use super::simulation::{Outcome, simulate};

const SECOND: u64 = 1_000_000_000;

/// One tunnel of 1 MB/s in one direction and nothing in the other, without bursts, loss or limits of the table.
fn quiet() -> Parameters {
    Parameters {
        tunnels: 1,
        slots: 1_000_000,
        end_ns: 10_000 * SECOND,
        warm_up_ns: 1_000 * SECOND,
        seed: 1,
        bytes_per_second: 1_000_000,
        skew: 0.0,
        asymmetry: 1.0,
        on_ns: 10 * SECOND,
        off_ns: 0,
        loss_millionths: 0,
        delay_ns: 0,
        rekey_ns: SECOND / 2,
        delete_ns: SECOND / 10,
        drain_ns: 5 * SECOND,
        retransmit_ns: SECOND,
        poll_ns: 0,
        lifetime_bytes: 100_000_000,
        lifetime_packets: 100_000,
        time_lifetime_ns: 3_600 * SECOND,
        redundant: Redundant::Close,
    }
}

fn bytes(margins: Margins) -> Policy {
    Policy { name: "test", unit: Unit::Bytes, margins, events: false }
}

fn assert_near(what: &str, found: f64, expected: f64, tolerance: f64) {
    assert!((found - expected).abs() <= tolerance, "{what}: {found}, not {expected} ± {tolerance}");
}

/// Of the pairs that were replaced, those that both peers replaced.
fn collision_share(outcome: &Outcome) -> f64 {
    let replaced = outcome.rekeys - outcome.redundant_sas / 2;
    outcome.simultaneous_rekeys as f64 / replaced as f64
}

#[test]
fn time_between_rekeys_and_slot_time_of_old_sas_are_those_of_a_constant_rate() {
    // Given a receiver that counts too late to rekey too
    let parameters = Parameters { delay_ns: SECOND, ..quiet() };
    // When the soft limit of 80 MB ends each pair, and traffic moves half a second later
    let outcome = simulate(&parameters, bytes(Margins::Equal));
    // Then a period is 80.5 s
    let periods = 9_000.0 / 80.5;
    assert_near("rekeys", outcome.rekeys as f64, periods, 1.0);
    assert_eq!((outcome.simultaneous_rekeys, outcome.packets_refused), (0, 0));
    // And in each the creator holds two new slots for half a second and the other for a quarter; two old ones go after 0.1 s, two
    // after 0.05 s, and of either end one of the two stays 5 s longer.
    let expected = [(State::SettingUp, 1.5), (State::Old, 0.3 + 10.0), (State::InUse, 4.0 * 80.5)];
    for (state, slot_seconds) in expected {
        let found = outcome.accounts.slot_seconds(state);
        assert_near(&format!("{state:?}"), found, slot_seconds * periods, slot_seconds * 1.01);
    }
    assert_eq!(outcome.accounts.slot_seconds(State::Redundant), 0.0);
    assert_eq!(outcome.accounts.peak(), 4, "old and new");
}

#[test]
fn packets_beyond_the_hard_limit_are_refused_until_the_new_pair_is_up() {
    // Given an exchange of 5 s, and limits that are 8 s and 10 s away
    let parameters =
        Parameters { lifetime_bytes: 10_000_000, rekey_ns: 5 * SECOND, delay_ns: 3 * SECOND, ..quiet() };
    let outcome = simulate(&parameters, bytes(Margins::Equal));
    // Then of 13 s the last 3 s are refused
    let share = outcome.packets_refused as f64 / (outcome.packets_sent + outcome.packets_refused) as f64;
    assert_near("refused", share, 3.0 / 13.0, 0.001);
}

#[test]
fn polls_within_half_an_exchange_of_each_other_collide() {
    // Given bursts, so that limits are reached at any time, and polls of both peers at any time of their period
    for (poll_ms, rekey_ms) in [(2_000, 400), (2_000, 1_500), (500, 200)] {
        let parameters = Parameters {
            tunnels: 3_000,
            bytes_per_second: 3_000_000_000,
            end_ns: 900 * SECOND,
            warm_up_ns: 300 * SECOND,
            off_ns: 10 * SECOND,
            poll_ns: poll_ms * 1_000_000,
            rekey_ns: rekey_ms * 1_000_000,
            ..quiet()
        };
        // When both have the same soft limit
        let outcome = simulate(&parameters, bytes(Margins::Equal));
        // Then the second one begins before it hears of the first with this probability
        let share = rekey_ms as f64 / 2.0 / poll_ms as f64;
        let expected = 1.0 - (1.0 - share) * (1.0 - share);
        assert_near(&format!("{poll_ms}, {rekey_ms}"), collision_share(&outcome), expected, 0.03);
        // One that is under way when measuring begins or ends is not in both.
        let redundant_pairs = outcome.redundant_sas as f64 / 2.0;
        assert_near("pairs", redundant_pairs, outcome.simultaneous_rekeys as f64, 20.0);
    }
}

#[test]
fn soft_limits_drawn_from_one_range_collide_as_two_uniforms_do() {
    // Given limits between 90 and 100 MB at both peers, which a second of traffic has in common
    let parameters = Parameters {
        tunnels: 100,
        bytes_per_second: 100_000_000,
        lifetime_bytes: 110_000_000,
        rekey_ns: 2 * SECOND,
        end_ns: 20_000 * SECOND,
        ..quiet()
    };
    let outcome = simulate(&parameters, bytes(Margins::StrongSwan));
    assert_near("collisions", collision_share(&outcome), 1.0 - 0.9 * 0.9, 0.012);
}

#[test]
fn limits_that_do_not_overlap_never_collide() {
    let parameters = Parameters { tunnels: 50, bytes_per_second: 50_000_000, poll_ns: SECOND, ..quiet() };
    for margins in [Margins::Libreswan, Margins::Draft] {
        let outcome = simulate(&parameters, bytes(margins));
        assert!(outcome.rekeys > 4_000);
        assert_eq!((outcome.simultaneous_rekeys, outcome.packets_refused), (0, 0), "{margins:?}");
    }
}

#[test]
fn redundant_pairs_that_nobody_closes_pile_up_by_littles_law() {
    // Given peers that see the limit at the same moment
    let parameters = Parameters { redundant: Redundant::Keep, warm_up_ns: 4_000 * SECOND, ..quiet() };
    let outcome = simulate(&parameters, bytes(Margins::Equal));
    assert_near("collisions", collision_share(&outcome), 1.0, 0.02);
    // Then each period of 80.5 s leaves two slots at either end for an hour
    let slots = outcome.accounts.slot_seconds(State::Redundant) / 6_000.0 / 2.0;
    assert_near("slots", slots, 2.0 * 3_600.0 / 80.5, 0.5);
    // And if they are closed, they are there for a tenth of a second and less
    let closed = simulate(&Parameters { redundant: Redundant::Close, ..parameters }, bytes(Margins::Equal));
    assert!(closed.redundant_sas > 0 && closed.accounts.slot_seconds(State::Redundant) / 6_000.0 < 0.1);
}

#[test]
fn a_lifetime_of_the_drafts_size_keeps_the_responder_out() {
    let base = Parameters {
        tunnels: 40,
        bytes_per_second: 400_000_000,
        skew: 1.0,
        asymmetry: 0.5,
        off_ns: 10 * SECOND,
        poll_ns: 2 * SECOND,
        rekey_ns: 3 * SECOND,
        ..quiet()
    };
    let policy = Policy { name: "test", unit: Unit::Packets, margins: Margins::Draft, events: false };
    // Given L = M (T_sad + T_ike) / (X_r - (X_i + 5 %)), where M is what the first tunnel sends in a burst of the smallest packets:
    // of 400 MB/s it has 1 / (1 + 1/2 + ... + 1/40), and twice that while a burst lasts.
    let harmonic: f64 = (1..=40).map(|rank| 1.0 / f64::from(rank)).sum();
    let packets_per_second = 2.0 * 400e6 / harmonic / 128.0;
    let lifetime_packets = (packets_per_second * (2.0 + 3.0) / 0.1).ceil() as u64;
    let sized = simulate(&Parameters { lifetime_packets, ..base.clone() }, policy);
    assert!(sized.rekeys > 100, "{}", sized.rekeys);
    assert_eq!((sized.simultaneous_rekeys, sized.packets_refused), (0, 0));
    // And with a fiftieth of it the responder comes in between, and packets are refused.
    let short = simulate(&Parameters { lifetime_packets: lifetime_packets / 50, ..base }, policy);
    assert!(short.simultaneous_rekeys > 0 && short.packets_refused > 0);
}

#[test]
fn losses_let_the_receiver_count_later() {
    // Given a loss by which the receiver reaches its limit 0.8 s behind the sender
    let late = Parameters { loss_millionths: 10_000, ..quiet() };
    // When an exchange takes 1 s, the receiver hears of it in time; when it takes 4 s, most often not
    let share = |rekey_ns| {
        let parameters = Parameters { rekey_ns, end_ns: 100_000 * SECOND, ..late.clone() };
        collision_share(&simulate(&parameters, bytes(Margins::Equal)))
    };
    // Only a request that is lost on its way lets the receiver begin too.
    assert_near("short exchange", share(SECOND), 0.01, 0.01);
    assert_near("long exchange", share(4 * SECOND), 1.0, 0.02);
}

#[test]
fn a_table_holds_no_more_than_its_slots_and_who_finds_none_waits() {
    let tunnels = |slots| {
        let parameters = Parameters {
            tunnels: 10,
            slots,
            bytes_per_second: 10_000_000,
            poll_ns: SECOND,
            redundant: Redundant::Keep,
            ..quiet()
        };
        simulate(&parameters, bytes(Margins::Libreswan))
    };
    // Nine tunnels and no room for a tenth, nor for a rekey: in the end all packets are refused.
    let full = tunnels(19);
    assert_eq!((full.accounts.peak(), full.rekeys, full.packets_sent), (18, 0, 0));
    assert!(full.packets_refused > 0);
    // Room for one rekey at a time, and each draining SA keeps it: most are in time. Room for two is enough.
    let tight = tunnels(22);
    assert_eq!(tight.accounts.peak(), 22);
    assert!(tight.waits > 0 && tight.rekeys > 1_000);
    assert!(tight.packets_refused < full.packets_refused / 10);
    let enough = tunnels(24);
    assert!(enough.waits > 0);
    assert_eq!(enough.packets_refused, 0);
    let ample = tunnels(1_000);
    assert_eq!(ample.waits, 0);
}

#[test]
fn every_slot_is_accounted_for_at_every_time() {
    // The curve is integrated by itself, and the states by themselves.
    let parameters = Parameters {
        tunnels: 30,
        slots: 80,
        bytes_per_second: 300_000_000,
        skew: 1.0,
        asymmetry: 0.5,
        off_ns: 10 * SECOND,
        warm_up_ns: 0,
        end_ns: 960 * SECOND,
        loss_millionths: 50_000,
        redundant: Redundant::Keep,
        time_lifetime_ns: 100 * SECOND,
        ..quiet()
    };
    for policy in Policy::ALL {
        let accounts = simulate(&parameters, policy).accounts;
        let states = [State::SettingUp, State::InUse, State::Old, State::Redundant];
        let by_state: f64 = states.into_iter().map(|state| accounts.slot_seconds(state)).sum();
        let curve = accounts.curve(parameters.end_ns);
        let by_time: f64 = curve.iter().map(|(_, slots)| slots * 2.0 * 960.0 / curve.len() as f64).sum();
        assert_near(policy.name, by_time, by_state, 1e-6 * by_state);
        assert!(curve.iter().all(|(_, slots)| *slots <= 80.0) && accounts.peak() <= 80);
    }
}
