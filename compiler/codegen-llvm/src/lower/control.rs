//! Loops, branches, calls and barriers.

use super::{Lower, declare};
use crate::error::Failure;
use inkwell::IntPredicate;
use inkwell::basic_block::BasicBlock;
use inkwell::values::{BasicValue, BasicValueEnum, IntValue, PhiValue};
use llmc_abi::step::BARRIER_SYMBOL;
use llmc_kernels::kir::{Region, Val};

impl<'c> Lower<'c, '_> {
    /// A loop tested at its end, entered only if it runs at all.
    pub(super) fn for_loop(
        &mut self,
        [lo, hi, step]: [IntValue<'c>; 3],
        init: &[BasicValueEnum<'c>],
        body: &Region,
        results: &[Val],
    ) -> Result<(), Failure> {
        let before = self.here()?;
        let head = self.context.append_basic_block(self.function, "loop");
        let exit = self.context.append_basic_block(self.function, "done");
        let enter = self.builder.build_int_compare(IntPredicate::SLT, lo, hi, "")?;
        self.builder.build_conditional_branch(enter, head, exit)?;

        self.builder.position_at_end(head);
        let starts: Vec<BasicValueEnum> = std::iter::once(lo.into()).chain(init.iter().copied()).collect();
        let phis = self.phis(&starts)?;
        for (param, phi) in body.params.iter().zip(&phis) {
            self.set(*param, phi.as_basic_value());
        }
        if self.isa.group.is_some() && !self.target.unrolls {
            crate::isa::nvptx::keep_rolled(self)?;
        }
        let yields = self.region(body)?;
        let i = phis[0].as_basic_value().into_int_value();
        // KIR's indices are addresses' parts: they do not pass the end of i64.
        let next = self.builder.build_int_nsw_add(i, step, "")?;
        let again = self.builder.build_int_compare(IntPredicate::SLT, next, hi, "")?;
        let latch = self.here()?;
        self.builder.build_conditional_branch(again, head, exit)?;
        let nexts: Vec<BasicValueEnum> = std::iter::once(next.into()).chain(yields.iter().copied()).collect();
        incoming(&phis, &starts, before);
        incoming(&phis, &nexts, latch);

        self.builder.position_at_end(exit);
        self.join(results, [(init, before), (&yields, latch)])
    }

    pub(super) fn branch(
        &mut self,
        cond: IntValue<'c>,
        then: &Region,
        els: &Region,
        results: &[Val],
    ) -> Result<(), Failure> {
        let blocks = ["then", "else", "join"].map(|n| self.context.append_basic_block(self.function, n));
        self.builder.build_conditional_branch(cond, blocks[0], blocks[1])?;
        let mut side = |block, region| {
            self.builder.position_at_end(block);
            let yields = self.region(region)?;
            let end = self.here()?;
            self.builder.build_unconditional_branch(blocks[2])?;
            Ok::<_, Failure>((yields, end))
        };
        let (a, a_end) = side(blocks[0], then)?;
        let (b, b_end) = side(blocks[1], els)?;
        self.builder.position_at_end(blocks[2]);
        self.join(results, [(&a, a_end), (&b, b_end)])
    }

    /// Emits `then` where `cond` holds.
    pub fn only_if(&self, cond: IntValue<'c>, then: impl FnOnce(&Self) -> Result<(), Failure>) -> Result<(), Failure> {
        let [block, join] = ["then", "join"].map(|n| self.context.append_basic_block(self.function, n));
        self.builder.build_conditional_branch(cond, block, join)?;
        self.builder.position_at_end(block);
        then(self)?;
        self.builder.build_unconditional_branch(join)?;
        self.builder.position_at_end(join);
        Ok(())
    }

    /// Defines results by where control came from.
    fn join(&mut self, results: &[Val], sides: [(&[BasicValueEnum<'c>], BasicBlock<'c>); 2]) -> Result<(), Failure> {
        let phis = self.phis(sides[0].0)?;
        for (values, block) in sides {
            incoming(&phis, values, block);
        }
        for (result, phi) in results.iter().zip(phis) {
            self.set(*result, phi.as_basic_value());
        }
        Ok(())
    }

    /// Phis of these values' types, still without incoming edges.
    fn phis(&self, like: &[BasicValueEnum<'c>]) -> Result<Vec<PhiValue<'c>>, Failure> {
        like.iter().map(|v| Ok(self.builder.build_phi(v.get_type(), "")?)).collect()
    }

    fn here(&self) -> Result<BasicBlock<'c>, Failure> {
        Ok(self.builder.get_insert_block().ok_or("the builder is in a block")?)
    }

    pub(super) fn call(&self, callee: &str, args: &[Val]) -> Result<(), Failure> {
        let source = self.program.functions.iter().find(|f| f.name == callee);
        let source = source.ok_or_else(|| Failure::from(format!("call of {callee}, which is not in the program")))?;
        let args: Vec<_> = args.iter().map(|a| self.get(*a)).collect();
        self.call_value(declare(self.context, self.module, source), &args)?;
        Ok(())
    }

    pub(super) fn barrier(&self, phase: u32) -> Result<(), Failure> {
        self.flush_streams()?;
        let params: Vec<BasicValueEnum> = self.source.body.params[..3].iter().map(|p| self.get(*p)).collect();
        let i64 = self.context.i64_type();
        let phase = i64.const_int(phase.into(), false).into();
        let args = [params[0], params[1], params[2], phase];
        let types = args.map(|a| a.get_type().into());
        let callee = self.module.get_function(BARRIER_SYMBOL).unwrap_or_else(|| {
            self.module.add_function(BARRIER_SYMBOL, self.context.void_type().fn_type(&types, false), None)
        });
        self.call_value(callee, &args)?;
        Ok(())
    }
}

/// Adds an incoming edge to every phi.
fn incoming<'c>(phis: &[PhiValue<'c>], values: &[BasicValueEnum<'c>], block: BasicBlock<'c>) {
    for (phi, value) in phis.iter().zip(values) {
        phi.add_incoming(&[(value as &dyn BasicValue, block)]);
    }
}
