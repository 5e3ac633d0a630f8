//! Configuration and secrets of apps. A change of them makes a new deployment of what the app is, in one commit with the
//! change, unless it is told not to; then the next deployment has it.

use std::collections::BTreeMap;

use platform_model::settings::MAX_SECRETS;
use platform_model::{
    AppName, ConfigChanges, EnvError, Secret, SecretName, SecretRequest, TenantName,
};

use super::deploy::{Mode, Wanted};
use super::usage::{self, Cost};
use super::{
    DeployError, Deployed, Engine, Expected, Origin, QuotaError, SecretError, TenantError,
    Unexpected, tenants,
};
use crate::store::records::{AppRecord, SecretHead, SecretRecord, SettingsRecord, Stored};
use crate::store::{Change, Revision, StoreError};

/// Why settings were not changed.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// There is no such app.
    #[error("there is no app {1} in the tenant {0}")]
    AppUnknown(TenantName, AppName),
    /// There is no such secret.
    #[error("the app has no secret {0}")]
    SecretUnknown(SecretName),
    /// The name is that of a secret.
    #[error("{0} is a secret of the app: delete the secret first, or use another name")]
    NameOfSecret(SecretName),
    /// The name is that of a value of the configuration.
    #[error("{0} is in the configuration of the app: unset it first, or use another name")]
    NameOfConfig(SecretName),
    /// There are too many.
    #[error("the app has {MAX_SECRETS} secrets, and no more are possible")]
    TooMany,
    /// The variables are not possible.
    #[error(transparent)]
    Env(#[from] EnvError),
    /// They are not as the caller has seen them.
    #[error(transparent)]
    Unexpected(#[from] Unexpected),
    /// The tenant would have more than it may.
    #[error(transparent)]
    Quota(#[from] QuotaError),
    /// The tenant is not there.
    #[error(transparent)]
    Tenant(#[from] TenantError),
    /// The value.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The deployment with them was not made.
    #[error(transparent)]
    Deploy(#[from] DeployError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Settings that were changed.
#[derive(Debug, Clone)]
pub struct Set {
    /// The settings as they are now.
    pub settings: SettingsRecord,
    /// When they were written; none where there are none.
    pub revision: Option<Revision>,
    /// The deployment that was made with them, if one was.
    pub deployed: Option<Deployed>,
}

/// A change of settings that is being made.
struct Changing {
    /// The settings as they were, if there were any.
    before: Option<Stored<SettingsRecord>>,
    /// As they are to be.
    after: SettingsRecord,
    /// The value of a secret that is new.
    value: Option<(SecretRecord, Secret)>,
}

impl Engine {
    /// The settings of an app that there is, or will be.
    ///
    /// # Errors
    /// When there is neither such an app nor settings for it.
    pub async fn settings(
        &self,
        tenant: &TenantName,
        app: &AppName,
    ) -> Result<(SettingsRecord, Option<Revision>), SettingsError> {
        let (found, known) = self.look_up(tenant, app).await?;
        match found {
            Some(Stored { record, revision }) => Ok((record, Some(revision))),
            None if known => Ok((SettingsRecord::none(tenant, app), None)),
            None => Err(SettingsError::AppUnknown(tenant.clone(), app.clone())),
        }
    }

    /// The settings of an app, or that there are none yet.
    pub(super) async fn settings_of(
        &self,
        tenant: &TenantName,
        app: &AppName,
    ) -> Result<SettingsRecord, StoreError> {
        let (found, _) = self.look_up(tenant, app).await?;
        let record = found.map(|stored| stored.record);
        Ok(record.unwrap_or_else(|| SettingsRecord::none(tenant, app)))
    }

    /// The settings of an app, if it has any, and whether it is there.
    async fn look_up(
        &self,
        tenant: &TenantName,
        app: &AppName,
    ) -> Result<(Option<Stored<SettingsRecord>>, bool), StoreError> {
        let (settings, app) = (SettingsRecord::at(tenant, app), AppRecord::at(tenant, app));
        self.ask(move |records| Ok((records.get(&settings)?, records.get(&app)?.is_some())))
            .await
    }

    /// Changes the configuration of an app.
    ///
    /// # Errors
    /// Why it was not changed; nothing was then.
    pub async fn change_config(
        &self,
        origin: &Origin,
        tenant: &TenantName,
        app: &AppName,
        expected: Expected,
        changes: ConfigChanges,
    ) -> Result<Set, SettingsError> {
        let _turn = self.turn(&(tenant.clone(), app.clone())).await;
        let (before, _) = self.look_up(tenant, app).await?;
        expected.check(before.as_ref().map(|stored| stored.revision))?;
        let mut after = record_of(before.as_ref(), tenant, app);
        for (name, value) in changes.values {
            if let Some(name) = after.secrets.keys().find(|secret| secret.as_str() == name) {
                return Err(SettingsError::NameOfSecret(name.clone()));
            }
            match value {
                Some(value) => after.values.insert(name, value),
                None => after.values.remove(&name),
            };
        }
        let value = None;
        let changing = Changing {
            before,
            after,
            value,
        };
        self.set(origin, changing, changes.deploy).await
    }

    /// Gives a secret a value: a new one, or another.
    ///
    /// # Errors
    /// Why it was not given; nothing was changed then.
    pub async fn set_secret(
        &self,
        origin: &Origin,
        tenant: &TenantName,
        app: &AppName,
        name: &SecretName,
        expected: Expected,
        request: SecretRequest,
    ) -> Result<Set, SettingsError> {
        let _turn = self.turn(&(tenant.clone(), app.clone())).await;
        // Held until the value is stored: see `Keyring`.
        let keys = self.keyring.sealing().await;
        let (before, _) = self.look_up(tenant, app).await?;
        let mut after = record_of(before.as_ref(), tenant, app);
        let there = after.secrets.contains_key(name);
        let found = before.as_ref().filter(|_| there);
        expected.check(found.map(|stored| stored.revision))?;
        if after.values.contains_key(name.as_str()) {
            return Err(SettingsError::NameOfConfig(name.clone()));
        }
        if !there && after.secrets.len() >= MAX_SECRETS {
            return Err(SettingsError::TooMany);
        }
        after.last_version += 1;
        let version = after.last_version;
        let head = SecretHead {
            version,
            bytes: request.value.expose().len() as u64,
            updated_at: origin.time(),
        };
        after.secrets.insert(name.clone(), head);
        let sealed = super::secrets::seal(&keys, tenant, app, name, version, &request.value)?;
        let record = SecretRecord {
            tenant: tenant.clone(),
            app: app.clone(),
            name: name.clone(),
            version,
            sealed,
        };
        let value = Some((record, request.value));
        let changing = Changing {
            before,
            after,
            value,
        };
        self.set(origin, changing, request.deploy).await
    }

    /// Takes a secret away. Its value stays sealed as long as a deployment has it.
    ///
    /// # Errors
    /// Why it was not; nothing was changed then.
    pub async fn delete_secret(
        &self,
        origin: &Origin,
        tenant: &TenantName,
        app: &AppName,
        name: &SecretName,
        deploy: bool,
    ) -> Result<Set, SettingsError> {
        let _turn = self.turn(&(tenant.clone(), app.clone())).await;
        let (before, known) = self.look_up(tenant, app).await?;
        if before.is_none() && !known {
            return Err(SettingsError::AppUnknown(tenant.clone(), app.clone()));
        }
        let mut after = record_of(before.as_ref(), tenant, app);
        if after.secrets.remove(name).is_none() {
            return Err(SettingsError::SecretUnknown(name.clone()));
        }
        let value = None;
        let changing = Changing {
            before,
            after,
            value,
        };
        self.set(origin, changing, deploy).await
    }

    /// Writes settings, with a deployment that has them where there is an app and one is wanted. The caller has the turn of
    /// the app.
    async fn set(
        &self,
        origin: &Origin,
        changing: Changing,
        deploy: bool,
    ) -> Result<Set, SettingsError> {
        check(&changing.after)?;
        let (tenant, app) = (changing.after.tenant.clone(), changing.after.app.clone());
        if changing.after == record_of(changing.before.as_ref(), &tenant, &app) {
            let (settings, revision) = self.settings(&tenant, &app).await?;
            return Ok(Set {
                settings,
                revision,
                deployed: None,
            });
        }
        let wanted = match deploy {
            true => self.again(&changing).await?,
            false => None,
        };
        let Changing {
            before,
            after,
            value,
        } = changing;
        let value = value.map(|(record, _)| record);
        let at = before.map(|stored| stored.revision);
        let put = {
            let after = after.clone();
            move |change: &mut Change<'_>| put(change, at, &after, value.as_ref())
        };
        let deployed = match wanted {
            Some(wanted) => Some(self.roll_out(origin, wanted, put).await?),
            None => {
                let (tenant, app, now) = (tenant.clone(), app.clone(), origin.time());
                let plan = move |change: &mut Change<'_>| {
                    tenants::need(change, &tenant, now, false)?;
                    // An app that has only settings counts as one.
                    let known = change.get(&AppRecord::at(&tenant, &app))?.is_some();
                    let cost = Cost {
                        apps: (at.is_none() && !known).into(),
                        ..Cost::default()
                    };
                    if cost.apps > 0 {
                        usage::charge::<SettingsError>(change, &tenant, cost)?;
                    }
                    Ok::<_, SettingsError>(put(change)?)
                };
                self.change(origin, plan).await?;
                None
            }
        };
        self.forget_secrets(&tenant, &app).await;
        let (settings, revision) = self.settings(&tenant, &app).await?;
        Ok(Set {
            settings,
            revision,
            deployed,
        })
    }

    /// What the app is, with other settings; none where there is no app.
    async fn again(&self, changing: &Changing) -> Result<Option<Wanted>, SettingsError> {
        let after = &changing.after;
        let Some(active) = self.active(&after.tenant, &after.app).await? else {
            return Ok(None);
        };
        let mut versions = after.versions();
        let mut new = BTreeMap::new();
        if let Some((record, value)) = &changing.value {
            versions.remove(&record.name);
            new.insert(record.name.clone(), value.clone());
        }
        let mut secrets = self
            .open_secrets(&after.tenant, &after.app, versions)
            .await?;
        secrets.append(&mut new);
        Ok(Some(Wanted {
            tenant: active.tenant,
            app: active.app,
            digest: active.digest,
            env: active.env,
            allow_hosts: active.allow_hosts,
            limits: active.limits,
            isolation: active.isolation,
            scale: active.scale,
            settings: after.clone(),
            secrets,
            health: active.health,
            approved: true,
            mode: Mode::Switch,
        }))
    }
}

/// The settings as they were, or none.
fn record_of(
    stored: Option<&Stored<SettingsRecord>>,
    tenant: &TenantName,
    app: &AppName,
) -> SettingsRecord {
    let record = stored.map(|stored| stored.record.clone());
    record.unwrap_or_else(|| SettingsRecord::none(tenant, app))
}

/// Whether settings are possible.
fn check(settings: &SettingsRecord) -> Result<(), EnvError> {
    let secrets = settings.secrets.iter();
    let secrets = secrets.map(|(name, head)| name.as_str().len() as u64 + head.bytes + 2);
    platform_model::env::check_with(&settings.values, secrets.sum())
}

/// Writes settings that are still as they were read.
fn put(
    change: &mut Change<'_>,
    at: Option<Revision>,
    after: &SettingsRecord,
    value: Option<&SecretRecord>,
) -> Result<(), StoreError> {
    let key = SettingsRecord::at(&after.tenant, &after.app);
    if change.stored(&key)?.map(|stored| stored.revision) != at {
        let key = key.as_str().to_owned();
        return Err(StoreError::Conflict { key });
    }
    change.put(after)?;
    match value {
        Some(value) => change.put(value),
        None => Ok(()),
    }
}
