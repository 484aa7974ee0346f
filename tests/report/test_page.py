"""Colours of the report's page: contrast by WCAG 2.2, 1.4.3 (text) and 1.4.11 (lines)."""

import re

import pytest

from majl_jax.report import page

TEXT, LINES = {"ink", "soft", "good", "bad"}, {"train", "valid", "truth", "estimate"}
HEX = r"#[0-9a-f]{3,6}"


def _luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(2 * c for c in colour[1:])
    shares = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in shares]
    return sum(w * x for w, x in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def _contrast(one: str, other: str) -> float:
    darker, lighter = sorted((_luminance(one), _luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


PALETTES = [
    dict(re.findall(rf"--(\w+): ({HEX})", block))
    for block in re.findall(r":root \{(.*?)\}", page.STYLE, re.DOTALL)
]
MANY = [
    re.findall(rf"--many: ({HEX})", block)
    for block in re.findall(r"(?:\.c\d \{[^}]*\}\s*)+", page.STYLE)
]


@pytest.mark.parametrize("number", range(3), ids=["light", "dark", "print"])
def test_text_and_lines_stand_out(number):
    colours = dict(PALETTES[number])
    grounds = [colours.pop("page"), colours.pop("card")]
    assert colours.keys() - {"line"} == TEXT | LINES
    assert len(MANY[number]) == page.COLOURS
    for ground in grounds:
        for name in TEXT:
            assert _contrast(colours[name], ground) >= 4.5, name
        for colour in [*(colours[name] for name in LINES), *MANY[number]]:
            assert _contrast(colour, ground) >= 3, colour


def test_contrast_is_that_of_the_standard():
    assert _contrast("#000", "#ffffff") == pytest.approx(21)
    assert _contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)
