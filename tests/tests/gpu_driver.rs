//! Fibers as a device of the runtime.

#![cfg(feature = "llvm")]

use std::sync::Arc;

use rwkvc::compile::{Options, plan_model};
use rwkvc::weights::weights;
use rwkvc_abi::Arg;
use rwkvc_abi::ProgramKind;
use rwkvc_backend_api::{Backend, Target};
use rwkvc_frontend::model::Model;
use rwkvc_ir::Verified;
use rwkvc_ir::kernel::Kernel;
use rwkvc_ir::kernel::parse::parse;
use rwkvc_passes::pipeline::Selection;
use rwkvc_passes::plan::Plan;
use rwkvc_runtime::gpu::{Address, DeviceBuffer, Driver, Function, GpuError, KernelLaunch, Resource};
use rwkvc_tests::fibers::FiberDriver;
use rwkvc_tests::fixtures::{self, Golden};
use rwkvc_tests::numbers::difference;
use rwkvc_tests::verified::verified;

/// Adds the number of the token to each of 256 numbers of it.
const COUNT: &str = "\
kernel @count(%x: readwrite f32[256*T]) grid T {
  parallel %block in 0..T {
    %number = index_to_i32 %block
    %float = to_f32 %number
    thread %t in 0..256 {
      %a = load %x[256*%block + %t]
      %b = add %a, %float
      store %x[256*%block + %t], %b
    }
  }
}
";

/// Waits until all blocks have counted.
const TOGETHER: &str = "
define ptx_kernel void @together(ptr addrspace(1) %counter, i64 %blocks) \"nvvm.reqntid\"=\"1,1,1\" {
entry:
  %all = trunc i64 %blocks to i32
  %before = atomicrmw add ptr addrspace(1) %counter, i32 1 syncscope(\"device\") monotonic, align 4
  br label %look
look:
  %now = load atomic i32, ptr addrspace(1) %counter syncscope(\"device\") acquire, align 4
  %enough = icmp eq i32 %now, %all
  br i1 %enough, label %end, label %look
end:
  ret void
}
";

fn backend() -> &'static dyn Backend {
    rwkvc::backends::find(Some("llvm")).expect("it is built in")
}

fn target() -> Target {
    Target::parse("cuda:sm_80").expect("a target")
}

fn listing(kernels: &[Verified<Kernel>]) -> String {
    let listing = backend().emit(kernels, &target(), "llvm");
    String::from_utf8_lossy(&listing.unwrap_or_else(|e| panic!("{e}"))).into_owned()
}

fn floats(driver: &FiberDriver, at: Address, n: usize) -> Vec<f32> {
    let mut bytes = vec![0; 4 * n];
    driver.download(at, &mut bytes).expect("it is memory");
    bytes
        .as_chunks()
        .0
        .iter()
        .map(|b| f32::from_le_bytes(*b))
        .collect()
}

