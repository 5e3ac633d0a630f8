//! What a guest may say about an exchange, and when.

use super::*;
use sandbox_abi::message::reset;

static EXTRA: Extra = Extra::new(1 << 20);

fn say(
    exchange: &mut Exchange,
    kind: Kind,
    flags: u8,
    aux: u32,
    payload: &[u8],
) -> Result<(), Violation> {
    let mut header = Header::new(kind, 1, aux);
    header.flags = flags;
    exchange.on_record(header, Payload::Borrowed(payload), &mut Vec::new())
}

fn begun() -> Exchange {
    let mut exchange = Exchange::default();
    exchange.begin(true, false);
    exchange
}

fn cx() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

#[test]
fn a_response_in_order() {
    let mut exchange = begun();
    assert!(exchange.poll_head(&mut cx()).is_pending());
    say(&mut exchange, Kind::Response, 0, 0, b"head").unwrap();
    say(&mut exchange, Kind::Data, 0, 0, b"data").unwrap();
    say(&mut exchange, Kind::End, 0, 0, b"").unwrap();
    let Poll::Ready(Ok(head)) = exchange.poll_head(&mut cx()) else {
        unreachable!()
    };
    assert!(head.complete && head.payload == "head");
    assert_eq!(
        exchange.poll_part(&mut cx(), &EXTRA),
        Poll::Ready(Ok((Part::Data(Bytes::from_static(b"data")), 0)))
    );
    assert_eq!(
        exchange.poll_part(&mut cx(), &EXTRA),
        Poll::Ready(Ok((Part::End(None), 0)))
    );
    exchange.on_done(0, &[0; 16], &mut Vec::new()).unwrap();
    assert!(
        say(&mut exchange, Kind::Credit, 0, 1, b"").is_err(),
        "after DONE nothing may come"
    );
}

#[test]
fn each_lie_is_a_violation() {
    assert!(
        say(&mut Exchange::default(), Kind::Response, 0, 0, b"").is_err(),
        "not open"
    );
    assert!(
        say(&mut begun(), Kind::Data, 0, 0, b"x").is_err(),
        "data before the head"
    );
    assert!(
        say(&mut begun(), Kind::End, 0, 0, b"").is_err(),
        "an end before the head"
    );
    assert!(
        say(&mut begun(), Kind::Request, 0, 0, b"").is_err(),
        "a request"
    );
    let mut exchange = begun();
    say(&mut exchange, Kind::Response, FLAG_END, 0, b"").unwrap();
    assert!(
        say(&mut exchange, Kind::Response, 0, 0, b"").is_err(),
        "a second head"
    );
    assert!(
        say(&mut exchange, Kind::Data, 0, 0, b"x").is_err(),
        "data after the end"
    );
    let mut exchange = begun();
    say(&mut exchange, Kind::Response, 0, 0, b"").unwrap();
    assert!(
        say(&mut exchange, Kind::Data, 0, 0, &[0; MAX_DATA + 1]).is_err(),
        "a record that is too long"
    );
    assert!(
        say(&mut begun(), Kind::Credit, 0, u32::MAX, b"").is_err(),
        "too much credit"
    );
    assert!(
        begun().on_done(0, b"", &mut Vec::new()).is_err(),
        "an end without figures"
    );
}

#[test]
fn credit_is_what_was_taken_and_no_more() {
    let mut exchange = begun();
    say(&mut exchange, Kind::Response, 0, 0, b"").unwrap();
    for _ in 0..INITIAL_CREDIT as usize / MAX_DATA {
        say(&mut exchange, Kind::Data, 0, 0, &[1; MAX_DATA]).unwrap();
    }
    assert!(
        say(&mut exchange, Kind::Data, 0, 0, b"x").is_err(),
        "beyond the credit"
    );
    let Poll::Ready(Ok((Part::Data(_), credit))) = exchange.poll_part(&mut cx(), &EXTRA) else {
        unreachable!()
    };
    assert_eq!(credit as usize, MAX_DATA);
    say(&mut exchange, Kind::Data, 0, 0, &[1; MAX_DATA]).unwrap();
    assert!(say(&mut exchange, Kind::Data, 0, 0, b"x").is_err());
}

#[test]
fn single_bytes_do_not_pile_up() {
    let mut exchange = begun();
    say(&mut exchange, Kind::Response, 0, 0, b"").unwrap();
    for n in 0..10_000_u32 {
        say(&mut exchange, Kind::Data, 0, 0, &[n as u8]).unwrap();
    }
    assert!(exchange.inbox.len() <= MANY + 1);
    let mut all = Vec::new();
    while let Poll::Ready(Ok((Part::Data(data), _))) = exchange.poll_part(&mut cx(), &EXTRA) {
        all.extend_from_slice(&data);
    }
    assert!(all.len() == 10_000 && all.iter().enumerate().all(|(n, &byte)| byte == n as u8));
}

#[test]
fn a_reset_is_the_answer_unless_there_was_one() {
    let mut exchange = begun();
    say(&mut exchange, Kind::Reset, 0, reset::TRAP, b"oh").unwrap();
    let Poll::Ready(Err(failure)) = exchange.poll_head(&mut cx()) else {
        unreachable!()
    };
    assert_eq!(
        failure,
        Failure::Guest(reset::TRAP, Bytes::from_static(b"oh"))
    );
    let mut exchange = begun();
    say(&mut exchange, Kind::Response, FLAG_END, 0, b"head").unwrap();
    say(&mut exchange, Kind::Reset, 0, reset::TRAP, b"").unwrap();
    assert!(matches!(
        exchange.poll_head(&mut cx()),
        Poll::Ready(Ok(RawHead { complete: true, .. }))
    ));
}

#[test]
fn no_answer_is_a_failure() {
    let mut exchange = begun();
    exchange.on_done(1, &[0; 16], &mut Vec::new()).unwrap();
    assert!(matches!(
        exchange.poll_head(&mut cx()),
        Poll::Ready(Err(Failure::NoResponse(1)))
    ));
}

#[test]
fn writers_learn_of_credit_and_of_stop() {
    let mut exchange = begun();
    exchange.spend(INITIAL_CREDIT as usize);
    assert!(exchange.poll_credit(&mut cx()).is_pending());
    say(&mut exchange, Kind::Credit, 0, 7, b"").unwrap();
    assert_eq!(exchange.poll_credit(&mut cx()), Poll::Ready(Some(7)));
    say(&mut exchange, Kind::Stop, 0, 0, b"").unwrap();
    assert_eq!(exchange.poll_credit(&mut cx()), Poll::Ready(None));
}
