//! Applies a function to every item on all CPUs; the results are in the items' order.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Results in order, or the error of the first item that has one.
pub fn map<T: Sync, R: Send, E: Send>(items: &[T], f: impl Fn(&T) -> Result<R, E> + Sync) -> Result<Vec<R>, E> {
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get()).min(items.len());
    let next = AtomicUsize::new(0);
    let slots: Vec<Mutex<Option<Result<R, E>>>> = items.iter().map(|_| Mutex::new(None)).collect();
    let work = || {
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(i) else { break };
            *slots[i].lock().expect("one thread locks this slot once") = Some(f(item));
        }
    };
    std::thread::scope(|s| {
        for _ in 1..threads {
            s.spawn(work);
        }
        work();
    });
    let done = |m: Mutex<Option<_>>| m.into_inner().ok().flatten().expect("every item was taken");
    slots.into_iter().map(done).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn keeps_the_order_and_the_first_error() {
        let items: Vec<usize> = (0..100).collect();
        let squares = super::map(&items, |i| Ok::<_, usize>(i * i)).unwrap();
        assert_eq!(squares, items.iter().map(|i| i * i).collect::<Vec<_>>());
        let failed = super::map(&items, |i| if i % 7 == 6 { Err(*i) } else { Ok(()) });
        assert_eq!(failed, Err(6));
    }
}
