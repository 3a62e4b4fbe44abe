//! In which order workers, warps and threads take turns.

use super::meet::WARP;

/// In which order workers run between two barriers of all, a worker's warps between two barriers of
/// the worker, and a warp's threads between two instructions of the warp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// 0, 1, 2..
    Forward,
    /// The last one first.
    Reverse,
    /// Another one each time, by this seed.
    Seeded(u64),
}

/// An [`Order`] with the state of its random numbers.
pub(super) struct Turns {
    order: Order,
    seed: u64,
}

impl Turns {
    pub fn new(order: Order) -> Turns {
        Turns { order, seed: if let Order::Seeded(seed) = order { seed } else { 0 } }
    }

    /// The numbers below `count` in the order of their turns.
    pub fn all(&mut self, count: usize) -> Vec<usize> {
        let mut all: Vec<usize> = (0..count).collect();
        match self.order {
            Order::Forward => {}
            Order::Reverse => all.reverse(),
            Order::Seeded(_) => (1..count).for_each(|i| all.swap(i, splitmix(&mut self.seed) as usize % (i + 1))),
        }
        all
    }

    /// A number `m` such that `i ^ m` for `i` = 0, 1, 2.. is the order of a warp's threads.
    pub fn lanes(&mut self, count: usize) -> usize {
        match self.order {
            Order::Seeded(_) if count == WARP => splitmix(&mut self.seed) as usize % WARP,
            Order::Reverse => count - 1,
            _ => 0,
        }
    }
}

/// The splitmix64 generator of Steele, Lea and Flood.
fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
