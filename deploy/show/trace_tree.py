"""Draws traces as trees in the terminal."""

from collections.abc import Iterator

from rich.markup import escape
from rich.tree import Tree

from deploy.show.printable import printable
from deploy.show.traces import Found, Span


def draw(found: Found) -> Iterator[Tree]:
    """One tree per trace. A span whose parent was not recorded is a root of its own.

    Where a span links to another trace, that trace is nested below it, once; its own links are not followed, since
    a batch links back to all of its events.
    """
    nested: set[str] = set(found.traces)
    for trace_id, spans in found.traces.items():
        services = len({span.service for span in spans})
        took_ms = (max(span.end_ns for span in spans) - spans[0].start_ns) / 1e6
        size = f"{_count(len(spans), 'span')}, {_count(services, 'service')}, {took_ms:.1f} ms"
        tree = Tree(f"[bold]trace {trace_id}[/bold]  {size}")
        _Drawing(found, nested, spans[0].start_ns, follow_links=True).hang(tree, spans)
        yield tree


class _Drawing:
    """Hangs the spans of one trace on a tree; offsets are counted from `origin_ns`."""

    def __init__(self, found: Found, nested: set[str], origin_ns: int, *, follow_links: bool) -> None:
        self._found = found
        self._nested = nested
        self._origin_ns = origin_ns
        self._follow_links = follow_links

    def hang(self, tree: Tree, spans: list[Span]) -> None:
        """Hang the spans below `tree`, each below its parent."""
        known = {span.span_id for span in spans}
        children: dict[str | None, list[Span]] = {}
        for span in spans:
            parent = span.parent_id if span.parent_id in known else None
            children.setdefault(parent, []).append(span)
        self._hang_children(tree, None, children)

    def _hang_children(self, tree: Tree, parent: str | None, children: dict[str | None, list[Span]]) -> None:
        for span in children.get(parent, ()):
            branch = tree.add(_line(span, self._origin_ns))
            self._hang_children(branch, span.span_id, children)
            if self._follow_links:
                self._hang_links(branch, span)

    def _hang_links(self, branch: Tree, span: Span) -> None:
        for trace_id in dict.fromkeys(trace_id for trace_id, _ in span.links):
            if trace_id in self._nested or trace_id not in self._found.linked:
                continue
            self._nested.add(trace_id)
            linked = branch.add(f"[magenta]linked trace {trace_id}[/magenta]")
            drawing = _Drawing(self._found, self._nested, self._origin_ns, follow_links=False)
            drawing.hang(linked, self._found.linked[trace_id])


def _line(span: Span, origin_ns: int) -> str:
    offset_ms = (span.start_ns - origin_ns) / 1e6
    took_ms = (span.end_ns - span.start_ns) / 1e6
    error = f"  [bold red]error: {escape(printable(span.error))}[/bold red]" if span.error else ""
    links = f"  {_count(len(span.links), 'link')}" if len(span.links) > 1 else ""
    name = f"[cyan]{escape(printable(span.service))}[/cyan]  {escape(printable(span.name))}"
    return f"{name}  [dim]{span.kind}[/dim]  {took_ms:.1f} ms  [dim]{offset_ms:+.1f} ms{links}[/dim]{error}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
