//! DAG-aware extraction: the cheapest way to compute the roots when a shared producer is paid
//! once.
//!
//! Minimising over trees is easy and counts a shared producer once per user; minimising over
//! DAGs is NP-hard. Here a solution is determined by a set of classes that are taken as paid for:
//! given the set, each class picks its cheapest tree in which members of the set are free, and
//! the result is judged by its true cost. A local search adds or drops the class that helps most,
//! or two where one alone does not help. That is enough for what sharing looks like in a block: a norm that several matmuls read is one
//! member, and so is a joined op whose results replace several matmuls. The search is bounded by
//! moves, visits classes in order and so depends on nothing but its input.

/// One way to compute a class.
#[derive(Clone, Debug)]
pub struct Form {
    /// Its own seconds, children not included. Positive.
    pub weight: f64,
    /// Classes it needs.
    pub children: Vec<usize>,
}

/// Classes with their choices, and the classes wanted.
#[derive(Clone, Debug)]
pub struct Problem {
    /// Choices of each class.
    pub classes: Vec<Vec<Form>>,
    /// What has to be computed.
    pub roots: Vec<usize>,
}

/// A choice for each class that can be computed, and the cost of those the roots need.
#[derive(Clone, Debug, PartialEq)]
pub struct Solution {
    /// Index of the choice of each class.
    pub picks: Vec<Option<usize>>,
    /// Sum of weights over the classes needed, each counted once.
    pub cost: f64,
}

/// Moves of the local search; each lowers the cost, so this is only a bound.
const MOVES: usize = 64;

/// Weight above which taking a class as paid for can matter.
const NOTICEABLE: f64 = 1e-12;

/// The cheapest solution found; `None` if a root cannot be computed.
pub fn solve(mut problem: Problem) -> Option<Solution> {
    prune_cycles(&mut problem);
    let n = problem.classes.len();
    let mut order: Vec<usize> = (0..n).collect();
    let mut paid = vec![false; n];
    let (picks, costs) = trees(&problem, &paid, &order);
    order.sort_by(|a, b| costs[*a].total_cmp(&costs[*b]).then(a.cmp(b)));
    let mut best = judge(&problem, picks)?;
    let matters = |choice: &Form| choice.weight.is_finite() && choice.weight > NOTICEABLE;
    let candidates: Vec<usize> = (0..n).filter(|c| problem.classes[*c].iter().any(matters)).collect();
    for _ in 0..MOVES {
        let better = best_move(&problem, &order, &mut paid, &best, singles(&candidates))
            .or_else(|| best_move(&problem, &order, &mut paid, &best, pairs(&candidates)));
        let Some((toggled, found)) = better else { break };
        toggled.iter().for_each(|c| paid[*c] = !paid[*c]);
        best = found;
    }
    Some(best)
}

fn singles(candidates: &[usize]) -> impl Iterator<Item = Vec<usize>> {
    candidates.iter().map(|c| vec![*c])
}

fn pairs(candidates: &[usize]) -> impl Iterator<Item = Vec<usize>> {
    let later = |i: usize| candidates[i + 1..].iter();
    candidates.iter().enumerate().flat_map(move |(i, a)| later(i).map(|b| vec![*a, *b]))
}

/// The set of classes whose toggling lowers the cost most, and what it leads to; of equal ones
/// the first.
fn best_move(
    problem: &Problem,
    order: &[usize],
    paid: &mut [bool],
    current: &Solution,
    moves: impl Iterator<Item = Vec<usize>>,
) -> Option<(Vec<usize>, Solution)> {
    let mut best: Option<(Vec<usize>, Solution)> = None;
    for toggled in moves {
        toggled.iter().for_each(|c| paid[*c] = !paid[*c]);
        let found = judge(problem, trees(problem, paid, order).0);
        toggled.iter().for_each(|c| paid[*c] = !paid[*c]);
        let bound = best.as_ref().map_or(current.cost, |(_, s)| s.cost);
        best = found.filter(|s| s.cost < bound).map(|s| (toggled, s)).or(best);
    }
    best
}

/// Makes choices infinitely dear that need their own class in every way of computing a child: no
/// acyclic solution has them, and without them the local search meets few cycles.
fn prune_cycles(problem: &mut Problem) {
    for c in 0..problem.classes.len() {
        let without = computable_without(problem, c);
        for choice in problem.classes[c].iter_mut().filter(|ch| !ch.children.iter().all(|k| without[*k])) {
            choice.weight = f64::INFINITY;
        }
    }
}

fn computable_without(problem: &Problem, removed: usize) -> Vec<bool> {
    let mut known = vec![false; problem.classes.len()];
    loop {
        let mut grew = false;
        for (c, choices) in problem.classes.iter().enumerate() {
            let ready = |ch: &Form| ch.children.iter().all(|k| known[*k]);
            if c != removed && !known[c] && choices.iter().any(ready) {
                known[c] = true;
                grew = true;
            }
        }
        if !grew {
            return known;
        }
    }
}

