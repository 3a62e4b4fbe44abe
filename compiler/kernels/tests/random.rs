//! Random programs compute the same bits before and after legalization, and survive their text.

mod common;

use common::{LIMITS, legal, run};
use llmc_kernels::kir::interp::Order;
use llmc_kernels::kir::{BinOp, Builder, Cast, Cond, Elem, Op, Program, Ty, UnOp, Val, text, verify};

/// A linear congruential generator (Knuth's constants).
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }

    fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())]
    }
}

const BYTES: usize = 2048;
const NUMBERS: [Elem; 6] = [Elem::I8, Elem::I16, Elem::I32, Elem::I64, Elem::F32, Elem::F64];

struct Maker {
    random: Random,
    /// Values that may be used, all in scope.
    pool: Vec<Val>,
}

impl Maker {
    /// A value whose type is accepted; there is always one of each element in the pool.
    fn any(&mut self, b: &Builder, accept: impl Fn(Ty) -> bool) -> Val {
        let fitting: Vec<Val> = self.pool.iter().copied().filter(|v| accept(b.ty(*v))).collect();
        self.random.pick(&fitting)
    }

    fn like(&mut self, b: &Builder, v: Val) -> Val {
        let ty = b.ty(v);
        self.any(b, |t| t == ty)
    }

    fn load(&mut self, b: &mut Builder, memory: Val, ty: Ty) {
        let bytes = ty.bytes() as usize;
        let offset = bytes * self.random.below(BYTES / bytes);
        let v = b.load(ty, memory, offset as i32);
        self.pool.push(v);
    }

    /// One instruction.
    fn step(&mut self, b: &mut Builder, depth: usize) {
        let kind = self.random.below(if depth < 2 { 14 } else { 12 });
        let v = match kind {
            0 | 1 => self.arithmetic(b),
            2 => self.compare(b),
            3 => self.select(b),
            4 | 5 => self.cast(b),
            6 => self.bitcast(b),
            7 => self.shuffle(b),
            8 => {
                let v = self.any(b, |t| t.lanes > 1);
                let lane = self.random.below(b.ty(v).lanes.into()) as u16;
                b.extract(v, lane)
            }
            9 => {
                let v = self.any(b, |t| t.lanes > 1);
                let elem = b.ty(v).elem;
                let lane = self.random.below(b.ty(v).lanes.into()) as u16;
                let scalar = self.any(b, |t| t == Ty::scalar(elem));
                b.insert(v, lane, scalar)
            }
            10 => {
                let v = self.any(b, |t| t.lanes == 1);
                let lanes = self.random.pick(&[2, 4, 8, 16, 32, 64]);
                b.splat(v, lanes)
            }
            11 => self.dot(b),
            12 => self.loops(b, depth),
            _ => self.branch(b, depth),
        };
        self.pool.push(v);
    }

    fn arithmetic(&mut self, b: &mut Builder) -> Val {
        let a = self.any(b, |_| true);
        let c = self.like(b, a);
        let elem = b.ty(a).elem;
        if elem == Elem::I1 {
            let op = self.random.pick(&[BinOp::And, BinOp::Or, BinOp::Xor]);
            return b.bin(op, a, c);
        }
        match self.random.below(4) {
            0 => b.un(UnOp::Neg, a),
            1 if elem.is_float() => {
                let op = self.random.pick(&[UnOp::Abs, UnOp::Sqrt, UnOp::Round, UnOp::Floor]);
                b.un(op, a)
            }
            2 if elem.is_float() => {
                let d = self.like(b, a);
                b.fma(a, c, d)
            }
            _ => {
                let op = self.random.pick(&[BinOp::Add, BinOp::Sub, BinOp::Mul, BinOp::Min, BinOp::Max]);
                b.bin(op, a, c)
            }
        }
    }

    fn compare(&mut self, b: &mut Builder) -> Val {
        let a = self.any(b, |t| t.elem != Elem::I1);
        let c = self.like(b, a);
        let cond = self.random.pick(&[Cond::Eq, Cond::Ne, Cond::Lt, Cond::Le, Cond::Gt, Cond::Ge]);
        b.cmp(cond, a, c)
    }

    fn select(&mut self, b: &mut Builder) -> Val {
        let cond = self.any(b, |t| t.elem == Elem::I1);
        let lanes = b.ty(cond).lanes;
        let a = if self.pool.iter().any(|v| b.ty(*v).lanes == lanes) && lanes > 1 {
            self.any(b, |t| t.lanes == lanes)
        } else {
            self.any(b, |_| true)
        };
        let c = self.like(b, a);
        if lanes > 1 && b.ty(a).lanes != lanes { a } else { b.select(cond, a, c) }
    }

    /// A conversion to some other element for which there is one.
    fn cast(&mut self, b: &mut Builder) -> Val {
        let v = self.any(b, |t| t.elem != Elem::F64);
        let ty = b.ty(v);
        let wider: Vec<Elem> = NUMBERS[..4].iter().copied().filter(|e| e.bits() > ty.elem.bits()).collect();
        let narrower: Vec<Elem> = NUMBERS[..4].iter().copied().filter(|e| e.bits() < ty.elem.bits()).collect();
        let (cast, elem) = match (ty.elem, self.random.below(3)) {
            (Elem::F32, 0) => (Cast::FExt, Elem::F64),
            (Elem::F32, _) => (Cast::F32ToF16, Elem::I16),
            (Elem::I1, _) => (Cast::ZExt, self.random.pick(&wider)),
            (Elem::I16, 0) => (Cast::F16ToF32, Elem::F32),
            (_, 0) => (Cast::IntToFloat, self.random.pick(&[Elem::F32, Elem::F64])),
            (Elem::I8, _) => (Cast::SExt, self.random.pick(&wider)),
            (Elem::I64, _) => (Cast::Trunc, self.random.pick(&narrower)),
            (_, 1) => (Cast::ZExt, self.random.pick(&wider)),
            _ => (Cast::Trunc, self.random.pick(&narrower)),
        };
        b.cast(cast, v, ty.with_elem(elem))
    }

