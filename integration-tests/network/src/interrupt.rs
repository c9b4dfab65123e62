//! Ctrl-C and SIGTERM for programs that use the harness.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use tokio::signal::unix::{SignalKind, signal};

/// Ctrl-C and SIGTERM: the first one asks the program to clean up, the second one ends it at once (the kernel then kills its children).
#[derive(Debug)]
pub struct Interrupt {
    flag: Arc<AtomicBool>,
    status: Arc<AtomicU8>,
}

impl Interrupt {
    /// Listens from now on.
    ///
    /// # Errors
    /// If the operating system does not let us.
    pub fn on_signals() -> std::io::Result<Self> {
        let (flag, status) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU8::new(0)));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (mut interrupts, mut terminations) = {
            let _inside = runtime.enter();
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
        };
        let interrupt = Self { flag: Arc::clone(&flag), status: Arc::clone(&status) };
        std::thread::spawn(move || {
            runtime.block_on(async {
                loop {
                    let code = tokio::select! {
                        _ = interrupts.recv() => 130,
                        _ = terminations.recv() => 143,
                    };
                    status.store(code, Ordering::SeqCst);
                    if flag.swap(true, Ordering::SeqCst) {
                        std::process::exit(i32::from(code));
                    }
                }
            });
        });
        Ok(interrupt)
    }

    /// Set once a signal has come; for [`crate::NetworkBuilder::interrupted_by`].
    #[must_use]
    pub fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.flag)
    }

    /// The exit status if a signal has come.
    #[must_use]
    pub fn exit_status(&self) -> Option<u8> {
        match self.status.load(Ordering::SeqCst) {
            0 => None,
            status => Some(status),
        }
    }
}
