use super::*;
use crate::graph::verify;

/// Every form of statement, as the printer writes it.
const STEP: &str = r#"func @"a step"(%tokens: i32[B,T], %blocks.0.x: f32[B,4], %"my state": f32[B,2,2,2]) -> (y: %8, x: %5, state: %"my state") {
  %emb.weight = param "emb.weight" : bf16[16,4]
  %0 = embed %emb.weight, %tokens : f32[B,T,4]
  %mix = param "mix" : f16[4]
  %1 = const 1.0 : f32[]
  %2 = add %mix, %1 : f32[4]
  %3, %4, %5 = shift_mix %0, %blocks.0.x, %mix, %2 : f32[B,T,4], f32[B,T,4], f32[B,4] @"blocks.0 \"shift\""
  %6, %7 = linear_group %3, %emb.weight, %4, %emb.weight {members=[plain, relu2]} : f32[B,T,16], f32[B,T,16]
  %8 = reshape %6 {shape=[B,T,4,4]} : f32[B,T,4,4]
}
"#;

#[test]
fn text_of_the_printer_round_trips() {
    let graph = parse(STEP).unwrap();
    assert_eq!(
        graph.label(graph.nodes_of("shift_mix")[0]),
        Some("blocks.0 \"shift\"")
    );
    assert_eq!(verify(graph).unwrap().to_string(), STEP);
}

#[test]
fn text_is_read_however_it_is_laid_out() {
    let text = "; a comment\nfunc@f(%\"x\":f32[ 2 ])->(y:%b){%a=neg %x:f32[2];again\n%b = l2_normalize%a{eps=1E-3}:f32[2]@\"n\"}";
    let expected = "func @f(%x: f32[2]) -> (y: %1) {\n  %0 = neg %x : f32[2]\n  %1 = l2_normalize %0 {eps=0.001} : f32[2] @\"n\"\n}\n";
    assert_eq!(parse(text).unwrap().to_string(), expected);
}

#[test]
fn long_headers_have_a_line_for_each_input() {
    let names: Vec<String> = (0..12)
        .map(|i| format!("%blocks.{i}.att.x_prev: f32[B,4]"))
        .collect();
    let text = format!(
        "func @f(\n  {}\n) -> (y: %blocks.3.att.x_prev) {{\n}}\n",
        names.join(",\n  ")
    );
    assert_eq!(parse(&text).unwrap().to_string(), text);
}

#[test]
fn text_does_not_depend_on_history() {
    let text = "func @f(%x: f32[4]) -> (y: %2) {\n  %0 = exp %x : f32[4]\n  %1 = neg %x : f32[4]\n  %2 = add %0, %1 : f32[4]\n}\n";
    let reordered = "func @f(%x: f32[4]) -> (y: %y) {
        %n = neg %x : f32[4]
        %e = exp %x : f32[4]
        %unused = tanh %e : f32[4]
        %y = add %e, %n : f32[4]
    }";
    assert_eq!(parse(reordered).unwrap().to_string(), text);
}

#[track_caller]
fn fails(text: &str, message: &str) {
    assert_eq!(
        parse(text).expect_err("invalid text").to_string(),
        message,
        "{text}"
    );
}

#[test]
fn errors_name_the_place_and_what_is_expected() {
    fails("", "1:1: expected `func`, found the end of the text");
    fails("func f", "1:6: expected `@`, found `f`");
    fails("func @f(%x: f32[2]) => ()", "1:21: expected `->`, found `=`");
    fails(
        "func @f(%x: f8[2]) -> ()",
        "1:13: expected f32, f16, bf16 or i32, found `f8`",
    );
    fails(
        "func @f(%x: f32[N]) -> ()",
        "1:17: expected lengths: numbers, `B` or `T`, found `N`",
    );
    fails(
        "func @f(%x: f32[0]) -> ()",
        "1:9: `input` gives f32[0], expected at most 8 axes, none empty, and each symbolic length at most once",
    );
    fails(
        "func @f(%x: f32[2], %x: f32[2]) -> ()",
        "1:21: two inputs are called `x`, expected unique names",
    );
    fails(
        "func @f() -> (y: %y) {\n}",
        "1:18: expected a value that is defined, found `%y`",
    );
    fails(
        "func @f() -> () {} x",
        "1:20: expected the end of the text, found `x`",
    );
    fails(
        "func @\"f() -> () {}",
        "1:7: expected a text that ends with `\"`, found the end of the text",
    );
    fails(
        "func @\"\\q\"",
        "1:8: expected `\\\\`, `\\\"` or `\\u{…}`, found another escape",
    );
    let body = |statement: &str| format!("func @f(%x: f32[2]) -> (y: %x, z: %x) {{\n  {statement}\n}}");
    fails(&body("x"), "2:3: expected `%` or `}`, found `x`");
    fails(
        &body("%y = gelu %x : f32[2]"),
        "2:8: expected an op, found `gelu`",
    );
    fails(
        &body("%y = neg %z : f32[2]"),
        "2:12: expected a value that is defined, found `%z`",
    );
    fails(&body("%y = neg %x"), "3:1: expected `:`, found `}`");
    fails(
        &body("%x = neg %x : f32[2]"),
        "2:3: expected a new name, found `%x` again",
    );
    fails(
        &body("%y = neg %x : f32[3]"),
        "2:8: result 0 of `neg` is f32[3], expected f32[2]",
    );
    fails(
        &body("%y, %z = neg %x : f32[2]"),
        "2:3: `neg` has 2 results, expected 1",
    );
    fails(
        &body("%y = neg %x : f32[2], f32[2]"),
        "2:3: `neg` has 2 results, expected 1",
    );
    fails(
        &body("%y = l2_normalize %x : f32[2]"),
        "2:8: expected an op with the attribute `eps`, found one without",
    );
    fails(
        &body("%y = l2_normalize %x {eps=big} : f32[2]"),
        "2:25: expected a number as `eps`, found `big`",
    );
    fails(
        &body("%y = neg %x {eps=1.0} : f32[2]"),
        "2:16: expected an attribute that the op has, found `eps`",
    );
    fails(
        &body("%y = neg %x : f32[2] @neg"),
        "2:25: expected a label in quotes, found `neg`",
    );
    let members = body("%y = linear_group %x, %x {members=[relu+bias]} : f32[2]");
    fails(
        &members,
        "2:29: expected members such as `[plain, bias+tanh, relu2+scale+residual]` as `members`, found `[relu+bias]`",
    );
    fails(
        "func @f(%x: f32[2]) -> (y: %x, y: %x) {}",
        "1:35: two outputs are called `y`, expected unique names",
    );
}

#[test]
fn no_change_of_a_valid_text_panics() {
    let signs = [
        "%",
        "\"",
        "{",
        "[",
        "]",
        ",",
        "->",
        ";",
        "\\",
        "é",
        "18446744073709551616",
        "\u{0}",
        "f32",
        " ",
    ];
    for (at, c) in STEP.char_indices() {
        _ = parse(&STEP[..at]);
        for sign in signs {
            _ = parse(&format!("{}{sign}{}", &STEP[..at], &STEP[at..]));
            _ = parse(&format!("{}{sign}{}", &STEP[..at], &STEP[at + c.len_utf8()..]));
        }
    }
}
