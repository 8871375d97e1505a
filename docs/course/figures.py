"""Draws the course's figure: two windows of an image, and where their taps lie in memory.

    python docs/course/figures.py
"""

from pathlib import Path

IMAGE = Path(__file__).parent.parent / "images" / "course-offset-table.svg"
ROWS, COLUMNS, WINDOW = 4, 5, 3
CORNERS = (1, "#3b6fb6"), (7, "#d9661f")
SIDE, INK, GREY, PALE = 34, "#1f2430", "#6b7280", "#d8dce3"


def taps():
    """The table of offsets."""
    return [u * COLUMNS + v for u in range(WINDOW) for v in range(WINDOW)]


def text(x, y, words, colour=INK, size=14, anchor="middle"):
    return f'<text x="{x}" y="{y}" fill="{colour}" font-size="{size}" text-anchor="{anchor}">{words}</text>'


def cell(x, y, words, fill="white", opacity=1.0):
    """A pixel: a box with its place in memory."""
    box = f'<rect x="{x}" y="{y}" width="{SIDE}" height="{SIDE}"'
    return (f'{box} fill="white" stroke="{PALE}"/>{box} fill="{fill}" fill-opacity="{opacity}" stroke="{PALE}"/>'
            + text(x + SIDE / 2, y + SIDE / 2 + 5, words))


def image(x, y):
    """The image with the frames of both windows."""
    parts = [cell(x + i % COLUMNS * SIDE, y + i // COLUMNS * SIDE, i) for i in range(ROWS * COLUMNS)]
    for corner, colour in CORNERS:
        left, top = x + corner % COLUMNS * SIDE, y + corner // COLUMNS * SIDE
        parts.append(f'<rect x="{left + 2}" y="{top + 2}" width="{WINDOW * SIDE - 4}" height="{WINDOW * SIDE - 4}" '
                     f'fill="{colour}" fill-opacity="0.16" stroke="{colour}" stroke-width="3" rx="4"/>')
    return parts


def memory(x, y, corner, colour):
    """The line of all pixels, and below each tap of a window how far it lies behind the corner."""
    parts = [text(x, y - 8, f"the window at pixel {corner}", colour, 15, "start")]
    for i in range(ROWS * COLUMNS):
        inside = i - corner in taps()
        parts.append(cell(x + i * SIDE, y, i, colour if inside else "white", 0.3 if inside else 1.0))
        if inside:
            parts.append(text(x + (i + 0.5) * SIDE, y + SIDE + 17, f"+{i - corner}", colour, 13))
    return parts


def drawing():
    """The whole figure as SVG."""
    width, height = ROWS * COLUMNS * SIDE + 40, 390
    parts = [f'<rect width="{width}" height="{height}" fill="white"/>', *image(20, 20)]
    words = (f"an image of {ROWS} rows and {COLUMNS} columns,", "two windows of 3 × 3;",
             "below: the same pixels, as they lie in memory")
    parts += [text(20 + COLUMNS * SIDE + 30, 60 + 24 * i, line, GREY, 15, "start") for i, line in enumerate(words)]
    for number, (corner, colour) in enumerate(CORNERS):
        parts += memory(20, 212 + 94 * number, corner, colour)
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
            f'font-family="sans-serif">{"".join(parts)}</svg>\n')


if __name__ == "__main__":
    IMAGE.write_text(drawing(), "utf-8")
