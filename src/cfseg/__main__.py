"""``python -m cfseg``, the same as ``cfseg``."""

from cfseg.cli import main

if __name__ == "__main__":
    main()
