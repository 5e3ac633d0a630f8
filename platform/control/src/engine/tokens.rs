//! Tokens of the API: made, looked at, taken back.

use platform_model::{
    Scope, Secret, TenantName, TokenId, TokenIdError, TokenRequest, TokenRequestError,
};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use time::{Duration, OffsetDateTime};

use super::usage::{self, Cost};
use super::{Engine, Origin, QuotaError, TenantError, tenants};
use crate::store::records::{Page, Record as _, TokenRecord};
use crate::store::{Change, StoreError};

/// Random bytes of a token's secret.
const SECRET: usize = 32;

/// Characters of the own part of a token's id: 50 bits, enough never to meet.
const ID: usize = 10;

/// Why a token was not made or taken back.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// What was asked for is not possible.
    #[error(transparent)]
    Request(#[from] TokenRequestError),
    /// The tenant is not there.
    #[error(transparent)]
    Tenant(#[from] TenantError),
    /// There is no such token.
    #[error("there is no token {0}")]
    Unknown(TokenId),
    /// The tenant has too many.
    #[error(transparent)]
    Quota(#[from] QuotaError),
    /// There is no randomness.
    #[error("the system gives no random bytes: {0}")]
    Random(#[from] getrandom::Error),
    /// What was drawn is no id.
    #[error(transparent)]
    Id(#[from] TokenIdError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a token is not good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// It was never made, was taken back, or its secret is another. Which of these is not told.
    Wrong,
    /// It was good, until then.
    Expired(OffsetDateTime),
}

impl Engine {
    /// Makes a token of a tenant, or of the node: the record, and the token, which nobody can show again.
    ///
    /// # Errors
    /// Why it is not made.
    pub async fn create_token(
        &self,
        origin: &Origin,
        tenant: Option<TenantName>,
        request: TokenRequest,
    ) -> Result<(TokenRecord, Secret), TokenError> {
        request.check()?;
        let lifetime = i64::try_from(request.lifetime()).unwrap_or(i64::MAX);
        let scope = match (tenant.clone(), request.app) {
            (None, None) => Scope::Node,
            (None, Some(_)) => return Err(TokenRequestError::App.into()),
            (Some(tenant), None) => Scope::Tenant { tenant },
            (Some(tenant), Some(app)) => Scope::App { tenant, app },
        };
        let id = TokenId::new(tenant, &random_id()?)?;
        let secret = random_secret()?;
        let record = TokenRecord {
            hash: hex(&hash(&secret)),
            scope,
            role: request.role,
            label: request.label.filter(|label| !label.is_empty()),
            created_at: origin.time(),
            created_by: origin.who().to_owned(),
            expires_at: origin.time() + Duration::seconds(lifetime),
            id,
        };
        let token = record.id.with_secret(&secret);
        let put = record.clone();
        self.change(origin, move |change| create(change, &put))
            .await?;
        Ok((record, token))
    }

    /// Tokens of a tenant, or of the node, by id. Those that are expired are among them until they are taken back.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn tokens(
        &self,
        tenant: Option<&TenantName>,
        after: Option<String>,
        limit: usize,
    ) -> Result<Page<TokenRecord>, StoreError> {
        let of = TokenRecord::of(tenant);
        self.ask(move |records| records.page(&of, after.as_deref(), limit))
            .await
    }

    /// Takes a token back. It is good for nothing as soon as this returns.
    ///
    /// # Errors
    /// When there is no such token, or the store cannot be written.
    pub async fn revoke_token(&self, origin: &Origin, id: TokenId) -> Result<(), TokenError> {
        self.change(origin, move |change| revoke(change, &id)).await
    }

    /// Whose token this is. The store is asked each time: a token that was taken back is not good a moment longer.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn token_of(&self, token: &str) -> Result<Result<TokenRecord, Refused>, StoreError> {
        let Some((id, secret)) = TokenId::of_token(token) else {
            return Ok(Err(Refused::Wrong));
        };
        let key = TokenRecord::at(&id);
        let found = self.ask(move |records| records.get(&key)).await?;
        Ok(judge(found.map(|stored| stored.record), &secret))
    }
}

/// Whether a secret is that of a record. Takes as long where there is no record, and says nothing about where a difference
/// is.
fn judge(record: Option<TokenRecord>, secret: &Secret) -> Result<TokenRecord, Refused> {
    let given = hex(&hash(secret));
    let stored = record.as_ref().map(|record| record.hash.as_str());
    let same = stored
        .unwrap_or(&"0".repeat(64))
        .as_bytes()
        .ct_eq(given.as_bytes());
    match record.filter(|_| same.into()) {
        None => Err(Refused::Wrong),
        Some(record) if record.expires_at <= OffsetDateTime::now_utc() => {
            Err(Refused::Expired(record.expires_at))
        }
        Some(record) => Ok(record),
    }
}

fn create(change: &mut Change<'_>, record: &TokenRecord) -> Result<(), TokenError> {
    if let Some(tenant) = record.id.tenant() {
        tenants::need(change, tenant, record.created_at, false)?;
        charge(change, tenant, 1)?;
    }
    change.put(record)?;
    Ok(())
}

fn revoke(change: &mut Change<'_>, id: &TokenId) -> Result<(), TokenError> {
    let Some(record) = change.get(&TokenRecord::at(id))? else {
        return Err(TokenError::Unknown(id.clone()));
    };
    change.delete(&record.key());
    match id.tenant() {
        Some(tenant) => charge(change, tenant, -1),
        None => Ok(()),
    }
}

fn charge(change: &mut Change<'_>, tenant: &TenantName, tokens: i64) -> Result<(), TokenError> {
    let cost = Cost {
        tokens,
        ..Cost::default()
    };
    usage::charge(change, tenant, cost)
}

/// SHA-256 of a secret.
fn hash(secret: &Secret) -> [u8; 32] {
    Sha256::digest(secret.expose().as_bytes()).into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn random_secret() -> Result<Secret, getrandom::Error> {
    let mut bytes = [0; SECRET];
    getrandom::fill(&mut bytes)?;
    Ok(Secret::new(hex(&bytes)))
}

fn random_id() -> Result<String, getrandom::Error> {
    // 32 characters: each random byte gives one, evenly. Those that look like others are left out.
    const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut bytes = [0_u8; ID];
    getrandom::fill(&mut bytes)?;
    let letter = |byte: &u8| char::from(ALPHABET[usize::from(byte % 32)]);
    Ok(bytes.iter().map(letter).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_ids() {
        for _ in 0..100 {
            TokenId::new(None, &random_id().unwrap()).unwrap();
        }
    }

    #[test]
    fn a_secret_is_judged() {
        let now = OffsetDateTime::now_utc();
        let secret = random_secret().unwrap();
        let record = TokenRecord {
            id: "acme.x".parse().unwrap(),
            hash: hex(&hash(&secret)),
            scope: Scope::Node,
            role: platform_model::Role::Read,
            label: None,
            created_at: now,
            created_by: "test".to_owned(),
            expires_at: now + Duration::seconds(60),
        };
        assert_eq!(judge(Some(record.clone()), &secret), Ok(record.clone()));
        let other = random_secret().unwrap();
        assert_eq!(judge(Some(record.clone()), &other), Err(Refused::Wrong));
        assert_eq!(judge(None, &secret), Err(Refused::Wrong));
        assert_eq!(
            judge(Some(record.clone()), &Secret::new("")),
            Err(Refused::Wrong)
        );
        let expires_at = now - Duration::seconds(1);
        let old = TokenRecord {
            expires_at,
            ..record
        };
        assert_eq!(
            judge(Some(old.clone()), &secret),
            Err(Refused::Expired(expires_at))
        );
        // Whether it is expired is told to its holder alone.
        assert_eq!(judge(Some(old), &other), Err(Refused::Wrong));
    }
}