#[test]
fn launches_and_recorded_launches() {
    let driver = Arc::new(FiberDriver::new(4));
    let kernels = parse(COUNT).unwrap_or_else(|e| panic!("{e}"));
    let module = driver
        .load(&listing(&verified(&kernels)))
        .unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(driver.function(module, "other").expect("a module"), None);
    let function = driver
        .function(module, "count")
        .expect("a module")
        .expect("a kernel");
    let shared: Arc<dyn Driver> = driver.clone();
    let buffer = DeviceBuffer::new(&shared, 4 * 512).expect("memory");
    let at = buffer.address();
    assert!(
        floats(&driver, at, 512).iter().all(|x| x.is_nan()),
        "no one has written to it"
    );
    driver.zero(at, 4 * 512).expect("it is memory");
    driver
        .upload(at.offset(4), &7f32.to_le_bytes())
        .expect("it is memory");

    let args = [at.0, 2];
    let launch = KernelLaunch {
        function,
        grid: 2,
        threads: 256,
        args: &args,
        cooperative: false,
    };
    // SAFETY: the kernel takes these arguments, and the memory stays until the end.
    unsafe { driver.launch(&launch) }.expect("a launch");
    // SAFETY: as above.
    let graph = unsafe { driver.record(&[launch, launch]) }.expect("a graph");
    let after = |n: f32| {
        let mut expected = vec![0.0; 256];
        expected[1] = 7.0;
        expected.resize(512, n);
        expected
    };
    assert_eq!(floats(&driver, at, 512), after(1.0), "recording does not run");
    driver.replay(graph).expect("a replay");
    driver.replay(graph).expect("a replay");
    assert_eq!(floats(&driver, at, 512), after(5.0));
    assert_eq!(driver.launches(), 5);

    driver.copy(at.offset(4 * 256), at, 4).expect("it is memory");
    assert_eq!(floats(&driver, at, 1), [5.0]);

    let marks = [(); 2].map(|()| driver.event().expect("an event"));
    assert!(driver.elapsed(marks[0], marks[1]).is_err(), "not set yet");
    marks
        .iter()
        .for_each(|&mark| driver.mark(mark).expect("an event"));
    driver.elapsed(marks[0], marks[1]).expect("both are set");

    marks
        .into_iter()
        .for_each(|mark| driver.release(Resource::Event(mark)));
    driver.release(Resource::Graph(graph));
    driver.release(Resource::Module(module));
    drop(buffer);
    assert_eq!(driver.handed_out(), 0);
    // SAFETY: nothing is run: the function went with its module.
    let late = unsafe { driver.launch(&launch) };
    assert!(late.is_err());
}

#[test]
fn blocks_that_wait_for_each_other() {
    let driver = FiberDriver::new(3);
    let module = driver.load(TOGETHER).unwrap_or_else(|e| panic!("{e}"));
    let function = driver
        .function(module, "together")
        .expect("a module")
        .expect("a kernel");
    let counter = driver.allocate(4).expect("memory");
    let run = |grid: u32, cooperative: bool| {
        driver.zero(counter, 4).expect("it is memory");
        let launch = KernelLaunch {
            function,
            grid,
            threads: 1,
            args: &[counter.0, grid.into()],
            cooperative,
        };
        // SAFETY: the kernel takes these arguments.
        unsafe { driver.launch(&launch) }.map_err(|e| e.to_string())
    };
    assert_eq!(run(3, true), Ok(()));
    let found = run(3, false).expect_err("only one block is there");
    assert!(
        found.ends_with("kernel `together`: threads wait for ever"),
        "{found}"
    );
    let found = run(4, true).expect_err("too many blocks");
    assert!(
        found.ends_with("4 blocks must be resident at the same time, 3 can be"),
        "{found}"
    );
}

#[test]
fn what_is_not_memory_of_the_device_is_refused() {
    let driver = FiberDriver::new(1);
    let at = driver.allocate(8).expect("memory");
    let other = driver.allocate(8).expect("memory");
    let refused =
        |result: Result<(), GpuError>| assert!(matches!(result, Err(GpuError::Range { .. })), "{result:?}");
    assert!(driver.zero(at, 8).is_ok() && driver.upload(at.offset(8), &[]).is_ok());
    refused(driver.zero(at, 9));
    refused(driver.upload(at.offset(1), &[0; 8]));
    refused(driver.download(at.offset(u64::MAX), &mut [0]));
    refused(driver.copy(at, other.offset(7), 2));
    refused(driver.copy(at, other, u64::MAX));
    assert!(matches!(driver.allocate(1 << 40), Err(GpuError::Memory { .. })));
    assert!(matches!(driver.load("what"), Err(GpuError::Ptx { .. })));
    driver.release(Resource::Memory(at));
    refused(driver.zero(at, 1));
}

/// The decode program of a plan, with all that it needs on a device.
struct Decoder {
    driver: Arc<FiberDriver>,
    /// One after the other: function, blocks, arguments.
    launches: Vec<(Function, u32, Vec<u64>)>,
    tokens: Address,
    logits: Address,
    vocab: usize,
}

