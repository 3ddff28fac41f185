//! A broker of MQTT 3.1.1 that closes the connection without a word at a publish to one topic.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[derive(Default)]
struct Seen {
    closes_at: Option<String>,
    /// By topic.
    payloads: HashMap<String, Vec<String>>,
}

pub struct WordlessBroker {
    port: u16,
    seen: Arc<Mutex<Seen>>,
    task: tokio::task::JoinHandle<()>,
}

impl WordlessBroker {
    pub async fn start(closes_at: &str) -> WordlessBroker {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Mutex::new(Seen { closes_at: Some(closes_at.to_owned()), ..Seen::default() }));
        let shared = seen.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, shared.clone()));
            }
        });
        WordlessBroker { port, seen, task }
    }

    pub fn url(&self) -> String {
        format!("mqtt://127.0.0.1:{}", self.port)
    }

    /// Takes every topic from now on.
    pub fn allow_all(&self) {
        self.seen.lock().unwrap().closes_at = None;
    }

    pub fn payloads_at(&self, topic: &str) -> Vec<String> {
        self.seen.lock().unwrap().payloads.get(topic).cloned().unwrap_or_default()
    }
}

impl Drop for WordlessBroker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Ends with the connection.
async fn serve(mut stream: TcpStream, seen: Arc<Mutex<Seen>>) -> Option<()> {
    loop {
        let (kind, body) = packet(&mut stream).await?;
        match kind >> 4 {
            1 => stream.write_all(&[0x20, 2, 0, 0]).await.ok()?,
            3 => {
                let length = usize::from(u16::from_be_bytes([body[0], body[1]]));
                let topic = String::from_utf8(body[2..2 + length].to_vec()).unwrap();
                let id = [body[2 + length], body[3 + length]];
                let payload = String::from_utf8(body[4 + length..].to_vec()).unwrap();
                {
                    let mut seen = seen.lock().unwrap();
                    if seen.closes_at.as_ref() == Some(&topic) {
                        return None;
                    }
                    seen.payloads.entry(topic).or_default().push(payload);
                }
                stream.write_all(&[0x40, 2, id[0], id[1]]).await.ok()?;
            }
            12 => stream.write_all(&[0xd0, 0]).await.ok()?,
            _ => return None,
        }
    }
}

/// The first byte of a packet, and what follows its length.
async fn packet(stream: &mut TcpStream) -> Option<(u8, Vec<u8>)> {
    let kind = stream.read_u8().await.ok()?;
    let (mut length, mut shift) = (0usize, 0);
    loop {
        let byte = stream.read_u8().await.ok()?;
        length |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some((kind, body))
}
