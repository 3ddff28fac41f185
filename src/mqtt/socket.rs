//! A TCP stream that collects small writes, that reads nothing where it is told so, and that ends when the peer has
//! read what was written.
//!
//! In: packets, each followed by a flush (the client flushes after every packet or two). Out: one system call for all
//! that came together; behind the last packet, the peer's own close. Invariant: what is buffered is written when the
//! next read waits, or [`PAUSE`] later where something was written just before and nothing came since, also while
//! nothing is to be read; at most [`BUFFER_BYTES_MAX`] are buffered. Not here: TLS, which lies on top.
//!
//! Packets of one commit come from another thread, one by one, while the client already writes the first. So the first
//! leaves at once, and those behind it leave together.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use crate::time::task_now;
use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

/// A thousand acknowledgements several times over; beyond it writing waits for the network.
const BUFFER_BYTES_MAX: usize = 64 << 10;
/// The least time between two system calls that write little.
const PAUSE: Duration = Duration::from_millis(1);
/// This much is written at once.
const MUCH_TO_WRITE: usize = 16 << 10;
/// A broker that is alive closes its end sooner.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// What is decided of a connection outside of it: that nothing is read for a while, and how it comes to its end.
#[derive(Debug)]
pub(crate) struct Ending<S = TcpStream>(Arc<Shared<S>>);

#[derive(Debug)]
struct Shared<S> {
    /// Nothing is to be read.
    is_still: AtomicBool,
    /// Who wants to read meanwhile.
    reader: Mutex<Option<Waker>>,
    /// Flushes do not wait for the next read any more.
    is_near: AtomicBool,
    /// The stream, once the client is done with it.
    left: Mutex<Option<S>>,
}

impl<S> Clone for Ending<S> {
    fn clone(&self) -> Ending<S> {
        Ending(self.0.clone())
    }
}

impl<S> Ending<S> {
    pub fn new() -> Ending<S> {
        let (is_still, is_near) = (AtomicBool::new(false), AtomicBool::new(false));
        Ending(Arc::new(Shared { is_still, reader: Mutex::new(None), is_near, left: Mutex::new(None) }))
    }

    /// Nothing is read from here on: the network holds the peer back. What is written still leaves.
    pub fn read_nothing(&self) {
        self.0.is_still.store(true, Ordering::SeqCst);
    }

    /// What comes is read again.
    pub fn read_on(&self) {
        self.0.is_still.store(false, Ordering::SeqCst);
        if let Some(reader) = self.reader().take() {
            reader.wake();
        }
    }

    /// Whether a read has to wait; it is woken then.
    fn holds_back(&self, cx: &Context<'_>) -> bool {
        if !self.0.is_still.load(Ordering::SeqCst) {
            return false;
        }
        *self.reader() = Some(cx.waker().clone());
        // it may have been told meanwhile, and found nobody to wake
        self.0.is_still.load(Ordering::SeqCst)
    }

    fn reader(&self) -> MutexGuard<'_, Option<Waker>> {
        self.0.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be said before the last packet is queued: it is not to be collected.
    pub fn is_coming(&self) {
        self.0.is_near.store(true, Ordering::Release);
    }

    fn is_near(&self) -> bool {
        self.0.is_near.load(Ordering::Acquire)
    }

