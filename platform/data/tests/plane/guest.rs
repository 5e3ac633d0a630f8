//! A guest without a VM: a thread that reads requests off the ring and does what their paths say.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use sandbox_abi::head::{Fields, RequestHead, ResponseHead, Timeouts};
use sandbox_abi::message::{
    Done, FLAG_END, HEADER_LEN, Header, INITIAL_CREDIT, Kind, MAX_DATA, MAX_PAYLOAD, OUTGOING,
    outcome, reset,
};
use sandbox_abi::wire::Sink;
use sandbox_ring::host::{HostRing, RingMemory};
use sandbox_ring::{Consumer, Control, Memory, Producer, PushError};

/// One exchange.
#[derive(Default)]
struct Stream {
    path: String,
    out: VecDeque<Vec<u8>>,
    credit: usize,
    /// Ends the response once `out` is empty; with these trailers.
    end: Option<Vec<(String, String)>>,
    /// Bytes of an endless body still to make.
    make: usize,
    read: usize,
    /// The incoming stream that an outgoing one belongs to.
    parent: Option<u32>,
    ended: bool,
    /// The answer to a call has begun.
    begun: bool,
}

struct Guest<'f> {
    producer: Producer<HostRing>,
    bell: &'f OwnedFd,
    streams: BTreeMap<u32, Stream>,
    next_call: u32,
    raw: HostRing,
    /// What its artifact says.
    name: String,
}

/// Serves until told to stop.
pub fn run(
    name: String,
    memory: &Arc<RingMemory>,
    wake: &OwnedFd,
    bell: &OwnedFd,
    stop: &AtomicBool,
) {
    let mut consumer = Consumer::new(HostRing::host_to_guest(memory));
    let raw = HostRing::guest_to_host(memory);
    let mut guest = Guest {
        producer: Producer::new(raw.clone()),
        bell,
        streams: BTreeMap::new(),
        next_call: 0,
        raw,
        name,
    };
    let mut buffer = vec![0; MAX_PAYLOAD];
    guest.send(Kind::Ready, 0, 0, 0, b"");
    while !stop.load(Ordering::Relaxed) {
        while let Some((header, payload)) = consumer.pop(&mut buffer).unwrap() {
            guest.record(header, payload);
            if consumer.release() {
                guest.ring();
            }
        }
        if consumer.sleep().unwrap() {
            let time = Timespec {
                tv_sec: 0,
                tv_nsec: 200_000_000,
            };
            let _ = poll(&mut [PollFd::new(wake, PollFlags::IN)], Some(&time));
            let _ = rustix::io::read(wake, &mut [0; 8]);
        }
        consumer.awake();
    }
}

