"""Numbers to ``docs/performance.md``."""

from functools import partial
from pathlib import Path
from statistics import mean, median

from benchmarks.cases import DEFAULT_STEP
from benchmarks.run import Values
from cfseg.costs import stage_tables
from cfseg.evaluation.cells import quantity_cell
from cfseg.inference.steps import StageCost
from cfseg.tables import Table

HEAD = """# Performance

Made by `make bench` (`python -m benchmarks`), the numbers as they were measured stand in
[performance.json](performance.json). Networks are the paper's in size, with random weights; scans
are synthetic. *Derived* means: so many windows times the median window of the same table, plus the
measured rest; a whole case of these networks takes too long to be run often.
"""


def text(n: Values, plot: str) -> str:
    """Return the page; sections that were not measured are left out.

    Args:
        n: the numbers of each section.
        plot: file name of the cascade's picture.
    """
    sections = {
        "machine": _machine, "steps": _steps, "rest": _rest, "equal": _equal, "labels": _labels,
        "defaults": _defaults, "accuracy": _accuracy, "cascade": partial(_cascade, plot=plot),
        "memory": _memory, "start": _start, "training": _training,
    }  # fmt: skip
    parts = [HEAD, *(make(n) + _elsewhere(n, name) for name, make in sections.items() if name in n)]
    return "\n".join(parts)


def plot_name(page: Path) -> str:
    """Return the file name of the cascade's picture beside a page."""
    return f"{page.stem}-cascade.png"


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


def _elsewhere(n: Values, section: str) -> str:
    """Return a line if a section was measured on another processor than the page's."""
    cpu = _cpu(n, section)
    if "machine" not in n or cpu in (None, n["machine"]["cpu"]):
        return ""
    return f"\nThis section was measured on another machine: {cpu}.\n"


def _cpu(n: Values, section: str) -> str | None:
    name: str | None = n.get("cpu", {}).get(section)
    return name


def _steps(n: Values) -> str:
    tables = stage_tables([StageCost.from_dict(values) for values in n["steps"]])
    return (
        "\n## One stage, step by step\n\n512x512x120 of 0.75x0.75x2.5 mm, one network over the "
        "whole field, step 0.5, no mirroring (`python -m benchmarks --only steps`). `cfseg "
        "benchmark CT --steps` makes these tables of your own scan and bundle.\n\n"
        + "\n".join(f"{made.title}:\n\n{shown(made)}\n{made.note}\n" for made in tables)
    )


