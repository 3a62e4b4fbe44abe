//! From sums to products: what is left are factors of whole rows.

use super::super::{ALONE, COLUMNS, Tile};
use super::{FLOATS, Integers, of_columns};
use crate::env::Env;
use crate::kir::{Cast, Ty, Val};
use crate::ops::byte_rows::ByteRow;
use crate::ops::gpu::fragments::thread_of;

/// What the rows of x in a thread's two columns contribute, in the order of its sums.
pub(super) struct Factors {
    /// Their scales.
    scales: Val,
    /// Where sums are integers, what the codes' offset has added to them, negative.
    less: Option<Val>,
}

impl Factors {
    /// The products of sums, whose weights' rows may have scales.
    pub(super) fn times(&self, env: &mut Env, sums: Val, rows: Option<Val>) -> Val {
        let sums = match self.less {
            Some(less) => {
                let exact = env.b.add(sums, less);
                env.b.cast(Cast::IntToFloat, exact, FLOATS)
            }
            None => sums,
        };
        let sums = rows.map_or(sums, |rows| env.b.mul(sums, rows));
        env.b.mul(sums, self.scales)
    }
}

impl Integers {
    /// The factors of each column's tokens; of those that do not exist the last one's.
    pub(super) fn column_factors(&self, env: &mut Env, tile: Tile, x: Val) -> Vec<Factors> {
        let ((_, quarter), (_, t)) = (ALONE.place(env), thread_of(env));
        let token = env.b.mul_const(quarter, ALONE.tokens() as i64);
        let two = env.b.mul_const(t, 2);
        let token = env.b.add(token, two);
        let token = env.b.add(tile.token, token);
        let last = env.b.add_const(tile.n, -1);
        let of_column = |column: usize| {
            let [(first, less), (second, other)] = [0, 1].map(|odd| {
                let token = env.b.add_const(token, (8 * column + odd) as i64);
                let token = env.b.min(token, last);
                let row = env.at(x, token, self.x_stride);
                self.token_factors(env, row)
            });
            let less = less.zip(other).map(|(a, b)| of_columns(env, [a, b]));
            Factors { scales: of_columns(env, [first, second]), less }
        };
        (0..COLUMNS).map(of_column).collect()
    }

    /// Of a row of x its scale, and where sums are integers what its codes' offset adds to them.
    fn token_factors(&self, env: &mut Env, row: Val) -> (Val, Option<Val>) {
        let place = ByteRow { k: self.layout.k };
        let scale = env.b.load(Ty::F32, row, place.scale() as i32);
        let less = self.layout.is_row_scaled().then(|| {
            let total = env.b.load(Ty::I32, row, place.total() as i32);
            env.b.mul_const(total, -i64::from(self.layout.offset()))
        });
        (scale, less)
    }
}
