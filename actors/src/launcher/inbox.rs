//! The launcher's end of the socket: requests with their descriptors come in, replies go out.

use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

use super::protocol::{self, Reply, Request};
use super::spawn;

/// Standard input, output and error, and a channel of two pipes.
const MAX_FDS: usize = 5;

/// A blocking socket and what it brought.
pub struct Inbox {
    socket: OwnedFd,
    received: Vec<u8>,
    fds: Vec<OwnedFd>,
}

impl Inbox {
    /// Nothing was read yet.
    pub fn new(socket: OwnedFd) -> Self {
        Self { socket, received: Vec::new(), fds: Vec::new() }
    }

    /// Waits for a request; none when the service is gone.
    pub fn wait(&mut self) -> nix::Result<Option<(Request, Vec<OwnedFd>)>> {
        loop {
            if let Some(request) = self.next() {
                return Ok(Some(request));
            }
            if !self.receive()? {
                return Ok(None);
            }
        }
    }

    /// Reads what there is; false when the service is gone.
    pub fn receive(&mut self) -> nix::Result<bool> {
        let mut buffer = [0; 16 * 1024];
        let mut control = nix::cmsg_space!([RawFd; MAX_FDS]);
        let mut slices = [IoSliceMut::new(&mut buffer)];
        let socket = self.socket.as_raw_fd();
        let message = recvmsg::<()>(socket, &mut slices, Some(&mut control), MsgFlags::MSG_CMSG_CLOEXEC);
        let message = match message {
            Ok(message) => message,
            Err(Errno::EINTR) => return Ok(true),
            Err(Errno::ECONNRESET) => return Ok(false),
            Err(error) => return Err(error),
        };
        let read = message.bytes;
        for control in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(fds) = control {
                self.fds.extend(fds.into_iter().map(spawn::own));
            }
        }
        self.received.extend_from_slice(&buffer[..read]);
        Ok(read > 0)
    }

    /// The next whole request that was read, with the descriptors that came with it.
    pub fn next(&mut self) -> Option<(Request, Vec<OwnedFd>)> {
        // The service speaks this protocol or is not the service.
        let request = protocol::decode(&mut self.received).expect("the service sends valid requests")?;
        let fds =
            if matches!(request, Request::Start(_)) { std::mem::take(&mut self.fds) } else { Vec::new() };
        Some((request, fds))
    }

    /// Tells the service; one that is gone is found out at the next look.
    pub fn send(&self, reply: &Reply) -> nix::Result<()> {
        let bytes = protocol::encode(reply);
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            match nix::sys::socket::send(self.socket.as_raw_fd(), rest, MsgFlags::MSG_NOSIGNAL) {
                Ok(sent) => rest = &rest[sent..],
                Err(Errno::EINTR) => {}
                Err(Errno::EPIPE | Errno::ECONNRESET) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl AsFd for Inbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
