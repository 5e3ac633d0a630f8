//! The table of `docs/errors.md` is the one of the code.

use std::collections::BTreeSet;

use super::*;

/// One of each kind. A kind that is not here does not compile in [`counted`].
fn every() -> Vec<Reject> {
    let rate = "1/s".parse().unwrap();
    let excess = |excess| Reject::Excess((Whose::App, excess));
    vec![
        Reject::Malformed(""),
        Reject::UnknownHost(String::new()),
        Reject::Misdirected,
        Reject::NoRoute,
        excess(Excess::Rate(rate, Duration::ZERO)),
        excess(Excess::Cpu(0, Duration::ZERO)),
        excess(Excess::Concurrency(0, Duration::ZERO)),
        Reject::HeadTooLarge(0),
        Reject::TooManyFields(0),
        Reject::TargetTooLong(0),
        Reject::BodyTooLarge(0),
        Reject::SlowBody,
        Reject::Connect,
        Reject::Coding,
        Reject::Busy(0, 0),
        Reject::Waited(Duration::ZERO),
        Reject::NotReady(String::new()),
        Reject::RingFull,
        Reject::Lost,
        Reject::Deadline("", 0),
        Reject::Trapped,
        Reject::NoResponse,
        Reject::Errored(0, String::new()),
        Reject::Cpu(0),
        Reject::Memory(0),
        Reject::GuestBusy,
        Reject::ResponseHeadTooLarge(0),
        Reject::ResponseTooLarge(0),
        Reject::BadResponse(""),
    ]
}

/// A number for each kind, from 0 on.
fn counted(reject: &Reject) -> usize {
    match reject {
        Reject::Malformed(_) => 0,
        Reject::UnknownHost(_) => 1,
        Reject::Misdirected => 2,
        Reject::NoRoute => 3,
        Reject::Excess((_, Excess::Rate(..))) => 4,
        Reject::Excess((_, Excess::Cpu(..))) => 5,
        Reject::Excess((_, Excess::Concurrency(..))) => 6,
        Reject::HeadTooLarge(_) => 7,
        Reject::TooManyFields(_) => 8,
        Reject::TargetTooLong(_) => 9,
        Reject::BodyTooLarge(_) => 10,
        Reject::SlowBody => 11,
        Reject::Connect => 12,
        Reject::Coding => 13,
        Reject::Busy(..) => 14,
        Reject::Waited(_) => 15,
        Reject::NotReady(_) => 16,
        Reject::RingFull => 17,
        Reject::Lost => 18,
        Reject::Deadline(..) => 19,
        Reject::Trapped => 20,
        Reject::NoResponse => 21,
        Reject::Errored(..) => 22,
        Reject::Cpu(_) => 23,
        Reject::Memory(_) => 24,
        Reject::GuestBusy => 25,
        Reject::ResponseHeadTooLarge(_) => 26,
        Reject::ResponseTooLarge(_) => 27,
        Reject::BadResponse(_) => 28,
    }
}

#[test]
fn every_answer_of_the_router_is_in_the_documents() {
    let every = every();
    let numbers: Vec<_> = every.iter().map(counted).collect();
    assert_eq!(numbers, (0..every.len()).collect::<Vec<_>>());
    let problems = every.iter().map(|reject| reject.problem(""));
    let refused = [400, 408, 414, 431].map(super::super::wire::refusal);
    let coded: BTreeSet<_> = problems
        .chain(refused)
        .map(|problem| (problem.code, problem.status))
        .collect();

    let page = include_str!("../../../../../docs/errors.md");
    let (_, page) = page.split_once("<!-- router: begin -->").unwrap();
    let (table, _) = page.split_once("<!-- router: end -->").unwrap();
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `"));
    let documented: BTreeSet<_> = rows
        .map(|row| {
            let cells: Vec<_> = row.split(" | ").collect();
            let [code, status, what] = cells[..] else {
                panic!("no row: {row}")
            };
            assert!(what.len() > 3, "{code}: what is to be done?");
            let code = code.trim_end_matches('`').to_owned();
            (code, status.parse().unwrap())
        })
        .collect();
    assert_eq!(documented, coded, "docs/errors.md");
}
