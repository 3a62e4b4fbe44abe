//! Code for GPUs in an artifact: images of one or several kinds of the same kernels.
//!
//! A count, then for each image its step, kind, architecture, whether it is for that architecture alone, the
//! shared memory of its blocks, and length, all u64 little-endian; then the images, one after another.

/// What an image is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum DeviceKind {
    /// PTX text, compiled by the driver when it is loaded.
    Ptx = 1,
    /// Machine code.
    Cubin = 2,
}

/// One image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceImage<B> {
    /// Which of the manifest's variants for GPUs it is of, counted from 0.
    pub step: u32,
    /// What it is.
    pub kind: DeviceKind,
    /// Compute capability, major times ten plus minor.
    pub arch: u32,
    /// Whether it runs on exactly that capability alone.
    pub specific: bool,
    /// Dynamic shared memory of a block.
    pub shared_bytes: usize,
    /// The image.
    pub bytes: B,
}

const ENTRY: usize = 6;

/// Images as bytes.
pub fn write<B: AsRef<[u8]>>(images: &[DeviceImage<B>]) -> Vec<u8> {
    let mut words = vec![images.len() as u64];
    for i in images {
        words.extend([
            u64::from(i.step),
            i.kind as u64,
            u64::from(i.arch),
            u64::from(i.specific),
            i.shared_bytes as u64,
            i.bytes.as_ref().len() as u64,
        ]);
    }
    let mut out: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
    images.iter().for_each(|i| out.extend(i.bytes.as_ref()));
    out
}

/// Images from bytes; `None` if they are damaged.
pub fn read(bytes: &[u8]) -> Option<Vec<DeviceImage<&[u8]>>> {
    let word = |i: usize| {
        let at = i.checked_mul(8)?;
        Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
    };
    let count = usize::try_from(word(0)?).ok()?;
    let head = count.checked_mul(ENTRY)?.checked_add(1)?.checked_mul(8)?;
    let mut rest = bytes.get(head..)?;
    let mut images = Vec::new();
    for i in 0..count {
        let field = |k: usize| word(1 + i * ENTRY + k);
        let kind = match field(1)? {
            1 => DeviceKind::Ptx,
            2 => DeviceKind::Cubin,
            _ => return None,
        };
        let (own, after) = rest.split_at_checked(usize::try_from(field(5)?).ok()?)?;
        rest = after;
        let arch = u32::try_from(field(2)?).ok()?;
        let step = u32::try_from(field(0)?).ok()?;
        let shared_bytes = usize::try_from(field(4)?).ok()?;
        images.push(DeviceImage { step, kind, arch, specific: field(3)? != 0, shared_bytes, bytes: own });
    }
    Some(images)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_survive_and_cuts_are_found() {
        let image = |kind, arch, bytes: &[u8]| DeviceImage {
            step: arch,
            kind,
            arch,
            specific: arch == 90,
            shared_bytes: 1024 * arch as usize,
            bytes: bytes.to_vec(),
        };
        let images = [image(DeviceKind::Ptx, 80, b"text"), image(DeviceKind::Cubin, 90, &[])];
        let bytes = write(&images);
        let back = read(&bytes).expect("whole");
        let back: Vec<_> = back
            .into_iter()
            .map(|i| DeviceImage {
                step: i.step,
                kind: i.kind,
                arch: i.arch,
                specific: i.specific,
                shared_bytes: i.shared_bytes,
                bytes: i.bytes.to_vec(),
            })
            .collect();
        assert_eq!(back, images);
        assert!((0..bytes.len()).all(|n| read(&bytes[..n]).is_none()));
    }
}
