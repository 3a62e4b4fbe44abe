//! Products that the matrix units of four warps make together: what they multiply stays in registers up to a wait in the
//! same region, which keeps all of it.

use super::Checker;
use crate::kir::func::Region;
use crate::kir::inst::Op;

impl Checker<'_> {
    /// Checks that a wait follows each product of a region, and keeps its factors.
    pub(super) fn products(&mut self, region: &Region) {
        let mut under_way = Vec::new();
        for inst in &region.body {
            match &inst.op {
                Op::Wgmma { a, .. } => under_way.push((inst, *a)),
                Op::WgmmaWait { kept, .. } => {
                    if let Some((_, lost)) = under_way.iter().find(|(_, a)| !kept.contains(a)) {
                        self.error(Some(inst), format!("{lost} is a factor of a product before it, and not kept"));
                    }
                    under_way.clear();
                }
                _ => {}
            }
        }
        if let Some((first, _)) = under_way.first() {
            self.error(Some(first), "no wgmma_wait after it in its region");
        }
    }
}
