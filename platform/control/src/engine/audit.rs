//! The audit log: what was asked for and did not happen is written here, what did is written with it.

use platform_model::{Audit, TenantName};

use super::{Engine, Origin};
use crate::store::StoreError;
use crate::store::records::{AuditRecord, Page, Prefix, Stored, TenantAuditRecord};

impl Engine {
    /// Writes down that a request made no change, with what was answered.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn note_unmade(
        &self,
        origin: &Origin,
        status: u16,
        code: Option<String>,
    ) -> Result<(), StoreError> {
        let origin = origin.clone();
        let note = move |records: &crate::store::Records| {
            let put = records.change(|change| origin.put_refusal(change, status, code.clone()));
            put.map(|((), _)| ())
        };
        self.with_records(note).await?;
        self.housekeeping.line();
        Ok(())
    }

    /// Lines of the node's log, the latest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn audit(
        &self,
        after: Option<String>,
        limit: usize,
    ) -> Result<(Vec<Audit>, Option<String>), StoreError> {
        let page = self
            .ask(move |records| {
                records.page(&Prefix::<AuditRecord>::all(), after.as_deref(), limit)
            })
            .await?;
        Ok(lines(page, |record| record.audit))
    }

    /// Lines of a tenant's log, the latest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn tenant_audit(
        &self,
        tenant: &TenantName,
        after: Option<String>,
        limit: usize,
    ) -> Result<(Vec<Audit>, Option<String>), StoreError> {
        let of = TenantAuditRecord::of(tenant);
        let page = self
            .ask(move |records| records.page(&of, after.as_deref(), limit))
            .await?;
        Ok(lines(page, |record| record.audit))
    }
}

fn lines<R>(page: Page<R>, line: impl Fn(R) -> Audit) -> (Vec<Audit>, Option<String>) {
    let items = page.items.into_iter();
    let lines = items.map(|Stored { record, .. }| line(record)).collect();
    (lines, page.next)
}
