//! What the deployment says: limits, environment, what becomes of instances. It is no part of a template.

use crate::kernel::boot;
use crate::kernel::cell::Local;
use alloc::boxed::Box;
use alloc::vec::Vec;
use sandbox_abi::config::{Config, Limits, Reuse};
use sandbox_abi::wire::Malformed;

/// The settings of a deployment.
pub struct Settings {
    /// The limits.
    pub limits: Limits,
    /// What becomes of an instance when its request is over.
    pub reuse: Reuse,
    /// The environment.
    pub env: Vec<(&'static str, &'static str)>,
}

static SETTINGS: Local<Option<&'static Settings>> = Local::new(None);

/// Reads the configuration that lies in memory now. What was read before stays where it is, for those who use it.
pub fn read() -> Result<(), Malformed> {
    let config = Config::read(boot::config())?;
    SETTINGS.with(|s| {
        *s = Some(Box::leak(Box::new(Settings {
            limits: config.limits,
            reuse: config.reuse,
            env: config.env().collect(),
        })));
    });
    Ok(())
}

/// The settings that hold now. [`read`] comes before.
pub fn current() -> &'static Settings {
    SETTINGS
        .with(|s| *s)
        .expect("the configuration is read before anything else")
}
