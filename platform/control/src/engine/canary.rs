//! Canaries: a task looks after each, raises its part while it does well, and gives it up where it does not.
//!
//! Only the record in the store says that there is one and how far it is: a node that starts again goes on with the step
//! that it was in, and counts anew.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use platform_data::Outcomes;
use platform_model::{AbortRule, AppName, Canary, ReleaseAction, TenantName, Traffic};
use time::OffsetDateTime;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::release::Shift;
use super::{AppKey, Engine, Origin, ReleaseError, lock};
use crate::store::records::CanaryRecord;

/// Time between two looks.
const LOOK: Duration = Duration::from_millis(500);

/// Requests before anything is said of a canary.
const ENOUGH: u64 = 10;

/// How sure it has to be that a canary is over its limit: the quantile of the normal distribution for 95 %, on one side.
const SURE: f64 = 1.645;

/// Pause after a change that failed.
const PAUSE: Duration = Duration::from_secs(5);

/// The canaries that are looked after.
#[derive(Debug, Default)]
pub(super) struct Canaries(Mutex<HashMap<AppKey, Watched>>);

/// A canary that is looked after, until it is dropped.
#[derive(Debug)]
struct Watched {
    record: CanaryRecord,
    counted: Outcomes,
    _end: DropGuard,
}

/// What is to become of a canary.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    Wait,
    Raise(String),
    Abort(String),
}

impl Engine {
    /// Looks after the canary that an app has from now on, or after none.
    pub(super) fn canary_changed(
        &self,
        tenant: &TenantName,
        app: &AppName,
        canary: Option<CanaryRecord>,
    ) {
        let key = (tenant.clone(), app.clone());
        match canary {
            Some(canary) => {
                let same = lock(&self.canaries.0)
                    .get(&key)
                    .is_some_and(|watched| watched.record == canary);
                if !same {
                    self.drive(canary);
                }
            }
            None => {
                lock(&self.canaries.0).remove(&key);
            }
        }
    }

    /// Looks after a canary.
    pub(super) fn drive(&self, record: CanaryRecord) {
        let key = (record.tenant.clone(), record.app.clone());
        let end = CancellationToken::new();
        let engine = Weak::clone(&self.me);
        let (canary, ended) = (record.clone(), end.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = watch(engine, canary) => {}
                () = ended.cancelled() => {}
            }
        });
        let watched = Watched {
            record,
            counted: Outcomes::default(),
            _end: end.drop_guard(),
        };
        lock(&self.canaries.0).insert(key, watched);
    }

    /// The canary of an app.
    ///
    /// # Errors
    /// [`ReleaseError::NoCanary`], or that there is no such app.
    pub async fn canary(&self, tenant: &TenantName, app: &AppName) -> Result<Canary, ReleaseError> {
        self.app(tenant, app).await?;
        let key = CanaryRecord::at(tenant, app);
        let found = self.ask(move |records| records.get(&key)).await?;
        let record = found.ok_or(ReleaseError::NoCanary)?.record;
        let counted = lock(&self.canaries.0)
            .get(&(tenant.clone(), app.clone()))
            .filter(|watched| watched.record == record)
            .map(|watched| watched.counted)
            .unwrap_or_default();
        Ok(Canary {
            weight: record.weight(),
            deployment: record.deployment,
            plan: record.plan,
            started_at: record.started_at,
            step_started_at: record.step_started_at,
            requests: counted.requests,
            errors: counted.errors,
        })
    }

    /// Gives up the canary of an app because somebody asks for it.
    ///
    /// # Errors
    /// [`ReleaseError::NoCanary`], or why not; nothing was changed then.
    pub async fn abort_canary(
        &self,
        origin: &Origin,
        tenant: &TenantName,
        app: &AppName,
    ) -> Result<(), ReleaseError> {
        let key = (tenant.clone(), app.clone());
        let _turn = self.turn(&key).await;
        self.app(tenant, app).await?;
        let at = CanaryRecord::at(tenant, app);
        let found = self.ask(move |records| records.get(&at)).await?;
        let record = found.ok_or(ReleaseError::NoCanary)?.record;
        self.shift(
            origin,
            &key,
            given_up(&record, "it was asked for".to_owned()),
        )
        .await?;
        Ok(())
    }

    /// Changes what a verdict says, unless the canary is no longer the one that was judged.
    async fn carry_out(&self, judged: &CanaryRecord, verdict: Verdict) -> Result<(), ReleaseError> {
        let key = (judged.tenant.clone(), judged.app.clone());
        let _turn = self.turn(&key).await;
        let at = CanaryRecord::at(&judged.tenant, &judged.app);
        let found = self.ask(move |records| records.get(&at)).await?;
        if found.map(|stored| stored.record).as_ref() != Some(judged) {
            return Ok(());
        }
        let shift = match verdict {
            Verdict::Wait => return Ok(()),
            Verdict::Abort(why) => given_up(judged, why),
            Verdict::Raise(why) => raised(judged, why),
        };
        let (tenant, app, number) = (&judged.tenant, &judged.app, judged.deployment);
        let what = format!("{} {tenant}/{app} #{number}", shift.action);
        let origin = Origin::node(what, Some(tenant.clone()));
        self.shift(&origin, &key, shift).await?;
        Ok(())
    }
}

