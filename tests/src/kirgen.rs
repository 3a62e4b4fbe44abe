//! Random programs: every instruction, element and region, always within what KIR defines.
//!
//! A program reads [`INPUT_BYTES`] of anything and writes [`OUTPUT_BYTES`] for each worker. NaNs
//! are replaced as soon as they may arise, since their bits depend on the order of operands.

use llmc_kernels::kir::{BinOp, Builder, CacheLevel, Cast, Cond, Elem, Function, Hint, Op, Program, Ty, UnOp, Val};

/// Bytes that a program may read.
pub const INPUT_BYTES: usize = 4096;
/// Bytes that each worker may write; the first half before the barrier, which others then read.
pub const OUTPUT_BYTES: usize = 8192;
/// Offset in `args` of the pointer to the input.
pub const INPUT_FIELD: i32 = 0;
/// Offset in `args` of the pointer to the output.
pub const OUTPUT_FIELD: i32 = 8;

const HALF: usize = OUTPUT_BYTES / 2;
const FRAME_BYTES: u32 = 512;
const ELEMS: [Elem; 6] = [Elem::I8, Elem::I16, Elem::I32, Elem::I64, Elem::F32, Elem::F64];
const INTS: [Elem; 4] = [Elem::I8, Elem::I16, Elem::I32, Elem::I64];
const FLOATS: [Elem; 2] = [Elem::F32, Elem::F64];
const CONDS: [Cond; 6] = [Cond::Eq, Cond::Ne, Cond::Lt, Cond::Le, Cond::Gt, Cond::Ge];

/// The splitmix64 generator.
pub struct Random(pub u64);

impl Random {
    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        (self.bits() % n as u64) as usize
    }

    fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())]
    }
}

/// A program whose entry is `entry`.
pub fn program(seed: u64) -> Program {
    let mut random = Random(seed);
    let params: Vec<Ty> = (0..random.below(4)).map(|_| any_type(&mut random, &ELEMS)).collect();
    let helper = helper(&mut random, &params);
    let entry = entry(&mut random, &params);
    Program { functions: vec![helper, entry] }
}

fn any_type(random: &mut Random, elems: &[Elem]) -> Ty {
    Ty { elem: random.pick(elems), lanes: 1 << random.below(6) }
}

/// Writes what it makes of its parameters to its first one.
fn helper(random: &mut Random, params: &[Ty]) -> Function {
    let all: Vec<Ty> = [Ty::PTR].iter().chain(params).copied().collect();
    let (b, values) = Builder::new("helper", &all);
    let mut g = Gen::new(b, random, values[3], HALF / 4);
    g.pool.extend(&values[4..]);
    for v in &values[4..] {
        g.keep(*v);
    }
    g.instructions(20, 1);
    g.finish()
}

/// Two phases: each worker writes its first half, then reads another's and writes its second.
fn entry(random: &mut Random, params: &[Ty]) -> Function {
    let (mut b, values) = Builder::new("entry", &[]);
    let (args, worker, workers) = (values[0], values[1], values[2]);
    let out = b.load(Ty::PTR, args, OUTPUT_FIELD);
    let mine = b.mul_const(worker, OUTPUT_BYTES as i64);
    let first = b.ptr_add(out, mine);
    let mut g = Gen::new(b, random, first, HALF / 2);
    g.frame();
    g.pool.push(worker);
    g.instructions(40, 2);
    let rest = g.b.ptr_add_const(first, HALF / 2);
    let mut call = vec![rest];
    call.extend(params.iter().map(|ty| g.value(*ty)).collect::<Vec<_>>());
    g.b.call("helper", &call);
    g.b.barrier(7);
    let next = g.b.add_const(worker, 1);
    let next = g.b.rem(next, workers);
    let theirs = g.b.mul_const(next, OUTPUT_BYTES as i64);
    g.input = g.b.ptr_add(out, theirs);
    g.input_bytes = 64;
    (g.out, g.used, g.room) = (g.b.ptr_add_const(first, HALF), 0, HALF);
    g.instructions(15, 1);
    g.finish()
}

struct Gen<'a> {
    b: Builder,
    random: &'a mut Random,
    /// Values that instructions may use.
    pool: Vec<Val>,
    input: Val,
    input_bytes: usize,
    frame: Option<Val>,
    out: Val,
    used: usize,
    room: usize,
}

