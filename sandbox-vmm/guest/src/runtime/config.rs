//! The engine's configuration: what the compiler of the artifact (`sandbox-aot`, `config.rs`) and this runtime must
//! agree on. Settings are written out even where they equal the default, because the defaults depend on the features
//! that wasmtime was built with.

use crate::kernel::stack;
use crate::platform;
use wasmtime::{Collector, Config, WasmFeatures};

/// The configuration of the engine.
pub fn engine_config() -> Config {
    let mut config = Config::new();
    // SAFETY: the function asks the processor that will run the code.
    unsafe { config.detect_host_feature(platform::detect_feature) };
    config.with_custom_code_memory(Some(platform::code_memory()));

    config.memory_reservation(4 << 30);
    config.memory_reservation_for_growth(0);
    config.memory_guard_size(32 << 20);
    config.guard_before_linear_memory(true);
    config.memory_may_move(false);
    config.memory_init_cow(true);
    config.memory_guaranteed_dense_image_size(64 << 20);
    config.table_lazy_init(true);

    config.consume_fuel(false);
    config.epoch_interruption(false);
    config.signals_based_traps(true);
    config.max_wasm_stack(stack::WASM as usize);

    config.wasm_features(WasmFeatures::THREADS, false);
    config.concurrency_support(false);

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

    config.debug_info(false);
    config.generate_address_map(false);
    config.wasm_backtrace_max_frames(None);
    config
}
