//! The engine, the component, and one request.
//!
//! Every request runs on the thread of a [slot](crate::slots), in an instance that is as good as new: plain synchronous
//! calls of wasmtime on the thread's stack. A host function that has to wait parks the thread ([`State::wait`]).
//!
//! An instance is made once for each slot and put back after each request, if making it had nothing to do with the
//! world: a component that asks for the time, for randomness or for anything else that differs from one instance to the
//! next while it is instantiated gets a new instance for each request.

mod config;

use crate::http::body::Body;
use crate::http::incoming::IncomingRequest;
use crate::http::outgoing::Outparam;
use crate::kernel::cell::Local;
use crate::kernel::{account, sched, space, time};
use crate::link::{self, bindings};
use crate::slots::{self, Job};
use crate::streams;
use crate::wasi::cli::Exit;
use crate::wasi::io::{InputStream, OutputStream};
use crate::wasi::scratch::Scratch;
use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::any::Any;
use core::cell::Cell;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, Ordering};
use sandbox_abi::config::{Config, Limits};
use sandbox_abi::message::{outcome, reset};
use wasmtime::component::{Component, ResourceTable};
use wasmtime::{Engine, ResourceLimiter, Store, Trap};

/// Most entries of a request's resource table.
const RESOURCES: usize = 64 << 10;
/// Bytes that one call of a host function may hand over.
const CALL_BYTES: usize = 32 << 20;
/// Most elements of all tables of an instance, and most instances, tables and memories.
const TABLE_ELEMENTS: usize = 1 << 20;
const INSTANCES: usize = 1000;
/// Bytes of an error that goes to the log or to the host.
const ERROR_TEXT: usize = 8 << 10;

/// What holds for every request.
pub struct Settings {
    /// The deployment's limits.
    pub limits: Limits,
    /// The environment.
    pub env: Vec<(&'static str, &'static str)>,
}

/// The component, ready to be instantiated.
pub struct Runtime {
    engine: Engine,
    component: bindings::GuestPre<State>,
    settings: Settings,
    /// Whether an instance may be made before there is a request for it.
    ahead: AtomicBool,
}

/// An instance that was made ahead.
struct Instance {
    store: Store<State>,
    component: bindings::Guest,
}

static RUNTIME: Local<Option<&'static Runtime>> = Local::new(None);

impl Runtime {
    /// Loads a component. The error is for the person who deploys it: it names what is wrong.
    pub fn load(artifact: NonNull<[u8]>, config: Config<'static>) -> Result<Runtime, String> {
        let engine =
            Engine::new(&config::engine_config()).map_err(|e| format!("the engine: {e:?}"))?;
        // SAFETY: the artifact lies there, unchanged, for as long as the VM lives; the daemon's compiler made it.
        let component = unsafe { Component::deserialize_raw(&engine, artifact) }
            .map_err(|e| format!("the artifact does not fit this runtime: {e:?}"))?;
        let component = link::linker(&engine)
            .and_then(|linker| linker.instantiate_pre(&component))
            .and_then(bindings::GuestPre::new)
            .map_err(|e| format!("{e:?}"))?;
        let settings = Settings {
            limits: config.limits,
            env: config.env().collect(),
        };
        Ok(Runtime {
            engine,
            component,
            settings,
            ahead: AtomicBool::new(false),
        })
    }

    fn store(&'static self) -> Store<State> {
        let mut store = Store::new(&self.engine, State::new(&self.settings));
        store.limiter(|state| &mut state.limiter);
        store.set_hostcall_fuel(CALL_BYTES);
        store
    }

    /// An instance without a request. `None`: it cannot be made, or not ahead.
    fn instance(&'static self) -> Option<Instance> {
        account::begin_request();
        account::set_cpu_limit(self.settings.limits.cpu_ns);
        let mut store = self.store();
        store.data_mut().ahead = true;
        let component = self.component.instantiate(&mut store).ok()?;
        let state = store.data_mut();
        if state.worldly.get() || !state.holds_nothing() {
            return None;
        }
        state.ahead = false;
        Some(Instance { store, component })
    }
}

