//! Commands in, events out.

use sandbox_channel::{Command, Event, ReceiveError, Socket, VmId, VmStats};
use sandbox_vmm::{BootImage, Vm, VmDescriptors, VmEvent, Watch};
use std::collections::HashMap;
use std::error::Error;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

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
    image: BootImage,
    watch: Watch,
    events: Events,
    vms: HashMap<VmId, Arc<Vm>>,
}

/// Does what the daemon says until it closes the socket.
pub(crate) fn run(socket: Socket) -> Result<(), Box<dyn Error>> {
    let events = Events(Arc::new(Mutex::new(socket.try_clone()?)));
    let mut worker = Worker {
        image: BootImage::new(sandbox_vmm::GUEST)?,
        watch: Watch::start()?,
        events,
        vms: HashMap::new(),
    };
    loop {
        let (command, fds) = match socket.receive::<Command>() {
            Ok(received) => received,
            Err(ReceiveError::Closed) => return Ok(()),
            Err(e) => return Err(e.into()),
        };
        // What a lost VM still held goes here, at the latest when the daemon asks for another one.
        worker.vms.retain(|_, vm| !vm.is_over());
        match command {
            Command::CreateVm { vm, memory, config } => worker.create(vm, memory, &config, fds),
            Command::StopVm { vm } => worker.stop(vm),
            Command::Stats => worker.stats(),
        }
    }
}

impl Worker {
    fn create(&mut self, id: VmId, memory: u64, config: &[u8], fds: Vec<OwnedFd>) {
        let since = Instant::now();
        let events = self.events.clone();
        let report = move |event| {
            events.send(&match event {
                VmEvent::Debug(line) => Event::Debug { vm: id, line },
                VmEvent::Lost(reason) => Event::Lost { vm: id, reason },
                VmEvent::Stopped => Event::Stopped { vm: id },
            });
        };
        let made = descriptors(fds)
            .and_then(|fds| Ok(Vm::start(&self.image, fds, memory, config, report)?));
        match made {
            Ok(vm) => {
                let vm = Arc::new(vm);
                self.watch.add(id.0, &vm);
                self.vms.insert(id, vm);
                let setup_us = u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX);
                self.events.send(&Event::Started { vm: id, setup_us });
            }
            Err(e) => {
                let reason = match e.source() {
                    Some(cause) => format!("{e}: {cause}"),
                    None => e.to_string(),
                };
                self.events.send(&Event::NotStarted { vm: id, reason });
            }
        }
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

fn descriptors(fds: Vec<OwnedFd>) -> Result<VmDescriptors, Box<dyn Error>> {
    let [artifact, rings, wake, doorbell] = <[OwnedFd; 4]>::try_from(fds)
        .map_err(|fds| format!("a VM is made of four descriptors, not {}", fds.len()))?;
    Ok(VmDescriptors {
        artifact,
        rings,
        wake,
        doorbell,
    })
}
