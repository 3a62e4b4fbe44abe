//! Rotary position embedding: the table of angles and the rotation of heads.

use crate::env::{Count, Env, Rows, Scratch};
use crate::kir::{Cast, Elem, Function, Ty, Val};
use crate::math;

/// Which elements of a head rotate, and with which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// Leading elements that rotate.
    pub rotary_dim: usize,
    /// Pairs are (2i, 2i+1) if true, (i, i + rotary_dim/2) if false.
    pub interleaved: bool,
}

impl Rotation {
    /// Rotates the head at `x` in place by the angles at `angles`: cosines, then sines.
    pub fn emit(&self, env: &mut Env, x: Val, angles: Val) {
        let half = self.rotary_dim / 2;
        if env.group.threads > 1 {
            return env.elements(half, |env, i, _| self.pairs(env, (x, angles), i, 1));
        }
        let lanes = if self.interleaved { 1 } else { largest_power_of_two_divisor(half).min(16) };
        env.for_const(half, lanes, |env, i| self.pairs(env, (x, angles), i, lanes as u16));
    }

    /// Rotates `lanes` pairs from pair `i` (i64) on.
    fn pairs(&self, env: &mut Env, (x, angles): (Val, Val), i: Val, lanes: u16) {
        let half = self.rotary_dim / 2;
        let ty = Ty { elem: Elem::F32, lanes };
        let (first, second, scale) = if self.interleaved { (0, 4, 8) } else { (0, 4 * half, 4) };
        let x = env.at(x, i, scale);
        let pair = [env.b.load(ty, x, first), env.b.load(ty, x, second as i32)];
        let [a, b] = self.turned(env, pair, angles, i);
        env.b.store(a, x, first);
        env.b.store(b, x, second as i32);
    }

    /// The pairs `[a, b]` from pair `i` (i64) on, turned by the angles at `angles`.
    pub fn turned(&self, env: &mut Env, [a, b]: [Val; 2], angles: Val, i: Val) -> [Val; 2] {
        let (ty, half) = (env.b.ty(a), self.rotary_dim / 2);
        let angle = env.at(angles, i, 4);
        let (cos, sin) = (env.b.load(ty, angle, 0), env.b.load(ty, angle, 4 * half as i32));
        let (ac, bs) = (env.b.mul(a, cos), env.b.mul(b, sin));
        let (bc, as_) = (env.b.mul(b, cos), env.b.mul(a, sin));
        [env.b.sub(ac, bs), env.b.add(bc, as_)]
    }
}

fn largest_power_of_two_divisor(n: usize) -> usize {
    1 << n.trailing_zeros()
}

/// Writes the angles of each token: cosines then sines of `position * inv_freq`. Tokens are shared
/// out.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeTableKernel {
    /// Offset of `inv_freq` (f32) in the call's weights.
    pub inv_freq: usize,
    /// Result, rotary_dim wide.
    pub table: Rows,
    /// Factor on cosines and sines.
    pub scaling: f32,
    /// Positions count within so many.
    pub period: Option<usize>,
}

impl RopeTableKernel {
    /// Emits the kernel.
    pub fn build(&self, name: &str, scratch: Scratch) -> Function {
        let mut env = Env::new(name, scratch);
        let n = env.count(Count::Tokens);
        let half = self.table.width / 2;
        env.own_rows(n, |env, t| {
            let position = env.step_index("positions", t);
            let position = match self.period {
                None => position,
                Some(period) => {
                    let period = env.b.index(period);
                    env.b.rem(position, period)
                }
            };
            let position = env.b.cast(Cast::IntToFloat, position, Ty::F32);
            let (freqs, row) = (env.b.ptr_add_const(env.weights, self.inv_freq), env.row(&self.table, t));
            env.one_by_one(half, |env, i| {
                let (freq, out) = (env.at(freqs, i, 4), env.at(row, i, 4));
                let freq = env.b.load(Ty::F32, freq, 0);
                let angle = env.b.mul(position, freq);
                let (cos, sin) = math::cos_sin(&mut env.b, angle);
                for (v, offset) in [(cos, 0), (sin, 4 * half)] {
                    let factor = env.b.float(Ty::F32, self.scaling.into());
                    let v = env.b.mul(v, factor);
                    env.b.store(v, out, offset as i32);
                }
            });
        });
        env.finish()
    }
}

/// Rotates heads written by another kernel. Tokens are shared out.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeKernel {
    /// Input, `heads * head_dim` wide.
    pub x: Rows,
    /// Result, of the same width; may be `x`.
    pub y: Rows,
    /// Number of heads.
    pub heads: usize,
    /// The rotation.
    pub rotation: Rotation,
    /// Angles of each token.
    pub table: Rows,
}

impl RopeKernel {
    /// Emits the kernel.
    pub fn build(&self, name: &str, scratch: Scratch) -> Function {
        let mut env = Env::new(name, scratch);
        let n = env.count(Count::Tokens);
        let head_dim = self.x.width / self.heads;
        env.own_rows(n, |env, t| {
            let (x, y, angles) = (env.row(&self.x, t), env.row(&self.y, t), env.row(&self.table, t));
            super::norm::row(env, None, (x, self.x.elem), (y, self.y.elem), self.x.width);
            env.for_const(self.heads, 1, |env, h| {
                let head = env.at(y, h, head_dim * 4);
                self.rotation.emit(env, head, angles);
            });
        });
        env.finish()
    }
}
