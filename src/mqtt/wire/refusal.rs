//! Answers that a client does not understand.
//!
//! In: what the other end sends first. Out: whether it is the CONNACK of MQTT 3.1.1 that says "unacceptable protocol
//! version", or HTTP. Invariant: nothing of the stream is changed. Not here: streams with TLS on top, where these bytes
//! cannot be seen.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// CONNACK, two bytes more, no session, code 1: the client takes it for the start of something longer.
const REFUSAL: u32 = u32::from_be_bytes([0x20, 2, 0, 1]);

/// The first four bytes of a stream, as they come in.
#[derive(Clone, Debug, Default)]
pub struct FirstBytes(Arc<AtomicU32>);

impl FirstBytes {
    pub fn are_refusal(&self) -> bool {
        self.0.load(Ordering::Acquire) == REFUSAL
    }

    pub fn are_http(&self) -> bool {
        self.0.load(Ordering::Acquire) == u32::from_be_bytes(*b"HTTP")
    }
}

/// A stream whose first bytes are noted.
#[derive(Debug)]
pub struct Noted<S> {
    inner: S,
    first: FirstBytes,
    noted: usize,
}

impl<S> Noted<S> {
    pub fn new(inner: S, first: FirstBytes) -> Noted<S> {
        Noted { inner, first, noted: 0 }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Noted<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = out.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, out))?;
        let room = size_of::<u32>() - self.noted;
        for byte in out.filled().iter().skip(before).take(room) {
            let bytes = self.first.0.load(Ordering::Acquire);
            self.first.0.store(bytes << 8 | u32::from(*byte), Ordering::Release);
            self.noted += 1;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Noted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    #[tokio::test]
    async fn only_the_first_four_bytes_count() {
        for (sent, is_refusal) in [
            (&[0x20, 2, 0, 1][..], true),
            (&[0x20, 2, 0, 1, 0x20, 2, 0, 5], true),
            (&[0x20, 2, 0, 5], false),
            (&[0, 0x20, 2, 0, 1], false),
            (&[0x20, 2, 0], false),
        ] {
            let (near, mut far) = duplex(64);
            let first = FirstBytes::default();
            let mut noted = Noted::new(near, first.clone());
            let mut got = Vec::new();
            for part in sent.chunks(3) {
                far.write_all(part).await.unwrap();
                got.resize(got.len() + part.len(), 0);
                let from = got.len() - part.len();
                noted.read_exact(&mut got[from..]).await.unwrap();
            }
            assert_eq!((got.as_slice(), first.are_refusal()), (sent, is_refusal));
        }
    }
}
