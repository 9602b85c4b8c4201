"""Where text comes from: Python's own standard library, the user's files, tables and lists."""

from __future__ import annotations

import glob
import sysconfig
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers.data import files
from helpers.data.check import POLICIES, DataReport, Fault, FileFault, excerpt_of, flaw_of
from helpers.data.document import Document, Spool, measure
from helpers.data.files import suffix_of
from helpers.data.table import SUFFIXES, Row, rows_of_file, rows_of_frame, rows_of_list
from helpers.data.text import read_text_file
from helpers.errors import ConfigError, DataError

if TYPE_CHECKING:
    import pandas as pd

    Source = str | Path | Sequence[str] | Sequence[dict] | pd.DataFrame | pd.Series

EMBEDDED = "python-stdlib"
TEST_FOLDERS = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"}
TEXT_SUFFIXES = (".txt", ".md", ".py")


def read_documents(source: Source, **options: Any) -> list[Document]:
    """Read `python-stdlib`, a file, a folder, a DataFrame, or a list of texts or of dicts.

    `options` are those of `read_source`.
    Raises: DataError if there is nothing to read, or with all rows that cannot be trained on.
    """
    return read_source(source, **options)[0]


def read_source(
    source: Source,
    *,
    text_column: str = "",
    delimiter: str = "",
    bad_rows: str = "fail",
    spool_dir: str | Path | None = None,
) -> tuple[list[Document], DataReport]:
    """Read every row of a source: the texts that can be trained on, and a report of the rest.

    A file of text is one document, a row of a table another. Where `bad_rows` is skip, bad rows
    are left out, of a file of text its bad lines.
    Raises: DataError if there is nothing to read, or with all rows that cannot be trained on.
    """
    if bad_rows not in POLICIES:
        raise ConfigError(
            f"bad_rows is {bad_rows!r}, but {' or '.join(POLICIES)} is wanted. Choose one of them."
        )
    if len(delimiter) > 1 or delimiter in {"\n", "\r", '"'}:
        raise ConfigError(
            f"delimiter is {delimiter!r}, but one character other than a quote is wanted. Leave "
            "it out to have it found."
        )
    reader = _Reader(text_column, delimiter, bad_rows, spool_dir)
    documents = reader.read(source)
    report = reader.report
    report.n_documents = len(documents)
    report.settle()
    if not documents:
        left_out = f"all of its {report.n_rows:,} rows were left out" if report.n_rows else "no row"
        raise DataError(f"{report.source} has {left_out}, but training needs text. Load more text.")
    _note_copies(documents, report)
    return documents, report


