//! The bindings to WASI, and the linker that holds all of its functions.

use crate::runtime::State;
use wasmtime::Engine;
use wasmtime::component::{HasSelf, Linker};

/// Made from `wit/`: traits of the host functions, implemented by [`State`].
#[expect(missing_docs, reason = "generated; the WIT files say what it is")]
pub mod bindings {
    wasmtime::component::bindgen!({
        path: "wit",
        world: "cloister:guest/guest",
        imports: { default: trappable },
        with: {
            "wasi:io/error.error": crate::wasi::io::IoError,
            "wasi:io/poll.pollable": crate::wasi::io::Pollable,
            "wasi:io/streams.input-stream": crate::wasi::io::InputStream,
            "wasi:io/streams.output-stream": crate::wasi::io::OutputStream,
            "wasi:cli/terminal-input.terminal-input": crate::wasi::cli::Terminal,
            "wasi:cli/terminal-output.terminal-output": crate::wasi::cli::Terminal,
            "wasi:filesystem/types.descriptor": crate::wasi::filesystem::Descriptor,
            "wasi:filesystem/types.directory-entry-stream": crate::wasi::filesystem::Entries,
            "wasi:sockets/network.network": crate::wasi::sockets::Network,
            "wasi:sockets/tcp.tcp-socket": crate::wasi::sockets::TcpSocket,
            "wasi:sockets/udp.udp-socket": crate::wasi::sockets::UdpSocket,
            "wasi:sockets/udp.incoming-datagram-stream": crate::wasi::sockets::IncomingDatagrams,
            "wasi:sockets/udp.outgoing-datagram-stream": crate::wasi::sockets::OutgoingDatagrams,
            "wasi:sockets/ip-name-lookup.resolve-address-stream": crate::wasi::sockets::Addresses,
            "wasi:http/types.fields": crate::http::fields::Fields,
            "wasi:http/types.incoming-request": crate::http::incoming::IncomingRequest,
            "wasi:http/types.incoming-response": crate::http::incoming::IncomingResponse,
            "wasi:http/types.incoming-body": crate::http::incoming::IncomingBody,
            "wasi:http/types.future-trailers": crate::http::incoming::FutureTrailers,
            "wasi:http/types.outgoing-request": crate::http::outbound::OutgoingRequest,
            "wasi:http/types.request-options": crate::http::outbound::RequestOptions,
            "wasi:http/types.future-incoming-response": crate::http::outbound::FutureResponse,
            "wasi:http/types.outgoing-response": crate::http::outgoing::OutgoingResponse,
            "wasi:http/types.outgoing-body": crate::http::outgoing::OutgoingBody,
            "wasi:http/types.response-outparam": crate::http::outgoing::Outparam,
        },
        trappable_error_type: {
            "wasi:io/streams.stream-error" => crate::wasi::io::StreamError,
            "wasi:filesystem/types.error-code" => crate::wasi::filesystem::FsError,
        },
    });
}

/// A linker with every function that a component may import. Older 0.2 versions resolve to the same functions.
pub fn linker(engine: &Engine) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    bindings::Guest::add_to_linker::<State, HasSelf<State>>(
        &mut linker,
        &bindings::LinkOptions::default(),
        |s| s,
    )?;
    linker.allow_shadowing(true);
    linker
        .instance("wasi:io/streams@0.2.12")?
        .func_wrap("[method]output-stream.write", crate::wasi::io::write)?;
    Ok(linker)
}
