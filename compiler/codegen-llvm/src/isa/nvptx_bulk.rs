//! Copies by the copy engine of compute capability 9.0, and the signals that tell of them (PTX ISA, mbarrier and
//! cp.async.bulk).

use super::nvptx::{GLOBAL, SHARED, asm, in_space};
use crate::error::Failure;
use crate::lower::Lower;
use llmc_kernels::kir::{Op, Ty};

/// Makes a signal that the copy engine sees; what threads have written to shared memory before is in place.
const BEGIN: &str = "mbarrier.init.shared::cta.b64 [$0], $1;\n\
    fence.mbarrier_init.release.cluster;\n\
    fence.proxy.async.shared::cta;";

/// Tells a signal of a copy and begins it.
const COPY: &str = "{\n\
    .reg .b64 t;\n\
    mbarrier.arrive.expect_tx.shared::cta.b64 t, [$3], $2;\n\
    cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [$0], [$1], $2, [$3];\n\
    }";

/// Waits until a turn of that parity is over.
const WAIT: &str = "{\n\
    .reg .pred q;\n\
    AGAIN:\n\
    mbarrier.try_wait.parity.shared::cta.b64 q, [$0], $1;\n\
    @!q bra AGAIN;\n\
    }";

/// The instructions of signals.
pub fn signal(low: &Lower<'_, '_>, op: &Op) -> Result<(), Failure> {
    if low.target.gpu_arch < 90 {
        return Err(Failure::from(format!("{} has no copy engine", low.target.name)));
    }
    let shared = |v| Ok::<_, Failure>(in_space(low, low.get(v).into_pointer_value(), SHARED)?.into());
    let number = |v: u32| low.constant(Ty::I32, v.into());
    match op {
        Op::SignalBegin { ptr, copies } => {
            asm(low, BEGIN, "l,r,~{memory}", &[shared(*ptr)?, number(*copies)], None)?;
        }
        Op::SignalEnd { ptr } => {
            asm(low, "mbarrier.inval.shared::cta.b64 [$0];", "l,~{memory}", &[shared(*ptr)?], None)?;
        }
        Op::BulkCopy { to, from, bytes, signal } => {
            let from = in_space(low, low.get(*from).into_pointer_value(), GLOBAL)?.into();
            let args = [shared(*to)?, from, number(*bytes), shared(*signal)?];
            asm(low, COPY, "l,l,r,l,~{memory}", &args, None)?;
        }
        Op::SignalWait { ptr, parity } => {
            asm(low, WAIT, "l,r,~{memory}", &[shared(*ptr)?, low.get(*parity)], None)?;
        }
        _ => return Err("the instruction is none of signals".into()),
    }
    Ok(())
}
