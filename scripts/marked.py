#!/usr/bin/env python3
"""Replaces the part of a document between its markers by the Markdown on standard input."""

import pathlib
import sys

START, END = "<!-- measured: start -->", "<!-- measured: end -->"


def replace(path, text):
    """Puts text between the markers of a file, each of which it has once."""
    path = pathlib.Path(path)
    before, found, rest = path.read_text().partition(START)
    _, end, after = rest.partition(END)
    if not found or not end:
        sys.exit(f"{path} has no markers `{START}` and `{END}`")
    path.write_text(before + START + "\n" + text + END + after)


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: marked.py DOCUMENT < MARKDOWN")
    replace(sys.argv[1], sys.stdin.read())


if __name__ == "__main__":
    main()
