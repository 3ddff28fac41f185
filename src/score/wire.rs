//! The wire to an endpoint, as the task sees it.
//!
//! In: what is asked. Out: what comes back, some time later. Invariant: nothing is decided here. Not here: HTTP
//! (`http`).

use std::future::Future;
use std::pin::Pin;

use secrecy::SecretString;

use super::desk::{Answer, Request};
use super::dialect::Dialect;
use super::http::{EndpointClient, Fetched, Undescribed};
use crate::settings::Secret;

/// Something that is on the wire.
pub type ToCome<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// See the module.
pub trait Wire: Send {
    /// Sends a request; its number comes back with the answer.
    fn score(&self, request: Request, key: Option<SecretString>) -> ToCome<(u64, Answer)>;
    /// Asks for the endpoint's description.
    fn description(&self, key: Option<SecretString>) -> ToCome<Result<Fetched, Undescribed>>;
    /// Whether a connection comes about.
    fn knock(&self) -> ToCome<bool>;
    /// Reads a key; one that cannot be sent is refused here.
    ///
    /// # Errors
    /// Why there is none, and what to do.
    fn read_key(&self, secret: &Secret) -> Result<SecretString, String>;
    /// How the endpoint is spoken to.
    fn dialect(&self) -> &dyn Dialect;
}

impl Wire for EndpointClient {
    fn score(&self, request: Request, key: Option<SecretString>) -> ToCome<(u64, Answer)> {
        let client = self.clone();
        Box::pin(async move { client.score(request, key).await })
    }

    fn description(&self, key: Option<SecretString>) -> ToCome<Result<Fetched, Undescribed>> {
        let client = self.clone();
        Box::pin(async move { client.description(key).await })
    }

    fn knock(&self) -> ToCome<bool> {
        let client = self.clone();
        Box::pin(async move { client.knock().await })
    }

    fn read_key(&self, secret: &Secret) -> Result<SecretString, String> {
        self.read_key(secret)
    }

    fn dialect(&self) -> &dyn Dialect {
        &*self.dialect
    }
}
