"""The next scan is read in a thread while the networks run on the one before.

Reading waits on the disk and inflates outside of the interpreter's lock, so it costs the networks
next to nothing.
"""

from collections.abc import Callable
from threading import Thread

from cfseg.io.found import Input
from cfseg.io.scan import Scan


class ReadAhead:
    """Reads one scan before it is asked for.

    Args:
        read: reads a scan.
    """

    def __init__(self, read: Callable[[Input], Scan]) -> None:
        self._read = read
        self._coming: Input | None = None
        self._begun: Input | None = None
        self._thread: Thread | None = None
        self._found: Scan | Exception | None = None

    def announce(self, wanted: Input) -> None:
        """Say which scan will be taken after the next one that is taken."""
        self._coming = wanted

    def take(self, wanted: Input) -> Scan:
        """Return a scan, read ahead or now, and begin to read the one that was announced.

        Raises:
            InputError: as :func:`cfseg.io.read_scan`; an error of reading ahead comes here too.
        """
        try:
            return self._taken(wanted)
        finally:
            coming, self._coming = self._coming, None
            if coming is not None and coming != wanted:
                self._begin(coming)

    def _taken(self, wanted: Input) -> Scan:
        thread, self._thread = self._thread, None
        if thread is None or wanted != self._begun:
            self._begun, self._found = None, None
            return self._read(wanted)
        thread.join()
        found, self._found = self._found, None
        if isinstance(found, Exception):
            raise found
        return self._read(wanted) if found is None else found

    def _begin(self, wanted: Input) -> None:
        self._begun, self._found = wanted, None
        # Nothing waits for it: a stop of the program does not hang on a slow disk.
        self._thread = Thread(target=self._run, args=(wanted,), daemon=True)
        self._thread.start()

    def _run(self, wanted: Input) -> None:
        try:
            found: Scan | Exception = self._read(wanted)
        except Exception as error:
            found = error
        if wanted == self._begun:
            self._found = found
