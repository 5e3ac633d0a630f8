//! The routes of an app: which hosts and paths it answers, besides the host that it has of itself.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{HostName, PathPrefix, Redirect, RouteError};

/// Most routes of an app.
pub const MAX_ROUTES: usize = 100;

/// Why routes are not possible.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppRoutesError {
    /// There are too many.
    #[error("the app would have {0} routes, and {MAX_ROUTES} are possible")]
    TooMany(usize),
    /// Two are of the same host and prefix.
    #[error("{0}{1} is there twice: of one host and path there is one route")]
    Twice(HostName, PathPrefix),
    /// A redirect that is to strip the prefix.
    #[error("{0}{1} redirects: strip_prefix is for what the app answers, leave it out")]
    StripsRedirect(HostName, PathPrefix),
    /// A redirect that is not possible.
    #[error("{0}{1}: {2}")]
    Redirect(HostName, PathPrefix, RouteError),
}

/// One route of an app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AppRoute {
    /// The host: the app's own, `APP.localhost` or `APP.TENANT.localhost`, or a domain of its tenant that is proved.
    pub host: HostName,
    /// The paths: this one and those below it. Of several routes that fit, the one with the longest path counts. `/` by
    /// default.
    #[serde(default)]
    pub path: PathPrefix,
    /// Whether the component sees the path without the route's. False by default.
    #[serde(default)]
    pub strip_prefix: bool,
    /// Sends the client elsewhere instead of asking the component. Not by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redirect: Option<Redirect>,
}

/// The routes of an app.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AppRoutes {
    /// In any order; of one host and path there is one.
    #[schema(max_items = 100)]
    pub routes: Vec<AppRoute>,
}

impl AppRoutes {
    /// Checks what the types alone do not.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self) -> Result<(), AppRoutesError> {
        if self.routes.len() > MAX_ROUTES {
            return Err(AppRoutesError::TooMany(self.routes.len()));
        }
        let mut seen = BTreeSet::new();
        for route in &self.routes {
            let (host, path) = (route.host.clone(), route.path.clone());
            if !seen.insert((&route.host, &route.path)) {
                return Err(AppRoutesError::Twice(host, path));
            }
            if let Some(redirect) = &route.redirect {
                if route.strip_prefix {
                    return Err(AppRoutesError::StripsRedirect(host, path));
                }
                let checked = redirect.check();
                checked.map_err(|error| AppRoutesError::Redirect(host, path, error))?;
            }
        }
        Ok(())
    }

    /// The same routes in the order of their hosts and paths, in which two lists can be compared.
    #[must_use]
    pub fn sorted(mut self) -> Self {
        self.routes
            .sort_by(|a, b| (&a.host, &a.path).cmp(&(&b.host, &b.path)));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(text: &str) -> AppRoutes {
        serde_json::from_str(&format!("{{\"routes\":{text}}}")).unwrap()
    }

    #[test]
    fn routes_are_checked() {
        let good = routes(
            r#"[{"host":"b.example"},{"host":"a.example","path":"/x"},{"host":"a.example","redirect":{"to":"/x"}}]"#,
        );
        assert_eq!(good.check(), Ok(()));
        let sorted = good.sorted();
        assert_eq!(sorted.routes[0].path, PathPrefix::root());
        assert_eq!(sorted.routes[2].host.as_str(), "b.example");
        for (bad, told) in [
            (
                r#"[{"host":"a.example"},{"host":"A.example","path":"/"}]"#,
                "twice",
            ),
            (
                r#"[{"host":"a.example","strip_prefix":true,"redirect":{"to":"/"}}]"#,
                "strip_prefix",
            ),
            (
                r#"[{"host":"a.example","redirect":{"to":"x"}}]"#,
                "a.example/: a redirect goes to",
            ),
            (
                r#"[{"host":"a.example","redirect":{"to":"/","status":200}}]"#,
                "301",
            ),
        ] {
            let error = routes(bad).check().unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        }
        let many = AppRoutes {
            routes: vec![sorted.routes[0].clone(); MAX_ROUTES + 1],
        };
        assert_eq!(many.check(), Err(AppRoutesError::TooMany(MAX_ROUTES + 1)));
    }
}
