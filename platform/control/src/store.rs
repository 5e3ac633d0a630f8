//! What the node remembers: tenants, components, apps and their deployments.
//!
//! [`MetadataStore`] is the contract; [`SledStore`] keeps it on the disk of one host. A write that was answered with
//! `Ok` is on the disk: it survives the process being killed and the power going away.

use std::collections::BTreeMap;
use std::path::PathBuf;

use platform_model::{
    AllowHost, AppName, DeploymentId, Digest, Isolation, Limits, Scale, TenantName,
};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

mod manifest;
mod sled_store;

pub use manifest::OpenError;
pub use sled_store::SledStore;

/// Why the store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no room for the write; nothing was changed.
    #[error("the disk of the data folder is full ({} bytes are free in {}): make room and try again", .free, .path.display())]
    DiskFull {
        /// The store's folder.
        path: PathBuf,
        /// Bytes that are free.
        free: u64,
    },
    /// A record cannot be read.
    #[error("the record {key} in {} is damaged: restore the folder from a backup", .path.display())]
    Damaged {
        /// Key of the record.
        key: String,
        /// The store's folder.
        path: PathBuf,
    },
    /// The disk failed: the node must be started again before it can write.
    #[error("the store in {} has failed ({why}): look after the disk, then start cloisterd again", .path.display())]
    Failed {
        /// The store's folder.
        path: PathBuf,
        /// What the disk or the database said.
        why: String,
    },
    /// The tenant has apps.
    #[error("the tenant has {0} app(s): delete them first")]
    TenantNotEmpty(u64),
    /// The deployment's number is not the next one of its app.
    #[error("deployment {0} of the app was made by somebody else in the meantime: try again")]
    NumberTaken(DeploymentId),
}

/// A tenant as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TenantRecord {
    /// Its name.
    pub tenant: TenantName,
    /// When it was created.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
}

/// A component that a tenant has uploaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComponentRecord {
    /// The tenant.
    pub tenant: TenantName,
    /// The component.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// When it was uploaded, the last time.
    #[serde(with = "time::serde::rfc3339")]
    pub uploaded_at: OffsetDateTime,
}

/// An app as it is stored: its pointer to the deployment that answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppRecord {
    /// The tenant that it belongs to.
    pub tenant: TenantName,
    /// Its name.
    pub app: AppName,
    /// The deployment that answers its requests.
    pub active: DeploymentId,
    /// The highest number that a deployment of it was given.
    pub last: DeploymentId,
    /// How many deployments it has.
    pub deployments: u64,
    /// When its first deployment was made.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
}

/// A deployment as it is stored. It never changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeploymentRecord {
    /// The tenant that it belongs to.
    pub tenant: TenantName,
    /// The app that it is of.
    pub app: AppName,
    /// Its number.
    pub deployment: DeploymentId,
    /// Its component.
    pub digest: Digest,
    /// Its environment variables.
    pub env: BTreeMap<String, String>,
    /// Hosts that it may call.
    pub allow_hosts: Vec<AllowHost>,
    /// Its limits.
    pub limits: Limits,
    /// How much its requests are kept apart.
    #[serde(default)]
    pub isolation: Isolation,
    /// How many VMs it has.
    #[serde(default)]
    pub scale: Scale,
    /// When it was made.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
}

/// What the node remembers. Every method may wait for the disk: call them where blocking is allowed.
///
/// A write is atomic, and on the disk when it answers `Ok`; when it answers `Err`, nothing was changed or
/// [`StoreError::Failed`] says that the store is out of use.
pub trait MetadataStore: std::fmt::Debug + Send + Sync + 'static {
    /// Creates a tenant that is not there; tells whether it did.
    ///
    /// # Errors
    /// When the store cannot be written.
    fn create_tenant(&self, tenant: &TenantName, now: OffsetDateTime) -> Result<bool, StoreError>;

    /// A tenant.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn tenant(&self, tenant: &TenantName) -> Result<Option<TenantRecord>, StoreError>;

    /// All tenants by name.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn tenants(&self) -> Result<Vec<TenantRecord>, StoreError>;

    /// Deletes a tenant and the records of its components; tells whether it was there.
    ///
    /// # Errors
    /// [`StoreError::TenantNotEmpty`], or when the store cannot be written.
    fn delete_tenant(&self, tenant: &TenantName) -> Result<bool, StoreError>;

    /// Remembers that a tenant has uploaded a component; the tenant is created where it is not there.
    ///
    /// # Errors
    /// When the store cannot be written.
    fn put_component(&self, component: &ComponentRecord) -> Result<(), StoreError>;

    /// A component of a tenant.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn component(
        &self,
        tenant: &TenantName,
        digest: &Digest,
    ) -> Result<Option<ComponentRecord>, StoreError>;

    /// All components of all tenants.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn components(&self) -> Result<Vec<ComponentRecord>, StoreError>;

    /// Forgets components.
    ///
    /// # Errors
    /// When the store cannot be written.
    fn forget_components(&self, components: &[ComponentRecord]) -> Result<(), StoreError>;

    /// Stores a deployment whose number is the next of its app, and makes it the one that answers: creates tenant
    /// and app where they are not there.
    ///
    /// # Errors
    /// [`StoreError::NumberTaken`], or when the store cannot be written.
    fn commit_deployment(&self, deployment: &DeploymentRecord) -> Result<(), StoreError>;

    /// The number that the next deployment of an app gets. Numbers go on where an app of the name was deleted: what
    /// still finishes its requests is never taken for what comes.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn next_deployment(
        &self,
        tenant: &TenantName,
        app: &AppName,
    ) -> Result<DeploymentId, StoreError>;

    /// An app.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn app(&self, tenant: &TenantName, app: &AppName) -> Result<Option<AppRecord>, StoreError>;

    /// The apps of a tenant, or of all tenants, by name.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn apps(&self, tenant: Option<&TenantName>) -> Result<Vec<AppRecord>, StoreError>;

    /// A deployment.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn deployment(
        &self,
        tenant: &TenantName,
        app: &AppName,
        deployment: DeploymentId,
    ) -> Result<Option<DeploymentRecord>, StoreError>;

    /// The deployments of an app by number; those of all apps where no app is given.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn deployments(
        &self,
        app: Option<(&TenantName, &AppName)>,
    ) -> Result<Vec<DeploymentRecord>, StoreError>;

    /// Deletes an app and its deployments; tells whether it was there.
    ///
    /// # Errors
    /// When the store cannot be written.
    fn delete_app(&self, tenant: &TenantName, app: &AppName) -> Result<bool, StoreError>;
}
