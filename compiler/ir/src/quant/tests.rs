//! Tests of all schemes together.

use super::testing::{ALL, Random, normal, sqnr};
use super::*;
use std::time::Instant;

/// SQNR of encoding and decoding.
fn fidelity(scheme: Scheme, x: &[f32], k: usize) -> f64 {
    sqnr(x, &scheme.encode(x, k).decode())
}

/// The scheme of this name.
fn named(name: &str) -> Scheme {
    Scheme::from_name(name).unwrap()
}

#[test]
fn normal_weights_keep_their_fidelity() {
    // Bars are 0.1 dB below what was measured.
    for (name, bar_1024, bar_4096) in [
        ("w8(32)", 46.2, 46.2),
        ("w8(128)", 44.0, 44.0),
        ("w8a8", 42.0, 41.2),
        ("w6", 33.96, 33.96),
        ("w5", 27.83, 27.85),
        ("w4", 22.43, 22.41),
        ("w3", 15.64, 15.69),
        ("w2", 9.49, 9.49),
        ("int4(32)", 21.73, 21.73),
        ("int4(128)", 20.2, 20.2),
        ("int4_asym(128)", 20.37, 20.37),
        ("nf4(64)", 21.3, 21.3),
        ("fp8", 31.85, 31.6),
    ] {
        for (k, bar) in [(1024, bar_1024), (4096, bar_4096)] {
            let db = fidelity(named(name), &normal(k as u64, 64 * k), k);
            assert!(db >= bar, "{name}, k = {k}: {db:.3} dB, expected {bar}");
        }
    }
    assert!(Scheme::W4.bits_per_weight(1024) <= 4.18);
}

/// Least squared error of `x` over many steps on the grid of codes `lo..=hi`.
fn brute_force(scheme: Scheme, x: &[f32], lo: i32, hi: i32, signs: &[f64]) -> f64 {
    let (mul, offset) = scheme.grid_params();
    let (mul, offset) = (f64::from(mul), f64::from(offset));
    let largest = f64::from(store::absmax(x));
    let end = mul * f64::from(hi) - offset;
    let error = |step: f64| -> f64 {
        let code = |v: f64| ((v / step + offset) / mul).round().clamp(f64::from(lo), f64::from(hi));
        x.iter().map(|&v| f64::from(v)).map(|v| (v - (mul * code(v) - offset) * step).powi(2)).sum()
    };
    let steps = (0..400).map(|i| largest / (end * (0.6 + 0.0025 * f64::from(i)) + 0.1));
    steps.flat_map(|s| signs.iter().map(move |g| g * s)).map(error).fold(f64::INFINITY, f64::min)
}

#[test]
fn scales_are_nearly_optimal() {
    let both = &[1.0, -1.0];
    for (name, lo, hi, k, signs) in [
        ("w8(32)", 1, 255, 32, &[1.0][..]),
        ("w8a8", 1, 255, 1024, &[1.0]),
        ("w8a8", 1, 255, 4096, &[1.0]),
        ("w6", 0, 63, 32, both),
        ("w5", 0, 31, 32, both),
        ("w3", 0, 7, 32, both),
        ("w2", 0, 3, 32, both),
        ("int4(32)", 0, 15, 32, both),
    ] {
        // Enough groups that the choice of one does not decide, in rows of 1024 at least.
        let x = normal(3, 32 * 1024.max(k));
        let signal: f64 = x.iter().map(|&v| f64::from(v).powi(2)).sum();
        let least: f64 = x.chunks(k).map(|x| brute_force(named(name), x, lo, hi, signs)).sum();
        let (best, db) = (10.0 * libm::log10(signal / least), fidelity(named(name), &x, k.max(1024)));
        // A group of 8-bit codes has many local optima, and its search stops at some; with 6-bit codes
        // the integer scales lie between them.
        let slack = match name {
            "w8(32)" => 0.35,
            "w6" => 0.15,
            _ => 0.1,
        };
        assert!(db > best - slack, "{name}: {db:.3} dB, brute force {best:.3}");
    }
}