/// Makes this the component that slots run, and finds out whether instances may be made ahead. On a thread of no slot:
/// what wasmtime makes once and keeps, it makes here, and it is not put back with any slot.
pub fn install(runtime: Runtime) {
    let runtime: &'static Runtime = Box::leak(Box::new(runtime));
    RUNTIME.with(|r| *r = Some(runtime));
    runtime
        .ahead
        .store(runtime.instance().is_some(), Ordering::Relaxed);
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

/// Counts an instance's memory, and refuses more than it may have.
struct Limiter {
    most: usize,
    used: usize,
    peak: usize,
    elements: usize,
    refused: bool,
}

impl ResourceLimiter for Limiter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let used = self.used.saturating_sub(current).saturating_add(desired);
        if used > self.most {
            self.refused = true;
            return Ok(false);
        }
        self.used = used;
        self.peak = self.peak.max(used);
        Ok(true)
    }

    fn memory_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        self.refused = true;
        Ok(())
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        _: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let elements = self
            .elements
            .saturating_sub(current)
            .saturating_add(desired);
        let fine = elements <= TABLE_ELEMENTS;
        if fine {
            self.elements = elements;
        }
        Ok(fine)
    }

    fn instances(&self) -> usize {
        INSTANCES
    }

    fn tables(&self) -> usize {
        INSTANCES
    }

    fn memories(&self) -> usize {
        INSTANCES
    }
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
    /// When the component has to end, its response having ended.
    last_moment: Option<u64>,
    /// There is no request yet.
    ahead: bool,
    /// Without a request, the component asked for what differs from one instance to the next.
    worldly: Cell<bool>,
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

impl State {
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
            last_moment: None,
            ahead: false,
            worldly: Cell::new(false),
            limiter: Limiter {
                most,
                used: 0,
                peak: 0,
                elements: 0,
                refused: false,
            },
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

    /// Notes that the component asks for what may differ from one instance to the next.
    pub fn worldly(&self) {
        if self.ahead {
            self.worldly.set(true);
        }
    }