/// Looks after a canary until its step is over.
async fn watch(engine: Weak<Engine>, record: CanaryRecord) {
    let key = (record.tenant.clone(), record.app.clone());
    let began = Instant::now();
    let mut base = None;
    loop {
        tokio::time::sleep(LOOK).await;
        let Some(engine) = engine.upgrade() else {
            return;
        };
        let target = engine.served_target(&key, record.deployment);
        let now = target.and_then(|target| engine.sandboxes.outcomes(&target));
        let now = now.unwrap_or_default();
        // The figures of a canary that was just started begin at nothing, also where its first request came before this look.
        let first = if record.step == 0 {
            Outcomes::default()
        } else {
            now
        };
        let base = *base.get_or_insert(first);
        let counted = Outcomes {
            requests: now.requests.saturating_sub(base.requests),
            errors: now.errors.saturating_sub(base.errors),
        };
        if let Some(watched) = lock(&engine.canaries.0).get_mut(&key)
            && watched.record == record
        {
            watched.counted = counted;
        }
        let verdict = judge(&record, counted, began.elapsed());
        if verdict == Verdict::Wait {
            continue;
        }
        // In a task of its own: what it changes ends this one.
        let (judged, acting) = (record.clone(), Arc::clone(&engine));
        let done = tokio::spawn(async move { acting.carry_out(&judged, verdict).await });
        drop(engine);
        match done.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::error!(tenant = %record.tenant, app = %record.app, %error, "a canary could not be changed");
                tokio::time::sleep(PAUSE).await;
            }
            Err(_) => return,
        }
    }
}

/// What is to become of a canary that has been in its step for so long.
fn judge(record: &CanaryRecord, counted: Outcomes, in_step: Duration) -> Verdict {
    let Outcomes { requests, errors } = counted;
    if requests < ENOUGH {
        return Verdict::Wait;
    }
    let rule = record.plan.abort_if;
    let rate = ratio(errors, requests);
    let told = format!(
        "{:.1} % of its requests failed ({errors} of {requests} in {:.1} s at {} % of the traffic)",
        rate * 100.0,
        in_step.as_secs_f64(),
        record.weight(),
    );
    let over = in_step >= Duration::from_secs(record.plan.step_seconds.into());
    let is_bad = surely_over(rule, errors, requests) || (over && rate > rule.error_rate());
    if is_bad {
        Verdict::Abort(format!("{told}, which is {rule}"))
    } else if over {
        Verdict::Raise(told)
    } else {
        Verdict::Wait
    }
}

/// Whether so many errors are no accident of a deployment that keeps to the rule: the lower end of Wilson's interval is over
/// the rule's limit.
fn surely_over(rule: AbortRule, errors: u64, requests: u64) -> bool {
    let (rate, n) = (ratio(errors, requests), ratio(requests, 1));
    let z2 = SURE * SURE;
    let centre = rate + z2 / (2.0 * n);
    let spread = SURE * (rate * (1.0 - rate) / n + z2 / (4.0 * n * n)).sqrt();
    let lower = (centre - spread) / (1.0 + z2 / n);
    errors > 0 && lower > rule.error_rate()
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts of requests are far below 2^52, and a rate may be off by a hair"
)]
fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}

/// Everything goes back to what answered before.
pub(super) fn given_up(record: &CanaryRecord, why: String) -> Shift {
    let active = record.base.main().unwrap_or(record.deployment);
    Shift {
        action: ReleaseAction::CanaryAborted,
        deployment: record.deployment,
        traffic: record.base.clone(),
        active,
        why: Some(why),
        canary: None,
    }
}

