"""Numbers to ``docs/performance.md``."""

from statistics import median

from benchmarks.run import Values
from cfseg.costs import stage_tables
from cfseg.evaluation.cells import Table, quantity_cell
from cfseg.inference.steps import StageCost

HEAD = """# Performance

Made by `make bench` (`python -m benchmarks`), the numbers as they were measured stand in
[performance.json](performance.json). Networks are the paper's in size, with random weights; scans
are synthetic. *Derived* means: so many windows times the median window of the same table, plus the
measured rest; a whole case of these networks takes too long to be run often.
"""


def text(n: Values) -> str:
    """Return the page; sections that were not measured are left out."""
    sections = {
        "machine": _machine, "steps": _steps, "rest": _rest, "equal": _equal,
        "defaults": _defaults, "cascade": _cascade, "memory": _memory, "start": _start,
    }  # fmt: skip
    parts = [HEAD, *(make(n) for name, make in sections.items() if name in n)]
    return "\n".join(parts)


def table(head: str, rows: list[list[object]]) -> str:
    """Return a table in Markdown."""
    names = head.split("|")
    lines = [names, ["---"] * len(names), *[[_cell(value) for value in row] for row in rows]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def shown(made: Table) -> str:
    """Return a table of cfseg in Markdown."""
    return table("|".join(made.header), [list(row) for row in made.rows])


def _cell(value: object) -> str:
    return quantity_cell(value) if isinstance(value, float) else str(value)


def _machine(n: Values) -> str:
    m = n["machine"]
    quick = "\n**Made with --quick: small networks, of no meaning.**\n" if m["quick"] else ""
    return (
        f"\nMeasured on {m['cpu']}, Python {m['python']}; sgemm 4096: "
        f"{m['gflops']:.0f} GFLOP/s.\n{quick}"
    )


def _steps(n: Values) -> str:
    tables = stage_tables([StageCost.from_dict(values) for values in n["steps"]])
    return (
        "\n## One stage, step by step\n\n512x512x120 of 0.75x0.75x2.5 mm, one network over the "
        "whole field, step 0.5, no mirroring (`python -m benchmarks --only steps`). `cfseg "
        "benchmark CT --steps` makes these tables of your own scan and bundle.\n\n"
        + "\n".join(f"{shown(made)}\n{made.note}\n" for made in tables)
    )


def _rest(n: Values) -> str:
    rows = []
    for name, found in n["rest"].items():
        s = found["seconds"]
        rows.append([name, s["total"] - s["network"], s["read"], found["peak_mb"]])
    return (
        "\n## Everything but the network\n\nFile to file, one network over the whole field; one "
        "window is run and its logits repeated, its time taken off (`--only rest`). *equal* has "
        "mirroring and Gaussian on, *cropped* the body crop and step 1.\n\n"
        + table("what|seconds|of these reading|peak MB", rows)
    )


def _pair(n: Values, key: str) -> str:
    ours, theirs = n[key]["cfseg"], n[key]["nnunet"]
    ratios = [
        b["seconds"]["total"] / a["seconds"]["total"] for a, b in zip(ours, theirs, strict=True)
    ]
    rows: list[list[object]] = [
        [i + 1, a["seconds"]["total"], b["seconds"]["total"], ratio, a["peak_mb"], b["peak_mb"]]
        for i, (a, b, ratio) in enumerate(zip(ours, theirs, ratios, strict=True))
    ]
    memory = median(a["peak_mb"] / b["peak_mb"] for a, b in zip(ours, theirs, strict=True))
    return (
        table("pair|cfseg s|nnU-Net s|times as fast|cfseg peak MB|nnU-Net peak MB", rows)
        + f"\nMedian of the pairs: {median(ratios):.2f} times as fast, "
        f"{100 * memory:.0f} % of the memory.\n"
    )


def _whole(n: Values, key: str, ours: str, theirs: str) -> str:
    """Return a derived line for 512x512x120 if the rest was measured too."""
    if "rest" not in n or ours not in n["rest"]:
        return ""
    seconds, windows = {}, []
    for side, name in (("cfseg", ours), ("nnunet", theirs)):
        each = median(s for found in n[key][side] for s in found["each"])
        rest = n["rest"][name]["seconds"]
        windows.append(n["rest"][name]["forwards"])
        seconds[side] = windows[-1] * each + rest["total"] - rest["network"]
    peaks = n["rest"][ours]["peak_mb"] / n["rest"][theirs]["peak_mb"]
    return (
        f"\nDerived for 512x512x120 ({windows[0]} and {windows[1]} forward passes): cfseg "
        f"{seconds['cfseg']:.0f} s, nnU-Net {seconds['nnunet']:.0f} s, "
        f"**{seconds['nnunet'] / seconds['cfseg']:.2f} times as fast**; peak memory, measured, "
        f"{100 * peaks:.0f} % of nnU-Net's.\n"
    )


def _equal(n: Values) -> str:
    return (
        "\n## Against nnUNetPredictor, equal settings\n\nEqual weights, mirroring and Gaussian on "
        "in both, file to file, pairs in turn (`--only equal`).\n\n"
        + _pair(n, "equal")
        + _whole(n, "equal", "cfseg 120 equal", "nnU-Net 120 equal")
    )


def _defaults(n: Values) -> str:
    return (
        "\n## Against nnUNetPredictor, each with its defaults\n\ncfseg: body crop, step 1, no "
        "mirroring, no Gaussian; nnU-Net: step 0.5, mirroring, Gaussian (`--only defaults`).\n\n"
        + _pair(n, "defaults")
        + _whole(n, "defaults", "cfseg 120 cropped", "nnU-Net 120 equal")
    )


def _cascade(n: Values) -> str:
    rows: list[list[object]] = []
    for c in n["cascade"]:
        network = sum(median(c["each"][s][-1:]) * count for s, count in c["windows"].items())
        counts = " + ".join(str(c["windows"][s]) for s in ("coarse", "tumor_1", "tumor_2", "organ"))
        region = "x".join(map(str, c["region"]))
        rows.append(
            [c["slices"], c["spacing_mm"], region, counts, network, c["rest"], network + c["rest"],
             c["peak_mb"]]
        )  # fmt: skip
    head = (
        "slices|slice mm|true region|windows|network s (derived)|rest s|seconds (derived)|peak MB"
    )
    return (
        "\n## The whole cascade\n\nFour paper-size networks, 512x512 voxels of 0.75 mm, the sizes "
        "of the paper's Table 8. Random weights find no abdomen: the fine stages see the phantom's "
        "true region. Coarse step 1, fine step 0.5 (`--only cascade`).\n\n" + table(head, rows)
    )


def _memory(n: Values) -> str:
    rows: list[list[object]] = []
    for m in n["memory"]:
        memory = m["memory"]
        given_up = "; ".join(memory["given_up"]) or "nothing"
        rows.append([m["max_memory"] or "none", memory["planned_mb"], memory["used_mb"], given_up])
    return "\n## Memory\n\n512x512x600, four paper-size networks (`--only memory`).\n\n" + table(
        "--max-memory|planned MB|used MB|given up", rows
    )


def _start(n: Values) -> str:
    starts = [s["seconds"] for s in n["start"]["starts"]]
    rests = n["start"]["batch"]["rests"]
    return (
        "\n## Start\n\nThe bundled model, from the start of Python to the first window: "
        f"{', '.join(f'{s:.1f}' for s in starts)} s (the first may be colder). Everything but the "
        f"network in a batch of {len(rests)} phantoms of 128x112x96: median {median(rests):.2f} s "
        "per case (`--only start`).\n"
    )
