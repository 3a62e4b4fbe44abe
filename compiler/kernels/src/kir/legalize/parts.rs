//! A vector as a list of equal parts, lower lanes first: cutting, joining and picking lanes.

use crate::kir::func::Val;
use crate::kir::{Builder, Ty};

/// The same lanes in `count` parts of equal size.
pub(super) fn regroup(b: &mut Builder, parts: &[Val], count: usize) -> Vec<Val> {
    let mut parts = parts.to_vec();
    while parts.len() < count {
        parts = parts.iter().flat_map(|p| halves(b, *p)).collect();
    }
    while parts.len() > count {
        parts = parts.chunks(2).map(|pair| join(b, pair[0], pair[1])).collect();
    }
    parts
}

fn halves(b: &mut Builder, v: Val) -> [Val; 2] {
    let lanes = b.ty(v).lanes;
    assert!(lanes > 1, "a scalar has no halves");
    if lanes == 2 {
        return [b.extract(v, 0), b.extract(v, 1)];
    }
    let half = lanes / 2;
    [b.shuffle(v, v, (0..half).collect()), b.shuffle(v, v, (half..lanes).collect())]
}

fn join(b: &mut Builder, low: Val, high: Val) -> Val {
    let lanes = b.ty(low).lanes;
    if lanes == 1 {
        return from_lanes(b, &[low, high]);
    }
    b.shuffle(low, high, (0..2 * lanes).collect())
}

/// A vector of these scalars.
pub(super) fn from_lanes(b: &mut Builder, scalars: &[Val]) -> Val {
    let first = b.splat(scalars[0], scalars.len() as u16);
    (1u16..).zip(&scalars[1..]).fold(first, |v, (lane, scalar)| b.insert(v, lane, *scalar))
}

/// A vector of type `ty` whose lanes are picked from all lanes of `parts`; it has at most as many
/// lanes as a part.
pub(super) fn pick(b: &mut Builder, parts: &[Val], lanes: &[u16], ty: Ty) -> Val {
    let width = b.ty(parts[0]).lanes;
    if width == 1 {
        return parts[usize::from(lanes[0])];
    }
    let mut sources: Vec<u16> = lanes.iter().map(|l| l / width).collect();
    sources.sort_unstable();
    sources.dedup();
    if let [one] = sources[..]
        && ty.lanes == width
        && lanes.iter().enumerate().all(|(i, l)| usize::from(l % width) == i)
    {
        return parts[usize::from(one)];
    }
    pick_from(b, parts, &sources, lanes)
}

/// Merges one source part after the other into `gathered`, which holds the lanes found so far in
/// their final places.
fn pick_from(b: &mut Builder, parts: &[Val], sources: &[u16], lanes: &[u16]) -> Val {
    let width = b.ty(parts[0]).lanes;
    let part = |s: u16| parts[usize::from(s)];
    let in_first = |l: u16, s: u16| if l / width == s { Some(l % width) } else { None };
    let first = sources[0];
    let second = sources.get(1).copied().unwrap_or(first);
    let mut list: Vec<u16> =
        lanes.iter().map(|l| in_first(*l, first).or(in_first(*l, second).map(|l| l + width)).unwrap_or(0)).collect();
    let (mut low, mut high) = (part(first), part(second));
    for source in sources.iter().skip(2) {
        list.resize(usize::from(width), 0);
        low = b.shuffle(low, high, list);
        high = part(*source);
        list = (0u16..).zip(lanes).map(|(i, l)| in_first(*l, *source).map_or(i, |l| l + width)).collect();
    }
    b.shuffle(low, high, list)
}