class _Reader:
    """Reads a source into documents, and notes what is wrong on the way."""

    def __init__(
        self, text_column: str, delimiter: str, bad_rows: str, spool_dir: str | Path | None
    ) -> None:
        self.report = DataReport(bad_rows=bad_rows)
        self._columns = {"text_column": text_column, "report": self.report}
        self._delimiter, self._spool_dir = delimiter, spool_dir
        self._spool: Spool | None = None
        self._ids: dict[int, str] = {}

    def read(self, source: Source) -> list[Document]:
        if source is None:
            raise DataError(
                f"source is None, but text is wanted. Give {EMBEDDED!r}, a path, or a list of "
                "strings."
            )
        if isinstance(source, str | Path):
            self.report.source = str(source)
            is_embedded = str(source) == EMBEDDED
            return self._stdlib() if is_embedded else self._path(Path(source).expanduser())
        if type(source).__module__.startswith("pandas"):
            self.report.source = f"a {type(source).__name__} of {len(source):,} rows"
            return self._add(rows_of_frame(source, **self._columns), to_spool=True)
        return self._list(source)

    def _list(self, source: Sequence[Any]) -> list[Document]:
        if isinstance(source, dict | bytes | bytearray) or not hasattr(source, "__iter__"):
            raise DataError(
                f"source is of type {type(source).__name__}, but a path, a DataFrame, or a list of "
                "texts or of dicts is wanted. Make a list of it."
            )
        self.report.source = "the list of texts"
        documents = self._add(rows_of_list(source, **self._columns), to_spool=False)
        if not self.report.n_rows:
            raise DataError(
                "The list of texts is empty, but training needs text. Give some strings."
            )
        self.report.source = f"{self.report.n_rows} texts"
        return documents

    def _path(self, path: Path) -> list[Document]:
        found = self._files(path)
        self.report.n_files = len(found)
        documents: list[Document] = []
        for file in found:
            label = str(file.relative_to(path)) if path.is_dir() else file.name
            with self._faults_of_files():
                documents += self._file(file, label)
        return documents

    def _file(self, file: Path, label: str) -> list[Document]:
        if suffix_of(file) not in SUFFIXES:
            self._refuse_column(file)
            return read_text_file(file, self.report, self.spool)
        rows = rows_of_file(file, label, delimiter=self._delimiter, **self._columns)
        before = self.report.n_rows
        documents = self._add(rows, to_spool=True)
        if self.report.n_rows == before:
            raise FileFault("no rows", file, "has no rows, but training needs text")
        return documents

    def _refuse_column(self, source: Any) -> None:
        if name := self._columns["text_column"]:
            says = f"has no columns, but text_column is {name!r}; leave it empty"
            raise FileFault("columns", source, says)

    @contextmanager
    def _faults_of_files(self) -> Iterator[None]:
        """Go on with the next file, so that the faults of all are told at once."""
        try:
            yield
        except FileFault as error:
            self.report.fault(error.fault)

    def _files(self, path: Path) -> list[Path]:
        """One file, those of a pattern, or those of a folder: .txt, else the one kind it holds."""
        if path.is_dir():
            return self._folder(path)
        if path.is_file():
            return [path]
        if path.exists():
            raise DataError(
                f"source is {str(path)!r}, which is neither a file nor a folder. Give one of them."
            )
        matches = sorted(Path(p) for p in glob.glob(str(path), recursive=True))
        if found := [p for p in matches if p.is_file()]:
            return found
        raise DataError(
            f"source is {str(path)!r}, but there is no such file. Give the path of a .txt file or "
            f"of a folder of them, of a table ({', '.join(SUFFIXES)}), or {EMBEDDED!r}."
        )

    def _folder(self, path: Path) -> list[Path]:
        below = sorted(p for p in path.rglob("*") if p.is_file())
        found = [p for p in below if p.name.endswith(".txt")]
        known = (*TEXT_SUFFIXES, *SUFFIXES)
        rest = [] if found == below else [p for p in below if suffix_of(p) in known]
        others = Counter("".join(p.suffixes[-2:]) for p in rest if p.suffix != ".txt")
        listed = ", ".join(f"{n} {suffix}" for suffix, n in sorted(others.items()))
        kinds = {suffix_of(p) for p in rest}
        if not found and len(kinds) > 1:
            raise DataError(
                f"The folder {path} has no .txt file, but {listed}, of which one kind is wanted. "
                f"Give one file, or a pattern such as {path / '*.jsonl'}."
            )
        if not found:
            found = rest
        elif others:
            says = f"holds {listed} beside .txt, which are not read"
            self.report.note("files not read", str(path), says, count=sum(others.values()))
        if not found:
            raise DataError(
                f"The folder {path} has no .txt file, but training needs text. "
                "Put .txt files there, or a table, or give another path as source."
            )
        return found

    def _stdlib(self) -> list[Document]:
        """The sources of the running Python's standard library, without its tests."""
        self._refuse_column(EMBEDDED)
        root = Path(sysconfig.get_path("stdlib"))
        documents = []
        for path in sorted(root.rglob("*.py")):
            relative = path.relative_to(root)
            if TEST_FOLDERS.isdisjoint(relative.parts):
                text = "".join(files.text_of(path))
                if text.strip():
                    documents.append(Document(relative.as_posix(), *measure([text]), path))
        if not documents:
            raise DataError(
                f"The standard library at {root} has no .py files, but {EMBEDDED} needs them. "
                "Give the path of a .txt file as source."
            )
        self.report.n_files = self.report.n_rows = len(documents)
        return documents

    def _add(self, rows: Iterable[Row], *, to_spool: bool) -> list[Document]:
        """Check rows one by one; the sound ones become documents."""
        documents = []
        for place, text, row_id, flaw in rows:
            self.report.n_rows += 1
            found = flaw or flaw_of(text)
            if found is None and to_spool and len(text) > files.LONGEST_ROW:
                says = f"is {len(text):,} characters long, but {files.LONGEST_ROW:,} are the most"
                found = "too long", says
            if found is not None:
                kind, says, *rest = found
                byte = f", byte {flaw.byte}" if flaw and flaw.byte is not None else ""
                shown = rest[0] if rest else _shown(kind, text)
                self.report.fault(Fault(kind, f"{place}{byte}", says, shown))
                continue
            documents.append(self._document(place, text, to_spool))
            self._look_for_copies(place, row_id)
            if "\ufffd" in text:
                says = "holds U+FFFD, which some program put where it could not read"
                self.report.note(
                    "replaced characters", place, says, excerpt_of(text, text.index("\ufffd"))
                )
        return documents

    def _document(self, place: str, text: str, to_spool: bool) -> Document:
        digest, n_bytes = measure([text])
        if not to_spool:
            return Document(place, digest, n_bytes, text)
        return Document(place, digest, n_bytes, self.spool(), self.spool().add(text.encode()))

    def spool(self) -> Spool:
        """The file that keeps texts of tables, made when it is needed."""
        if self._spool is None:
            self._spool = Spool(self._spool_dir)
        return self._spool

    def _look_for_copies(self, place: str, row_id: Any) -> None:
        if row_id is None or row_id == "":
            return
        key = hash(str(row_id))
        if key in self._ids:
            says = f"has the id {excerpt_of(row_id)} of {self._ids[key]} again"
            self.report.note("repeated ids", place, says)
        else:
            self._ids[key] = place


def _shown(kind: str, text: Any) -> str:
    """An excerpt, where it tells more than the sentence does."""
    if kind in ("missing value", "no text") and not isinstance(text, str):
        return ""
    at = text.index("\0") if kind == "NUL" else 0
    return excerpt_of(text, at)


def _note_copies(documents: Sequence[Document], report: DataReport) -> None:
    """Count texts that come more than once; the split keeps them together."""
    if len({d.digest for d in documents}) == len(documents):
        return
    first: dict[bytes, str] = {}
    for document in documents:
        earlier = first.setdefault(document.digest, document.name)
        if earlier is not document.name:
            report.note("repeated texts", document.name, f"is the text of {earlier} again")
