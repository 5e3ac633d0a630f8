//! Requests that are carried out once, however often they are sent.
//!
//! That one was carried out is written with the change that it made. What was answered is written after it, and is missing
//! only where the node was killed in between.

use std::fmt;

use platform_model::{Secret, TenantName};
use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};

use super::{Engine, Once, Origin, SecretError};
use crate::sealing::{Keys, Place, SealError, Sealed};
use crate::store::Change;
use crate::store::records::{IdempotencyRecord, OnceKey};

/// How long it is remembered that a request was carried out.
pub const REMEMBERED: Duration = Duration::hours(24);

/// What was answered.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// Header fields, by name.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: String,
}

impl fmt::Debug for Answer {
    /// Without the body, which may have a secret in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} bytes)", self.status, self.body.len())
    }
}

/// A request that was carried out before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CarriedOut {
    /// What the request was: see [`Once::fingerprint`].
    pub fingerprint: String,
    /// When it was carried out.
    pub at: OffsetDateTime,
    /// What was answered, where that is known.
    pub answer: Option<Answer>,
}

impl Engine {
    /// Whether a request with this key was carried out, and is still remembered.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn carried_out(&self, key: &OnceKey) -> Result<Option<CarriedOut>, SecretError> {
        let key = IdempotencyRecord::at(key);
        let found = self.ask(move |records| records.get(&key)).await?;
        let now = OffsetDateTime::now_utc();
        let record = found.map(|stored| stored.record);
        let Some(record) = record.filter(|record| record.done_at + REMEMBERED > now) else {
            return Ok(None);
        };
        let keys = self.keyring.keys().await;
        let answer = record.answer.as_ref().and_then(|sealed| {
            // One that does not open is as good as lost, and said to be.
            let opened = keys.open(Place(&place(&record.once)), sealed).ok()?;
            serde_json::from_str(opened.expose()).ok()
        });
        Ok(Some(CarriedOut {
            fingerprint: record.fingerprint,
            at: record.done_at,
            answer,
        }))
    }

    /// Remembers what was answered to a request that was carried out.
    ///
    /// # Errors
    /// When it cannot be sealed, or the store cannot be written.
    pub async fn remember_answer(
        &self,
        origin: &Origin,
        answer: &Answer,
    ) -> Result<(), SecretError> {
        let (Some(Once { key, .. }), Ok(text)) = (origin.once(), serde_json::to_string(answer))
        else {
            return Ok(());
        };
        // Held until the answer is stored: see `Keyring`.
        let keys = self.keyring.sealing().await;
        let sealed = keys.seal(Place(&place(key)), &Secret::new(text));
        let sealed = sealed.map_err(SecretError::Answer)?;
        let key = IdempotencyRecord::at(key);
        let put = move |change: &mut Change<'_>| {
            let Some(record) = change.get(&key)? else {
                return Ok(());
            };
            let answer = Some(sealed.clone());
            change.put(&IdempotencyRecord { answer, ..record })
        };
        self.with_records(move |records| records.change(put).map(|((), _)| ()))
            .await?;
        Ok(())
    }
}

/// What the answer to a request is sealed for.
fn place(once: &OnceKey) -> [&str; 4] {
    let tenant = once.tenant.as_ref().map_or("", TenantName::as_str);
    ["answer", tenant, &once.who, &once.key]
}

/// Whether the answer of a request, where it has one, opens.
pub(crate) fn opens(keys: &Keys, record: &IdempotencyRecord) -> bool {
    let place = place(&record.once);
    let answer = record.answer.as_ref();
    answer.is_none_or(|sealed| keys.open(Place(&place), sealed).is_ok())
}

/// The record with its answer under the current key; none where it is, or there is no answer, or it does not open.
pub(super) fn reseal(
    keys: &Keys,
    record: &IdempotencyRecord,
) -> Result<Option<IdempotencyRecord>, SealError> {
    let old = |sealed: &&Sealed| sealed.key != keys.current();
    let Some(sealed) = record.answer.as_ref().filter(old) else {
        return Ok(None);
    };
    let place = place(&record.once);
    let Ok(opened) = keys.open(Place(&place), sealed) else {
        return Ok(None);
    };
    let answer = Some(keys.seal(Place(&place), &opened)?);
    let record = record.clone();
    Ok(Some(IdempotencyRecord { answer, ..record }))
}
