//! Which command: nothing else.

fn main() -> std::process::ExitCode {
    tollgate::cli::run()
}
