//! Asks another server for what it is asked for, and passes the answer on: an outgoing request for each incoming one.
//!
//! `UPSTREAM` in the environment says which server: `http://HOST:PORT`. The deployment has to allow that host.

use wasip2::cli::environment::get_environment;
use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    ErrorCode, Fields, IncomingRequest, IncomingResponse, Method, OutgoingBody, OutgoingRequest, OutgoingResponse, ResponseOutparam,
    Scheme,
};
use wasip2::io::streams::StreamError;

wasip2::http::proxy::export!(Relay);

struct Relay;

/// Fields of the answer that are passed on.
const PASSED_ON: [&str; 3] = ["content-type", "content-length", "last-modified"];

impl Guest for Relay {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        if !matches!(request.method(), Method::Get) {
            return say(out, 405, "only GET here\n");
        }
        let path = request.path_with_query().unwrap_or_else(|| "/".to_owned());
        match ask(&path) {
            Ok(response) => pass_on(&response, out),
            Err(why) => {
                log(&format!("{path}: {why}"));
                say(out, 502, "the other server does not answer\n");
            }
        }
    }
}

/// Asks the other server, and waits for the head of its answer.
fn ask(path: &str) -> Result<IncomingResponse, String> {
    let environment = get_environment();
    let upstream = environment.iter().find(|(name, _)| name == "UPSTREAM");
    let (_, upstream) = upstream.ok_or("UPSTREAM is not set")?;
    let (scheme, authority) = match upstream.split_once("://") {
        Some(("http", authority)) => (Scheme::Http, authority),
        Some(("https", authority)) => (Scheme::Https, authority),
        _ => return Err("UPSTREAM is no URL: give http://HOST:PORT".to_owned()),
    };
    let request = OutgoingRequest::new(Fields::new());
    let wrong = |()| "UPSTREAM or the path cannot be asked for".to_owned();
    request.set_scheme(Some(&scheme)).map_err(wrong)?;
    request.set_authority(Some(authority)).map_err(wrong)?;
    request.set_path_with_query(Some(path)).map_err(wrong)?;
    let told = |code: ErrorCode| format!("{code:?}");
    let answer = outgoing_handler::handle(request, None).map_err(told)?;
    answer.subscribe().block();
    match answer.get() {
        Some(Ok(answer)) => answer.map_err(told),
        _ => Err("there is no answer".to_owned()),
    }
}

/// Passes an answer on as it comes.
fn pass_on(from: &IncomingResponse, out: ResponseOutparam) {
    let (headers, had) = (Fields::new(), from.headers());
    for name in PASSED_ON {
        for value in had.get(name) {
            let _ = headers.append(name, &value);
        }
    }
    let response = OutgoingResponse::new(headers);
    let _ = response.set_status_code(from.status());
    let (Ok(body), Ok(incoming)) = (response.body(), from.consume()) else { return };
    ResponseOutparam::set(out, Ok(response));
    let (Ok(to), Ok(from)) = (body.write(), incoming.stream()) else { return };
    loop {
        match to.blocking_splice(&from, 64 << 10) {
            Ok(_) => {}
            Err(StreamError::Closed) => break,
            // The other server broke off: so does this answer.
            Err(StreamError::LastOperationFailed(_)) => return,
        }
    }
    drop((to, from));
    let _ = OutgoingBody::finish(body, None);
}

/// Answers with a text of our own.
fn say(out: ResponseOutparam, status: u16, text: &str) {
    let headers = Fields::new();
    let _ = headers.append("content-type", b"text/plain; charset=utf-8");
    let response = OutgoingResponse::new(headers);
    let _ = response.set_status_code(status);
    let Ok(body) = response.body() else { return };
    ResponseOutparam::set(out, Ok(response));
    if let Ok(stream) = body.write() {
        let _ = stream.blocking_write_and_flush(text.as_bytes());
    }
    let _ = OutgoingBody::finish(body, None);
}

/// Writes a line to the app's log (`cloister logs`).
fn log(line: &str) {
    let _ = wasip2::cli::stdout::get_stdout().blocking_write_and_flush(format!("{line}\n").as_bytes());
}
