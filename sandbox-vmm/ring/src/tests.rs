//! The rings against a peer that keeps the contract, and against one that does not.

use crate::host::{HostRing, RingMemory};
use crate::{Consumer, Control, Corrupt, Memory, Producer, PushError};
use sandbox_abi::message::{Header, Kind, MAX_PAYLOAD};
use std::sync::atomic::Ordering;

/// What a hostile peer does to the memory.
type Lie = fn(&HostRing);

#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
fn pair() -> (HostRing, Producer<HostRing>, Consumer<HostRing>) {
    let memory = RingMemory::create().unwrap();
    let ring = HostRing::host_to_guest(&memory);
    (
        ring.clone(),
        Producer::new(ring.clone()),
        Consumer::new(ring),
    )
}

#[test]
fn records_arrive_in_order_and_whole() {
    let (_, mut producer, mut consumer) = pair();
    let mut buffer = vec![0; MAX_PAYLOAD];
    for round in 0..5000_usize {
        let payload: Vec<u8> = (0..round % 3001).map(|n| (n * round) as u8).collect();
        producer
            .push(Header::new(Kind::Data, round as u32, 9), &payload)
            .unwrap();
        let (header, got) = consumer.pop(&mut buffer).unwrap().unwrap();
        assert_eq!(
            (header.stream, header.aux, got),
            (round as u32, 9, &payload[..])
        );
        consumer.release();
    }
    assert!(consumer.pop(&mut buffer).unwrap().is_none());
}

#[test]
fn memory_for_payloads_is_used_again() {
    let (_, mut producer, mut consumer) = pair();
    let mut kept = Vec::new();
    // Many times round the ring, with lengths that end anywhere in a word.
    for round in 0..400_usize {
        let payload: Vec<u8> = (0..(round * 977) % 40_000)
            .map(|n| (n ^ round) as u8)
            .collect();
        producer
            .push(Header::new(Kind::Data, round as u32, 0), &payload)
            .unwrap();
        let before = kept.capacity();
        let header = consumer.pop_into(&mut kept).unwrap().unwrap();
        assert_eq!((header.stream, &kept), (round as u32, &payload));
        assert_eq!(kept.capacity(), before.max(kept.len()));
        consumer.release();
    }
    assert!(consumer.pop_into(&mut kept).unwrap().is_none());
}

#[test]
fn a_header_counts_as_it_was_read() {
    let (ring, mut producer, mut consumer) = pair();
    producer
        .push(Header::new(Kind::Data, 1, 0), &[7; 40])
        .unwrap();
    let header = consumer.peek().unwrap();
    let mut lie = Header::new(Kind::Log, 2, 0);
    lie.len = MAX_PAYLOAD as u32;
    for (slot, word) in ring.data().iter().zip(lie.to_words()) {
        slot.store(word, Ordering::Relaxed);
    }
    let mut payload = Vec::new();
    assert_eq!(consumer.peek().unwrap(), header);
    assert_eq!(consumer.pop_into(&mut payload).unwrap(), header);
    assert_eq!(payload, [7; 40]);
    assert_eq!(consumer.peek(), Ok(None));
}

#[test]
fn a_full_ring_says_so_and_loses_nothing() {
    let (_, mut producer, mut consumer) = pair();
    let payload = vec![7; MAX_PAYLOAD];
    let mut count = 0;
    while producer
        .push(Header::new(Kind::Data, count, 0), &payload)
        .is_ok()
    {
        count += 1;
    }
    assert_eq!(
        producer.push(Header::new(Kind::Data, 0, 0), &payload),
        Err(PushError::Full)
    );
    assert_eq!(producer.wait(payload.len()), Ok(false));
    let mut buffer = vec![0; MAX_PAYLOAD];
    assert!(consumer.pop(&mut buffer).unwrap().is_some());
    assert!(consumer.release(), "the producer waits");
    assert!(!consumer.release(), "and is told once");
    producer
        .push(Header::new(Kind::Data, count, 0), &payload)
        .unwrap();
    for n in 1..=count {
        assert_eq!(consumer.pop(&mut buffer).unwrap().unwrap().0.stream, n);
    }
}