def _rest(n: Values) -> str:
    rows = []
    for name, found in n["rest"].items():
        s = found["seconds"]
        rows.append([name, s["total"] - s["network"], s["read"], found["peak_mb"]])
    return (
        "\n## Everything but the network\n\nFile to file, one network over the whole field; one "
        "window is run and its logits repeated, its time taken off (`--only rest`). *equal* has "
        f"mirroring and Gaussian on, *cropped* the body crop and step {DEFAULT_STEP}.\n\n"
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


def _whole(n: Values, key: str, ours: str, theirs: str, side: str = "cfseg") -> str:
    """Return a derived line for 512x512x120 if the rest was measured too.

    ``side`` is ``int8`` for that, whose windows are other, and whose rest is the same.
    """
    if "rest" not in n or ours not in n["rest"] or _cpu(n, key) != _cpu(n, "rest"):
        return ""
    seconds, windows = {}, []
    for one, name in ((side, ours), ("nnunet", theirs)):
        each = median(s for found in n[key][one] for s in found["each"])
        rest = n["rest"][name]["seconds"]
        windows.append(n["rest"][name]["forwards"])
        seconds[one] = windows[-1] * each + rest["total"] - rest["network"]
    peaks = n["rest"][ours]["peak_mb"] / n["rest"][theirs]["peak_mb"]
    memory = f"; peak memory, measured, {100 * peaks:.0f} % of nnU-Net's" if side == "cfseg" else ""
    return (
        f"\nDerived for 512x512x120 ({windows[0]} and {windows[1]} forward passes): cfseg"
        f"{' in int8' if side == 'int8' else ''} {seconds[side]:.0f} s, nnU-Net "
        f"{seconds['nnunet']:.0f} s, **{seconds['nnunet'] / seconds[side]:.2f} times as fast**"
        f"{memory}.\n"
    )


def _int8(n: Values) -> str:
    """Return what int8 made in the same rounds, and for the whole scan."""
    found = n["defaults"].get("int8")
    if not found:
        return ""
    fp32, theirs = n["defaults"]["cfseg"], n["defaults"]["nnunet"]
    total = [[case["seconds"]["total"] for case in side] for side in (found, fp32, theirs)]
    seconds = ", ".join(quantity_cell(s) for s in total[0])
    to_theirs = median(b / a for a, b in zip(total[0], total[2], strict=True))
    to_fp32 = median(b / a for a, b in zip(total[0], total[1], strict=True))
    return (
        f"\nThe same network in int8, in the same rounds: {seconds} s; median {to_theirs:.2f} "
        f"times as fast as nnU-Net, {to_fp32:.2f} times as fast as fp32.\n"
        + _whole(n, "defaults", "cfseg 120 cropped", "nnU-Net 120 equal", "int8")
    )


def _equal(n: Values) -> str:
    return (
        "\n## Against nnUNetPredictor, equal settings\n\nEqual weights, mirroring and Gaussian on "
        "in both, file to file, pairs in turn (`--only equal`).\n\n"
        + _pair(n, "equal")
        + _whole(n, "equal", "cfseg 120 equal", "nnU-Net 120 equal")
    )


def _labels(n: Values) -> str:
    found = n["labels"]
    rows: list[list[object]] = [
        [name, *(f"{100 * share[of]:.4f}" for of in ("fp32", "stock"))]
        for name, share in found["same"].items()
    ]
    return (
        "\nThe same settings with the trained networks of the bundled model, on a phantom of "
        f"{found['voxels']} voxels (`--only labels`): voxels labelled as by nnU-Net's network in a "
        "plain loop that adds up in float32, and as by stock nnU-Net, which adds up in half "
        "precision on a CPU.\n\n" + table("network|% as fp32|% as stock", rows)
    )


def _defaults(n: Values) -> str:
    return (
        "\n## Against nnUNetPredictor, each with its defaults\n\ncfseg: body crop, step "
        f"{DEFAULT_STEP}, no mirroring, no Gaussian; nnU-Net: step 0.5, mirroring, Gaussian "
        "(`--only defaults`). The scan of the pairs has two windows, at step "
        f"{DEFAULT_STEP} as at 1.\n\n"
        + _pair(n, "defaults")
        + _whole(n, "defaults", "cfseg 120 cropped", "nnU-Net 120 equal")
        + _int8(n)
        + _accuracy_in_short(n)
    )


def _accuracy_in_short(n: Values) -> str:
    """Return what the settings of the speed lines cost in accuracy, if that was measured."""
    if "accuracy" not in n:
        return ""
    alone = [v for v in n["accuracy"]["variants"] if v["networks"] == "one network"]
    default = mean(alone[0]["organs"])
    parts = [
        f"{100 * (default - mean(v['organs'])):+.2f} against {v['settings']}"
        if v["precision"] == "fp32"
        else f"{100 * (mean(v['organs']) - default):+.2f} in int8 against fp32"
        for v in alone[1:]
    ]
    return (
        "\nAccuracy of these settings, points of mean DSC over organs on "
        f"{len(alone[0]['organs'])} phantoms, one network of the bundled model: "
        f"{'; '.join(parts)} (see Accuracy).\n"
    )


def _accuracy(n: Values) -> str:
    found = n["accuracy"]
    first: dict[str, Values] = {}
    rows: list[list[object]] = []
    for v in found["variants"]:
        base = first.setdefault(v["networks"], v)
        organs, tumors = 100 * mean(v["organs"]), 100 * mean(v["tumors"]) if v["tumors"] else "-"
        points = f"{organs - 100 * mean(base['organs']):+.2f}"
        rows.append(
            [v["networks"], v["settings"], v["precision"], f"{organs:.2f}", points, tumors,
             median(v["seconds"])]
        )  # fmt: skip
    head = (
        "networks|settings|precision|organs, mean DSC (%)|points to the default|"
        "tumors, mean DSC (%)|s per case (median)"
    )
    return (
        f"\n## Accuracy\n\nThe bundled model on {len(found['variants'][0]['organs'])} phantoms "
        "that no training saw (`--only accuracy`). The mean DSC is over the organs that a case "
        "has, then over cases; tumors over cases that have any. *One network* is the coarse one "
        "over the body. The model was trained without mirroring, as left and right organs have "
        f"labels of their own; mirrored it knows neither.\n\n{table(head, rows)}\n"
        f"{_int8_check(found['int8'])}\n"
    )


def _int8_check(found: Values) -> str:
    if "refused" in found:
        return f"No int8: `{found['refused']}`"
    check = found["check"]
    return (
        f"int8 by `cfseg bundle quantize`, checked there on {check['cases']} other phantoms: DSC "
        f"{check['dsc_fp32']:.4f} in fp32, {check['dsc_int8']:.4f} in int8, allowed is a loss of "
        f"{check['dsc_loss']}."
    )


def network_seconds(case: Values) -> float:
    """Return the seconds of all windows of a cascade: their number times the last one that ran."""
    return sum(case["each"][name][-1] * count for name, count in case["windows"].items())


def _cascade(n: Values, plot: str) -> str:
    rows: list[list[object]] = []
    for c in n["cascade"]:
        counts = " + ".join(str(c["windows"][s]) for s in ("coarse", "tumor_1", "tumor_2", "organ"))
        region, network = "x".join(map(str, c["region"])), network_seconds(c)
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
        "true region (z, y, x). Coarse step 1, fine step 0.5; two windows of each network are run, "
        "the others repeat the last answer (`--only cascade`).\n\n"
        f"{table(head, rows)}\n![Seconds and peak memory against slices]({plot})\n"
    )