#[test]
fn fp8_scales_are_nearly_optimal() {
    for k in [1024, 4096] {
        let x = normal(4, 16 * k);
        let mut least = 0.0;
        for row in x.chunks(k) {
            let largest = store::absmax(row);
            let at = |i: u16| fp8::error(row, largest / (200.0 + 2.0 * f32::from(i)), f32::INFINITY);
            least += f64::from((0..140).map(at).fold(f32::INFINITY, f32::min));
        }
        let signal: f64 = x.iter().map(|&v| f64::from(v).powi(2)).sum();
        let (best, db) = (10.0 * libm::log10(signal / least), fidelity(Scheme::Fp8, &x, k));
        assert!(db > best - 0.1, "{db:.3} dB, brute force {best:.3}");
    }
}

#[test]
fn heavy_tails_and_outliers_are_covered() {
    let mut random = Random(6);
    let heavy: Vec<f32> = (0..64 * 2048).map(|_| (random.student5() * 0.02) as f32).collect();
    assert!(fidelity(Scheme::W4, &heavy, 2048) > 20.3);
    let mut x = normal(7, 8 * 1024);
    x[5000] = 3.0;
    for scheme in ALL {
        let y = scheme.encode(&x, 1024).decode();
        assert!((y[5000] - 3.0).abs() < 0.1, "{scheme}: {}", y[5000]);
    }
}

#[test]
fn encoding_decoded_values_changes_little() {
    let x = normal(8, 16 * 1024);
    for scheme in ALL {
        let once = scheme.encode(&x, 1024).decode();
        let again = fidelity(scheme, &once, 1024);
        // Two-level and table schemes settle their row scales anew; w4 and int4_asym only search nearby.
        let bar = match scheme {
            Scheme::W8 { .. } | Scheme::W8A8 | Scheme::Int4 { .. } => 60.0,
            Scheme::W6 | Scheme::W5 | Scheme::W3 | Scheme::W2 => 45.0,
            _ => fidelity(scheme, &x, 1024),
        };
        assert!(again > bar, "{scheme}: {again:.2} dB, expected {bar:.2}");
    }
}

/// Every value by the formula of the scheme, from the definitions of the number formats.
fn by_formula(e: &Encoded) -> Vec<f32> {
    let f16 = |bits: u16| half::f16::from_bits(bits).to_f32();
    let two_level = |r: usize, group: usize| {
        let g = i32::from(e.group_scales[group]);
        e.row_scales[r] * (if g < 128 { g } else { g - 256 }) as f32
    };
    let tiles = e.k.div_ceil(8);
    let value = |i: usize| {
        let (r, c, code) = (i / e.k, i % e.k, e.codes[i]);
        let group = e.scheme.group().map_or(0, |g| r * e.k.div_ceil(g) + c / g);
        let int = f32::from(code);
        match e.scheme {
            Scheme::W8 { .. } => (int - 128.0) * f16(e.group_scales[group]),
            Scheme::Int4 { .. } => (int - 8.0) * f16(e.group_scales[group]),
            Scheme::Int4Asym { .. } => (int - f32::from(e.zeros[group])) * f16(e.group_scales[group]),
            Scheme::Nf4 { .. } => NF4_LEVELS[usize::from(code)] * f16(e.group_scales[group]),
            Scheme::W8A8 => (int - 128.0) * e.row_scales[r],
            Scheme::W6 => two_level(r, group) * (int - 32.0),
            Scheme::W5 => two_level(r, group) * (int - 16.0),
            Scheme::W3 => two_level(r, group) * (int - 4.0),
            Scheme::W2 => two_level(r, group) * (int - 2.0),
            Scheme::W4 => {
                let j = usize::from(e.tables[r / 4 * tiles + c / 8]);
                e.row_scales[r] * f32::from(TABLE[j][usize::from(code)])
            }
            Scheme::Fp8 => {
                let (sign, exponent, mantissa) = (code >> 7, i32::from(code >> 3 & 15), f64::from(code & 7));
                let magnitude = if exponent == 0 {
                    mantissa / 8.0 * libm::exp2(-6.0)
                } else {
                    (1.0 + mantissa / 8.0) * libm::exp2(f64::from(exponent - 7))
                };
                (if sign == 1 { -magnitude } else { magnitude }) as f32 * e.row_scales[r]
            }
        }
    };
    (0..e.codes.len()).map(value).collect()
}

