//! What `rwkvc bench` and `rwkvc verify` do on a GPU, done on a device of fibers.
#![cfg(feature = "llvm")]

use std::sync::Arc;

use rwkvc::measure::gpu::{Workload, measure};
use rwkvc::values::{Values, compare};
use rwkvc_abi::ProgramKind;
use rwkvc_backend_api::Target;
use rwkvc_frontend::generate::GenerateOptions;
use rwkvc_frontend::model::Model;
use rwkvc_ir::DType;
use rwkvc_passes::pipeline::Selection;
use rwkvc_runtime::gpu::Mode;
use rwkvc_tests::fibers::on_fibers;
use rwkvc_tests::{fixtures, random};

fn target() -> Target {
    Target::parse("cuda").expect("a target")
}

fn small() -> Arc<Model> {
    fixtures::open_bytes(&random::file(&GenerateOptions {
        n_layers: 2,
        width: 64,
        head_size: 64,
        ffn: 128,
        vocab: 96,
        ranks: [16, 16, 16, 16],
        dtype: DType::BF16,
        seed: 5,
        layer0_value_gate: false,
        has_ln0: true,
        zero_share: None,
    }))
}

#[test]
fn every_way_gives_what_the_reference_gives() {
    let (small, tokens) = (small(), [3, 70, 3, 95, 0]);
    let reference = Values::reference(&small, &tokens).expect("it is evaluated");
    for passes in [Selection::all(), Selection::unfused()] {
        let (model, _device) = on_fibers(&small, &target(), passes, true, |code| code).expect("a model");
        for mode in [Mode::Launches, Mode::Graph, Mode::Persistent] {
            for program in rwkvc::compile::PROGRAMS {
                let expected = reference.expected_of(program, tokens.len());
                let found = Values::of_gpu(&model, mode, program, &tokens).expect("it runs");
                for (name, d) in compare(&expected, &found).expect("all values") {
                    assert!(
                        d.difference <= 3e-6 * d.largest,
                        "{mode:?} {program}: {name} {d:?}"
                    );
                }
            }
        }
    }
    let mut wrong = reference.clone();
    wrong.0[0].1[0] += 1.0;
    let distances = compare(&reference, &wrong).expect("all values");
    assert!(distances[0].1.difference > 0.9);
    wrong.0.remove(0);
    assert!(compare(&reference, &wrong).is_err(), "one is missing");
}

#[test]
fn every_way_is_measured() {
    let (model, device) =
        on_fibers(&small(), &target(), Selection::all(), false, |code| code).expect("a model");
    let before = device.handed_out();
    let work = Workload {
        modes: vec![Mode::Launches, Mode::Graph, Mode::Persistent],
        decode: 1,
        batches: vec![1, 2],
        prefills: vec![3],
        samples: 1,
    };
    // A model beside itself.
    let mut all = measure(&[&model, &model], &work).expect("it is measured");
    let (found, other) = (all.remove(0), all.remove(0));
    assert_eq!(found.rows.len(), other.rows.len());
    let ways: Vec<_> = found.rows.iter().map(|r| (r.mode, r.what, r.tokens)).collect();
    let expected: Vec<_> = ["launches", "graph", "persistent"]
        .into_iter()
        .flat_map(|mode| {
            [
                (mode, ProgramKind::Decode, 1),
                (mode, ProgramKind::Sample, 1),
                (mode, ProgramKind::Prefill, 3),
                (mode, ProgramKind::Batch, 1),
                (mode, ProgramKind::Batch, 2),
            ]
        })
        .collect();
    assert_eq!(ways, expected);
    for row in &found.rows {
        assert!(row.tokens_per_s.min > 0.0 && row.ms > 0.0, "{row:?}");
        assert_eq!(
            row.copy_share.is_some(),
            row.what != ProgramKind::Prefill,
            "{row:?}"
        );
        let rate = row.tokens as f64 * 1e3 / row.ms;
        assert!((rate - row.tokens_per_s.median).abs() < 1e-6 * rate, "{row:?}");
    }
    assert!(found.copy_gb_s.min > 0.0);
    let calls: usize = found.kernels.iter().map(|k| k.calls).sum();
    let bytes: u64 = found.kernels.iter().map(|k| k.bytes).sum();
    assert_eq!((calls, bytes), (found.launches, found.bytes_per_token));
    let shares: f64 = found.kernels.iter().map(|k| k.share_of_step).sum();
    assert!((shares - 1.0).abs() < 1e-9, "{shares}");
    assert_eq!(device.handed_out(), before, "everything is given back");

    let work = Workload {
        batches: vec![257],
        ..work
    };
    let error = measure(&[&model], &work)
        .expect_err("more than there is room for")
        .to_string();
    assert_eq!(error, "the batch is full: it was compiled for 256 states");
    assert!(measure(&[], &work).is_err(), "there is no model");
}
