//! Threads of one warp: fibers that run until they wait, and what they exchange.

use corosensei::stack::DefaultStack;
use corosensei::{Coroutine, CoroutineResult};
use rwkvc_ir::DType;

use super::stand_ins::{Answer, Request};

/// Threads of a warp.
pub(super) const WARP: usize = 32;

const NO_ANSWER: Answer = [0; 4];

/// One thread.
pub(super) struct Fiber {
    /// Always there until the end.
    coroutine: Option<Coroutine<Answer, Request, (), DefaultStack>>,
    pub(super) state: State,
}

/// What a thread does.
#[derive(Debug, PartialEq)]
pub(super) enum State {
    /// It can go on with this answer.
    Ready(Answer),
    Waits(Request),
    Done,
}

impl Fiber {
    pub(super) fn new(coroutine: Coroutine<Answer, Request, (), DefaultStack>) -> Self {
        Fiber {
            coroutine: Some(coroutine),
            state: State::Ready(NO_ANSWER),
        }
    }

    /// Lets it go on if it can; says whether it came to anything but waiting for others.
    fn resume(&mut self) -> bool {
        let State::Ready(answer) = self.state else {
            return false;
        };
        let Some(coroutine) = &mut self.coroutine else {
            return false;
        };
        self.state = match coroutine.resume(answer) {
            CoroutineResult::Yield(request) => State::Waits(request),
            CoroutineResult::Return(()) => State::Done,
        };
        self.state != State::Waits(Request::Others)
    }

    /// Takes the stack back.
    pub(super) fn end(mut self) -> Option<DefaultStack> {
        self.reset();
        self.coroutine.take().map(Coroutine::into_stack)
    }

    fn reset(&mut self) {
        let Some(coroutine) = &mut self.coroutine else {
            return;
        };
        if coroutine.started() && !coroutine.done() {
            // SAFETY: compiled code has nothing to drop, and what called it holds plain numbers. Unwinding is out of
            // question: compiled code has no tables for it.
            unsafe { coroutine.force_reset() };
        }
    }
}

impl Drop for Fiber {
    fn drop(&mut self) {
        self.reset();
    }
}

/// Lets the threads of a warp run until they can only go on when other warps do. Says whether any came to anything but
/// waiting for others.
pub(super) fn run(warp: &mut [Fiber]) -> Result<bool, String> {
    let mut came_on = false;
    for fiber in &mut *warp {
        if fiber.state == State::Waits(Request::Others) {
            fiber.state = State::Ready(NO_ANSWER);
        }
    }
    loop {
        for fiber in &mut *warp {
            came_on |= fiber.resume();
            if let State::Waits(Request::Fault(reason)) = &fiber.state {
                return Err(reason.clone());
            }
        }
        if !exchange(warp)? {
            return Ok(came_on);
        }
    }
}

/// Answers the threads if they wait for each other.
fn exchange(warp: &mut [Fiber]) -> Result<bool, String> {
    let in_step = |state: &State| {
        matches!(
            state,
            State::Waits(Request::Shuffle { .. } | Request::Product { .. })
        )
    };
    let Some(first) = warp.iter().find(|f| in_step(&f.state)) else {
        return Ok(false);
    };
    let (what, first_call) = match &first.state {
        State::Waits(Request::Shuffle { site, mask, .. }) => ("shuffle", (*site, Some(*mask), None)),
        State::Waits(Request::Product { site, format, .. }) => ("product", (*site, None, Some(*format))),
        _ => return Ok(false),
    };
    let mut words = Vec::with_capacity(warp.len());
    let mut pending = false;
    for fiber in &*warp {
        match &fiber.state {
            State::Waits(Request::Shuffle { site, mask, value })
                if first_call == (*site, Some(*mask), None) =>
            {
                words.push([*value; 10]);
            }
            State::Waits(Request::Product {
                site,
                format,
                words: w,
            }) if first_call == (*site, None, Some(*format)) => {
                words.push(*w);
            }
            State::Waits(Request::Others) => pending = true,
            _ => {}
        }
    }
    if words.len() < WARP {
        if pending {
            return Ok(false);
        }
        return Err(format!(
            "{} of {WARP} threads of a warp reach a {what}",
            words.len()
        ));
    }
    let answers = match first_call {
        (_, Some(mask), _) => shuffle(&words, mask),
        (_, _, Some(format)) => product(&words, format),
        _ => return Ok(false),
    };
    for (fiber, answer) in warp.iter_mut().zip(answers) {
        fiber.state = State::Ready(answer);
    }
    Ok(true)
}

/// Each gets what the thread has whose number differs by `mask`.
fn shuffle(values: &[[u32; 10]], mask: u32) -> Vec<Answer> {
    let lanes = 0..values.len();
    lanes
        .map(|lane| [values[lane ^ mask as usize][0], 0, 0, 0])
        .collect()
}

/// The fragments of `A·B + C`: 16 rows, 8 columns, and 16 terms, which are added in f64.
fn product(fragments: &[[u32; 10]], format: DType) -> Vec<Answer> {
    let element = |lane: usize, word: usize, half: usize| {
        let bytes = fragments[lane][word].to_le_bytes();
        format.read(&bytes, half)
    };
    // Row `r` and column `c` of A: words 0 and 1 have the first 8 columns, and odd ones the last 8 rows.
    let a = |r: usize, c: usize| element(r % 8 * 4 + c % 8 / 2, r / 8 + c / 8 * 2, c % 2);
    // The transposed of B in the same way, but with all 8 columns in every word.
    let b = |r: usize, c: usize| element(c * 4 + r % 8 / 2, 4 + r / 8, r % 2);
    let lanes = 0..fragments.len();
    let answer = |lane: usize| {
        [0, 1, 2, 3].map(|i| {
            let (row, column) = (lane / 4 + 8 * (i / 2), lane % 4 * 2 + i % 2);
            let start = f64::from(f32::from_bits(fragments[lane][6 + i]));
            let sum = (0..16).fold(start, |sum, k| sum + a(row, k) * b(k, column));
            (sum as f32).to_bits()
        })
    };
    lanes.map(answer).collect()
}
