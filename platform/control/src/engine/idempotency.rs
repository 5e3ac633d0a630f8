//! Requests that are carried out once, however often they are sent.
//!
//! That one was carried out is written with the change that it made. What was answered is written after it, and is missing
//! only where the node was killed in between.

use time::Duration;

use super::{Engine, Once, Origin};
use crate::store::records::{Answer, IdempotencyRecord, OnceKey};
use crate::store::{Change, StoreError};

/// How long it is remembered that a request was carried out.
pub const REMEMBERED: Duration = Duration::hours(24);

impl Engine {
    /// Whether a request with this key was carried out, and is still remembered.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn carried_out(
        &self,
        key: &OnceKey,
    ) -> Result<Option<IdempotencyRecord>, StoreError> {
        let key = IdempotencyRecord::at(key);
        let found = self.ask(move |records| records.get(&key)).await?;
        let now = time::OffsetDateTime::now_utc();
        let record = found.map(|stored| stored.record);
        Ok(record.filter(|record| record.done_at + REMEMBERED > now))
    }

    /// Remembers what was answered to a request that was carried out.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn remember_answer(&self, origin: &Origin, answer: Answer) -> Result<(), StoreError> {
        let Some(Once { key, .. }) = origin.once().cloned() else {
            return Ok(());
        };
        let put = move |change: &mut Change<'_>| {
            let Some(record) = change.get(&IdempotencyRecord::at(&key))? else {
                return Ok(());
            };
            change.put(&IdempotencyRecord {
                answer: Some(answer.clone()),
                ..record
            })
        };
        self.with_records(move |records| records.change(put).map(|((), _)| ()))
            .await
    }
}
