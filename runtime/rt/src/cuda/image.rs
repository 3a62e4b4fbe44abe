//! Which of an artifact's GPU codes a device runs.

use std::cmp::Reverse;

/// What form GPU code has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ImageKind {
    /// Machine code.
    Cubin,
    /// Text that the driver compiles.
    Ptx,
}

/// GPU code for one architecture.
#[derive(Clone, Copy, Debug)]
pub struct Image<'a> {
    /// Its form.
    pub kind: ImageKind,
    /// Ten times the major compute capability plus the minor one: 80, 90, 120.
    pub arch: u32,
    /// Whether it runs on exactly this compute capability and no later one (`sm_90a`).
    pub specific: bool,
    /// The code; PTX without a NUL.
    pub bytes: &'a [u8],
}

impl Image<'_> {
    /// Its form and architecture: `cubin sm_90a`, `ptx sm_80`.
    pub fn name(&self) -> String {
        let kind = match self.kind {
            ImageKind::Cubin => "cubin",
            ImageKind::Ptx => "ptx",
        };
        format!("{kind} sm_{}{}", self.arch, if self.specific { "a" } else { "" })
    }

    /// Whether a device of this compute capability runs it.
    fn runs_on(&self, major: u32, minor: u32) -> bool {
        let device = major * 10 + minor;
        match self.kind {
            _ if self.specific => self.arch == device,
            ImageKind::Cubin => self.arch / 10 == major && self.arch <= device,
            ImageKind::Ptx => self.arch <= device,
        }
    }
}

/// Indices of the images that a device of this compute capability runs, best first: machine code
/// before text, then the nearest architecture, then code for exactly this one.
pub fn candidates(major: u32, minor: u32, images: &[Image<'_>]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..images.len()).filter(|i| images[*i].runs_on(major, minor)).collect();
    order.sort_by_key(|i| (images[*i].kind, Reverse(images[*i].arch), !images[*i].specific));
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(kind: ImageKind, arch: u32, specific: bool) -> Image<'static> {
        Image { kind, arch, specific, bytes: b"" }
    }

    fn names(major: u32, minor: u32, images: &[Image<'_>]) -> String {
        let names: Vec<_> = candidates(major, minor, images).into_iter().map(|i| images[i].name()).collect();
        names.join(", ")
    }

    #[test]
    #[rustfmt::skip]
    fn each_device_gets_its_images_in_order() {
        use ImageKind::{Cubin, Ptx};
        let images = [
            image(Ptx, 80, false), image(Cubin, 80, false), image(Cubin, 89, false), image(Cubin, 90, false),
            image(Cubin, 90, true), image(Cubin, 120, false), image(Ptx, 90, true), image(Ptx, 90, false),
        ];
        for (device, expected) in [
            ((7, 5), ""),
            ((8, 0), "cubin sm_80, ptx sm_80"),
            ((8, 6), "cubin sm_80, ptx sm_80"),
            ((8, 9), "cubin sm_89, cubin sm_80, ptx sm_80"),
            ((9, 0), "cubin sm_90a, cubin sm_90, ptx sm_90a, ptx sm_90, ptx sm_80"),
            ((10, 0), "ptx sm_90, ptx sm_80"),
            ((10, 3), "ptx sm_90, ptx sm_80"),
            ((12, 0), "cubin sm_120, ptx sm_90, ptx sm_80"),
            ((12, 1), "cubin sm_120, ptx sm_90, ptx sm_80"),
        ] {
            assert_eq!(names(device.0, device.1, &images), expected, "device {device:?}");
        }
    }

    #[test]
    fn specific_code_alone_runs_on_its_own_device_only() {
        let images = [image(ImageKind::Ptx, 90, true), image(ImageKind::Cubin, 90, true)];
        assert_eq!(names(9, 0, &images), "cubin sm_90a, ptx sm_90a");
        assert_eq!(names(12, 0, &images), "");
        assert_eq!(names(8, 9, &images), "");
    }
}
