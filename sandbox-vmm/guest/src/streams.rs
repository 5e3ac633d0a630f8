//! The exchanges on the rings: what has arrived of each, and what may be sent.
//!
//! The scheduler hands every record from the host to [`deliver`]; the thread of the request that owns the exchange
//! looks at the state here, and parks when it has to wait for more.
//!
//! **Invariant**: nothing in here parks while it holds the table.

use crate::kernel::cell::Local;
use crate::kernel::sched::{self, ThreadId};
use crate::kernel::{account, rings};
use crate::slots;
use alloc::borrow::Cow;
use alloc::collections::btree_map::Entry;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;
use sandbox_abi::message::{
    Done, FLAG_END, Header, INITIAL_CREDIT, Kind, OUTGOING, outcome, reset,
};
use sandbox_abi::window::{Extra, Window};

/// What bodies that come in may have of memory beyond their first credit, all together.
static EXTRA: Extra = Extra::new(8 << 20);

/// Bytes of a body, and how many of them have been read.
struct Chunk {
    bytes: Vec<u8>,
    read: usize,
}

/// One HTTP exchange.
struct Exchange {
    /// Who serves it; nobody yet where it waits for a slot.
    owner: Option<ThreadId>,
    inbox: VecDeque<Chunk>,
    window: Window,
    /// No more data comes.
    ended: bool,
    trailers: Vec<u8>,
    /// The head of the answer to an outgoing request.
    head: Option<Vec<u8>>,
    failed: Option<Failure>,
    /// Bytes that may be sent.
    credit: u32,
    /// The host does not want what is sent.
    stopped: bool,
    /// Nobody reads what comes in.
    unread: bool,
    /// Something of what came in was read or refused.
    touched: bool,
    /// END or RESET has been sent, or the other side has given up.
    sent: bool,
}

/// Why an exchange was reset.
#[derive(Clone, Debug)]
pub struct Failure {
    /// One of [`reset`].
    pub code: u32,
    /// For humans.
    pub text: String,
}

/// What a read found.
pub enum Read {
    /// Bytes; never none.
    Data(Vec<u8>),
    /// Nothing yet.
    Wait,
    /// The end of the body.
    End,
    /// The body broke off.
    Failed(Failure),
}

struct Table {
    exchanges: BTreeMap<u32, Exchange>,
    next: u32,
}

static TABLE: Local<Table> = Local::new(Table {
    exchanges: BTreeMap::new(),
    next: 0,
});

fn with<R>(id: u32, f: impl FnOnce(&mut Exchange) -> R) -> Option<R> {
    TABLE.with(|t| t.exchanges.get_mut(&id).map(f))
}

impl Exchange {
    fn new(owner: Option<ThreadId>) -> Exchange {
        Exchange {
            owner,
            inbox: VecDeque::new(),
            window: Window::default(),
            ended: false,
            trailers: Vec::new(),
            head: None,
            failed: None,
            credit: INITIAL_CREDIT,
            stopped: false,
            unread: false,
            touched: false,
            sent: false,
        }
    }

    /// Counts bytes as read; says what the writer is to be granted.
    fn consume(&mut self, len: usize) -> Option<u32> {
        if self.ended {
            return None;
        }
        Some(self.window.read(len, &EXTRA)).filter(|credit| *credit > 0)
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.window.close(&EXTRA);
    }
}

/// Takes a record from the host. Runs on the scheduler's stack.
pub fn deliver(header: Header, payload: Cow<'_, [u8]>) {
    let id = header.stream;
    if header.kind == Kind::Request {
        return begin(id, header.flags & FLAG_END != 0, &payload);
    }
    let owner = with(id, |x| {
        match header.kind {
            Kind::Data => x.inbox.push_back(Chunk {
                bytes: payload.into_owned(),
                read: 0,
            }),
            Kind::End => {
                x.ended = true;
                x.trailers = payload.into_owned();
            }
            Kind::Response => {
                x.head = Some(payload.into_owned());
                x.ended |= header.flags & FLAG_END != 0;
            }
            Kind::Reset => {
                let text = String::from_utf8_lossy(&payload).into_owned();
                x.failed = Some(Failure {
                    code: header.aux,
                    text,
                });
                x.sent = true;
            }
            Kind::Credit => x.credit = x.credit.saturating_add(header.aux),
            Kind::Stop => x.stopped = true,
            // Only the guest sends these.
            Kind::Request | Kind::Done | Kind::Log | Kind::Ready => {}
        }
        x.owner
    });
    if let Some(owner) = owner.flatten() {
        if header.kind == Kind::Reset && id & OUTGOING == 0 {
            sched::end(owner, outcome::CANCELLED);
        }
        sched::unpark(owner);
    }
}

