//! A TCP stream that collects small writes.
//!
//! In: packets, each followed by a flush (the client flushes after every acknowledgement). Out: one system call for all
//! that came together. Invariant: what is buffered is written before the next read waits, and at most
//! [`BUFFER_BYTES_MAX`] are buffered. Not here: TLS, which lies on top.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A thousand acknowledgements several times over; beyond it writing waits for the network.
const BUFFER_BYTES_MAX: usize = 64 << 10;

/// Whether flushes may wait for the next read; switched off before the last packet of a connection.
#[derive(Clone, Debug)]
pub(crate) struct Collecting(Arc<AtomicBool>);

impl Collecting {
    pub fn new() -> Collecting {
        Collecting(Arc::new(AtomicBool::new(true)))
    }

    pub fn stop(&self) {
        self.0.store(false, Ordering::Release);
    }

    fn is_on(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

#[derive(Debug)]
pub(crate) struct CollectedWrites<S> {
    inner: S,
    buffer: BytesMut,
    collecting: Collecting,
}

impl<S: AsyncWrite + Unpin> CollectedWrites<S> {
    pub fn new(inner: S, collecting: Collecting) -> CollectedWrites<S> {
        CollectedWrites { inner, buffer: BytesMut::new(), collecting }
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.buffer.is_empty() {
            match ready!(Pin::new(&mut self.inner).poll_write(cx, &self.buffer))? {
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
        if let Poll::Ready(Err(e)) = self.poll_drain(cx) {
            return Poll::Ready(Err(e));
        }
        Pin::new(&mut self.inner).poll_read(cx, out)
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
        if self.collecting.is_on() {
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    #[tokio::test]
    async fn writes_leave_together_before_a_read() {
        let (near, mut far) = duplex(1024);
        let mut stream = CollectedWrites::new(near, Collecting::new());
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

    #[tokio::test]
    async fn once_collecting_stops_a_flush_is_a_flush() {
        let (near, mut far) = duplex(1024);
        let collecting = Collecting::new();
        let mut stream = CollectedWrites::new(near, collecting.clone());
        collecting.stop();
        stream.write_all(b"bye").await.unwrap();
        stream.flush().await.unwrap();
        drop(stream);
        let mut got = Vec::new();
        far.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"bye");
    }

    #[tokio::test]
    async fn the_buffer_is_bounded_by_the_peer() {
        let (near, mut far) = duplex(16);
        let mut stream = CollectedWrites::new(near, Collecting::new());
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
