"""Tables of results, for the terminal and as Markdown, CSV and LaTeX."""

from __future__ import annotations

import csv as writer
import io
import re
from collections.abc import Sequence

Cell = str | int | float | None

LOG_WIDTH = 120  # of tables where there is no terminal to fill

_LATEX = {
    **{sign: "\\" + sign for sign in "{}$&#%_"},
    **{"\\": r"\textbackslash{}", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "|": r"\textbar{}"},
    **{"<": r"\textless{}", ">": r"\textgreater{}", '"': "{''}", "±": r"$\pm$", "≈": r"$\approx$", "²": r"$^2$"},
    **{"\u2212": "$-$", "↓": r"$\downarrow$", "\u00a0": "~", "…": r"\dots{}"},
}


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table.

    >>> print(markdown(["head", "mIoU"], [["gw", "0.5"]]))
    | head | mIoU |
    | --- | --- |
    | gw | 0.5 |
    """
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def markdown_text(text: str) -> str:
    """A user's words as Markdown that shows them as they are.

    >>> print(markdown_text("<b>&a_1|*"))
    &lt;b&gt;&amp;a\\_1\\|\\*
    """
    text = _one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|~$#])", r"\\\1", text)


def csv(header: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    r"""A CSV table with numbers in full and None as nothing; no spreadsheet takes a cell for a formula.

    >>> print(csv(["model", "score"], [["=cmd", 0.1 + 0.2], ["-1", None]]), end="")
    model,score
    '=cmd,0.30000000000000004
    -1,
    """
    out = io.StringIO()
    lines = writer.writer(out, lineterminator="\n")
    for row in [header, *rows]:
        lines.writerow([_plain(cell) for cell in row])
    return out.getvalue()


def latex_text(text: str) -> str:
    r"""A user's words as LaTeX that prints them as they are.

    >>> print(latex_text("50 % of a_1 & <b>"))
    50 \% of a\_1 \& \textless{}b\textgreater{}
    >>> print(latex_text("[-0.1, 2e-05] ViT-16"))
    [$-$0.1, 2e-05] ViT-16
    """
    escaped = "".join(_LATEX.get(sign, sign) for sign in _one_line(text))
    return re.sub(r"(?<![\w}])-(?=\d)", "$-$", escaped)


def latex(header: Sequence[str], rows: Sequence[Sequence[str]], align: str, caption: str, label: str) -> str:
    """A booktabs table that may run over pages (longtable); room where the first column changes."""
    lines = [
        rf"\begin{{longtable}}{{@{{}}{align}@{{}}}}",
        rf"\caption{{{caption}}}\label{{{label}}}\\",
        r"\toprule",
        " & ".join(header) + r" \\",
        r"\midrule",
        r"\endfirsthead",
        r"\toprule",
        " & ".join(header) + r" \\",
        r"\midrule",
        r"\endhead",
        r"\bottomrule",
        r"\endlastfoot",
    ]
    for number, row in enumerate(rows):
        if number and row[0] != rows[number - 1][0]:
            lines.append(r"\addlinespace")
        lines.append(" & ".join(row) + r" \\")
    return "\n".join([*lines, r"\end{longtable}"])


def show(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """The same table on the terminal."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for number, name in enumerate(header):
        table.add_column(name, justify="left" if number == 0 else "right", no_wrap=number == 0)
    for row in rows:
        table.add_row(*row)
    terminal = Console()
    (terminal if terminal.is_terminal else Console(width=LOG_WIDTH)).print(table)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _plain(cell: Cell) -> str:
    if not isinstance(cell, str):
        return "" if cell is None else repr(cell)
    if not cell.startswith(("=", "+", "-", "@", "\t", "\r")):
        return cell
    try:
        float(cell)
    except ValueError:
        return f"'{cell}"
    return cell
