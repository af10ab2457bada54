"""``python -m tests.fuzz``: thousands of damaged inputs, to which only declared answers come.

Every mutant is read, or refused with a code of cfseg and a sentence or two; none raises anything
else, warns, takes 10 s, or 2 GB of memory more than there was (the peak of what is resident, of a
process and its children; its address space has a limit, too). A scan that is read has its label map
written. Each mutant is the same for the same seed, kind and number.
"""

import argparse
import faulthandler
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests.fuzz.kinds import KINDS
from tests.fuzz.run import Mutant, Outcome, run_all, run_one

SEED, COUNT = 20261128, 5000


def mutants(count: int) -> list[Mutant]:
    """Return so many mutants, of each kind its share and one at least."""
    whole = sum(kind.share for kind in KINDS.values())
    numbers = {name: max(1, round(kind.share * count / whole)) for name, kind in KINDS.items()}
    return [(name, number) for name, most in numbers.items() for number in range(most)]


def main() -> int:
    """Run the command line; return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--count", type=int, default=COUNT, help="of all mutants, or of one kind's")
    parser.add_argument("--kind", choices=list(KINDS), help="this kind alone")
    parser.add_argument("--number", type=int, help="this mutant of the kind alone; keep it")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    args = parser.parse_args()
    if args.number is not None and not args.kind:
        parser.error("--number is of a --kind")
    if args.number is not None:
        faulthandler.enable()
        folder = Path(tempfile.mkdtemp(prefix="cfseg-fuzz-"))
        outcome = run_one((args.kind, args.number), args.seed, folder)
        print(f"{outcome}\nkept in {folder}")
        return bool(outcome.fault)
    chosen = mutants(args.count)
    if args.kind:
        chosen = [(args.kind, number) for number in range(args.count)]
    outcomes: list[Outcome] = []

    def on_outcome(outcome: Outcome) -> None:
        outcomes.append(outcome)
        if not len(outcomes) % 100:
            print(f"{len(outcomes)} of {len(chosen)}", file=sys.stderr, flush=True)

    run_all(chosen, args.seed, args.jobs, on_outcome)
    print(table(outcomes))
    faults = sorted(outcome.mutant for outcome in outcomes if outcome.fault)
    by_mutant = {outcome.mutant: outcome for outcome in outcomes}
    for kind, number in faults:
        print(f"\n{by_mutant[kind, number].fault}")
        print(f"  python -m tests.fuzz --seed {args.seed} --kind {kind} --number {number}")
    return bool(faults)


def table(outcomes: list[Outcome]) -> str:
    """Return what became of each kind, as lines of text."""
    lines = [f"{'kind':12} mutants  read  slowest s  most MB  faults  refused"]
    for name in KINDS:
        its = [outcome for outcome in outcomes if outcome.mutant[0] == name]
        if not its:
            continue
        codes = Counter(code for outcome in its for code in {*outcome.codes} - {""})
        read = sum(not any(outcome.codes) and not outcome.fault for outcome in its)
        seconds, mb = (max(getattr(it, key) for it in its) for key in ("seconds", "mb"))
        faults = sum(bool(outcome.fault) for outcome in its)
        refused = ", ".join(f"{code} {count}" for code, count in codes.most_common())
        lines.append(
            f"{name:12} {len(its):7} {read:5} {seconds:10.2f} {mb:8.0f} {faults:7}  {refused}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
