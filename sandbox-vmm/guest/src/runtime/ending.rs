//! How a request ended: for the host, and for the component's log.

use super::{Answer, Ended, State};
use crate::kernel::account;
use crate::streams;
use crate::wasi::cli::Exit;
use alloc::borrow::Cow;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use sandbox_abi::message::{outcome, reset};
use wasmtime::Trap;

/// Bytes of an error that goes to the log or to the host.
const ERROR_TEXT: usize = 8 << 10;

/// Why the component ended, for the host: outcome, reset code, text.
fn diagnose(state: &State, error: &wasmtime::Error) -> (u32, u32, Cow<'static, str>) {
    let over = state.last_moment.is_some();
    match account::outcome() {
        Some(outcome::CANCELLED) => {
            return (
                outcome::CANCELLED,
                reset::CANCELLED,
                Cow::Borrowed("cancelled"),
            );
        }
        Some(outcome::CPU) if !over => {
            return (
                outcome::CPU,
                reset::CPU,
                Cow::Borrowed("the component used more processor time than it may"),
            );
        }
        Some(outcome::CPU) => return (outcome::POST_RETURN, reset::TRAP, Cow::Borrowed("")),
        _ => {}
    }
    if over && error.is::<Ended>() {
        return (outcome::POST_RETURN, reset::TRAP, Cow::Borrowed(""));
    }
    if error.is::<Exit>() {
        return (
            outcome::TRAP,
            reset::NO_RESPONSE,
            Cow::Owned(format!("{error}")),
        );
    }
    let memory = state.limiter.refused || account::outcome() == Some(outcome::MEMORY);
    if memory {
        let text = format!(
            "the component used up its memory of {} MiB: {error}",
            state.limiter.most >> 20
        );
        return (outcome::MEMORY, reset::MEMORY, Cow::Owned(text));
    }
    let text = match error.downcast_ref::<Trap>() {
        Some(trap) => format!("{trap}"),
        None => format!("{error:#}"),
    };
    (outcome::TRAP, reset::TRAP, Cow::Owned(text))
}

/// Ends what is open of the response; says how the request ended.
pub(super) fn conclude(state: &State, error: Option<&wasmtime::Error>) -> u32 {
    // `exit(0)` after the head is another way to return.
    let returned = |e: &&wasmtime::Error| {
        state.answer == Answer::Begun && e.downcast_ref::<Exit>().is_some_and(|e| e.0 == 0)
    };
    let Some(error) = error.filter(|e| !returned(e)) else {
        match (state.answer, &state.body) {
            (Answer::None, _) => {
                streams::reset(
                    state.id,
                    reset::NO_RESPONSE,
                    "the component returned without a response",
                );
            }
            // A body that the component forgot to finish is complete all the same, as in `wasmtime serve`.
            (Answer::Begun, Some(body)) if !streams::sent(state.id) => {
                let _ = body.finish(Vec::new());
            }
            _ => {}
        }
        return outcome::OK;
    };
    let (outcome, code, text) = diagnose(state, error);
    let report = match outcome {
        // Where the kernel ended it, the trap that it used says nothing.
        outcome::CPU => format!("error: {text}\n"),
        outcome::POST_RETURN => {
            String::from("error: the component worked on for too long after its response\n")
        }
        outcome::TRAP | outcome::MEMORY if !error.is::<Exit>() => format!("error: {error:?}\n"),
        _ => String::new(),
    };
    if !report.is_empty() {
        let report = report
            .get(..report.floor_char_boundary(ERROR_TEXT))
            .unwrap_or_default();
        streams::log(state.id, 2, report.as_bytes());
    }
    if outcome != outcome::CANCELLED {
        streams::reset(state.id, code, &text);
    }
    outcome
}