/// Asserts that the fields have the documented sizes and ranges and decode to finite values.
fn check(e: &Encoded, n: usize, k: usize) {
    let (scheme, groups) = (e.scheme, n * e.scheme.groups(k));
    let has = |yes: bool, len: usize| if yes { len } else { 0 };
    let per_row = scheme.group().is_none() || matches!(scheme, Scheme::W6 | Scheme::W5 | Scheme::W3 | Scheme::W2);
    let asym = matches!(scheme, Scheme::Int4Asym { .. });
    assert_eq!((e.rows, e.k, e.codes.len(), e.group_scales.len()), (n, k, n * k, groups), "{scheme}");
    assert_eq!(e.zeros.len(), has(asym, groups), "{scheme}");
    assert_eq!(e.row_scales.len(), has(per_row, n), "{scheme}");
    assert_eq!(e.tables.len(), has(scheme == Scheme::W4, n / 4 * k.div_ceil(8)), "{scheme}");
    assert!(e.codes.iter().all(|&c| u32::from(c) < 1 << scheme.code_bits()), "{scheme}");
    if matches!(scheme, Scheme::W8 { .. } | Scheme::W8A8) {
        assert!(e.codes.iter().all(|&c| c != 0), "{scheme}");
    }
    if per_row && !matches!(scheme, Scheme::W8A8 | Scheme::Fp8) {
        assert!(e.group_scales.iter().all(|&g| g <= 255 && g != 128), "{scheme}");
        let exact = |s: f32| half::f16::from_f32(s).to_f32() == s && s >= 0.0;
        assert!(e.row_scales.iter().all(|&s| exact(s)), "{scheme}");
    }
    assert!(e.zeros.iter().all(|&z| z < 16) && e.tables.iter().all(|&j| j < 32), "{scheme}");
    let (y, formula) = (e.decode(), by_formula(e));
    assert!(y.iter().all(|v| v.is_finite()), "{scheme}");
    assert!(y.iter().zip(&formula).all(|(a, b)| a.to_bits() == b.to_bits()), "{scheme}");
}

#[test]
fn shapes_and_values_are_as_documented() {
    for k in [1, 7, 8, 31, 32, 33, 100, 129, 256] {
        let x = normal(k as u64, 8 * k);
        for scheme in ALL {
            check(&scheme.encode(&x, k), 8, k);
        }
    }
    for scheme in ALL {
        check(&scheme.encode(&[], 5), 0, 5);
        assert!(scheme.encode(&[], 0).decode().is_empty());
    }
}

#[test]
fn degenerate_weights_decode_to_finite_values() {
    let k = 150;
    let spoilers: [&[f32]; 9] = [
        &[3.4e38],
        &[f32::MAX, -f32::MAX],
        &[f32::NAN],
        &[f32::INFINITY, f32::NEG_INFINITY, f32::NAN],
        &[1e-42],
        &[1e9, -1e9, 1e-9],
        &[7e4],
        &[6e-8, -3e-8],
        &[-0.0],
    ];
    for background in [0.0, 1e-45, 1e-30, 2e-8, 0.02, 1e5, 1e30] {
        for spoiler in spoilers {
            let mut x: Vec<f32> = normal(11, 4 * k).iter().map(|v| v * 50.0 * background).collect();
            spoiler.iter().enumerate().for_each(|(i, &v)| x[k + 40 + 7 * i] = v);
            for scheme in ALL {
                check(&scheme.encode(&x, k), 4, k);
            }
        }
    }
}

