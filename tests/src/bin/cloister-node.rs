//! The node as the tests run it: the executable `cloister` in all its roles, except that a daemon ends
//! with the test that started it.

use std::io::Read;
use std::process::ExitCode;

fn main() -> ExitCode {
    let daemon = std::env::args().nth(1).is_some_and(|role| role == "__node");
    if daemon && std::env::var_os("CLOISTER_TEST_STDIN").is_some() {
        std::thread::spawn(|| {
            let mut rest = Vec::new();
            let _ = std::io::stdin().read_to_end(&mut rest);
            std::process::abort();
        });
    }
    cloister::main()
}
