//! One HTTP exchange with a guest: what the guest sent and nobody took yet, what it may still send, what may be sent to it.
//!
//! The same state serves both kinds: incoming, where the guest answers and says `DONE`; outgoing, where it asks. All
//! that a guest says about an exchange is judged here, in the methods named `on_…`, and nowhere else; a
//! [`Violation`] costs it its VM. Nothing here touches a ring.

use std::collections::VecDeque;
use std::ops::Deref;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use sandbox_abi::message::{Done, FLAG_END, Header, INITIAL_CREDIT, Kind, MAX_DATA};
use sandbox_abi::window::{Extra, Window};

use super::failure::{Failure, Violation};

/// Credit beyond which a guest cannot mean it.
const MAX_CREDIT: u32 = 1 << 30;
/// Parts that may wait before small ones are joined.
const MANY: usize = 32;
/// Bytes below which a part is small.
const SMALL: usize = 1024;

/// The head that the guest sent, still encoded.
#[derive(Debug)]
pub(crate) struct RawHead {
    /// The payload.
    pub(crate) payload: Bytes,
    /// Whether the whole body had arrived when the head was taken.
    pub(crate) complete: bool,
}

/// What a body has next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Bytes, never none.
    Data(Bytes),
    /// The end, with encoded trailers if there are any.
    End(Option<Bytes>),
}

/// The payload of a record.
#[derive(Debug)]
pub(crate) enum Payload<'b> {
    /// In memory that is used for the next one.
    Borrowed(&'b [u8]),
    /// In memory of its own.
    Owned(Bytes),
}

impl Payload<'_> {
    fn into_bytes(self) -> Bytes {
        match self {
            Payload::Borrowed(bytes) => Bytes::copy_from_slice(bytes),
            Payload::Owned(bytes) => bytes,
        }
    }
}

impl Deref for Payload<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Payload::Borrowed(bytes) => bytes,
            Payload::Owned(bytes) => bytes,
        }
    }
}

/// The state of an exchange.
#[derive(Debug, Default)]
pub(crate) struct Exchange {
    /// Counts the uses of the place, so that a late hand cannot touch a later exchange.
    pub(crate) generation: u64,
    /// Whether the guest may speak about it.
    pub(crate) open: bool,
    /// The head is still awaited.
    head_due: bool,
    head: Option<Bytes>,
    inbox: VecDeque<Bytes>,
    /// Bytes that the guest may send.
    allowed: u32,
    window: Window,
    /// The guest's body has ended.
    ended: bool,
    trailers: Option<Bytes>,
    /// The host wants no more of the guest's body.
    unwanted: bool,
    pub(crate) failure: Option<Failure>,
    reader: Option<Waker>,
    /// Bytes that may be sent to the guest.
    credit: u32,
    /// The guest wants no more.
    stopped: bool,
    writer: Option<Waker>,
}

impl Exchange {
    /// Begins an exchange whose head comes from the guest if `head_due`, and has come already otherwise.
    pub(crate) fn begin(&mut self, head_due: bool, ended: bool) {
        let inbox = std::mem::take(&mut self.inbox);
        *self = Exchange {
            generation: self.generation.wrapping_add(1),
            open: true,
            head_due,
            inbox,
            allowed: INITIAL_CREDIT,
            ended,
            credit: INITIAL_CREDIT,
            ..Exchange::default()
        };
        self.inbox.clear();
    }

    /// Ends the exchange: the guest may not speak of it again.
    pub(crate) fn close(&mut self, extra: &Extra) {
        self.window.close(extra);
        self.open = false;
        self.inbox.clear();
        self.head = None;
        self.trailers = None;
        self.failure = None;
        self.reader = None;
        self.writer = None;
    }

