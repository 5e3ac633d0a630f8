//! The engine, the component, and one request.
//!
//! Every request runs on the thread of a [slot](crate::slots), in an instance that is as good as new: plain synchronous
//! calls of wasmtime on the thread's stack. A host function that has to wait parks the thread ([`State::wait`]).
//!
//! An instance is made once for each slot and put back after each request, if making it had nothing to do with the
//! world: a component that asks for the time, for randomness or for anything else that differs from one instance to the
//! next while it is instantiated gets a new instance for each request. Its environment is the same for all instances of
//! a deployment, but no part of a template: who asks for it gets the first instance when the VM begins with one.

mod config;
mod ending;
mod limiter;

use crate::http::body::Body;
use crate::http::incoming::IncomingRequest;
use crate::http::outgoing::Outparam;
use crate::kernel::cell::Local;
use crate::kernel::{account, sched, space, time};
use crate::link::{self, bindings};
use crate::settings::{self, Settings};
use crate::slots::{self, Job};
use crate::streams;
use crate::wasi::io::{InputStream, OutputStream};
use crate::wasi::scratch::Scratch;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::any::Any;
use core::cell::Cell;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, Ordering};
use limiter::Limiter;
use sandbox_abi::config::Reuse;
use sandbox_abi::message::outcome;
use wasmtime::component::{Component, ResourceTable};
use wasmtime::{CallHook, Engine, Store};

/// Most entries of a request's resource table.
const RESOURCES: usize = 64 << 10;
/// Bytes that one call of a host function may hand over.
const CALL_BYTES: usize = 32 << 20;

/// The component, ready to be instantiated.
pub struct Runtime {
    engine: Engine,
    component: bindings::GuestPre<State>,
    /// Whether an instance may be made before there is a request for it.
    ahead: AtomicBool,
    /// Whether it may once the deployment's settings are known.
    settled: AtomicBool,
    /// Whether instances serve more than one request, where the deployment says so.
    reusable: AtomicBool,
}

/// What a component asked for while it was instantiated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Asked {
    /// For nothing that is not the same for all instances of it.
    Nothing,
    /// For what is the same for all instances of a deployment.
    Settings,
    /// For what may differ from one instance to the next, or for what there is only with a request.
    World,
}

/// An instance that was made ahead.
struct Instance {
    store: Store<State>,
    component: bindings::Guest,
}

static RUNTIME: Local<Option<&'static Runtime>> = Local::new(None);

impl Runtime {
    /// Loads a component. The error is for the person who deploys it: it names what is wrong.
    pub fn load(artifact: NonNull<[u8]>) -> Result<Runtime, String> {
        let engine =
            Engine::new(&config::engine_config()).map_err(|e| format!("the engine: {e:?}"))?;
        // SAFETY: the artifact lies there, unchanged, for as long as the VM lives; the daemon's compiler made it.
        let component = unsafe { Component::deserialize_raw(&engine, artifact) }
            .map_err(|e| format!("the artifact does not fit this runtime: {e:?}"))?;
        let component = link::linker(&engine)
            .and_then(|linker| linker.instantiate_pre(&component))
            .and_then(bindings::GuestPre::new)
            .map_err(|e| format!("{e:?}"))?;
        Ok(Runtime {
            engine,
            component,
            ahead: AtomicBool::new(false),
            settled: AtomicBool::new(false),
            reusable: AtomicBool::new(true),
        })
    }

    fn store(&'static self) -> Store<State> {
        space::begin_instance();
        let mut store = Store::new(&self.engine, State::new(settings::current()));
        store.limiter(|state| &mut state.limiter);
        store.set_hostcall_fuel(CALL_BYTES);
        // Where host functions call the component, for memory above all, it can only be ended here: see `kernel::preempt`.
        store.call_hook(|_, to| {
            if matches!(to, CallHook::CallingWasm) {
                space::begin_call();
                if account::over() {
                    return Err(ended());
                }
            }
            Ok(())
        });
        store
    }

