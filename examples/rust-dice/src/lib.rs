//! A small JSON API: rolls dice and shuffles lines.
//!
//! `GET /roll/3d6` rolls three six-sided dice. `POST /shuffle` answers the lines of its body in another order.
//! The most dice of one roll come from the environment variable `DICE_MAX` (100 without it).

mod answer;

use answer::{problem, Answer};
use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::types::{IncomingBody, IncomingRequest, Method, ResponseOutparam};
use wasip2::io::streams::StreamError;
use wasip2::random::random::get_random_u64;

wasip2::http::proxy::export!(Dice);

struct Dice;

/// Bytes of a body that is to be shuffled.
const BODY_LIMIT: usize = 1 << 20;

impl Guest for Dice {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let target = request.path_with_query().unwrap_or_default();
        let path = target.split('?').next().unwrap_or_default();
        let answer = match (request.method(), path) {
            (Method::Get, "/") => Answer::text("GET /roll/3d6\nPOST /shuffle (lines)\n".to_owned()),
            (Method::Get, path) if path.starts_with("/roll/") => roll(&path["/roll/".len()..]),
            (Method::Post, "/shuffle") => shuffle(&request),
            (_, "/shuffle") => problem(405, "POST lines of text here").with("allow", "POST"),
            (Method::Get, _) => problem(404, "there is /roll/NdM and /shuffle"),
            _ => problem(405, "only GET here").with("allow", "GET"),
        };
        answer.send(out);
    }
}

fn roll(dice: &str) -> Answer {
    let most = most_dice();
    let Some((count, sides)) = parse(dice) else {
        return problem(400, "say it like 3d6: three dice of six sides");
    };
    if count == 0 || count > most || sides == 0 {
        return problem(400, &format!("from 1 to {most} dice, of one side or more"));
    }
    let rolls: Vec<u64> = (0..count).map(|_| 1 + below(u64::from(sides))).collect();
    let total: u64 = rolls.iter().sum();
    log(&format!("rolled {dice}: {total}"));
    let rolls: Vec<String> = rolls.iter().map(u64::to_string).collect();
    Answer::json(format!("{{\"dice\":\"{count}d{sides}\",\"rolls\":[{}],\"total\":{total}}}\n", rolls.join(",")))
}

/// "3d6" as (3, 6).
fn parse(dice: &str) -> Option<(u32, u32)> {
    let (count, sides) = dice.split_once('d')?;
    Some((count.parse().ok()?, sides.parse().ok()?))
}

fn most_dice() -> u32 {
    let environment = wasip2::cli::environment::get_environment();
    let value = environment.iter().find(|(name, _)| name == "DICE_MAX").and_then(|(_, value)| value.parse().ok());
    value.unwrap_or(100)
}

/// A random number below `end`, each as likely as the others.
fn below(end: u64) -> u64 {
    let fair = u64::MAX - u64::MAX % end;
    loop {
        let number = get_random_u64();
        if number < fair {
            return number % end;
        }
    }
}

fn shuffle(request: &IncomingRequest) -> Answer {
    let Ok(body) = request.consume() else { return problem(500, "the body was taken already") };
    let bytes = match read(&body) {
        Ok(bytes) => bytes,
        Err(Unreadable::TooLong) => return problem(413, "at most 1 MiB of lines"),
        Err(Unreadable::Broken) => return problem(400, "the body ended too early"),
    };
    let Ok(text) = String::from_utf8(bytes) else { return problem(400, "lines of UTF-8, please") };
    let mut lines: Vec<&str> = text.lines().collect();
    for last in (1..lines.len()).rev() {
        lines.swap(last, below(last as u64 + 1) as usize);
    }
    Answer::text(lines.iter().map(|line| format!("{line}\n")).collect())
}

enum Unreadable {
    TooLong,
    Broken,
}

fn read(body: &IncomingBody) -> Result<Vec<u8>, Unreadable> {
    let stream = body.stream().map_err(|()| Unreadable::Broken)?;
    let mut bytes = Vec::new();
    loop {
        match stream.blocking_read(16 << 10) {
            Ok(chunk) => bytes.extend(chunk),
            Err(StreamError::Closed) => return Ok(bytes),
            Err(_) => return Err(Unreadable::Broken),
        }
        if bytes.len() > BODY_LIMIT {
            return Err(Unreadable::TooLong);
        }
    }
}

/// Writes a line to the app's log (`cloister logs`).
fn log(line: &str) {
    let _ = wasip2::cli::stdout::get_stdout().blocking_write_and_flush(format!("{line}\n").as_bytes());
}
