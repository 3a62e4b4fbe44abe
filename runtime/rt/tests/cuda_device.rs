//! The GPU of this machine, where it has one:
//! `cargo test -p llmc-rt --test cuda_device -- --ignored --nocapture`.

use std::time::Instant;

use llmc_rt::cuda::energy::Meter;
use llmc_rt::cuda::{Gpu, Image, ImageKind, bandwidth};
use llmc_rt::error::Result;

/// `fill(address, value, count)` writes 8-byte values, one a thread.
const FILL: &str = "
.version 7.0
.target sm_80
.address_size 64
.visible .entry fill(.param .u64 address, .param .u64 value, .param .u64 count)
{
    .reg .pred %p;
    .reg .b32 %r<5>;
    .reg .b64 %d<7>;
    ld.param.u64 %d1, [address];
    ld.param.u64 %d2, [value];
    ld.param.u64 %d3, [count];
    mov.u32 %r1, %ctaid.x;
    mov.u32 %r2, %ntid.x;
    mov.u32 %r3, %tid.x;
    mad.lo.u32 %r4, %r1, %r2, %r3;
    cvt.u64.u32 %d4, %r4;
    setp.ge.u64 %p, %d4, %d3;
    @%p ret;
    shl.b64 %d5, %d4, 3;
    add.u64 %d6, %d1, %d5;
    st.global.u64 [%d6], %d2;
    ret;
}
";
/// Bytes uploaded: several times all page-locked buffers.
const UPLOAD: usize = (1 << 30) + 4321;

#[test]
#[ignore = "needs an NVIDIA GPU"]
fn the_device_does_what_it_is_told() -> Result<()> {
    let begin = Instant::now();
    let gpu = Gpu::open(0)?;
    println!("{:?}, {} bytes free, opened in {:?}", gpu.info(), gpu.memory_free()?, begin.elapsed());
    upload(&gpu)?;
    kernel(&gpu)?;
    let text = FILL.replace("add.u64", "add.nonsense");
    let error = gpu.load(&[ptx(80, &text)]).err().expect("refused");
    println!("{error}");
    assert!(error.message.contains("line 21"), "the compiler's words");
    let speed = bandwidth::measure(&gpu)?;
    println!("{speed:?}");
    assert!(speed.gb_s > 10.0, "a GPU reads faster than that");
    println!("joules: {:?}", Meter::of(gpu.info()).and_then(|meter| meter.joules()));
    let error = gpu.alloc(1 << 50, "the KV cache").err().expect("too large");
    println!("{error}");
    assert_eq!(error.code(), 4);
    let error = Gpu::open(99).err().expect("no such device");
    println!("{error}");
    assert_eq!(error.code(), 5);
    Ok(())
}

fn upload(gpu: &Gpu) -> Result<()> {
    let data: Vec<u8> = (0..UPLOAD as u32).map(|i| (i.wrapping_mul(0x9e37_79b1) >> 24) as u8).collect();
    let (buffer, back) = (gpu.alloc(UPLOAD, "weights")?, gpu.pinned(UPLOAD)?);
    for _ in 0..2 {
        let begin = Instant::now();
        gpu.upload(&buffer, &data)?;
        println!("upload: {:.1} GB/s", UPLOAD as f64 / 1e9 / begin.elapsed().as_secs_f64());
    }
    gpu.copy_out(&back, 0, &buffer, 0, UPLOAD)?;
    gpu.synchronize()?;
    assert!(back.slice::<u8>() == data, "what was uploaded differs");
    Ok(())
}

fn kernel(gpu: &Gpu) -> Result<()> {
    let begin = Instant::now();
    let module = gpu.load(&[ptx(80, FILL)])?;
    let fill = module.function("fill")?;
    println!("compiled in {:?}: {:?}", begin.elapsed(), fill.attributes()?);
    fill.allow_shared(gpu.info().shared_bytes)?;
    println!("{} blocks a multiprocessor", fill.blocks_per_multiprocessor(256, 0)?);
    let (buffer, back, count) = (gpu.alloc(8192, "test")?, gpu.pinned(8192)?, 1000);
    gpu.zero(&buffer)?;
    let (begin, end) = (gpu.event()?, gpu.event()?);
    for (value, cooperative) in [(3, false), (5, true)] {
        gpu.record(&begin)?;
        fill.launch(gpu, 4, 256, 0, &[buffer.address(), value, count], cooperative)?;
        gpu.record(&end)?;
        gpu.copy_out(&back, 0, &buffer, 0, 8192)?;
        gpu.synchronize()?;
        println!("{} ms", end.elapsed_ms(&begin)?);
        let expected: Vec<u64> = (0..1024).map(|i| if i < count { value } else { 0 }).collect();
        assert_eq!(back.slice::<u64>(), expected);
    }
    fill.launch(gpu, 4, 256, 0, &[back.device_address(), 7, 10], false)?;
    gpu.synchronize()?;
    assert_eq!(back.slice::<u64>()[..11], [7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 5], "written to the host");
    assert!(fill.launch(gpu, 1, 32, 0, &[1], false).is_err() || gpu.info().driver < 12040, "too few arguments");
    Ok(())
}

fn ptx(arch: u32, text: &str) -> Image<'_> {
    Image { kind: ImageKind::Ptx, arch, specific: false, bytes: text.as_bytes() }
}