#[test]
fn a_sleeper_is_woken_once() {
    let (_, mut producer, mut consumer) = pair();
    assert!(consumer.sleep().unwrap());
    assert_eq!(producer.push(Header::new(Kind::End, 1, 0), &[]), Ok(true));
    assert_eq!(producer.push(Header::new(Kind::End, 1, 0), &[]), Ok(false));
    assert!(!consumer.sleep().unwrap(), "something is there");
}

#[test]
fn threads_lose_neither_records_nor_wakeups() {
    let (_, mut producer, mut consumer) = pair();
    let (wake, woken) = std::sync::mpsc::channel();
    let writer = std::thread::spawn(move || {
        for n in 0..20_000_u32 {
            let payload = vec![n as u8; n as usize % 700];
            loop {
                match producer.push(Header::new(Kind::Data, n, 0), &payload) {
                    Ok(true) => break wake.send(()).unwrap(),
                    Ok(false) => break,
                    Err(PushError::Full) => std::thread::yield_now(),
                    Err(e) => unreachable!("{e:?}"),
                }
            }
        }
    });
    let mut buffer = vec![0; MAX_PAYLOAD];
    let mut next = 0;
    while next < 20_000 {
        while let Some((header, payload)) = consumer.pop(&mut buffer).unwrap() {
            assert_eq!(header.stream, next);
            assert!(payload.iter().all(|&b| b == next as u8));
            next += 1;
        }
        consumer.release();
        if next < 20_000 && consumer.sleep().unwrap() {
            woken.recv().unwrap();
        }
        consumer.awake();
        while woken.try_recv().is_ok() {}
    }
    writer.join().unwrap();
}

#[test]
fn lies_about_indices_and_lengths_are_noticed() {
    let lies: [(&str, Lie); 4] = [
        ("an index beyond the ring", |r| {
            r.control(Control::Produced)
                .store(1 << 40, Ordering::Release)
        }),
        ("half a header", |r| {
            r.control(Control::Produced).store(1, Ordering::Release)
        }),
        ("an unknown kind", |r| {
            r.data()[0].store(0xEE, Ordering::Relaxed);
            r.control(Control::Produced).store(2, Ordering::Release);
        }),
        ("a payload beyond what was written", |r| {
            let mut header = Header::new(Kind::Data, 0, 0);
            header.len = 4096;
            r.data()[0].store(header.to_words()[0], Ordering::Relaxed);
            r.control(Control::Produced).store(2, Ordering::Release);
        }),
    ];
    for (what, lie) in lies {
        let (ring, _, mut consumer) = pair();
        lie(&ring);
        assert_eq!(
            consumer.pop(&mut vec![0; MAX_PAYLOAD]).map(|_| ()),
            Err(Corrupt),
            "{what}"
        );
    }
    let (ring, mut producer, _) = pair();
    ring.control(Control::Consumed).store(5, Ordering::Release);
    while producer
        .push(Header::new(Kind::Data, 0, 0), &[0; 4096])
        .is_ok()
    {}
    assert_eq!(
        producer.push(Header::new(Kind::Data, 0, 0), &[0; 4096]),
        Err(PushError::Full)
    );
    ring.control(Control::Consumed)
        .store(u64::MAX / 2, Ordering::Release);
    assert_eq!(
        producer.push(Header::new(Kind::Data, 0, 0), &[0; 4096]),
        Err(PushError::Corrupt)
    );
}

#[test]
fn random_garbage_never_panics() {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut buffer = vec![0; MAX_PAYLOAD];
    for _ in 0..300 {
        let (ring, mut producer, mut consumer) = pair();
        for _ in 0..50 {
            ring.data()[random() as usize % 64]
                .store(random() >> (random() % 60), Ordering::Relaxed);
            ring.control(Control::Produced)
                .store(random() >> (random() % 64), Ordering::Release);
            ring.control(Control::Consumed)
                .store(random() >> (random() % 64), Ordering::Release);
            let _ = consumer.pop(&mut buffer);
            let _ = consumer.sleep();
            consumer.release();
            let _ = producer.push(Header::new(Kind::Data, 0, 0), &[1; 100]);
            let _ = producer.wait(100);
        }
    }
}
