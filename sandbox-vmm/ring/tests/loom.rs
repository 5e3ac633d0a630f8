//! The ring's protocol under a model checker: every interleaving of a producer and a consumer that sleep and wake.
//!
//! Run with `RUSTFLAGS="--cfg loom" cargo test -p sandbox-ring --no-default-features --test loom --release`.
#![cfg(loom)]

use loom::sync::atomic::{AtomicBool, Ordering};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;
use sandbox_abi::message::{Header, Kind};
use sandbox_ring::{AtomicU64, CONTROLS, Consumer, Control, Memory, Producer, PushError};

const BUFFER: usize = sandbox_abi::message::MAX_PAYLOAD;

/// A ring of a few words: it is full after two records.
struct Small {
    data: Vec<AtomicU64>,
    control: Vec<AtomicU64>,
}

#[derive(Clone)]
struct Shared(Arc<Small>);

impl Shared {
    fn new(words: usize) -> Self {
        let zeroes = |n| (0..n).map(|_| AtomicU64::new(0)).collect();
        Shared(Arc::new(Small {
            data: zeroes(words),
            control: zeroes(CONTROLS),
        }))
    }
}

impl Memory for Shared {
    fn data(&self) -> &[AtomicU64] {
        &self.0.data
    }
    fn control(&self, which: Control) -> &AtomicU64 {
        &self.0.control[which as usize]
    }
}

/// An eventfd: a wake-up that comes before the wait is not lost.
#[derive(Clone)]
struct Event(Arc<(Mutex<bool>, Condvar)>);

impl Event {
    fn new() -> Self {
        Event(Arc::new((Mutex::new(false), Condvar::new())))
    }
    fn signal(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_one();
    }
    fn wait(&self) {
        let mut set = self.0.0.lock().unwrap();
        while !*set {
            set = self.0.1.wait(set).unwrap();
        }
        *set = false;
    }
}

fn model(check: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(check);
}

/// A consumer that sleeps whenever there is nothing is woken for every record: a lost wake-up is a deadlock here.
#[test]
fn no_wakeup_of_the_consumer_is_lost() {
    model(|| {
        let (ring, event) = (Shared::new(8), Event::new());
        let (theirs, bell) = (ring.clone(), event.clone());
        let writer = thread::spawn(move || {
            let mut producer = Producer::new(theirs);
            for n in 0..2 {
                if producer.push(Header::new(Kind::End, n, 0), &[]).unwrap() {
                    bell.signal();
                }
            }
        });
        let mut consumer = Consumer::new(ring);
        let mut buffer = vec![0; BUFFER];
        let mut next = 0;
        while next < 2 {
            match consumer.pop(&mut buffer).unwrap() {
                Some((header, _)) => {
                    assert_eq!(header.stream, next);
                    next += 1;
                }
                None => {
                    if consumer.sleep().unwrap() {
                        event.wait();
                    }
                    consumer.awake();
                }
            }
        }
        writer.join().unwrap();
    });
}

/// A producer that waits for room is told as soon as there is some.
#[test]
fn no_notice_to_the_producer_is_lost() {
    model(|| {
        let (ring, room) = (Shared::new(2), Event::new());
        let (theirs, notice) = (ring.clone(), room.clone());
        let done = Arc::new(AtomicBool::new(false));
        let finished = done.clone();
        let writer = thread::spawn(move || {
            let mut producer = Producer::new(theirs);
            for n in 0..2 {
                loop {
                    match producer.push(Header::new(Kind::End, n, 0), &[]) {
                        Ok(_) => break,
                        Err(PushError::Full) => {
                            if !producer.wait(0).unwrap() {
                                room.wait();
                            }
                        }
                        Err(e) => unreachable!("{e:?}"),
                    }
                }
            }
            finished.store(true, Ordering::SeqCst);
        });
        let mut consumer = Consumer::new(ring);
        let mut buffer = vec![0; BUFFER];
        let mut next = 0;
        while next < 2 {
            if let Some((header, _)) = consumer.pop(&mut buffer).unwrap() {
                assert_eq!(header.stream, next);
                next += 1;
                if consumer.release() {
                    notice.signal();
                }
            } else {
                thread::yield_now();
            }
        }
        writer.join().unwrap();
        assert!(done.load(Ordering::SeqCst));
    });
}

/// What is read is what was written, whatever the order in which words become visible.
#[test]
fn payloads_are_whole() {
    model(|| {
        let ring = Shared::new(4);
        let theirs = ring.clone();
        let writer = thread::spawn(move || {
            let mut producer = Producer::new(theirs);
            for n in 1..=2_u8 {
                while producer
                    .push(Header::new(Kind::Data, u32::from(n), 0), &[n; 9])
                    .is_err()
                {
                    thread::yield_now();
                }
            }
        });
        let mut consumer = Consumer::new(ring);
        let mut buffer = vec![0; BUFFER];
        let mut next = 1;
        while next <= 2 {
            match consumer.pop(&mut buffer).unwrap() {
                Some((header, payload)) => {
                    assert_eq!((header.stream, payload), (u32::from(next), &[next; 9][..]));
                    next += 1;
                    consumer.release();
                }
                None => thread::yield_now(),
            }
        }
        writer.join().unwrap();
    });
}
