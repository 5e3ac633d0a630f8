//! The route table as requests see it: host names to deployments, immutable.

use std::collections::HashMap;
use std::sync::Arc;

use crate::pool::deployment::Deployment;

/// Longest host name that is looked up.
const MAX_HOST: usize = 255;

/// Host names in lower case, and what they lead to.
#[derive(Default)]
pub(crate) struct Table {
    pub(crate) routes: HashMap<String, Arc<Deployment>>,
    /// Whether the control plane has said it. Before, nobody knows whether there is an app of a name.
    pub(crate) published: bool,
}

impl Table {
    /// What `host` leads to, in whatever case it is written.
    pub(crate) fn find(&self, host: &str) -> Option<&Arc<Deployment>> {
        let host = host.strip_suffix('.').unwrap_or(host);
        if host.bytes().any(|byte| byte.is_ascii_uppercase()) && host.len() <= MAX_HOST {
            return self.routes.get(&host.to_ascii_lowercase());
        }
        self.routes.get(host)
    }
}