    /// Judges and takes a record of the guest. Who has to be woken is added to `wakers`.
    pub(crate) fn on_record(
        &mut self,
        header: Header,
        payload: Payload<'_>,
        wakers: &mut Vec<Waker>,
    ) -> Result<(), Violation> {
        if !self.open {
            return Err(Violation("a record for an exchange that is not open"));
        }
        match header.kind {
            Kind::Response => self.on_head(header, &payload)?,
            Kind::Data => self.on_data(payload)?,
            Kind::End => self.on_end(&payload)?,
            Kind::Reset => self.on_reset(header.aux, &payload),
            Kind::Credit => return self.on_credit(header.aux, wakers),
            Kind::Stop => {
                self.stopped = true;
                wakers.extend(self.writer.take());
                return Ok(());
            }
            Kind::Request | Kind::Done | Kind::Log | Kind::Ready => {
                return Err(Violation("a record of a kind that has no place here"));
            }
        }
        wakers.extend(self.reader.take());
        if self.failure.is_some() {
            wakers.extend(self.writer.take());
        }
        Ok(())
    }

    fn on_head(&mut self, header: Header, payload: &[u8]) -> Result<(), Violation> {
        if !self.head_due {
            return Err(Violation("a second head"));
        }
        self.head_due = false;
        self.ended = header.flags & FLAG_END != 0;
        self.head = Some(Bytes::copy_from_slice(payload));
        Ok(())
    }

    fn on_data(&mut self, payload: Payload<'_>) -> Result<(), Violation> {
        if self.head_due || self.ended {
            return Err(Violation("data before the head or after the end"));
        }
        if payload.len() > MAX_DATA {
            return Err(Violation("a data record that is too long"));
        }
        let length = u32::try_from(payload.len())
            .map_err(|_| Violation("a data record that is too long"))?;
        self.allowed = self
            .allowed
            .checked_sub(length)
            .ok_or(Violation("data beyond its credit"))?;
        if !payload.is_empty() && !self.unwanted && self.failure.is_none() {
            if self.inbox.len() >= MANY && payload.len() < SMALL {
                self.merge();
            }
            self.inbox.push_back(payload.into_bytes());
        }
        Ok(())
    }

    /// Joins what waits: a body of single bytes must not take more memory than its window.
    fn merge(&mut self) {
        let all: Vec<u8> = self.inbox.drain(..).flatten().collect();
        self.inbox.push_back(all.into());
    }

    fn on_end(&mut self, payload: &[u8]) -> Result<(), Violation> {
        if self.head_due || self.ended {
            return Err(Violation("an end before the head or after the end"));
        }
        self.ended = true;
        self.trailers = (!payload.is_empty()).then(|| Bytes::copy_from_slice(payload));
        Ok(())
    }

    /// May come at any time; after the end it says nothing about the response, which stands.
    fn on_reset(&mut self, code: u32, payload: &[u8]) {
        self.stopped = true;
        if !self.ended {
            self.fail_as(Failure::Guest(
                code,
                Bytes::copy_from_slice(payload.get(..1024).unwrap_or(payload)),
            ));
        }
        self.head_due = false;
        self.ended = true;
    }

    fn on_credit(&mut self, bytes: u32, wakers: &mut Vec<Waker>) -> Result<(), Violation> {
        let credit = self
            .credit
            .checked_add(bytes)
            .filter(|&sum| sum <= MAX_CREDIT);
        self.credit = credit.ok_or(Violation("more credit than there can be"))?;
        wakers.extend(self.writer.take());
        Ok(())
    }

    /// Judges `DONE` of an incoming exchange; afterwards the guest may not speak of it.
    pub(crate) fn on_done(
        &mut self,
        outcome: u32,
        payload: &[u8],
        wakers: &mut Vec<Waker>,
    ) -> Result<Done, Violation> {
        if !self.open {
            return Err(Violation("an end of an exchange that is not open"));
        }
        let done = Done::from_bytes(payload).ok_or(Violation("an end without its figures"))?;
        if !self.ended {
            self.fail_as(Failure::NoResponse(outcome));
        }
        self.finish(wakers);
        Ok(done)
    }

    /// The guest has no more to say, for whatever reason.
    pub(crate) fn finish(&mut self, wakers: &mut Vec<Waker>) {
        self.open = false;
        self.head_due = false;
        self.ended = true;
        self.stopped = true;
        wakers.extend(self.reader.take());
        wakers.extend(self.writer.take());
    }

