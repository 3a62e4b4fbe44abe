//! Rebuilds a function instruction by instruction. A pass says what one instruction becomes and
//! into how many values an old value is cut; regions, calls and parameters are handled here.

use crate::kir::func::{Function, Region, Val};
use crate::kir::inst::{Inst, Op};
use crate::kir::{Builder, Ty};

/// What the values of the old function have become.
pub(super) struct Env<'a> {
    types: &'a [Ty],
    parts: Vec<Vec<Val>>,
}

impl Env<'_> {
    /// Old type of an old value.
    pub fn ty(&self, v: Val) -> Ty {
        self.types[v.0 as usize]
    }

    /// New values of an old value, lower lanes first.
    pub fn parts(&self, v: Val) -> &[Val] {
        &self.parts[v.0 as usize]
    }

    /// The new value of an old value that is one value.
    pub fn one(&self, v: Val) -> Val {
        let parts = self.parts(v);
        assert_eq!(parts.len(), 1, "{v} is not one value");
        parts[0]
    }

    /// The instruction on new values, where each operand is one.
    pub fn mapped(&self, op: &Op) -> Op {
        let mut op = op.clone();
        for v in op.operands_mut() {
            *v = self.one(*v);
        }
        op
    }
}

/// One rewriting pass.
pub(super) trait Pass {
    /// Types into which a parameter, carried value or yielded value is cut.
    fn boundary(&self, ty: Ty) -> Vec<Ty> {
        vec![ty]
    }

    /// Parts of a value of type `ty` brought into the form of [`Pass::boundary`].
    fn fit(&self, _b: &mut Builder, parts: &[Val], _ty: Ty) -> Vec<Val> {
        parts.to_vec()
    }

    /// Emits what replaces an instruction without regions that is no call; the parts of its result
    /// of type `ty` come back.
    fn op(&self, b: &mut Builder, env: &Env<'_>, op: &Op, ty: Option<Ty>) -> Vec<Val>;
}

/// Emits `op` on new values unchanged.
pub(super) fn copy(b: &mut Builder, env: &Env<'_>, op: &Op, ty: Option<Ty>) -> Vec<Val> {
    b.op(env.mapped(op), ty).into_iter().collect()
}

/// The rewritten function.
pub(super) fn apply<P: Pass>(pass: &P, function: &Function) -> Function {
    let params = &function.body.params;
    let types: Vec<Ty> = params[3..].iter().flat_map(|p| pass.boundary(function.ty(*p))).collect();
    let (mut b, new) = Builder::new(&function.name, &types);
    let env = Env { types: &function.types, parts: vec![Vec::new(); function.types.len()] };
    let mut walk = Walk { pass, env };
    walk.bind(params, &new);
    walk.body(&mut b, &function.body);
    b.finish()
}

struct Walk<'a, P> {
    pass: &'a P,
    env: Env<'a>,
}

impl<P: Pass> Walk<'_, P> {
    /// Hands out `new` values as the parts of `old` ones.
    fn bind(&mut self, old: &[Val], new: &[Val]) {
        let mut rest = new;
        for v in old {
            let (parts, tail) = rest.split_at(self.pass.boundary(self.env.ty(*v)).len());
            self.env.parts[v.0 as usize] = parts.to_vec();
            rest = tail;
        }
        assert!(rest.is_empty(), "every part belongs to a value");
    }

    fn fit_all(&self, b: &mut Builder, values: &[Val]) -> Vec<Val> {
        values.iter().flat_map(|v| self.pass.fit(b, self.env.parts(*v), self.env.ty(*v))).collect()
    }

    /// Rewrites a region's instructions; its yielded values come back.
    fn body(&mut self, b: &mut Builder, region: &Region) -> Vec<Val> {
        for inst in &region.body {
            self.inst(b, inst);
        }
        self.fit_all(b, &region.yields)
    }

    fn inst(&mut self, b: &mut Builder, inst: &Inst) {
        match &inst.op {
            Op::For { lo, hi, step, init, body } => {
                let range = (self.env.one(*lo), self.env.one(*hi), self.env.one(*step));
                let init = self.fit_all(b, init);
                let results = b.for_carried(range, &init, |b, i, carried| {
                    let new: Vec<Val> = std::iter::once(i).chain(carried.iter().copied()).collect();
                    self.bind(&body.params, &new);
                    self.body(b, body)
                });
                self.bind(&inst.results, &results);
            }
            Op::If { cond, then, els } => {
                let cond = self.env.one(*cond);
                let walk = std::cell::RefCell::new(&mut *self);
                let results = b.if_else(cond, |b| walk.borrow_mut().body(b, then), |b| walk.borrow_mut().body(b, els));
                self.bind(&inst.results, &results);
            }
            Op::Call { callee, args } => {
                let args = self.fit_all(b, args);
                b.op(Op::Call { callee: callee.clone(), args }, None);
            }
            op => {
                let result = inst.results.first();
                let parts = self.pass.op(b, &self.env, op, result.map(|v| self.env.ty(*v)));
                if let Some(v) = result {
                    self.env.parts[v.0 as usize] = parts;
                }
            }
        }
    }
}