impl Guest<'_> {
    fn ring(&self) {
        let _ = rustix::io::write(self.bell.as_fd(), &1_u64.to_ne_bytes());
    }

    fn send(&mut self, kind: Kind, flags: u8, stream: u32, aux: u32, payload: &[u8]) {
        let mut header = Header::new(kind, stream, aux);
        header.flags = flags;
        loop {
            match self.producer.push(header, payload) {
                Ok(asleep) => {
                    if asleep {
                        self.ring();
                    }
                    return;
                }
                Err(PushError::Full) => std::thread::yield_now(),
                Err(error) => panic!("{error:?}"),
            }
        }
    }

    fn head(&mut self, stream: u32, status: u16, fields: &[(&str, &str)], end: bool) {
        let mut payload = Vec::new();
        payload.u16(status);
        Fields::write(&mut payload, fields.iter().copied());
        self.send(
            Kind::Response,
            if end { FLAG_END } else { 0 },
            stream,
            0,
            &payload,
        );
    }

    fn done(&mut self, stream: u32, outcome: u32) {
        self.done_after(stream, outcome, 1000);
    }

    fn done_after(&mut self, stream: u32, outcome: u32, cpu_ns: u64) {
        self.streams.remove(&stream);
        self.send(
            Kind::Done,
            0,
            stream,
            outcome,
            &Done {
                cpu_ns,
                memory: 65536,
            }
            .to_bytes(),
        );
    }

    /// A whole response.
    fn answer(&mut self, stream: u32, status: u16, fields: &[(&str, &str)], body: &str) {
        self.head(stream, status, fields, body.is_empty());
        if !body.is_empty() {
            self.send(Kind::Data, 0, stream, 0, body.as_bytes());
            self.send(Kind::End, 0, stream, 0, b"");
        }
        self.done(stream, outcome::OK);
    }

    fn record(&mut self, header: Header, payload: &[u8]) {
        let id = header.stream;
        match header.kind {
            Kind::Request => self.request(header, payload),
            Kind::Response => self.call_head(id, payload, header.flags & FLAG_END != 0),
            Kind::Data => self.data(id, payload),
            Kind::End => self.end(id, payload),
            Kind::Credit => {
                if let Some(stream) = self.streams.get_mut(&id) {
                    stream.credit += header.aux as usize;
                    self.push_out(id);
                }
            }
            Kind::Reset => self.on_reset(id, header.aux, payload),
            _ => {}
        }
    }

    fn on_reset(&mut self, id: u32, code: u32, text: &[u8]) {
        let Some(stream) = self.streams.remove(&id) else {
            return;
        };
        if let Some(parent) = stream.parent {
            if stream.begun {
                let code = reset::HTTP_PROTOCOL_ERROR;
                self.send(Kind::Reset, 0, parent, code, b"the upstream broke off");
                return self.done(parent, outcome::OK);
            }
            let text = String::from_utf8_lossy(text).into_owned();
            return self.answer(parent, 502, &[("x-code", &code.to_string())], &text);
        }
        if stream.path != "/deaf" {
            self.done(id, outcome::CANCELLED);
        }
    }

    fn request(&mut self, header: Header, payload: &[u8]) {
        let id = header.stream;
        let head = RequestHead::read(payload).unwrap();
        let path = head.path.unwrap_or_default().to_owned();
        let whole = header.flags & FLAG_END != 0;
        let mut lines = format!(
            "{} {} {} {}\n",
            head.method,
            head.scheme.unwrap(),
            head.authority.unwrap(),
            path
        );
        let mut url = None;
        for field in head.fields {
            let (name, value) = field.unwrap();
            let (name, value) = (
                String::from_utf8_lossy(name),
                String::from_utf8_lossy(value),
            );
            lines.push_str(&format!("{name}: {value}\n"));
            if name == "x-url" {
                url = Some(value.into_owned());
            }
        }
        self.streams.insert(
            id,
            Stream {
                path: path.clone(),
                credit: INITIAL_CREDIT as usize,
                ..Stream::default()
            },
        );
        let parts: Vec<&str> = path
            .split('?')
            .next()
            .unwrap_or_default()
            .split('/')
            .skip(1)
            .collect();
        match parts.as_slice() {
            ["hello"] => self.answer(id, 200, &[("x-a", "1"), ("x-a", "2")], "hello"),
            ["headers"] => self.answer(id, 200, &[("content-type", "text/plain")], &lines),
            ["status", status] => self.answer(
                id,
                status.parse().unwrap(),
                &[],
                &format!("status {status}"),
            ),
            ["cpu", ms] => {
                self.head(id, 200, &[], true);
                let ms: u64 = ms.parse().unwrap();
                self.done_after(id, outcome::OK, ms * 1_000_000);
            }
            ["name"] => {
                let name = self.name.clone();
                self.answer(id, 200, &[], &name);
            }
            ["empty"] => self.answer(id, 200, &[], ""),
            ["echo"] => {
                self.head(id, 200, &[("trailer", "x-sum")], whole);
                if whole {
                    self.done(id, outcome::OK);
                }
            }
            ["length", said, sent] => self.answer(
                id,
                200,
                &[("content-length", said)],
                &"x".repeat(sent.parse().unwrap()),
            ),
            ["length-alone", said] => {
                self.head(id, 200, &[("content-length", said)], true);
                self.done(id, outcome::OK);
            }
            ["drip", said, sent] => {
                self.head(id, 200, &[("content-length", said)], false);
                std::thread::sleep(std::time::Duration::from_millis(30));
                self.send(
                    Kind::Data,
                    0,
                    id,
                    0,
                    "x".repeat(sent.parse().unwrap()).as_bytes(),
                );
                self.send(Kind::End, 0, id, 0, b"");
                self.done(id, outcome::OK);
            }
            ["trailers"] => {
                self.head(id, 200, &[("trailer", "x-sum")], false);
                let stream = self.streams.get_mut(&id).unwrap();
                stream.out.push_back(b"body".to_vec());
                stream.end = Some(vec![
                    ("x-sum".into(), "4".into()),
                    ("content-length".into(), "9".into()),
                ]);
                self.push_out(id);
            }
            ["big", mib] => {
                self.head(id, 200, &[], false);
                let stream = self.streams.get_mut(&id).unwrap();
                stream.make = mib.parse::<usize>().unwrap() << 20;
                stream.end = Some(Vec::new());
                self.push_out(id);
            }
            ["hop"] => self.answer(
                id,
                200,
                &[
                    ("connection", "x-gone"),
                    ("x-gone", "1"),
                    ("keep-alive", "1"),
                    ("upgrade", "h2c"),
                ],
                "hop",
            ),
            ["bad-field"] => self.answer(id, 200, &[("x y", "1")], "bad"),
            ["two-lengths"] => self.answer(
                id,
                200,
                &[("content-length", "3"), ("content-length", "4")],
                "abc",
            ),
            ["noresponse"] => self.done(id, outcome::OK),
            ["trap"] => {
                self.send(Kind::Reset, 0, id, reset::TRAP, b"unreachable");
                self.done(id, outcome::TRAP);
            }
            ["trap-late"] => {
                self.head(id, 200, &[], false);
                self.send(Kind::Data, 0, id, 0, b"some");
                std::thread::sleep(std::time::Duration::from_millis(30));
                self.send(Kind::Reset, 0, id, reset::TRAP, b"unreachable");
                self.done(id, outcome::TRAP);
            }
            ["trap-at-once"] => {
                let mut head = Vec::new();
                head.u16(200);
                Fields::write(&mut head, std::iter::empty::<(&str, &str)>());
                let reset = Header::new(Kind::Reset, id, reset::TRAP);
                let head = self
                    .producer
                    .push(Header::new(Kind::Response, id, 0), &head);
                let reset = self.producer.push(reset, b"unreachable");
                if head.unwrap() | reset.unwrap() {
                    self.ring();
                }
                self.done(id, outcome::TRAP);
            }
            ["log"] => {
                self.send(Kind::Log, 0, id, 1, b"out line\n");
                self.send(Kind::Log, 0, id, 2, b"err line\n");
                self.answer(id, 200, &[], "logged");
            }
            ["stop"] => {
                self.send(Kind::Stop, 0, id, 0, b"");
                self.answer(id, 200, &[], "stopped");
            }
            ["fetch"] => self.fetch(id, &url.unwrap(), whole),
            ["die"] => std::process::exit(3),
            ["evil", what] => self.evil(id, what),
            // "/never", "/deaf": nothing, until reset. "/sink", "/count": the body first.
            _ => {}
        }
    }

    fn data(&mut self, id: u32, payload: &[u8]) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        assert!(payload.len() <= MAX_DATA);
        stream.read += payload.len();
        if let Some(parent) = stream.parent {
            let parent = self.streams.get_mut(&parent).unwrap();
            parent.out.push_back(payload.to_vec());
            let parent = self.streams[&id].parent.unwrap();
            self.push_out(parent);
        } else if stream.path == "/echo" {
            stream.out.push_back(payload.to_vec());
            return self.push_out(id);
        }
        // An echo grants what it has passed on; the others grant at once.
        self.send(
            Kind::Credit,
            0,
            id,
            u32::try_from(payload.len()).unwrap(),
            b"",
        );
    }

    fn end(&mut self, id: u32, payload: &[u8]) {
        let trailers: Vec<(String, String)> = Fields::read(payload)
            .unwrap()
            .map(|field| {
                field
                    .map(|(n, v)| {
                        (
                            String::from_utf8_lossy(n).into_owned(),
                            String::from_utf8_lossy(v).into_owned(),
                        )
                    })
                    .unwrap()
            })
            .collect();
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if let Some(parent) = stream.parent {
            self.streams.remove(&id);
            self.streams.get_mut(&parent).unwrap().end = Some(trailers);
            return self.push_out(parent);
        }
        if stream.path == "/echo" {
            stream.end = Some(trailers);
            self.push_out(id);
        } else if stream.path == "/count" {
            let text = stream.read.to_string();
            self.answer(id, 200, &[], &text);
        }
    }

    /// Sends what there is credit for.
    fn push_out(&mut self, id: u32) {
        loop {
            let Some(stream) = self.streams.get_mut(&id) else {
                return;
            };
            if stream.ended {
                return;
            }
            if stream.out.is_empty() && stream.make > 0 {
                let take = stream.make.min(MAX_DATA);
                stream.make -= take;
                stream.out.push_back(vec![0x61; take]);
            }
            let Some(mut data) = stream.out.pop_front() else {
                break;
            };
            if stream.credit == 0 {
                stream.out.push_front(data);
                return;
            }
            if data.len() > stream.credit {
                let rest = data.split_off(stream.credit);
                stream.out.push_front(rest);
            }
            stream.credit -= data.len();
            let echo = stream.path == "/echo";
            self.send(Kind::Data, 0, id, 0, &data);
            if echo {
                self.send(Kind::Credit, 0, id, u32::try_from(data.len()).unwrap(), b"");
            }
        }
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if let Some(trailers) = stream.end.take() {
            stream.ended = true;
            let mut payload = Vec::new();
            if !trailers.is_empty() {
                Fields::write(
                    &mut payload,
                    trailers.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())),
                );
            }
            self.send(Kind::End, 0, id, 0, &payload);
            self.done(id, outcome::OK);
        }
    }

    fn fetch(&mut self, parent: u32, url: &str, whole: bool) {
        let (scheme, rest) = url.split_once("://").unwrap();
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let mut payload = Vec::new();
        let times = Timeouts {
            first_byte_ns: 2_000_000_000,
            ..Timeouts::default()
        };
        RequestHead::write(
            &mut payload,
            if whole { "GET" } else { "POST" },
            Some(scheme),
            Some(authority),
            Some(path),
            times,
        );
        Fields::write(
            &mut payload,
            [
                ("x-from", "guest"),
                ("connection", "x-from"),
                ("te", "gzip, trailers"),
            ]
            .into_iter(),
        );
        let id = self.next_call | OUTGOING;
        self.next_call += 1;
        self.streams.insert(
            id,
            Stream {
                parent: Some(parent),
                credit: INITIAL_CREDIT as usize,
                ..Stream::default()
            },
        );
        self.send(Kind::Request, FLAG_END, id, parent, &payload);
    }

    fn call_head(&mut self, id: u32, payload: &[u8], whole: bool) {
        let call = self.streams.get_mut(&id).unwrap();
        call.begun = true;
        let parent = call.parent.unwrap();
        let head = ResponseHead::read(payload).unwrap();
        let fields: Vec<(String, String)> = head
            .fields
            .map(|field| {
                field
                    .map(|(n, v)| {
                        (
                            String::from_utf8_lossy(n).into_owned(),
                            String::from_utf8_lossy(v).into_owned(),
                        )
                    })
                    .unwrap()
            })
            .filter(|(name, _)| name.starts_with("x-"))
            .collect();
        let fields: Vec<(&str, &str)> = fields
            .iter()
            .map(|(n, v)| (n.as_str(), v.as_str()))
            .collect();
        self.head(parent, head.status, &fields, whole);
        if whole {
            self.streams.remove(&id);
            self.done(parent, outcome::OK);
        }
    }

    /// Breaks the contract in a way that the host must notice.
    fn evil(&mut self, id: u32, what: &str) {
        match what {
            "unknown-stream" => self.send(Kind::Data, 0, 999, 0, b"x"),
            "stream-beyond" => self.send(Kind::Response, 0, OUTGOING - 1, 0, b"x"),
            "before-head" => self.send(Kind::Data, 0, id, 0, b"x"),
            "two-heads" => {
                self.head(id, 200, &[], false);
                self.head(id, 200, &[], false);
            }
            "credit" => {
                self.head(id, 200, &[], false);
                for _ in 0..64 {
                    self.send(Kind::Data, 0, id, 0, &[0; MAX_DATA]);
                }
            }
            "long-data" => {
                self.head(id, 200, &[], false);
                self.send(Kind::Data, 0, id, 0, &[0; MAX_DATA + 1]);
            }
            "grant" => {
                self.send(Kind::Credit, 0, id, u32::MAX, b"");
            }
            "bad-head" => self.send(
                Kind::Response,
                FLAG_END,
                id,
                0,
                b"\xc8\x00\x01\x00\x00\x00\xff",
            ),
            "bad-status" => self.head(id, 5, &[], true),
            "two-dones" => {
                self.done(id, outcome::OK);
                self.done(id, outcome::OK);
            }
            "bad-done" => self.send(Kind::Done, 0, id, 0, b"short"),
            "ready" => self.send(Kind::Ready, 0, 0, 0, b""),
            "bad-log" => self.send(Kind::Log, 0, id, 9, b"x"),
            "index" => {
                self.raw
                    .control(Control::Produced)
                    .store(u64::MAX / 2, Ordering::Release);
                self.ring();
            }
            "garbage" => {
                let at = self.raw.control(Control::Produced).load(Ordering::Relaxed);
                for n in 0..512 {
                    self.raw.data()[(at as usize + n) % self.raw.data().len()]
                        .store(0xDEAD_BEEF_0000_0000 | n as u64, Ordering::Relaxed);
                }
                self.raw
                    .control(Control::Produced)
                    .store(at + 512, Ordering::Release);
                self.ring();
            }
            "half-record" => {
                let at = self.raw.control(Control::Produced).load(Ordering::Relaxed);
                let mut header = Header::new(Kind::Data, id, 0);
                header.len = 64 << 10;
                let words = header.to_words();
                for (n, word) in words.iter().enumerate() {
                    self.raw.data()[(at as usize + n) % self.raw.data().len()]
                        .store(*word, Ordering::Relaxed);
                }
                self.raw
                    .control(Control::Produced)
                    .store(at + HEADER_LEN as u64 / 8, Ordering::Release);
                self.ring();
            }
            "bad-call" => self.send(Kind::Request, 0, OUTGOING, 0, b"\xff\xff\xff\xff"),
            other => panic!("no such evil: {other}"),
        }
    }
}
