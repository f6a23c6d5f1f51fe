#!/usr/bin/env python3
"""Makes one table of what scripts/gpu-check found: report.json and report.md, and the part of docs/gpu.md between markers."""

import datetime
import json
import pathlib
import sys

import marked


def load(folder, pattern):
    """Results by the last part of their names. What was cut off is no JSON, and is left out: the check has said so."""
    found = {}
    for path in sorted(folder.glob(pattern)):
        try:
            found[path.stem.split("-", 1)[1]] = json.loads(path.read_text())
        except ValueError:
            print(f"{path.name} is not complete", file=sys.stderr)
    return found


def comparisons(folder):
    """How many comparisons there were, and how many of them failed."""
    rows = [row for result in load(folder, "verify-*.json").values() for row in result["rows"]]
    return len(rows), sum(not row["ok"] for row in rows)


def markdown(folder):
    benches, peers = load(folder, "bench-*.json"), load(folder, "peer-*.json")
    total, wrong = comparisons(folder)
    if not benches:
        sys.exit(f"{folder} has no measurements")
    device = next(iter(benches.values()))["device"]
    dates = [path.stat().st_mtime for path in folder.glob("bench-*.json")]
    date = datetime.date.fromtimestamp(max(dates))
    text = [
        f"Measured on {date} on {device['name']} ({device['capability']}, {device['multiprocessors']} multiprocessors), random "
        f"bf16 weights with 85 % zero activations. {total - wrong} of {total} comparisons with the reference evaluator are "
        "within their tolerance. Tokens a second of all states together; in brackets, the weights a second as a share of the "
        "copy bandwidth.",
        "",
    ]
    for size, bench in benches.items():
        copy = max(v["copy_gb_s"]["max"] for v in bench["variants"])
        heads = [f"{v['name']}, {mode}" for v in bench["variants"] for mode in modes(v)]
        peer = {row["batch"]: row for row in peers.get(size, {}).get("rows", [])}
        text += [f"**{size}**, {bench['variants'][0]['bytes_per_token'] / 1e6:.0f} MB a token, copies {copy:.0f} GB/s", ""]
        text += ["| | " + " | ".join(heads + (["PyTorch"] if peer else [])) + " |"]
        text += ["|---" * (1 + len(heads) + bool(peer)) + "|"]
        ways = dict.fromkeys((r["what"], r["tokens"]) for v in bench["variants"] for r in v["rows"])
        for what, tokens in ways:
            cells = [cell(v, mode, what, tokens) for v in bench["variants"] for mode in modes(v)]
            if peer:
                known = what in ("decode", "batch") and tokens in peer
                cells.append(f"{peer[tokens]['tokens_per_s']:.0f}" if known else "–")
            label = {"decode": "decode", "sample": "decode, choosing"}.get(what, f"{what} {tokens}")
            text.append(f"| {label} | " + " | ".join(cells) + " |")
        text.append("")
        kernels = bench["variants"][0]["kernels"][:6]
        if kernels:
            text += ["| kernel of a step | calls | µs | GB/s | time |", "|---|---|---|---|---|"]
            text += [
                f"| `{k['kernel']}` | {k['calls']} | {k['us']:.1f} | {k['gb_s']:.0f} | {100 * k['share_of_step']:.0f} % |"
                for k in kernels
            ]
            text.append("")
    summary = {"date": str(date), "device": device, "comparisons": total, "wrong": wrong, "bench": benches, "peers": peers}
    return "\n".join(text), summary


def modes(variant):
    return list(dict.fromkeys(row["mode"] for row in variant["rows"]))


def cell(variant, mode, what, tokens):
    for row in variant["rows"]:
        if (row["mode"], row["what"], row["tokens"]) == (mode, what, tokens):
            share = row["copy_share"]
            return f"{row['tokens_per_s']['median']:.0f}" + (f" ({100 * share:.0f} %)" if share else "")
    return "–"


def main():
    arguments = sys.argv[1:]
    if len(arguments) not in (1, 3) or (len(arguments) == 3 and arguments[1] != "--docs"):
        sys.exit("usage: gpu-report.py FOLDER [--docs FILE]")
    folder = pathlib.Path(arguments[0])
    text, summary = markdown(folder)
    (folder / "report.json").write_text(json.dumps(summary) + "\n")
    (folder / "report.md").write_text(text)
    if len(arguments) == 3:
        marked.replace(arguments[2], text)


if __name__ == "__main__":
    main()