    /// An instance without a request, and what it asked for. `None`: it cannot be made ahead.
    fn instance(&'static self) -> Option<(Instance, Asked)> {
        account::begin_request();
        account::set_cpu_limit(settings::current().limits.cpu_ns);
        let mut store = self.store();
        store.data_mut().ahead = true;
        let component = self.component.instantiate(&mut store).ok()?;
        let state = store.data_mut();
        let asked = state.asked.get();
        if asked == Asked::World || !state.holds_nothing() {
            return None;
        }
        state.ahead = false;
        Some((Instance { store, component }, asked))
    }
}

impl Runtime {
    /// Whether an instance that has served so many requests since then has another one.
    fn reuses(&self, served: u64, since: u64) -> bool {
        match settings::current().reuse {
            Reuse::UpTo { requests, ns } => {
                served < requests
                    && time::monotonic_ns().saturating_sub(since) < ns
                    && self.reusable.load(Ordering::Relaxed)
            }
            Reuse::Never | Reuse::Vm { .. } => false,
        }
    }

    /// Instances of this component do not stand a second request.
    fn give_up_reuse(&self, id: u32) {
        self.reusable.store(false, Ordering::Relaxed);
        let text = b"error: an instance of this component failed with its second request; from now on each request has a fresh one (isolation: instance)\n";
        streams::log(id, 2, text);
    }
}

/// Makes this the component that slots run, and finds out whether instances may be made ahead. On a thread of no slot:
/// what wasmtime makes once and keeps, it makes here, and it is not put back with any slot.
pub fn install(runtime: Runtime) {
    let runtime: &'static Runtime = Box::leak(Box::new(runtime));
    RUNTIME.with(|r| *r = Some(runtime));
    let asked = runtime.instance().map(|(_, asked)| asked);
    let (ahead, settled) = match asked {
        Some(Asked::Nothing) => (true, false),
        Some(Asked::Settings) => (false, true),
        Some(Asked::World) | None => (false, false),
    };
    runtime.ahead.store(ahead, Ordering::Relaxed);
    runtime.settled.store(settled, Ordering::Relaxed);
}

/// Whether no slot is to be made before the deployment's settings are known.
pub fn waits_for_settings() -> bool {
    RUNTIME.with(|r| r.is_some_and(|r| r.settled.load(Ordering::Relaxed)))
}

/// The settings are the deployment's from now on. Says whether slots have waited for that.
pub fn settle() -> bool {
    let waited = waits_for_settings();
    if waited {
        RUNTIME.with(|r| r.inspect(|r| r.ahead.store(true, Ordering::Relaxed)));
    }
    waited
}

/// How far the response is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The component has not answered.
    None,
    /// It answered with an error, or what it answered could not be sent.
    Failed,
    /// The head was sent.
    Begun,
}

/// All that the host functions know of a request.
pub struct State {
    /// The component's resources.
    pub table: ResourceTable,
    /// The incoming exchange.
    pub id: u32,
    /// What holds for every request.
    pub settings: &'static Settings,
    /// How far the response is.
    pub answer: Answer,
    /// The response's body, once its head was sent.
    pub body: Option<Body>,
    /// The exchanges that the component began.
    pub outgoing: Vec<u32>,
    /// The scratch directory, once the component asked for it.
    pub scratch: Option<Box<Scratch>>,
    /// The seed of `wasi:random/insecure-seed`, once the component asked for it.
    pub seed: Option<(u64, u64)>,
    /// When the component has to end, its response having ended.
    last_moment: Option<u64>,
    /// There is no request yet.
    ahead: bool,
    /// What the component has asked for without a request.
    asked: Cell<Asked>,
    limiter: Limiter,
}

/// The request is off; the host, or the kernel, knows why.
#[derive(Debug)]
struct Ended(&'static str);

impl core::fmt::Display for Ended {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.0)
    }
}

impl core::error::Error for Ended {}

fn ended() -> wasmtime::Error {
    wasmtime::Error::new(Ended("the request was ended"))
}

impl State {
    /// A request begins.
    fn begin(&mut self, id: u32, settings: &'static Settings) {
        self.id = id;
        self.settings = settings;
        self.answer = Answer::None;
        self.last_moment = None;
        self.limiter.most = usize::try_from(settings.limits.memory).unwrap_or(usize::MAX);
        self.limiter.refused = false;
    }

