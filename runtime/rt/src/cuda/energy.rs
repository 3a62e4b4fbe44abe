//! Joules used by a GPU, from NVML where it is installed. Its absence is no error.

use std::ffi::{CStr, CString, c_char, c_void};
use std::mem::transmute;
use std::ptr::NonNull;

use super::info::GpuInfo;
use super::library::Library;

const NAMES: [&CStr; 4] = [
    c"libnvidia-ml.so.1",
    c"/usr/local/nvidia/lib64/libnvidia-ml.so.1",
    c"/usr/lib/wsl/lib/libnvidia-ml.so.1",
    c"/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1",
];
/// `NVML_SUCCESS`.
const SUCCESS: i32 = 0;

type Plain = unsafe extern "C" fn() -> i32;
type ByBus = unsafe extern "C" fn(*const c_char, *mut *mut c_void) -> i32;
type Energy = unsafe extern "C" fn(*mut c_void, *mut u64) -> i32;

/// The energy counter of one GPU.
pub struct Meter {
    /// Ends what [`Session`] began; dropped last.
    _session: Session,
    device: *mut c_void,
    energy: Energy,
}

impl Meter {
    /// The counter of a GPU, which is found by its PCI address: NVML counts devices that CUDA hides.
    /// None where NVML or the counter is absent.
    pub fn of(gpu: &GpuInfo) -> Option<Self> {
        let library = Library::open(&NAMES).ok()?;
        let session = Session::begin(&library)?;
        // SAFETY: the functions of these names have these parameters.
        let (find, energy) = unsafe {
            (
                transmute::<NonNull<c_void>, ByBus>(library.symbol(c"nvmlDeviceGetHandleByPciBusId_v2")?),
                transmute::<NonNull<c_void>, Energy>(library.symbol(c"nvmlDeviceGetTotalEnergyConsumption")?),
            )
        };
        let (bus, mut device) = (CString::new(gpu.bus.as_str()).ok()?, std::ptr::null_mut());
        // SAFETY: the address is NUL-terminated; writes one handle.
        let found = unsafe { find(bus.as_ptr(), &raw mut device) } == SUCCESS;
        let meter = Self { _session: session, device, energy };
        (found && meter.joules().is_some()).then_some(meter)
    }

    /// Joules used since the driver was loaded, to a millijoule.
    pub fn joules(&self) -> Option<f64> {
        let mut millijoules = 0;
        // SAFETY: the handle is valid while the session lasts; writes one number.
        let status = unsafe { (self.energy)(self.device, &raw mut millijoules) };
        (status == SUCCESS).then_some(millijoules as f64 / 1e3)
    }
}

/// NVML initialized; undone on drop.
struct Session {
    end: Plain,
}

impl Session {
    fn begin(library: &Library) -> Option<Self> {
        // SAFETY: the functions of these names take nothing.
        let (begin, end) = unsafe {
            (
                transmute::<NonNull<c_void>, Plain>(library.symbol(c"nvmlInit_v2")?),
                transmute::<NonNull<c_void>, Plain>(library.symbol(c"nvmlShutdown")?),
            )
        };
        // SAFETY: may be called any number of times, each undone once.
        (unsafe { begin() } == SUCCESS).then_some(Self { end })
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // SAFETY: undoes the one initialization of `begin`.
        unsafe {
            (self.end)();
        }
    }
}