def _memory(n: Values) -> str:
    rows: list[list[object]] = []
    for m in n["memory"]:
        where = "x".join(map(str, m["region"]))
        ran = "all" if m["most"] is None else f"{m['most']} of each network"
        row: list[object] = [where, ran, m["max_memory"] or "none"]
        if "refused" in m:
            rows.append([*row, "refused", "-", "-", "-", "-"])
            continue
        memory = m["memory"]
        given_up = "; ".join(memory["given_up"]) or "nothing"
        used = (memory["planned_mb"], memory["used_mb"])
        rows.append([*row, *used, m["peak_mb"], given_up, f"`{m['labels_sha256'][:12]}`"])
    head = (
        "region|fine windows run|--max-memory|planned MB|used MB|peak MB|given up|label map, sha256"
    )
    refused = [f"- `--max-memory {m['max_memory']}`: {m['refused']}" for m in n["memory"]
               if "refused" in m]  # fmt: skip
    return (
        "\n## Memory\n\n512x512x600 voxels of 0.75x0.75x1 mm, four paper-size networks with random "
        "weights (`--only memory`). First the phantom's true region, of which two windows of each "
        "network are run and the others repeat the last answer: memory, sums and labels are as "
        "ever, the time is not. Then the middle of it with all windows of the fine networks. Of "
        "the coarse network two windows run, its mask is replaced by the truth.\n\n"
        + table(head, rows)
        + "\n"
        + _same_labels(n["memory"])
        + "\n".join(refused)
        + "\n"
    )


def _same_labels(found: list[Values]) -> str:
    by_region: dict[str, set[str]] = {}
    for m in found:
        if "refused" not in m:
            by_region.setdefault(str(m["region"]), set()).add(m["labels_sha256"])
    same = all(len(digests) == 1 for digests in by_region.values())
    return f"Label maps of one region are {'the same' if same else '**not** the same'}.\n\n"