fn begin(id: u32, ended: bool, payload: &[u8]) {
    let mut exchange = Exchange::new(None);
    exchange.ended = ended;
    TABLE.with(|t| t.exchanges.insert(id, exchange));
    slots::queue(id, payload);
}

/// The running thread serves an incoming exchange. `false`: the host has given it up already.
pub fn own(id: u32) -> bool {
    let owner = sched::current();
    with(id, |x| {
        x.owner = Some(owner);
        x.failed.is_none()
    })
    .unwrap_or(false)
}

/// An exchange that is out of reach for a while.
pub struct Taken(Exchange);

/// Takes an exchange out of reach: what is done to it by its number has no effect.
pub fn take(id: u32) -> Option<Taken> {
    TABLE.with(|t| t.exchanges.remove(&id).map(Taken))
}

/// Puts it back.
pub fn put(id: u32, taken: Option<Taken>) {
    if let Some(Taken(exchange)) = taken {
        TABLE.with(|t| t.exchanges.insert(id, exchange));
    }
}

/// Whether all that has come of an exchange is still there.
pub fn is_untouched(id: u32) -> bool {
    with(id, |x| !x.touched && x.failed.is_none()).unwrap_or(false)
}

/// No thread can be had for an incoming exchange. On the scheduler's stack: where there is no room for the records now,
/// the host's own deadline ends the exchange.
pub fn refuse(id: u32) {
    forget(id);
    rings::try_send(
        Header::new(Kind::Reset, id, reset::BUSY),
        b"the VM holds as many requests as it can",
    );
    rings::try_send(
        Header::new(Kind::Done, id, outcome::BUSY),
        &Done::default().to_bytes(),
    );
}

/// Begins an outgoing exchange of the running thread.
pub fn open() -> u32 {
    let owner = sched::current();
    TABLE.with(|t| {
        loop {
            let id = OUTGOING | t.next;
            t.next = (t.next + 1) & !OUTGOING;
            if let Entry::Vacant(free) = t.exchanges.entry(id) {
                free.insert(Exchange::new(Some(owner)));
                return id;
            }
        }
    })
}

/// Whether an exchange is still known.
pub fn exists(id: u32) -> bool {
    with(id, |_| ()).is_some()
}

/// Forgets an exchange; what still comes of it is dropped.
pub fn forget(id: u32) {
    TABLE.with(|t| t.exchanges.remove(&id));
}

/// Whether a read would find something.
pub fn readable(id: u32) -> bool {
    with(id, |x| !x.inbox.is_empty() || x.ended || x.failed.is_some()).unwrap_or(true)
}

/// Whether there are bytes to read.
pub fn has_data(id: u32) -> bool {
    with(id, |x| !x.inbox.is_empty()).unwrap_or(false)
}

/// Reads at most `most` bytes without waiting.
pub fn read(id: u32, most: usize) -> Read {
    let found = with(id, |x| {
        if let Some(chunk) = x.inbox.front_mut() {
            x.touched = true;
            let left = chunk.bytes.len() - chunk.read;
            let bytes = if chunk.read == 0 && left <= most {
                core::mem::take(&mut chunk.bytes)
            } else {
                let end = chunk.read + left.min(most);
                let bytes = chunk
                    .bytes
                    .get(chunk.read..end)
                    .unwrap_or_default()
                    .to_vec();
                chunk.read = end;
                bytes
            };
            if bytes.len() == left {
                x.inbox.pop_front();
            }
            let credit = x.consume(bytes.len());
            (Read::Data(bytes), credit)
        } else if let Some(failure) = &x.failed {
            (Read::Failed(failure.clone()), None)
        } else if x.ended {
            (Read::End, None)
        } else {
            (Read::Wait, None)
        }
    });
    let Some((read, credit)) = found else {
        return Read::End;
    };
    if let Some(credit) = credit {
        rings::send(Header::new(Kind::Credit, id, credit), &[]);
    }
    read
}

/// Throws away what has arrived of the body. `true` once the end of it has.
pub fn discard(id: u32) -> bool {
    let (ended, credit) = with(id, |x| {
        let len: usize = x.inbox.drain(..).map(|c| c.bytes.len() - c.read).sum();
        x.touched |= len > 0;
        (x.ended || x.failed.is_some(), x.consume(len))
    })
    .unwrap_or((true, None));
    if let Some(credit) = credit {
        rings::send(Header::new(Kind::Credit, id, credit), &[]);
    }
    ended
}

/// The trailers of a body that has ended, as they came; or why there are none.
pub fn trailers(id: u32) -> Result<Vec<u8>, Failure> {
    with(id, |x| match &x.failed {
        Some(failure) if !x.ended => Err(failure.clone()),
        _ => Ok(core::mem::take(&mut x.trailers)),
    })
    .unwrap_or(Ok(Vec::new()))
}

