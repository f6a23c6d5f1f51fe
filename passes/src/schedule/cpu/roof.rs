//! The roofs: a kernel that only reads and one that only multiplies and adds, to measure what each costs at best.

use rwkvc_backend_api::CpuFeatures;
use rwkvc_ir::DType;
use rwkvc_ir::kernel::builder::Builder;
use rwkvc_ir::kernel::{Access, Binary, Extent, Inst, Kernel, Reg};

use super::at;

/// How many values ahead each stream is prefetched: 512 bytes.
const PREFETCH: i64 = 128;

/// What streams are apart beyond their length, in values: lines at distances of a multiple of 4 KiB get into each other's
/// way in the caches.
const SKEW: i64 = 272;

/// f32 values that a task reads of each stream.
const CHUNK: i64 = 4096;

/// Adds up `tasks * 16384` f32 values in four concurrent streams about a quarter apart, which is the fastest way to read
/// memory, with or without asking for lines ahead; one partial sum a task. Parameters: the values, the sums `[tasks]`.
pub fn roof_kernel(tasks: i64, prefetch: bool, features: &CpuFeatures) -> Kernel {
    let lanes = features.f32_lanes;
    let quarter = tasks * CHUNK + SKEW;
    let mut b = Builder::new(if prefetch { "roof_prefetched" } else { "roof" });
    let x = b.param("x", DType::F32, Extent::fixed(4 * quarter), Access::Read);
    let y = b.param("y", DType::F32, Extent::fixed(tasks), Access::Write);
    b.parallel("task", Extent::fixed(tasks), |b, task| {
        let zero = b.float(0.0, lanes);
        let sums: Vec<Reg> = (0..4).map(|_| b.var("sum", zero)).collect();
        b.for_loop(
            rwkvc_ir::kernel::LoopKind::Serial,
            "i",
            0,
            CHUNK,
            i64::from(lanes),
            |b, i| {
                for (stream, &sum) in (0..).zip(&sums) {
                    if prefetch {
                        b.prefetch(x, at(task, CHUNK) + i + (stream * quarter + PREFETCH));
                    }
                    let value = b.load("x", x, at(task, CHUNK) + i + stream * quarter, lanes);
                    b.set(sum, Inst::Binary(Binary::Add, value, sum));
                }
            },
        );
        let (a, c) = (b.add(sums[0], sums[1]), b.add(sums[2], sums[3]));
        let sum = b.add(a, c);
        let sum = b.reduce_add(sum);
        b.store(y, task, sum);
    });
    b.finish()
}

/// Sums of a task of [`peak_kernel`]: enough to keep the units busy that have begun a product and not ended it.
const SUMS: i64 = 12;

/// Products that a task of [`peak_kernel`] adds to each sum.
const PRODUCTS: i64 = 8192;

/// Operations of a task of [`peak_kernel`] for each lane of the target's vectors: products and sums count one each.
pub const PEAK_FLOPS_OF_A_LANE: i64 = 2 * SUMS * PRODUCTS;

/// The arithmetic roof: products and sums of registers in as many lanes as the target has. Parameter: a result of each task
/// `[tasks]`.
pub fn peak_kernel(tasks: i64, features: &CpuFeatures) -> Kernel {
    let lanes = features.f32_lanes;
    let mut b = Builder::new("peak");
    let y = b.param("y", DType::F32, Extent::fixed(tasks), Access::Write);
    b.parallel("task", Extent::fixed(tasks), |b, task| {
        // The sums tend to 2.
        let (half, one) = (b.float(0.5, lanes), b.float(1.0, lanes));
        let sums: Vec<Reg> = (0..SUMS).map(|_| b.var("sum", one)).collect();
        b.serial("i", 0, PRODUCTS, |b, _| {
            for &sum in &sums {
                b.set(sum, Inst::Fma(sum, half, one));
            }
        });
        let sum = sums[1..].iter().fold(sums[0], |a, &c| b.add(a, c));
        let sum = b.reduce_add(sum);
        b.store(y, task, sum);
    });
    b.finish()
}
