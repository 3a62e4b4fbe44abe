//! An NVIDIA GPU through the CUDA driver API, which is loaded while the program runs: a machine
//! without it loses nothing but the GPU. No toolkit takes part, neither in building nor in running.
//!
//! A [`Gpu`] is one device with one stream: what is enqueued runs in order. Its methods must be
//! called by the thread that opened it, or by one that called [`Gpu::make_current`]; any other gets
//! an error.

pub mod bandwidth;
mod decode;
mod driver;
pub mod energy;
mod event;
mod gpu;
mod image;
mod info;
mod inputs;
mod kernel;
mod library;
mod memory;
mod module;
pub mod step;
mod ticks;
mod upload;

pub use event::Event;
pub use gpu::Gpu;
pub use image::{Image, ImageKind, candidates};
pub use info::GpuInfo;
pub use inputs::Inputs;
pub use kernel::{Kernel, KernelAttributes, MAX_PARAMETERS};
pub use memory::{Buffer, Pinned};
pub use module::Module;
