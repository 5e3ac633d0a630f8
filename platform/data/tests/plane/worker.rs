//! The worker's side of the socket, with threads in place of VMs.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sandbox_channel::{Command, Event, Socket, VmStats};
use sandbox_ring::host::RingMemory;

use crate::guest;

/// Serves until the daemon goes away.
pub fn run() {
    let socket = Arc::new(Socket::from_fd(
        std::io::stdin().as_fd().try_clone_to_owned().unwrap(),
    ));
    let mut vms = HashMap::new();
    while let Ok((command, fds)) = socket.receive::<Command>() {
        match command {
            Command::CreateVm { vm, .. } => {
                let [artifact, memory, wake, bell, _] = <[_; 5]>::try_from(fds).unwrap();
                let mut text = String::new();
                std::io::Read::read_to_string(&mut std::fs::File::from(artifact), &mut text)
                    .unwrap();
                if let Some(reason) = text.strip_prefix("refuse:") {
                    socket
                        .send(
                            &Event::Lost {
                                vm,
                                reason: reason.to_owned(),
                            },
                            &[],
                        )
                        .unwrap();
                    continue;
                }
                socket
                    .send(&Event::Started { vm, setup_us: 1000 }, &[])
                    .unwrap();
                let stop = Arc::new(AtomicBool::new(false));
                vms.insert(vm, Arc::clone(&stop));
                let memory = RingMemory::from_fd(memory).unwrap();
                std::thread::spawn(move || guest::run(text, &memory, &wake, &bell, &stop));
            }
            Command::StopVm { vm } => {
                if let Some(stop) = vms.remove(&vm) {
                    stop.store(true, Ordering::Relaxed);
                }
                socket.send(&Event::Stopped { vm }, &[]).unwrap();
            }
            Command::Stats => {
                let vms = vms
                    .keys()
                    .map(|&vm| VmStats {
                        vm,
                        exits: 7,
                        preemptions: 0,
                        resident: 4096,
                    })
                    .collect();
                socket.send(&Event::Stats { vms }, &[]).unwrap();
            }
        }
    }
}
