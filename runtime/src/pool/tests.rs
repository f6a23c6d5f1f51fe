use super::*;

const N: usize = 37;

/// (from, to) grid N: `to[i] = from[N - 1 - i] + 1`.
unsafe extern "C" fn reverse(buffers: *const *mut u8, begin: i64, end: i64, _tokens: i64) {
    for i in begin..end {
        let i = i as usize;
        // SAFETY: the tests pass two buffers of N values.
        unsafe {
            let (from, to) = ((*buffers).cast::<u64>(), (*buffers.add(1)).cast::<u64>());
            *to.add(i) = *from.add(N - 1 - i) + 1;
        }
    }
}

/// (values, sum) grid 1: adds all values to the sum.
unsafe extern "C" fn total(buffers: *const *mut u8, begin: i64, end: i64, tokens: i64) {
    for _ in begin..end {
        // SAFETY: the tests pass N values and a sum.
        unsafe {
            let (values, sum) = ((*buffers).cast::<u64>(), (*buffers.add(1)).cast::<u64>());
            *sum += (0..N).map(|i| *values.add(i)).sum::<u64>() * tokens as u64;
        }
    }
}

/// Runs `rounds` jobs of 7 tasks and returns the sum they leave.
fn work(pool: &mut Pool, rounds: usize) -> u64 {
    let (mut a, mut b, mut sum) = ([0u64; N], [0u64; N], 0u64);
    let [a, b, sum] = [
        a.as_mut_ptr().cast::<u8>(),
        b.as_mut_ptr().cast(),
        (&raw mut sum).cast(),
    ];
    let pointers = [a, b, b, a, a, sum];
    let task = |kernel: KernelFn, first, fixed, per_token| Task {
        kernel,
        first,
        grid: Size { fixed, per_token },
    };
    let (there, back) = (task(reverse, 0, N as u64 - 2, 1), task(reverse, 2, N as u64, 0));
    let small = task(total, 4, 1, 0);
    let tasks = [small, there, back, small, small, there, back];
    let job = Job {
        tasks: &tasks,
        pointers: &pointers,
        tokens: 2,
    };
    for _ in 0..rounds {
        // SAFETY: the kernels get the buffers they describe.
        unsafe { pool.run(&job, None) };
    }
    // SAFETY: the pool is done.
    unsafe { *sum.cast::<u64>() }
}

#[test]
fn any_number_of_threads_gives_the_same() {
    let expected: u64 = (0..500u64)
        .map(|r| 2 * N as u64 * (4 * r + 2 * (4 * r + 2)))
        .sum();
    for threads in [1, 2, 3, 8, 17, 64] {
        let mut pool = Pool::new(threads, false).expect("threads");
        assert_eq!(work(&mut pool, 500), expected, "{threads} threads");
    }
}

#[test]
fn workers_wake_up_again() {
    let mut pool = Pool::new(4, false).expect("threads");
    let expected = work(&mut pool, 1);
    for pause in [0, 1, 20] {
        std::thread::sleep(std::time::Duration::from_millis(pause));
        assert_eq!(work(&mut pool, 1), expected);
    }
}

#[test]
fn an_empty_job_ends() {
    for threads in [1, 3] {
        let mut pool = Pool::new(threads, false).expect("threads");
        let job = Job {
            tasks: &[],
            pointers: &[],
            tokens: 1,
        };
        // SAFETY: no kernel is called.
        unsafe { (0..100).for_each(|_| pool.run(&job, None)) };
    }
}

#[test]
fn pools_start_and_stop() {
    for _ in 0..200 {
        drop(Pool::new(3, false).expect("threads"));
    }
}

#[test]
fn times_are_added() {
    let mut pool = Pool::new(2, false).expect("threads");
    let tasks = [Task {
        kernel: total,
        first: 0,
        grid: Size {
            fixed: 0,
            per_token: 0,
        },
    }; 3];
    let pointers = [std::ptr::null_mut(); 1];
    let mut times = [u64::MAX / 2; 3];
    // SAFETY: the grid is empty: no pointer is used.
    unsafe {
        pool.run(
            &Job {
                tasks: &tasks,
                pointers: &pointers,
                tokens: 1,
            },
            Some(&mut times),
        )
    };
    assert!(
        times
            .iter()
            .all(|t| (u64::MAX / 2..u64::MAX / 2 + 10_000_000_000).contains(t))
    );
}

#[test]
fn refuses_impossible_numbers_of_threads() {
    for threads in [0, MAX_THREADS + 1] {
        let error = Pool::new(threads, false)
            .err()
            .expect("too few or many")
            .to_string();
        assert_eq!(
            error,
            format!("{threads} threads were asked for, expected 1 to 1024")
        );
    }
}

#[cfg(target_os = "linux")]
#[test]
fn threads_can_be_pinned() {
    let cores = std::thread::available_parallelism().map_or(1, usize::from).min(4);
    let mut pool = Pool::new(cores, true).expect("pinned threads");
    assert_eq!(
        work(&mut pool, 3),
        work(&mut Pool::new(1, false).expect("one"), 3)
    );
    assert!(Pool::new(MAX_THREADS, true).is_err());
}

#[test]
fn shares_cover_the_grid() {
    for grid in [2, 5, 64, 1000, i64::MAX] {
        for n in [1, 2, 3, 7, 100] {
            let mut end = 0;
            for i in 0..n {
                let share = share(grid, i, n);
                assert_eq!(share.start, end);
                end = share.end;
            }
            assert_eq!(end, grid);
        }
    }
}