impl<'a> Gen<'a> {
    fn new(mut b: Builder, random: &'a mut Random, out: Val, room: usize) -> Gen<'a> {
        let input = b.load(Ty::PTR, b.args(), INPUT_FIELD);
        Gen { b, random, pool: vec![], input, input_bytes: INPUT_BYTES, frame: None, out, used: 0, room }
    }

    fn finish(self) -> Function {
        self.b.finish()
    }

    fn instructions(&mut self, n: usize, depth: usize) {
        for _ in 0..n {
            let made = self.instruction(depth);
            for v in made {
                let v = self.clean(v);
                self.pool.push(v);
                if self.random.below(2) == 0 {
                    self.keep(v);
                }
            }
        }
    }

    /// Values of one or a few new instructions.
    fn instruction(&mut self, depth: usize) -> Vec<Val> {
        let one = match self.random.below(23) {
            0 | 1 => self.unary(),
            2..=4 => self.binary(),
            5 | 6 => self.shift(),
            7 => self.divide(),
            8 | 9 => self.multiply_add(),
            10 => self.compare(),
            11 => self.select(),
            12..=14 => self.cast(),
            15 | 16 => self.lanes(),
            17 => self.load_any(),
            18 => self.dot(),
            19 => return self.memory(),
            20 if depth > 0 => return self.for_loop(depth),
            21 if depth > 0 => return self.branch(depth),
            22 => self.table(),
            _ => self.cast(),
        };
        vec![one]
    }

    /// A value of this type: an earlier one, a constant or a loaded one.
    fn value(&mut self, ty: Ty) -> Val {
        let known: Vec<Val> = self.pool.iter().copied().filter(|v| self.b.ty(*v) == ty).collect();
        if !known.is_empty() && self.random.below(5) > 0 {
            return self.random.pick(&known);
        }
        match self.random.below(4) {
            0 => self.constant(ty),
            1 if ty.lanes > 1 => {
                let scalar = self.value(Ty::scalar(ty.elem));
                self.b.splat(scalar, ty.lanes)
            }
            _ if ty.elem == Elem::I1 => {
                let operand = Ty { elem: self.random.pick(&ELEMS), lanes: ty.lanes };
                self.compare_of(operand)
            }
            _ => self.load(ty),
        }
    }

    fn any(&mut self, elems: &[Elem]) -> Val {
        let ty = match self.pool.len() {
            n if n > 0 && self.random.below(4) > 0 => {
                let v = self.pool[self.random.below(n)];
                if elems.contains(&self.b.ty(v).elem) { self.b.ty(v) } else { any_type(self.random, elems) }
            }
            _ => any_type(self.random, elems),
        };
        self.value(ty)
    }

    fn constant(&mut self, ty: Ty) -> Val {
        if ty.elem.is_float() {
            let k = [0.0, -0.0, 1.0, -1.5, 0.1, 3.0e10, -7.25e-12, f64::INFINITY];
            return self.b.float(ty, self.random.pick(&k));
        }
        let bits = self.random.bits() as i64 >> self.random.below(64);
        let shift = 64 - ty.elem.bits();
        let k = if ty.elem == Elem::I1 { bits & 1 } else { bits << shift >> shift };
        self.b.int(ty, k)
    }

    fn load(&mut self, ty: Ty) -> Val {
        let bytes = ty.bytes() as usize;
        let align = ((ty.elem.bits() / 8) << self.random.below(4)).min(64);
        let places = (self.input_bytes.saturating_sub(bytes) / align as usize).max(1);
        let offset = self.random.below(places) * align as usize;
        if bytes > self.input_bytes {
            return self.constant(ty);
        }
        let hint = self.random.pick(&[Hint::None, Hint::Stream]);
        let (ptr, offset) = if self.random.below(2) == 0 {
            (self.b.ptr_add_const(self.input, offset), 0)
        } else {
            (self.input, offset as i32)
        };
        let v = self.b.load_with(ty, ptr, offset, align, hint);
        self.clean(v)
    }

    /// Replaces NaNs by a number.
    fn clean(&mut self, v: Val) -> Val {
        let ty = self.b.ty(v);
        if !ty.elem.is_float() {
            return v;
        }
        let number = self.b.cmp(Cond::Eq, v, v);
        let k = self.b.float(ty, 1.5);
        self.b.select(number, v, k)
    }

    /// Stores a value in the output, while there is room.
    fn keep(&mut self, v: Val) {
        let mut v = v;
        if self.b.ty(v).elem == Elem::I1 {
            v = self.b.cast(Cast::ZExt, v, self.b.ty(v).with_elem(Elem::I8));
        }
        let (size, bytes) = (self.b.ty(v).elem.bits() / 8, self.b.ty(v).bytes() as usize);
        let wide = if self.random.below(2) == 0 { size } else { (size * 4).min(64) };
        let at = self.used.next_multiple_of(wide as usize);
        if at + bytes > self.room {
            return;
        }
        let hint = if self.random.below(6) == 0 { Hint::Stream } else { Hint::None };
        self.b.op(Op::Store { ptr: self.out, offset: at as i32, value: v, align: wide, hint }, None);
        self.used = at + bytes;
    }

    fn unary(&mut self) -> Val {
        let a = self.any(&[&ELEMS[..], &[Elem::I1]].concat());
        let op = match self.b.ty(a).elem {
            Elem::I1 => UnOp::Not,
            e if e.is_int() => self.random.pick(&[UnOp::Neg, UnOp::Not]),
            _ => self.random.pick(&[UnOp::Neg, UnOp::Abs, UnOp::Sqrt, UnOp::Round, UnOp::Floor]),
        };
        self.b.un(op, a)
    }

    fn binary(&mut self) -> Val {
        use BinOp::*;
        let a = self.any(&[&ELEMS[..], &[Elem::I1]].concat());
        let ty = self.b.ty(a);
        let b = self.value(ty);
        let op = match ty.elem {
            Elem::I1 => self.random.pick(&[And, Or, Xor]),
            e if e.is_int() => self.random.pick(&[Add, Sub, Mul, Min, Max, And, Or, Xor]),
            _ => self.random.pick(&[Add, Sub, Mul, Div, Min, Max]),
        };
        self.b.bin(op, a, b)
    }

    fn shift(&mut self) -> Val {
        let a = self.any(&INTS);
        let ty = self.b.ty(a);
        let last = i64::from(ty.elem.bits()) - 1;
        let amount = match self.random.below(3) {
            0 => self.b.int(ty, (self.random.bits() as i64) & last),
            1 => {
                let (scalar, mask) = (self.value(Ty::scalar(ty.elem)), self.b.int(Ty::scalar(ty.elem), last));
                let amount = self.b.and(scalar, mask);
                self.b.splat(amount, ty.lanes)
            }
            _ => {
                let (amounts, mask) = (self.value(ty), self.b.int(ty, last));
                self.b.and(amounts, mask)
            }
        };
        let op = self.random.pick(&[BinOp::Shl, BinOp::LShr, BinOp::AShr]);
        self.b.bin(op, a, amount)
    }

    /// Divisors are from 2 to 63, some negated.
    fn divide(&mut self) -> Val {
        let ty = Ty { elem: self.random.pick(&INTS), lanes: 1 << self.random.below(4) };
        let (a, d) = (self.value(ty), self.value(ty));
        let (mask, two) = (self.b.int(ty, 61), self.b.int(ty, 2));
        let small = self.b.and(d, mask);
        let mut divisor = self.b.or(small, two);
        if self.random.below(2) == 0 {
            divisor = self.b.un(UnOp::Neg, divisor);
        }
        let op = self.random.pick(&[BinOp::Div, BinOp::Rem]);
        self.b.bin(op, a, divisor)
    }

    fn multiply_add(&mut self) -> Val {
        let a = self.any(&FLOATS);
        let ty = self.b.ty(a);
        let (b, c) = (self.value(ty), self.value(ty));
        self.b.fma(a, b, c)
    }

    fn compare(&mut self) -> Val {
        let a = self.any(&ELEMS);
        self.compare_of(self.b.ty(a))
    }

    fn compare_of(&mut self, ty: Ty) -> Val {
        let (a, b) = (self.value(ty), self.value(ty));
        self.b.cmp(self.random.pick(&CONDS), a, b)
    }

    fn select(&mut self) -> Val {
        let a = self.any(&[&ELEMS[..], &[Elem::I1]].concat());
        let ty = self.b.ty(a);
        let b = self.value(ty);
        let lanes = if self.random.below(2) == 0 { 1 } else { ty.lanes };
        let c = self.value(Ty { elem: Elem::I1, lanes });
        self.b.select(c, a, b)
    }

    fn cast(&mut self) -> Val {
        use Cast::*;
        let casts = [SExt, ZExt, Trunc, IntToFloat, FloatToInt, FExt, FTrunc, Bitcast, F16ToF32, F32ToF16];
        let cast = self.random.pick(&casts);
        match cast {
            Bitcast => self.bitcast(),
            FloatToInt => self.float_to_int(),
            _ => {
                let (from, to) = self.cast_types(cast);
                let a = self.any(&from);
                let ty = self.b.ty(a);
                let to: Vec<Elem> = to.iter().copied().filter(|e| legal(cast, ty.elem, *e)).collect();
                let to = self.random.pick(&to);
                self.b.cast(cast, a, ty.with_elem(to))
            }
        }
    }

    fn cast_types(&mut self, cast: Cast) -> (Vec<Elem>, Vec<Elem>) {
        use Elem::*;
        match cast {
            Cast::SExt => (vec![I8, I16, I32], INTS.to_vec()),
            Cast::ZExt => (vec![I1, I8, I16, I32], INTS.to_vec()),
            Cast::Trunc => (vec![I16, I32, I64], INTS.to_vec()),
            Cast::IntToFloat => (INTS.to_vec(), FLOATS.to_vec()),
            Cast::FExt => (vec![F32], vec![F64]),
            Cast::FTrunc => (vec![F64], vec![F32]),
            Cast::F16ToF32 => (vec![I16], vec![F32]),
            Cast::F32ToF16 => (vec![F32], vec![I16]),
            Cast::Bitcast | Cast::FloatToInt => unreachable!("made elsewhere"),
        }
    }

    fn float_to_int(&mut self) -> Val {
        let a = self.any(&FLOATS);
        let ty = self.b.ty(a);
        let to = self.random.pick(&INTS);
        let limit = (2f64).powi((to.bits() as i32).min(50) - 1) * 0.75;
        let (low, high) = (self.b.float(ty, -limit), self.b.float(ty, limit));
        let a = self.b.max(a, low);
        let a = self.b.min(a, high);
        self.b.cast(Cast::FloatToInt, a, ty.with_elem(to))
    }

    fn bitcast(&mut self) -> Val {
        let a = self.any(&ELEMS);
        let bits = self.b.ty(a).bytes() * 8;
        let fits = |e: &Elem| bits.is_multiple_of(e.bits()) && bits / e.bits() <= 64;
        let to: Vec<Elem> = ELEMS.into_iter().filter(fits).collect();
        let to = self.random.pick(&to);
        self.b.cast(Cast::Bitcast, a, Ty { elem: to, lanes: (bits / to.bits()) as u16 })
    }

    fn lanes(&mut self) -> Val {
        let a = self.any(&[&ELEMS[..], &[Elem::I1]].concat());
        let ty = self.b.ty(a);
        if ty.lanes == 1 {
            return self.b.splat(a, 2 << self.random.below(5));
        }
        let lane = self.random.below(ty.lanes.into()) as u16;
        match self.random.below(4) {
            0 => self.b.extract(a, lane),
            1 => {
                let scalar = self.value(Ty::scalar(ty.elem));
                self.b.insert(a, lane, scalar)
            }
            _ => {
                let b = self.value(ty);
                let count = 2usize << self.random.below(5);
                let lanes = (0..count).map(|_| self.random.below(2 * usize::from(ty.lanes)) as u16).collect();
                self.b.shuffle(a, b, lanes)
            }
        }
    }

    fn load_any(&mut self) -> Val {
        let ty = any_type(self.random, &ELEMS);
        self.load(ty)
    }

    fn dot(&mut self) -> Val {
        let lanes = 1 << self.random.below(5);
        let packed = Ty { elem: Elem::I32, lanes };
        let (a, b) = (self.value(packed), self.value(packed));
        let kind = self.random.below(4);
        if kind > 0 {
            let acc = self.value(packed);
            return match kind {
                1 => self.b.dot4_i8(acc, a, b),
                2 => self.b.dot2_i8(acc, a, b),
                _ => self.b.add_halves(acc, a),
            };
        }
        let acc = self.value(packed.with_elem(Elem::F32));
        self.b.dot2_bf16(acc, a, b)
    }

    fn table(&mut self) -> Val {
        if self.random.below(4) == 0 {
            let ty = Ty::vector(Elem::F32, 16);
            let (table, index) = (self.value(ty), self.value(ty.with_elem(Elem::I32)));
            return self.b.lookup16(table, index);
        }
        let bytes = Ty { elem: Elem::I8, lanes: 16 << self.random.below(3) };
        let (table, index) = (self.value(bytes), self.value(bytes));
        let fifteen = self.b.int(bytes, 15);
        let index = self.b.and(index, fifteen);
        self.b.table16(table, index)
    }

    /// Makes frame memory with known contents.
    fn frame(&mut self) {
        let frame = self.b.stack(FRAME_BYTES);
        let zero = self.b.int(Ty::vector(Elem::I64, 8), 0x0102_0304_0506_0708);
        for offset in (0..FRAME_BYTES).step_by(64) {
            self.b.op(Op::Store { ptr: frame, offset: offset as i32, value: zero, align: 64, hint: Hint::None }, None);
        }
        self.frame = Some(frame);
    }

    /// A store to the frame and a load from it, at places known and not known; or a prefetch.
    fn memory(&mut self) -> Vec<Val> {
        let Some(frame) = self.frame else {
            self.b.prefetch(self.input, self.random.bits() as i32, CacheLevel::L2);
            return vec![];
        };
        let v = self.any(&ELEMS);
        let room = (FRAME_BYTES - self.b.ty(v).bytes()) as usize / 8 + 1;
        self.b.store(v, frame, 8 * self.random.below(room) as i32);
        let (index, mask) = (self.value(Ty::I64), self.b.int(Ty::I64, 0x38));
        let at = self.b.and(index, mask);
        let place = self.b.ptr_add(frame, at);
        let ty = Ty { elem: self.random.pick(&ELEMS), lanes: 1 << self.random.below(4) };
        vec![self.b.load(ty, place, 8 * self.random.below(16) as i32)]
    }

    fn for_loop(&mut self, depth: usize) -> Vec<Val> {
        let lo = self.b.int(Ty::I64, self.random.below(4) as i64 - 2);
        let hi = if self.random.below(2) == 0 {
            self.b.int(Ty::I64, self.random.below(6) as i64)
        } else {
            let (any, mask) = (self.value(Ty::I64), self.b.int(Ty::I64, 7));
            self.b.and(any, mask)
        };
        let step = self.b.index(1 + self.random.below(3));
        let init: Vec<Val> = (0..self.random.below(4)).map(|_| self.any(&[&ELEMS[..], &[Elem::I1]].concat())).collect();
        let mut b = std::mem::replace(&mut self.b, Builder::new("none", &[]).0);
        let results = b.for_carried((lo, hi, step), &init, |b, i, carried| {
            std::mem::swap(&mut self.b, b);
            let params: Vec<Val> = std::iter::once(i).chain(carried.iter().copied()).collect();
            let yields = self.region(&params, &init, depth);
            std::mem::swap(&mut self.b, b);
            yields
        });
        self.b = b;
        results
    }

    fn branch(&mut self, depth: usize) -> Vec<Val> {
        let cond = self.value(Ty::I1);
        let like: Vec<Val> = (0..self.random.below(3)).map(|_| self.any(&[&ELEMS[..], &[Elem::I1]].concat())).collect();
        let mut b = std::mem::replace(&mut self.b, Builder::new("none", &[]).0);
        let this = std::cell::RefCell::new(self);
        let side = |b: &mut Builder| {
            let this = &mut **this.borrow_mut();
            std::mem::swap(&mut this.b, b);
            let yields = this.region(&[], &like, depth);
            std::mem::swap(&mut this.b, b);
            yields
        };
        let results = b.if_else(cond, side, side);
        this.into_inner().b = b;
        results
    }

    /// Instructions of a region with these parameters; yields values of the types of `like`.
    fn region(&mut self, params: &[Val], like: &[Val], depth: usize) -> Vec<Val> {
        let outside = self.pool.len();
        self.pool.extend(params);
        let count = 1 + self.random.below(8);
        self.instructions(count, depth - 1);
        let yields = like.iter().map(|v| self.value(self.b.ty(*v))).collect();
        self.pool.truncate(outside);
        yields
    }
}

fn legal(cast: Cast, from: Elem, to: Elem) -> bool {
    match cast {
        Cast::SExt | Cast::ZExt => to.bits() > from.bits(),
        Cast::Trunc => to.bits() < from.bits(),
        _ => true,
    }
}
