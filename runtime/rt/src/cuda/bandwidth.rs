//! How fast the device reads its memory: the ceiling that decoding is compared with.

use super::{Buffer, Gpu, Image, ImageKind, Kernel};
use crate::bandwidth::Speed;
use crate::error::Result;

/// Bytes read per pass where there is room: far more than caches hold.
const MOST: usize = 2 << 30;
/// Threads of a block.
const THREADS: usize = 512;
/// Blocks for each multiprocessor: as many threads as it holds.
const BLOCKS: usize = 4;
/// Loads of 16 bytes that a thread has under way.
const LOADS: usize = 4;
/// Passes measured.
const PASSES: usize = 9;

/// `read(address, rounds, sink)`: in each round every thread loads 16 bytes four times, neighbours side by
/// side. All bits are combined; a combination that does not occur would be stored.
const READ: &str = "
.version 7.0
.target sm_80
.address_size 64
.visible .entry read(.param .u64 address, .param .u64 rounds, .param .u64 sink)
{
    .reg .pred %p<3>;
    .reg .b32 %r<8>, %x<17>;
    .reg .b64 %a<5>, %stride, %rounds, %sink, %step;
    ld.param.u64 %a1, [address];
    ld.param.u64 %rounds, [rounds];
    ld.param.u64 %sink, [sink];
    mov.u32 %r1, %ctaid.x;
    mov.u32 %r2, %ntid.x;
    mov.u32 %r3, %tid.x;
    mov.u32 %r4, %nctaid.x;
    mad.lo.u32 %r5, %r1, %r2, %r3;
    mul.lo.u32 %r6, %r4, %r2;
    mul.wide.u32 %stride, %r6, 16;
    mad.wide.u32 %a1, %r5, 16, %a1;
    shl.b64 %step, %stride, 2;
    mov.u32 %x16, 0;
LOOP:
    add.u64 %a2, %a1, %stride;
    add.u64 %a3, %a2, %stride;
    add.u64 %a4, %a3, %stride;
    ld.global.nc.v4.u32 {%x0, %x1, %x2, %x3}, [%a1];
    ld.global.nc.v4.u32 {%x4, %x5, %x6, %x7}, [%a2];
    ld.global.nc.v4.u32 {%x8, %x9, %x10, %x11}, [%a3];
    ld.global.nc.v4.u32 {%x12, %x13, %x14, %x15}, [%a4];
    lop3.b32 %x0, %x0, %x1, %x2, 0x96;
    lop3.b32 %x3, %x3, %x4, %x5, 0x96;
    lop3.b32 %x6, %x6, %x7, %x8, 0x96;
    lop3.b32 %x9, %x9, %x10, %x11, 0x96;
    lop3.b32 %x12, %x12, %x13, %x14, 0x96;
    lop3.b32 %x0, %x0, %x3, %x6, 0x96;
    lop3.b32 %x9, %x9, %x12, %x15, 0x96;
    lop3.b32 %x16, %x16, %x0, %x9, 0x96;
    add.u64 %a1, %a1, %step;
    sub.u64 %rounds, %rounds, 1;
    setp.ne.u64 %p1, %rounds, 0;
    @%p1 bra LOOP;
    setp.eq.u32 %p2, %x16, 0x9e3779b9;
    @%p2 st.global.u32 [%sink], %x16;
    ret;
}
";

/// The read speed of the device's memory: the median of several passes. Zero where no memory is free.
///
/// # Errors
/// Exit code 1 where the device fails.
pub fn measure(gpu: &Gpu) -> Result<Speed> {
    let kernel = gpu.load(&[Image { kind: ImageKind::Ptx, arch: 80, specific: false, bytes: READ.as_bytes() }])?;
    let kernel = kernel.function("read")?;
    let round = gpu.info().multiprocessors * BLOCKS * THREADS * LOADS * 16;
    let rounds = MOST.min(gpu.memory_free()? as usize / 2) / round;
    if rounds == 0 {
        return Ok(Speed::default());
    }
    let buffer = gpu.alloc(rounds * round, "measuring the read bandwidth")?;
    gpu.zero(&buffer)?;
    pass(gpu, &kernel, &buffer, rounds)?;
    let mut times = (0..PASSES).map(|_| pass(gpu, &kernel, &buffer, rounds)).collect::<Result<Vec<_>>>()?;
    times.sort_unstable_by(f32::total_cmp);
    let nanos = f64::from(times[PASSES / 2]) * 1e6;
    let gb_s = buffer.len() as f64 / nanos.max(1.0);
    Ok(Speed { gb_s, mean_gb_s: gb_s, streams: LOADS, bytes: buffer.len() })
}

/// Milliseconds of one pass.
fn pass(gpu: &Gpu, kernel: &Kernel, buffer: &Buffer, rounds: usize) -> Result<f32> {
    let (begin, end) = (gpu.event()?, gpu.event()?);
    let grid = (gpu.info().multiprocessors * BLOCKS) as u32;
    gpu.record(&begin)?;
    kernel.launch(gpu, grid, THREADS as u32, 0, &[buffer.address(), rounds as u64, buffer.address()], false)?;
    gpu.record(&end)?;
    end.wait()?;
    end.elapsed_ms(&begin)
}
