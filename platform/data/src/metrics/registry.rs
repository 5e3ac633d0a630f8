//! Whose counters there are: those of each app's deployments, and what those that are gone have left.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use platform_model::{AppName, DeploymentId, TenantName};

use super::counters::{class, count, read_all, zeros};
use super::{CLASSES, Counters, Figures};
use crate::Target;
use crate::sync::lock;

/// The figures of an app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppMetrics {
    /// Its tenant.
    pub tenant: TenantName,
    /// Its name.
    pub app: AppName,
    /// Whether it is to be shown by itself. The others are to be shown as one.
    pub listed: bool,
    /// Of all its deployments, also of those that are gone.
    pub total: Figures,
    /// Of each deployment that is not gone, in the order in which they were made.
    pub deployments: Vec<(DeploymentId, Figures)>,
}

/// The figures of the node's connections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NodeFigures {
    /// Connections that are open.
    pub connections_open: u64,
    /// Connections that were taken.
    pub connections_accepted: u64,
    /// Requests that were answered without any app, by [`CLASSES`].
    pub unrouted: [u64; CLASSES.len()],
}

/// All that is counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DataMetrics {
    /// Every app that is served, in the order of tenant and app.
    pub apps: Vec<AppMetrics>,
    /// Of the apps that are not listed, also of those that are gone.
    pub unlisted: Figures,
    /// Of the node.
    pub node: NodeFigures,
}

/// The counters of the node.
#[derive(Debug)]
pub(crate) struct NodeCounters {
    connections_open: AtomicU64,
    connections_accepted: AtomicU64,
    unrouted: [AtomicU64; CLASSES.len()],
}

impl Default for NodeCounters {
    fn default() -> Self {
        Self {
            connections_open: AtomicU64::new(0),
            connections_accepted: AtomicU64::new(0),
            unrouted: zeros(),
        }
    }
}

impl NodeCounters {
    /// A connection was taken; it is open until this is dropped.
    pub(crate) fn connected(&self) -> Connected<'_> {
        self.connections_accepted.fetch_add(1, Relaxed);
        self.connections_open.fetch_add(1, Relaxed);
        Connected(self)
    }

    /// A request was answered without any app.
    pub(crate) fn unrouted(&self, status: u16) {
        count(&self.unrouted, class(status));
    }
}

/// A connection that is open.
#[derive(Debug)]
pub(crate) struct Connected<'n>(&'n NodeCounters);

impl Drop for Connected<'_> {
    fn drop(&mut self) {
        self.0.connections_open.fetch_sub(1, Relaxed);
    }
}

/// An app's counters.
#[derive(Debug, Default)]
struct App {
    listed: bool,
    live: Vec<(DeploymentId, Arc<Counters>)>,
    /// What deployments that are gone have left.
    past: Figures,
}

#[derive(Debug, Default)]
struct Apps {
    apps: BTreeMap<(TenantName, AppName), App>,
    listed: usize,
    /// What apps that are gone and were not listed have left, so that the sum of those that are not never sinks.
    past_unlisted: Figures,
}

/// The counters of all apps, and of the node.
#[derive(Debug)]
pub(crate) struct Registry {
    apps: Mutex<Apps>,
    /// Apps that are listed.
    most: usize,
    pub(crate) node: NodeCounters,
}

