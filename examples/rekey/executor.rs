//! An executor of one task, in one thread: it polls the task when that was woken.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, Wake, Waker};

/// A task that ends only with an error, and whether it was woken.
pub struct Executor<E> {
    task: Pin<Box<dyn Future<Output = Result<(), E>>>>,
    woken: Arc<Woken>,
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Relaxed);
    }
}

impl<E> Executor<E> {
    /// A task that is to be polled for the first time.
    pub fn new(task: impl Future<Output = Result<(), E>> + 'static) -> Self {
        Executor { task: Box::pin(task), woken: Arc::new(Woken(AtomicBool::new(true))) }
    }

    /// Polls the task if it was woken.
    pub fn run(&mut self) -> Result<(), E> {
        if !self.woken.0.swap(false, Relaxed) {
            return Ok(());
        }
        match self.task.as_mut().poll(&mut Context::from_waker(&Waker::from(self.woken.clone()))) {
            Poll::Ready(outcome) => outcome,
            Poll::Pending => Ok(()),
        }
    }
}
