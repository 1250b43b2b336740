"""A report as its readers see it: the page taken apart, and the table of the terminal."""

from __future__ import annotations

import io
from html.parser import HTMLParser

from rich.console import Console

from pipeline.cli.tables import result_table
from pipeline.report.model import Report


class Page(HTMLParser):
    """What the tests look at in a page."""

    void = frozenset({"meta", "link", "br", "img", "input", "hr"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.references: list[str] = []
        self.ids: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.append((tag, values))
        if tag not in self.void:
            self.open.append(tag)
        links = ("src", "href", "xlink:href", "action", "data", "srcset", "poster")
        self.references += [values[name] or "" for name in links if name in values]
        self.ids += [values["id"] or ""] if "id" in values else []

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.void:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.text += data


def shown(report: Report, width: int = 80) -> str:
    console = Console(width=width, file=io.StringIO(), record=True)
    for part in result_table(report):
        console.print(part, soft_wrap=isinstance(part, str))
    return console.export_text()
