"""What commands print: the one way to a terminal, on which foreign text is shown and not obeyed.

A file's name or a bundle's notice can hold escape sequences, marks that turn the direction of
writing and what rich takes for its own markup. Nothing else in the command line prints.
"""

import json
from typing import Any

import rich.console
import rich.table
from rich.text import Text

from cfseg.tables import shown


class Console(rich.console.Console):
    """Standard output or standard error of a command."""

    def say(self, line: str = "") -> None:
        """Print a line; a log that cannot be written is no reason to stop the work."""
        try:
            self.print(Text(shown(line)), soft_wrap=True)
        except OSError as error:
            if not self.stderr or isinstance(error, BrokenPipeError):
                raise

    def show(self, *tables: "Table") -> None:
        """Print tables."""
        self.print(*tables)

    def show_json(self, values: Any) -> None:  # noqa: ANN401 - JSON
        """Print values as JSON, which escapes by itself what is not plain."""
        for line in json.dumps(values, indent=2).splitlines():
            self.say(line)


class Table(rich.table.Table):
    """A table for the terminal; all that stands in it is text.

    Args:
        headers: of the columns.
        title: above it.
        options: as rich has them.
    """

    def __init__(self, *headers: str, title: str = "", **options: Any) -> None:  # noqa: ANN401
        super().__init__(
            title=Text(shown(title), style="table.title") if title else None, **options
        )
        for header in headers:
            self.add_column(header)

    def add_column(self, header: str = "", **options: Any) -> None:  # type: ignore[override] # noqa: ANN401
        """Add a column; options as rich has them."""
        super().add_column(Text(shown(header)), **options)

    def add_row(self, *cells: str | Text) -> None:  # type: ignore[override]
        """Add a row; a Text is taken as it is."""
        super().add_row(*(it if isinstance(it, Text) else Text(shown(it)) for it in cells))
