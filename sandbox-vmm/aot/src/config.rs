//! The engine's configuration: what compiler and guest runtime must agree on.
//!
//! The guest is a workspace of its own and holds the same values in its own `config.rs`; an artifact made with others
//! is refused when it is loaded, with a message that names the setting. Settings are written out even where they equal
//! the default, because the defaults depend on the features that wasmtime was built with, and the two
//! builds differ in these.

use crate::features;
use wasmparser::WasmFeatures;
use wasmtime::{Collector, Config, Inlining, OptLevel, WasmBacktraceDetails};

/// Changes when artifacts must be made anew although no setting below changed. Part of every artifact's name.
pub const REVISION: u32 = 2;

/// Address space of one linear memory: a 32-bit memory never needs a bounds check.
pub const MEMORY_RESERVATION: u64 = 4 << 30;

/// Inaccessible space behind (and before) a memory: static offsets below it need no check either.
pub const MEMORY_GUARD_BYTES: u64 = 32 << 20;

/// A memory's initial image up to this size is always one dense block, which the guest maps without copying it.
pub const DENSE_IMAGE_BYTES: u64 = 64 << 20;

/// Stack of a wasm program; twice of what `wasmtime serve` gives. The guest alone uses it: nothing runs here.
pub const MAX_WASM_STACK_BYTES: usize = 1 << 20;

/// The configuration of every artifact, for this machine's processor.
///
/// The guest mirrors it except for the settings under "only the compiler".
///
/// # Errors
/// When wasmtime was built without the guest's target.
pub fn engine_config() -> wasmtime::Result<Config> {
    let mut config = Config::new();
    features::choose(&mut config)?;

    // Memories.
    config.memory_reservation(MEMORY_RESERVATION);
    config.memory_guard_size(MEMORY_GUARD_BYTES);
    config.guard_before_linear_memory(true);
    // No memory ever moves: the guest cannot take a mapping away, and no request may have more than is reserved.
    config.memory_may_move(false);
    config.memory_init_cow(true);
    config.memory_guaranteed_dense_image_size(DENSE_IMAGE_BYTES);
    config.table_lazy_init(true);

    // Interruption: the VMM kicks the processor, so the code counts neither fuel nor epochs.
    config.consume_fuel(false);
    config.epoch_interruption(false);
    config.signals_based_traps(true);
    config.max_wasm_stack(MAX_WASM_STACK_BYTES);

    // What the runtime cannot do, as it is built without the features for it.
    config.wasm_features(WasmFeatures::THREADS, false);
    config.concurrency_support(false);

    // What programs may use beyond the first standard: all that `wasmtime serve` allows by default.
    config.wasm_simd(true);
    config.wasm_relaxed_simd(true);
    config.relaxed_simd_deterministic(false);
    config.wasm_bulk_memory(true);
    config.wasm_multi_value(true);
    config.wasm_multi_memory(true);
    config.wasm_memory64(true);
    config.wasm_tail_call(true);
    config.wasm_extended_const(true);
    config.gc_support(true);
    config.collector(Collector::Copying);
    config.wasm_function_references(true);
    config.wasm_gc(true);
    config.wasm_exceptions(true);
    config.wasm_component_model(true);

    // Nothing for debuggers: it makes artifacts larger, and nobody reads it in the guest.
    config.debug_info(false);
    config.wasm_backtrace_details(WasmBacktraceDetails::Disable);
    config.generate_address_map(false);
    config.wasm_backtrace_max_frames(None);

    // Only the compiler. Native unwind information is for the system's unwinder, which the guest does not have.
    config.native_unwind_info(false);
    config.compiler_inlining(Inlining::No);
    config.cranelift_opt_level(OptLevel::Speed);
    config.parallel_compilation(true);
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::engine_config;
    use wasmtime::Engine;

    fn accepts(wat: &str) -> bool {
        let engine = Engine::new(&engine_config().unwrap()).unwrap();
        let wasm = wat::parse_str(wat).unwrap();
        engine.precompile_component(&wasm).is_ok()
    }

    #[test]
    fn is_valid_and_accepts_what_wasmtime_serve_does() {
        assert!(accepts(
            "(component (core module (memory 1) (memory i64 1)))"
        ));
        assert!(accepts(
            "(component (core module (func (param v128 v128) (result v128)
            local.get 0 local.get 1 i8x16.relaxed_swizzle)))"
        ));
        assert!(accepts(
            "(component (core module (func $f return_call $f)))"
        ));
        assert!(accepts(
            "(component (core module (table 1 funcref) (table 1 funcref)))"
        ));
        assert!(accepts(
            "(component (core module (type (struct (field i32))) (table 1 externref)))"
        ));
        assert!(accepts("(component (core module (tag)))"));
    }

    /// Another crate of the workspace could enable wasmtime's features for all; the configuration must hold even so.
    #[test]
    fn rejects_what_the_guest_is_built_without() {
        assert!(!accepts("(component (core module (memory 1 1 shared)))"));
    }
}