    /// Ends the exchanges that the component began.
    fn give_up_calls(&mut self) {
        for outgoing in self.outgoing.drain(..) {
            streams::cancel(outgoing);
            streams::forget(outgoing);
        }
    }

    fn new(settings: &'static Settings) -> State {
        let mut table = ResourceTable::new();
        table.set_max_capacity(RESOURCES);
        let most = usize::try_from(settings.limits.memory).unwrap_or(usize::MAX);
        State {
            table,
            id: 0,
            settings,
            answer: Answer::None,
            body: None,
            outgoing: Vec::new(),
            scratch: None,
            seed: None,
            last_moment: None,
            ahead: false,
            asked: Cell::new(Asked::Nothing),
            limiter: Limiter::new(most),
        }
    }

    /// Whether the component has no resources but its standard streams, which are the same for every instance.
    fn holds_nothing(&mut self) -> bool {
        let plain = |entry: &mut (dyn Any + Send)| {
            matches!(entry.downcast_ref(), Some(OutputStream::Log(_)))
                || matches!(entry.downcast_ref(), Some(InputStream::Closed))
        };
        self.outgoing.is_empty() && self.scratch.is_none() && self.table.iter_mut().all(plain)
    }

    /// Notes what the component asks for.
    pub fn note(&self, asked: Asked) {
        if self.ahead {
            self.asked.set(self.asked.get().max(asked));
        }
    }

    /// Fails where the request has to end: it is over its time, or the host gave it up. Or there is none: what is said to
    /// the host, or waited for, cannot be done ahead, when the rings of this VM may not be there yet.
    pub fn check(&self) -> wasmtime::Result<()> {
        if self.ahead {
            self.note(Asked::World);
            return Err(wasmtime::Error::new(Ended("there is no request yet")));
        }
        if account::over() {
            return Err(ended());
        }
        if self.last_moment.is_some_and(|t| time::monotonic_ns() > t) {
            return Err(wasmtime::Error::new(Ended(
                "the component worked on for too long after its response",
            )));
        }
        Ok(())
    }

    /// Waits until `ready` or the deadline, on the monotonic clock; `ready` is asked once more after it.
    pub fn wait(
        &self,
        deadline: Option<u64>,
        mut ready: impl FnMut() -> bool,
    ) -> wasmtime::Result<()> {
        loop {
            self.check()?;
            if ready() {
                return Ok(());
            }
            let until = match (deadline, self.last_moment) {
                (Some(a), Some(b)) => Some(a.min(b.saturating_add(1))),
                (a, b) => a.or(b.map(|b| b.saturating_add(1))),
            };
            sched::park(until.filter(|t| *t < u64::MAX));
        }
    }

    /// Once the response has ended, the component has only so much time left.
    pub fn note_progress(&mut self) {
        if self.last_moment.is_none() && self.answer != Answer::None && streams::sent(self.id) {
            let limits = &self.settings.limits;
            self.last_moment = Some(time::monotonic_ns().saturating_add(limits.post_return_ns));
            account::set_cpu_limit(
                limits
                    .cpu_ns
                    .min(account::cpu_ns().saturating_add(limits.post_return_ns)),
            );
        }
    }
}

/// The life of a slot: the main function of its thread.
pub fn run(slot: usize) {
    let Some(runtime) = RUNTIME.with(|r| *r) else {
        return;
    };
    let ahead = runtime.ahead.load(Ordering::Relaxed);
    let ahead = ahead.then(|| runtime.instance()).flatten();
    let ahead = ahead.map(|(instance, _)| leak(instance));
    if space::freeze(slot).is_err() {
        return;
    }
    // Whatever is not in the frozen state of the slot is put back without destructors: an instance that is made for a
    // request is leaked, and gone when the slot is put back.
    let (mut instance, mut requests, mut since) = (ahead, 0, 0);
    loop {
        let job = slots::next(slot);
        if requests == 0 {
            since = time::monotonic_ns();
        }
        let mut end = serve(runtime, &mut instance, &job, requests > 0);
        if end == End::Unserved {
            // What another request left in the instance must not be this one's fault.
            runtime.give_up_reuse(job.id);
            let exchange = streams::take(job.id);
            destroy(instance);
            streams::put(job.id, exchange);
            if matches!(space::restore(slot), Ok(false)) {
                space::flush();
            }
            (instance, requests) = (ahead, 0);
            end = serve(runtime, &mut instance, &job, false);
        }
        requests += 1;
        if settings::current().reuse == (Reuse::Vm { requests: 1 }) {
            // The VM is put back, and the slot with it.
            slots::give_up(slot, job);
        } else if end == End::Fine && runtime.reuses(requests, since) {
            slots::keep(slot, job);
        } else {
            destroy(instance);
            (instance, requests) = (ahead, 0);
            slots::finish(slot, job);
        }
    }
}