/// Whether [`answer`] would find something.
pub fn answered(id: u32) -> bool {
    with(id, |x| x.head.is_some() || x.failed.is_some()).unwrap_or(true)
}

/// The head of the answer to an outgoing request, once.
pub fn answer(id: u32) -> Option<Result<Vec<u8>, Failure>> {
    let lost = || {
        Some(Err(Failure {
            code: reset::INTERNAL_ERROR,
            text: String::from("the exchange is over"),
        }))
    };
    with(id, |x| match x.head.take() {
        Some(head) => Some(Ok(head)),
        None => x.failed.clone().map(Err),
    })
    .unwrap_or_else(lost)
}

/// The reader wants no more of this body. The answer to an outgoing request that nobody reads ends the exchange.
pub fn stop_reading(id: u32) {
    if id & OUTGOING != 0 {
        let state = with(id, |x| {
            x.unread = true;
            (x.ended, x.sent)
        });
        match state {
            Some((true, false)) | None => {}
            Some((true, true)) => forget(id),
            Some((false, _)) => {
                cancel(id);
                forget(id);
            }
        }
        return;
    }
    let stop = with(id, |x| {
        x.touched |= !x.inbox.is_empty() || !x.ended;
        x.inbox.clear();
        x.failed.is_none() && !core::mem::replace(&mut x.ended, true)
    });
    if stop == Some(true) {
        rings::send(Header::new(Kind::Stop, id, 0), &[]);
    }
}

/// Gives an outgoing exchange up, unless both of its directions have ended.
pub fn cancel(id: u32) {
    let open = with(id, |x| {
        x.inbox.clear();
        let open = x.failed.is_none() && !(x.ended && x.sent);
        if open {
            x.failed = Some(Failure {
                code: reset::CANCELLED,
                text: String::new(),
            });
            x.sent = true;
        }
        open
    });
    if open == Some(true) {
        rings::send(
            Header::new(Kind::Reset, id, reset::CANCELLED),
            b"the component dropped the exchange",
        );
    }
}

/// How many bytes may be sent now. `None`: nobody wants them.
pub fn credit(id: u32) -> Option<u32> {
    with(id, |x| {
        (!x.sent && !x.stopped && x.failed.is_none()).then_some(x.credit)
    })
    .flatten()
}

/// Whether [`credit`] has something to say.
pub fn writable(id: u32) -> bool {
    credit(id) != Some(0)
}

/// Sends a head.
pub fn send_head(header: Header, payload: &[u8]) {
    if header.flags & FLAG_END != 0 {
        with(header.stream, |x| x.sent = true);
    }
    rings::send(header, payload);
}

/// Sends data, for which there must be credit.
pub fn send_data(id: u32, bytes: &[u8]) {
    let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    with(id, |x| x.credit = x.credit.saturating_sub(len));
    rings::send(Header::new(Kind::Data, id, 0), bytes);
}

/// Whether the guest's part of the exchange is over.
pub fn sent(id: u32) -> bool {
    with(id, |x| x.sent).unwrap_or(true)
}

/// Ends the body that is sent.
pub fn end(id: u32, trailers: &[u8]) {
    if with(id, |x| core::mem::replace(&mut x.sent, true)) == Some(false) {
        rings::send(Header::new(Kind::End, id, 0), trailers);
    }
    if id & OUTGOING != 0 && with(id, |x| x.ended && x.unread) == Some(true) {
        forget(id);
    }
}

/// Gives the exchange up, if it is not over yet.
pub fn reset(id: u32, code: u32, text: &str) {
    let open = with(id, |x| {
        let open = !core::mem::replace(&mut x.sent, true);
        if open && id & OUTGOING != 0 {
            x.failed.get_or_insert_with(|| Failure {
                code,
                text: String::from(text),
            });
        }
        open
    });
    if open == Some(true) {
        let text = text
            .get(..text.floor_char_boundary(4096))
            .unwrap_or_default();
        rings::send(Header::new(Kind::Reset, id, code), text.as_bytes());
    }
}

/// The end of an incoming exchange, which must have been forgotten.
pub fn done(id: u32, outcome: u32, memory: u64) {
    let done = Done {
        cpu_ns: account::cpu_ns(),
        memory,
    };
    rings::send(Header::new(Kind::Done, id, outcome), &done.to_bytes());
}

/// Output of the component.
pub fn log(id: u32, descriptor: u32, bytes: &[u8]) {
    rings::send(Header::new(Kind::Log, id, descriptor), bytes);
}
