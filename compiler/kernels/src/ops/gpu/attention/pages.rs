//! Pages of keys and values: scores, their softmax, and weighted values, in a warp's registers.

use super::{Attention, LOWEST, Own, State, Work};
use crate::env::{Env, WARP};
use crate::kir::{Cast, Cond, Elem, Hint, Ty, Val};
use crate::layout::PAGE;
use crate::math;
use crate::ops::kv::Part;

impl Attention<'_> {
    /// Goes over pages.
    pub(super) fn pages(&self, env: &mut Env, own: Own, work: Work) -> State {
        let (first, last) = self.visible(env, work.token);
        let bounds = [first, last].map(|v| env.b.cast(Cast::Trunc, v, Ty::I32));
        let seq = env.step_index("seqs", work.token);
        let (page_len, step) = (env.b.index(PAGE), work.pages.2);
        let last = env.b.div(last, page_len);
        let seen = self.seen(env, work.token);
        let block_of = |env: &mut Env, number: Val| seen.map_or(number, |seen| seen.block(env, number));
        // Where a page is takes reads that wait for each other: they go on beside what comes before.
        let page_of = |env: &mut Env, number: Val| {
            let block = block_of(env, number);
            let block = env.b.min(block, last);
            self.kernel.cache.page(env, seq, block)
        };
        let page = page_of(env, work.pages.0);
        self.take_queries(env, own, work);
        let (lowest, zero) = (env.b.float(Ty::F32, LOWEST), env.b.float(Ty::F32, 0.0));
        let none = env.b.float(Ty::vector(Elem::F32, self.per_load() as u16), 0.0);
        let head: Vec<Val> = [lowest, zero].into_iter().chain(vec![none; self.pieces()]).collect();
        let init = [vec![page], head.repeat(self.heads)].concat();
        let state = env.for_carried(work.pages, &init, |env, number, state| {
            let (page, following) = (state[0], env.b.add(number, step));
            let following = page_of(env, following);
            let keys = self.kernel.cache.head(env, page, Part::Keys, work.kv_head);
            let values = self.kernel.cache.head(env, page, Part::Values, work.kv_head);
            let loaded = [self.load_keys(env, keys), self.load_values(env, values)];
            let scales = self.scales(env, [keys, values]);
            if let Some(seen) = seen {
                self.turn(env, own, seen, number);
            }
            let scores = self.scores(env, own, (keys, &loaded[0]));
            let block = block_of(env, number);
            let base = env.b.mul_const(block, PAGE as i64);
            let state = State(state[1..].to_vec());
            let mut heads = Vec::new();
            for (h, s) in scores.into_iter().enumerate() {
                heads.push(self.softmax(env, own, (h, s, scales), (base, bounds), &state));
            }
            env.b.warp_barrier();
            let next = self.accumulate(env, own, (values, &loaded[1]), &state, &heads);
            env.b.warp_barrier();
            [vec![following], next.0].concat()
        });
        self.over_positions(env, State(state[1..].to_vec()))
    }

    /// Copies the warp's queries into its shared memory.
    pub(super) fn take_queries(&self, env: &mut Env, own: Own, work: Work) {
        let row = env.row(&self.kernel.q, work.token);
        let head = env.b.mul_const(work.kv_head, self.group() as i64);
        let head = env.b.add(head, work.head);
        let from = env.at(row, head, self.head_dim() * 4);
        env.b.warp_barrier();
        let to = if self.kernel.sinks.is_some() { own.arrived } else { own.queries };
        self.copy_queries(env, from, to);
    }

    /// Copies the queries of a warp's heads, each thread the same elements whenever it does.
    pub(super) fn copy_queries(&self, env: &mut Env, from: Val, to: Val) {
        env.elements(self.heads * self.head_dim(), |env, i, _| {
            let (from, to) = (env.at(from, i, 4), env.at(to, i, 4));
            let v = env.b.load(Ty::F32, from, 0);
            env.b.store(v, to, 0);
        });
    }

    /// Lanes that hold a page's positions of one element.
    pub(super) fn position_lanes(&self) -> usize {
        PAGE / self.per_load()
    }

    /// Raw scores of each head, a thread having those of some positions.
    pub(super) fn scores(&self, env: &mut Env, own: Own, (keys, loaded): (Val, &[Val])) -> Vec<Val> {
        let lanes = self.position_lanes();
        let elements = WARP / lanes;
        let at = env.at(keys, env.group.lane, self.load_bytes());
        let by = env.b.index(lanes);
        let element = env.b.div(env.group.lane, by);
        let queries = env.at(own.queries, element, 4);
        let zero = env.b.float(Ty::vector(Elem::F32, self.per_load() as u16), 0.0);
        let mut sums = vec![zero; self.heads];
        for round in 0..self.head_dim() / elements {
            let at = env.b.ptr_add_const(at, round * WARP * self.load_bytes());
            let k = match loaded.get(round) {
                Some(k) => self.widened(env, *k),
                None => self.load(env, at),
            };
            for (h, sum) in sums.iter_mut().enumerate() {
                let q = env.b.load(Ty::F32, queries, (4 * (h * self.head_dim() + round * elements)) as i32);
                let q = env.b.splat(q, self.per_load() as u16);
                *sum = env.b.fma(k, q, *sum);
            }
        }
        let masks: Vec<u8> = (0..5).map(|i| 1 << i).filter(|m| usize::from(*m) >= lanes).collect();
        sums.into_iter().map(|s| self.over_lanes(env, s, &masks)).collect()
    }

    /// The keys of a page that this thread reads, in the order of their use: in flight together, where they fit the
    /// registers.
    fn load_keys(&self, env: &mut Env, keys: Val) -> Vec<Val> {
        let fit = self.elem() != Elem::F32 && self.head_dim() <= 128 && self.pieces() == 1;
        if fit { self.load_head(env, keys) } else { vec![] }
    }

    /// The same of values, where rows of them that fill a load of the warp follow each other.
    fn load_values(&self, env: &mut Env, values: Val) -> Vec<Val> {
        let (lanes, positions) = self.value_lanes();
        let fit = self.elem() != Elem::F32 && self.head_dim() <= 128 && lanes * positions == WARP;
        if fit { self.load_head(env, values) } else { vec![] }
    }

    /// This thread's part of a head's page.
    fn load_head(&self, env: &mut Env, head: Val) -> Vec<Val> {
        let (bytes, ty) = (self.load_bytes(), Ty::vector(self.elem(), self.per_load() as u16));
        let first = env.at(head, env.group.lane, bytes);
        let loads = PAGE * self.head_dim() / (WARP * self.per_load());
        (0..loads).map(|i| env.b.load_with(ty, first, (i * WARP * bytes) as i32, bytes as u32, Hint::None)).collect()
    }

    /// What the cache holds.
    fn elem(&self) -> Elem {
        match self.kernel.cache.layout.elem_bytes {
            1 => Elem::I8,
            2 => Elem::I16,
            _ => Elem::F32,
        }
    }

    /// A load of elements as f32, without their scales.
    pub(super) fn widened(&self, env: &mut Env, loaded: Val) -> Val {
        let ty = env.b.ty(loaded).with_elem(Elem::F32);
        match env.b.ty(loaded).elem {
            Elem::I8 => self.kernel.cache.layout.wide(&mut env.b, loaded),
            Elem::I16 => env.b.cast(Cast::F16ToF32, loaded, ty),
            _ => loaded,
        }
    }

    /// One load of the cache as f32.
    pub(super) fn load(&self, env: &mut Env, at: Val) -> Val {
        let ty = Ty::vector(self.elem(), self.per_load() as u16);
        let loaded = env.b.load_with(ty, at, 0, self.load_bytes() as u32, Hint::None);
        self.widened(env, loaded)
    }

    /// The scales of the keys and of the values at the positions whose scores this thread has, where elements have some.
    fn scales(&self, env: &mut Env, heads: [Val; 2]) -> Option<[Val; 2]> {
        let layout = self.kernel.cache.layout;
        layout.has_scales().then(|| {
            let first = self.own_position(env);
            heads.map(|head| {
                let at = env.at(head, first, 4);
                let ty = Ty::vector(Elem::F32, self.per_load() as u16);
                env.b.load_with(ty, at, layout.scale_offset() as i32, 16, Hint::None)
            })
        })
    }

    /// The first position of a page whose score this thread has: i64.
    fn own_position(&self, env: &mut Env) -> Val {
        let by = env.b.index(self.position_lanes());
        let mine = env.b.rem(env.group.lane, by);
        env.b.mul_const(mine, self.per_load() as i64)
    }

    /// Sums of a vector over threads that differ in the masks' bits.
    pub(super) fn over_lanes(&self, env: &mut Env, v: Val, masks: &[u8]) -> Val {
        let mut out = v;
        for lane in 0..env.b.ty(v).lanes {
            let mut x = env.b.extract(v, lane);
            for mask in masks {
                let other = env.b.lane_xor(x, *mask);
                x = env.b.add(x, other);
            }
            out = env.b.insert(out, lane, x);
        }
        out
    }

    /// Turns a head's raw scores into weights in shared memory. Gives the new largest score, the new sum, and
    /// the factor on what was before.
    pub(super) fn softmax(
        &self,
        env: &mut Env,
        own: Own,
        (h, raw, scales): (usize, Val, Option<[Val; 2]>),
        (base, [first, last]): (Val, [Val; 2]),
        state: &State,
    ) -> [Val; 3] {
        let (max, sum, _) = self.head_state(state, h);
        let (per, lanes) = (self.per_load(), self.position_lanes());
        let (by, start) = (env.b.index(lanes), self.own_position(env));
        let raw = scales.map_or(raw, |[keys, _]| env.b.mul(raw, keys));
        let position = env.b.add(base, start);
        let position = env.b.cast(Cast::Trunc, position, Ty::I32);
        let lowest = env.b.float(Ty::F32, LOWEST);
        let mut scores = Vec::new();
        let mut here = lowest;
        for i in 0..per {
            let s = env.b.extract(raw, i as u16);
            let s = self.score(env, s);
            let p = env.b.add_const(position, i as i64);
            let (after, before) = (env.b.cmp(Cond::Ge, p, first), env.b.cmp(Cond::Le, p, last));
            let seen = env.b.and(after, before);
            let s = env.b.select(seen, s, lowest);
            here = env.b.max(here, s);
            scores.push((s, seen));
        }
        let masks: Vec<u8> = (0..5).map(|i| 1 << i).filter(|m| usize::from(*m) < lanes).collect();
        for mask in &masks {
            let other = env.b.lane_xor(here, *mask);
            here = env.b.max(here, other);
        }
        let most = env.b.max(max, here);
        let zero = env.b.float(Ty::F32, 0.0);
        let to = env.b.add_const(start, (h * PAGE) as i64);
        let to = env.at(own.weights, to, 4);
        let writes = env.b.cmp(Cond::Lt, env.group.lane, by);
        let mut total = zero;
        let mut weights = Vec::new();
        for (s, seen) in scores {
            let d = env.b.sub(s, most);
            let p = math::exp(&mut env.b, d);
            let p = env.b.select(seen, p, zero);
            total = env.b.add(total, p);
            weights.push(p);
        }
        env.if_then(writes, |env| {
            for (i, p) in weights.into_iter().enumerate() {
                let p = match scales {
                    None => p,
                    Some([_, values]) => {
                        let scale = env.b.extract(values, i as u16);
                        env.b.mul(p, scale)
                    }
                };
                env.b.store(p, to, 4 * i as i32);
            }
        });
        for mask in &masks {
            let other = env.b.lane_xor(total, *mask);
            total = env.b.add(total, other);
        }
        let d = env.b.sub(max, most);
        let factor = math::exp(&mut env.b, d);
        let sum = env.b.fma(sum, factor, total);
        [most, sum, factor]
    }

    pub(super) fn score(&self, env: &mut Env, raw: Val) -> Val {
        let scale = env.b.float(Ty::F32, f64::from(self.kernel.scale));
        let s = env.b.mul(raw, scale);
        let Some(cap) = self.kernel.softcap else { return s };
        let cap = env.b.float(Ty::F32, f64::from(cap));
        let ratio = env.b.div(s, cap);
        let t = math::tanh(&mut env.b, ratio);
        env.b.mul(t, cap)
    }

    /// Adds the page's values, weighted. A thread has some elements of every `positions`-th one.
    pub(super) fn accumulate(
        &self,
        env: &mut Env,
        own: Own,
        (values, loaded): (Val, &[Val]),
        state: &State,
        heads: &[[Val; 3]],
    ) -> State {
        let (lanes, positions) = self.value_lanes();
        let per = self.per_load() as u16;
        let by = env.b.index(lanes);
        let (which, mine) = match positions {
            1 => (env.b.index(0), env.group.lane),
            _ => (env.b.div(env.group.lane, by), env.b.rem(env.group.lane, by)),
        };
        let weights = env.at(own.weights, which, 4);
        let row = env.at(values, which, lanes * self.load_bytes());
        let mut next = Vec::new();
        let mut sums: Vec<Vec<Val>> = Vec::new();
        for (h, [_, _, factor]) in heads.iter().enumerate() {
            let (_, _, old) = self.head_state(state, h);
            let factor = env.b.splat(*factor, per);
            sums.push(old.into_iter().map(|v| env.b.mul(v, factor)).collect());
        }
        for piece in 0..self.pieces() {
            let load = env.b.add_const(mine, (piece * WARP) as i64);
            let last = env.b.index(lanes - 1);
            let load = env.b.min(load, last);
            let at = env.at(row, load, self.load_bytes());
            for step in 0..PAGE / positions {
                let at = env.b.ptr_add_const(at, step * positions * lanes * self.load_bytes());
                let v = match loaded.get(step) {
                    Some(v) => self.widened(env, *v),
                    None => self.load(env, at),
                };
                for (h, sum) in sums.iter_mut().enumerate() {
                    let w = env.b.load(Ty::F32, weights, (4 * (h * PAGE + step * positions)) as i32);
                    let w = env.b.splat(w, per);
                    sum[piece] = env.b.fma(v, w, sum[piece]);
                }
            }
        }
        for ([max, sum, _], values) in heads.iter().zip(sums) {
            next.extend([*max, *sum]);
            next.extend(values);
        }
        State(next)
    }

    /// Adds up the values of threads that have the same elements of different positions.
    pub(super) fn over_positions(&self, env: &mut Env, mut state: State) -> State {
        let (lanes, positions) = self.value_lanes();
        if positions > 1 {
            let masks: Vec<u8> = (0..5).map(|i| 1 << i).filter(|m| usize::from(*m) >= lanes).collect();
            for h in 0..self.heads {
                let at = h * (2 + self.pieces()) + 2;
                for i in at..at + self.pieces() {
                    state.0[i] = self.over_lanes(env, state.0[i], &masks);
                }
            }
        }
        state
    }
}
