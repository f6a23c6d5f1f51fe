//! The tracker model keeps its accuracy however long the sequence is, in constant memory: five cups, each with an item,
//! are swapped again and again, and asked for.

use std::cell::Cell;
use std::path::Path;

use rwkvc::backends;
use rwkvc::compile::Options;
use rwkvc::engine;
use rwkvc_backend_api::Target;
use rwkvc_passes::pipeline::Selection;
use rwkvc_runtime::WorkspaceOptions;
use rwkvc_runtime::manifest::ProgramKind;

/// Counts what each thread allocates.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl std::alloc::GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: std::alloc::Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { std::alloc::System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: std::alloc::Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { std::alloc::System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A small generator of numbers, the same at every run.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }
}

const PAIRS: [(usize, usize); 10] = [
    (0, 1),
    (0, 2),
    (0, 3),
    (0, 4),
    (1, 2),
    (1, 3),
    (1, 4),
    (2, 3),
    (2, 4),
    (3, 4),
];

/// Tokens of a game with so many swaps, and where which answer is due.
fn game(swaps: usize, random: &mut Random) -> (Vec<u32>, Vec<(usize, u32)>) {
    let shuffled = |random: &mut Random| {
        let mut items = [0, 1, 2, 3, 4];
        for i in (1..5).rev() {
            items.swap(i, random.below(i + 1));
        }
        items
    };
    let mut cups = shuffled(random);
    let mut tokens = vec![0];
    for cup in shuffled(random) {
        tokens.push((1 + 5 * cup + cups[cup]) as u32);
    }
    let mut answers = vec![];
    for step in 0..=swaps {
        while random.below(10) < 4 {
            let cup = random.below(5);
            answers.push((tokens.len(), (31 + cups[cup]) as u32));
            tokens.extend([(26 + cup) as u32, (31 + cups[cup]) as u32]);
        }
        if step < swaps {
            let pair = random.below(PAIRS.len());
            cups.swap(PAIRS[pair].0, PAIRS[pair].1);
            tokens.extend((0..6).map(|phase| (36 + 6 * pair + phase) as u32));
        }
    }
    (tokens, answers)
}

#[test]
fn every_answer_is_right_at_every_length_without_an_allocation() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/tracker.pth");
    let checkpoint = engine::open_checkpoint(&path).expect("the model opens");
    let mut options = Options {
        backend: backends::all()[0],
        target: Target::host(),
        passes: Selection::all(),
        fuel: None,
        programs: vec![ProgramKind::Decode],
        probes: false,
        after_pass: &mut |_, _| {},
    };
    let model = engine::load(&checkpoint, &mut options).expect("the model compiles");
    let mut workspace = model
        .workspace(&WorkspaceOptions {
            threads: 1,
            pin: false,
        })
        .expect("memory");
    let mut random = Random(1);
    for swaps in [4, 16, 64, 128, 256, 512, 1024] {
        let games = (2048 / swaps).clamp(2, 40);
        let (mut right, mut asked) = (0, 0);
        for _ in 0..games {
            let (tokens, answers) = game(swaps, &mut random);
            let mut state = model.new_state().expect("memory");
            let mut next = answers.iter().peekable();
            let before = ALLOCATIONS.get();
            for (position, &token) in tokens.iter().enumerate() {
                let logits = model.step(&mut workspace, &mut state, token).expect("a step");
                if let Some(&&(at, answer)) = next.peek()
                    && at == position
                {
                    let best = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b]));
                    right += usize::from(best == Some(answer as usize));
                    asked += 1;
                    next.next();
                }
            }
            assert_eq!(ALLOCATIONS.get(), before, "steps allocate");
        }
        assert!(asked > 10, "{swaps} swaps: only {asked} questions");
        assert_eq!(right, asked, "{swaps} swaps");
    }
}

#[test]
fn the_long_run_ends_as_in_the_official_package() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    let golden = std::fs::read(folder.join("tracker-long.safetensors")).expect("the fixture is there");
    let golden = safetensors::SafeTensors::deserialize(&golden).expect("a sound file");
    let numbers = |name: &str| -> Vec<i64> {
        let tensor = golden.tensor(name).expect("the golden is there");
        match tensor.dtype() {
            safetensors::Dtype::I64 => tensor
                .data()
                .as_chunks::<8>()
                .0
                .iter()
                .map(|b| i64::from_le_bytes(*b))
                .collect(),
            _ => tensor
                .data()
                .as_chunks::<4>()
                .0
                .iter()
                .map(|b| i32::from_le_bytes(*b).into())
                .collect(),
        }
    };
    let tokens: Vec<u32> = numbers("tokens").into_iter().map(|t| t as u32).collect();
    let expected = numbers("predicted");
    let checkpoint = engine::open_checkpoint(&folder.join("tracker.pth")).expect("the model opens");
    for backend in backends::all() {
        let mut options = Options {
            backend,
            target: Target::host(),
            passes: Selection::all(),
            fuel: None,
            programs: vec![ProgramKind::Score],
            probes: false,
            after_pass: &mut |_, _| {},
        };
        let model = engine::load(&checkpoint, &mut options).expect("the model compiles");
        let mut workspace = model
            .workspace(&WorkspaceOptions {
                threads: 2,
                pin: false,
            })
            .expect("memory");
        let mut state = model.new_state().expect("memory");
        let mut best = vec![];
        model
            .score(&mut workspace, &mut state, &tokens, &mut |_, logits| {
                let top = (0..logits.len())
                    .rev()
                    .max_by(|&a, &b| logits[a].total_cmp(&logits[b]));
                best.push(top.expect("there are logits") as i64);
            })
            .expect("a run");
        assert_eq!(best, expected, "{}", backend.name());
    }
}