    fn left(&self) -> Option<S> {
        self.0.left.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Ending<S> {
    /// Waits until the peer closed the connection, for 2 s at most. The client must be gone. Before that the peer may
    /// not have read all that was sent, and a broker that is given a new connection of the same client id reads no
    /// further in the former one.
    pub async fn closed_by_peer(&self) {
        let Some(mut stream) = self.left() else { return };
        let closed = async {
            // where the connection is broken there is nothing to wait for
            let mut is_open = stream.shutdown().await.is_ok();
            let mut unread = [0; 4 << 10];
            while is_open {
                is_open = stream.read(&mut unread).await.is_ok_and(|n| n > 0);
            }
        };
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, closed).await;
    }
}

#[derive(Debug)]
pub(crate) struct CollectedWrites<S> {
    /// `None` only while it is dropped.
    inner: Option<S>,
    buffer: BytesMut,
    /// When the last system call was made.
    written: Option<Instant>,
    /// Runs while the buffer waits.
    pause: Pin<Box<Sleep>>,
    ending: Ending<S>,
}

impl<S> CollectedWrites<S> {
    pub fn new(inner: S, ending: Ending<S>) -> CollectedWrites<S> {
        let pause = Box::pin(tokio::time::sleep(Duration::ZERO));
        CollectedWrites { inner: Some(inner), buffer: BytesMut::new(), written: None, pause, ending }
    }
}

impl<S> Drop for CollectedWrites<S> {
    fn drop(&mut self) {
        if self.ending.is_near() {
            *self.ending.0.left.lock().unwrap_or_else(PoisonError::into_inner) = self.inner.take();
        }
    }
}

impl<S: AsyncWrite + Unpin> CollectedWrites<S> {
    fn inner(&mut self) -> io::Result<Pin<&mut S>> {
        self.inner.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Writes what is buffered, unless something was written just before and little waits: then a later call does.
    fn poll_collected(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.buffer.is_empty() {
            return Poll::Ready(Ok(()));
        }
        if let Some(due) = self.written.map(|written| written + PAUSE)
            && self.buffer.len() < MUCH_TO_WRITE
            && task_now() < due
        {
            if self.pause.deadline() != due {
                self.pause.as_mut().reset(due);
            }
            if self.pause.as_mut().poll(cx).is_pending() {
                return Poll::Ready(Ok(()));
            }
        }
        self.poll_drain(cx)
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.buffer.is_empty() {
            self.written = Some(task_now());
        }
        let Some(inner) = &mut self.inner else { return Poll::Ready(Err(io::ErrorKind::NotConnected.into())) };
        while !self.buffer.is_empty() {
            match ready!(Pin::new(&mut *inner).poll_write(cx, &self.buffer))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                n => self.buffer.advance(n),
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for CollectedWrites<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        // a peer that reads slowly must not keep us from reading
        if let Poll::Ready(Err(e)) = self.poll_collected(cx) {
            return Poll::Ready(Err(e));
        }
        if self.ending.holds_back(cx) {
            return Poll::Pending;
        }
        let before = out.filled().len();
        ready!(self.inner()?.poll_read(cx, out))?;
        if out.filled().len() > before {
            // the peer has answered: what follows is not of the same moment, and it may wait for that
            self.written = None;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for CollectedWrites<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.buffer.len() >= BUFFER_BYTES_MAX {
            ready!(self.poll_drain(cx))?;
        }
        let n = bytes.len().min(BUFFER_BYTES_MAX);
        self.buffer.extend_from_slice(bytes.get(..n).unwrap_or_default());
        Poll::Ready(Ok(n))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.ending.is_near() {
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_drain(cx))?;
        self.inner()?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        self.inner()?.poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    #[tokio::test]
    async fn writes_leave_together_before_a_read() {
        let (near, mut far) = duplex(1024);
        let mut stream = CollectedWrites::new(near, Ending::new());
        for packet in ["ab", "cd"] {
            stream.write_all(packet.as_bytes()).await.unwrap();
            stream.flush().await.unwrap();
        }
        assert_eq!(stream.buffer.len(), 4);
        far.write_all(b"x").await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b'x');
        let mut got = [0; 4];
        far.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"abcd");
    }

    /// Asks for something to read, where nothing comes.
    async fn ask(stream: &mut CollectedWrites<DuplexStream>, patience: Duration) {
        assert!(tokio::time::timeout(patience, stream.read(&mut [0])).await.is_err());
    }

    #[tokio::test]
    async fn what_is_written_just_behind_a_write_leaves_a_moment_later_and_together() {
        let (near, mut far) = duplex(MUCH_TO_WRITE);
        let mut stream = CollectedWrites::new(near, Ending::new());
        let mut got = vec![0; MUCH_TO_WRITE];
        stream.write_all(b"first").await.unwrap();
        ask(&mut stream, Duration::ZERO).await;
        assert_eq!(far.read(&mut got).await.unwrap(), 5, "it leaves at once");

        let just_before = task_now() + Duration::from_secs(3_600);
        stream.written = Some(just_before);
        for byte in *b"more" {
            stream.write_all(&[byte]).await.unwrap();
            ask(&mut stream, Duration::ZERO).await;
        }
        assert_eq!(stream.buffer.len(), 4);
        stream.written = Some(task_now());
        let (n, ()) = tokio::join!(far.read(&mut got), ask(&mut stream, PAUSE * 50));
        assert_eq!(got.get(..n.unwrap()), Some(&b"more"[..]), "the pause ends by itself");

        stream.written = Some(just_before);
        stream.write_all(&vec![7; MUCH_TO_WRITE]).await.unwrap();
        ask(&mut stream, Duration::ZERO).await;
        assert!(stream.buffer.is_empty(), "this is not little");
    }

    #[tokio::test]
    async fn while_nothing_is_read_what_is_written_leaves() {
        let (near, mut far) = duplex(1024);
        let ending = Ending::new();
        let mut stream = CollectedWrites::new(near, ending.clone());
        far.write_all(b"abc").await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b'a');
        stream.written = Some(task_now());
        stream.write_all(b"ack").await.unwrap();
        ending.read_nothing();
        let reading = tokio::spawn(async move {
            let mut got = [0; 2];
            stream.read_exact(&mut got).await.map(|_| got)
        });
        let mut got = [0; 3];
        far.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"ack");
        assert!(!reading.is_finished());
        ending.read_on();
        assert_eq!(&reading.await.unwrap().unwrap(), b"bc");
    }