    fn bitcast(&mut self, b: &mut Builder) -> Val {
        let v = self.any(b, |t| t.elem != Elem::I1);
        let bytes = b.ty(v).bytes();
        let types: Vec<Ty> = NUMBERS
            .iter()
            .map(|e| Ty { elem: *e, lanes: (bytes / (e.bits() / 8)) as u16 })
            .filter(|t| t.bytes() == bytes && (1..=64).contains(&t.lanes))
            .collect();
        let ty = self.random.pick(&types);
        b.cast(Cast::Bitcast, v, ty)
    }

    fn shuffle(&mut self, b: &mut Builder) -> Val {
        let a = self.any(b, |t| t.lanes > 1);
        let c = self.like(b, a);
        let both = 2 * usize::from(b.ty(a).lanes);
        let count = self.random.pick(&[2, 4, 8, 16, 32, 64]);
        let list = (0..count).map(|_| self.random.below(both) as u16).collect();
        b.shuffle(a, c, list)
    }

    fn dot(&mut self, b: &mut Builder) -> Val {
        let x = self.any(b, |t| t.elem == Elem::I32);
        let y = self.like(b, x);
        let z = self.like(b, x);
        let floats = b.ty(x).with_elem(Elem::F32);
        if self.random.below(2) == 0 {
            return b.dot4_i8(x, y, z);
        }
        let acc = b.cast(Cast::IntToFloat, z, floats);
        b.dot2_bf16(acc, x, y)
    }

    fn body(&mut self, b: &mut Builder, depth: usize) {
        for _ in 0..1 + self.random.below(4) {
            self.step(b, depth + 1);
        }
    }

    fn loops(&mut self, b: &mut Builder, depth: usize) -> Val {
        let init = [self.any(b, |_| true), self.any(b, |_| true)];
        let range = (b.index(0), b.index(self.random.below(4)), b.index(1));
        let scope = self.pool.len();
        let results = b.for_carried(range, &init, |b, i, carried| {
            self.pool.push(i);
            self.pool.extend(carried);
            self.body(b, depth);
            let yields = carried.iter().map(|v| self.like(b, *v)).collect();
            self.pool.truncate(scope);
            yields
        });
        self.pool.push(results[0]);
        results[1]
    }

    fn branch(&mut self, b: &mut Builder, depth: usize) -> Val {
        let cond = self.any(b, |t| t == Ty::I1);
        let like = self.any(b, |_| true);
        let scope = self.pool.len();
        let maker = std::cell::RefCell::new(self);
        let arm = |b: &mut Builder| {
            let mut maker = maker.borrow_mut();
            maker.body(b, depth);
            let yields = vec![maker.like(b, like)];
            maker.pool.truncate(scope);
            yields
        };
        b.if_else(cond, arm, arm)[0]
    }
}

/// A program that loads values, computes with them and stores all that are not truth values.
fn random_program(seed: u64) -> (Program, usize) {
    let (mut b, _) = Builder::new("main", &[]);
    let b = &mut b;
    let mut maker = Maker { random: Random(seed), pool: vec![] };
    let input = b.load(Ty::PTR, b.args(), 0);
    let output = b.load(Ty::PTR, b.args(), 8);
    for elem in NUMBERS {
        maker.load(b, input, Ty::scalar(elem));
        let lanes = maker.random.pick(&[4, 8, 16]);
        maker.load(b, input, Ty::vector(elem, lanes));
        maker.load(b, input, Ty::vector(elem, 16));
    }
    let (one, same) = (maker.pool[6], maker.pool[8]);
    let scalar = b.cmp(Cond::Lt, one, one);
    let vector = b.cmp(Cond::Ge, same, same);
    maker.pool.extend([scalar, vector]);
    for _ in 0..40 {
        maker.step(b, 0);
    }
    let mut offset = 0;
    for v in maker.pool {
        let ty = b.ty(v);
        if ty.elem != Elem::I1 {
            b.op(Op::Store { ptr: output, offset, value: v, align: 1, hint: Default::default() }, None);
            offset += ty.bytes() as i32;
        }
    }
    let (finished, _) = Builder::new("unused", &[]);
    let function = std::mem::replace(b, finished).finish();
    (Program { functions: vec![function] }, offset as usize)
}

#[test]
fn legal_programs_compute_the_same() {
    for seed in 0..150 {
        let (program, bytes) = random_program(seed);
        verify::verify(&program).unwrap_or_else(|e| panic!("seed {seed}: {e}\n{program}"));
        assert_eq!(text::parse(&program.to_string()).as_ref(), Ok(&program), "seed {seed}");
        let mut random = Random(seed + 1000);
        let buffers = [(0..BYTES).map(|_| random.below(256) as u8).collect(), vec![0; bytes]];
        let expected = run(&program, &buffers, 1, Order::Forward).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        for (name, limits) in &LIMITS {
            let legal = legal(&program, limits);
            let found = run(&legal, &buffers, 1, Order::Forward).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
            let differs = expected[1].iter().zip(&found[1]).position(|(a, b)| a != b);
            assert_eq!(differs, None, "seed {seed}, {name}\n{program}");
        }
    }
}
