//! A hyper server with nothing behind it, in a process of its own: it always says the same.

use std::convert::Infallible;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::rc::Rc;

use anyhow::{Context, Result};

use super::{Answer, Process, Server};

/// Serves this answer.
pub(crate) fn start(answer: &Answer) -> Result<Server> {
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), serde_json::to_vec(answer)?)?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("--serve-hyper").arg(file.path());
    let mut process = Process::start(command.stdout(Stdio::piped()))?;
    let out = process.0.stdout.take().context("no output")?;
    let mut line = String::new();
    BufReader::new(out).read_line(&mut line)?;
    let address = line.trim().parse();
    let address = address.with_context(|| format!("the bare server said {line:?}"))?;
    Ok(Server {
        name: "bare hyper".to_owned(),
        address,
        host: "localhost".to_owned(),
        pid: process.id(),
        vms: None,
        _keep: Rc::new(process),
    })
}

/// The bare server's process: prints its address, then answers until it is ended.
pub(crate) fn serve(answer: &Path) -> Result<()> {
    let answer: Answer = serde_json::from_slice(&std::fs::read(answer)?)?;
    let body = bytes::Bytes::from(answer.body);
    let status = http::StatusCode::from_u16(answer.status)?;
    let kind = answer
        .kind
        .map(|kind| http::HeaderValue::from_str(&kind))
        .transpose()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async move {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        println!("{}", listener.local_addr()?);
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let (body, kind) = (body.clone(), kind.clone());
            tokio::spawn(async move {
                let service = hyper::service::service_fn(move |_request| {
                    let mut response = http::Response::new(http_body_util::Full::new(body.clone()));
                    *response.status_mut() = status;
                    if let Some(kind) = &kind {
                        response
                            .headers_mut()
                            .insert(http::header::CONTENT_TYPE, kind.clone());
                    }
                    std::future::ready(Ok::<_, Infallible>(response))
                });
                let io = hyper_util::rt::TokioIo::new(stream);
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(io, service)
                    .await;
            });
        }
    })
}
