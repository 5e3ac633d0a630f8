//! `wasi:clocks`.

use crate::kernel::time;
use crate::link::bindings::wasi::clocks::{monotonic_clock, timezone, wall_clock};
use crate::runtime::{Asked, State};
use crate::wasi::io::Pollable;
use alloc::string::String;
use wasmtime::Result;
use wasmtime::component::Resource;

impl monotonic_clock::Host for State {
    fn now(&mut self) -> Result<u64> {
        self.note(Asked::World);
        Ok(time::monotonic_ns())
    }

    fn resolution(&mut self) -> Result<u64> {
        Ok(1)
    }

    fn subscribe_instant(&mut self, when: u64) -> Result<Resource<Pollable>> {
        Ok(self.table.push(Pollable::At(when))?)
    }

    fn subscribe_duration(&mut self, when: u64) -> Result<Resource<Pollable>> {
        self.note(Asked::World);
        Ok(self
            .table
            .push(Pollable::At(time::monotonic_ns().saturating_add(when)))?)
    }
}

impl wall_clock::Host for State {
    fn now(&mut self) -> Result<wall_clock::Datetime> {
        self.note(Asked::World);
        let (seconds, nanoseconds) = time::wall_clock();
        Ok(wall_clock::Datetime {
            seconds,
            nanoseconds,
        })
    }

    fn resolution(&mut self) -> Result<wall_clock::Datetime> {
        Ok(wall_clock::Datetime {
            seconds: 0,
            nanoseconds: 1,
        })
    }
}

// An unstable interface that the linker leaves out.
impl timezone::Host for State {
    fn display(&mut self, _: wall_clock::Datetime) -> Result<timezone::TimezoneDisplay> {
        let name = String::from("UTC");
        Ok(timezone::TimezoneDisplay {
            utc_offset: 0,
            name,
            in_daylight_saving_time: false,
        })
    }

    fn utc_offset(&mut self, _: wall_clock::Datetime) -> Result<i32> {
        Ok(0)
    }
}
