//! Where a change comes from: what the audit log has of it, and what keeps it from being made twice.
//!
//! Both are written in the very transaction that makes the change, so there is no change without its line in the audit log,
//! however the node ends.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use platform_model::{Audit, Outcome, TenantName};
use time::OffsetDateTime;

use crate::store::records::{
    AuditId, AuditRecord, IdempotencyRecord, OnceKey, TenantAuditRecord, TenantRecord,
};
use crate::store::{Change, StoreError};

/// Who the node is in its own audit log.
const NODE: &str = "node";

/// What asks for changes: a request, or the node itself. Clones are the same one.
#[derive(Debug, Clone)]
pub struct Origin(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    id: AuditId,
    audit: Audit,
    once: Option<Once>,
    creates_tenants: bool,
    made: AtomicBool,
}

/// A request that is to be carried out once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Once {
    /// Who sent it, with which key.
    pub key: OnceKey,
    /// SHA-256 of method, path and body, in hexadecimal digits.
    pub fingerprint: String,
}

/// A request that asks for a change.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The id of the token.
    pub who: String,
    /// The address that it came from.
    pub from: Option<IpAddr>,
    /// Method and path.
    pub what: String,
    /// The tenant whose audit log it goes into, besides the node's.
    pub tenant: Option<TenantName>,
    /// The id of the request.
    pub request_id: Option<String>,
    /// Where it is to be carried out once.
    pub once: Option<Once>,
    /// Whether a tenant that is not there may be created by the way.
    pub creates_tenants: bool,
}

impl Origin {
    /// A request.
    #[must_use]
    pub fn request(asked: Asked) -> Self {
        let now = OffsetDateTime::now_utc();
        Self(Arc::new(Inner {
            id: next_id(now),
            audit: Audit {
                time: now,
                who: asked.who,
                from: asked.from,
                what: asked.what,
                tenant: asked.tenant,
                outcome: Outcome::Done,
                status: None,
                code: None,
                request_id: asked.request_id,
            },
            once: asked.once,
            creates_tenants: asked.creates_tenants,
            made: AtomicBool::new(false),
        }))
    }

    /// The node, which does `what` by itself: a canary that it ends, for example.
    #[must_use]
    pub fn node(what: impl Into<String>, tenant: Option<TenantName>) -> Self {
        Self::request(Asked {
            who: NODE.to_owned(),
            from: None,
            what: what.into(),
            tenant,
            request_id: None,
            once: None,
            creates_tenants: true,
        })
    }

    /// Who it is: the id of a token, or `node`.
    #[must_use]
    pub fn who(&self) -> &str {
        &self.0.audit.who
    }

    /// When it came.
    #[must_use]
    pub fn time(&self) -> OffsetDateTime {
        self.0.audit.time
    }

    /// Whether a tenant that is not there may be created by the way.
    #[must_use]
    pub fn creates_tenants(&self) -> bool {
        self.0.creates_tenants
    }

    /// Whether a change of it was made.
    #[must_use]
    pub fn is_made(&self) -> bool {
        self.0.made.load(Ordering::Acquire)
    }

    /// The request that is to be carried out once, if it is one.
    pub(crate) fn once(&self) -> Option<&Once> {
        self.0.once.as_ref()
    }

    pub(super) fn set_made(&self) {
        self.0.made.store(true, Ordering::Release);
    }

    /// Adds to its first change what is to be remembered of it.
    pub(super) fn ride(&self, change: &mut Change<'_>) -> Result<(), StoreError> {
        if self.is_made() {
            return Ok(());
        }
        self.put_audit(change, self.0.audit.clone())?;
        if let Some(once) = &self.0.once {
            change.put(&IdempotencyRecord {
                once: once.key.clone(),
                fingerprint: once.fingerprint.clone(),
                done_at: self.0.audit.time,
                answer: None,
            })?;
        }
        Ok(())
    }

    /// Writes into the audit log that nothing came of it.
    pub(super) fn put_refusal(
        &self,
        change: &mut Change<'_>,
        status: u16,
        code: Option<String>,
    ) -> Result<(), StoreError> {
        let outcome = match status {
            ..400 => Outcome::Done,
            400..500 => Outcome::Refused,
            _ => Outcome::Failed,
        };
        let status = (outcome != Outcome::Done).then_some(status);
        let audit = Audit {
            outcome,
            status,
            code,
            ..self.0.audit.clone()
        };
        self.put_audit(change, audit)
    }

    fn put_audit(&self, change: &mut Change<'_>, audit: Audit) -> Result<(), StoreError> {
        let id = self.0.id;
        // A tenant that is not there, or is being deleted, has no log.
        if let Some(tenant) = &audit.tenant
            && change.get(&TenantRecord::at(tenant))?.is_some()
        {
            change.put(&TenantAuditRecord {
                log: tenant.clone(),
                id,
                audit: audit.clone(),
            })?;
        }
        change.put(&AuditRecord { id, audit })
    }
}

/// A place in the log that no other line of this process has.
pub(super) fn next_id(now: OffsetDateTime) -> AuditId {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let now = u64::try_from(now.unix_timestamp_nanos()).unwrap_or(0);
    let next = |last: u64| now.max(last + 1);
    let before = LAST.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| {
        Some(next(last))
    });
    AuditId(next(before.unwrap_or_else(|last| last)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_in_the_log_differ_and_go_up() {
        let now = OffsetDateTime::now_utc();
        let first = next_id(now);
        let second = next_id(now);
        assert!(second > first);
        assert!(second.cursor() < first.cursor());
    }
}
