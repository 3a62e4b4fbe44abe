//! Loops, branches and calls.

use super::{Lower, repr};
use crate::error::Failure;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{
    Block, BlockArg, ExtFuncData, ExternalName, FuncRef, InstBuilder, UserExternalName, Value,
};
use cranelift_module::Module;
use llmc_kernels::kir::{Region, Val};

impl Lower<'_> {
    /// A loop tested at its end, entered only if it runs at all.
    pub(super) fn for_loop(
        &mut self,
        [lo, hi, step]: [Val; 3],
        init: &[Val],
        body: &Region,
        results: &[Val],
    ) -> Result<(), Failure> {
        let (head, exit) = (self.block(&body.params), self.block(results));
        let [lo, hi, step] = [lo, hi, step].map(|v| self.get(v));
        let init: Vec<Value> = init.iter().map(|v| self.get(*v)).collect();
        self.test(lo, hi, &init, head, exit);
        self.enter(head, &body.params);
        let yields = self.region(body)?;
        let i = self.get(body.params[0]);
        let next = self.b.ins().iadd(i, step);
        self.test(next, hi, &yields, head, exit);
        self.enter(exit, results);
        Ok(())
    }

    /// Goes round with `i` and `carried` if `i < hi`, else out with `carried`.
    fn test(&mut self, i: Value, hi: Value, carried: &[Value], head: Block, exit: Block) {
        let again = self.b.ins().icmp(IntCC::SignedLessThan, i, hi);
        let round: Vec<BlockArg> = std::iter::once(&i).chain(carried).map(|v| BlockArg::Value(*v)).collect();
        self.b.ins().brif(again, head, &round, exit, &round[1..]);
    }

    pub(super) fn branch(&mut self, cond: Val, then: &Region, els: &Region, results: &[Val]) -> Result<(), Failure> {
        let sides = [(self.b.create_block(), then), (self.b.create_block(), els)];
        let join = self.block(results);
        let cond = self.get(cond);
        self.b.ins().brif(cond, sides[0].0, &[], sides[1].0, &[]);
        for (block, region) in sides {
            self.b.switch_to_block(block);
            let yields = self.region(region)?;
            let yields: Vec<BlockArg> = yields.into_iter().map(BlockArg::Value).collect();
            self.b.ins().jump(join, &yields);
        }
        self.enter(join, results);
        Ok(())
    }

    /// A block with parameters of these values' types.
    fn block(&mut self, values: &[Val]) -> Block {
        let block = self.b.create_block();
        for v in values {
            self.b.append_block_param(block, repr::of(self.source.ty(*v)));
        }
        block
    }

    /// Continues in a block whose parameters are these values.
    fn enter(&mut self, block: Block, values: &[Val]) {
        self.b.switch_to_block(block);
        let params = self.b.block_params(block).to_vec();
        for (v, value) in values.iter().zip(params) {
            self.set(*v, value);
        }
    }

    pub(super) fn call(&mut self, callee: &str, args: &[Value]) -> Result<(), Failure> {
        let callee = self.reference(callee)?;
        self.b.ins().call(callee, args);
        Ok(())
    }

    /// A callee that is called directly: all code ends up in one linked image, the barrier too.
    fn reference(&mut self, callee: &str) -> Result<FuncRef, Failure> {
        if let Some(known) = self.refs.get(callee) {
            return Ok(*known);
        }
        let id = self.callees.id(callee)?;
        let signature = self.module.declarations().get_function_decl(id).signature.clone();
        let signature = self.b.import_signature(signature);
        let name = UserExternalName { namespace: 0, index: id.as_u32() };
        let name = ExternalName::user(self.b.func.declare_imported_user_function(name));
        let data = ExtFuncData { name, signature, colocated: true, patchable: false };
        let reference = self.b.import_function(data);
        self.refs.insert(callee.to_string(), reference);
        Ok(reference)
    }
}