    /// Fails where the request has to end: it is over its time, or the host gave it up.
    pub fn check(&self) -> wasmtime::Result<()> {
        self.worldly();
        if account::over() {
            return Err(wasmtime::Error::new(Ended("the request was ended")));
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
    let instance = runtime
        .ahead
        .load(Ordering::Relaxed)
        .then(|| runtime.instance())
        .flatten()
        .map(|instance| NonNull::from(Box::leak(Box::new(instance))));
    if space::freeze(slot).is_err() {
        return;
    }
    loop {
        let job = slots::next(slot);
        account::begin_request();
        if !streams::own(job.id) {
            account::end(outcome::CANCELLED);
        }
        account::set_cpu_limit(runtime.settings.limits.cpu_ns);
        match instance {
            // SAFETY: the instance was leaked, this thread alone uses it, and one request at a time.
            Some(mut instance) => serve(&job, Made::Ahead(unsafe { instance.as_mut() })),
            None => serve(&job, Made::Now(runtime)),
        }
        slots::finish(slot, job);
    }
}

/// Where a request's instance comes from.
enum Made {
    Ahead(&'static mut Instance),
    Now(&'static Runtime),
}

/// Runs a request, from its head to `DONE`.
fn serve(job: &Job, made: Made) {
    match made {
        Made::Ahead(Instance { store, component }) => {
            let result = call(store, job, |_| Ok(component));
            finish(store.data_mut(), result);
        }
        Made::Now(runtime) => {
            let mut store = runtime.store();
            let mut component = None;
            let result = call(&mut store, job, |store| {
                let made = runtime.component.instantiate(store)?;
                Ok(component.insert(made))
            });
            finish(store.data_mut(), result);
        }
    }
}

/// Ends what is open of a request, its instance included, and tells the host.
fn finish(state: &mut State, result: wasmtime::Result<()>) {
    let outcome = conclude(state, result.as_ref().err());
    let id = state.id;
    for outgoing in &state.outgoing {
        streams::cancel(*outgoing);
        streams::forget(*outgoing);
    }
    streams::forget(id);
    // Destructors run now: the instance is put back without them.
    drop(result);
    state.table = ResourceTable::new();
    state.body = None;
    state.scratch = None;
    streams::done(id, outcome, state.limiter.peak as u64);
}

fn call<'c>(
    store: &mut Store<State>,
    job: &Job,
    component: impl FnOnce(&mut Store<State>) -> wasmtime::Result<&'c mut bindings::Guest>,
) -> wasmtime::Result<()> {
    let state = store.data_mut();
    state.id = job.id;
    let request = IncomingRequest::new(state.id, &job.head)?;
    let request = state.table.push(request)?;
    let outparam = state.table.push(Outparam)?;
    let component = component(store)?;
    component
        .wasi_http_incoming_handler()
        .call_handle(store, request, outparam)
}

/// Why the component ended, for the host: outcome, reset code, text.
fn diagnose(state: &State, error: &wasmtime::Error) -> (u32, u32, Cow<'static, str>) {
    let over = state.last_moment.is_some();
    match account::outcome() {
        Some(outcome::CANCELLED) => {
            return (
                outcome::CANCELLED,
                reset::CANCELLED,
                Cow::Borrowed("cancelled"),
            );
        }
        Some(outcome::CPU) if !over => {
            return (
                outcome::CPU,
                reset::CPU,
                Cow::Borrowed("the component used more processor time than it may"),
            );
        }
        Some(outcome::CPU) => return (outcome::POST_RETURN, reset::TRAP, Cow::Borrowed("")),
        _ => {}
    }
    if over && error.is::<Ended>() {
        return (outcome::POST_RETURN, reset::TRAP, Cow::Borrowed(""));
    }
    if error.is::<Exit>() {
        return (
            outcome::TRAP,
            reset::NO_RESPONSE,
            Cow::Owned(format!("{error}")),
        );
    }
    let memory = state.limiter.refused || account::outcome() == Some(outcome::MEMORY);
    if memory {
        let text = format!(
            "the component used up its memory of {} MiB: {error}",
            state.limiter.most >> 20
        );
        return (outcome::MEMORY, reset::MEMORY, Cow::Owned(text));
    }
    let text = match error.downcast_ref::<Trap>() {
        Some(trap) => format!("{trap}"),
        None => format!("{error:#}"),
    };
    (outcome::TRAP, reset::TRAP, Cow::Owned(text))
}

/// Ends what is open of the response; says how the request ended.
fn conclude(state: &State, error: Option<&wasmtime::Error>) -> u32 {
    let Some(error) = error else {
        match (state.answer, &state.body) {
            (Answer::None, _) => {
                streams::reset(
                    state.id,
                    reset::NO_RESPONSE,
                    "the component returned without a response",
                );
            }
            // A body that the component forgot to finish is complete all the same, as in `wasmtime serve`.
            (Answer::Begun, Some(body)) if !streams::sent(state.id) => {
                let _ = body.finish(Vec::new());
            }
            _ => {}
        }
        return outcome::OK;
    };
    let (outcome, code, text) = diagnose(state, error);
    let report = match outcome {
        // Where the kernel ended it, the trap that it used says nothing.
        outcome::CPU => format!("error: {text}\n"),
        outcome::POST_RETURN => {
            String::from("error: the component worked on for too long after its response\n")
        }
        outcome::TRAP | outcome::MEMORY if !error.is::<Exit>() => format!("error: {error:?}\n"),
        _ => String::new(),
    };
    if !report.is_empty() {
        let report = report
            .get(..report.floor_char_boundary(ERROR_TEXT))
            .unwrap_or_default();
        streams::log(state.id, 2, report.as_bytes());
    }
    if outcome != outcome::CANCELLED {
        streams::reset(state.id, code, &text);
    }
    // An exit is not a fault where the response was complete.
    if error.downcast_ref::<Exit>().is_some_and(|e| e.0 == 0) && state.answer == Answer::Begun {
        outcome::OK
    } else {
        outcome
    }
}