def _start(n: Values) -> str:
    starts = [s["seconds"] for s in n["start"]["starts"]]
    rests = n["start"]["batch"]["rests"]
    return (
        "\n## Start\n\nThe bundled model, from the start of Python to the first window: "
        f"{', '.join(f'{s:.1f}' for s in starts)} s (the first may be colder). Everything but the "
        f"network in a batch of {len(rests)} phantoms of 128x112x96: median {median(rests):.2f} s "
        "per case (`--only start`).\n"
    )


def _training(n: Values) -> str:
    parts = {"augmentation": _augmentations, "steps": _training_steps}
    return "".join(make(n["training"][k]) for k, make in parts.items() if k in n["training"])


def _augmentations(found: list[Values]) -> str:
    return (
        "\n## Training: augmentation\n\nWindows per second from crops that have been read, by "
        "cfseg on all threads of one process, by stock nnU-Net's worker processes, and by its "
        "transforms (batchgeneratorsv2) on all threads with the nearest label; batches of two, no "
        "mirroring, in turn (`--only training`).\n" + "".join(map(_augmentation, found))
    )


def _augmentation(found: Values) -> str:
    sides = {side: [one["samples_per_s"] for one in each] for side, each in found["rounds"].items()}
    others = [side for side in sides if side != "cfseg"]
    gflops = [one["gflops"] for one in found["rounds"]["cfseg"]]
    rows: list[list[object]] = [
        [i + 1, gflops[i], *(each[i] for each in sides.values())] for i in range(len(gflops))
    ]
    times = [
        f"{median(a / b for a, b in zip(sides['cfseg'], sides[other], strict=True)):.1f} times "
        f"{other}"
        for other in others
    ]
    where = f"{'x'.join(map(str, found['patch']))}, elastic {found['elastic']:g}"
    return (
        f"\n{where}, {found['samples']} samples a round:\n\n"
        + table("|".join(["round", "sgemm GFLOP/s", *sides]), rows)
        + f"\nMedian of the rounds: {', '.join(times)}.\n"
    )


def _training_steps(found: list[Values]) -> str:
    return (
        "\n## Training: steps\n\nMedian seconds of a whole step of two windows, the demo recipe's "
        "networks in fp32 on two threads, by cfseg with windows of a cohort, by cfseg with one "
        "batch again and again, and by stock `nnUNetTrainer` with one process that augments as it "
        "comes (labels turned one by one, no mirroring), in turn (`--only training`). *Feed* is "
        "the share of a step that goes to making windows: 1 - one batch / windows.\n"
        + "".join(map(_steps_of_network, found))
    )


def _steps_of_network(found: Values) -> str:
    rows: list[list[object]] = []
    feeds, ratios = [], []
    for number, (ours, stock) in enumerate(zip(found["cfseg"], found["nnunet"], strict=True), 1):
        step, one, theirs = (
            ours["seconds"]["step"], ours["seconds"]["one_batch"], stock["seconds"]["step"],
        )  # fmt: skip
        feeds.append(100 * (1 - one / step))
        ratios.append(step / theirs)
        machine = [f"{ours['load']:.1f}", ours["gflops"], ours["flags"]]
        rows.append([number, *machine, step, one, f"{feeds[-1]:.1f}", theirs, f"{ratios[-1]:.2f}"])
    head = "round|load|sgemm GFLOP/s|CPU|cfseg s|one batch s|feed %|nnU-Net s|cfseg / nnU-Net"
    return (
        f"\nThe {found['stage']} network, {'x'.join(map(str, found['patch']))}, {found['steps']} "
        f"steps after {found['warm_up']}:\n\n{table(head, rows)}\nMedian of the rounds: feed "
        f"{median(feeds):.1f} %, a step takes {median(ratios):.2f} of nnU-Net's.\n"
    )
