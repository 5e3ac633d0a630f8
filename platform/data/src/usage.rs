//! What deployments, apps and tenants take, counted, and held against their policies.
//!
//! Counters outlive the route table: a table names policies, the account says what has been taken. CPU time is what
//! guests say of themselves; a guest that lies harms nobody but its host's figures, since its VM has one processor.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use platform_model::{AppName, Policy, Rate, TenantName};

use crate::Target;
use crate::sync::lock;

/// Time after which a request that found no room may come again.
const SOON: Duration = Duration::from_secs(1);

/// Why a request is not admitted; how long to wait before the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Excess {
    /// More requests than the rate.
    Rate(Rate, Duration),
    /// The CPU time of a minute, in milliseconds, is used up.
    Cpu(u64, Duration),
    /// As many requests at once as may be.
    Concurrency(u32, Duration),
}

/// What one deployment takes, and the accounts of its app and its tenant.
#[derive(Debug)]
pub(crate) struct Usage {
    pub(crate) app: Arc<Account>,
    pub(crate) tenant: Arc<Account>,
    /// Most CPU time that one request can have taken.
    most_cpu_ns: u64,
}

impl Usage {
    /// Counts the CPU time of a request that has ended, as its guest says it.
    pub(crate) fn charge_cpu(&self, cpu_ns: u64) {
        let cpu_ns = cpu_ns.min(self.most_cpu_ns);
        self.app.cpu_ns.fetch_add(cpu_ns, Ordering::Relaxed);
        self.tenant.cpu_ns.fetch_add(cpu_ns, Ordering::Relaxed);
    }
}

/// What an app, or all apps of a tenant, have taken so far.
#[derive(Debug)]
pub(crate) struct Account {
    cpu_ns: AtomicU64,
    /// Requests in flight, of those that were admitted under a limit of them.
    running: AtomicU32,
    meters: Mutex<Meters>,
}

/// The state of what refills with time.
#[derive(Debug)]
struct Meters {
    requests: Bucket,
    cpu: Bucket,
    /// The part of `cpu_ns` that `cpu` knows of; none before the first look.
    cpu_seen: Option<u64>,
}

impl Account {
    fn new(now: Instant) -> Self {
        Self {
            cpu_ns: AtomicU64::new(0),
            running: AtomicU32::new(0),
            meters: Mutex::new(Meters {
                requests: Bucket::full(now),
                cpu: Bucket::full(now),
                cpu_seen: None,
            }),
        }
    }

    /// Admits a request under `policy`, or says what is exceeded.
    pub(crate) fn admit(self: &Arc<Self>, policy: &Policy) -> Result<Option<Lease>, Excess> {
        if policy.rate.is_some() || policy.cpu_ms_per_minute.is_some() {
            self.meter(policy, Instant::now())?;
        }
        match policy.concurrency {
            Some(limit) => self.enter(limit).map(Some),
            None => Ok(None),
        }
    }

    fn meter(&self, policy: &Policy, now: Instant) -> Result<(), Excess> {
        let mut meters = lock(&self.meters);
        if let Some(cpu) = policy.cpu_per_minute() {
            let used = self.cpu_ns.load(Ordering::Relaxed);
            let seen = meters.cpu_seen.replace(used);
            let new = used.wrapping_sub(seen.unwrap_or(used));
            let minute = cpu.as_secs_f64();
            meters.cpu.refill(minute / 60.0, minute, now);
            // Paid afterwards: what a request costs is known once it has ended.
            meters.cpu.level -= Duration::from_nanos(new).as_secs_f64();
            if let Some(wait) = meters.cpu.wait(0.0, minute / 60.0) {
                let ms = policy.cpu_ms_per_minute.unwrap_or_default();
                return Err(Excess::Cpu(ms, wait));
            }
        }
        if let Some(rate) = policy.rate {
            let (per_second, burst) = (rate.per_second(), rate.burst());
            meters.requests.refill(per_second, burst, now);
            if let Some(wait) = meters.requests.wait(1.0, per_second) {
                return Err(Excess::Rate(rate, wait));
            }
            meters.requests.level -= 1.0;
        }
        Ok(())
    }

    fn enter(self: &Arc<Self>, limit: u32) -> Result<Lease, Excess> {
        let lease = Lease(Arc::clone(self));
        if self.running.fetch_add(1, Ordering::Relaxed) >= limit {
            return Err(Excess::Concurrency(limit, SOON));
        }
        Ok(lease)
    }
}

/// A request among those that are in flight, until it is dropped.
#[derive(Debug)]
pub(crate) struct Lease(Arc<Account>);

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A bucket that refills steadily and never holds more than its size.
#[derive(Debug)]
struct Bucket {
    level: f64,
    at: Instant,
}

impl Bucket {
    fn full(now: Instant) -> Self {
        Self {
            level: f64::INFINITY,
            at: now,
        }
    }

    fn refill(&mut self, per_second: f64, size: f64, now: Instant) {
        let elapsed = now.saturating_duration_since(self.at);
        self.level = (self.level + elapsed.as_secs_f64() * per_second).min(size);
        self.at = now;
    }

    /// How long until there is `amount` in it, and more than nothing. `None`: now.
    fn wait(&self, amount: f64, per_second: f64) -> Option<Duration> {
        let missing = amount - self.level;
        let enough = if amount > 0.0 {
            missing <= 0.0
        } else {
            missing < 0.0
        };
        // An hour is as good as any longer time.
        (!enough).then(|| Duration::from_secs_f64((missing / per_second).clamp(0.001, 3600.0)))
    }
}

