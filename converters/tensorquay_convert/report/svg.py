"""What every plot needs: an inline SVG with a title, and texts that fit. Pure: values in, markup out.

No script, no library, no file beside the page. Colours come from the page's classes (`style.py`), so they follow light
and dark; nothing is told by colour alone.
"""

from __future__ import annotations

from html import escape

from tensorquay_convert.report.html import plain

WIDTH = 640


def start(height: float, title: str, identity: str, *, width: float = WIDTH, small: bool = False) -> str:
    """The opening tag and the title; `identity` is the title's, unique in the page."""
    kind = "plot small" if small else "plot"
    return (
        f'<svg class="{kind}" viewBox="0 0 {width:g} {height:g}" role="img" aria-labelledby="{escape(identity)}" '
        f'xmlns="http://www.w3.org/2000/svg"><title id="{escape(identity)}">{escape(plain(title))}</title>'
    )


def label(x: float, y: float, said: object, kind: str = "tick", anchor: str = "middle") -> str:
    """A text; `anchor`: start, middle or end."""
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(plain(said))}</text>'


def line(kind: str, x1: float, y1: float, x2: float, y2: float) -> str:
    """A straight line."""
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def rect(kind: str, x: float, y: float, width: float, height: float) -> str:
    """A rectangle; what would be negative is nothing."""
    return (
        f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{max(0.0, width):.1f}" height="{max(0.0, height):.1f}"/>'
    )


def short(name: str, most: int) -> str:
    """Both ends of a name that is too long: paths differ at the end, and begin with what tells where they are."""
    if len(name) <= most:
        return name
    head = most // 3
    return f"{name[:head]}…{name[head + 1 - most :]}"
