"""Small drawings as inline SVG. Colours are CSS classes, so that dark and light both work."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from markupsafe import Markup, escape

from ganglion.report import numbers

Point = tuple[float, float]
WIDTH, HEIGHT = 380, 216
LEFT, RIGHT, TOP, BOTTOM = 50, 12, 12, 24
LIMIT = 300  # points drawn per line
SKIPS = 200  # marks drawn


@dataclass(frozen=True)
class Line:
    """One curve: a label, (x, y) points in order, and the class that colours it (c0 to c7)."""

    label: str
    points: Sequence[Point]
    css: str = "c0"
    smooth: bool = False  # draw the raw curve pale and its running mean on top
    dots: bool = False


@dataclass(frozen=True)
class Chart:
    """One small chart; the y axis is logarithmic where that shows more."""

    title: str
    lines: Sequence[Line]
    x_label: str = "step"
    marks: Mapping[str, float] = field(default_factory=dict)  # label -> x of a dashed line
    skips: Sequence[float] = ()  # x of steps that were left out
    scale: Literal["auto", "linear"] = "auto"
    unit: str = "1"

    @property
    def logarithmic(self) -> bool:
        """Say whether the y axis is: all values positive, and more than a factor 20 apart."""
        values = [y for line in self.lines for x, y in line.points if _finite((x, y))]
        if self.scale == "linear" or not values or min(values) <= 0:
            return False
        return max(values) > 20 * min(values)


def chart(spec: Chart) -> Markup:
    """Draw a chart as <figure>, or "" where there is no finite point."""
    points = [p for line in spec.lines for p in line.points if _finite(p)]
    if not points:
        return Markup("")
    xs = [x for x, _ in points] + [x for x in (*spec.marks.values(), *spec.skips) if x == x]
    x_axis = _Axis.over(xs, LEFT, WIDTH - RIGHT, log=False)
    ys = [y for _, y in points]
    log = spec.logarithmic
    y_axis = _Axis.over(ys, HEIGHT - BOTTOM, TOP, log=log, room=0.05)
    body = [*_frame(x_axis, y_axis, spec)]
    for line in spec.lines:
        body += _curve(line, x_axis, y_axis)
    for label, x in spec.marks.items():
        if math.isfinite(x):
            body.append(_mark(str(label), x_axis.at(x)))
    body += _skips(spec.skips, x_axis)
    title = spec.title + (" (log)" if log else "")
    picture = Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, HEIGHT, title, Markup("").join(body)
    )
    keys = Markup("").join(
        Markup('<span class="key"><i class="{}"></i>{}</span>').format(line.css, line.label)
        for line in spec.lines
        if any(_finite(p) for p in line.points)
    )
    if spec.skips:
        said = f"left out ({len(spec.skips)})"
        keys += Markup('<span class="key"><i class="skipkey"></i>{}</span>').format(said)
    return Markup(
        '<figure class="chart"><figcaption><b>{}</b> <span class="keys">{}</span></figcaption>'
        "{}</figure>"
    ).format(title, keys, picture)


def bars(
    estimates: Sequence[tuple[float | None, float | None, float | None]],
) -> list[Markup]:
    """Draw (value, low, high) of one column as small interval bars on one shared scale."""
    known = [x for row in estimates for x in row if x is not None]
    values = [row[0] for row in estimates if row[0] is not None]
    if len(values) < 2 or min(known) == max(known):
        return [Markup("")] * len(estimates)
    positive = [x for x in known if x > 0]
    log = min(known) >= 0 and bool(positive) and max(known) > 100 * min(positive)
    axis = _Axis.over(positive if log else known, 4, 92, log=log, snap=False)
    out = []
    for value, low, high in estimates:
        if value is None:
            out.append(Markup(""))
            continue
        floor = min(positive) if log else -math.inf
        at = axis.at(max(value, floor))
        left = axis.at(max(value if low is None else low, floor))
        right = axis.at(max(value if high is None else high, floor))
        out.append(
            Markup(
                '<svg class="bar" viewBox="0 0 96 10" aria-hidden="true">'
                '<line class="rail" x1="2" y1="5" x2="94" y2="5"/>'
                '<line class="span" x1="{:.1f}" y1="5" x2="{:.1f}" y2="5"/>'
                '<circle class="dot" cx="{:.1f}" cy="5" r="3"/></svg>'
            ).format(left, max(right, left + 0.5), at)
        )
    return out


# ---------------------------------------------------------------- axes


@dataclass(frozen=True)
class _Axis:
    """A scale from data [low, high] to pixels [start, stop]."""

    low: float
    high: float
    start: float
    stop: float
    log: bool

    @classmethod
    def over(
        cls, values: Sequence[float], start: float, stop: float, *, log: bool,
        room: float = 0.0, snap: bool = True,
    ) -> _Axis:  # fmt: skip
        low, high = min(values), max(values)
        if log:
            positive = [v for v in values if v > 0]
            low = math.log10(min(positive))
            high = math.log10(max(positive))
        if high - low < 1e-12 * max(abs(low), abs(high), 1e-30):
            pad = abs(high) * 0.1 if high and not log else 0.5
            low, high = low - pad, high + pad
        pad = room * (high - low)
        if snap and not log and 0 <= low < 0.3 * high:
            low, pad_low = 0.0, 0.0
        else:
            pad_low = pad
        return cls(low - pad_low, high + pad, start, stop, log)

    def at(self, value: float) -> float:
        if self.log:
            value = math.log10(value) if value > 0 else self.low
        share = (value - self.low) / (self.high - self.low)
        return self.start + min(max(share, 0.0), 1.0) * (self.stop - self.start)

    def ticks(self, wanted: int) -> list[float]:
        if self.log:
            first, last = math.ceil(self.low - 1e-9), math.floor(self.high + 1e-9)
            every = max(1, math.ceil((last - first) / wanted))
            decades = [10.0**k for k in range(first, last + 1, every)]
            if len(decades) >= 3:
                return decades
            fine = [m * 10.0**k for k in range(first - 1, last + 1) for m in (1, 2, 5)]
            inside = [v for v in fine if self.low <= math.log10(v) <= self.high]
            return inside if len(inside) > 1 else [10**self.low, 10**self.high]
        raw = (self.high - self.low) / wanted
        base = 10.0 ** math.floor(math.log10(raw))
        step = next(m * base for m in (1, 2, 5, 10) if m * base >= raw * 0.999)
        first_tick = math.ceil(self.low / step - 1e-9)
        last_tick = math.floor(self.high / step + 1e-9)
        return [k * step for k in range(first_tick, last_tick + 1)]


def _finite(point: Point) -> bool:
    return math.isfinite(point[0]) and math.isfinite(point[1])


def _frame(x_axis: _Axis, y_axis: _Axis, spec: Chart) -> list[Markup]:
    out = []
    for tick in y_axis.ticks(4):
        y = y_axis.at(tick)
        shown = tick * 100 if spec.unit == "%" else tick
        out.append(
            Markup(
                '<line class="grid" x1="{}" y1="{y:.1f}" x2="{}" y2="{y:.1f}"/>'
                '<text class="tick" x="{}" y="{ty:.1f}" text-anchor="end">{}</text>'
            ).format(LEFT, WIDTH - RIGHT, LEFT - 6, numbers.number(shown), y=y, ty=y + 3.5)
        )
    for tick in x_axis.ticks(4):
        x, inside = (
            x_axis.at(tick),
            x_axis.at(tick) < WIDTH - 40,
        )  # the last label ends in the frame
        text = Markup('<text class="tick" x="{:.1f}" y="{}" text-anchor="{}">{}</text>')
        shown_at = (x, "middle") if inside else (x + 6, "end")
        out += [text.format(shown_at[0], HEIGHT - BOTTOM + 15, shown_at[1], numbers.number(tick))]
    out.append(
        Markup('<line class="axis" x1="{}" y1="{y}" x2="{}" y2="{y}"/>').format(
            LEFT, WIDTH - RIGHT, y=HEIGHT - BOTTOM
        )
    )
    out.append(
        Markup('<text class="tick" x="{}" y="{}" text-anchor="end">{}</text>').format(
            LEFT - 14, HEIGHT - BOTTOM + 15, spec.x_label
        )
    )
    return out


# ---------------------------------------------------------------- curves


def _curve(line: Line, x_axis: _Axis, y_axis: _Axis) -> list[Markup]:
    pieces = _pieces(line.points, y_axis.log)
    many = line.smooth and sum(map(len, pieces)) > 60
    out = [_path(thin(p), x_axis, y_axis, f"{line.css} {'raw' if many else ''}") for p in pieces]
    if many:
        out += [_path(thin(running_mean(p)), x_axis, y_axis, line.css) for p in pieces]
    points = [p for piece in pieces for p in piece]
    if (line.dots and len(points) <= 60) or any(len(p) == 1 for p in pieces):
        alone = points if line.dots else [p[0] for p in pieces if len(p) == 1]
        out += [
            Markup('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="2.4"><title>{}</title></circle>')
            .format(line.css, x_axis.at(x), y_axis.at(y), f"{numbers.number(x)}: {y:.4g}")
            for x, y in alone
        ]  # fmt: skip
    return out


def _pieces(points: Sequence[Point], log: bool) -> list[list[Point]]:
    """Cut a curve where a value is missing; a log axis has no place for zero and below."""
    pieces: list[list[Point]] = [[]]
    for point in points:
        if _finite(point) and not (log and point[1] <= 0):
            pieces[-1].append(point)
        elif pieces[-1]:
            pieces.append([])
    return [p for p in pieces if p]


def thin(points: Sequence[Point], limit: int = LIMIT) -> list[Point]:
    """Keep at most about `limit` points: of each bucket the lowest and the highest, in order."""
    if len(points) <= limit:
        return list(points)
    width = math.ceil(2 * len(points) / limit)
    out: list[Point] = [points[0]]
    for start in range(0, len(points), width):
        bucket = points[start : start + width]
        ends = {min(bucket, key=lambda p: p[1]), max(bucket, key=lambda p: p[1])}
        out += sorted(ends)
    out.append(points[-1])
    return out


def running_mean(points: Sequence[Point]) -> list[Point]:
    """Average each point with its neighbours: a centred window of a twenty-fifth of the curve."""
    half = max(1, len(points) // 50)
    sums = [0.0]
    for _, y in points:
        sums.append(sums[-1] + y)
    out = []
    for i, (x, _) in enumerate(points):
        reach = min(half, i, len(points) - 1 - i)  # symmetric, so that ends are not dragged
        a, b = i - reach, i + reach + 1
        out.append((x, (sums[b] - sums[a]) / (b - a)))
    return out


def _path(points: Sequence[Point], x_axis: _Axis, y_axis: _Axis, css: str) -> Markup:
    steps = " ".join(f"{x_axis.at(x):.1f},{y_axis.at(y):.1f}" for x, y in points)
    return Markup('<polyline class="{}" points="{}"/>').format(css.strip(), steps)


def _mark(label: str, x: float) -> Markup:
    near_right = x > WIDTH - 90
    return Markup(
        '<line class="mark" x1="{x:.1f}" y1="{}" x2="{x:.1f}" y2="{}"/>'
        '<text class="marklabel" x="{tx:.1f}" y="{}" text-anchor="{}">{}</text>'
    ).format(
        TOP, HEIGHT - BOTTOM, TOP + 8, "end" if near_right else "start", escape(label),
        x=x, tx=x - 4 if near_right else x + 4,
    )  # fmt: skip


def _skips(skips: Sequence[float], x_axis: _Axis) -> list[Markup]:
    y = HEIGHT - BOTTOM
    return [
        Markup('<path class="skip" d="M{a:.1f},{t} L{b:.1f},{u} M{a:.1f},{u} L{b:.1f},{t}">'
               "<title>step {s} left out: not finite</title></path>")
        .format(a=x_axis.at(x) - 3, b=x_axis.at(x) + 3, t=y - 9, u=y - 3, s=numbers.number(x))
        for x in list(skips)[:SKIPS]
    ]  # fmt: skip
