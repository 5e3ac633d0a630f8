//! One end of the socket.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, RecvMsg, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use serde::{Serialize, de::DeserializeOwned};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::time::Duration;

/// Most descriptors in one message.
pub const MAX_FDS: usize = 8;
/// Most bytes in one message: the figures of some thousand VMs.
pub const MAX_MESSAGE: usize = 1 << 20;
/// Kernel buffer asked for; the kernel grants what `net.core.wmem_max` allows unless the process is privileged.
const BUFFER: usize = MAX_MESSAGE;

/// A message was not sent.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// Longer than [`MAX_MESSAGE`], or than the kernel takes in one packet.
    #[error("a message of {0} bytes is too long for the worker's socket")]
    TooLong(usize),
    /// It has no form in JSON.
    #[error("cannot encode a message")]
    Encode(#[source] serde_json::Error),
    /// The other end is gone, or the kernel refused.
    #[error("cannot send a message")]
    Kernel(#[source] Errno),
}

/// A message was not received.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// The other end is closed.
    #[error("the other end of the worker's socket is closed")]
    Closed,
    /// Not a message that this version knows.
    #[error("cannot decode a message")]
    Decode(#[source] serde_json::Error),
    /// Longer than [`MAX_MESSAGE`], or more descriptors than [`MAX_FDS`].
    #[error("a message was cut off")]
    Truncated,
    /// The kernel refused; `EAGAIN` on a non-blocking socket means that nothing is there.
    #[error("cannot receive a message")]
    Kernel(#[source] Errno),
}

/// One end.
#[derive(Debug)]
pub struct Socket(OwnedFd);

impl Socket {
    /// Makes two connected ends, blocking, closed on exec.
    pub fn pair() -> Result<(Socket, Socket), Errno> {
        let (a, b) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        for end in [&a, &b] {
            // Best effort: a small buffer only bounds of how many VMs there are figures.
            let _ = rustix::net::sockopt::set_socket_send_buffer_size_force(end, BUFFER)
                .or_else(|_| rustix::net::sockopt::set_socket_send_buffer_size(end, BUFFER));
        }
        Ok((Socket(a), Socket(b)))
    }

    /// Takes over an end that another process made.
    pub fn from_fd(fd: OwnedFd) -> Socket {
        Socket(fd)
    }

    /// The descriptor itself, to hand to a child.
    pub fn into_fd(self) -> OwnedFd {
        self.0
    }

    /// Another handle of the same end.
    pub fn try_clone(&self) -> std::io::Result<Socket> {
        self.0.try_clone().map(Socket)
    }

    /// Makes sends and receives fail with `EAGAIN` instead of waiting, for use under an event loop.
    pub fn set_nonblocking(&self) -> Result<(), Errno> {
        rustix::io::ioctl_fionbio(&self.0, true)
    }

    /// Sends a message and copies of `fds`.
    pub fn send<T: Serialize>(&self, message: &T, fds: &[BorrowedFd<'_>]) -> Result<(), SendError> {
        let bytes = serde_json::to_vec(message).map_err(SendError::Encode)?;
        if bytes.len() > MAX_MESSAGE {
            return Err(SendError::TooLong(bytes.len()));
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(SendError::Kernel(Errno::TOOBIG));
        }
        match rustix::net::sendmsg(
            &self.0,
            &[IoSlice::new(&bytes)],
            &mut ancillary,
            SendFlags::NOSIGNAL,
        ) {
            Ok(_) => Ok(()),
            Err(Errno::MSGSIZE) => Err(SendError::TooLong(bytes.len())),
            Err(e) => Err(SendError::Kernel(e)),
        }
    }

    /// Waits for a message, or for the other end to close, for so long; `false`: neither came.
    pub fn wait(&self, time: Duration) -> Result<bool, ReceiveError> {
        // More than a timespec has is without end.
        let time = Timespec::try_from(time).ok();
        let mut polled = [PollFd::new(&self.0, PollFlags::IN)];
        let ready = rustix::io::retry_on_intr(|| poll(&mut polled, time.as_ref()));
        Ok(ready.map_err(ReceiveError::Kernel)? > 0)
    }

    /// Receives a message and its descriptors, which are closed on exec. An end has one receiver at a time.
    pub fn receive<T: DeserializeOwned>(&self) -> Result<(T, Vec<OwnedFd>), ReceiveError> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        // Almost all are short: room for the longest would take longer to clear than most messages take.
        let ahead = RecvFlags::PEEK | RecvFlags::TRUNC;
        let waiting = self.receive_raw(&mut [], &mut RecvAncillaryBuffer::default(), ahead)?;
        let mut bytes = vec![0; waiting.bytes.min(MAX_MESSAGE)];
        let got = self.receive_raw(&mut bytes, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
        let mut fds = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        if got.bytes == 0 {
            return Err(ReceiveError::Closed);
        }
        if got
            .flags
            .intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC)
        {
            return Err(ReceiveError::Truncated);
        }
        let message = serde_json::from_slice(bytes.get(..got.bytes).unwrap_or_default())
            .map_err(ReceiveError::Decode)?;
        Ok((message, fds))
    }

    fn receive_raw(
        &self,
        bytes: &mut [u8],
        ancillary: &mut RecvAncillaryBuffer<'_>,
        flags: RecvFlags,
    ) -> Result<RecvMsg, ReceiveError> {
        rustix::io::retry_on_intr(|| {
            rustix::net::recvmsg(&self.0, &mut [IoSliceMut::new(bytes)], ancillary, flags)
        })
        .map_err(|e| {
            if e == Errno::CONNRESET {
                ReceiveError::Closed
            } else {
                ReceiveError::Kernel(e)
            }
        })
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Command, Event, VmId};

    #[test]
    fn a_message_and_its_descriptors_arrive() {
        let (a, b) = Socket::pair().unwrap();
        let (read, write) = rustix::pipe::pipe().unwrap();
        a.send(&Command::StopVm { vm: VmId(7) }, &[write.as_fd()])
            .unwrap();
        let (message, fds): (Command, _) = b.receive().unwrap();
        assert!(matches!(message, Command::StopVm { vm: VmId(7) }));
        rustix::io::write(&fds[0], b"x").unwrap();
        let mut byte = [0];
        assert_eq!(rustix::io::read(&read, &mut byte).unwrap(), 1);
    }

    #[test]
    fn short_and_long_messages_arrive_in_order() {
        let (a, b) = Socket::pair().unwrap();
        let (read, _write) = rustix::pipe::pipe().unwrap();
        for length in [1, 70_000, 3] {
            let reason = "x".repeat(length);
            let event = Event::NotStarted {
                vm: VmId(7),
                reason,
            };
            a.send(&event, &[read.as_fd()]).unwrap();
        }
        for length in [1, 70_000, 3] {
            let (message, fds): (Event, _) = b.receive().unwrap();
            assert!(matches!(message, Event::NotStarted { reason, .. } if reason.len() == length));
            assert_eq!(fds.len(), 1, "taken once, however often it was looked at");
        }
        b.set_nonblocking().unwrap();
        let nothing = b.receive::<Event>();
        assert!(matches!(nothing, Err(ReceiveError::Kernel(Errno::AGAIN))));
    }

    #[test]
    fn what_comes_is_waited_for() {
        let (a, b) = Socket::pair().unwrap();
        assert!(!b.wait(Duration::from_millis(1)).unwrap());
        a.send(&Command::Stats, &[]).unwrap();
        assert!(b.wait(Duration::MAX).unwrap());
        // It is still there.
        assert!(matches!(b.receive(), Ok((Command::Stats, _))));
    }

    #[test]
    fn a_closed_end_is_noticed() {
        let (a, b) = Socket::pair().unwrap();
        drop(a);
        assert!(b.wait(Duration::MAX).unwrap());
        assert!(matches!(b.receive::<Command>(), Err(ReceiveError::Closed)));
        assert!(matches!(
            b.send(&Command::Stats, &[]),
            Err(SendError::Kernel(_))
        ));
    }
}
