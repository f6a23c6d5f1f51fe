//! LLVM IR of a GPU, changed so that any machine can run it.
//!
//! Calls of GPU intrinsics become calls of addresses: those of the stand-ins, which are in this process. Each call passes one
//! more number first, which tells the calls apart.

use std::fmt::Write;

use super::stand_ins::{self, StandIn};

const PREFIX: &str = "@llvm.nvvm.";

/// The assembly that does nothing but make what follows faster.
const PREFETCH: &str = " asm sideeffect \"prefetch.global.L2 [$0];\"";

/// No assembly, for any machine: what it gives is not known to be what it took.
const NOTHING: &str = " asm sideeffect \"\", \"=r,0\"";

/// Instructions by which a thread can see what other blocks do; a thread that repeats one may be waiting for them.
const GLANCES: [&str; 4] = ["= load atomic ", "= load volatile ", "= atomicrmw ", "= cmpxchg "];

/// The text without its target, and with calls of stand-ins.
///
/// # Errors
/// Names an intrinsic function that has no stand-in, or shows a line with assembly.
pub(super) fn for_this_machine(text: &str) -> Result<String, String> {
    let mut result = String::with_capacity(2 * text.len());
    let mut site = 0;
    for line in text.lines() {
        let of_target = line.starts_with("target ");
        let declares = line.starts_with("declare ") && line.contains(PREFIX);
        if of_target || declares {
            continue;
        }
        if line.contains(PREFETCH) {
            continue;
        }
        if line.contains(" asm ") && !line.contains(NOTHING) {
            return Err(format!("there is no stand-in for assembly: {}", line.trim()));
        }
        let mut rest = line;
        while let Some((before, after)) = rest.split_once(PREFIX) {
            let (name, arguments) = after
                .split_once('(')
                .ok_or_else(|| format!("`{line}` is no call of an intrinsic function"))?;
            let callee = match stand_ins::find(name) {
                Some(StandIn::Function(address)) => at(address),
                Some(StandIn::Product(format)) => format!("@fibers.product.{}", format.name()),
                None => return Err(format!("there is no stand-in for `llvm.nvvm.{name}`")),
            };
            let comma = if arguments.starts_with(')') { "" } else { ", " };
            write(&mut result, format_args!("{before}{callee}(i32 {site}{comma}"));
            rest = arguments;
            site += 1;
        }
        write(&mut result, format_args!("{rest}\n"));
        if GLANCES.iter().any(|glance| line.contains(glance)) {
            let callee = at(stand_ins::let_others_run());
            write(&mut result, format_args!("  call void {callee}(i32 {site})\n"));
            site += 1;
        }
    }
    for (product, word) in stand_ins::PRODUCTS {
        product_of_warp(&mut result, product.name(), word, at(stand_ins::product(product)));
    }
    Ok(result)
}

fn at(address: usize) -> String {
    format!("inttoptr (i64 {address} to ptr)")
}

/// A function that passes fragments through memory: how structs are returned differs from machine to machine.
fn product_of_warp(text: &mut String, format: &str, word: &str, callee: String) {
    let words = (0..10).map(|i| if i < 6 { word } else { "float" });
    let parameters: String = words
        .clone()
        .enumerate()
        .map(|(i, ty)| format!(", {ty} %x{i}"))
        .collect();
    let result = "{ float, float, float, float }";
    write(
        text,
        format_args!("define internal {result} @fibers.product.{format}(i32 %site{parameters}) {{\n"),
    );
    write(text, format_args!("  %words = alloca [10 x i32], align 4\n"));
    for (i, ty) in words.enumerate() {
        write(
            text,
            format_args!(
                "  %at{i} = getelementptr i32, ptr %words, i64 {i}\n  store {ty} %x{i}, ptr %at{i}, align 4\n"
            ),
        );
    }
    write(
        text,
        format_args!("  call void {callee}(i32 %site, ptr %words)\n"),
    );
    let mut whole = "poison".to_owned();
    for i in 0..4 {
        let from = 6 + i;
        write(
            text,
            format_args!(
                "  %y{i} = load float, ptr %at{from}, align 4\n  %d{i} = insertvalue {result} {whole}, float %y{i}, {i}\n"
            ),
        );
        whole = format!("%d{i}");
    }
    write(text, format_args!("  ret {result} {whole}\n}}\n"));
}

fn write(text: &mut String, what: std::fmt::Arguments<'_>) {
    text.write_fmt(what).expect("writing to a string cannot fail");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_numbered_and_the_target_goes() {
        let text = "target triple = \"nvptx64-nvidia-cuda\"\n\
            declare i32 @llvm.nvvm.read.ptx.sreg.tid.x() #0\n\
            %t = call i32 @llvm.nvvm.read.ptx.sreg.tid.x()\n\
            call void @llvm.nvvm.barrier.cta.sync.aligned.all(i32 0)\n";
        let found = for_this_machine(text).expect("all have stand-ins");
        let lines: Vec<&str> = found.lines().collect();
        assert!(lines[0].starts_with("%t = call i32 inttoptr (i64 "), "{found}");
        assert!(lines[0].ends_with(" to ptr)(i32 0)"), "{found}");
        assert!(lines[1].ends_with(" to ptr)(i32 1, i32 0)"), "{found}");
    }

    #[test]
    fn unknown_intrinsics_are_named() {
        let found = for_this_machine("call void @llvm.nvvm.wgmma.fence()");
        assert_eq!(
            found,
            Err("there is no stand-in for `llvm.nvvm.wgmma.fence`".into())
        );
        let found = for_this_machine("  call void asm sideeffect \"nanosleep.u32 32;\", \"\"()");
        assert!(found.is_err_and(|e| e.contains("nanosleep")));
    }
}
