//! Makes the client accept the session that the broker kept.
//!
//! In: the client id. Out: a session store that always holds a session with nothing in flight from us. Invariant: that
//! is the truth: what an output has under way is not part of the session, since it sends rows again by itself, and the
//! messages in flight to us are the broker's to remember. Without it the client refuses a kept session, or accepts it
//! but then refuses to subscribe. Not here: anything durable.

use rumqttc::{PersistedAckMode, PersistedSession, SessionStore, SessionStoreError, SessionStoreKey};

type Answer<'a, T> = std::pin::Pin<Box<dyn Future<Output = Result<T, SessionStoreError>> + Send + 'a>>;

#[derive(Debug)]
pub(super) struct NothingInFlight {
    pub session_expiry_seconds: u32,
    /// As the client's options have it.
    pub outgoing_max: u16,
}

impl SessionStore for NothingInFlight {
    fn load<'a>(&'a self, key: &'a SessionStoreKey) -> Answer<'a, Option<PersistedSession>> {
        let session = PersistedSession {
            format_version: 1,
            client_id: key.client_id().to_owned(),
            clean_start: false,
            session_expiry_interval: Some(self.session_expiry_seconds),
            outgoing_inflight_upper_limit: Some(self.outgoing_max),
            ack_mode: PersistedAckMode::Manual,
            last_pkid: 0,
            last_puback: 0,
            replay: Vec::new(),
            incoming_qos2: Vec::new(),
        };
        Box::pin(std::future::ready(Ok(Some(session))))
    }

    fn save<'a>(&'a self, _: &'a SessionStoreKey, _: &'a PersistedSession) -> Answer<'a, ()> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn clear<'a>(&'a self, _: &'a SessionStoreKey) -> Answer<'a, ()> {
        Box::pin(std::future::ready(Ok(())))
    }
}