/// Runs the destructors of what an instance holds outside of its slot, before the slot is put back.
fn destroy(instance: Option<NonNull<Instance>>) {
    if let Some(mut instance) = instance {
        // SAFETY: an instance of this slot, which was leaked and not put back since; nobody uses it.
        let state = unsafe { instance.as_mut() }.store.data_mut();
        state.table = ResourceTable::new();
        state.body = None;
        state.scratch = None;
    }
}

fn leak(instance: Instance) -> NonNull<Instance> {
    NonNull::from(Box::leak(Box::new(instance)))
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The component answered, and returned.
    Fine,
    /// The component failed, or did not answer.
    Failed,
    /// The component failed, nothing of the request was used, and the host knows nothing of it.
    Unserved,
}

/// Runs a request, from its head to `DONE`; or to its failure, where the instance is `used` and may be what is wrong.
fn serve(
    runtime: &'static Runtime,
    instance: &mut Option<NonNull<Instance>>,
    job: &Job,
    used: bool,
) -> End {
    let settings = settings::current();
    account::begin_request();
    account::set_cpu_limit(settings.limits.cpu_ns);
    if !streams::own(job.id) {
        account::end(outcome::CANCELLED);
    }
    let made = match *instance {
        Some(instance) => Ok(instance),
        None => {
            let mut store = runtime.store();
            match runtime.component.instantiate(&mut store) {
                Ok(component) => Ok(leak(Instance { store, component })),
                Err(error) => Err((store, error)),
            }
        }
    };
    let (state, result) = match made {
        Ok(mut made) => {
            *instance = Some(made);
            // SAFETY: an instance of this slot, which was leaked and not put back since; this thread alone uses it, and
            // one request at a time.
            let Instance { store, component } = unsafe { made.as_mut() };
            let result = call(store, component, job, settings);
            (store.data_mut(), result)
        }
        Err((store, error)) => {
            let state = Box::leak(Box::new(store)).data_mut();
            state.begin(job.id, settings);
            (state, Err(error))
        }
    };
    let answered = result.is_ok() && state.answer != Answer::None;
    if used && !answered && state.answer == Answer::None && streams::is_untouched(job.id) {
        state.give_up_calls();
        return End::Unserved;
    }
    finish(state, result);
    if answered { End::Fine } else { End::Failed }
}

/// Ends what is open of a request, and tells the host.
fn finish(state: &mut State, result: wasmtime::Result<()>) {
    let outcome = ending::conclude(state, result.as_ref().err());
    state.give_up_calls();
    streams::forget(state.id);
    drop(result);
    state.body = None;
    streams::done(state.id, outcome, state.limiter.peak as u64);
}

fn call(
    store: &mut Store<State>,
    component: &bindings::Guest,
    job: &Job,
    settings: &'static Settings,
) -> wasmtime::Result<()> {
    let state = store.data_mut();
    state.begin(job.id, settings);
    if state.limiter.used > state.limiter.most {
        state.limiter.refused = true;
        wasmtime::bail!("its memories are larger than that from the start");
    }
    let request = IncomingRequest::new(state.id, &job.head)?;
    let request = state.table.push(request)?;
    let outparam = state.table.push(Outparam)?;
    component
        .wasi_http_incoming_handler()
        .call_handle(store, request, outparam)
}