impl Registry {
    /// A registry that lists at most so many apps. An app is listed or not for as long as it is there.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            apps: Mutex::default(),
            most,
            node: NodeCounters::default(),
        }
    }

    /// Counters for a deployment.
    pub(crate) fn enter(&self, target: &Target) -> Arc<Counters> {
        let counters = Arc::new(Counters::new(target.limits.memory_bytes));
        let apps = &mut *lock(&self.apps);
        let key = (target.tenant.clone(), target.app.clone());
        let app = apps.apps.entry(key).or_insert_with(|| {
            let listed = apps.listed < self.most;
            apps.listed += usize::from(listed);
            App {
                listed,
                ..App::default()
            }
        });
        app.live.push((target.deployment, Arc::clone(&counters)));
        counters
    }

    /// The deployment of these counters is gone. Its numbers stay as long as its app is there.
    pub(crate) fn leave(&self, target: &Target, counters: &Arc<Counters>) {
        let apps = &mut *lock(&self.apps);
        let key = (target.tenant.clone(), target.app.clone());
        let Some(app) = apps.apps.get_mut(&key) else {
            return;
        };
        let before = app.live.len();
        app.live.retain(|(_, live)| !Arc::ptr_eq(live, counters));
        if app.live.len() < before {
            app.past.add(&counters.figures().past());
        }
        if !app.live.is_empty() {
            return;
        }
        if app.listed {
            apps.listed -= 1;
        } else {
            apps.past_unlisted.add(&app.past);
        }
        apps.apps.remove(&key);
    }

    /// All that is counted.
    pub(crate) fn read(&self) -> DataMetrics {
        let node = NodeFigures {
            connections_open: self.node.connections_open.load(Relaxed),
            connections_accepted: self.node.connections_accepted.load(Relaxed),
            unrouted: read_all(&self.node.unrouted),
        };
        let apps = lock(&self.apps);
        let mut unlisted = apps.past_unlisted;
        let of_app = |((tenant, name), app): (&(TenantName, AppName), &App)| {
            let live = app.live.iter();
            let deployments: Vec<_> = live.map(|(id, live)| (*id, live.figures())).collect();
            let mut total = app.past;
            for (_, figures) in &deployments {
                total.add(figures);
            }
            if !app.listed {
                unlisted.add(&total);
            }
            AppMetrics {
                tenant: tenant.clone(),
                app: name.clone(),
                listed: app.listed,
                total,
                deployments,
            }
        };
        let apps = apps.apps.iter().map(of_app).collect();
        DataMetrics {
            apps,
            unlisted,
            node,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use platform_model::{Digest, Limits};

    use super::*;

    fn target(app: &str, deployment: u64) -> Target {
        Target {
            tenant: "acme".parse().unwrap(),
            app: app.parse().unwrap(),
            deployment: DeploymentId(deployment),
            artifact: "none".into(),
            digest: Digest::from_sha256([0; 32]),
            env: BTreeMap::new(),
            allow_hosts: Vec::new(),
            limits: Limits::default(),
            isolation: platform_model::Isolation::default(),
            scale: platform_model::Scale::default(),
        }
    }

    fn request(counters: &Counters) {
        counters.begun();
        counters.ended(Some(200), true, 0, Duration::ZERO);
    }

    #[test]
    fn an_app_keeps_what_its_deployments_have_counted() {
        let registry = Registry::new(9);
        let (one, two) = (target("a", 1), target("a", 2));
        let first = registry.enter(&one);
        request(&first);
        let second = registry.enter(&two);
        request(&second);
        registry.leave(&one, &first);
        // Late, of a request that outlived its deployment: nobody counts it, and nothing breaks.
        request(&first);
        registry.leave(&one, &first);
        let read = registry.read();
        let [app] = &read.apps[..] else {
            panic!("{read:?}")
        };
        assert_eq!(app.total.requests, [2, 0, 0, 0, 0]);
        assert_eq!(app.deployments.len(), 1);
        assert_eq!(app.deployments[0].1.requests, [1, 0, 0, 0, 0]);
        registry.leave(&two, &second);
        assert_eq!(registry.read(), DataMetrics::default());
    }

    #[test]
    fn apps_beyond_the_most_are_one() {
        let registry = Registry::new(2);
        let targets = ["a", "b", "c", "d"].map(|app| target(app, 1));
        let counters = targets.each_ref().map(|target| registry.enter(target));
        counters.iter().for_each(|counters| request(counters));
        let listed = || -> Vec<_> {
            let apps = registry.read().apps.into_iter();
            apps.filter(|app| app.listed)
                .map(|app| app.app.to_string())
                .collect()
        };
        assert_eq!(listed(), ["a", "b"]);
        assert_eq!(registry.read().unlisted.requests[0], 2);
        // What was counted as one stays one, whoever goes.
        registry.leave(&targets[2], &counters[2]);
        assert_eq!(registry.read().unlisted.requests[0], 2);
        registry.leave(&targets[0], &counters[0]);
        assert_eq!(listed(), ["b"]);
        let late = target("e", 1);
        request(&registry.enter(&late));
        assert_eq!(listed(), ["b", "e"]);
        assert_eq!(registry.read().unlisted.requests[0], 2);
    }

    #[test]
    fn connections() {
        let node = NodeCounters::default();
        let registry = Registry::new(0);
        let open = registry.node.connected();
        drop(registry.node.connected());
        node.unrouted(404);
        registry.node.unrouted(404);
        let read = registry.read().node;
        assert_eq!((read.connections_open, read.connections_accepted), (1, 2));
        assert_eq!(read.unrouted, [0, 0, 1, 0, 0]);
        drop(open);
        assert_eq!(registry.read().node.connections_open, 0);
    }
}
