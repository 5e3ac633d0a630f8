//! Commands in, events out.

use sandbox_channel::{Begin, Command, Event, ReceiveError, Socket, VmId, VmStats};
use sandbox_vmm::template::TemplateError;
use sandbox_vmm::{Factory, ResetDescriptors, Template, Vm, VmDescriptors, VmEvent, VmPlan, Watch};
use std::collections::HashMap;
use std::error::Error;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Things are made ahead when no command has come for so long. To make one takes about as long as a request in a new VM,
/// whose first moments it would take the processor from.
const QUIET: Duration = Duration::from_millis(5);

/// Sends events from any thread. A daemon that is gone needs none: the worker is about to end.
#[derive(Clone)]
struct Events(Arc<Mutex<Socket>>);

impl Events {
    fn send(&self, event: &Event) {
        let socket = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = socket.send(event, &[]);
    }
}

struct Worker {
    /// None where none could be made yet: each VM that is asked for tries again, and says why not.
    factory: Option<Factory>,
    watch: Watch,
    events: Events,
    vms: HashMap<VmId, Arc<Vm>>,
}

/// Does what the daemon says until it closes the socket.
pub(crate) fn run(socket: Socket) -> Result<(), Box<dyn Error>> {
    let events = Events(Arc::new(Mutex::new(socket.try_clone()?)));
    let mut worker = Worker {
        factory: Factory::new(sandbox_vmm::GUEST).ok(),
        watch: Watch::start()?,
        events,
        vms: HashMap::new(),
    };
    // Whether something is to be made ahead.
    let mut lacks = true;
    loop {
        if lacks && !socket.wait(QUIET)? {
            lacks = worker.stock();
            continue;
        }
        let (command, fds) = match socket.receive::<Command>() {
            Ok(received) => received,
            Err(ReceiveError::Closed) => return Ok(()),
            Err(e) => return Err(e.into()),
        };
        // What a lost VM still held goes here, at the latest when the daemon asks for another one.
        worker.vms.retain(|_, vm| !vm.is_over());
        match command {
            Command::CreateVm {
                vm,
                memory,
                begin,
                reset,
            } => {
                worker.create(vm, memory, begin, reset, fds);
                lacks = true;
            }
            Command::StopVm { vm } => worker.stop(vm),
            Command::Stats => worker.stats(),
        }
    }
}

/// Why no VM was made.
enum NotMade {
    Template(TemplateError),
    Other(Box<dyn Error>),
}

impl<E: Error + 'static> From<E> for NotMade {
    fn from(e: E) -> Self {
        NotMade::Other(e.into())
    }
}

impl Worker {
    fn create(&mut self, id: VmId, ram: u64, begin: Begin, reset: bool, fds: Vec<OwnedFd>) {
        let since = Instant::now();
        let events = self.events.clone();
        let report = move |event| {
            events.send(&match event {
                VmEvent::Debug(line) => Event::Debug { vm: id, line },
                VmEvent::Template(bytes) => Event::Saved { vm: id, bytes },
                VmEvent::NoTemplate(reason) => Event::NotSaved { vm: id, reason },
                VmEvent::Lost(reason) => Event::Lost { vm: id, reason },
                VmEvent::Stopped => Event::Stopped { vm: id },
            });
        };
        let made = self.factory().and_then(|factory| {
            let plan = plan(factory, ram, begin, reset, fds)?;
            Ok(Vm::start(factory, plan, report)?)
        });
        match made {
            Ok(vm) => {
                let vm = Arc::new(vm);
                self.watch.add(id.0, &vm);
                self.vms.insert(id, vm);
                let setup_us = u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX);
                self.events.send(&Event::Started { vm: id, setup_us });
            }
            Err(NotMade::Template(e)) => {
                let reason = e.to_string();
                self.events.send(&Event::BadTemplate { vm: id, reason });
            }
            Err(NotMade::Other(e)) => {
                let reason = match e.source() {
                    Some(cause) => format!("{e}: {cause}"),
                    None => e.to_string(),
                };
                self.events.send(&Event::NotStarted { vm: id, reason });
            }
        }
    }

    fn factory(&mut self) -> Result<&Factory, NotMade> {
        if self.factory.is_none() {
            self.factory = Some(Factory::new(sandbox_vmm::GUEST)?);
        }
        self.factory
            .as_ref()
            .ok_or_else(|| NotMade::Other("no VM can be made".into()))
    }

    /// Makes one thing ahead; `false`: there is nothing to be made.
    fn stock(&self) -> bool {
        self.factory.as_ref().is_some_and(Factory::stock)
    }

    /// Ends a VM. One that is unknown has been lost before, and was reported.
    fn stop(&mut self, id: VmId) {
        if let Some(vm) = self.vms.remove(&id) {
            vm.stop();
        }
    }

    fn stats(&mut self) {
        let vms = self.vms.iter().map(|(id, vm)| VmStats {
            vm: *id,
            exits: vm.exits(),
            preemptions: vm.preemptions(),
            resident: vm.resident(),
        });
        self.events.send(&Event::Stats { vms: vms.collect() });
    }
}

/// What a command says, with its descriptors where they belong.
fn plan(
    factory: &Factory,
    ram: u64,
    begin: Begin,
    reset: bool,
    fds: Vec<OwnedFd>,
) -> Result<VmPlan, NotMade> {
    let got = fds.len();
    let mut fds = fds.into_iter();
    let mut next = || {
        let missing = || NotMade::Other(format!("{got} descriptors are too few").into());
        fds.next().ok_or_else(missing)
    };
    let descriptors = VmDescriptors {
        artifact: next()?,
        rings: next()?,
        wake: next()?,
        doorbell: next()?,
        config: next()?,
    };
    let begin = match begin {
        Begin::Boot => sandbox_vmm::Begin::Boot(None),
        Begin::BootAndSave => sandbox_vmm::Begin::Boot(Some(next()?)),
        Begin::Template => {
            let template = Template::open(next()?, factory.image());
            sandbox_vmm::Begin::Template(Arc::new(template.map_err(NotMade::Template)?))
        }
    };
    let reset = match reset {
        true => Some(ResetDescriptors {
            request: next()?,
            done: next()?,
        }),
        false => None,
    };
    Ok(VmPlan {
        fds: descriptors,
        ram,
        begin,
        reset,
    })
}
