//! Sums of integer products: in integers within a group of k, in f32 over groups.

use super::byte_rows::ByteRow;
use crate::env::Env;
use crate::formats::quant::QuantLayout;
use crate::kir::{Cast, Elem, Ty, Val};
use crate::layout::LANES;

/// What the sums of a weight depend on.
#[derive(Clone, Copy, Debug)]
pub(super) struct IntSums {
    /// The weight.
    pub layout: QuantLayout,
    /// The rows.
    pub x: ByteRow,
}

/// Rows that are multiplied together: `count` of them, `stride` bytes apart.
#[derive(Clone, Copy)]
pub(super) struct Tokens {
    /// The first row.
    pub x: Val,
    /// Bytes to the next.
    pub stride: usize,
    /// Their number.
    pub count: usize,
}

/// Adds the products of a block (i64) to integer sums, one for each token and panel.
pub(super) type Dots<'a> = &'a dyn Fn(&mut Env, Val, &[Val]) -> Vec<Val>;

const FLOATS: Ty = Ty::vector(Elem::F32, LANES);
const INTS: Ty = Ty::vector(Elem::I32, LANES);

impl IntSums {
    /// Whether sums stay integers to the end of a row.
    pub(super) fn is_row_scaled(&self) -> bool {
        self.layout.is_row_scaled()
    }

    /// What sums are carried in.
    pub(super) fn ty(&self) -> Ty {
        if self.is_row_scaled() { INTS } else { FLOATS }
    }

    /// An empty sum.
    pub(super) fn zero(&self, env: &mut Env) -> Val {
        if self.is_row_scaled() { env.b.int(INTS, 0) } else { env.b.float(FLOATS, 0.0) }
    }

    /// Adds the blocks `first..first + len` to the sums of all tokens and panels, tokens outermost.
    pub(super) fn emit(
        &self,
        env: &mut Env,
        tokens: Tokens,
        panels: &[Val],
        (first, len): (Val, usize),
        init: &[Val],
        dots: Dots<'_>,
    ) -> Vec<Val> {
        if self.is_row_scaled() {
            return blocks(env, (first, len), init, dots);
        }
        let size = self.layout.group_blocks();
        let (whole, rest) = (len / size * size, len % size);
        let end = env.b.add_const(first, whole as i64);
        let step = env.b.index(size);
        let mut sums = init.to_vec();
        if whole > 0 {
            sums = env.for_carried((first, end, step), init, |env, block, sums| {
                self.group(env, tokens, panels, (block, size), sums, dots)
            });
        }
        if rest > 0 {
            sums = self.group(env, tokens, panels, (end, rest), &sums, dots);
        }
        sums
    }

    /// Adds one group, which has these blocks.
    fn group(
        &self,
        env: &mut Env,
        tokens: Tokens,
        panels: &[Val],
        (first, len): (Val, usize),
        sums: &[Val],
        dots: Dots<'_>,
    ) -> Vec<Val> {
        let size = env.b.index(self.layout.group_blocks());
        let group = env.b.div(first, size);
        let zero = env.b.int(INTS, 0);
        let dotted = blocks(env, (first, len), &vec![zero; sums.len()], dots);
        let scales: Vec<Val> = panels
            .iter()
            .map(|p| self.layout.group_scale_at(&mut env.b, *p, group, None).expect("groups have scales"))
            .collect();
        let zeros: Vec<Option<Val>> = panels.iter().map(|p| self.layout.zero_at(&mut env.b, *p, group, None)).collect();
        let mut out = Vec::with_capacity(sums.len());
        for t in 0..tokens.count {
            let x_sum = self.sum_of_blocks(env, &tokens, t, (first, len));
            for p in 0..panels.len() {
                let i = t * panels.len() + p;
                let exact = self.values(env, dotted[i], x_sum, zeros[p]);
                out.push(env.b.fma(exact, scales[p], sums[i]));
            }
        }
        out
    }

    /// Sum of a token's integers over some blocks.
    fn sum_of_blocks(&self, env: &mut Env, tokens: &Tokens, t: usize, (first, len): (Val, usize)) -> Val {
        let at = env.at(tokens.x, first, 4);
        let offset = t * tokens.stride + self.x.sums();
        let mut sum = env.b.load(Ty::I32, at, offset as i32);
        for block in 1..len {
            let next = env.b.load(Ty::I32, at, (offset + 4 * block) as i32);
            sum = env.b.add(sum, next);
        }
        sum
    }

    /// Sums of integers times grid values, from sums of integers times codes and the sum of the
    /// integers (i32): a code c stands for `c - offset`, or for `c - zero`.
    fn values(&self, env: &mut Env, codes: Val, x_sum: Val, zero: Option<Val>) -> Val {
        let less = match zero {
            Some(zero) => {
                let x_sum = env.b.splat(x_sum, LANES);
                env.b.mul(zero, x_sum)
            }
            None => {
                let less = env.b.mul_const(x_sum, self.layout.offset().into());
                env.b.splat(less, LANES)
            }
        };
        let exact = env.b.sub(codes, less);
        env.b.cast(Cast::IntToFloat, exact, FLOATS)
    }

    /// The sum over a whole row of the token at `x` as f32, before its factors.
    pub(super) fn whole_row(&self, env: &mut Env, sum: Val, x: Val) -> Val {
        if !self.is_row_scaled() {
            return sum;
        }
        let total = env.b.load(Ty::I32, x, self.x.total() as i32);
        self.values(env, sum, total, None)
    }
}

/// Runs `dots` for each block.
fn blocks(env: &mut Env, (first, len): (Val, usize), init: &[Val], dots: Dots<'_>) -> Vec<Val> {
    if len == 1 {
        return dots(env, first, init);
    }
    let (end, one) = (env.b.add_const(first, len as i64), env.b.index(1));
    env.for_carried((first, end, one), init, |env, block, acc| dots(env, block, acc))
}
