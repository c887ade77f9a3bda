//! Panics, wherever they were caught.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts panics of this test's own thread from now on, where its whole gateway runs.
pub fn count_panics() -> Arc<AtomicUsize> {
    let count = Arc::new(AtomicUsize::new(0));
    let (seen, here, before) = (count.clone(), std::thread::current().id(), std::panic::take_hook());
    std::panic::set_hook(Box::new(move |info| {
        if std::thread::current().id() == here {
            seen.fetch_add(1, Ordering::Relaxed);
        }
        before(info);
    }));
    count
}
