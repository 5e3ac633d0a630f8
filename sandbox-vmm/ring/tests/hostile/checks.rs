//! What must hold whatever bytes a peer writes: called by the fuzz targets with new inputs, and by a test with old ones.

use sandbox_abi::config::Config;
use sandbox_abi::head::{Fields, RequestHead, ResponseHead};
use sandbox_abi::message::{Done, Header, Kind, MAX_PAYLOAD};
use sandbox_ring::host::{HostRing, RingMemory};
use sandbox_ring::{Consumer, Control, Memory, Producer};
use std::sync::atomic::Ordering;

/// Lets the peer write words between the calls of both ends. Each command is 10 bytes: where, and what.
pub(crate) fn hostile_peer(data: &[u8]) {
    let Ok(memory) = RingMemory::create() else {
        return;
    };
    let ring = HostRing::guest_to_host(&memory);
    let mut consumer = Consumer::new(ring.clone());
    let mut producer = Producer::new(ring.clone());
    let mut buffer = vec![0; MAX_PAYLOAD];
    let mut owned = Vec::new();
    for command in data.chunks_exact(10) {
        let (place, word) = command.split_at(2);
        let place = usize::from(place[0]) | usize::from(place[1]) << 8;
        let word = word
            .iter()
            .rev()
            .fold(0, |n, byte| n << 8 | u64::from(*byte));
        match place % 8 {
            0 => ring
                .control(Control::Produced)
                .store(word, Ordering::Release),
            1 => ring
                .control(Control::Consumed)
                .store(word, Ordering::Release),
            2 => ring
                .control(Control::Sleeping)
                .store(word, Ordering::Release),
            3 => ring
                .control(Control::Waiting)
                .store(word, Ordering::Release),
            _ => ring.data()[place / 8 % 4096].store(word, Ordering::Relaxed),
        }
        let seen = consumer.peek();
        if place % 2 == 0 {
            if let Ok(Some(header)) = consumer.pop_into(&mut owned) {
                assert_eq!((header.len as usize, seen), (owned.len(), Ok(Some(header))));
                decode(header.kind, &owned);
            }
        } else if let Ok(Some((header, payload))) = consumer.pop(&mut buffer) {
            assert_eq!(
                (header.len as usize, seen),
                (payload.len(), Ok(Some(header)))
            );
            decode(header.kind, payload);
        }
        consumer.release();
        let _ = consumer.sleep();
        let _ = producer.push(Header::new(Kind::Data, 1, 2), &data[..data.len().min(100)]);
        let _ = producer.wait(word as usize % MAX_PAYLOAD);
    }
}

/// Reads a payload as every kind of record's.
pub(crate) fn decode(kind: Kind, payload: &[u8]) {
    let fields = |fields: Fields<'_>| {
        let read = fields.take_while(Result::is_ok).count();
        assert!(
            read * 8 <= payload.len(),
            "a field has at least two lengths"
        );
    };
    match kind {
        Kind::Request => drop(RequestHead::read(payload).map(|head| fields(head.fields))),
        Kind::Response => drop(ResponseHead::read(payload).map(|head| fields(head.fields))),
        Kind::Done => {
            if let Some(done) = Done::from_bytes(payload) {
                assert_eq!(done.to_bytes(), payload);
            }
        }
        Kind::End => drop(Fields::read(payload).map(fields)),
        _ => {
            let env = Config::read(payload).map(|config| config.env().count());
            assert!(env.is_err() || env.is_ok_and(|count| count * 8 <= payload.len()));
        }
    }
}

/// All decoders on the same bytes.
pub(crate) fn decode_all(payload: &[u8]) {
    for kind in (0..=u8::MAX).filter_map(Kind::from_u8) {
        decode(kind, payload);
    }
}
