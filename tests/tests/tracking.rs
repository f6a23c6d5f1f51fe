//! The tracker model keeps its accuracy however long the sequence is: five cups, each with an item, are swapped again and
//! again, and asked for.

use rwkvc::backends;
use rwkvc_abi::ProgramKind;
use rwkvc_tests::cases::{Case, cases};
use rwkvc_tests::fixtures::{Golden, open};
use rwkvc_tests::numbers::most_likely;
use rwkvc_tests::random::Random;
use rwkvc_tests::session::Session;

/// Phases of a swap, each a token.
const PHASES: usize = 6;

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

/// The tokens of a game with so many swaps, and where which answer is due.
///
/// Token 0 starts; `1 + 5 cup + item` puts; `26 + cup` asks, and the answer is `31 + item`; `36 + 6 pair + phase` swaps.
fn game(swaps: usize, random: &mut Random) -> (Vec<u32>, Vec<(usize, u32)>) {
    let shuffled = |random: &mut Random| {
        let mut items = [0, 1, 2, 3, 4];
        for i in (1..5).rev() {
            items.swap(i, random.range(0, i));
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
        while random.range(0, 9) < 4 {
            let cup = random.range(0, 4);
            answers.push((tokens.len(), (31 + cups[cup]) as u32));
            tokens.extend([(26 + cup) as u32, (31 + cups[cup]) as u32]);
        }
        if step < swaps {
            let pair = random.range(0, PAIRS.len() - 1);
            cups.swap(PAIRS[pair].0, PAIRS[pair].1);
            tokens.extend((0..PHASES).map(|phase| (36 + PHASES * pair + phase) as u32));
        }
    }
    (tokens, answers)
}

/// Right answers and questions of some games.
fn play(code: &rwkvc_runtime::Model, swaps: usize, games: usize, random: &mut Random) -> (usize, usize) {
    let (mut right, mut asked) = (0, 0);
    let mut session = Session::new(code, 1);
    for _ in 0..games {
        let (tokens, answers) = game(swaps, random);
        session.0.reset().expect("memory");
        let rows = session.decode(&tokens);
        let rows: Vec<&[f32]> = rows.chunks(code.vocab()).collect();
        right += answers
            .iter()
            .filter(|(at, answer)| most_likely(rows[*at]) == *answer)
            .count();
        asked += answers.len();
    }
    (right, asked)
}

#[test]
fn every_answer_is_right_at_every_length() {
    let code = Case::fused(backends::all()[0]).load(&open("tracker.pth"), &[ProgramKind::Decode]);
    let mut random = Random(1);
    for swaps in [4, 16, 64, 128, 256, 512, 1024] {
        let games = (2048 / swaps).clamp(2, 40);
        let (right, asked) = play(&code, swaps, games, &mut random);
        assert!(asked > 100, "{swaps} swaps: only {asked} questions");
        assert_eq!(right, asked, "{swaps} swaps");
    }
}

#[test]
fn every_backend_answers_right() {
    for case in cases() {
        let code = case.load(&open("tracker.pth"), &[ProgramKind::Decode]);
        let (right, asked) = play(&code, 512, 2, &mut Random(2));
        assert_eq!(right, asked, "{case}");
    }
}

#[test]
fn the_long_run_is_that_of_the_official_package() {
    let golden = Golden::open("tracker-long.safetensors");
    let (tokens, expected) = (golden.tokens("tokens"), golden.tokens("predicted"));
    let model = open("tracker.pth");
    for case in cases() {
        let code = case.load(&model, &[ProgramKind::Score]);
        let rows = Session::new(&code, 1).score(&tokens);
        let found: Vec<u32> = rows.chunks(code.vocab()).map(most_likely).collect();
        assert_eq!(found, expected, "{case}");
    }
}
