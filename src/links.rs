//! The machine's links: who waits for a connection learns at once when an address or a route changes.
//!
//! In: what the kernel says. Out: a number that changes with it. Invariant: changes that come together count once, and
//! there are at most two a second. Where the kernel does not tell, as in some containers, nothing ever changes here:
//! whoever waits looks by itself now and then too. Not here: what a change means, other systems than Linux.

use std::os::fd::OwnedFd;
use std::sync::OnceLock;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};
use tokio::sync::watch;

/// Links, addresses and routes of both families: `RTMGRP_LINK`, `…_IPV4_IFADDR`, `…_IPV4_ROUTE`, `…_IPV6_IFADDR` and
/// `…_IPV6_ROUTE` of `linux/rtnetlink.h`.
const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;
/// Changes within this time count once.
const TOGETHER: Duration = Duration::from_millis(500);

/// A number that changes whenever an address or a route of the machine does. One thread a process listens.
pub fn changes() -> watch::Receiver<u64> {
    static CHANGES: OnceLock<watch::Sender<u64>> = OnceLock::new();
    CHANGES.get_or_init(listening).subscribe()
}

fn listening() -> watch::Sender<u64> {
    let changes = watch::Sender::new(0);
    let told = changes.clone();
    let listening = socket()
        .map_err(std::io::Error::from)
        .and_then(|socket| std::thread::Builder::new().name("links".into()).spawn(move || listen(&socket, &told)));
    if let Err(why) = listening {
        tracing::debug!(%why, "the system does not tell when addresses change: endpoints out of reach are knocked at");
    }
    changes
}

fn socket() -> Result<OwnedFd, Errno> {
    // the route protocol is the number 0, which stands for none here
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    bind(&socket, &SocketAddrNetlink::new(0, GROUPS))?;
    Ok(socket)
}

/// Counts changes until the system ends it.
fn listen(socket: &OwnedFd, changes: &watch::Sender<u64>) {
    let mut message = [0_u8; 8192];
    loop {
        match recv(socket, &mut message[..], RecvFlags::empty()) {
            // more came than were read: something did change
            Ok(_) | Err(Errno::NOBUFS) => {}
            Err(Errno::INTR) => continue,
            Err(why) => {
                tracing::warn!(%why, "the system no longer tells when addresses change");
                return;
            }
        }
        crate::time::pause(TOGETHER);
        while let Ok(_) | Err(Errno::NOBUFS | Errno::INTR) = recv(socket, &mut message[..], RecvFlags::DONTWAIT) {}
        changes.send_modify(|changes| *changes += 1);
    }
}
