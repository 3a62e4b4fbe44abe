//! The functions of the CUDA driver API that the runtime uses, and what their results mean.

use std::ffi::{CStr, CString, c_char, c_void};
use std::fmt::Display;
use std::mem::transmute;
use std::ptr::NonNull;

use super::library::Library;
use crate::error::{Error, Kind, Result};

/// Oldest driver that runs artifacts: CUDA 12.0, as `cuDriverGetVersion` writes it.
const DRIVER_FLOOR: i32 = 12000;
/// The file name by which the system finds the driver, and where it lies in containers, under WSL
/// and on systems whose loader does not look there.
const NAMES: [&CStr; 4] = [
    c"libcuda.so.1",
    c"/usr/local/nvidia/lib64/libcuda.so.1",
    c"/usr/lib/wsl/lib/libcuda.so.1",
    c"/usr/lib/x86_64-linux-gnu/libcuda.so.1",
];

/// `CUresult`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(super) struct Status(i32);

impl Status {
    pub(super) const SUCCESS: Status = Status(0);
    pub(super) const INVALID_VALUE: Status = Status(1);
    pub(super) const OUT_OF_MEMORY: Status = Status(2);
    pub(super) const NOT_READY: Status = Status(600);

    /// The exit code that a failure has.
    fn kind(self) -> Kind {
        match self.0 {
            2 => Kind::Fit,
            // Stub library, insufficient driver, device unavailable, no device, invalid device,
            // driver and library that do not match, device without forward compatibility.
            34 | 35 | 46 | 100 | 101 | 803 | 804 => Kind::Device,
            _ => Kind::Failed,
        }
    }
}

/// What the driver calls a context, stream, event, module or function.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub(super) struct Handle(pub(super) *mut c_void);

// SAFETY: a name that only the driver follows, and the driver may be called by any thread.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

impl Handle {
    pub(super) const NULL: Handle = Handle(std::ptr::null_mut());
}

/// `CUdeviceptr`.
pub(super) type Address = u64;
type Text = *const c_char;
type GetAddress = unsafe extern "C" fn(Text, *mut *mut c_void, i32, u64, *mut i32) -> Status;
type GetParameter = unsafe extern "C" fn(Handle, usize, *mut usize, *mut usize) -> Status;

/// Declares the table: each function's name with the version whose parameters follow.
macro_rules! functions {
    ($($field:ident = $name:literal ($($parameter:ty),*);)*) => {
        /// The driver's functions.
        pub(super) struct Driver {
            /// `cuFuncGetParamInfo`, of drivers since CUDA 12.4.
            pub(super) function_parameter: Option<GetParameter>,
            $(pub(super) $field: unsafe extern "C" fn($($parameter),*) -> Status,)*
        }

        impl Driver {
            fn resolve(library: &Library) -> Result<Self> {
                let parameter = address(library, c"cuFuncGetParamInfo");
                Ok(Self {
                    // SAFETY: the address is that function's, which has these parameters.
                    function_parameter: parameter.ok().map(|a| unsafe {
                        transmute::<NonNull<c_void>, GetParameter>(a)
                    }),
                    // SAFETY: the addresses are those of the functions named, at the versions that
                    // have these parameters.
                    $($field: unsafe {
                        let found = address(library, $name)?;
                        transmute::<NonNull<c_void>, unsafe extern "C" fn($($parameter),*) -> Status>(found)
                    },)*
                })
            }
        }
    };
}

#[rustfmt::skip]
functions! {
    error_name         = c"cuGetErrorName" (Status, *mut Text);
    error_string       = c"cuGetErrorString" (Status, *mut Text);
    initialize         = c"cuInit" (u32);
    device_count       = c"cuDeviceGetCount" (*mut i32);
    device_get         = c"cuDeviceGet" (*mut i32, i32);
    device_name        = c"cuDeviceGetName" (*mut c_char, i32, i32);
    device_bus         = c"cuDeviceGetPCIBusId" (*mut c_char, i32, i32);
    device_attribute   = c"cuDeviceGetAttribute" (*mut i32, i32, i32);
    device_memory      = c"cuDeviceTotalMem_v2" (*mut usize, i32);
    context_retain     = c"cuDevicePrimaryCtxRetain" (*mut Handle, i32);
    context_release    = c"cuDevicePrimaryCtxRelease_v2" (i32);
    context_set        = c"cuCtxSetCurrent" (Handle);
    stream_create      = c"cuStreamCreate" (*mut Handle, u32);
    stream_destroy     = c"cuStreamDestroy_v2" (Handle);
    stream_wait        = c"cuStreamSynchronize" (Handle);
    memory_info        = c"cuMemGetInfo_v2" (*mut usize, *mut usize);
    memory_allocate    = c"cuMemAlloc_v2" (*mut Address, usize);
    memory_release     = c"cuMemFree_v2" (Address);
    memory_set         = c"cuMemsetD8Async" (Address, u8, usize, Handle);
    host_allocate      = c"cuMemHostAlloc" (*mut *mut c_void, usize, u32);
    host_release       = c"cuMemFreeHost" (*mut c_void);
    host_address       = c"cuMemHostGetDevicePointer_v2" (*mut Address, *mut c_void, u32);
    copy_to_device     = c"cuMemcpyHtoDAsync_v2" (Address, *const c_void, usize, Handle);
    copy_to_host       = c"cuMemcpyDtoHAsync_v2" (*mut c_void, Address, usize, Handle);
    event_create       = c"cuEventCreate" (*mut Handle, u32);
    event_destroy      = c"cuEventDestroy_v2" (Handle);
    event_record       = c"cuEventRecord" (Handle, Handle);
    event_wait         = c"cuEventSynchronize" (Handle);
    event_query        = c"cuEventQuery" (Handle);
    event_elapsed      = c"cuEventElapsedTime" (*mut f32, Handle, Handle);
    module_load        = c"cuModuleLoadDataEx" (*mut Handle, *const c_void, u32, *const i32, *const *mut c_void);
    module_unload      = c"cuModuleUnload" (Handle);
    module_function    = c"cuModuleGetFunction" (*mut Handle, Handle, Text);
    function_attribute = c"cuFuncGetAttribute" (*mut i32, i32, Handle);
    function_set       = c"cuFuncSetAttribute" (Handle, i32, i32);
    occupancy          = c"cuOccupancyMaxActiveBlocksPerMultiprocessor" (*mut i32, Handle, i32, usize);
    launch             = c"cuLaunchKernel"
        (Handle, u32, u32, u32, u32, u32, u32, u32, Handle, *mut *mut c_void, *mut *mut c_void);
    launch_cooperative = c"cuLaunchCooperativeKernel"
        (Handle, u32, u32, u32, u32, u32, u32, u32, Handle, *mut *mut c_void);
}

