# Sourced by the other scripts: where things are, and whether LLVM 22 is there to build with.
# shellcheck shell=bash disable=SC2034 # The variables are for those scripts.

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

# Cargo's output, and tools that only this project needs.
target=${CARGO_TARGET_DIR:-target}

die() {
    echo "error: $*" >&2
    exit 1
}

# True if the directory prefix $1, or the program $1, is an LLVM 22 with C headers and a library to link with.
is_llvm_22() {
    local config=$1 version include lib
    [[ -d $config ]] && config=$config/bin/llvm-config
    version=$("$config" --version 2>/dev/null) || return 1
    [[ $version == 22.* ]] || return 1
    include=$("$config" --includedir) && lib=$("$config" --libdir) || return 1
    [[ -e $include/llvm-c/Core.h ]] || return 1
    compgen -G "$lib/libLLVM*" >/dev/null
}

# Looks where the build looks: LLVM_SYS_221_PREFIX alone if it is set, else PATH.
# Homebrew keeps LLVM off PATH, so its place is exported for the build.
has_llvm() {
    if [[ -n ${LLVM_SYS_221_PREFIX:-} ]]; then
        is_llvm_22 "$LLVM_SYS_221_PREFIX"
        return
    fi
    local name prefix
    for name in llvm-config-22 llvm-config22 llvm-config; do
        is_llvm_22 "$name" && return
    done
    prefix=$(brew --prefix llvm@22 2>/dev/null) || return 1
    is_llvm_22 "$prefix" || return 1
    export LLVM_SYS_221_PREFIX=$prefix
}

llvm=auto

# Takes the options that all scripts share; sets `llvm` to `no` where it is not wanted.
parse_options() {
    while (($#)); do
        case $1 in
            --no-llvm) llvm=no ;;
            -h | --help)
                usage
                exit 0
                ;;
            *)
                usage >&2
                echo "unknown option $1" >&2
                exit 2
                ;;
        esac
        shift
    done
}

features=()
members=(--workspace)

# Sets `features` and `members`: what to give Cargo to build all that can be built here.
choose_features() {
    if [[ $llvm != no ]] && has_llvm; then
        features=(--features llvm)
    else
        members+=(--exclude rwkvc-backend-llvm)
    fi
}
