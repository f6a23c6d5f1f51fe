//! A toy model made of the kernels in `fixtures/kernels.c`: everything the runtime does, small enough to compute by hand.

use rwkvc_abi::{
    Access, Arg, KernelInfo, Launch, Manifest, ModelInfo, ParamInfo, Probe, Program, ProgramKind, Size,
    StateSlot, TargetInfo, WeightInfo,
};
use rwkvc_runtime::{Buffer, Model, WeightData};

pub(crate) const CODE: &[u8] = include_bytes!("../fixtures/kernels.o");
pub(crate) const WIDTH: usize = 4;
pub(crate) const VOCAB: usize = 5;
pub(crate) const CHUNK: usize = 3;
/// `x` of all tokens, from here on in the arena.
const X: u64 = 64;

pub(crate) const TABLE: [f32; VOCAB * WIDTH] = [
    1., 2., 3., 4., -1., 0., 1., 0., 0.5, 0.5, 0.5, 0.5, 2., -2., 2., -2., 0., 0., 0., 8.,
];
pub(crate) const HEAD: [f32; VOCAB * WIDTH] = [
    1., 0., 0., 0., 0., 1., 0., 0., 0., 0., 1., 0., 1., 1., 1., 1., -1., 2., -3., 4.,
];
pub(crate) const INITIAL: [f32; WIDTH] = [8., 0., -4., 1.];

/// The weights in order.
pub(crate) fn weights() -> [&'static [f32]; 3] {
    [&TABLE, &HEAD, &INITIAL]
}

/// The bytes of a weight.
pub(crate) fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn size(fixed: usize, per_token: usize) -> Size {
    Size {
        fixed: fixed as u64,
        per_token: per_token as u64,
    }
}

fn kernel(symbol: &str, grid: Size, params: &[(Size, Access)]) -> KernelInfo {
    let params = params
        .iter()
        .map(|(bytes, access)| ParamInfo {
            bytes: *bytes,
            access: *access,
        })
        .collect();
    KernelInfo {
        symbol: symbol.into(),
        grid,
        threads: 0,
        params,
    }
}

pub(crate) fn program(kind: ProgramKind, max_tokens: usize) -> Program {
    let launch = |kernel, args: &[Arg], label: &str| Launch {
        kernel,
        args: args.to_vec(),
        weight_bytes: 0,
        skips_zeros: false,
        label: label.into(),
    };
    let head = if kind.has_all_logits() { 3 } else { 2 };
    Program {
        kind,
        max_tokens,
        probes: vec![Probe {
            name: "x".into(),
            offset: X,
            elements: size(0, WIDTH),
        }],
        launches: vec![
            launch(0, &[Arg::Tokens, Arg::Weight(0), Arg::Arena(X)], "embed"),
            launch(1, &[Arg::State(0), Arg::Arena(X)], "mix"),
            launch(head, &[Arg::Weight(1), Arg::Arena(X), Arg::Logits], "head"),
        ],
    }
}

pub(crate) fn manifest() -> Manifest {
    let weight = |name: &str, shape: &[usize]| WeightInfo {
        name: name.into(),
        dtype: "f32".into(),
        shape: shape.into(),
        offset: 0,
        bytes: 0,
    };
    let row = 4 * WIDTH;
    let (table, per_token) = (size(VOCAB * row, 0), size(0, row));
    use Access::{Read, ReadWrite, Write};
    let mut manifest = Manifest {
        format: rwkvc_abi::FORMAT_VERSION,
        producer: "a test".into(),
        model: ModelInfo {
            name: "toy".into(),
            n_layers: 1,
            width: WIDTH,
            head_size: WIDTH,
            vocab: VOCAB,
            ffn: WIDTH,
            parameters: 44,
            dtype: "f32".into(),
            activations: "f32".into(),
            bytes_per_token: 176,
            fingerprint: "0123456789abcdef".into(),
        },
        target: TargetInfo {
            arch: "x86_64".into(),
            extensions: vec!["sse3".into()],
        },
        backend: "gcc".into(),
        passes: vec![],
        schedule: Default::default(),
        kernels: vec![
            kernel(
                "embed",
                size(0, 1),
                &[(size(0, 4), Read), (table, Read), (per_token, Write)],
            ),
            kernel(
                "mix",
                size(WIDTH, 0),
                &[(size(row, 0), ReadWrite), (per_token, ReadWrite)],
            ),
            kernel(
                "last_logits",
                size(VOCAB, 0),
                &[(table, Read), (per_token, Read), (size(4 * VOCAB, 0), Write)],
            ),
            kernel(
                "all_logits",
                size(0, VOCAB),
                &[(table, Read), (per_token, Read), (size(0, 4 * VOCAB), Write)],
            ),
        ],
        weights: vec![
            weight("table", &[VOCAB, WIDTH]),
            weight("head", &[VOCAB, WIDTH]),
            weight("initial", &[WIDTH]),
        ],
        state: vec![StateSlot {
            name: "memory".into(),
            shape: vec![WIDTH],
            offset: 0,
            init: Some(2),
        }],
        arena_bytes: X + (CHUNK * row) as u64,
        programs: vec![
            program(ProgramKind::Decode, 1),
            program(ProgramKind::Prefill, CHUNK),
            program(ProgramKind::Score, CHUNK),
        ],
    };
    manifest.place_weights().expect("good weights");
    manifest
}

pub(crate) fn data() -> Vec<WeightData> {
    weights()
        .iter()
        .map(|w| Buffer::copy_of(&bytes(w)).expect("memory").into())
        .collect()
}

pub(crate) fn model() -> Model {
    Model::from_parts(manifest(), CODE, data()).expect("the toy model loads")
}

/// What the model computes: the state after one more token, and the logits.
pub(crate) fn reference(state: &mut [f32], token: u32) -> Vec<f32> {
    let x = &TABLE[token as usize * WIDTH..][..WIDTH];
    state.iter_mut().zip(x).for_each(|(s, x)| *s = *s * 0.5 + x);
    HEAD.chunks(WIDTH)
        .map(|row| row.iter().zip(&*state).fold(0.0, |sum, (a, b)| sum + a * b))
        .collect()
}