/// For each class the choice whose tree is cheapest, paid classes being free to their users.
fn trees(problem: &Problem, paid: &[bool], order: &[usize]) -> (Vec<Option<usize>>, Vec<f64>) {
    let n = problem.classes.len();
    let (mut picks, mut costs) = (vec![None; n], vec![f64::INFINITY; n]);
    for _ in 0..=n {
        let mut changed = false;
        for &c in order {
            for (i, choice) in problem.classes[c].iter().enumerate() {
                let price = |k: &usize| if paid[*k] && costs[*k].is_finite() { 0.0 } else { costs[*k] };
                let cost = choice.weight + choice.children.iter().map(price).sum::<f64>();
                if cost < costs[c] {
                    (picks[c], costs[c], changed) = (Some(i), cost, true);
                }
            }
        }
        if !changed {
            break;
        }
    }
    (picks, costs)
}

/// The true cost of these picks; `None` if a root has none or the picks form a cycle.
fn judge(problem: &Problem, picks: Vec<Option<usize>>) -> Option<Solution> {
    let mut state = vec![State::New; picks.len()];
    let mut cost = 0.0;
    for &root in &problem.roots {
        visit(problem, &picks, root, &mut state, &mut cost)?;
    }
    Some(Solution { picks, cost })
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    New,
    Open,
    Done,
}

fn visit(problem: &Problem, picks: &[Option<usize>], c: usize, state: &mut [State], cost: &mut f64) -> Option<()> {
    match state[c] {
        State::Done => return Some(()),
        State::Open => return None,
        State::New => state[c] = State::Open,
    }
    let choice = &problem.classes[c][picks[c]?];
    for &child in &choice.children {
        visit(problem, picks, child, state, cost)?;
    }
    *cost += choice.weight;
    state[c] = State::Done;
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice(weight: f64, children: &[usize]) -> Form {
        Form { weight, children: children.to_vec() }
    }

    #[test]
    fn a_shared_producer_is_paid_once() {
        // 0 costs 10; 1 and 2 each read it, or cost 6 alone. Together with 0: 12, alone: 12.5.
        let readers = |own| vec![choice(1.0, &[0]), choice(own, &[])];
        let classes = vec![vec![choice(10.0, &[])], readers(6.25), readers(6.25)];
        let found = solve(Problem { classes, roots: vec![1, 2] }).expect("solvable");
        assert_eq!((found.cost, found.picks), (12.0, vec![Some(0), Some(0), Some(0)]));
    }

    #[test]
    fn a_joined_op_replaces_its_parts() {
        // 3 computes both 4 and 5; apart they cost 3 and 3 + 3.
        let classes = vec![
            vec![choice(3.0, &[])],
            vec![choice(3.0, &[])],
            vec![choice(3.0, &[])],
            vec![choice(7.0, &[])],
            vec![choice(1e-15, &[0]), choice(1e-15, &[3])],
            vec![choice(1e-15, &[1, 2]), choice(1e-15, &[3])],
        ];
        let found = solve(Problem { classes, roots: vec![4, 5] }).expect("solvable");
        assert_eq!((found.picks[4], found.picks[5]), (Some(1), Some(1)));
    }

    #[test]
    fn cycles_are_never_picked() {
        // 0 and 1 are views of each other; only 0 can be computed otherwise.
        let classes = vec![vec![choice(1e-15, &[1]), choice(5.0, &[])], vec![choice(1e-15, &[0])]];
        let found = solve(Problem { classes, roots: vec![1] }).expect("solvable");
        assert!(found.cost >= 5.0);
        assert_eq!(found.picks[0], Some(1));
    }

    /// The optimum by trying every combination of picks.
    fn exhaustive(problem: &Problem) -> f64 {
        let mut best = f64::INFINITY;
        let mut picks = vec![0; problem.classes.len()];
        loop {
            if let Some(s) = judge(problem, picks.iter().map(|p| Some(*p)).collect()) {
                best = best.min(s.cost);
            }
            let Some(i) = (0..picks.len()).find(|i| picks[*i] + 1 < problem.classes[*i].len()) else { return best };
            picks[i] += 1;
            picks[..i].fill(0);
        }
    }

    #[test]
    fn close_to_the_optimum_on_random_problems() {
        let mut state = 7u64;
        let mut next = |n: u64| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) % n
        };
        let (mut optimal, total) = (0, 200);
        for _ in 0..total {
            let classes: Vec<Vec<Form>> = (0..9usize)
                .map(|c| {
                    let children = |next: &mut dyn FnMut(u64) -> u64| {
                        (0..c.min(2)).map(|_| next(c as u64) as usize).collect::<Vec<_>>()
                    };
                    (0..2).map(|_| Form { weight: 1.0 + next(9) as f64, children: children(&mut next) }).collect()
                })
                .collect();
            let problem = Problem { classes, roots: vec![8, 7] };
            let (found, best) = (solve(problem.clone()).expect("solvable").cost, exhaustive(&problem));
            assert!(found >= best && found <= 1.5 * best, "{found} against {best}");
            optimal += usize::from(found == best);
        }
        assert!(optimal * 10 >= total * 9, "{optimal} of {total} are optimal");
    }
}
