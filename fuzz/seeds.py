#!/usr/bin/env python3
"""Writes the first inputs of each target below fuzz/corpus, from the cases of the language in tests/asa."""

import json
import pathlib
import re

here = pathlib.Path(__file__).resolve().parent
# the first bytes choose slots and no schema (see targets/decoder.rs)
DECODER_CHOICES = bytes([3, 0, 2, 3, 1])


def put(target, name, data):
    folder = here / "corpus" / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)


cases = sorted((here.parent / "tests" / "asa").glob("*/*.json"))
for path in cases:
    case = json.loads(path.read_text(encoding="utf-8"))
    query = case["query"]
    # the names of the catalog in src/lib.rs
    for names, ours in ((case["inputs"], "ab"), (case.get("reference", {}), "r")):
        for name, our in zip(names, ours):
            query = re.sub(rf"\b{re.escape(name)}\b", our, query)
    for target in ("lexer", "parser", "binder"):
        put(target, path.stem, query.encode())
    for i, events in enumerate(case.get("inputs", {}).values()):
        # an array for the first input, lines for the others
        text = json.dumps(events) if i == 0 else "\n".join(json.dumps(e) for e in events)
        put("decoder", f"{path.stem}-{i}", DECODER_CHOICES + text.encode())

# one run of every query of the executor's list: choices of options, then steps with one event each
for query in range(32):
    steps = bytes(b for i in range(12) for b in (42 + i % 8 + 8 * (i % 3), 0, 3, 240 + i % 3, 241 + i % 5, 8 + i, 30 + i))
    put("executor", f"query-{query}", bytes([query, 2, query % 4, 0, 0, 0]) + steps)

for path in sorted((here.parent / "udfs" / "target" / "components").glob("*.wasm")):
    if path.stat().st_size < 100_000:
        put("loader", path.stem, path.read_bytes())
print(f"seeds of {len(cases)} cases below {here / 'corpus'}")