impl Decoder {
    fn new(model: &Arc<Model>, plan: &Plan) -> Self {
        let driver = Arc::new(FiberDriver::new(1));
        let memory = |bytes: u64| driver.allocate(bytes.max(1)).expect("memory");
        let weights = weights(model, plan).expect("the weights");
        let weights: Vec<Address> = weights
            .iter()
            .map(|weight| {
                let bytes = weight.bytes().expect("a weight");
                let at = memory(bytes.len() as u64);
                driver.upload(at, bytes).expect("it is memory");
                at
            })
            .collect();
        let floats: u64 = plan
            .state
            .iter()
            .map(|s| s.shape.iter().product::<usize>() as u64)
            .sum();
        let (state, arena) = (memory(4 * floats), memory(plan.arena_bytes));
        assert!(
            plan.state.iter().all(|s| s.init.is_none()),
            "a fresh state is zero"
        );
        driver.zero(state, 4 * floats).expect("it is memory");
        let vocab = model.config().vocab;
        let (tokens, logits) = (memory(4), memory(4 * vocab as u64));

        let module = driver
            .load(&listing(&plan.kernels))
            .unwrap_or_else(|e| panic!("{e}"));
        let launches = plan.programs[0].launches.iter().map(|launch| {
            let name = &plan.kernels[launch.kernel].name;
            let function = driver
                .function(module, name)
                .expect("a module")
                .expect("a kernel");
            let address = |place: &Arg| match *place {
                Arg::Weight(index) => weights[index],
                Arg::State(offset) => state.offset(offset),
                Arg::Arena(offset) => arena.offset(offset),
                Arg::Tokens => tokens,
                Arg::Logits => logits,
                Arg::Sampler | Arg::Counts => unreachable!("a step chooses no tokens"),
            };
            let args = launch.args.iter().map(|place| address(place).0).chain([1]);
            (
                function,
                plan.kernels[launch.kernel].grid.at(1) as u32,
                args.collect(),
            )
        });
        Decoder {
            launches: launches.collect(),
            tokens,
            logits,
            vocab,
            driver,
        }
    }

    fn launches(&self) -> Vec<KernelLaunch<'_>> {
        let launches = self.launches.iter().map(|(function, grid, args)| KernelLaunch {
            function: *function,
            grid: *grid,
            threads: 256,
            args,
            cooperative: false,
        });
        launches.collect()
    }

    /// The logits after each token, of which one is on the device before each call of `step`.
    fn run(&self, tokens: &[u32], mut step: impl FnMut()) -> Vec<f32> {
        let one = |token: &u32| {
            self.driver
                .upload(self.tokens, &token.to_le_bytes())
                .expect("it is memory");
            step();
            floats(&self.driver, self.logits, self.vocab)
        };
        tokens.iter().flat_map(one).collect()
    }
}

#[test]
fn a_whole_model_in_launches_and_recorded() {
    /// Largest difference of a logit from the float64 golden.
    const LOGITS: f64 = 2e-5;
    let model = fixtures::open("demo.safetensors");
    let golden = Golden::open("demo-golden.safetensors");
    let tokens = &golden.tokens("tokens")[..4];
    let expected = &golden.floats("logits_f64")[..tokens.len() * model.config().vocab];
    let mut options = Options {
        backend: backend(),
        target: target(),
        passes: Selection::all(),
        tuning: None,
        fuel: None,
        programs: vec![ProgramKind::Decode],
        probes: false,
        after_pass: &mut |_, _| {},
    };
    let plan = plan_model(&model, &mut options).expect("a plan");

    let decoder = Decoder::new(&model, &plan);
    let launched = decoder.run(tokens, || {
        for launch in decoder.launches() {
            // SAFETY: the plan says what each kernel takes, and all memory stays.
            unsafe { decoder.driver.launch(&launch) }.unwrap_or_else(|e| panic!("{e}"));
        }
    });
    let found = difference(&launched, expected);
    assert!(found <= LOGITS, "logits differ by {found:e}");

    let decoder = Decoder::new(&model, &plan);
    // SAFETY: as above.
    let graph = unsafe { decoder.driver.record(&decoder.launches()) }.expect("a graph");
    let replayed = decoder.run(tokens, || {
        decoder.driver.replay(graph).unwrap_or_else(|e| panic!("{e}"))
    });
    assert!(launched == replayed, "the same bits");
}