impl Driver {
    /// Loads and initializes the driver. Gives it with its version, 1000 times CUDA's major and 10
    /// times its minor one.
    ///
    /// # Errors
    ///
    /// Exit code 5 where there is none, it is too old, or it finds no GPU.
    pub(super) fn open() -> Result<(Self, u32)> {
        let library = Library::open(&NAMES).map_err(|why| {
            Error::device(format!(
                "no CUDA driver ({why}); install NVIDIA's driver 525 (CUDA {}) or newer, or give --device cpu",
                version_text(DRIVER_FLOOR)
            ))
        })?;
        let version = version(&library)?;
        let driver = Self::resolve(&library)?;
        // SAFETY: takes flags, of which there are none.
        let status = unsafe { (driver.initialize)(0) };
        driver.check(status, "start").map_err(|e| {
            Error::device(format!(
                "{}; is an NVIDIA GPU present and allowed to this user? or give --device cpu",
                e.message
            ))
        })?;
        Ok((driver, version))
    }

    /// An error where `status` is one, saying that the GPU cannot do `what`.
    pub(super) fn check(&self, status: Status, what: impl Display) -> Result<()> {
        if status == Status::SUCCESS {
            return Ok(());
        }
        Err(Error { kind: status.kind(), message: format!("the GPU cannot {what}: {}", self.describe(status)) })
    }

    /// CUDA's own name of a result and its meaning.
    pub(super) fn describe(&self, status: Status) -> String {
        let text = |get: unsafe extern "C" fn(Status, *mut Text) -> Status| {
            let mut text: Text = std::ptr::null();
            // SAFETY: the function writes a text that is valid for ever, or null, to `text`.
            let status = unsafe { get(status, &raw mut text) };
            // SAFETY: not null, so NUL-terminated.
            let known = status == Status::SUCCESS && !text.is_null();
            known.then(|| unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
        };
        match (text(self.error_name), text(self.error_string)) {
            (Some(name), Some(meaning)) => format!("{name} ({meaning})"),
            (Some(name), None) => name,
            _ => format!("CUDA error {}", status.0),
        }
    }
}

/// The driver's version, which must be at least the floor.
fn version(library: &Library) -> Result<u32> {
    let function = library.symbol(c"cuDriverGetVersion").ok_or_else(|| missing(c"cuDriverGetVersion"))?;
    // SAFETY: the function of this name has this parameter.
    let get = unsafe { transmute::<NonNull<c_void>, unsafe extern "C" fn(*mut i32) -> Status>(function) };
    let mut version = 0;
    // SAFETY: writes one integer, and needs no initialization.
    let status = unsafe { get(&raw mut version) };
    if status != Status::SUCCESS {
        return Err(Error::device(format!(
            "libcuda.so.1 is no working CUDA driver (error {}): a toolkit's stub? install NVIDIA's driver 525 or newer, or \
             give --device cpu",
            status.0
        )));
    }
    if version >= DRIVER_FLOOR {
        return Ok(version.unsigned_abs());
    }
    Err(Error::device(format!(
        "the CUDA driver is too old: it supports CUDA {}, {} is needed; install NVIDIA's driver 525 or newer, or give \
         --device cpu",
        version_text(version),
        version_text(DRIVER_FLOOR)
    )))
}

fn version_text(version: i32) -> String {
    format!("{}.{}", version / 1000, version % 1000 / 10)
}

/// The address of a function: from the driver by its plain name and the version of the floor, else
/// from the library by its full name.
fn address(library: &Library, name: &CStr) -> Result<NonNull<c_void>> {
    let asked = library.symbol(c"cuGetProcAddress_v2").and_then(|get| {
        // SAFETY: the function of this name has these parameters.
        ask(unsafe { transmute::<NonNull<c_void>, GetAddress>(get) }, name)
    });
    asked.or_else(|| library.symbol(name)).ok_or_else(|| missing(name))
}

fn ask(get: GetAddress, name: &CStr) -> Option<NonNull<c_void>> {
    let bytes = name.to_bytes();
    let plain = CString::new(bytes.strip_suffix(b"_v2").unwrap_or(bytes)).ok()?;
    let (mut found, mut unused) = (std::ptr::null_mut(), 0);
    // SAFETY: the name is NUL-terminated; the function writes one pointer and one integer.
    let status = unsafe { get(plain.as_ptr(), &raw mut found, DRIVER_FLOOR, 0, &raw mut unused) };
    if status == Status::SUCCESS { NonNull::new(found) } else { None }
}

fn missing(name: &CStr) -> Error {
    Error::device(format!(
        "the CUDA driver lacks {}; install NVIDIA's driver 525 or newer, or give --device cpu",
        name.to_string_lossy()
    ))
}
