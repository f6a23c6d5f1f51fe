# What there is to do here; `just` lists it. Each verb is one command that also works without just.

all := `scripts/features`

_list:
    @just --list --unsorted

# Make this machine ready: Rust, a linker, LLVM 22
setup *options:
    scripts/setup {{ options }}

# Build, compile the small model that comes with the project, and stream text
demo *options:
    scripts/demo {{ options }}

# Every check that continuous integration runs
test *options:
    scripts/test {{ options }}

# Format the code
fmt:
    cargo fmt --all
    cargo fmt --manifest-path side-by-side/llama/Cargo.toml

# Lint the code
lint:
    cargo clippy {{ all }} --all-targets -- -D warnings

# Build the documentation of all crates
doc *options:
    cargo doc --no-deps {{ all }} {{ options }}

# Accept changed snapshots; read the diff before it is committed
bless:
    INSTA_UPDATE=always UPDATE_DOCS=1 UPDATE_FILETESTS=1 cargo test -p rwkvc-tests

# Compare all kernels, plans, code and artifacts with what is recorded; `--bless` records them, `--all` takes real models
replay *options:
    scripts/replay {{ options }}

# Print how large a program is that embeds the runtime
sizes *options:
    scripts/sizes {{ options }}

# Run the generated tests with more cases
fuzz cases="20000":
    PROPTEST_CASES={{ cases }} cargo test {{ all }}

random := "target/random-0.1b.safetensors"

# Measure fused against unfused, on a model of 0.1b size with random weights
bench *options:
    cargo build --release {{ all }}
    test -e {{ random }} || target/release/rwkvc generate --preset 0.1b -o {{ random }}
    target/release/rwkvc bench {{ random }} {{ options }}

# Measure rwkvc and llama.cpp in turn, and put the figures into the documentation
side-by-side *options:
    scripts/side-by-side {{ options }}