/// The accounts of all tenants and apps that something refers to.
#[derive(Debug, Default)]
pub(crate) struct Accounts(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    apps: HashMap<(TenantName, AppName), Weak<Account>>,
    tenants: HashMap<TenantName, Weak<Account>>,
}

impl Accounts {
    /// The account of a tenant.
    pub(crate) fn tenant(&self, tenant: &TenantName) -> Arc<Account> {
        account(&mut lock(&self.0).tenants, tenant.clone())
    }

    /// The usage of a new deployment: nothing yet, on the accounts of its app and tenant.
    pub(crate) fn of(&self, target: &Target) -> Arc<Usage> {
        let mut known = lock(&self.0);
        let limits = &target.limits;
        let most_cpu_ms = limits.wall_ms.saturating_add(limits.post_return_ms);
        let app = (target.tenant.clone(), target.app.clone());
        Arc::new(Usage {
            app: account(&mut known.apps, app),
            tenant: account(&mut known.tenants, target.tenant.clone()),
            most_cpu_ns: most_cpu_ms.saturating_mul(1_000_000),
        })
    }
}

fn account<K: std::hash::Hash + Eq>(known: &mut HashMap<K, Weak<Account>>, key: K) -> Arc<Account> {
    if let Some(account) = known.get(&key).and_then(Weak::upgrade) {
        return account;
    }
    known.retain(|_, account| account.strong_count() > 0);
    let account = Arc::new(Account::new(Instant::now()));
    known.insert(key, Arc::downgrade(&account));
    account
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(text: &str) -> Policy {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_rate_is_a_burst_and_then_a_trickle() {
        let start = Instant::now();
        let account = Account::new(start);
        let policy = policy(r#"{"rate":"2/s,burst=3"}"#);
        for _ in 0..3 {
            assert_eq!(account.meter(&policy, start), Ok(()));
        }
        let rate = policy.rate.unwrap();
        let half = Duration::from_millis(500);
        assert_eq!(account.meter(&policy, start), Err(Excess::Rate(rate, half)));
        assert_eq!(account.meter(&policy, start + half), Ok(()));
        assert!(account.meter(&policy, start + half).is_err());
        // A long pause is worth a burst, not more.
        let later = start + Duration::from_secs(100);
        let admitted = (0..10).filter(|_| account.meter(&policy, later).is_ok());
        assert_eq!(admitted.count(), 3);
    }

    #[test]
    fn cpu_time_is_paid_afterwards() {
        let start = Instant::now();
        let account = Account::new(start);
        let policy = policy(r#"{"cpu_ms_per_minute":6000}"#);
        assert_eq!(account.meter(&policy, start), Ok(()));
        account.cpu_ns.fetch_add(9_000_000_000, Ordering::Relaxed);
        // 3 s over, and 0.1 s come back each second.
        let wait = Duration::from_secs(30);
        assert_eq!(account.meter(&policy, start), Err(Excess::Cpu(6000, wait)));
        assert!(account.meter(&policy, start + wait / 2).is_err());
        let later = start + wait + Duration::from_millis(1);
        assert_eq!(account.meter(&policy, later), Ok(()));
    }

    #[test]
    fn what_runs_is_counted_until_it_ends() {
        let account = Arc::new(Account::new(Instant::now()));
        let policy = policy(r#"{"concurrency":2}"#);
        let first = account.admit(&policy).unwrap();
        let _second = account.admit(&policy).unwrap();
        let full = account.admit(&policy).unwrap_err();
        assert_eq!(full, Excess::Concurrency(2, SOON));
        drop(first);
        assert!(account.admit(&policy).unwrap().is_some());
        assert!(account.admit(&Policy::default()).unwrap().is_none());
    }

    #[test]
    fn deployments_of_an_app_share_an_account() {
        let accounts = Accounts::default();
        let target = |tenant: &str, app: &str, deployment| Target {
            isolation: platform_model::Isolation::default(),
            scale: platform_model::Scale::default(),
            tenant: tenant.parse().unwrap(),
            app: app.parse().unwrap(),
            deployment: platform_model::DeploymentId(deployment),
            artifact: "x".into(),
            digest: platform_model::Digest::from_sha256([0; 32]),
            env: std::collections::BTreeMap::new(),
            allow_hosts: Vec::new(),
            limits: platform_model::Limits::default(),
        };
        let one = accounts.of(&target("t", "a", 1));
        let two = accounts.of(&target("t", "a", 2));
        let other = accounts.of(&target("t", "b", 1));
        assert!(Arc::ptr_eq(&one.app, &two.app) && !Arc::ptr_eq(&one.app, &other.app));
        assert!(Arc::ptr_eq(&one.tenant, &other.tenant));
        one.charge_cpu(5);
        other.charge_cpu(u64::MAX);
        assert_eq!(two.app.cpu_ns.load(Ordering::Relaxed), 5);
        assert!(one.tenant.cpu_ns.load(Ordering::Relaxed) < 1_000_000_000_000);
        drop((one, two));
        let _new = accounts.of(&target("t", "c", 1));
        assert_eq!(
            lock(&accounts.0).apps.len(),
            2,
            "what nobody uses is forgotten"
        );
    }
}