    #[tokio::test]
    async fn near_the_end_a_flush_is_a_flush_and_the_peer_closes_first() {
        let (near, mut far) = duplex(1024);
        let ending = Ending::new();
        let mut stream = CollectedWrites::new(near, ending.clone());
        ending.is_coming();
        stream.write_all(b"bye").await.unwrap();
        stream.flush().await.unwrap();
        drop(stream);
        let closing = tokio::spawn(async move { ending.closed_by_peer().await });
        far.write_all(b"too late").await.unwrap();
        let mut got = Vec::new();
        far.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"bye");
        assert!(!closing.is_finished());
        drop(far);
        closing.await.unwrap();
    }

    #[tokio::test]
    async fn a_peer_that_never_closes_is_left() {
        let (near, _far) = duplex(1024);
        let ending = Ending::new();
        ending.is_coming();
        drop(CollectedWrites::new(near, ending.clone()));
        tokio::time::timeout(CLOSE_TIMEOUT * 5, ending.closed_by_peer()).await.unwrap();
    }

    #[tokio::test]
    async fn without_a_goodbye_the_connection_ends_at_once() {
        let (near, mut far) = duplex(1024);
        let ending = Ending::new();
        drop(CollectedWrites::new(near, ending.clone()));
        assert_eq!(far.read(&mut [0]).await.unwrap(), 0);
        ending.closed_by_peer().await;
    }

    #[tokio::test]
    async fn the_buffer_is_bounded_by_the_peer() {
        let (near, mut far) = duplex(16);
        let mut stream = CollectedWrites::new(near, Ending::new());
        let big = vec![7u8; BUFFER_BYTES_MAX * 3];
        let writer = tokio::spawn(async move {
            stream.write_all(&big).await.unwrap();
            assert!(stream.buffer.len() <= BUFFER_BYTES_MAX * 2);
            stream.shutdown().await.unwrap();
        });
        let mut got = Vec::new();
        far.read_to_end(&mut got).await.unwrap();
        writer.await.unwrap();
        assert_eq!(got.len(), BUFFER_BYTES_MAX * 3);
    }
}