#[test]
fn zeros_are_exact() {
    let k = 256;
    let mut x = normal(12, 4 * k);
    x[k..2 * k].fill(0.0);
    x[2 * k + 128..3 * k].fill(0.0);
    for scheme in ALL {
        assert!(scheme.encode(&vec![0.0; 4 * k], k).decode().iter().all(|&v| v == 0.0), "{scheme}");
        let y = scheme.encode(&x, k).decode();
        assert!(y[k..2 * k].iter().all(|&v| v == 0.0), "{scheme}");
        assert!(y[2 * k + 128..3 * k].iter().all(|&v| v == 0.0), "{scheme}");
    }
}

#[test]
fn row_scales_in_f32_keep_any_magnitude() {
    for scale in [1e-37f32, 1e-20, 1e20, 1e36] {
        let x: Vec<f32> = normal(13, 4 * 512).iter().map(|v| v * scale).collect();
        assert!(fidelity(Scheme::W8A8, &x, 512) > 42.0, "{scale}");
        assert!(fidelity(Scheme::Fp8, &x, 512) > 31.0, "{scale}");
    }
}

#[test]
fn small_weights_lose_little_to_binary16() {
    let x = normal(15, 16 * 1024);
    for (factor, loss) in [(0.05f32, 0.12), (0.01, 0.8)] {
        let small: Vec<f32> = x.iter().map(|v| v * factor).collect();
        for scheme in ALL {
            let (db, full) = (fidelity(scheme, &small, 1024), fidelity(scheme, &x, 1024));
            assert!(db > full - loss, "{scheme}, times {factor}: {db:.3} dB, unscaled {full:.3}");
        }
    }
}

#[test]
fn every_machine_encodes_the_same_bits() {
    let x = normal(16, 8 * 500);
    let mut hash = 0xCBF2_9CE4_8422_2325u64;
    let mut add = |v: u32| hash = (hash ^ u64::from(v)).wrapping_mul(0x0100_0000_01B3);
    for e in ALL.map(|scheme| scheme.encode(&x, 500)) {
        e.codes.iter().chain(&e.zeros).chain(&e.tables).for_each(|&v| add(u32::from(v)));
        e.group_scales.iter().for_each(|&v| add(u32::from(v)));
        e.row_scales.iter().for_each(|&v| add(v.to_bits()));
    }
    assert_eq!(hash, 8_123_578_032_967_983_962, "the encoders changed, or this machine computes otherwise");
}

#[test]
fn rows_do_not_depend_on_their_neighbours() {
    let x = normal(14, 8 * 512);
    for scheme in ALL {
        let (all, half) = (scheme.encode(&x, 512), scheme.encode(&x[4 * 512..], 512));
        assert_eq!(all.codes[4 * 512..], half.codes, "{scheme}");
    }
}

#[test]
#[should_panic(expected = "6 rows of w4")]
fn w4_takes_rows_by_four() {
    Scheme::W4.encode(&[0.0; 6], 1);
}

/// How long a call takes.
fn seconds(call: impl FnOnce()) -> f64 {
    let start = Instant::now();
    call();
    start.elapsed().as_secs_f64()
}

/// Prints fidelity and speed of every scheme.
#[test]
#[ignore = "a measurement: run with --release --nocapture"]
fn measure() {
    let mut random = Random(9);
    for k in [1024, 4096] {
        let x = normal(1, 256 * k);
        let heavy: Vec<f32> = (0..256 * k).map(|_| (random.student5() * 0.02) as f32).collect();
        for scheme in ALL {
            let y = scheme.encode(&x, k).decode();
            let seconds = (0..5).map(|_| seconds(|| drop(scheme.encode(&x, k)))).fold(f64::INFINITY, f64::min);
            let speed = x.len() as f64 / seconds / 1e6;
            let (bits, t5) = (scheme.bits_per_weight(k), fidelity(scheme, &heavy, k));
            println!("{k} {scheme:14} {bits:7.4} bits {:6.2} dB, t5 {t5:6.2} dB, {speed:6.1} M/s", sqnr(&x, &y));
        }
    }
}