/// The next step, or everything after the last.
fn raised(record: &CanaryRecord, why: String) -> Shift {
    let next = CanaryRecord {
        step: record.step + 1,
        step_started_at: OffsetDateTime::now_utc(),
        ..record.clone()
    };
    let last = next
        .plan
        .steps
        .get(next.step)
        .is_none_or(|step| *step >= 100);
    let sticky = record.base.sticky.clone();
    if last {
        return Shift {
            action: ReleaseAction::CanaryFinished,
            deployment: record.deployment,
            traffic: Traffic {
                sticky,
                ..Traffic::all_to(record.deployment)
            },
            active: record.deployment,
            why: Some(why),
            canary: None,
        };
    }
    Shift {
        action: ReleaseAction::CanaryRaised,
        deployment: record.deployment,
        traffic: next.traffic(),
        active: record.base.main().unwrap_or(record.deployment),
        why: Some(why),
        canary: Some(next),
    }
}

#[cfg(test)]
mod tests {
    use platform_model::{CanaryPlan, DeploymentId};

    use super::*;

    fn record(step: usize) -> CanaryRecord {
        CanaryRecord {
            tenant: "t".parse().unwrap(),
            app: "a".parse().unwrap(),
            deployment: DeploymentId(4),
            base: Traffic::all_to(DeploymentId(3)),
            plan: CanaryPlan {
                step_seconds: 30,
                ..CanaryPlan::from(10)
            },
            step,
            started_at: OffsetDateTime::UNIX_EPOCH,
            step_started_at: OffsetDateTime::UNIX_EPOCH,
        }
    }

    fn verdict(requests: u64, errors: u64, seconds: u64) -> Verdict {
        let counted = Outcomes { requests, errors };
        judge(&record(0), counted, Duration::from_secs(seconds))
    }

    #[test]
    fn a_canary_is_judged_by_what_it_did() {
        assert_eq!(verdict(0, 0, 1000), Verdict::Wait, "nobody came");
        assert_eq!(verdict(9, 9, 1000), Verdict::Wait, "too few to say");
        assert_eq!(verdict(5000, 0, 29), Verdict::Wait);
        assert!(matches!(verdict(5000, 50, 30), Verdict::Raise(_)));
        assert!(matches!(verdict(10, 3, 1), Verdict::Abort(_)));
        assert!(
            matches!(verdict(1000, 50, 1), Verdict::Abort(_)),
            "5 % of many"
        );
        assert_eq!(verdict(50, 2, 1), Verdict::Wait, "4 % of few may be chance");
        assert!(
            matches!(verdict(50, 2, 30), Verdict::Abort(_)),
            "but are not raised"
        );
        let Verdict::Abort(why) = verdict(400, 20, 2) else {
            panic!("20 of 400 fail")
        };
        assert_eq!(
            why,
            "5.0 % of its requests failed (20 of 400 in 2.0 s at 10 % of the traffic), which is error-rate>2%"
        );
    }

    #[test]
    fn a_canary_that_keeps_to_the_rule_is_rarely_given_up() {
        // 1 % fail, judged every 20 requests over 4,000: a rule of 2 % is not broken by that.
        let mut errors = 0;
        for requests in (20..=4000_u64).step_by(20) {
            errors += u64::from(requests % 100 == 0);
            assert_eq!(
                verdict(requests, errors, 1),
                Verdict::Wait,
                "{errors} of {requests}"
            );
        }
    }

    #[test]
    fn steps_go_up_to_the_end() {
        let shares = |traffic: &Traffic| traffic.to_string();
        assert_eq!(shares(&record(0).traffic()), "3=90,4=10");
        let next = raised(&record(0), String::new());
        assert_eq!(shares(&next.traffic), "3=75,4=25");
        assert_eq!(
            (next.action, next.active),
            (ReleaseAction::CanaryRaised, DeploymentId(3))
        );
        let end = raised(&record(2), String::new());
        assert_eq!(shares(&end.traffic), "4=100");
        assert_eq!(
            (end.action, end.active),
            (ReleaseAction::CanaryFinished, DeploymentId(4))
        );
        assert!(end.canary.is_none());
        let back = given_up(&record(1), "why".to_owned());
        assert_eq!(
            (shares(&back.traffic), back.active),
            ("3=100".to_owned(), DeploymentId(3))
        );
    }
}