    /// Wakes whoever sends the body, so that it sees that nobody wants it.
    pub(crate) fn wake_writer(&mut self) {
        if let Some(writer) = self.writer.take() {
            writer.wake();
        }
    }

    /// Notes a failure, unless there was one before. What the guest still sends is counted and dropped.
    pub(crate) fn fail_as(&mut self, failure: Failure) {
        if self.failure.is_none() {
            self.failure = Some(failure);
        }
        self.inbox.clear();
    }

    /// As [`Exchange::fail_as`], for the host: readers and writers learn of it.
    pub(crate) fn fail(&mut self, failure: Failure, wakers: &mut Vec<Waker>) {
        self.fail_as(failure);
        wakers.extend(self.reader.take());
        wakers.extend(self.writer.take());
    }

    /// Whether the guest has said all that it had to say of a response.
    pub(crate) fn ended(&self) -> bool {
        self.ended
    }

    /// Whether the head is still awaited.
    pub(crate) fn head_due(&self) -> bool {
        self.head_due
    }

    /// Drops what has come of the guest's body and will come.
    pub(crate) fn discard(&mut self) {
        self.unwanted = true;
        self.inbox.clear();
    }

    /// Takes the head. A failure that comes before it counts as the answer.
    pub(crate) fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<RawHead, Failure>> {
        if let Some(payload) = self.head.take() {
            let complete = self.ended && self.failure.is_none();
            return Poll::Ready(Ok(RawHead { payload, complete }));
        }
        if let Some(failure) = &self.failure {
            return Poll::Ready(Err(failure.clone()));
        }
        store(&mut self.reader, cx);
        Poll::Pending
    }

    /// Takes the next part of the guest's body. The number is a credit to grant, 0 for none.
    pub(crate) fn poll_part(
        &mut self,
        cx: &mut Context<'_>,
        extra: &Extra,
    ) -> Poll<Result<(Part, u32), Failure>> {
        if let Some(failure) = &self.failure {
            return Poll::Ready(Err(failure.clone()));
        }
        if let Some(data) = self.inbox.pop_front() {
            let credit = self.take_credit(data.len(), extra);
            return Poll::Ready(Ok((Part::Data(data), credit)));
        }
        if self.ended {
            return Poll::Ready(Ok((Part::End(self.trailers.take()), 0)));
        }
        store(&mut self.reader, cx);
        Poll::Pending
    }

    fn take_credit(&mut self, length: usize, extra: &Extra) -> u32 {
        if self.ended || !self.open {
            return 0;
        }
        let credit = self.window.read(length, extra);
        self.allowed = self.allowed.saturating_add(credit);
        credit
    }

    /// Waits until something may be sent to the guest, and says how much. `None`: it wants no more.
    pub(crate) fn poll_credit(&mut self, cx: &mut Context<'_>) -> Poll<Option<u32>> {
        if !self.open || self.stopped || self.failure.is_some() {
            return Poll::Ready(None);
        }
        if self.credit > 0 {
            return Poll::Ready(Some(self.credit));
        }
        store(&mut self.writer, cx);
        Poll::Pending
    }

    /// Waits until the guest wants no more of what is sent to it.
    pub(crate) fn poll_stopped(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.open || self.stopped || self.failure.is_some() {
            return Poll::Ready(());
        }
        store(&mut self.writer, cx);
        Poll::Pending
    }

    /// Notes that `bytes` were sent.
    pub(crate) fn spend(&mut self, bytes: usize) {
        self.credit = self
            .credit
            .saturating_sub(u32::try_from(bytes).unwrap_or(u32::MAX));
    }
}

fn store(place: &mut Option<Waker>, cx: &mut Context<'_>) {
    match place {
        Some(waker) if waker.will_wake(cx.waker()) => {}
        _ => *place = Some(cx.waker().clone()),
    }
}

#[cfg(test)]
mod tests;
