//! What a failed request is called in `wasi:http`.

use std::error::Error;
use std::io;

use sandbox_abi::message::reset;

use super::client::{ConnectTimeout, ResolveError};

/// The code of an error, found in it or in one of its causes.
pub(crate) fn code(error: &(dyn Error + 'static)) -> u32 {
    let mut cause = Some(error);
    let mut found = None;
    while let Some(error) = cause {
        if let Some(code) = code_of(error) {
            found = Some(code);
        }
        // An error within an `io::Error` is not its source, but what it wraps.
        cause = match error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref)
        {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    found.unwrap_or(reset::HTTP_PROTOCOL_ERROR)
}

fn code_of(error: &(dyn Error + 'static)) -> Option<u32> {
    if error.is::<ConnectTimeout>() {
        return Some(reset::CONNECTION_TIMEOUT);
    }
    if let Some(error) = error.downcast_ref::<ResolveError>() {
        return Some(match error {
            ResolveError::Failed(_) => reset::DNS_ERROR,
            ResolveError::Prohibited => reset::DESTINATION_IP_PROHIBITED,
        });
    }
    if let Some(error) = error.downcast_ref::<rustls::Error>() {
        return Some(match error {
            rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented => {
                reset::TLS_CERTIFICATE_ERROR
            }
            _ => reset::TLS_PROTOCOL_ERROR,
        });
    }
    if let Some(error) = error.downcast_ref::<hyper::Error>() {
        let code = if error.is_incomplete_message() || error.is_closed() {
            reset::CONNECTION_TERMINATED
        } else if error.is_parse_too_large() {
            reset::HTTP_RESPONSE_HEADER_SECTION_SIZE
        } else if error.is_timeout() {
            reset::HTTP_RESPONSE_TIMEOUT
        } else if error.is_parse() {
            reset::HTTP_PROTOCOL_ERROR
        } else {
            return None;
        };
        return Some(code);
    }
    let error = error.downcast_ref::<io::Error>()?;
    Some(match error.kind() {
        // An address without a route as well: it is what components know it as from wasmtime.
        io::ErrorKind::ConnectionRefused
        | io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkUnreachable => reset::CONNECTION_REFUSED,
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::UnexpectedEof => reset::CONNECTION_TERMINATED,
        io::ErrorKind::TimedOut => reset::CONNECTION_TIMEOUT,
        io::ErrorKind::AddrNotAvailable => reset::DESTINATION_UNAVAILABLE,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_cause_counts() {
        let refused = io::Error::other(io::Error::from(io::ErrorKind::ConnectionRefused));
        assert_eq!(code(&refused), reset::CONNECTION_REFUSED);
        assert_eq!(
            code(&io::Error::other(ResolveError::Prohibited)),
            reset::DESTINATION_IP_PROHIBITED
        );
        assert_eq!(
            code(&ResolveError::Failed(io::ErrorKind::NotFound.into())),
            reset::DNS_ERROR
        );
        assert_eq!(code(&io::Error::other("?")), reset::HTTP_PROTOCOL_ERROR);
    }
}
