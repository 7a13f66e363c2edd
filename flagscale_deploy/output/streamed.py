"""Print a text that comes in pieces, without secrets."""

from __future__ import annotations

from types import TracebackType

from flagscale_deploy.output.console import Console

KEPT = 4 << 10
"""Characters at the end of a long text that are looked through with each piece."""


class StreamedText:
    """Prints words as soon as they are whole: a secret that is cut in two by a piece's end would not be found.

    Where a secret has blanks in it, whole lines are printed. Of a long text the beginning is looked through no more.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._ends = "\n" if console.redactor.has_blanks else " \n"
        self._text = self._printed = ""

    def __enter__(self) -> StreamedText:
        return self

    def __exit__(self, _kind: type[BaseException] | None, _e: BaseException | None, _tb: TracebackType | None) -> None:
        """Print the rest, and the end of the line where there is any text."""
        if self._text:
            self._text += "\n"
            self.add("")

    def add(self, piece: str) -> None:
        """Take a piece, and print what is whole by now."""
        self._text += piece
        whole = max(self._text.rfind(end) for end in self._ends) + 1
        clean = self._console.clean(self._text[:whole])
        if not clean.startswith(self._printed):  # a key whose beginning was not known for one
            self._printed = ""
        self._console.write(clean[len(self._printed) :])
        self._printed = clean
        if whole > 2 * (KEPT + self._console.redactor.longest):
            self._forget(self._console.redactor.cut(self._text, whole - KEPT - self._console.redactor.longest), whole)

    def _forget(self, end: int, whole: int) -> None:
        """Forget the beginning of the text, where the rest by itself is shown as it was."""
        before, after = self._console.clean(self._text[:end]), self._console.clean(self._text[end:whole])
        if before + after == self._printed:
            self._text, self._printed = self._text[end:], after
