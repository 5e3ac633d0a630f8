//! What the counters count, and as what.

use bytes::Bytes;

use super::*;

fn done(cpu_ns: u64, memory: u64) -> Done {
    Done { cpu_ns, memory }
}

#[test]
fn times_are_in_the_place_of_the_bound_that_they_do_not_exceed() {
    let counters = Counters::new(0);
    let here = counters.here();
    for us in [0, 1_000, 1_001, 10_000_000, 10_000_001] {
        here.time(
            &here.shard.queue_wait,
            &WAIT_BOUNDS,
            Duration::from_micros(us),
        );
    }
    let read = counters.figures().queue_wait;
    assert_eq!(read.counts, [2, 1, 0, 0, 0, 0, 1, 1]);
    assert_eq!(read.sum_us, 20_002_002);
    for bounds in [&REQUEST_BOUNDS[..], &WAIT_BOUNDS[..]] {
        assert!(bounds.is_sorted());
    }
}

#[test]
fn requests_by_class() {
    let counters = Counters::new(0);
    for status in [Some(200), Some(304), Some(404), Some(503), Some(599), None] {
        counters.begun();
        counters.ended(status, status != Some(200), 10, Duration::ZERO);
    }
    counters.begun();
    let figures = counters.figures();
    assert_eq!(figures.requests, [1, 1, 1, 2, 1]);
    assert_eq!((figures.cut_off, figures.in_flight), (1, 1));
    assert_eq!(figures.bytes_out, 60);
    assert_eq!(figures.duration.counts.iter().sum::<u64>(), 6);
}

#[test]
fn a_guest_cannot_claim_more_than_can_be() {
    let counters = Counters::new(1 << 20);
    let passed = Duration::from_millis(5);
    counters.done(outcome::OK, None, done(3, 100), passed);
    counters.done(outcome::OK, None, done(u64::MAX, u64::MAX), passed);
    let figures = counters.figures();
    assert_eq!(figures.cpu_ns, 5_000_003);
    assert_eq!(figures.memory_max, 1 << 20);
    assert_eq!(figures.traps, [0; TRAPS.len()]);
}

#[test]
fn each_trap_has_its_kind() {
    let guest =
        |code, text: &'static str| Failure::Guest(code, Bytes::from_static(text.as_bytes()));
    let trapped = |text| guest(reset::TRAP, text);
    let exit = guest(reset::NO_RESPONSE, "exit 1");
    let late = Failure::Deadline(crate::link::failure::Deadline::Wall);
    for (how, failure, kind) in [
        (
            outcome::TRAP,
            Some(trapped(
                "wasm trap: wasm `unreachable` instruction executed",
            )),
            "unreachable",
        ),
        (
            outcome::TRAP,
            Some(trapped("wasm trap: call stack exhausted")),
            "stack",
        ),
        (
            outcome::TRAP,
            Some(trapped("wasm trap: out of bounds memory access")),
            "memory_bounds",
        ),
        (
            outcome::TRAP,
            Some(trapped("wasm trap: uninitialized element")),
            "indirect_call",
        ),
        (
            outcome::TRAP,
            Some(trapped("wasm trap: integer divide by zero")),
            "arithmetic",
        ),
        (
            outcome::TRAP,
            Some(trapped("whatever a guest may say")),
            "other",
        ),
        (outcome::TRAP, Some(exit), "exit"),
        (outcome::TRAP, None, "other"),
        (outcome::CPU, None, "cpu_limit"),
        (outcome::MEMORY, None, "memory_limit"),
        (outcome::POST_RETURN, None, "post_return_limit"),
        (outcome::CANCELLED, Some(late), "deadline"),
    ] {
        assert_eq!(
            trap(how, failure.as_ref()).map(|kind| TRAPS[kind]),
            Some(kind)
        );
    }
    for how in [outcome::OK, outcome::CANCELLED, outcome::BUSY, 99] {
        assert_eq!(trap(how, None), None);
    }
}

#[test]
fn waits_are_counted_when_they_end() {
    let counters = Counters::new(0);
    let wait = counters.queue();
    assert_eq!(counters.figures().waiting, 1);
    drop(wait);
    let figures = counters.figures();
    assert_eq!(
        (
            figures.waiting,
            figures.queue_wait.counts.iter().sum::<u64>()
        ),
        (0, 1)
    );
    drop(counters.cold_start());
    assert_eq!(counters.figures().cold_start.counts.iter().sum::<u64>(), 1);
}

#[test]
fn only_so_many_requests_are_told_of_in_a_second() {
    let counters = Counters::new(0);
    let told = |second, times: u64| (0..times).filter(|_| counters.may_tell(second)).count() as u64;
    assert_eq!(told(5, TOLD + 7), TOLD);
    assert_eq!((counters.untold(), counters.untold()), (7, 0));
    assert_eq!(told(6, 2), 2);
    assert_eq!(told(9, 1), 1);
    assert_eq!(counters.untold(), 0);
}

#[test]
fn threads_count_together_however_many_there_are() {
    let counters = std::sync::Arc::new(Counters::new(0));
    for _ in 0..20_000 {
        counters.begun();
    }
    // Ended by other threads than the one that began them, of which there are more than have a shard of their own.
    let threads: Vec<_> = (0..counters.own.len() + 3)
        .map(|_| {
            let counters = std::sync::Arc::clone(&counters);
            std::thread::spawn(move || {
                for _ in 0..1000 {
                    counters.ended(Some(200), true, 1, Duration::ZERO);
                }
            })
        })
        .collect();
    let ended = 1000 * threads.len() as u64;
    for thread in threads {
        thread.join().unwrap();
    }
    let figures = counters.figures();
    assert_eq!((figures.requests[0], figures.bytes_out), (ended, ended));
    assert_eq!(figures.in_flight, 20_000 - ended);
}

#[test]
fn outgoing_requests_by_outcome() {
    let counters = Counters::new(0);
    counters.egress(Egress::Answered(204));
    counters.egress(Egress::Refused(reset::HTTP_REQUEST_DENIED));
    counters.egress(Egress::Refused(reset::CONNECTION_REFUSED));
    counters.egress(Egress::Cancelled);
    assert_eq!(counters.figures().egress, [1, 0, 0, 0, 1, 1, 1]);
}
